//! Types that are declared in one function, and of which nothing is left but code of that function:
//! closures, local structures, and what templates make of these. The function is replaced as a whole,
//! and who was in it before goes on with the old code and the old objects.
//!
//! Whoever else could work on such an object has its type in a name, a parameter, a variable or
//! in what is inlined, or is a method of it. What has nothing of that reaches the object's bytes
//! without its type alone: copied to where they outlive the call. Records do not tell of that.

mod functions;
mod names;

use std::collections::{BTreeMap, BTreeSet};

use hpbuild_metadata::{FunctionId, Side};
use rustc_hash::{FxHashMap, FxHashSet};

use super::Case;
use crate::image::{FunctionKind, Image};
use crate::names::function_around;
use crate::types::Types;

/// The definitions of one type on both sides, by their indexes.
pub(super) struct Changed<'a> {
    pub(super) name: &'a str,
    pub(super) before: Vec<u32>,
    pub(super) after: Vec<u32>,
}

/// By the names of those types that live in calls of one function alone: this function's name.
pub(super) fn judge(case: &Case<'_>, changed: &[Changed<'_>]) -> BTreeMap<String, String> {
    let (base, fixed) = (case.comparer.base, case.comparer.fixed);
    let around = changed.iter().filter_map(|it| {
        let before = function_of(&base.types, &it.before)?;
        Some((it.name, before, function_of(&fixed.types, &it.after)?))
    });
    let around: Vec<_> = around.collect();
    if around.is_empty() {
        return BTreeMap::new();
    }
    let (of_base, of_fixed) = rayon::join(
        || bodies(base, around.iter().map(|it| &*it.1)),
        || bodies(fixed, around.iter().map(|it| &*it.2)),
    );
    let redirected: FxHashSet<_> = case.redirected.iter().copied().collect();
    let mut pairs: BTreeSet<(&str, &str)> = BTreeSet::new();
    for (_, before, after) in &around {
        let ids = (of_base.get(&**before), of_fixed.get(&**after));
        if let (Some(b), Some(f)) = ids
            && redirected.contains(&(*b, *f))
        {
            pairs.insert((before, after));
        }
    }
    if pairs.is_empty() {
        return BTreeMap::new();
    }
    let (of_base, of_fixed) = rayon::join(
        || confined(base, pairs.iter().map(|it| (it.0, of_base[it.0]))),
        || confined(fixed, pairs.iter().map(|it| (it.1, of_fixed[it.1]))),
    );
    let known = pairs.into_iter().zip(of_base.into_iter().zip(of_fixed));
    let known: BTreeSet<_> = known
        .filter_map(|(pair, (base, fixed))| (base && fixed).then_some(pair))
        .collect();
    let found = around
        .iter()
        .filter(|(_, before, after)| known.contains(&(&**before, &**after)));
    found
        .map(|(name, before, _)| ((*name).to_owned(), before.clone()))
        .collect()
}

/// The function in which all definitions of a type stand.
fn function_of(types: &Types, definitions: &[u32]) -> Option<String> {
    let mut functions = definitions.iter().map(|index| {
        let (plain, unique) = types.names_of(*index)?;
        function_around(&plain, unique.as_deref())
    });
    let first = functions.next()??;
    functions
        .all(|it| it.as_ref() == Some(&first))
        .then_some(first)
}

/// The bodies of functions of which there is one, and that no other one's records share. What a template or generic made
/// is another one for each of its arguments.
fn bodies<'a, S: Side>(
    image: &Image<S>,
    names: impl Iterator<Item = &'a str>,
) -> FxHashMap<&'a str, FunctionId<S>> {
    let mut found: FxHashMap<&str, Vec<FunctionId<S>>> =
        names.map(|name| (name, Vec::new())).collect();
    for id in image.function_ids() {
        for procedure in image.procedures_of(id) {
            let name = &*procedure.name;
            let without_arguments = name.split_once('<').map(|it| it.0);
            for name in [Some(name), without_arguments].into_iter().flatten() {
                if let Some(found) = found.get_mut(name) {
                    found.push(id);
                }
            }
        }
    }
    let one = found.into_iter().filter_map(|(name, found)| {
        let [id] = found[..] else {
            return None;
        };
        let told = image.procedures_of(id).iter();
        let told = told.filter(|it| !it.records.range.is_empty());
        let is_whole = image.function(id).kind == FunctionKind::Procedure
            && told.count() == 1
            && is_of_clang(image, id);
        is_whole.then_some((name, id))
    });
    one.collect()
}

/// Whether clang or rustc compiled a function. Of casts, and of variables that the optimiser did away
/// with, they keep the types (clang's `EmitExplicitCastType`, LLVM's `retainedNodes`); what others
/// keep nobody measured.
fn is_of_clang<S: Side>(image: &Image<S>, id: FunctionId<S>) -> bool {
    let compiland = image.function(id).compiland;
    let compiland = compiland.and_then(|it| image.compilands.get(it.index()));
    let tool = compiland.and_then(|it| it.tool.as_ref());
    tool.is_some_and(|it| it.version.contains("clang"))
}

/// Whether nothing but one body has to do with the types of each of these functions.
fn confined<'a, S: Side>(
    image: &Image<S>,
    functions: impl Iterator<Item = (&'a str, FunctionId<S>)>,
) -> Vec<bool> {
    let (names, ids): (Vec<String>, Vec<_>) =
        functions.map(|(name, id)| (name.to_owned(), id)).unzip();
    let spread = functions::spread(image, &names, &ids);
    let count = u32::try_from(ids.len()).unwrap_or_default();
    (0..count)
        .map(|it| spread.as_ref().is_some_and(|spread| !spread.contains(&it)))
        .collect()
}
