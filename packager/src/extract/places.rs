//! Which places of the base belong to constants without a name of the fixed image.
//!
//! A function that means the same in both images reaches the same constants at the same places of its
//! body, and tables that have a name lead to the same ones. A function that changed reaches a constant
//! of the base that is equal to one of the fixed image, and no other that is. Where several say
//! different things, or two constants belong to one, nothing is known.

use hpbuild_differ::Diff;
use hpbuild_differ::decode::ReferenceKind;
use hpbuild_differ::image::{Image, PlacedReference};
use hpbuild_differ::meaning::{Comparer, Meaning, Target, is_read_only};
use hpbuild_metadata::{Base, Fixed, FunctionId, Rva, Side};
use rustc_hash::{FxHashMap, FxHashSet};

use super::alike::{Pair, have_same_shape, reshaped};
use super::kept::{Reached, place_in_image};
use crate::piece::{Parts, Room};

/// No more places of one function are compared with those of the other.
const MAX_COMPARED: usize = 1 << 12;

/// An operand in both images.
type Operands<'a> = (&'a PlacedReference<Base>, &'a PlacedReference<Fixed>);

/// The places of the base that are known.
#[derive(Default)]
pub(super) struct Places {
    /// `None` where two say different things.
    base: FxHashMap<Rva<Fixed>, Option<Rva<Base>>>,
    /// The other way round.
    fixed: FxHashMap<Rva<Base>, Option<Rva<Fixed>>>,
}

/// The addresses in the fixed image of all places in copies of constants to which anything leads.
pub(super) fn demanded_of(parts: &Parts, reached: &Reached) -> FxHashSet<Rva<Fixed>> {
    let copies = parts.pieces.iter().zip(reached);
    let copies = copies.filter(|(piece, _)| piece.room == Room::ReadOnly);
    copies
        .flat_map(|(piece, places)| {
            let places = places.iter().flatten();
            places.filter_map(|offset| place_in_image(piece, *offset))
        })
        .collect()
}

impl Places {
    /// Looks for the places of the constants that are `demanded`.
    pub(super) fn new(
        diff: &Diff,
        comparer: &Comparer<'_>,
        demanded: FxHashSet<Rva<Fixed>>,
    ) -> Self {
        let mut found = Self::default();
        if demanded.is_empty() {
            return found;
        }
        let (alike, others) = pairs_that_reach(diff, &demanded);
        let guesses: Vec<_> = others
            .into_iter()
            .flat_map(|pair| guesses(comparer, pair, &demanded))
            .collect();
        let guessed: FxHashSet<Rva<Base>> = guesses.iter().map(|(base, _)| *base).collect();
        for pair in alike {
            let operands = (
                diff.base.references_of(pair.0),
                diff.fixed.references_of(pair.1),
            );
            for (b, f) in operands.0.iter().zip(operands.1) {
                if b.reference.kind != ReferenceKind::Address {
                    continue;
                }
                let is_asked =
                    demanded.contains(&f.reference.target) || guessed.contains(&b.reference.target);
                if is_asked && is_same(comparer, pair, (b, f)) {
                    found.note(b.reference.target, f.reference.target);
                }
            }
        }
        found.note_pointers(diff, comparer, &demanded);
        let known = |base, fixed| {
            let of_base = found.fixed.get(&base);
            !found.base.contains_key(&fixed) && of_base.is_none_or(|it| *it == Some(fixed))
        };
        let new: Vec<_> = guesses
            .into_iter()
            .filter(|(base, fixed)| known(*base, *fixed))
            .collect();
        for (base, fixed) in new {
            found.note(base, fixed);
        }
        found
    }

    /// The place of the base that an address of the fixed image belongs to, and no other does.
    pub(super) fn in_base(&self, fixed: Rva<Fixed>) -> Option<Rva<Base>> {
        let base = self.base.get(&fixed).copied().flatten()?;
        let back = self.fixed.get(&base).copied().flatten();
        (back == Some(fixed)).then_some(base)
    }

    fn note(&mut self, base: Rva<Base>, fixed: Rva<Fixed>) {
        let known = self.base.entry(fixed).or_insert(Some(base));
        *known = known.filter(|known| *known == base);
        let known = self.fixed.entry(base).or_insert(Some(fixed));
        *known = known.filter(|known| *known == fixed);
    }

    /// Notes where two pointers lead that stand in the place of each other.
    pub(super) fn note_pointer(
        &mut self,
        comparer: &Comparer<'_>,
        base: Rva<Base>,
        fixed: Rva<Fixed>,
    ) {
        if are_nameless(comparer, base, fixed)
            && comparer.compare(base, fixed, ReferenceKind::Address) == Meaning::Same
        {
            self.note(base, fixed);
        }
    }

    /// Notes where pointers lead in data that have a name in both images.
    fn note_pointers(
        &mut self,
        diff: &Diff,
        comparer: &Comparer<'_>,
        demanded: &FxHashSet<Rva<Fixed>>,
    ) {
        for place in &diff.fixed.pe.base_relocations {
            let Some(fixed) = led_to(&diff.fixed, *place).filter(|it| demanded.contains(it)) else {
                continue;
            };
            let Target::Data { id, offset } = comparer.in_fixed(*place) else {
                continue;
            };
            let data = comparer.base_data_of(id);
            let data = data.map(|id| diff.base.data_symbol(id));
            let there = data
                .filter(|data| offset < data.size)
                .and_then(|data| data.rva.checked_add(offset))
                .filter(|there| diff.base.pe.relocations_in(*there, 8).first() == Some(there));
            let base = there.and_then(|there| led_to(&diff.base, there));
            if let Some(base) = base {
                self.note_pointer(comparer, base, fixed);
            }
        }
    }
}

/// The pairs of functions that reach the same at the same places of their bodies, and the others which
/// take an address that is demanded.
fn pairs_that_reach(diff: &Diff, demanded: &FxHashSet<Rva<Fixed>>) -> (Vec<Pair>, Vec<Pair>) {
    let reshaped = reshaped(diff);
    let (mut alike, mut others) = (Vec::new(), Vec::new());
    for &(base, fixed, _) in diff.pairing.bodies() {
        let pair = (base, fixed);
        let mut taken = diff.fixed.references_of(fixed).iter();
        if have_same_shape(diff, pair) && !reshaped.contains(&pair) {
            alike.push(pair);
        } else if taken.any(|f| demanded.contains(&f.reference.target)) {
            others.push(pair);
        }
    }
    (alike, others)
}

/// The constants of two functions that differ of which each is equal to the other one and to no other.
fn guesses(
    comparer: &Comparer<'_>,
    pair: Pair,
    demanded: &FxHashSet<Rva<Fixed>>,
) -> Vec<(Rva<Base>, Rva<Fixed>)> {
    let before = addresses(comparer.base, pair.0);
    let after = addresses(comparer.fixed, pair.1);
    if before.len().saturating_mul(after.len()) > MAX_COMPARED {
        return Vec::new();
    }
    let mut same: Vec<(Rva<Base>, Rva<Fixed>)> = Vec::new();
    for f in &after {
        let equal = before.iter().filter(|b| is_same(comparer, pair, (b, f)));
        same.extend(equal.map(|b| (b.reference.target, f.reference.target)));
    }
    same.sort_unstable();
    same.dedup();
    let is_alone = |(base, fixed): &(Rva<Base>, Rva<Fixed>)| {
        same.iter().filter(|(b, f)| b == base || f == fixed).count() == 1
    };
    let alone = same.iter().filter(|both| is_alone(both));
    let alone = alone.filter(|(_, fixed)| demanded.contains(fixed));
    alone.copied().collect()
}

/// The operands by which a function takes addresses of constants.
fn addresses<S: Side>(image: &Image<S>, id: FunctionId<S>) -> Vec<&PlacedReference<S>> {
    let all = image.references_of(id).iter();
    all.filter(|it| {
        let reference = it.reference;
        reference.kind == ReferenceKind::Address && is_constant(image, reference.target)
    })
    .collect()
}

fn is_constant<S: Side>(image: &Image<S>, rva: Rva<S>) -> bool {
    let section = image.pe.section_at(rva);
    section.is_some_and(|it| !it.is_writable() && !it.is_code())
}

/// Whether two operands lead to constants without a name that mean the same.
fn is_same(comparer: &Comparer<'_>, pair: Pair, (b, f): Operands<'_>) -> bool {
    are_nameless(comparer, b.reference.target, f.reference.target)
        && comparer.compare_placed((pair.0, b), (pair.1, f)) == Meaning::Same
}

fn are_nameless(comparer: &Comparer<'_>, base: Rva<Base>, fixed: Rva<Fixed>) -> bool {
    is_read_only(comparer.base, base)
        && is_read_only(comparer.fixed, fixed)
        && matches!(comparer.in_base(base), Target::Anonymous(_))
        && matches!(comparer.in_fixed(fixed), Target::Anonymous(_))
}

/// Where the pointer at a place leads.
pub(super) fn led_to<S: Side>(image: &Image<S>, place: Rva<S>) -> Option<Rva<S>> {
    let word = image.pe.bytes(place, 8)?.first_chunk()?;
    image.pe.rva_of(u64::from_le_bytes(*word))
}
