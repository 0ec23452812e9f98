//! Namesakes among variables, by the code that reaches them.
//!
//! Static variables of several sources may have one name. Link-time optimisation makes one object
//! of all sources, and nothing is left to tell them apart but who uses them. Functions that were
//! paired say which is which: what one reaches first of such variables is what its partner reaches
//! first. They have to agree about it. Whose code did not change its form speaks first.
//!
//! One type for another tells two variables apart as well as two names do, unless each image has one
//! variable of the name and no more: then it is the same one of another type, where functions agree.

use std::borrow::Cow;

use hpbuild_metadata::{Base, Fixed, FunctionId, Side};
use rustc_hash::{FxHashMap, FxHashSet};

use super::Paired;
use super::keys::{Keys, are_two};
use crate::pair::Tier;
use crate::pair::once::{as_many, unpaired};
use crate::pair::votes::{Namesake, Namesakes, Votes, have_same_form, in_step};

/// Those of both sides that have one name and type.
type Group = (Vec<u32>, Vec<u32>);

/// Pairs namesakes of one type by who reaches them, and what nobody reaches in order.
pub(super) fn pair_reached(
    paired: &mut Paired,
    b: &Keys<'_, Base>,
    f: &Keys<'_, Fixed>,
    bodies: &[(FunctionId<Base>, FunctionId<Fixed>, Tier)],
) {
    let mut groups: FxHashMap<(Cow<'_, str>, u64), Group> = FxHashMap::default();
    for index in unpaired(&paired.0) {
        let key = (b.lasting_name(index), b.kind(index));
        groups.entry(key).or_default().0.push(index);
    }
    for index in unpaired(&paired.1) {
        if let Some(group) = groups.get_mut(&(f.lasting_name(index), f.kind(index))) {
            group.1.push(index);
        }
    }
    // The order of groups does not show: each stands alone.
    let groups: Vec<Group> = groups.into_values().collect();
    if let Some((votes, seen)) = pair_groups(paired, (b, f), bodies, groups) {
        pair_unreached(paired, (b, f), &votes, &seen);
    }
}

/// Pairs variables of link-time optimisation that have another type, by who reaches them, where each image
/// has one variable of the name.
pub(super) fn pair_retyped(
    paired: &mut Paired,
    b: &Keys<'_, Base>,
    f: &Keys<'_, Fixed>,
    bodies: &[(FunctionId<Base>, FunctionId<Fixed>, Tier)],
) {
    let mut groups: FxHashMap<Cow<'_, str>, Group> = FxHashMap::default();
    for index in unpaired(&paired.0).filter(|it| b.is_joint(*it)) {
        groups.entry(b.lasting_name(index)).or_default();
    }
    if groups.is_empty() {
        return;
    }
    for index in 0..u32::try_from(paired.0.len()).unwrap_or(u32::MAX) {
        if let Some(group) = groups.get_mut(&b.lasting_name(index)) {
            group.0.push(index);
        }
    }
    for index in 0..u32::try_from(paired.1.len()).unwrap_or(u32::MAX) {
        if let Some(group) = groups.get_mut(&f.lasting_name(index)) {
            group.1.push(index);
        }
    }
    // The order of groups does not show: each stands alone.
    let groups = groups.into_values().filter(|(bases, fixeds)| {
        let is_open = |index: &u32| paired.1[*index as usize].is_none() && f.is_joint(*index);
        bases.len() == 1 && fixeds.len() == 1 && fixeds.iter().all(is_open)
    });
    let groups: Vec<Group> = groups.collect();
    pair_groups(paired, (b, f), bodies, groups);
}

/// Pairs the members of each group by who reaches them; what was said of them, and what is reached at all.
fn pair_groups(
    paired: &mut Paired,
    (b, f): (&Keys<'_, Base>, &Keys<'_, Fixed>),
    bodies: &[(FunctionId<Base>, FunctionId<Fixed>, Tier)],
    mut groups: Vec<Group>,
) -> Option<(Votes, Reached)> {
    groups.retain(|(bases, fixeds)| !bases.is_empty() && !fixeds.is_empty());
    if groups.is_empty() {
        return None;
    }
    let numbered = || (0_u32..).zip(&groups);
    let bases = numbered().flat_map(|(group, it)| it.0.iter().map(move |index| (*index, group)));
    let fixeds = numbered().flat_map(|(group, it)| it.1.iter().map(move |index| (*index, group)));
    let bases = Namesakes::new(bases.map(|it| namesake(b, it)));
    let fixeds = Namesakes::new(fixeds.map(|it| namesake(f, it)));
    let mut of_same_form = Votes::default();
    let mut of_all = Votes::default();
    let mut seen = Reached::default();
    for (base, fixed, _) in bodies {
        let before = bases.reached(b.image, *base);
        let after = fixeds.reached(f.image, *fixed);
        seen.base.extend(before.iter().map(|it| it.1));
        seen.fixed.extend(after.iter().map(|it| it.1));
        if before.is_empty() || after.is_empty() {
            continue;
        }
        let same_form = have_same_form(b.image, *base, f.image, *fixed);
        for (before, after) in in_step(&before, &after) {
            if are_two(b, before, f, after) {
                continue;
            }
            of_all.add(before, after);
            if same_form {
                of_same_form.add(before, after);
            }
        }
    }
    for votes in [&of_same_form, &of_all] {
        for (base, fixed) in votes.agreed() {
            if paired.0[base as usize].is_none() && paired.1[fixed as usize].is_none() {
                super::link(paired, base, fixed);
            }
        }
    }
    Some((of_all, seen))
}

/// What paired functions reach, whether or not they say what it is.
#[derive(Default)]
struct Reached {
    base: FxHashSet<u32>,
    fixed: FxHashSet<u32>,
}

fn namesake<S: Side>(keys: &Keys<'_, S>, (index, group): (u32, u32)) -> Namesake<S> {
    let symbol = keys.symbol(index);
    (symbol.rva, symbol.size, index, group)
}

/// What no paired function reaches, in order where both sides have as many. Of names that may be another
/// one's nothing is taken for granted that somebody reaches.
fn pair_unreached(
    paired: &mut Paired,
    (b, f): (&Keys<'_, Base>, &Keys<'_, Fixed>),
    votes: &Votes,
    reached: &Reached,
) {
    let unreached = as_many(
        (&paired.0, |i| Some((b.lasting_name(i), b.kind(i)))),
        (&paired.1, |i| Some((f.lasting_name(i), f.kind(i)))),
    );
    let may_be_base = |index: &u32| match b.is_unsure(*index) {
        true => !reached.base.contains(index),
        false => !votes.speak_of_base(*index),
    };
    let may_be_fixed = |index: &u32| match f.is_unsure(*index) {
        true => !reached.fixed.contains(index),
        false => !votes.speak_of_fixed(*index),
    };
    for (bases, fixeds) in unreached {
        let is_silent = bases.iter().all(may_be_base) && fixeds.iter().all(may_be_fixed);
        let pairs = || bases.iter().copied().zip(fixeds.iter().copied());
        if is_silent && pairs().all(|(base, fixed)| !are_two(b, base, f, fixed)) {
            pairs().for_each(|(base, fixed)| super::link(paired, base, fixed));
        }
    }
}
