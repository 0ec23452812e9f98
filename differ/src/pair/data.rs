//! Pairing of named data, in tiers like those of functions.

use std::hash::Hash;

use hpbuild_metadata::{Base, DataId, Fixed, Side};

use super::once::{as_many, once};
use crate::image::{DataSymbol, Image};
use crate::names::without_generated_parts;

type Paired = (Vec<Option<DataId<Fixed>>>, Vec<Option<DataId<Base>>>);

/// Pairs data symbols. `base_procedures` gives the partner of each fixed procedure, because a
/// static local is known by the function it lives in.
pub(super) fn pair_data<'a>(
    base: &'a Image<Base>,
    fixed: &'a Image<Fixed>,
    base_procedures: &[Option<u32>],
) -> Paired {
    let mut paired: Paired = (vec![None; base.data.len()], vec![None; fixed.data.len()]);
    tier(
        &mut paired,
        base,
        fixed,
        |s, _| s.decorated.as_deref(),
        |s, _| s.decorated.as_deref(),
    );
    tier(
        &mut paired,
        base,
        fixed,
        |s, _| s.decorated.as_deref().and_then(without_generated_parts),
        |s, _| s.decorated.as_deref().and_then(without_generated_parts),
    );
    // A static local's parent is known by its index in the base.
    let base_parent =
        |symbol: &'a DataSymbol<Base>, _: &'a str| Some((&*symbol.name, symbol.parent?));
    let fixed_parent = |symbol: &'a DataSymbol<Fixed>, _: &'a str| {
        let parent = base_procedures
            .get(symbol.parent? as usize)
            .copied()
            .flatten()?;
        Some((&*symbol.name, parent))
    };
    tier(&mut paired, base, fixed, base_parent, fixed_parent);
    tier(
        &mut paired,
        base,
        fixed,
        |s, compiland| s.parent.is_none().then_some((&*s.name, compiland)),
        |s, compiland| s.parent.is_none().then_some((&*s.name, compiland)),
    );
    tier(
        &mut paired,
        base,
        fixed,
        |s, _| in_place(base, s),
        |s, _| in_place(fixed, s),
    );
    tier(
        &mut paired,
        base,
        fixed,
        |s, _| Some(&*s.name),
        |s, _| Some(&*s.name),
    );
    tier(
        &mut paired,
        base,
        fixed,
        |s, _| without_generated_parts(&s.name),
        |s, _| without_generated_parts(&s.name),
    );
    // Namesakes of one function, in inner blocks: paired in order where there are as many.
    in_order(&mut paired, base, fixed, base_parent, fixed_parent);
    // The same where the function has no body, so that only its name is there.
    let in_function = |name: &str, compiland: &str| {
        let inner = name.contains("::");
        inner.then(|| (name.to_owned(), compiland.to_owned()))
    };
    in_order(
        &mut paired,
        base,
        fixed,
        |s, compiland| in_function(&s.name, compiland).filter(|_| !s.global && s.parent.is_none()),
        |s, compiland| in_function(&s.name, compiland).filter(|_| !s.global && s.parent.is_none()),
    );
    paired
}

/// The name and the compiland of data that lives in no function, where other compilands have the
/// same short name.
fn in_place<'a, S: Side>(
    image: &'a Image<S>,
    symbol: &'a DataSymbol<S>,
) -> Option<(&'a str, &'a str)> {
    let compiland = image.compilands.get(symbol.compiland?.index())?;
    let tells = symbol.parent.is_none() && compiland.place != compiland.short_name;
    tells.then_some((&*symbol.name, &*compiland.place))
}

/// A key of data symbols and the short names of their compilands as one of their indexes.
fn by_index<'a, S: Side, K>(
    image: &'a Image<S>,
    key: impl Fn(&'a DataSymbol<S>, &'a str) -> Option<K>,
) -> impl Fn(u32) -> Option<K> {
    move |index| {
        let symbol = &image.data[index as usize];
        let compiland = symbol
            .compiland
            .and_then(|id| image.compilands.get(id.index()))
            .map_or("", |compiland| &compiland.short_name);
        key(symbol, compiland)
    }
}

/// Pairs what has a key that occurs once on each side.
fn tier<'a, K: Hash + Eq>(
    paired: &mut Paired,
    base: &'a Image<Base>,
    fixed: &'a Image<Fixed>,
    base_key: impl Fn(&'a DataSymbol<Base>, &'a str) -> Option<K> + Sync,
    fixed_key: impl Fn(&'a DataSymbol<Fixed>, &'a str) -> Option<K> + Sync,
) {
    let (base, fixed) = (by_index(base, base_key), by_index(fixed, fixed_key));
    for (base, fixed) in once((&paired.0, base), (&paired.1, fixed)) {
        link(paired, base, fixed);
    }
}

/// Pairs what has the same key in order, where both sides have as many.
fn in_order<'a, K: Hash + Eq>(
    paired: &mut Paired,
    base: &'a Image<Base>,
    fixed: &'a Image<Fixed>,
    base_key: impl Fn(&'a DataSymbol<Base>, &'a str) -> Option<K>,
    fixed_key: impl Fn(&'a DataSymbol<Fixed>, &'a str) -> Option<K>,
) {
    let (base, fixed) = (by_index(base, base_key), by_index(fixed, fixed_key));
    for (bases, fixeds) in as_many((&paired.0, base), (&paired.1, fixed)) {
        for (base, fixed) in bases.into_iter().zip(fixeds) {
            link(paired, base, fixed);
        }
    }
}

fn link(paired: &mut Paired, base: u32, fixed: u32) {
    paired.0[base as usize] = Some(DataId::new(fixed as usize));
    paired.1[fixed as usize] = Some(DataId::new(base as usize));
}
