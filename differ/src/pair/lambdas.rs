//! Lambdas and closures of one function that are left when contents were held against each other, as many on
//! both sides.
//!
//! Their numbers say in which order they stand. That one changed and another did not is told by the
//! others: what stood before one that is the same stands before it still. Where one went and another came,
//! it may not, and whoever holds the address of the one must not be led to the other.

use hpbuild_metadata::{Base, Fixed, Side};
use rustc_hash::{FxHashMap, FxHasher};
use std::hash::{Hash, Hasher};

use super::keys::Names;
use super::tiers::Pairs;

/// What orders the lambdas of a function.
type Order = (Vec<u32>, u32);

/// Those of both sides that are left of a function's.
type Group = (Vec<u32>, Vec<u32>);

/// Bytes of code that are looked at together.
const WINDOW: usize = 4;

/// More lambdas of one function that changed are not told apart by their code: each would be held
/// against each.
const MAX_ALIKE: usize = 64;

/// Pairs those of each group in their order, all or none: none where a pair would cross one that was made
/// before, where one is much more like another's than like its own, or where that cannot be told. `key`
/// is what those of the base have in common in a group.
pub(super) fn in_order<K: Hash + Eq>(
    pairs: &Pairs,
    groups: Vec<Group>,
    key: impl Fn(u32) -> Option<K>,
    b: &Names<'_, Base>,
    f: &Names<'_, Fixed>,
) -> Vec<(u32, u32)> {
    if groups.is_empty() {
        return Vec::new();
    }
    let siblings = siblings(pairs, &groups, &key, b, f);
    let mut found = Vec::new();
    for (mut bases, mut fixeds) in groups {
        bases.sort_by_cached_key(|index| b.order(*index));
        fixeds.sort_by_cached_key(|index| f.order(*index));
        let known = key(bases[0]).and_then(|key| siblings.get(&key));
        let known = Siblings::new(known.map_or(&[], |it| it));
        let mut both = bases.iter().zip(&fixeds);
        let crosses = |(base, fixed): (&u32, &u32)| known.cross(&b.order(*base), &f.order(*fixed));
        if !both.any(crosses) && are_most_alike(b, &bases, f, &fixeds) {
            found.extend(bases.into_iter().zip(fixeds));
        }
    }
    found
}

/// For each of the groups where the lambdas of the same function stand that have a partner.
fn siblings<K: Hash + Eq>(
    pairs: &Pairs,
    groups: &[Group],
    key: impl Fn(u32) -> Option<K>,
    b: &Names<'_, Base>,
    f: &Names<'_, Fixed>,
) -> FxHashMap<K, Vec<(Order, Order)>> {
    let keys = groups.iter().filter_map(|group| key(group.0[0]));
    let mut found: FxHashMap<_, Vec<_>> = keys.map(|key| (key, Vec::new())).collect();
    for (base, pair) in (0_u32..).zip(&pairs.base) {
        let Some((fixed, _)) = *pair else { continue };
        if !b.is_of_lambda(base) {
            continue;
        }
        let known = key(base).and_then(|key| found.get_mut(&key));
        if let Some(known) = known {
            known.push((b.order(base), f.order(fixed)));
        }
    }
    found
}

/// Lambdas of one function that have a partner, in the order of the base.
struct Siblings<'a> {
    bases: Vec<&'a Order>,
    /// For each the last in the fixed image of its own and those before it.
    last: Vec<&'a Order>,
    /// For each the first in the fixed image of its own and those behind it.
    first: Vec<&'a Order>,
}

impl<'a> Siblings<'a> {
    fn new(known: &'a [(Order, Order)]) -> Self {
        let mut sorted: Vec<_> = known.iter().map(|(base, fixed)| (base, fixed)).collect();
        sorted.sort_unstable();
        let mut last: Vec<&Order> = sorted.iter().map(|it| it.1).collect();
        let mut first = last.clone();
        for at in 1..sorted.len() {
            last[at] = last[at].max(last[at - 1]);
        }
        for at in (1..sorted.len()).rev() {
            first[at - 1] = first[at - 1].min(first[at]);
        }
        let bases = sorted.into_iter().map(|it| it.0).collect();
        Self { bases, last, first }
    }

    /// Whether one of them stands before `base` and not before `fixed`, or the other way round.
    fn cross(&self, base: &Order, fixed: &Order) -> bool {
        let before = self.bases.partition_point(|it| *it < base);
        let last = before.checked_sub(1).and_then(|at| self.last.get(at));
        last.is_some_and(|it| *it >= fixed) || self.first.get(before).is_some_and(|it| *it < fixed)
    }
}

/// Whether no body has twice as much in common with another's partner as with its own. Instances of one
/// function differ little from each other, and one may come close to another by its change.
fn are_most_alike(
    b: &Names<'_, Base>,
    bases: &[u32],
    f: &Names<'_, Fixed>,
    fixeds: &[u32],
) -> bool {
    if bases.len() < 2 {
        return true;
    }
    if bases.len() > MAX_ALIKE {
        return false;
    }
    let before: Vec<_> = bases.iter().map(|it| windows(b, *it)).collect();
    let after: Vec<_> = fixeds.iter().map(|it| windows(f, *it)).collect();
    before.iter().enumerate().all(|(own, windows)| {
        let alike = |other: &Vec<u64>| in_common(windows, other);
        let most = after.iter().map(alike).max().unwrap_or(0);
        most <= 2 * after.get(own).map_or(0, alike)
    })
}

/// The hashes of all windows of a body's code without what its operands lead to, sorted.
fn windows<S: Side>(names: &Names<'_, S>, index: u32) -> Vec<u64> {
    let code = names
        .image
        .code_without_targets(names.owners[index as usize]);
    let hash = |window: &[u8]| {
        let mut hasher = FxHasher::default();
        hasher.write(window);
        hasher.finish()
    };
    let mut found: Vec<u64> = code.windows(WINDOW).map(hash).collect();
    found.sort_unstable();
    found
}

/// How many two sorted lists have in common.
fn in_common(mut one: &[u64], mut other: &[u64]) -> usize {
    let mut count = 0;
    while let (Some(a), Some(b)) = (one.first(), other.first()) {
        if a <= b {
            one = &one[1..];
        }
        if b <= a {
            other = &other[1..];
        }
        count += usize::from(a == b);
    }
    count
}

#[cfg(test)]
mod tests {
    use super::{Order, Siblings, in_common};

    fn order(position: u32) -> Order {
        (vec![position], 0)
    }

    #[test]
    fn crossed_siblings() {
        // The second and the third changed places.
        let known = [(1, 1), (4, 6), (6, 4)].map(|(base, fixed)| (order(base), order(fixed)));
        let known = Siblings::new(&known);
        for (base, fixed, crosses) in [
            (0, 0, false),
            (2, 3, false),
            (2, 5, true),
            (2, 0, true),
            (5, 5, true),
            (7, 7, false),
            (7, 5, true),
        ] {
            let crossed = known.cross(&order(base), &order(fixed));
            assert_eq!(crossed, crosses, "{base} {fixed}");
        }
        assert!(!Siblings::new(&[]).cross(&order(1), &order(2)));
    }

    #[test]
    fn what_lists_have_in_common() {
        assert_eq!(in_common(&[1, 2, 2, 5], &[2, 2, 3, 5, 5]), 3);
        assert_eq!(in_common(&[], &[1]), 0);
    }
}
