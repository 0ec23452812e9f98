//! Funclets by the function that they belong to.
//!
//! Several functions of one name, overloads, have funclets of one name. The exception data of
//! each says which are its own, and what for.

use hpbuild_metadata::{Base, Fixed, FunctionId, Side};
use rustc_hash::FxHashMap;

use super::{Names, Pairs, Tier};
use crate::handling::{Value, What, facts};
use crate::image::Image;

/// Funclets of funclets of funclets: deeper is left unmatched.
const MAX_ROUNDS: usize = 4;

/// The function that a funclet belongs to, and what it does there: the how-manieth of its sort.
type Parent<S> = (FunctionId<S>, What, u32);

/// Pairs the unpaired funclets of paired functions by their role.
pub(super) fn pair_funclets(pairs: &mut Pairs, base: &Names<'_, Base>, fixed: &Names<'_, Fixed>) {
    let left =
        |index: u32, name: &str, unpaired: bool| (unpaired && is_funclet(name)).then_some(index);
    let any_base = (0_u32..)
        .zip(&pairs.base)
        .any(|(index, pair)| left(index, base.name(index), pair.is_none()).is_some());
    let any_fixed = (0_u32..)
        .zip(&pairs.fixed)
        .any(|(index, pair)| left(index, fixed.name(index), pair.is_none()).is_some());
    if !any_base || !any_fixed {
        return;
    }
    let (b_parents, f_parents) = (parents(base.image), parents(fixed.image));
    for _ in 0..MAX_ROUNDS {
        let before = pairs.unpaired_base().count();
        // A body is known by the first of its names that is paired, as the base numbers it.
        let b_known = known(base, |index| pairs.base[index as usize].map(|_| index));
        let f_known = known(fixed, |index| pairs.fixed[index as usize]);
        pairs.tier(
            Tier::Funclet,
            |i| key(base, &b_parents, &b_known, i),
            |i| key(fixed, &f_parents, &f_known, i),
        );
        if pairs.unpaired_base().count() == before {
            break;
        }
    }
}

/// Whether MSVC gives this name to a part of another function.
fn is_funclet(name: &str) -> bool {
    ["dtor$", "catch$", "filt$", "fin$"]
        .iter()
        .any(|mark| name.contains(mark))
}

/// For each body with a paired name the lowest base number of such a name.
fn known<S: Side>(
    names: &Names<'_, S>,
    number: impl Fn(u32) -> Option<u32>,
) -> FxHashMap<FunctionId<S>, u32> {
    let mut known: FxHashMap<FunctionId<S>, u32> = FxHashMap::default();
    for (index, owner) in (0_u32..).zip(names.owners) {
        if let Some(number) = number(index) {
            let lowest = known.entry(*owner).or_insert(number);
            *lowest = number.min(*lowest);
        }
    }
    known
}

fn key<S: Side>(
    names: &Names<'_, S>,
    parents: &FxHashMap<FunctionId<S>, Parent<S>>,
    known: &FxHashMap<FunctionId<S>, u32>,
    index: u32,
) -> Option<(u32, What, u32)> {
    if !is_funclet(names.name(index)) {
        return None;
    }
    let (parent, what, ordinal) = parents.get(names.owners.get(index as usize)?)?;
    Some((*known.get(parent)?, *what, *ordinal))
}

/// What every function's exception data leads to.
fn parents<S: Side>(image: &Image<S>) -> FxHashMap<FunctionId<S>, Parent<S>> {
    let mut parents = FxHashMap::default();
    for id in image.function_ids() {
        let mut ordinals = FxHashMap::default();
        for fact in facts(image, id).0 {
            let Value::Place(rva) = fact.value else {
                continue;
            };
            if !matches!(fact.what, What::Cleanup | What::Catch | What::CatchBody) {
                continue;
            }
            let Some(child) = image.function_at(rva) else {
                continue;
            };
            if child == id || image.function(child).rva != rva {
                continue;
            }
            let ordinal: &mut u32 = ordinals.entry(fact.what).or_default();
            parents.entry(child).or_insert((id, fact.what, *ordinal));
            *ordinal += 1;
        }
    }
    parents
}
