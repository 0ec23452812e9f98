//! Namesakes among static functions, by who calls them and by what they do.
//!
//! Link-time optimisation makes one object of all sources, and where the static functions of several
//! have one name and changed, nothing is left to tell them apart but their callers. Those that were
//! paired say which is which: what one calls, or takes the address of, is what its partner does. All
//! of them have to agree. Who reaches several of one name speaks only where the form of the code did
//! not change, which would leave nobody to say that they did not change places.
//!
//! Where all of one name do the same in the base, and all do in the fixed image, any pairs are right.

use hpbuild_metadata::{Base, Fixed, FunctionId, Side};
use rustc_hash::{FxHashMap, FxHashSet};

use super::Tier;
use super::keys::Names;
use super::tiers::Pairs;
use super::votes::{Namesake, Namesakes, Votes, have_same_form, in_step};
use crate::handling;
use crate::image::{Image, PlacedReference};

/// Callers that are such namesakes themselves speak when they are paired: so many times.
const MAX_ROUNDS: usize = 4;

/// Those of both sides that have one name and type, by their procedures.
type Group = (Vec<u32>, Vec<u32>);

/// Pairs namesakes; whether there were any to pair.
pub(super) fn pair_called(pairs: &mut Pairs, b: &Names<'_, Base>, f: &Names<'_, Fixed>) -> bool {
    let mut found = false;
    for _ in 0..MAX_ROUNDS {
        let groups = groups(pairs, b, f);
        let agreed = match groups.is_empty() {
            true => Vec::new(),
            false => votes(pairs, &groups, b, f).agreed(),
        };
        for (base, fixed) in &agreed {
            pairs.link(*base, *fixed, Tier::Callers);
        }
        if agreed.is_empty() {
            return pair_alike(pairs, groups, b, f) || found;
        }
        found = true;
    }
    found
}

/// Namesakes without a partner, on both sides. In no particular order: each group stands alone.
fn groups(pairs: &Pairs, b: &Names<'_, Base>, f: &Names<'_, Fixed>) -> Vec<Group> {
    let mut groups: FxHashMap<_, Group> = FxHashMap::default();
    for index in pairs.unpaired_base() {
        if let Some(key) = b.static_name(index) {
            groups.entry(key).or_default().0.push(index);
        }
    }
    for index in pairs.unpaired_fixed() {
        let key = f.static_name(index);
        if let Some(group) = key.and_then(|key| groups.get_mut(&key)) {
            group.1.push(index);
        }
    }
    groups.retain(|_, (bases, fixeds)| !bases.is_empty() && !fixeds.is_empty());
    groups.into_values().collect()
}

/// What the callers say.
fn votes(pairs: &Pairs, groups: &[Group], b: &Names<'_, Base>, f: &Names<'_, Fixed>) -> Votes {
    let numbered = || (0_u32..).zip(groups);
    let bases = numbered().flat_map(|(group, it)| it.0.iter().map(move |index| (*index, group)));
    let fixeds = numbered().flat_map(|(group, it)| it.1.iter().map(move |index| (*index, group)));
    let bases = Namesakes::new(bases.map(|it| namesake(b, it)));
    let fixeds = Namesakes::new(fixeds.map(|it| namesake(f, it)));
    let mut votes = Votes::default();
    let mut seen = FxHashSet::default();
    for (index, pair) in pairs.base.iter().enumerate() {
        let Some((fixed, _)) = *pair else { continue };
        let (base, fixed) = (b.owners[index], f.owners[fixed as usize]);
        if !seen.insert((base, fixed)) {
            continue;
        }
        let before = bases.reached(b.image, base);
        if before.is_empty() {
            continue;
        }
        let after = fixeds.reached(f.image, fixed);
        let same_form = have_same_form(b.image, base, f.image, fixed);
        let by_name = before.chunk_by(|one, other| one.0 == other.0);
        let alone = by_name.filter(|it| it.len() == 1).map(|it| it[0].1);
        let alone: FxHashSet<u32> = alone.collect();
        for (one, other) in in_step(&before, &after) {
            if (same_form || alone.contains(&one)) && !b.is_other(one, f, other) {
                votes.add(one, other);
            }
        }
    }
    votes
}

fn namesake<S: Side>(names: &Names<'_, S>, (index, group): (u32, u32)) -> Namesake<S> {
    let function = names.image.function(names.owners[index as usize]);
    (function.rva, function.size, index, group)
}

/// Pairs namesakes that do the same on either side, as many on both; whether there were any.
fn pair_alike(
    pairs: &mut Pairs,
    groups: Vec<Group>,
    b: &Names<'_, Base>,
    f: &Names<'_, Fixed>,
) -> bool {
    let mut found = false;
    for (bases, fixeds) in groups {
        // One that is left alone with its name may be another one's.
        let as_many = bases.len() == fixeds.len() && bases.len() > 1;
        if !as_many || !are_alike(b, &bases) || !are_alike(f, &fixeds) {
            continue;
        }
        let both = || bases.iter().copied().zip(fixeds.iter().copied());
        if both().all(|(base, fixed)| !b.is_other(base, f, fixed)) {
            both().for_each(|(base, fixed)| pairs.link(base, fixed, Tier::Order));
            found = true;
        }
    }
    found
}

fn are_alike<S: Side>(names: &Names<'_, S>, all: &[u32]) -> bool {
    let body = |index: &u32| names.owners[*index as usize];
    let Some((first, rest)) = all.split_first() else {
        return false;
    };
    rest.iter()
        .all(|other| does_the_same(names.image, body(first), body(other)))
}

/// Whether two bodies of one image are the same but for where they lie: what one reaches the other
/// does, or as far from its own entry, and exceptions find the same. A variable of its own tells one
/// from the other, whatever its name.
fn does_the_same<S: Side>(image: &Image<S>, one: FunctionId<S>, other: FunctionId<S>) -> bool {
    let (before, after) = (image.references_of(one), image.references_of(other));
    let (start, second_start) = (image.function(one).rva, image.function(other).rva);
    let size = image.function(one).size;
    let is_same = |(one, other): (&PlacedReference<S>, &PlacedReference<S>)| {
        let (first, second) = (one.reference.target, other.reference.target);
        let own = first.checked_sub(start).filter(|at| *at < size);
        let is_own = own.is_some() && own == second.checked_sub(second_start);
        (one.offset, one.length) == (other.offset, other.length) && (first == second || is_own)
    };
    let (facts, understood) = handling::facts(image, one);
    before.len() == after.len()
        && before.iter().zip(after).all(is_same)
        && image.code_without_targets(one) == image.code_without_targets(other)
        && understood.is_ok()
        && handling::facts(image, other) == (facts, Ok(()))
}
