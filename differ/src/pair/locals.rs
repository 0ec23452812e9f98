//! What templates make of types that functions declare: names in records have the type without its function.
//!
//! ```text
//! base     void start() { struct State { .. }; }    call<State>
//! fixed    void stop()  { struct State { .. }; }    call<State>
//! ```
//!
//! The two have nothing to do with each other, and objects of the one must not get the code of the other. Where
//! the functions that declare a type of such a name are not the same ones on both sides, the names are written
//! with them. Linkage names of the Itanium C++ ABI have the function.

use std::collections::BTreeSet;

use hpbuild_metadata::{Base, Fixed, Side};

use super::keys::Names;
use super::sites::Renamed;
use crate::types::Locals;

/// Names with the functions of local types in them, of both sides, where these differ.
pub(super) fn renamed(b: &Names<'_, Base>, f: &Names<'_, Fixed>) -> (Renamed, Renamed) {
    let (before, after) = rayon::join(|| b.image.types.locals(), || f.image.types.locals());
    let words = before.keys().chain(after.keys());
    let differing = words.filter(|word| before.get(*word) != after.get(*word));
    let differing: BTreeSet<&str> = differing.map(String::as_str).collect();
    rayon::join(
        || with_functions(b, &before, &differing),
        || with_functions(f, &after, &differing),
    )
}

fn with_functions<S: Side>(
    names: &Names<'_, S>,
    locals: &Locals,
    differing: &BTreeSet<&str>,
) -> Renamed {
    let all = 0..u32::try_from(names.owners.len()).unwrap_or(u32::MAX);
    let renamed = all.filter_map(|index| {
        let name = names.name(index);
        let (_, arguments) = name.split_once('<')?;
        if let Some(linkage) = names.linkage(index).filter(|it| it.starts_with("_Z")) {
            // Lambdas are counted there: places tell these.
            let is_counted = ["$_", "Ul", "Ut"].iter().any(|it| linkage.contains(it));
            let local = linkage.find("IZ").filter(|_| !is_counted)?;
            return Some((index, format!("{name} {}", &linkage[local..]).into()));
        }
        if differing.is_empty() {
            return None;
        }
        let words = arguments.split(|it: char| !it.is_alphanumeric() && it != '_');
        let found: BTreeSet<&str> = words.filter(|word| differing.contains(word)).collect();
        if found.is_empty() {
            return None;
        }
        let mut longer = name.to_owned();
        for function in found.iter().filter_map(|word| locals.get(*word)).flatten() {
            longer.push(' ');
            longer.push_str(function);
        }
        Some((index, longer.into()))
    });
    renamed.collect()
}
