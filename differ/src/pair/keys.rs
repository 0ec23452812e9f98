//! What the procedures of an image are known by.

use std::borrow::Cow;

use hpbuild_metadata::{FunctionId, Side};
use rayon::prelude::*;
use rustc_hash::FxHashSet;

use crate::image::{Function, Image, Procedure};
use crate::names::{self, Marks};

use super::places::Places;
use super::sites::Renamed;

/// `CV_CFL_CXX`; C is the only language with a lower number.
const CXX: u8 = 1;

/// The procedures of one image as keys.
pub(super) struct Names<'a, S: Side> {
    pub(super) image: &'a Image<S>,
    /// For each procedure the function it names.
    pub(super) owners: &'a [FunctionId<S>],
    /// For each procedure what its name holds: every tier asks.
    marks: Vec<Marks>,
    /// Names that are written with the places of the other side.
    renamed: Option<&'a Renamed>,
    /// Procedures that the other side does not have, whatever is alike in their names.
    alone: Option<&'a FxHashSet<u32>>,
    places: Places<'a, S>,
}

impl<'a, S: Side> Names<'a, S> {
    pub(super) fn new(image: &'a Image<S>, owners: &'a [FunctionId<S>]) -> Self {
        let marks = image.procedures.par_iter().with_min_len(1 << 10);
        Self {
            image,
            owners,
            marks: marks.map(marks_of).collect(),
            renamed: None,
            alone: None,
            places: Places::new(image),
        }
    }

    fn procedure(&self, index: u32) -> &'a Procedure {
        &self.image.procedures[index as usize]
    }

    fn marks(&self, index: u32) -> Marks {
        self.marks[index as usize]
    }

    fn function(&self, index: u32) -> &'a Function<S> {
        self.image.function(self.owners[index as usize])
    }

    /// The same with other names.
    pub(super) fn renamed(mut self, renamed: &'a Renamed) -> Self {
        if !renamed.is_empty() {
            for (index, marks) in (0..).zip(&mut self.marks) {
                marks.is_plain &= !renamed.contains_key(&index);
            }
        }
        self.renamed = Some(renamed);
        self
    }

    /// The linkage name.
    pub(super) fn linkage(&self, index: u32) -> Option<&'a str> {
        self.procedure(index).decorated.as_deref()
    }

    /// The same where some have no namesakes on the other side.
    pub(super) fn without_namesakes(self, alone: &'a FxHashSet<u32>) -> Self {
        Self {
            alone: Some(alone),
            ..self
        }
    }

    fn is_alone(&self, index: u32) -> bool {
        !self.is_plain(index) && self.alone.is_some_and(|alone| alone.contains(&index))
    }

    pub(super) fn name(&self, index: u32) -> &'a str {
        let renamed = self.renamed.filter(|_| !self.is_plain(index));
        let renamed = renamed.and_then(|names| names.get(&index));
        renamed.unwrap_or(&self.procedure(index).name)
    }

    /// Whether the name has nothing that another build may have otherwise.
    pub(super) fn is_plain(&self, index: u32) -> bool {
        self.marks(index).is_plain
    }

    /// Whether the name counts lambdas or closures.
    pub(super) fn is_counted(&self, index: u32) -> bool {
        self.marks(index).is_position
    }

    /// Whether a compiler made the name.
    pub(super) fn is_generated(&self, index: u32) -> bool {
        names::is_generated(self.name(index))
    }

    /// The name, where it is more than a number, or than a position.
    fn telling_name(&self, index: u32) -> Option<&'a str> {
        let marks = self.marks(index);
        (!marks.is_only_numbered && !marks.is_position).then(|| self.name(index))
    }

    /// A name that counts lambdas or closures, with what tells whether it is still the same one.
    pub(super) fn counted(
        &self,
        index: u32,
        content: Option<u64>,
    ) -> Option<(Cow<'a, str>, &'a str, u64)> {
        let linkage = self.procedure(index).decorated.as_deref();
        let linkage = names::without_rust_hash(linkage.unwrap_or_default());
        content
            .filter(|_| self.is_counted(index))
            .map(|content| (self.counted_name(index), linkage, content))
    }

    /// The name without the numbers of `impl` blocks; that of a lambda which has its place as well, without
    /// its number.
    fn counted_name(&self, index: u32) -> Cow<'a, str> {
        match names::without_position_beside_place(self.name(index)) {
            Some(placed) => placed.into(),
            None => self.name_without_impls(index),
        }
    }

    /// The name without the numbers of `impl` blocks.
    pub(super) fn name_without_impls(&self, index: u32) -> Cow<'a, str> {
        let name = self.name(index);
        let numbered = self.marks(index).has_impl_numbers.then_some(name);
        let stable = numbered.and_then(names::without_impl_numbers);
        stable.map_or(name.into(), Cow::Owned)
    }

    pub(super) fn decorated(&self, index: u32) -> Option<&'a str> {
        self.telling_name(index)?;
        self.procedure(index).decorated.as_deref()
    }

    fn place(&self, index: u32) -> Option<&str> {
        self.places.short(self.owners[index as usize])
    }

    /// What tells parts apart that have no name but a number.
    pub(super) fn numbered(&self, index: u32, content: Option<u64>) -> Option<(Option<&str>, u64)> {
        content
            .filter(|_| self.marks(index).is_only_numbered)
            .map(|content| (self.place(index), content))
    }

    /// The name, unless a number in it may be another one's in another build.
    pub(super) fn lasting_name(&self, index: u32) -> Option<&'a str> {
        let is_lasting = !self.marks(index).has_impl_numbers;
        self.telling_name(index).filter(|_| is_lasting)
    }

    /// As [`Names::lasting_name`], with the type.
    pub(super) fn typed_name(&self, index: u32) -> Option<(&'a str, u64)> {
        let name = self.lasting_name(index)?;
        let kind = self.procedure(index).type_index;
        Some((name, self.image.types.layout_hash(kind)))
    }

    /// Name, type and linkage name of a function that one source alone can name.
    pub(super) fn static_name(&self, index: u32) -> Option<(&'a str, u64, Option<&'a str>)> {
        let procedure = self.procedure(index);
        let (name, kind) = self.typed_name(index).filter(|_| !procedure.global)?;
        Some((name, kind, procedure.decorated.as_deref()))
    }

    /// The place of a function of C or C++ that only its own source can name.
    fn own_place(&self, index: u32) -> Option<&str> {
        let id = self.function(index).compiland?;
        let compiland = self.image.compilands.get(id.index())?;
        let language = compiland.tool.as_ref().map(|tool| tool.language);
        let is_own = !self.procedure(index).global && language.is_none_or(|it| it <= CXX);
        let place = self.places.exact(self.owners[index as usize]);
        place.filter(|_| is_own)
    }

    /// Whether two functions are static ones of sources that are in both images: namesakes, and not
    /// one that moved.
    pub(super) fn is_other<O: Side>(&self, index: u32, other: &Names<'_, O>, theirs: u32) -> bool {
        let (own, theirs) = (self.own_place(index), other.own_place(theirs));
        let both = own.zip(theirs).filter(|(own, theirs)| own != theirs);
        both.is_some_and(|(own, theirs)| other.places.has(own) && self.places.has(theirs))
    }

    pub(super) fn in_compiland(&self, index: u32) -> Option<(&'a str, &str)> {
        Some((self.lasting_name(index)?, self.place(index)?))
    }

    /// As [`Names::in_compiland`], with the meaning of the body.
    pub(super) fn at_content(
        &self,
        index: u32,
        content: Option<u64>,
    ) -> Option<(&'a str, &str, u64)> {
        let (name, place) = self.in_compiland(index)?;
        Some((name, place, content?))
    }

    /// As [`Names::in_compiland`], where other compilands have the same short name.
    pub(super) fn in_place(&self, index: u32) -> Option<(&'a str, &str)> {
        let place = self.places.exact(self.owners[index as usize])?;
        let is_shared = self.place(index) != Some(place);
        Some((self.lasting_name(index)?, place)).filter(|_| is_shared)
    }

    pub(super) fn decorated_in_compiland(&self, index: u32) -> Option<(&'a str, &str)> {
        Some((self.decorated(index)?, self.place(index)?))
    }

    pub(super) fn with_type(&self, index: u32) -> Option<(Cow<'a, str>, u64, &str)> {
        let kind = self
            .image
            .types
            .layout_hash(self.procedure(index).type_index);
        self.telling_name(index)?;
        let name = self.name_without_impls(index);
        Some((name, kind, self.place(index)?))
    }

    /// The name without its generated parts, where it has some, and the compiland.
    pub(super) fn generated(&self, index: u32) -> Option<(String, Option<&str>)> {
        match self.stable_name(index) {
            // These are told apart by what stands beside them.
            _ if self.is_of_lambda(index) => None,
            Cow::Owned(stable) => Some((stable, self.place(index))),
            Cow::Borrowed(_) => None,
        }
    }

    /// What compiler-made namesakes of one compiland have in common.
    pub(super) fn namesakes(&self, index: u32) -> Option<(Cow<'a, str>, &str)> {
        let compiland = self.place(index)?;
        let is_made = self.is_counted(index) || self.is_generated(index);
        is_made.then(|| (self.stable_name(index), compiland))
    }

    /// What lambdas have in common that any object may bring and one of them does: their function is
    /// inline or an instance of a template. Linkage names tell such functions.
    pub(super) fn shared_lambdas(&self, index: u32) -> Option<(Cow<'a, str>, Cow<'a, str>)> {
        let procedure = self.procedure(index);
        let linkage = procedure.decorated.as_deref()?;
        let is_shared = procedure.global && self.is_of_lambda(index);
        is_shared.then(|| (self.stable_name(index), names::of_type(linkage)))
    }

    /// Whether it is of a lambda or closure. MSVC has hashes for their positions.
    pub(super) fn is_of_lambda(&self, index: u32) -> bool {
        self.is_counted(index) || self.name(index).contains("<lambda_")
    }

    /// What orders the lambdas and closures of a function: the positions in its name, and its address.
    pub(super) fn order(&self, index: u32) -> (Vec<u32>, u32) {
        let linkage = self.procedure(index).decorated.as_deref();
        let positions = names::positions(self.name(index), linkage);
        (positions, self.function(index).rva.get())
    }

    /// The name without the parts that another build would number or hash otherwise.
    pub(super) fn stable_name(&self, index: u32) -> Cow<'a, str> {
        let name = self.name(index);
        match self.is_plain(index) || self.is_alone(index) {
            true => Cow::Borrowed(name),
            false => stable_name(name),
        }
    }
}

fn marks_of(procedure: &Procedure) -> Marks {
    let mut marks = Marks::of(&procedure.name);
    // What is made of a lambda is called after a place in the source, or after nothing in DWARF, and its
    // linkage name counts all the same.
    let linkage = procedure.decorated.as_deref();
    marks.is_position |= linkage.is_some_and(names::is_position_in_linkage);
    marks
}

/// A name without the parts that another build would number or hash otherwise.
pub(crate) fn stable_name(name: &str) -> Cow<'_, str> {
    let parts = names::without_generated_parts(name);
    let numbers = names::without_impl_numbers(parts.as_deref().unwrap_or(name));
    numbers.or(parts).map_or(Cow::Borrowed(name), Cow::Owned)
}
