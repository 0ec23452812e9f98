//! Pairs of procedures, tier by tier.

use std::borrow::Cow;
use std::hash::Hash;

use hpbuild_metadata::{Base, Fixed};
use rustc_hash::FxHashMap;

use super::Tier;
use super::keys::Names;
use super::lambdas;
use super::once::{Seen, as_many, once, unpaired};

/// Pairs made so far.
pub(super) struct Pairs {
    pub(super) base: Vec<Option<(u32, Tier)>>,
    pub(super) fixed: Vec<Option<u32>>,
}

impl Pairs {
    pub(super) fn new(base: usize, fixed: usize) -> Self {
        Self {
            base: vec![None; base],
            fixed: vec![None; fixed],
        }
    }

    pub(super) fn link(&mut self, base: u32, fixed: u32, tier: Tier) {
        self.base[base as usize] = Some((fixed, tier));
        self.fixed[fixed as usize] = Some(base);
    }

    pub(super) fn unpaired_base(&self) -> impl Iterator<Item = u32> + '_ {
        unpaired(&self.base)
    }

    pub(super) fn unpaired_fixed(&self) -> impl Iterator<Item = u32> + '_ {
        unpaired(&self.fixed)
    }

    /// Pairs what has a key that occurs once on each side.
    pub(super) fn tier<K: Hash + Eq>(
        &mut self,
        tier: Tier,
        base_key: impl Fn(u32) -> Option<K> + Sync,
        fixed_key: impl Fn(u32) -> Option<K> + Sync,
    ) {
        self.tier_if(tier, base_key, fixed_key, |_, _| true);
    }

    /// As [`Pairs::tier`], of those pairs that may be one.
    pub(super) fn tier_if<K: Hash + Eq>(
        &mut self,
        tier: Tier,
        base_key: impl Fn(u32) -> Option<K> + Sync,
        fixed_key: impl Fn(u32) -> Option<K> + Sync,
        may_be: impl Fn(u32, u32) -> bool,
    ) {
        let found = once((&self.base, base_key), (&self.fixed, fixed_key));
        for (base, fixed) in found {
            if may_be(base, fixed) {
                self.link(base, fixed, tier);
            }
        }
    }

    /// Pairs compiler-made namesakes of one compiland where both sides have the same number of
    /// them: by the numbers in their names, and what is left in the order of their addresses. Lambdas
    /// and closures are told apart more carefully: see [`lambdas`]. Those that several objects may
    /// bring need not be of the same one.
    pub(super) fn order(&mut self, base: &Names<'_, Base>, fixed: &Names<'_, Fixed>) {
        let namesakes = as_many(
            (&self.base, |index| base.namesakes(index)),
            (&self.fixed, |index| fixed.namesakes(index)),
        );
        let of_lambdas = |(bases, _): &(Vec<u32>, Vec<u32>)| base.is_of_lambda(bases[0]);
        let (counted, namesakes): (Vec<_>, Vec<_>) = namesakes.into_iter().partition(of_lambdas);
        for (b, f) in lambdas::in_order(self, counted, |it| base.namesakes(it), base, fixed) {
            self.link(b, f, Tier::Order);
        }
        let shared = as_many(
            (&self.base, |index| base.shared_lambdas(index)),
            (&self.fixed, |index| fixed.shared_lambdas(index)),
        );
        for (b, f) in lambdas::in_order(self, shared, |it| base.shared_lambdas(it), base, fixed) {
            self.link(b, f, Tier::Order);
        }
        for (mut bases, mut fixeds) in namesakes {
            // No more and no fewer of them: the compiler counted the same ones.
            for (b, f) in same_names(base, &bases, fixed, &fixeds) {
                self.link(b, f, Tier::Order);
            }
            bases.retain(|index| self.base[*index as usize].is_none());
            fixeds.retain(|index| self.fixed[*index as usize].is_none());
            for (b, f) in bases.into_iter().zip(fixeds) {
                self.link(b, f, Tier::Order);
            }
        }
    }
}

/// Those of both sides whose names, numbers and all, occur once on each.
fn same_names(
    base: &Names<'_, Base>,
    bases: &[u32],
    fixed: &Names<'_, Fixed>,
    fixeds: &[u32],
) -> Vec<(u32, u32)> {
    let mut named: FxHashMap<Cow<'_, str>, (Seen, Seen)> = FxHashMap::default();
    for index in bases {
        let name = base.name_without_impls(*index);
        named.entry(name).or_default().0.add(*index);
    }
    for index in fixeds {
        let name = fixed.name_without_impls(*index);
        named.entry(name).or_default().1.add(*index);
    }
    let once = |(_, seen): (_, (Seen, Seen))| match seen {
        (Seen::Once(base), Seen::Once(fixed)) => Some((base, fixed)),
        _ => None,
    };
    named.into_iter().filter_map(once).collect()
}
