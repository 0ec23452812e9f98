//! Namesakes among variables, by the code that reaches them.
//!
//! Static variables of several sources may have one name. Link-time optimisation makes one object
//! of all sources, and nothing is left to tell them apart but who uses them. Functions that were
//! paired say which is which: what one reaches first of such variables is what its partner reaches
//! first. They have to agree about it. Whose code did not change its form speaks first.

use hpbuild_metadata::{Base, Fixed, FunctionId, Rva, Side};
use rustc_hash::{FxHashMap, FxHashSet};

use super::Paired;
use super::keys::{Keys, are_two};
use crate::image::Image;
use crate::pair::Tier;
use crate::pair::once::{as_many, unpaired};

/// What bodies that are the same by name say of a variable.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Said {
    #[default]
    Nothing,
    One(u32),
    Several,
}

impl Said {
    fn add(&mut self, other: u32) {
        *self = match *self {
            Said::Nothing => Said::One(other),
            Said::One(known) if known == other => Said::One(known),
            Said::One(_) | Said::Several => Said::Several,
        };
    }
}

/// Those of both sides that have one name and type.
type Group = (Vec<u32>, Vec<u32>);

/// What was said of the variables of either side.
#[derive(Default)]
struct Votes {
    base: FxHashMap<u32, Said>,
    fixed: FxHashMap<u32, Said>,
}

impl Votes {
    fn add(&mut self, base: u32, fixed: u32) {
        self.base.entry(base).or_default().add(fixed);
        self.fixed.entry(fixed).or_default().add(base);
    }

    /// The pairs about which nobody says anything else, sorted.
    fn agreed(&self) -> Vec<(u32, u32)> {
        let agreed = |(base, said): (&u32, &Said)| match *said {
            Said::One(fixed) if self.fixed.get(&fixed) == Some(&Said::One(*base)) => {
                Some((*base, fixed))
            }
            _ => None,
        };
        let mut found: Vec<_> = self.base.iter().filter_map(agreed).collect();
        found.sort_unstable();
        found
    }
}

/// Namesakes of one type that have no partner yet, on both sides.
struct Namesakes<S: Side> {
    /// (start, bytes, index, which name and type), sorted.
    all: Vec<(Rva<S>, u32, u32, u32)>,
}

impl<S: Side> Namesakes<S> {
    fn new(keys: &Keys<'_, S>, of: impl Iterator<Item = (u32, u32)>) -> Self {
        let place = |(index, group): (u32, u32)| {
            let symbol = keys.symbol(index);
            (symbol.rva, symbol.size, index, group)
        };
        let mut all: Vec<_> = of.map(place).collect();
        all.sort_unstable();
        Self { all }
    }

    /// Those that a body reaches, as which name and type, and which; each once, in the order in which
    /// its code names them.
    fn reached(&self, image: &Image<S>, body: FunctionId<S>) -> Vec<(u32, u32)> {
        let mut found: Vec<(u32, u32)> = Vec::new();
        let mut seen = FxHashSet::default();
        for placed in image.references_of(body) {
            // A page alone is no variable, though one may stand at its start.
            if placed.completed_elsewhere {
                continue;
            }
            let target = placed.reference.target;
            let behind = self.all.partition_point(|it| it.0 <= target);
            let Some((start, size, index, group)) = behind.checked_sub(1).map(|at| self.all[at])
            else {
                continue;
            };
            let is_it = target.checked_sub(start).is_some_and(|at| at < size.max(1));
            if is_it && seen.insert(index) {
                found.push((group, index));
            }
        }
        // Each name for itself, in its order.
        found.sort_by_key(|it| it.0);
        found
    }
}

/// Pairs namesakes of one type by who reaches them, and what nobody reaches in order.
pub(super) fn pair_reached(
    paired: &mut Paired,
    b: &Keys<'_, Base>,
    f: &Keys<'_, Fixed>,
    bodies: &[(FunctionId<Base>, FunctionId<Fixed>, Tier)],
) {
    let mut groups: FxHashMap<(&str, u64), Group> = FxHashMap::default();
    for index in unpaired(&paired.0) {
        let key = (b.name(index), b.kind(index));
        groups.entry(key).or_default().0.push(index);
    }
    for index in unpaired(&paired.1) {
        if let Some(group) = groups.get_mut(&(f.name(index), f.kind(index))) {
            group.1.push(index);
        }
    }
    // The order of groups does not show: each stands alone.
    groups.retain(|_, (bases, fixeds)| !bases.is_empty() && !fixeds.is_empty());
    if groups.is_empty() {
        return;
    }
    let numbered = || (0_u32..).zip(groups.values());
    let bases = numbered().flat_map(|(group, it)| it.0.iter().map(move |index| (*index, group)));
    let fixeds = numbered().flat_map(|(group, it)| it.1.iter().map(move |index| (*index, group)));
    let (bases, fixeds) = (Namesakes::new(b, bases), Namesakes::new(f, fixeds));
    let mut of_same_form = Votes::default();
    let mut of_all = Votes::default();
    for (base, fixed, _) in bodies {
        let before = bases.reached(b.image, *base);
        if before.is_empty() {
            continue;
        }
        let after = fixeds.reached(f.image, *fixed);
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
    pair_unreached(paired, (b, f), &of_all);
}

/// What no paired function reaches, in order where both sides have as many.
fn pair_unreached(paired: &mut Paired, (b, f): (&Keys<'_, Base>, &Keys<'_, Fixed>), votes: &Votes) {
    let unreached = as_many(
        (&paired.0, |i| Some((b.name(i), b.kind(i)))),
        (&paired.1, |i| Some((f.name(i), f.kind(i)))),
    );
    for (bases, fixeds) in unreached {
        let is_silent = bases.iter().all(|it| !votes.base.contains_key(it))
            && fixeds.iter().all(|it| !votes.fixed.contains_key(it));
        let pairs = || bases.iter().copied().zip(fixeds.iter().copied());
        if is_silent && pairs().all(|(base, fixed)| !are_two(b, base, f, fixed)) {
            pairs().for_each(|(base, fixed)| super::link(paired, base, fixed));
        }
    }
}

/// The namesakes of two bodies that stand at the same place among those of one name, where both
/// bodies reach as many of them.
fn in_step(before: &[(u32, u32)], after: &[(u32, u32)]) -> Vec<(u32, u32)> {
    let mut found = Vec::new();
    for group in before.chunk_by(|one, other| one.0 == other.0) {
        let start = after.partition_point(|it| it.0 < group[0].0);
        let end = after.partition_point(|it| it.0 <= group[0].0);
        if group.len() == end - start {
            let partners = after[start..end].iter();
            found.extend(
                group
                    .iter()
                    .zip(partners)
                    .map(|(one, other)| (one.1, other.1)),
            );
        }
    }
    found
}

/// Whether the references of two bodies stand at the same places.
fn have_same_form(
    base: &Image<Base>,
    base_id: FunctionId<Base>,
    fixed: &Image<Fixed>,
    fixed_id: FunctionId<Fixed>,
) -> bool {
    let (before, after) = (base.references_of(base_id), fixed.references_of(fixed_id));
    let is_same_place = |(one, other): (
        &crate::image::PlacedReference<Base>,
        &crate::image::PlacedReference<Fixed>,
    )| { one.offset == other.offset && one.length == other.length };
    base.function(base_id).size == fixed.function(fixed_id).size
        && before.len() == after.len()
        && before.iter().zip(after).all(is_same_place)
}
