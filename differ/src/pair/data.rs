//! Pairing of named data, in tiers like those of functions.
//!
//! | tier | key |
//! |---|---|
//! | led to | name without numbers of lambdas and closures, and the functions it leads to |
//! | scope | linkage name without the number of the scope, position among its namesakes |
//! | decorated | linkage name, as it is and without what compilers number or hash |
//! | home | name, and the function that declares it: its body's partner, or its name, and compiland |
//! | compiland | name and compiland, of what lives in no function |
//! | name | name and type, where the two may be one and the same |
//! | order | home and type, position among namesakes in inner blocks |
//! | reached | name and type, and which of its namesakes paired functions reach |
//! | retyped | name that each image has once, and that paired functions reach, of link-time optimisation |

mod keys;
mod led;
mod reached;
mod scoped;

use std::borrow::Cow;
use std::hash::Hash;

use hpbuild_metadata::{Base, DataId, Fixed, FunctionId, Side};
use rustc_hash::{FxHashMap, FxHashSet};

use super::Tier;
use super::homes::Homes;
use super::once::{as_many, once, unpaired};
use crate::image::Image;
use crate::names::without_generated_parts;

use keys::{Keys, are_two};

/// Of more namesakes than this, on either side, none is held against another.
const MAX_NAMESAKES: usize = 64;

/// For each data symbol of either side its partner.
type Paired = (Vec<Option<DataId<Fixed>>>, Vec<Option<DataId<Base>>>);

/// What became of data symbols.
pub(super) struct PairedData {
    pub(super) paired: Paired,
    /// Those without a partner, of which nothing tells that they are not one of the other side's;
    /// sorted.
    pub(super) doubtful: (Vec<DataId<Base>>, Vec<DataId<Fixed>>),
    /// For static locals without a linkage name the function that declares them.
    pub(super) homes: (FxHashMap<u32, Box<str>>, FxHashMap<u32, Box<str>>),
}

/// A pair of bodies.
type Bodies = (FunctionId<Base>, FunctionId<Fixed>, Tier);

/// Pairs data symbols. `functions` gives the partner of each fixed procedure, because a static local
/// is known by the function it lives in, and the pairs of bodies; `owners` whose the procedures are.
pub(super) fn pair_data(
    base: &Image<Base>,
    fixed: &Image<Fixed>,
    functions: (&[Option<u32>], &[Bodies]),
    owners: (&[FunctionId<Base>], &[FunctionId<Fixed>]),
) -> PairedData {
    let (base_procedures, bodies) = functions;
    let mut paired: Paired = (vec![None; base.data.len()], vec![None; fixed.data.len()]);
    led::pair_counted(&mut paired, base, fixed, bodies);
    let unsure = rayon::join(|| keys::unsure(base), || keys::unsure(fixed));
    let uncounted = scoped::pair_scoped(&mut paired, (base, &unsure.0), (fixed, &unsure.1));
    let b_linkage = |i| linkage(base, &uncounted.base, i).filter(|_| !unsure.0[i as usize]);
    let f_linkage = |i| linkage(fixed, &uncounted.fixed, i).filter(|_| !unsure.1[i as usize]);
    tier(&mut paired, b_linkage, f_linkage);
    tier(
        &mut paired,
        |i| without_generated_parts(b_linkage(i)?),
        |i| without_generated_parts(f_linkage(i)?),
    );
    let homes = Homes::new(base, owners.0, unpaired(&paired.0));
    let b = Keys::new(base, homes, &unsure.0);
    let homes = Homes::new(fixed, owners.1, unpaired(&paired.1));
    let f = Keys::new(fixed, homes, &unsure.1);

    let fixed_body = |procedure: u32| base_procedures.get(procedure as usize).copied().flatten();
    tier(
        &mut paired,
        |i| b.in_body(i, Some),
        |i| f.in_body(i, fixed_body),
    );
    tier(&mut paired, |i| b.at_home(i), |i| f.at_home(i));
    tier(&mut paired, |i| b.in_compiland(i), |i| f.in_compiland(i));
    tier(&mut paired, |i| b.in_place(i), |i| f.in_place(i));
    // Namesakes of one function, in inner blocks: paired in order where there are as many.
    in_order(
        &mut paired,
        |i| b.in_typed_body(i, Some),
        |i| f.in_typed_body(i, fixed_body),
    );
    in_order(&mut paired, |i| b.at_typed_home(i), |i| f.at_typed_home(i));
    by_name(&mut paired, &b, &f, |it| Some(it.to_owned()));
    by_name(&mut paired, &b, &f, without_generated_parts);
    reached::pair_reached(&mut paired, &b, &f, bodies);
    reached::pair_retyped(&mut paired, &b, &f, bodies);
    PairedData {
        doubtful: doubtful(&paired, &b, &f),
        homes: (b.homes.into_names(), f.homes.into_names()),
        paired,
    }
}

/// Those without a partner that have a namesake without one on the other side, which may be the same
/// variable.
fn doubtful(
    paired: &Paired,
    b: &Keys<'_, Base>,
    f: &Keys<'_, Fixed>,
) -> (Vec<DataId<Base>>, Vec<DataId<Fixed>>) {
    let mut namesakes: FxHashMap<Cow<'_, str>, (Vec<u32>, Vec<u32>)> = FxHashMap::default();
    for index in unpaired(&paired.0) {
        let known = namesakes.entry(b.lasting_name(index)).or_default();
        known.0.push(index);
    }
    for index in unpaired(&paired.1) {
        if let Some(known) = namesakes.get_mut(&f.lasting_name(index)) {
            known.1.push(index);
        }
    }
    let (mut base, mut fixed) = (Vec::new(), Vec::new());
    // What is found is sorted.
    #[allow(clippy::iter_over_hash_type)]
    for (bases, fixeds) in namesakes.into_values() {
        let are_many = bases.len().max(fixeds.len()) > MAX_NAMESAKES && !fixeds.is_empty();
        let may_be_one = |one: &u32, other: &u32| are_many || !are_two(b, *one, f, *other);
        let of_base = |one: &&u32| fixeds.iter().any(|other| may_be_one(one, other));
        let of_fixed = |other: &&u32| bases.iter().any(|one| may_be_one(one, other));
        base.extend(
            bases
                .iter()
                .filter(of_base)
                .map(|it| DataId::new(*it as usize)),
        );
        fixed.extend(
            fixeds
                .iter()
                .filter(of_fixed)
                .map(|it| DataId::new(*it as usize)),
        );
    }
    base.sort_unstable();
    fixed.sort_unstable();
    (base, fixed)
}

/// The linkage name, but of what counts scopes that are others now.
fn linkage<'a, S: Side>(
    image: &'a Image<S>,
    uncounted: &FxHashSet<u32>,
    index: u32,
) -> Option<&'a str> {
    let linkage = image.data[index as usize].decorated.as_deref();
    linkage.filter(|_| !uncounted.contains(&index))
}

/// Pairs what has a name and a type that occur once on each side, unless what else is known of the
/// two says that they are two.
fn by_name(
    paired: &mut Paired,
    b: &Keys<'_, Base>,
    f: &Keys<'_, Fixed>,
    name: impl Fn(&str) -> Option<String> + Sync,
) {
    let found = once(
        (&paired.0, |i| {
            let name = name(b.name(i)).filter(|_| !b.is_unsure(i))?;
            Some((name, b.kind(i)))
        }),
        (&paired.1, |i| {
            let name = name(f.name(i)).filter(|_| !f.is_unsure(i))?;
            Some((name, f.kind(i)))
        }),
    );
    for (base, fixed) in found {
        if !are_two(b, base, f, fixed) {
            link(paired, base, fixed);
        }
    }
}

/// Pairs what has a key that occurs once on each side.
fn tier<K: Hash + Eq>(
    paired: &mut Paired,
    base_key: impl Fn(u32) -> Option<K> + Sync,
    fixed_key: impl Fn(u32) -> Option<K> + Sync,
) {
    for (base, fixed) in once((&paired.0, base_key), (&paired.1, fixed_key)) {
        link(paired, base, fixed);
    }
}

/// Pairs what has the same key in order, where both sides have as many.
fn in_order<K: Hash + Eq>(
    paired: &mut Paired,
    base_key: impl Fn(u32) -> Option<K>,
    fixed_key: impl Fn(u32) -> Option<K>,
) {
    for (bases, fixeds) in as_many((&paired.0, base_key), (&paired.1, fixed_key)) {
        for (base, fixed) in bases.into_iter().zip(fixeds) {
            link(paired, base, fixed);
        }
    }
}

fn link(paired: &mut Paired, base: u32, fixed: u32) {
    paired.0[base as usize] = Some(DataId::new(fixed as usize));
    paired.1[fixed as usize] = Some(DataId::new(base as usize));
}
