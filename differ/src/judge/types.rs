//! Rules about types: layouts, values of enumerations, and virtual functions.

use rayon::prelude::*;

use super::{Case, Refusal};
use crate::types::{Types, VirtualFunction};

/// What differs in a type: a rule, what to say, and what shows it.
type Finding = (&'static str, &'static str, String);

/// Types of the same name that differ. Which functions use a type is not recorded for certain (a
/// cast leaves no trace), so every type counts as soon as any function changes.
pub(super) fn judge(case: &Case<'_>, refusals: &mut Vec<Refusal>) {
    let (base, fixed) = (&case.comparer.base.types, &case.comparer.fixed.types);
    if case.redirected.is_empty() {
        return;
    }
    let (before, after) = (base.definitions(), fixed.definitions());
    let groups: Vec<_> = before.chunk_by(|a, b| a.0 == b.0).collect();
    let differs = |before: &&[(String, u32)]| {
        let name = &before.first()?.0;
        // Not a name, and so not the same type on both sides.
        if name.contains("<unnamed-") {
            return None;
        }
        let start = after.partition_point(|(other, _)| other < name);
        let end = after.partition_point(|(other, _)| other <= name);
        let found = disagreement((base, before), (fixed, &after[start..end]))?;
        Some((name.clone(), found))
    };
    let found: Vec<_> = groups.par_iter().filter_map(differs).collect();
    for (name, found) in found {
        for (code, what, evidence) in found {
            let message = format!("{what} of {name} changed");
            refusals.push(Refusal::new(code, name.clone(), message, evidence));
        }
    }
}

/// How the definitions of one name differ. What compilands of one image disagree on is changed only
/// where each image has a definition that the other does not have.
fn disagreement(
    (base, before): (&Types, &[(String, u32)]),
    (fixed, after): (&Types, &[(String, u32)]),
) -> Option<Vec<Finding>> {
    let differ = |b: u32, f: u32| !findings((base, b), (fixed, f)).is_empty();
    let gone = before
        .iter()
        .find(|(_, b)| after.iter().all(|(_, f)| differ(*b, *f)))?;
    let new = after
        .iter()
        .find(|(_, f)| before.iter().all(|(_, b)| differ(*b, *f)))?;
    Some(findings((base, gone.1), (fixed, new.1)))
}

fn findings((base, b): (&Types, u32), (fixed, f): (&Types, u32)) -> Vec<Finding> {
    let mut found = Vec::new();
    if base.layout_hash(b) != fixed.layout_hash(f) {
        let size = |size: Option<u32>| size.map_or("?".into(), |size| size.to_string());
        let (before, after) = (size(base.size(b)), size(fixed.size(f)));
        let evidence = format!("{before} bytes before, {after} after");
        found.push(("HP031", "the layout", evidence));
    }
    // A further value is none that unchanged code knows.
    let values = fixed.enumerators(f);
    let lost = base
        .enumerators(b)
        .into_iter()
        .find(|old| !values.contains(old));
    if let Some((name, _)) = lost {
        let what = match values.iter().any(|(other, _)| *other == name) {
            true => "has another value",
            false => "is gone",
        };
        found.push(("HP031", "the values", format!("{name} {what}")));
    }
    let (before, after) = (base.virtual_functions(b), fixed.virtual_functions(f));
    if let Some(evidence) = virtual_functions_differ(&before, &after) {
        found.push(("HP027", "the virtual functions", evidence));
    }
    found
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
