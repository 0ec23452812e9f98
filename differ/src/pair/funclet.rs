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
pub(crate) fn is_funclet(name: &str) -> bool {
    const MARKS: [&str; 4] = ["dtor$", "catch$", "filt$", "fin$"];
    name.contains('$') && MARKS.iter().any(|mark| name.contains(mark))
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
    for_each(image, |child, parent| {
        parents.entry(child).or_insert(parent);
    });
    parents
}

/// The functions that a body belongs to which has the names of funclets alone: those whose
/// exception data leads to it. Folding gives a funclet several, and one that is also a function is
/// none.
///
/// FH4 data names the destructors themselves where it can, and the funclets made for them stay in
/// the image although nothing leads to them; such a one belongs to the function in its name, where
/// its compiland has one function of that name.
pub(crate) fn parents_of_funclets<S: Side>(
    image: &Image<S>,
) -> FxHashMap<FunctionId<S>, Vec<FunctionId<S>>> {
    let mut parents: FxHashMap<_, Vec<_>> = FxHashMap::default();
    for_each(image, |child, (parent, ..)| {
        if has_funclet_names(image, child) {
            parents.entry(child).or_default().push(parent);
        }
    });
    let mut named: FxHashMap<_, Vec<_>> = FxHashMap::default();
    for id in image.function_ids() {
        for procedure in image.procedures_of(id) {
            let place = (image.function(id).compiland, &*procedure.name);
            named.entry(place).or_default().push(id);
        }
    }
    for id in image
        .function_ids()
        .filter(|id| has_funclet_names(image, *id))
    {
        let name = image.procedures_of(id).first();
        let place = name
            .and_then(|procedure| parent_name(&procedure.name))
            .map(|name| (image.function(id).compiland, name));
        if let Some([parent]) = place.and_then(|place| named.get(&place)).map(Vec::as_slice) {
            parents.entry(id).or_insert_with(|| vec![*parent]);
        }
    }
    parents
}

fn has_funclet_names<S: Side>(image: &Image<S>, id: FunctionId<S>) -> bool {
    let names = image.procedures_of(id);
    !names.is_empty() && names.iter().all(|name| is_funclet(&name.name))
}

/// `f` of `` `f'::`1'::dtor$0 ``.
fn parent_name(funclet: &str) -> Option<&str> {
    let (scope, _) = funclet.strip_prefix('`')?.rsplit_once("'::")?;
    Some(scope.rsplit_once("'::`")?.0)
}

/// Visits every funclet with every function that it belongs to.
fn for_each<S: Side>(image: &Image<S>, mut visit: impl FnMut(FunctionId<S>, Parent<S>)) {
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
            visit(child, (id, fact.what, *ordinal));
            *ordinal += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_parents() {
        assert_eq!(parent_name("`f'::`1'::dtor$0"), Some("f"));
        let nested = "``anonymous namespace'::f'::`1'::catch$12";
        assert_eq!(parent_name(nested), Some("`anonymous namespace'::f"));
        for other in ["f", "`f'", "`f'::dtor$0", "f::dtor$0", "`"] {
            assert_eq!(parent_name(other), None, "{other}");
        }
    }
}
