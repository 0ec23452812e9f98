//! The meaning of a body as a number, for bodies that names did not pair.
//!
//! Bytes outside reference fields, and for each reference the name of what it points at. Bodies
//! of equal number are only candidates for a pair: comparing still looks at everything. Where
//! nothing but the body tells what it is, small constants without a name count by what they hold.

use std::borrow::Cow;
use std::hash::{Hash, Hasher};

use hpbuild_metadata::{Base, Fixed, FunctionId, Side};
use rayon::prelude::*;
use rustc_hash::{FxHashMap, FxHasher};

use super::{Names, Pairs, stable_name};
use crate::image::Image;

/// Constants up to this size, in bytes, count by what they hold.
const MAX_CONSTANT: u32 = 256;

/// So many calls away what bodies refer to tells them apart.
const MAX_STEPS: usize = 3;

/// Meanings of the bodies that have an unpaired name, or none.
pub(super) struct Contents {
    base: FxHashMap<FunctionId<Base>, Content>,
    fixed: FxHashMap<FunctionId<Fixed>, Content>,
}

/// The meaning of one body.
#[derive(Clone, Copy)]
struct Content {
    /// By the names of what it refers to.
    by_names: u64,
    /// By these and by the meanings of those bodies it refers to that names do not tell apart.
    deep: u64,
    /// By these and by what constants without a name hold.
    whole: u64,
}

impl Contents {
    pub(super) fn of_unpaired(
        base: &Image<Base>,
        fixed: &Image<Fixed>,
        b: &Names<'_, Base>,
        f: &Names<'_, Fixed>,
        pairs: &Pairs,
    ) -> Self {
        let named_base = pairs.unpaired_base().map(|index| b.owners[index as usize]);
        let named_fixed = pairs.unpaired_fixed().map(|index| f.owners[index as usize]);
        Self {
            base: meanings(base, named_base.chain(unnamed(base)).collect()),
            fixed: meanings(fixed, named_fixed.chain(unnamed(fixed)).collect()),
        }
    }

    /// Those of bodies whose names count lambdas or closures.
    pub(super) fn of_counted(b: &Names<'_, Base>, f: &Names<'_, Fixed>, pairs: &Pairs) -> Self {
        fn of<S: Side>(
            names: &Names<'_, S>,
            unpaired: impl Iterator<Item = u32>,
        ) -> FxHashMap<FunctionId<S>, Content> {
            let counted: Vec<FunctionId<S>> = unpaired
                .filter(|index| names.is_counted(*index))
                .map(|index| names.owners[index as usize])
                .collect();
            meanings(names.image, counted)
        }
        Self {
            base: of(b, pairs.unpaired_base()),
            fixed: of(f, pairs.unpaired_fixed()),
        }
    }

    /// Those of these procedures' bodies, and of bodies whose names count lambdas or closures.
    pub(super) fn of(
        b: &Names<'_, Base>,
        bases: &[u32],
        f: &Names<'_, Fixed>,
        fixeds: &[u32],
    ) -> Self {
        fn of<S: Side>(names: &Names<'_, S>, own: &[u32]) -> FxHashMap<FunctionId<S>, Content> {
            let all = 0..u32::try_from(names.owners.len()).unwrap_or(u32::MAX);
            let counted = all.filter(|index| names.is_counted(*index));
            let both = own.iter().copied().chain(counted);
            meanings(
                names.image,
                both.map(|it| names.owners[it as usize]).collect(),
            )
        }
        Self {
            base: of(b, bases),
            fixed: of(f, fixeds),
        }
    }

    /// As [`Contents::deep_base`], and with what constants without a name hold.
    pub(super) fn both_of_base(&self, id: FunctionId<Base>) -> Option<(u64, u64)> {
        self.base.get(&id).map(|it| (it.deep, it.whole))
    }

    pub(super) fn both_of_fixed(&self, id: FunctionId<Fixed>) -> Option<(u64, u64)> {
        self.fixed.get(&id).map(|it| (it.deep, it.whole))
    }

    pub(super) fn base(&self, id: FunctionId<Base>) -> Option<u64> {
        self.base.get(&id).map(|it| it.by_names)
    }

    pub(super) fn fixed(&self, id: FunctionId<Fixed>) -> Option<u64> {
        self.fixed.get(&id).map(|it| it.by_names)
    }

    pub(super) fn deep_base(&self, id: FunctionId<Base>) -> Option<u64> {
        self.base.get(&id).map(|it| it.deep)
    }

    pub(super) fn deep_fixed(&self, id: FunctionId<Fixed>) -> Option<u64> {
        self.fixed.get(&id).map(|it| it.deep)
    }

    pub(super) fn whole_base(&self, id: FunctionId<Base>) -> Option<u64> {
        self.base.get(&id).map(|it| it.whole)
    }

    pub(super) fn whole_fixed(&self, id: FunctionId<Fixed>) -> Option<u64> {
        self.fixed.get(&id).map(|it| it.whole)
    }
}

fn unnamed<S: Side>(image: &Image<S>) -> impl Iterator<Item = FunctionId<S>> + '_ {
    image
        .function_ids()
        .filter(|id| image.function(*id).procedures.is_empty())
}

/// The meanings of these bodies, each told by those of the others that it refers to as well: what a
/// lambda does is often in another function than that whose address is taken.
fn meanings<S: Side>(
    image: &Image<S>,
    ids: Vec<FunctionId<S>>,
) -> FxHashMap<FunctionId<S>, Content> {
    let found = ids.into_par_iter().map(|id| (id, meaning(image, id)));
    let mut found: FxHashMap<FunctionId<S>, Content> = found.collect();
    for _ in 0..MAX_STEPS {
        let deeper: Vec<(FunctionId<S>, u64)> = found
            .par_iter()
            .map(|(id, content)| {
                let mut hash = FxHasher::default();
                content.deep.hash(&mut hash);
                for placed in image.references_of(*id) {
                    let target = image.function_at(placed.reference.target);
                    let other = target.filter(|target| target != id);
                    let other = other.and_then(|target| found.get(&target));
                    other.map(|it| it.deep).hash(&mut hash);
                }
                (*id, hash.finish())
            })
            .collect();
        for (id, deep) in deeper {
            if let Some(content) = found.get_mut(&id) {
                content.deep = deep;
            }
        }
    }
    found
}

fn meaning<S: Side>(image: &Image<S>, id: FunctionId<S>) -> Content {
    let mut hash = FxHasher::default();
    let mut constants = FxHasher::default();
    for placed in image.references_of(id) {
        if !placed.completed_elsewhere {
            let name = name_of(image, placed.reference.target);
            if name.is_none() {
                constant(image, placed.reference.target).hash(&mut constants);
            }
            name.hash(&mut hash);
        }
    }
    image.code_without_targets(id).hash(&mut hash);
    let by_names = hash.finish();
    by_names.hash(&mut constants);
    Content {
        by_names,
        deep: by_names,
        whole: constants.finish(),
    }
}

/// What a constant holds that is all that its object gave there, without the pointers in it.
fn constant<S: Side>(image: &Image<S>, rva: hpbuild_metadata::Rva<S>) -> Option<Vec<u8>> {
    let given = image.contribution_at(rva)?;
    let section = image.pe.section_at(rva)?;
    if given.rva != rva || given.size > MAX_CONSTANT || section.is_writable() {
        return None;
    }
    let mut bytes = image.pe.bytes(rva, given.size)?.to_vec();
    for (place, absolute) in image.pointers_in(rva, given.size) {
        let at = place.checked_sub(rva)? as usize;
        let end = at + if absolute { 8 } else { 4 };
        bytes.get_mut(at..end)?.fill(0);
    }
    Some(bytes)
}

/// A name for what stands at `rva` that another build would also have.
fn name_of<S: Side>(
    image: &Image<S>,
    rva: hpbuild_metadata::Rva<S>,
) -> Option<(Cow<'_, str>, u32)> {
    if let Some(id) = image.function_at(rva) {
        let offset = rva.get() - image.function(id).rva.get();
        let name = image
            .procedures_of(id)
            .first()
            .map_or("", |name| &name.name);
        return Some((stable_name(name), offset));
    }
    let symbol = image.data_symbol(image.data_at(rva)?);
    Some((stable_name(&symbol.name), rva.get() - symbol.rva.get()))
}
