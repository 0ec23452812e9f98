//! What paired functions say of namesakes that they reach: which of the base is which of the fixed
//! image.

use hpbuild_metadata::{Base, Fixed, FunctionId, Rva, Side};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::image::Image;

/// What bodies that are the same by name say of one of them.
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

/// What was said of those of either side.
#[derive(Default)]
pub(super) struct Votes {
    base: FxHashMap<u32, Said>,
    fixed: FxHashMap<u32, Said>,
}

impl Votes {
    pub(super) fn add(&mut self, base: u32, fixed: u32) {
        self.base.entry(base).or_default().add(fixed);
        self.fixed.entry(fixed).or_default().add(base);
    }

    /// The pairs about which nobody says anything else, sorted.
    pub(super) fn agreed(&self) -> Vec<(u32, u32)> {
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

    /// Whether anybody says something of one of the base.
    pub(super) fn speak_of_base(&self, base: u32) -> bool {
        self.base.contains_key(&base)
    }

    /// The same of one of the fixed image.
    pub(super) fn speak_of_fixed(&self, fixed: u32) -> bool {
        self.fixed.contains_key(&fixed)
    }
}

/// Where one of them starts, its bytes, its index, and the number of its name and type.
pub(super) type Namesake<S> = (Rva<S>, u32, u32, u32);

/// Namesakes of one type that have no partner yet, on both sides.
pub(super) struct Namesakes<S: Side> {
    /// Sorted.
    all: Vec<Namesake<S>>,
}

impl<S: Side> Namesakes<S> {
    pub(super) fn new(all: impl Iterator<Item = Namesake<S>>) -> Self {
        let mut all: Vec<_> = all.collect();
        all.sort_unstable();
        Self { all }
    }

    /// Those that a body reaches, as which name and type, and which; each once, in the order in which
    /// its code names them.
    pub(super) fn reached(&self, image: &Image<S>, body: FunctionId<S>) -> Vec<(u32, u32)> {
        let mut found: Vec<(u32, u32)> = Vec::new();
        let mut seen = FxHashSet::default();
        for placed in image.references_of(body) {
            // A page alone is nothing, though something may stand at its start.
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

/// The namesakes of two bodies that stand at the same place among those of one name, where both
/// bodies reach as many of them.
pub(super) fn in_step(before: &[(u32, u32)], after: &[(u32, u32)]) -> Vec<(u32, u32)> {
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
pub(super) fn have_same_form(
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
