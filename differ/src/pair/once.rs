//! The joins that pairing is made of: what has a key that occurs once, or as often, on each side.

use std::hash::{BuildHasher, Hash};

use hashbrown::HashTable;
use rayon::prelude::*;
use rustc_hash::{FxBuildHasher, FxHashMap};

/// Which things of one side have a key, as far as that matters for making a pair.
#[derive(Clone, Copy, Default)]
pub(super) enum Seen {
    #[default]
    Never,
    Once(u32),
    Often,
}

impl Seen {
    pub(super) fn add(&mut self, index: u32) {
        *self = match self {
            Seen::Never => Seen::Once(index),
            Seen::Once(_) | Seen::Often => Seen::Often,
        };
    }
}

/// A key of the base. The key itself is not kept: it is that of `base`.
struct Entry {
    hash: u64,
    base: u32,
    is_often: bool,
    fixed: Seen,
}

/// So many things are looked at on several threads.
const MANY: usize = 1 << 12;

/// Of what has no partner yet on either side, by index, those whose key occurs once on each side. In
/// no particular order: each pair stands alone.
pub(super) fn once<B: Sync, F: Sync, K: Hash + Eq>(
    (base, base_key): (&[Option<B>], impl Fn(u32) -> Option<K> + Sync),
    (fixed, fixed_key): (&[Option<F>], impl Fn(u32) -> Option<K> + Sync),
) -> Vec<(u32, u32)> {
    let (bases, fixeds) = rayon::join(|| hashes(base, &base_key), || hashes(fixed, &fixed_key));
    if bases.is_empty() || fixeds.is_empty() {
        return Vec::new();
    }
    // Each part takes the keys whose hash says so: what one part pairs is no other's business.
    let parts = match bases.len() {
        MANY.. => rayon::current_num_threads() as u64,
        _ => 1,
    };
    if parts == 1 {
        return once_of((&bases, &base_key), (&fixeds, &fixed_key));
    }
    let found = (0..parts).into_par_iter().map(|part| {
        let own = |all: &[(u64, u32)]| {
            // Other bits than those that the table looks at.
            let own = all.iter().filter(|it| (it.0 >> 32) % parts == part);
            own.copied().collect::<Vec<_>>()
        };
        once_of((&own(&bases), &base_key), (&own(&fixeds), &fixed_key))
    });
    found.collect::<Vec<_>>().concat()
}

/// Of what has no partner yet on either side, by index and in order, those that share a key with as
/// many on the other side. In no particular order of keys: each stands alone.
pub(super) fn as_many<B, F, K: Hash + Eq>(
    (base, base_key): (&[Option<B>], impl Fn(u32) -> Option<K>),
    (fixed, fixed_key): (&[Option<F>], impl Fn(u32) -> Option<K>),
) -> Vec<(Vec<u32>, Vec<u32>)> {
    let mut shared: FxHashMap<K, (Vec<u32>, Vec<u32>)> = FxHashMap::default();
    for index in unpaired(base) {
        if let Some(key) = base_key(index) {
            shared.entry(key).or_default().0.push(index);
        }
    }
    for index in unpaired(fixed) {
        // A key of one side alone makes no pair.
        if let Some(known) = fixed_key(index).and_then(|key| shared.get_mut(&key)) {
            known.1.push(index);
        }
    }
    let mut found: Vec<_> = shared.into_values().collect();
    found.retain(|(bases, fixeds)| bases.len() == fixeds.len());
    found
}

/// What has no partner yet.
pub(super) fn unpaired<T>(pairs: &[Option<T>]) -> impl Iterator<Item = u32> + '_ {
    (0_u32..)
        .zip(pairs)
        .filter(|(_, pair)| pair.is_none())
        .map(|(index, _)| index)
}

/// The hashes of the keys of what is not paired yet, with whose they are, in their order.
fn hashes<T: Sync, K: Hash>(
    pairs: &[Option<T>],
    key: impl Fn(u32) -> Option<K> + Sync,
) -> Vec<(u64, u32)> {
    let hashed = |index: u32| Some((FxBuildHasher.hash_one(key(index)?), index));
    let blocks = pairs.par_chunks(MANY).enumerate();
    let blocks: Vec<Vec<(u64, u32)>> = blocks
        .map(|(block, pairs)| {
            let first = u32::try_from(block * MANY).unwrap_or(u32::MAX);
            unpaired(pairs)
                .filter_map(|index| hashed(first.checked_add(index)?))
                .collect()
        })
        .collect();
    blocks.concat()
}

/// Of these keys, told by their hashes, those that occur once on each side.
fn once_of<K: Eq>(
    (bases, base_key): (&[(u64, u32)], impl Fn(u32) -> Option<K>),
    (fixeds, fixed_key): (&[(u64, u32)], impl Fn(u32) -> Option<K>),
) -> Vec<(u32, u32)> {
    let mut seen: HashTable<Entry> = HashTable::with_capacity(bases.len());
    for &(hash, base) in bases {
        let is_it = |known: &Entry| known.hash == hash && base_key(known.base) == base_key(base);
        let entry = seen.entry(hash, is_it, |known| known.hash);
        entry
            .and_modify(|known| known.is_often = true)
            .or_insert(Entry {
                hash,
                base,
                is_often: false,
                fixed: Seen::Never,
            });
    }
    for &(hash, fixed) in fixeds {
        let is_it = |known: &Entry| known.hash == hash && base_key(known.base) == fixed_key(fixed);
        // A key of one side alone makes no pair.
        if let Some(known) = seen.find_mut(hash, is_it) {
            known.fixed.add(fixed);
        }
    }
    // Each pair stands alone, so the order of the table does not show.
    let once = |entry: Entry| match entry.fixed {
        Seen::Once(fixed) if !entry.is_often => Some((entry.base, fixed)),
        _ => None,
    };
    seen.into_iter().filter_map(once).collect()
}
