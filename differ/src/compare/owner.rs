//! Parts of functions that nobody enters by themselves: cold parts and funclets.
//!
//! Such a part cannot be redirected. Where one changed, the functions that it is a part of are
//! replaced, and take it along.

use std::collections::BTreeMap;

use hpbuild_metadata::{Base, Fixed, FunctionId};
use rustc_hash::FxHashMap;

use super::{Changed, Kind};
use crate::explain;
use crate::meaning::Comparer;
use crate::pair::{Tier, funclet};

/// Parts of parts of parts. Deeper ones stay functions of their own, for the rules about entries.
const MAX_OWNER_ROUNDS: usize = 4;

/// Counts a change of a cold part or a funclet as one of its function, too; returns how many
/// functions did not change otherwise.
pub(super) fn replace_owners(comparer: &Comparer<'_>, changed: &mut Vec<Changed>) -> u32 {
    let owners = Owners::new(comparer, changed);
    let mut count = 0;
    for _ in 0..MAX_OWNER_ROUNDS {
        let found = replace_owners_once(comparer, &owners, changed);
        count += found;
        if found == 0 {
            break;
        }
    }
    changed.sort_by_key(|change| (change.base, change.fixed));
    count
}

/// What changed in the parts of a function.
#[derive(Default)]
struct Parts {
    kinds: Vec<Kind>,
    bodies: Vec<FunctionId<Base>>,
}

/// One step from parts to what they are parts of.
fn replace_owners_once(
    comparer: &Comparer<'_>,
    owners_of: &Owners<'_>,
    changed: &mut Vec<Changed>,
) -> u32 {
    let mut owners: BTreeMap<_, (Tier, Parts)> = BTreeMap::new();
    for part in changed.iter_mut().filter(|part| !part.in_owner) {
        for (pair, tier) in owners_of.of(part.base, part.fixed) {
            part.in_owner = true;
            let owner = owners.entry(pair);
            let owner = owner.or_insert((tier, Parts::default()));
            owner.1.kinds.extend(&part.kinds);
            owner.1.bodies.push(part.base);
        }
    }
    for change in changed.iter_mut() {
        if let Some((_, parts)) = owners.remove(&(change.base, change.fixed)) {
            change.kinds.extend(parts.kinds);
            change.parts.extend(parts.bodies);
            change.kinds.sort_unstable();
            change.kinds.dedup();
        }
    }
    let count = u32::try_from(owners.len()).expect("no more than there are functions");
    for ((base, fixed), (tier, parts)) in owners {
        let Parts { mut kinds, bodies } = parts;
        kinds.sort_unstable();
        kinds.dedup();
        changed.push(Changed {
            base,
            fixed,
            tier,
            kinds,
            explanation: explain::explain(comparer, base, fixed),
            parts: bodies,
            in_owner: false,
        });
    }
    count
}

/// The functions by which a part is entered.
struct Owners<'a> {
    comparer: &'a Comparer<'a>,
    /// For each funclet of the base the functions that it belongs to there, and so on; empty where
    /// no funclet changed.
    base: FxHashMap<FunctionId<Base>, Vec<FunctionId<Base>>>,
    fixed: FxHashMap<FunctionId<Fixed>, Vec<FunctionId<Fixed>>>,
    /// Where the bodies of the fixed image stand among the pairs.
    pairs_of_fixed: FxHashMap<FunctionId<Fixed>, Vec<usize>>,
}

impl<'a> Owners<'a> {
    fn new(comparer: &'a Comparer<'a>, changed: &[Changed]) -> Self {
        let is_funclet = |change: &Changed| {
            let names = comparer.base.procedures_of(change.base);
            names.iter().any(|name| funclet::is_funclet(&name.name))
        };
        let mut owners = Self {
            comparer,
            base: FxHashMap::default(),
            fixed: FxHashMap::default(),
            pairs_of_fixed: FxHashMap::default(),
        };
        // Reading all exception data takes time, and most changes are of no funclet.
        if changed.iter().any(is_funclet) {
            owners.base = funclet::parents_of_funclets(comparer.base);
            owners.fixed = funclet::parents_of_funclets(comparer.fixed);
            for (index, (_, fixed, _)) in comparer.pairing.bodies().iter().enumerate() {
                owners.pairs_of_fixed.entry(*fixed).or_default().push(index);
            }
        }
        owners
    }

    /// The pairs whose part this is: on both sides, because a folded funclet has several parents
    /// and changes only those that have this one in both images; where there is none such, on
    /// either side.
    fn of(
        &self,
        base: FunctionId<Base>,
        fixed: FunctionId<Fixed>,
    ) -> BTreeMap<(FunctionId<Base>, FunctionId<Fixed>), Tier> {
        let pairs = self.comparer.pairing.bodies();
        let mut found = BTreeMap::new();
        let cold = self.comparer.base.owner_of(base);
        if let Some(cold) = cold.zip(self.comparer.fixed.owner_of(fixed))
            && let Ok(index) = pairs.binary_search_by_key(&cold, |&(b, f, _)| (b, f))
        {
            found.insert(cold, pairs[index].2);
        }
        // A body that is a function on one side is entered by itself.
        let (Some(b), Some(f)) = (self.base.get(&base), self.fixed.get(&fixed)) else {
            return found;
        };
        let mut of_base = BTreeMap::new();
        for parent in b {
            let start = pairs.partition_point(|(other, ..)| other < parent);
            let same = pairs[start..].iter().take_while(|(it, ..)| it == parent);
            of_base.extend(same.map(|&(b, f, tier)| ((b, f), tier)));
        }
        let of_fixed: BTreeMap<_, _> = f
            .iter()
            .filter_map(|it| self.pairs_of_fixed.get(it))
            .flatten()
            .map(|index| pairs[*index])
            .map(|(b, f, tier)| ((b, f), tier))
            .collect();
        let mut of_both = of_base.clone();
        of_both.retain(|pair, _| of_fixed.contains_key(pair));
        if of_both.is_empty() {
            of_both = of_base;
            of_both.extend(of_fixed);
        }
        found.extend(of_both);
        found
    }
}
