//! What the data symbols of an image are known by.

use std::borrow::Cow;

use hpbuild_metadata::{Base, Fixed, Side};
use rayon::prelude::*;
use rustc_hash::FxHashSet;

use crate::image::{DataSymbol, Image};
use crate::names::{Marks, is_joint_object, is_position_in_linkage, of_type};
use crate::pair::homes::{Home, Homes};

/// The data symbols of one image as keys.
pub(super) struct Keys<'a, S: Side> {
    pub(super) image: &'a Image<S>,
    pub(super) homes: Homes<'a, S>,
    /// See [`unsure`].
    unsure: &'a [bool],
    /// The places of all compilands.
    compilands: FxHashSet<&'a str>,
}

impl<'a, S: Side> Keys<'a, S> {
    pub(super) fn new(image: &'a Image<S>, homes: Homes<'a, S>, unsure: &'a [bool]) -> Self {
        let compilands = image.compilands.iter().map(|it| &*it.place);
        Self {
            image,
            homes,
            unsure,
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

    /// The same without what counts lambdas, closures and `impl` blocks.
    pub(super) fn lasting_name(&self, index: u32) -> Cow<'a, str> {
        match self.unsure[index as usize] {
            true => of_type(self.name(index)),
            false => self.name(index).into(),
        }
    }

    /// Whether its names, or that of its home, may be another one's in another build.
    pub(super) fn is_unsure(&self, index: u32) -> bool {
        self.unsure[index as usize] || self.homes.of(index).is_some_and(|it| is_counted(&it.name))
    }

    /// Whether only link-time optimisation makes its name unsure: nothing in it, or in that of its home, is
    /// counted.
    pub(super) fn is_joint(&self, index: u32) -> bool {
        let symbol = self.symbol(index);
        let linkage = symbol.decorated.as_deref();
        let home = self.homes.of(index);
        self.unsure[index as usize]
            && !is_counted(&symbol.name)
            && !linkage.is_some_and(is_position_in_linkage)
            && !home.is_some_and(|it| is_counted(&it.name))
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
    ) -> Option<(Cow<'a, str>, u32)> {
        let procedure = base_procedure(self.homes.of(index)?.procedure?)?;
        Some((self.lasting_name(index), procedure))
    }

    /// As [`Keys::in_body`], with the type.
    pub(super) fn in_typed_body(
        &self,
        index: u32,
        base_procedure: impl Fn(u32) -> Option<u32>,
    ) -> Option<(Cow<'a, str>, u32, u64)> {
        let (name, procedure) = self.in_body(index, base_procedure)?;
        Some((name, procedure, self.kind(index)))
    }

    /// The name, that of the function that declares it, and the compiland.
    pub(super) fn at_home(&self, index: u32) -> Option<(&'a str, &str, &'a str)> {
        let home: &Home = self.homes.of(index).filter(|_| !self.is_unsure(index))?;
        Some((self.name(index), &home.name, self.short_compiland(index)))
    }

    /// As [`Keys::at_home`], with the type.
    pub(super) fn at_typed_home(&self, index: u32) -> Option<(&'a str, &str, &'a str, u64)> {
        let (name, home, compiland) = self.at_home(index)?;
        Some((name, home, compiland, self.kind(index)))
    }

    /// The name and the compiland of data that lives in no function.
    pub(super) fn in_compiland(&self, index: u32) -> Option<(&'a str, &'a str)> {
        let is_outside = !self.is_local(index) && !self.is_unsure(index);
        is_outside.then(|| (&*self.symbol(index).name, self.short_compiland(index)))
    }

    /// As [`Keys::in_compiland`], where other compilands have the same short name.
    pub(super) fn in_place(&self, index: u32) -> Option<(&'a str, &'a str)> {
        let place = self.place(index)?;
        let is_outside = !self.is_local(index) && !self.is_unsure(index);
        let tells = is_outside && place != self.short_compiland(index);
        tells.then(|| (&*self.symbol(index).name, place))
    }
}

/// For each data symbol whether its name may be another one's in another build: it counts lambdas, closures
/// or `impl` blocks, or its source alone can name it and is one of several that link-time optimisation
/// made one object of.
pub(super) fn unsure<S: Side>(image: &Image<S>) -> Vec<bool> {
    let compilands = image.compilands.iter();
    let joint: Vec<bool> = compilands.map(|it| is_joint_object(&it.name)).collect();
    let symbols = image.data.par_iter().with_min_len(1 << 10);
    let is_unsure = |symbol: &DataSymbol<S>| {
        let compiland = symbol.compiland.filter(|_| !symbol.global);
        let linkage = symbol.decorated.as_deref();
        compiland.is_some_and(|it| joint.get(it.index()) == Some(&true))
            || is_counted(&symbol.name)
            || linkage.is_some_and(is_position_in_linkage)
    };
    symbols.map(is_unsure).collect()
}

fn is_counted(name: &str) -> bool {
    let marks = Marks::of(name);
    marks.is_position || marks.has_impl_numbers
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
    // A lambda has another number in its name, and is the same one.
    let is_other = of_type(&before.name) != of_type(&after.name);
    is_other && (f.homes.has_function(&before.name) || b.homes.has_function(&after.name))
}
