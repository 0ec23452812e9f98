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
//! The same holds for what stands before the address, where code may reach back from it.

use hpbuild_metadata::{Base, Fixed, FunctionId, Rva, Side};

use super::content::{Visit, pointer_at};
use super::extent::{
    SHORT_TEXT, anonymous_extent, comdat, is_ended_text, is_long_text, is_text, open_size,
    starts_with_text, text_size,
};
use super::readers::{MOST, Readers, is_of, sources};
use super::{Comparer, Difference, Extent, Meaning, Target, is_read_only, resolve};
use crate::decode::{Back, Reference, ReferenceKind, reaches_back};
use crate::image::Image;

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

/// Constants without a name on both sides, as far as two functions reach them by two operands.
type Reach = (Extent<Base>, Extent<Fixed>);

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
        let (b, f) = (base.reference.target, fixed.reference.target);
        let b_end = self.base.next_certain_boundary(b);
        let f_end = self.fixed.next_certain_boundary(f);
        let b_bytes = b_end.and_then(|end| self.base.pe.bytes(b, end.checked_sub(b)?));
        let f_bytes = f_end.and_then(|end| self.fixed.pe.bytes(f, end.checked_sub(f)?));
        b_bytes != f_bytes
    }

    /// Whether what is not known of two operands is how far the constants reach whose address they
    /// take.
    pub(crate) fn has_open_ends(&self, base: &Operand<Base>, fixed: &Operand<Fixed>) -> bool {
        is_nameless_constant(self.base, base.reference.target)
            && is_nameless_constant(self.fixed, fixed.reference.target)
            && base.reference.kind == ReferenceKind::Address
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

    /// What stands before constants without a name and differs, where the operand that takes their
    /// address reaches back from there: then they are the middle of something.
    pub(crate) fn changed_before(
        &self,
        base: &Operand<Base>,
        fixed: &Operand<Fixed>,
    ) -> Option<(Meaning, Reach)> {
        if base.reference.kind != ReferenceKind::Address {
            return None;
        }
        // Few differ, and the rest takes longer.
        let most = (
            most_before(self.base, base)?,
            most_before(self.fixed, fixed)?,
        );
        let size = most.0.len().min(most.1.len());
        if most.0[most.0.len() - size..] == most.1[most.1.len() - size..] {
            return None;
        }
        let b = before(self.base, &self.readers.0, base)?;
        let f = before(self.fixed, &self.readers.1, fixed)?;
        // What one image alone has further in front is something else.
        let size = b.size.min(f.size);
        let b_start = b.rva.checked_add(b.size - size)?;
        let f_start = f.rva.checked_add(f.size - size)?;
        if self.base.pe.bytes(b_start, size) == self.fixed.pe.bytes(f_start, size) {
            return None;
        }
        let reach = (open(b_start, size), open(f_start, size));
        let code = self.base.code_of(base.function);
        if self.compare_table_or_extents(reach.0, reach.1, &mut Visit::new()) == Meaning::Same
            || reaches_back(self.base.pe.machine, code, base.offset).is_none()
        {
            return None;
        }
        let meaning = match b.is_own && f.is_own {
            true => Meaning::Different(Difference::DataContent),
            false => Meaning::Unknown,
        };
        Some((meaning, reach))
    }
}

impl Comparer<'_> {
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
        let whole = whole_constants(image, rva)?;
        let is_cut = is_cut_by_own(image, &self.readers.1, &operand);
        if whole.exact && !is_cut {
            return Some(whole);
        }
        let size = match open_size(image, whole_to_cut(image, rva)?) {
            None if !is_cut => whole.size,
            _ => match size_for(image, &self.readers.1, &operand) {
                Some(reached) if !reached.goes_on => reached.size,
                _ => image.next_certain_boundary(rva)?.checked_sub(rva)?,
            },
        };
        let code = image.code_of(function);
        let reaches_back = reaches_back(image.pe.machine, code, offset).is_some();
        let before = reaches_back.then(|| before(image, &self.readers.1, &operand));
        match before.flatten() {
            Some(before) => Some(open(before.rva, before.size.checked_add(size)?)),
            None => Some(open(rva, size)),
        }
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

fn open<S: Side>(rva: Rva<S>, size: u32) -> Extent<S> {
    Extent {
        rva,
        size,
        exact: false,
    }
}

fn is_nameless_constant<S: Side>(image: &Image<S>, rva: Rva<S>) -> bool {
    matches!(resolve(image, rva), Target::Anonymous(_)) && is_read_only(image, rva)
}

/// Constants without a name before the address that an operand takes.
struct Before<S: Side> {
    rva: Rva<S>,
    size: u32,
    /// Whether nobody else is known to reach their start.
    is_own: bool,
}

/// The bytes before constants without a name whose address an operand takes, as far as anything is
/// looked for. `None` where nobody reaches back from there: where something is certain to start, as
/// texts do.
fn most_before<'a, S: Side>(image: &'a Image<S>, operand: &Operand<S>) -> Option<&'a [u8]> {
    let rva = operand.reference.target;
    let next = image.certain_boundaries.partition_point(|it| *it < rva);
    let is_certain = image.certain_boundaries.get(next) == Some(&rva);
    if is_certain && !is_end_of_own(image, operand)
        || !is_nameless_constant(image, rva)
        || text_size(image.pe.bytes_from(rva)).is_some()
    {
        return None;
    }
    let certain = image.certain_boundaries.get(next.checked_sub(1)?)?;
    let first = image.boundaries.partition_point(|it| *it < rva);
    let furthest = image.boundaries.get(first.saturating_sub(MOST))?;
    let start = *certain.max(furthest);
    image.pe.bytes(start, rva.checked_sub(start)?)
}

/// Whether an operand leads to where its object's constants end, and another object's begin or none.
fn is_end_of_own<S: Side>(image: &Image<S>, operand: &Operand<S>) -> bool {
    let rva = operand.reference.target;
    let compiland = |rva: Rva<S>| image.contribution_at(rva).map(|it| it.compiland);
    let own = compiland(image.function(operand.function).rva);
    let last = rva.get().checked_sub(1).map(Rva::new);
    own.is_some() && last.and_then(compiland) == own && compiland(rva) != own
}

/// The constants without a name that lie before those whose address an operand takes, back to where
/// others reach, something is certain to start, or a text ends.
fn before<S: Side>(
    image: &Image<S>,
    readers: &Readers<S>,
    operand: &Operand<S>,
) -> Option<Before<S>> {
    let rva = operand.reference.target;
    let is_certain = |rva: Rva<S>| image.certain_boundaries.binary_search(&rva).is_ok();
    let (mut start, mut is_own) = (rva, true);
    let first = image.boundaries.partition_point(|it| *it < rva);
    for cut in image.boundaries[..first].iter().rev().take(MOST) {
        let bytes = image.pe.bytes(*cut, start.checked_sub(*cut)?)?;
        let are_vtables = leads_to_code(image, rva) && leads_to_code(image, *cut);
        if !is_nameless_constant(image, *cut) || is_long_text(bytes) || are_vtables {
            break;
        }
        is_own = is_of(image, readers, operand, *cut) == Some(true);
        // What starts there may be another's, and shorter.
        if let (false, Some(size)) = (is_own, text_size(bytes)) {
            (start, is_own) = (cut.checked_add(size)?, true);
            break;
        }
        start = *cut;
        if !is_own || is_certain(*cut) {
            break;
        }
    }
    let mut size = rva.checked_sub(start)?;
    if ends_text(image, operand) {
        let bytes = image.pe.bytes(start, size)?;
        let letters = bytes.iter().rev().take_while(|byte| is_text(**byte));
        size = u32::try_from(letters.count()).ok()?;
        (start, is_own) = (rva.get().checked_sub(size).map(Rva::new)?, true);
    }
    (size > 0).then_some(Before {
        rva: start,
        size,
        is_own,
    })
}

/// Whether an operand leads to the zero that ends a text, from which the code goes back to the start:
/// the end of a range of letters.
fn ends_text<S: Side>(image: &Image<S>, operand: &Operand<S>) -> bool {
    let rva = operand.reference.target;
    let size = SHORT_TEXT as u32;
    let start = rva.get().checked_sub(size).map(Rva::new);
    let last = start.and_then(|start| image.pe.bytes(start, size + 1));
    let code = image.code_of(operand.function);
    last.and_then(text_size) == Some(size + 1)
        && image.certain_boundaries.binary_search(&rva).is_err()
        && reaches_back(image.pe.machine, code, operand.offset) == Some(Back::Itself)
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
fn leads_to_code<S: Side>(image: &Image<S>, rva: Rva<S>) -> bool {
    let is_pointer = image.pe.relocations_in(rva, 8).first() == Some(&rva);
    let target = is_pointer.then(|| pointer_at(image, rva, true)).flatten();
    target.is_some_and(|target| {
        let function = image.functions.binary_search_by_key(&target, |it| it.rva);
        function.is_ok()
    })
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
        if is_text || are_vtables {
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
