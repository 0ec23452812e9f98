//! Writable data without a name: where unchanged code reaches it in the base.
//!
//! Compilers split variables and leave the parts without symbols. A function that means the same
//! in both images, or differs in numbers alone, reaches the same data at the same place of its
//! body, so each such place says
//! which address of the base belongs to which address of the fixed image. Where they disagree,
//! nothing is known.

use std::collections::BTreeSet;

use hpbuild_differ::Diff;
use hpbuild_differ::decode::ReferenceKind;
use hpbuild_differ::image::Image;
use hpbuild_differ::judge::Refusal;
use hpbuild_differ::meaning::{Comparer, Meaning, Target, is_read_only, resolve};
use hpbuild_metadata::{Base, Fixed, FunctionId, Rva, Side};
use rustc_hash::{FxHashMap, FxHashSet};

use super::alike::{have_same_shape, reshaped};
use super::brought::is_type;
use crate::piece::{Parts, Piece, Room};

/// For each address of unnamed writable data in the fixed image that unchanged code reaches its
/// address in the base; `None` where two functions disagree.
pub(super) type Unnamed = FxHashMap<Rva<Fixed>, Option<Rva<Base>>>;

/// No more places of one function are compared with those of the other.
const MAX_COMPARED: usize = 1 << 16;

/// Looks at every pair of functions of the same shape that reach the same data.
pub(super) fn unnamed(diff: &Diff, comparer: &Comparer<'_>) -> Unnamed {
    let changed = reshaped(diff);
    let all_changed = diff.comparison.changed.iter();
    let all_changed: FxHashSet<_> = all_changed.map(|it| (it.base, it.fixed)).collect();
    let mut found = Unnamed::default();
    // What code in which nothing changed shows to be one and the same leaves less to be told apart.
    let mut certain = Unnamed::default();
    for &(base, fixed, _) in diff.pairing.bodies() {
        if changed.contains(&(base, fixed)) || !have_same_shape(diff, (base, fixed)) {
            continue;
        }
        let (b, f) = (
            diff.base.references_of(base),
            diff.fixed.references_of(fixed),
        );
        for (b, f) in b.iter().zip(f) {
            let (b, f) = (b.reference.target, f.reference.target);
            // A function that differs in a number may reach another variable as well, where one of them
            // came or went: what is not known to be the same says nothing.
            let is_same = || comparer.compare(b, f, ReferenceKind::Memory(0)) == Meaning::Same;
            if is_unnamed(comparer, b, f) && is_same() {
                note(&mut found, b, f);
                if !all_changed.contains(&(base, fixed)) {
                    note(&mut certain, b, f);
                }
            }
        }
    }
    let known: FxHashSet<Rva<Fixed>> = found.keys().copied().collect();
    let certain = certain.iter().filter_map(|(f, b)| Some(((*b)?, *f)));
    let certain: (FxHashSet<Rva<Base>>, FxHashSet<Rva<Fixed>>) = certain.unzip();
    for (base, fixed) in changed {
        let before: BTreeSet<Rva<Base>> = writable_targets(&diff.base, base);
        let mut after: BTreeSet<Rva<Fixed>> = writable_targets(&diff.fixed, fixed);
        after.retain(|rva| !known.contains(rva));
        if before.len().saturating_mul(after.len()) > MAX_COMPARED {
            continue;
        }
        for f in after {
            let is_same = |b: &&Rva<Base>| {
                is_unnamed(comparer, **b, f)
                    && comparer.is_only_unnamed(
                        (**b, |rva| certain.0.contains(&rva)),
                        (f, |rva| certain.1.contains(&rva)),
                    )
                    && comparer.stays_unnamed(**b, f)
            };
            let mut same = before.iter().filter(is_same);
            if let (Some(b), None) = (same.next(), same.next()) {
                note(&mut found, *b, f);
            }
        }
    }
    found
}

/// The notes about variables without a name that the patch brings.
pub(crate) fn notes(diff: &Diff, parts: &Parts) -> Vec<Refusal> {
    let image = &diff.fixed;
    let note = |piece: &Piece| {
        let origin = piece.origin.filter(|_| piece.room == Room::Writable)?;
        let is_named = !matches!(resolve(image, origin.rva), Target::Anonymous(_));
        if is_named || is_type(piece) {
            return None;
        }
        let contribution = image.contribution_at(origin.rva)?;
        let object = image.compilands.get(contribution.compiland.index())?;
        let name = format!("nameless data of {}", object.place);
        let message = format!("{name} is new and will live in the patch");
        let evidence = format!(
            "rva {} of the fixed image, {} bytes",
            origin.rva,
            piece.size()
        );
        Some(Refusal::new("HP032", name, message, evidence))
    };
    parts.pieces.iter().filter_map(note).collect()
}

/// The writable data that a function reaches.
fn writable_targets<S: Side>(image: &Image<S>, id: FunctionId<S>) -> BTreeSet<Rva<S>> {
    let targets = image.references_of(id).iter();
    let targets = targets.map(|placed| placed.reference.target);
    let is_writable = |rva: &Rva<S>| {
        let section = image.pe.section_at(*rva);
        section.is_some_and(|it| it.is_writable())
    };
    targets.filter(is_writable).collect()
}

/// Whether both are writable data without a name.
fn is_unnamed(comparer: &Comparer<'_>, base: Rva<Base>, fixed: Rva<Fixed>) -> bool {
    !is_read_only(comparer.fixed, fixed)
        && !is_read_only(comparer.base, base)
        && matches!(comparer.in_fixed(fixed), Target::Anonymous(_))
        && matches!(comparer.in_base(base), Target::Anonymous(_))
}

fn note(found: &mut Unnamed, base: Rva<Base>, fixed: Rva<Fixed>) {
    found
        .entry(fixed)
        .and_modify(|known| *known = known.filter(|known| *known == base))
        .or_insert(Some(base));
}
