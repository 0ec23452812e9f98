//! What stands before constants without a name that code reaches back to from the address it takes.
//! Where an object's constants end, that is all it can mean.

use hpbuild_metadata::{Base, Fixed, FunctionId, Rva, Side};

use super::content::Visit;
use super::cut::{Operand, Reach, is_nameless_constant, leads_to_code, open};
use super::extent::{SHORT_TEXT, is_long_text, is_text, text_size};
use super::readers::{MOST, Readers, is_of, is_out_of_reach};
use super::{Comparer, Difference, Meaning, Target, is_read_only};
use crate::decode::{Back, Reference, ReferenceKind, reaches_back};
use crate::image::Image;

/// So many bytes before an address are looked at, at most: many operands may lead to one place.
const MOST_BEFORE: u32 = 1 << 18;

impl Comparer<'_> {
    /// What differs of the constants without a name that stand before an address, where the operand
    /// that takes it reaches back from there: then they are what is meant, or the middle of it.
    pub(crate) fn changed_before(
        &self,
        base: &Operand<Base>,
        fixed: &Operand<Fixed>,
    ) -> Option<(Meaning, Reach)> {
        if base.reference.kind != ReferenceKind::Address {
            return None;
        }
        let (b_last, f_last) = (last_before(base)?, last_before(fixed)?);
        let is_nameless = matches!(self.in_base(b_last), Target::Anonymous(_))
            && matches!(self.in_fixed(f_last), Target::Anonymous(_));
        if !is_nameless || !is_read_only(self.base, b_last) || !is_read_only(self.fixed, f_last) {
            return None;
        }
        // Few differ, and the rest takes longer. Most are equal as far as the base is looked at.
        let most = most_before(self.base, base)?;
        if bytes_before(self.fixed, fixed, most.len()) == Some(most) {
            return None;
        }
        let as_far = most_before(self.fixed, fixed)?;
        let size = most.len().min(as_far.len());
        if most[most.len() - size..] == as_far[as_far.len() - size..] {
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
        if self.compare_table_or_extents(reach.0, reach.1, &mut Visit::new()) == Meaning::Same {
            return None;
        }
        let meaning = match b.is_own && f.is_own {
            true => Meaning::Different(Difference::DataContent),
            false => Meaning::Unknown,
        };
        Some((meaning, reach))
    }

    /// Whether both operands are meant as the ends of their objects' constants, behind which others'
    /// begin that they cannot reach.
    pub(super) fn both_end_own(&self, base: &Operand<Base>, fixed: &Operand<Fixed>) -> bool {
        ends_own(self.base, base.function, base.reference)
            && ends_own(self.fixed, fixed.function, fixed.reference)
    }

    /// Whether an address that code of the fixed image takes can only be meant as the end of constants:
    /// those that begin there are another object's.
    pub fn ends_constants(&self, function: FunctionId<Fixed>, reference: Reference<Fixed>) -> bool {
        ends_own(self.fixed, function, reference)
    }
}

/// Constants without a name before the address that an operand takes.
pub(super) struct Before<S: Side> {
    pub(super) rva: Rva<S>,
    pub(super) size: u32,
    /// Whether nobody else is known to reach their start.
    pub(super) is_own: bool,
}

fn last_before<S: Side>(operand: &Operand<S>) -> Option<Rva<S>> {
    let before = operand.reference.target.get().checked_sub(1);
    before.map(Rva::new)
}

/// The bytes before the address that an operand takes, as far as anything is looked for.
fn most_before<'a, S: Side>(image: &'a Image<S>, operand: &Operand<S>) -> Option<&'a [u8]> {
    let rva = operand.reference.target;
    let next = image.certain_boundaries.partition_point(|it| *it < rva);
    let certain = image.certain_boundaries.get(next.checked_sub(1)?)?;
    let first = image.boundaries.partition_point(|it| *it < rva);
    let furthest = image.boundaries.get(first.saturating_sub(MOST))?;
    let nearest = Rva::new(rva.get().saturating_sub(MOST_BEFORE));
    let start = nearest.max(*certain).max(*furthest);
    image.pe.bytes(start, rva.checked_sub(start)?)
}

/// So many bytes before the address that an operand takes.
fn bytes_before<'a, S: Side>(
    image: &'a Image<S>,
    operand: &Operand<S>,
    size: usize,
) -> Option<&'a [u8]> {
    let size = u32::try_from(size).ok()?;
    let start = operand.reference.target.get().checked_sub(size)?;
    image.pe.bytes(Rva::new(start), size)
}

/// Whether the code that takes an address, or who gets it, reaches back from there. Where something is
/// certain to start, as texts do, that is what others get.
fn reaches_back_from<S: Side>(image: &Image<S>, operand: &Operand<S>) -> bool {
    let code = image.code_of(operand.function);
    match reaches_back(image.pe.machine, code, operand.offset) {
        Some(Back::Itself) => true,
        Some(Back::Callee) => {
            let rva = operand.reference.target;
            let is_certain = image.certain_boundaries.binary_search(&rva).is_ok();
            let is_start = is_certain && !is_end_of_own(image, operand.function, rva)
                || text_size(image.pe.bytes_from(rva)).is_some();
            !is_start && is_nameless_constant(image, rva)
        }
        None => false,
    }
}

/// Whether a function takes the address at which its object's constants end, and another object's begin
/// that it cannot reach.
fn ends_own<S: Side>(image: &Image<S>, function: FunctionId<S>, reference: Reference<S>) -> bool {
    let rva = reference.target;
    reference.kind == ReferenceKind::Address
        && is_end_of_own(image, function, rva)
        && is_out_of_reach(image, function, rva)
}

/// Whether an object's constants end at `rva` to which a function belongs, and another object's begin or
/// none.
fn is_end_of_own<S: Side>(image: &Image<S>, function: FunctionId<S>, rva: Rva<S>) -> bool {
    let compiland = |rva: Rva<S>| image.contribution_at(rva).map(|it| it.compiland);
    let own = compiland(image.function(function).rva);
    let last = rva.get().checked_sub(1).map(Rva::new);
    own.is_some() && last.and_then(compiland) == own && compiland(rva) != own
}

/// The constants without a name that lie before the address that an operand takes, back to where others
/// reach, something is certain to start, or a text ends. `None` where nobody reaches back to them.
pub(super) fn before<S: Side>(
    image: &Image<S>,
    readers: &Readers<S>,
    operand: &Operand<S>,
) -> Option<Before<S>> {
    let rva = operand.reference.target;
    let is_certain = |rva: Rva<S>| image.certain_boundaries.binary_search(&rva).is_ok();
    let (mut start, mut is_own) = (rva, true);
    let first = image.boundaries.partition_point(|it| *it < rva);
    let cuts = image.boundaries[..first].iter().rev();
    for (index, cut) in cuts.take(MOST).enumerate() {
        let bytes = image.pe.bytes(*cut, start.checked_sub(*cut)?)?;
        let are_vtables = leads_to_code(image, rva) && leads_to_code(image, *cut);
        if !is_nameless_constant(image, *cut) || is_long_text(bytes) || are_vtables {
            break;
        }
        // Nearly always there is nothing to go back to, which is told sooner than what the code does.
        if index == 0 && !reaches_back_from(image, operand) {
            return None;
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
pub(super) fn ends_text<S: Side>(image: &Image<S>, operand: &Operand<S>) -> bool {
    let rva = operand.reference.target;
    let size = SHORT_TEXT as u32;
    let start = rva.get().checked_sub(size).map(Rva::new);
    let last = start.and_then(|start| image.pe.bytes(start, size + 1));
    let code = image.code_of(operand.function);
    last.and_then(text_size) == Some(size + 1)
        && image.certain_boundaries.binary_search(&rva).is_err()
        && reaches_back(image.pe.machine, code, operand.offset) == Some(Back::Itself)
}
