//! Code of one image that is code of the other but for where its operands point.
//!
//! Most functions of a fixed image are those of the base in another place. Where all bytes but those
//! of the fields are equal, the instructions are the same and need not be decoded again: their
//! operands are read from the fields that are known from the base. This never tells anything that
//! decoding would not; where it could, the function is decoded.

use std::hash::BuildHasher;
use std::iter;

use hpbuild_metadata::{Rva, Side};
use rustc_hash::{FxBuildHasher, FxHashMap};

use super::scan::{Scanned, code_at, is_branch};
use crate::decode::{Code, Field, Reference, ReferenceKind, points_at};
use crate::image::{Function, PlacedReference, Procedure};
use crate::pe::Pe;

/// An image whose code was decoded.
pub(super) struct Decoded<'a, S: Side> {
    pe: &'a Pe<S>,
    functions: &'a [Function<S>],
    scanned: &'a Scanned<S>,
    by_name: &'a ByName<S>,
}

/// Where functions start, by the hash of their first name. What it leads to is looked at byte by
/// byte, so that two names of one hash do no harm.
pub(super) type ByName<S> = FxHashMap<u32, Rva<S>>;

/// See [`ByName`].
pub(super) fn by_name<S: Side>(functions: &[Function<S>], procedures: &[Procedure]) -> ByName<S> {
    let mut found = ByName::with_capacity_and_hasher(functions.len(), FxBuildHasher);
    let named = functions.iter();
    found.extend(named.filter_map(|function| Some((key(function, procedures)?, function.rva))));
    found
}

impl<'a, S: Side> Decoded<'a, S> {
    pub(super) fn new(
        (pe, functions): (&'a Pe<S>, &'a [Function<S>]),
        by_name: &'a ByName<S>,
        scanned: &'a Scanned<S>,
    ) -> Self {
        Self {
            pe,
            functions,
            scanned,
            by_name,
        }
    }

    /// Adds the operands of `function` to `found` if one of these functions is the same but for
    /// them. `expected` is where to look first, and becomes where to look for the next one.
    pub(super) fn copy<O: Side>(
        &self,
        (pe, procedures): (&Pe<O>, &[Procedure]),
        function: &Function<O>,
        expected: &mut usize,
        found: &mut Vec<PlacedReference<O>>,
    ) -> bool {
        let code = code_at(pe, &[], function);
        if !code.relocated.is_empty() {
            return false;
        }
        let before = found.len();
        let named = || {
            let rva = self.by_name.get(&key(function, procedures)?)?;
            let index = self.functions.binary_search_by_key(rva, |it| it.rva).ok()?;
            Some(index).filter(|index| *index != *expected)
        };
        for index in iter::once(*expected).chain(iter::once_with(named).flatten()) {
            if self.copy_of(index, pe, code, found).is_some() {
                *expected = index + 1;
                return true;
            }
            found.truncate(before);
        }
        false
    }

    /// Adds the operands of `code` if the function at `index` is the same but for them.
    fn copy_of<O: Side>(
        &self,
        index: usize,
        pe: &Pe<O>,
        code: Code<'_, O>,
        found: &mut Vec<PlacedReference<O>>,
    ) -> Option<()> {
        let function = self.functions.get(index)?;
        if function.size as usize != code.bytes.len() || !self.scanned.is_movable[index] {
            return None;
        }
        let known = code_at(self.pe, &[], function);
        let end = u64::from(code.rva.get()) + u64::from(function.size);
        let mut at = 0;
        for reference in self.scanned.references.of(index) {
            let place = (reference.offset, reference.length);
            let field = reference.reference.field;
            // Fields that are understood here are those whose own address comes out.
            let own = points_at(self.pe.machine, known, place, field)?;
            let target: Rva<O> = points_at(pe.machine, code, place, field)?;
            let kind = reference.reference.kind;
            // What decoding tells by the address: the image base, constants in code, and branches
            // inside the function.
            let inside = target >= code.rva && u64::from(target.get()) < end;
            let is_telling = target.get() == 0
                || inside && (is_branch(reference) || matches!(kind, ReferenceKind::Memory(_)));
            if own != reference.reference.target || is_telling {
                return None;
            }
            let (start, end) = field_bytes(reference)?;
            if known.bytes.get(at..start)? != code.bytes.get(at..start)? {
                return None;
            }
            at = end;
            found.push(PlacedReference {
                offset: reference.offset,
                length: reference.length,
                completed_elsewhere: reference.completed_elsewhere,
                reference: Reference {
                    target,
                    kind,
                    field,
                },
            });
        }
        (known.bytes.get(at..)? == code.bytes.get(at..)?).then_some(())
    }
}

/// Where in the function the field of an operand begins and ends.
fn field_bytes<S: Side>(reference: &PlacedReference<S>) -> Option<(usize, usize)> {
    let Field::Relative { at, size } = reference.reference.field else {
        return None;
    };
    let start = reference.offset as usize + usize::from(at);
    Some((start, start + usize::from(size)))
}

/// A hash of the first name of a function.
fn key<S: Side>(function: &Function<S>, procedures: &[Procedure]) -> Option<u32> {
    let range = function.procedures.start as usize..function.procedures.end as usize;
    let name = &procedures.get(range)?.first()?.name;
    let hash = FxBuildHasher.hash_one(name);
    u32::try_from(hash >> 32).ok()
}
