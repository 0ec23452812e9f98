//! Where constants without a name begin and end, by who reaches what stands beside them.
//!
//! Such a constant is cut where anything reaches in (see [`super::extent`]), and what stands behind
//! the cut may be its rest. Where it differs, the one who made the cut tells: whoever shares source
//! with the reader reaches the same constant. Of others nobody knows. As a rule something else starts
//! where they reach, but compilers join equal constants of two functions, hand the address of one
//! function's constant to another as a number, and give some no name that all of a source share.
//!
//! ```text
//! table of area       reached by area
//!   cut               reached by area, or by what shares source with it: the same table
//!   cut               reached by volume: another table, or the same; unknown where it differs
//! ```
//!
//! The same holds for what stands before the address, where code may reach back from it ([`super::before`]).

use hpbuild_metadata::{Base, Fixed, FunctionId, Rva, Side};

use super::before::{before, ends_text};
use super::content::{Visit, pointer_at};
use super::extent::{
    anonymous_extent, comdat, is_ended_text, is_long_text, open_size, starts_with_text, text_size,
};
use super::readers::{MOST, Readers, is_of, sources};
use super::{Comparer, Extent, Meaning, Target, is_read_only, resolve};
use crate::decode::{Reference, ReferenceKind};
use crate::image::{Image, PlacedReference};

/// An operand of a function.
#[derive(Clone, Copy)]
pub(crate) struct Operand<S: Side> {
    /// The function.
    pub(crate) function: FunctionId<S>,
    /// Bytes from its start to the instruction.
    pub(crate) offset: u32,
    /// Where it points, and what for.
    pub(crate) reference: Reference<S>,
}

impl<S: Side> Operand<S> {
    /// That of a function whose operands were read.
    pub(crate) fn new(function: FunctionId<S>, placed: &PlacedReference<S>) -> Self {
        Self {
            function,
            offset: placed.offset,
            reference: placed.reference,
        }
    }
}

/// Constants without a name on both sides, as far as two functions reach them by two operands.
pub(super) type Reach = (Extent<Base>, Extent<Fixed>);

impl Comparer<'_> {
    /// What [`Comparer::compare`] says of two operands, where it is known whose they are: for
    /// constants without a name that tells more.
    pub(crate) fn compare_operands(
        &self,
        base: &Operand<Base>,
        fixed: &Operand<Fixed>,
        meaning: Meaning,
    ) -> Meaning {
        let meaning = match meaning {
            Meaning::Unknown | Meaning::Different(_) if self.both_end_own(base, fixed) => {
                Meaning::Same
            }
            Meaning::Same if self.changed_behind(base, fixed).is_some() => Meaning::Unknown,
            Meaning::Same if self.is_no_text(base, fixed) => self.compare_reach(base, fixed),
            Meaning::Unknown => self.compare_reach(base, fixed),
            Meaning::Same | Meaning::Different(_) => meaning,
        };
        match meaning {
            Meaning::Same => self
                .changed_before(base, fixed)
                .map_or(Meaning::Same, |(meaning, _)| meaning),
            Meaning::Unknown | Meaning::Different(_) => meaning,
        }
    }

    /// What two operands of functions mean, as far as it is known whose they are.
    pub fn compare_placed(
        &self,
        (base, b): (FunctionId<Base>, &PlacedReference<Base>),
        (fixed, f): (FunctionId<Fixed>, &PlacedReference<Fixed>),
    ) -> Meaning {
        let meaning = self.compare(b.reference.target, f.reference.target, b.reference.kind);
        let operands = (Operand::new(base, b), Operand::new(fixed, f));
        self.compare_operands(&operands.0, &operands.1, meaning)
    }

    /// Compares constants without a name whose ends nothing else tells.
    fn compare_reach(&self, base: &Operand<Base>, fixed: &Operand<Fixed>) -> Meaning {
        let Some(((b, f), goes_on)) = self.reach(base, fixed) else {
            return Meaning::Unknown;
        };
        match self.compare_table_or_extents(b, f, &mut Visit::new()) {
            Meaning::Same if goes_on => Meaning::Unknown,
            meaning => meaning,
        }
    }

    /// Whether what was compared as a text, to its zero, may be numbers that go on, and what stands
    /// behind is not the same.
    fn is_no_text(&self, base: &Operand<Base>, fixed: &Operand<Fixed>) -> bool {
        if !self.has_open_ends(base, fixed)
            || !is_cut_by_own(self.base, &self.readers.0, base)
                && !is_cut_by_own(self.fixed, &self.readers.1, fixed)
        {
            return false;
        }
        let to_certain = (
            whole_open(self.base, base.reference.target),
            whole_open(self.fixed, fixed.reference.target),
        );
        match to_certain {
            (Some(b), Some(f)) => !self.same_whole(b, f, &mut Visit::new()),
            _ => true,
        }
    }

    /// Whether what is not known of two operands is how far the constants reach whose address they
    /// take.
    pub(crate) fn has_open_ends(&self, base: &Operand<Base>, fixed: &Operand<Fixed>) -> bool {
        // Nearly every operand is asked for.
        let (b, f) = (base.reference.target, fixed.reference.target);
        base.reference.kind == ReferenceKind::Address
            && matches!(self.in_base(b), Target::Anonymous(_))
            && matches!(self.in_fixed(f), Target::Anonymous(_))
            && is_read_only(self.base, b)
            && is_read_only(self.fixed, f)
    }

    /// Constants without a name whose address is taken, as far as the functions reach them, and whether
    /// they may go on behind. `None` where nothing tells.
    pub(crate) fn reach(
        &self,
        base: &Operand<Base>,
        fixed: &Operand<Fixed>,
    ) -> Option<(Reach, bool)> {
        if !self.has_open_ends(base, fixed) {
            return None;
        }
        let b = size_for(self.base, &self.readers.0, base)?;
        let f = size_for(self.fixed, &self.readers.1, fixed)?;
        let goes_on = b.goes_on || f.goes_on;
        let sizes = match goes_on {
            true => (b.size.min(f.size), b.size.min(f.size)),
            false => (b.size, f.size),
        };
        let places = (base.reference.target, fixed.reference.target);
        Some(((open(places.0, sizes.0), open(places.1, sizes.1)), goes_on))
    }

    /// The constants without a name that code of the fixed image may reach by an address that an
    /// operand takes, whole: whoever copies the code copies all of them. `offset` is that of the
    /// instruction in the function. `None` where the operand leads to anything else, or to constants
    /// of unknown extent.
    pub fn constants_reached(
        &self,
        function: FunctionId<Fixed>,
        offset: u32,
        reference: Reference<Fixed>,
    ) -> Option<Extent<Fixed>> {
        let (image, rva) = (self.fixed, reference.target);
        let operand = Operand {
            function,
            offset,
            reference,
        };
        if self.ends_constants(function, reference) {
            return before(image, &self.readers.1, &operand).map(|it| open(it.rva, it.size));
        }
        let whole = whole_constants(image, rva)?;
        let is_cut = is_cut_by_own(image, &self.readers.1, &operand);
        let from = match open_size(image, whole_to_cut(image, rva)?) {
            _ if whole.exact && !is_cut => whole,
            None if !is_cut => open(rva, whole.size),
            _ => match size_for(image, &self.readers.1, &operand) {
                Some(reached) if !reached.goes_on => open(rva, reached.size),
                _ => whole_open(image, rva)?,
            },
        };
        match before(image, &self.readers.1, &operand) {
            Some(before) if from.rva == rva => {
                Some(open(before.rva, before.size.checked_add(from.size)?))
            }
            _ => Some(from),
        }
    }

    /// Whether what code of the fixed image may reach before an address that an operand takes stands
    /// before `place` of the base, too. `offset` is that of the instruction in the function.
    pub fn same_before(
        &self,
        function: FunctionId<Fixed>,
        offset: u32,
        reference: Reference<Fixed>,
        place: Rva<Base>,
    ) -> bool {
        let operand = Operand {
            function,
            offset,
            reference,
        };
        let Some(before) = before(self.fixed, &self.readers.1, &operand) else {
            return true;
        };
        let start = place.get().checked_sub(before.size).map(Rva::new);
        start.is_some_and(|start| {
            let places = (open(start, before.size), open(before.rva, before.size));
            is_read_only(self.base, start)
                && self.compare_table_or_extents(places.0, places.1, &mut Visit::new())
                    == Meaning::Same
        })
    }
}

/// The constants without a name that whoever has the address `rva` may reach, whole; `rva` may lie
/// inside them. `None` where something else stands there, or where their extent is not known.
pub fn whole_constants<S: Side>(image: &Image<S>, rva: Rva<S>) -> Option<Extent<S>> {
    if !is_nameless_constant(image, rva) {
        return None;
    }
    if let Some(whole) = comdat(image, rva) {
        return Some(whole);
    }
    let extent = whole_to_cut(image, rva)?;
    Some(match open_size(image, extent) {
        Some(size) => open(rva, size),
        None => extent,
    })
}

fn whole_to_cut<S: Side>(image: &Image<S>, rva: Rva<S>) -> Option<Extent<S>> {
    anonymous_extent(image, rva, ReferenceKind::Address).filter(|extent| extent.size > 0)
}

/// All from `rva` to where something is certain to start.
fn whole_open<S: Side>(image: &Image<S>, rva: Rva<S>) -> Option<Extent<S>> {
    let end = image.next_certain_boundary(rva)?;
    Some(open(rva, end.checked_sub(rva)?))
}

pub(super) fn open<S: Side>(rva: Rva<S>, size: u32) -> Extent<S> {
    Extent {
        rva,
        size,
        exact: false,
    }
}

pub(super) fn is_nameless_constant<S: Side>(image: &Image<S>, rva: Rva<S>) -> bool {
    matches!(resolve(image, rva), Target::Anonymous(_)) && is_read_only(image, rva)
}

/// Whether what looks like a text, a short one or one that is cut in two, may be numbers that go on:
/// somebody who shares source with the reader reaches into it or behind it, and no other text follows.
fn is_cut_by_own<S: Side>(image: &Image<S>, readers: &Readers<S>, operand: &Operand<S>) -> bool {
    let rva = operand.reference.target;
    let cut_and_end = || {
        let cut = image.next_boundary(rva)?;
        let extent = whole_to_cut(image, rva)?;
        let bytes = image.pe.bytes(rva, extent.size)?;
        let is_short = !extent.exact && is_ended_text(bytes) && !is_long_text(bytes);
        let end = rva.checked_add(extent.size)?;
        let is_inside = extent.exact && cut < end && image.boundaries.binary_search(&end).is_err();
        (is_short || is_inside).then_some((cut, end))
    };
    let Some((cut, end)) = cut_and_end() else {
        return false;
    };
    if comdat(image, rva).is_some() || starts_with_text(image.pe.bytes_from(end)) {
        return false;
    }
    let Some(own) = sources(image, operand.function) else {
        return false;
    };
    let shares = |reader| sources(image, reader).is_some_and(|it| !it.is_disjoint(&own));
    readers.of(image, cut).take(MOST).any(shares)
}

/// Whether a pointer to the start of a function stands at `rva`.
pub(super) fn leads_to_code<S: Side>(image: &Image<S>, rva: Rva<S>) -> bool {
    let is_pointer = image.pe.relocations_in(rva, 8).first() == Some(&rva);
    let target = is_pointer.then(|| pointer_at(image, rva, true)).flatten();
    target.is_some_and(|target| {
        let function = image.functions.binary_search_by_key(&target, |it| it.rva);
        function.is_ok()
    })
}

/// Whether what starts at `rva` ends at `cut` because a place in a source stands there, or the name of
/// one. Places follow each other, as entries of a table do, and do not end it.
pub(super) fn ends_at_source_place<S: Side>(image: &Image<S>, rva: Rva<S>, cut: Rva<S>) -> bool {
    let is_place = |rva| image.source_places.binary_search(&rva).is_ok();
    is_place(cut) && !is_place(rva)
}

/// How far constants reach.
struct Size {
    /// Bytes.
    size: u32,
    /// Whether what stands behind may be a part of them.
    goes_on: bool,
}

/// The bytes from what `operand` reaches to the first place behind it that others reach, too. `None`
/// where nothing tells who reaches what.
///
/// As a rule something else starts there. But compilers join equal constants of two functions, and
/// give others no name that the source shares (compound literals).
fn size_for<S: Side>(image: &Image<S>, readers: &Readers<S>, operand: &Operand<S>) -> Option<Size> {
    let rva = operand.reference.target;
    let certain = image.next_certain_boundary(rva)?;
    let first = image.boundaries.partition_point(|it| *it <= rva);
    let cuts = image.boundaries[first..].iter();
    let certainly = |size| Size {
        size,
        goes_on: false,
    };
    if ends_text(image, operand) {
        return Some(certainly(1));
    }
    for cut in cuts.take_while(|cut| **cut < certain).take(MOST) {
        let size = cut.checked_sub(rva)?;
        let is_text = image.pe.bytes(rva, size).is_some_and(is_long_text);
        // The constructor of a base class is inlined with that of its descendants, and shares nothing
        // else with them.
        let are_vtables = leads_to_code(image, rva) && leads_to_code(image, *cut);
        if is_text || are_vtables || ends_at_source_place(image, rva, *cut) {
            return Some(certainly(size));
        }
        if is_of(image, readers, operand, *cut)? {
            continue;
        }
        // Where a text follows numbers, it is something else.
        let goes_on = text_size(image.pe.bytes_from(*cut)).is_none();
        return Some(Size { size, goes_on });
    }
    sources(image, operand.function)?;
    certain.checked_sub(rva).map(certainly)
}
