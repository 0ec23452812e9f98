//! Ends of arrays. Code that walks an array may hold the address behind its last element, and
//! whatever comes next stands at that address: nothing in an image says which of the two is meant.

use std::ops::Range;

use hpbuild_metadata::{Base, DataId, Fixed, FunctionId, Rva, Side};

use super::content::pointer_at;
use super::extent::{is_ended_text, text_size};
use super::{Comparer, Target, is_read_only, resolve};
use crate::decode::{Back, Field, ReferenceKind, is_compared, is_kept_or_indexed, reaches_back};
use crate::image::{Image, PlacedReference};
use crate::names::is_vtable;

/// The data that ends at `rva` where `function` reaches into it, too, so that `rva` may be meant as
/// its end. The size must be certain.
pub fn ends_at<S: Side>(
    image: &Image<S>,
    function: FunctionId<S>,
    rva: Rva<S>,
) -> Option<DataId<S>> {
    let found = data_before(image, rva)?;
    let start = image.data_symbol(found).rva;
    let is_inside = |target: Rva<S>| start <= target && target < rva;
    let mut references = image.references_of(function).iter();
    let is_reached = references.any(|placed| {
        placed.reference.kind != ReferenceKind::Page && is_inside(placed.reference.target)
    });
    is_reached.then_some(found)
}

/// The data of a certain size that end at `rva`. Vtables do not count: nobody walks one.
pub fn data_before<S: Side>(image: &Image<S>, rva: Rva<S>) -> Option<DataId<S>> {
    let last = image
        .data
        .partition_point(|symbol| symbol.rva < rva)
        .checked_sub(1)?;
    let ends_here = |id: &DataId<S>| {
        let symbol = image.data_symbol(*id);
        let is_typed = symbol.sized_by_type && symbol.type_index != 0;
        let linkage = symbol.decorated.as_deref().unwrap_or_default();
        let is_walked = !is_vtable(&symbol.name) && !is_vtable(linkage);
        is_walked && is_typed && symbol.rva.checked_add(symbol.size) == Some(rva)
    };
    image.data_aliases(DataId::new(last)).find(ends_here)
}

/// Whether the data that end at `rva` are a text, which nobody walks from its end.
pub fn holds_text<S: Side>(image: &Image<S>, rva: Rva<S>) -> bool {
    data_before(image, rva).is_some_and(|id| {
        let symbol = image.data_symbol(id);
        let bytes = image.pe.bytes(symbol.rva, symbol.size);
        bytes.is_some_and(is_ended_text)
    })
}

/// Where arrays end whose contents are not the same; sorted.
pub(super) fn changed(image: &Image<Base>, data_same: &[bool]) -> Vec<Rva<Base>> {
    let symbols = image.data.iter().zip(data_same);
    let changed = symbols
        .filter(|(_, same)| !**same)
        .map(|(symbol, _)| symbol);
    let mut ends: Vec<_> = changed
        .filter(|symbol| symbol.sized_by_type && image.types.is_array(symbol.type_index))
        .filter_map(|symbol| symbol.rva.checked_add(symbol.size))
        .collect();
    ends.sort_unstable();
    ends
}

impl Comparer<'_> {
    /// Whether an operand of a base function takes the address behind an array of constants that
    /// changed, which the function does not reach otherwise, and reaches back from there: to the
    /// array.
    pub(crate) fn may_end_changed(
        &self,
        function: FunctionId<Base>,
        placed: &PlacedReference<Base>,
    ) -> bool {
        let rva = placed.reference.target;
        if placed.reference.kind != ReferenceKind::Address {
            return false;
        }
        let is_end = self.changed_ends.binary_search(&rva).is_ok();
        let code = || self.base.code_of(function);
        if !is_end || ends_at(self.base, function, rva).is_some() {
            return false;
        }
        match reaches_back(self.base.pe.machine, code(), placed.offset) {
            Some(Back::Itself) => true,
            // What has a name and begins there is handed to others more often, unless that is the only
            // way to the array.
            Some(Back::Callee) if holds_text(self.base, rva) => false,
            Some(Back::Callee) if matches!(resolve(self.base, rva), Target::Data { .. }) => {
                data_before(self.base, rva).is_some_and(|id| !self.is_reached(id))
            }
            Some(Back::Callee) => !self.is_own_text(function, rva),
            None => false,
        }
    }

    /// Whether a text without a name begins at `rva` that a function alone reaches, behind a static
    /// local of another one. Nobody would have put the text there for nothing, and the function
    /// cannot name the array.
    fn is_own_text(&self, function: FunctionId<Base>, rva: Rva<Base>) -> bool {
        let image = self.base;
        let end = text_size(image.pe.bytes_from(rva)).and_then(|size| rva.checked_add(size));
        let Some(end) = end else {
            return false;
        };
        let procedures = &image.function(function).procedures;
        let is_of_another = |id: DataId<Base>| {
            let parents = &image.data_symbol(id).parents;
            !parents.is_empty() && !parents.iter().any(|it| procedures.contains(it))
        };
        let mut readers = self.readers.0.of(image, rva);
        data_before(image, rva).is_some_and(is_of_another)
            && readers.all(|reader| reader == function)
            && !self.readers.0.any_in(image, Rva::new(rva.get() + 1)..end)
            && !self.is_pointed_into(&(rva..end))
    }

    /// Whether code or a pointer is known to lead into data of the base.
    pub fn is_reached(&self, id: DataId<Base>) -> bool {
        let symbol = self.base.data_symbol(id);
        let Some(end) = symbol.rva.checked_add(symbol.size) else {
            return true;
        };
        let places = symbol.rva..end;
        self.is_pointed_into(&places) || self.readers.0.any_in(self.base, places)
    }

    /// Whether a pointer of the base leads to one of these addresses.
    fn is_pointed_into(&self, places: &Range<Rva<Base>>) -> bool {
        let pointers = self.base.pe.base_relocations.iter();
        let mut pointers = pointers.filter_map(|place| pointer_at(self.base, *place, true));
        pointers.any(|target| places.contains(&target))
    }

    /// Whether both operands are meant as the end of the same array: of a type that has an end,
    /// and of no use but to be compared with. Otherwise it is what the linker happened to put
    /// there, and where that is something else, code was made to reach something else.
    pub(crate) fn both_end(
        &self,
        (base, b): (FunctionId<Base>, &PlacedReference<Base>),
        (fixed, f): (FunctionId<Fixed>, &PlacedReference<Fixed>),
    ) -> bool {
        let machine = self.base.pe.machine;
        let targets = (
            self.in_base(b.reference.target),
            self.in_fixed(f.reference.target),
        );
        // Where the function has no address of the array, the pointer that it compares is another's.
        let may_be_ends = || {
            takes_address(self.base, base, b.reference.target)
                && takes_address(self.fixed, fixed, f.reference.target)
        };
        self.end_alike((base, b), (fixed, f))
            && (!self.are_others(targets.0, targets.1) || may_be_ends())
            && is_compared(machine, self.base.code_of(base), b.offset)
            && is_compared(machine, self.fixed.code_of(fixed), f.offset)
    }

    /// Whether both operands make the end of the same array of constants of its start, whatever
    /// stands there.
    pub(crate) fn both_made_of_start(
        &self,
        (base, b): (FunctionId<Base>, &PlacedReference<Base>),
        (fixed, f): (FunctionId<Fixed>, &PlacedReference<Fixed>),
    ) -> bool {
        is_made_of_constants(self.base, base, b)
            && is_made_of_constants(self.fixed, fixed, f)
            && self.end_alike((base, b), (fixed, f))
    }

    /// Whether both operands take the address behind the same array.
    fn end_alike(
        &self,
        (base, b): (FunctionId<Base>, &PlacedReference<Base>),
        (fixed, f): (FunctionId<Fixed>, &PlacedReference<Fixed>),
    ) -> bool {
        let kinds = [b.reference.kind, f.reference.kind];
        if kinds != [ReferenceKind::Address; 2] {
            return false;
        }
        let ends = (
            ends_at(self.base, base, b.reference.target),
            ends_at(self.fixed, fixed, f.reference.target),
        );
        let (Some(before), Some(after)) = ends else {
            return false;
        };
        let symbol = self.base.data_symbol(before);
        self.paired_data(before, after).is_some() && self.base.types.is_array(symbol.type_index)
    }
}

/// Whether a function takes an address within the data that end at `rva`.
fn takes_address<S: Side>(image: &Image<S>, function: FunctionId<S>, rva: Rva<S>) -> bool {
    let start = data_before(image, rva).map(|id| image.data_symbol(id).rva);
    let mut references = image.references_of(function).iter().map(|it| it.reference);
    references.any(|it| {
        let is_inside = start.is_some_and(|start| start <= it.target && it.target < rva);
        it.kind == ReferenceKind::Address && is_inside
    })
}

/// Whether an operand makes an address of that of a constant, to be kept in the frame or used with an
/// index. Only MSVC is known to make one constant's address of another's: from other compilers it is
/// a place in the same constant.
fn is_made_of_constants<S: Side>(
    image: &Image<S>,
    function: FunctionId<S>,
    placed: &PlacedReference<S>,
) -> bool {
    let before = placed.reference.target.get().checked_sub(1);
    let code = || image.code_of(function);
    placed.reference.field == Field::Word { mask: 0 }
        && is_kept_or_indexed(image.pe.machine, code(), placed.offset)
        && !image.may_be_of_msvc(function)
        && before.is_some_and(|before| is_read_only(image, Rva::new(before)))
}
