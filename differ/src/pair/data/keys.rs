//! What the data symbols of an image are known by.

use hpbuild_metadata::{Base, Fixed, Side};
use rustc_hash::FxHashSet;

use crate::image::{DataSymbol, Image};
use crate::pair::homes::{Home, Homes};

/// The data symbols of one image as keys.
pub(super) struct Keys<'a, S: Side> {
    pub(super) image: &'a Image<S>,
    pub(super) homes: Homes<'a, S>,
    /// The places of all compilands.
    compilands: FxHashSet<&'a str>,
}

impl<'a, S: Side> Keys<'a, S> {
    pub(super) fn new(image: &'a Image<S>, homes: Homes<'a, S>) -> Self {
        let compilands = image.compilands.iter().map(|it| &*it.place);
        Self {
            image,
            homes,
            compilands: compilands.collect(),
        }
    }

    pub(super) fn symbol(&self, index: u32) -> &'a DataSymbol<S> {
        &self.image.data[index as usize]
    }

    /// The name without that of the function that declares it.
    pub(super) fn name(&self, index: u32) -> &'a str {
        let symbol = self.symbol(index);
        let function = symbol.declared_in.as_deref().unwrap_or_default();
        let inner = symbol.name.strip_prefix(function);
        let inner = inner.and_then(|it| it.strip_prefix("::"));
        inner.unwrap_or(&symbol.name)
    }

    pub(super) fn short_compiland(&self, index: u32) -> &'a str {
        let id = self.symbol(index).compiland;
        let compiland = id.and_then(|id| self.image.compilands.get(id.index()));
        compiland.map_or("", |it| &*it.short_name)
    }

    /// The compiland, told apart from its namesakes.
    pub(super) fn place(&self, index: u32) -> Option<&'a str> {
        let id = self.symbol(index).compiland?;
        Some(&*self.image.compilands.get(id.index())?.place)
    }

    pub(super) fn kind(&self, index: u32) -> u64 {
        self.image.types.layout_hash(self.symbol(index).type_index)
    }

    pub(super) fn is_local(&self, index: u32) -> bool {
        let symbol = self.symbol(index);
        symbol.declared_in.is_some() || !symbol.parents.is_empty()
    }

    /// The name, and the body of the function that declares it as the base numbers it.
    pub(super) fn in_body(
        &self,
        index: u32,
        base_procedure: impl Fn(u32) -> Option<u32>,
    ) -> Option<(&'a str, u32)> {
        let procedure = base_procedure(self.homes.of(index)?.procedure?)?;
        Some((self.name(index), procedure))
    }

    /// As [`Keys::in_body`], with the type.
    pub(super) fn in_typed_body(
        &self,
        index: u32,
        base_procedure: impl Fn(u32) -> Option<u32>,
    ) -> Option<(&'a str, u32, u64)> {
        let (name, procedure) = self.in_body(index, base_procedure)?;
        Some((name, procedure, self.kind(index)))
    }

    /// The name, that of the function that declares it, and the compiland.
    pub(super) fn at_home(&self, index: u32) -> Option<(&'a str, &str, &'a str)> {
        let home: &Home = self.homes.of(index)?;
        Some((self.name(index), &home.name, self.short_compiland(index)))
    }

    /// As [`Keys::at_home`], with the type.
    pub(super) fn at_typed_home(&self, index: u32) -> Option<(&'a str, &str, &'a str, u64)> {
        let (name, home, compiland) = self.at_home(index)?;
        Some((name, home, compiland, self.kind(index)))
    }

    /// The name and the compiland of data that lives in no function.
    pub(super) fn in_compiland(&self, index: u32) -> Option<(&'a str, &'a str)> {
        let is_outside = !self.is_local(index);
        is_outside.then(|| (&*self.symbol(index).name, self.short_compiland(index)))
    }

    /// As [`Keys::in_compiland`], where other compilands have the same short name.
    pub(super) fn in_place(&self, index: u32) -> Option<(&'a str, &'a str)> {
        let place = self.place(index)?;
        let tells = !self.is_local(index) && place != self.short_compiland(index);
        tells.then(|| (&*self.symbol(index).name, place))
    }
}

/// Whether two namesakes are of different objects or functions that have not just another name: one
/// of these is in both images.
pub(super) fn are_two(b: &Keys<'_, Base>, base: u32, f: &Keys<'_, Fixed>, fixed: u32) -> bool {
    if let (Some(before), Some(after)) = (b.place(base), f.place(fixed)) {
        let is_other = before != after;
        if is_other && f.compilands.contains(before) && b.compilands.contains(after) {
            return !(b.symbol(base).global && f.symbol(fixed).global);
        }
    }
    if b.is_local(base) != f.is_local(fixed) {
        return true;
    }
    let (Some(before), Some(after)) = (b.homes.of(base), f.homes.of(fixed)) else {
        return false;
    };
    let is_other = before.name != after.name;
    is_other && (f.homes.has_function(&before.name) || b.homes.has_function(&after.name))
}
