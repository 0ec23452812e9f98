//! Rules about types: layouts, values of enumerations, and virtual functions.

use rayon::prelude::*;

use super::{Case, Refusal};
use crate::types::{Types, VirtualFunction};

/// Types of one name in one image, by index: more than one where compilands disagree on it.
type Group<'a> = (&'a Types, &'a [(String, u32)]);

/// Types of the same name that differ. Which functions use a type is not recorded for certain (a
/// cast leaves no trace), so every type counts as soon as any function changes. What compilands of
/// one image disagree on is changed only where each image has something that the other does not
/// have.
pub(super) fn judge(case: &Case<'_>, refusals: &mut Vec<Refusal>) {
    let (base, fixed) = (&case.comparer.base.types, &case.comparer.fixed.types);
    if case.redirected.is_empty() {
        return;
    }
    let (all_before, all_after) = (base.definitions(), fixed.definitions());
    let groups: Vec<_> = all_before.chunk_by(|a, b| a.0 == b.0).collect();
    let findings = |before: &&[(String, u32)]| {
        let name = before.first().map_or("", |(name, _)| name);
        let start = all_after.partition_point(|(other, _)| &**other < name);
        let end = all_after.partition_point(|(other, _)| &**other <= name);
        // Not a name, and so not the same type on both sides.
        if name.contains("<unnamed-") {
            return Vec::new();
        }
        let (before, after) = ((base, *before), (fixed, &all_after[start..end]));
        let found = [
            layout(before, after),
            values(before, after),
            virtual_functions(before, after),
        ];
        let finding = |(code, what, evidence): (&'static str, &str, String)| {
            let message = format!("{what} of {name} changed");
            Refusal::new(code, name, message, evidence)
        };
        found.into_iter().flatten().map(finding).collect()
    };
    let found: Vec<Vec<Refusal>> = groups.par_iter().map(findings).collect();
    refusals.extend(found.into_iter().flatten());
}

/// A rule, what it is about, and what shows it.
type Finding = (&'static str, &'static str, String);

fn layout((base, before): Group<'_>, (fixed, after): Group<'_>) -> Option<Finding> {
    let hashes = |types: &Types, all: &[(String, u32)]| -> Vec<u64> {
        all.iter()
            .map(|(_, index)| types.layout_hash(*index))
            .collect()
    };
    let (b_hashes, f_hashes) = (hashes(base, before), hashes(fixed, after));
    let gone = (0..before.len()).find(|at| !f_hashes.contains(&b_hashes[*at]))?;
    let new = (0..after.len()).find(|at| !b_hashes.contains(&f_hashes[*at]))?;
    let size = |size: Option<u32>| size.map_or("?".into(), |size| size.to_string());
    let before = size(base.size(before[gone].1));
    let after = size(fixed.size(after[new].1));
    let evidence = format!("{before} bytes before, {after} after");
    Some(("HP031", "the layout", evidence))
}

/// Enumerations: a further value is none that unchanged code knows.
fn values((base, before): Group<'_>, (fixed, after): Group<'_>) -> Option<Finding> {
    let lists = |types: &Types, all: &[(String, u32)]| -> Vec<Vec<(String, Vec<u8>)>> {
        all.iter()
            .map(|(_, index)| types.enumerators(*index))
            .collect()
    };
    let (before, after) = (lists(base, before), lists(fixed, after));
    let holds = |list: &Vec<(String, Vec<u8>)>, old: &Vec<(String, Vec<u8>)>| {
        old.iter().all(|value| list.contains(value))
    };
    let gone = before
        .iter()
        .find(|old| !after.iter().any(|list| holds(list, old)))?;
    let new = after.iter().find(|list| !before.contains(list))?;
    let (name, _) = gone.iter().find(|value| !new.contains(value))?;
    let what = match new.iter().any(|(other, _)| other == name) {
        true => "has another value",
        false => "is gone",
    };
    Some(("HP031", "the values", format!("{name} {what}")))
}

fn virtual_functions((base, before): Group<'_>, (fixed, after): Group<'_>) -> Option<Finding> {
    let lists = |types: &Types, all: &[(String, u32)]| -> Vec<Vec<VirtualFunction>> {
        all.iter()
            .map(|(_, index)| types.virtual_functions(*index))
            .collect()
    };
    let (before, after) = (lists(base, before), lists(fixed, after));
    let gone = before.iter().find(|list| !after.contains(list))?;
    let new = after.iter().find(|list| !before.contains(list))?;
    let evidence = virtual_functions_differ(gone, new)?;
    Some(("HP027", "the virtual functions", evidence))
}

/// The first virtual function that one side does not have in the same place of the table.
fn virtual_functions_differ(
    before: &[VirtualFunction],
    after: &[VirtualFunction],
) -> Option<String> {
    let place = |function: &VirtualFunction| match function.offset {
        Some(offset) => format!("at {offset:#x}"),
        None => "in place of an inherited one".to_owned(),
    };
    let of = |list: &[VirtualFunction], name: &str| {
        list.iter().find(|other| other.name == name).map(place)
    };
    let gone = before.iter().find(|function| !after.contains(function));
    let new = after.iter().find(|function| !before.contains(function));
    let name = &gone.or(new)?.name;
    let side = |place: Option<String>| place.unwrap_or_else(|| "none".to_owned());
    Some(format!(
        "{name}: {} before, {} after",
        side(of(before, name)),
        side(of(after, name))
    ))
}
