//! Variables of changed functions that lead to a structure of another name, which is laid out otherwise:
//! a type that was renamed while it changed, or moved to another namespace.

use std::collections::{BTreeMap, BTreeSet};

use hpbuild_metadata::{FunctionId, Side};

use super::local::Variable;
use super::{Case, Refusal, Severity};
use crate::image::Image;
use crate::names::{holds_nameless_type, of_type};
use crate::records::SymbolRecords;
use crate::types::difference;

/// By the names of variables the structures that they are or lead to.
type Variables = BTreeMap<String, BTreeSet<String>>;

pub(super) fn judge(case: &Case<'_>, refusals: &mut Vec<Refusal>) {
    let (base, fixed) = (case.comparer.base, case.comparer.fixed);
    let mut found: BTreeMap<(String, String), (String, String)> = BTreeMap::new();
    for (b, f) in &case.redirected {
        let (before, after) = (variables(base, *b), variables(fixed, *f));
        for (variable, old) in &before {
            let Some(new) = after.get(variable) else {
                continue;
            };
            // Of several that an optimiser inlined into one function nobody knows which is which.
            if let (Some(old), Some(new)) = (only(old, new), only(new, old)) {
                let here = || (variable.clone(), base.display_name(*b));
                found.entry((old, new)).or_insert_with(here);
            }
        }
    }
    if found.is_empty() {
        return;
    }
    let (before, after) = (base.types.definitions(), fixed.types.definitions());
    let index = |all: &[(String, u32)], name: &str| {
        let at = all.binary_search_by(|it| it.0.as_str().cmp(name)).ok()?;
        Some(all[at].1)
    };
    for ((old, new), (variable, function)) in found {
        let (Some(b), Some(f)) = (index(&before, &old), index(&after, &new)) else {
            continue;
        };
        let parts = difference(&base.types.parts(b), &fixed.types.parts(f));
        let (size, other) = (base.types.size(b), fixed.types.size(f));
        let sizes = || {
            let bytes = |size: Option<u32>| size.unwrap_or(0);
            format!("{} bytes before, {} after", bytes(size), bytes(other))
        };
        let Some(evidence) = parts.or_else(|| (size != other).then(sizes)) else {
            continue;
        };
        // The names alone may have told it.
        if refusals
            .iter()
            .any(|it| it.code == "HP031" && it.name == old)
        {
            continue;
        }
        let (was, is) = (base.types.words(b), fixed.types.words(f));
        let message = format!(
            "{variable} of {function} leads to {is} in place of {was}: objects that exist have the old layout"
        );
        let mut refusal = Refusal::new("HP031", old, message, evidence);
        refusal.severity = Severity::Warn;
        refusals.push(refusal);
    }
}

/// The only one of `these` that `others` does not have, where there is one.
fn only(these: &BTreeSet<String>, others: &BTreeSet<String>) -> Option<String> {
    let mut own = these.difference(others);
    let first = own.next()?;
    own.next().is_none().then(|| first.clone())
}

fn variables<S: Side>(image: &Image<S>, id: FunctionId<S>) -> Variables {
    let mut found = Variables::new();
    for procedure in image.procedures_of(id) {
        let bytes = image.records_of(procedure);
        for record in SymbolRecords::new(&bytes).by_ref() {
            let Some(variable) = Variable::of(record.kind.0, record.data) else {
                continue;
            };
            let udt = image.types.udt_of(variable.ty);
            let udt = udt.map(|it| of_type(&String::from_utf8_lossy(&it)).into_owned());
            let is_named = |it: &String| !holds_nameless_type(it);
            if let Some(udt) = udt.filter(is_named)
                && variable.name != b"this"
                && !variable.name.is_empty()
            {
                let name = String::from_utf8_lossy(variable.name).into_owned();
                found.entry(name).or_default().insert(udt);
            }
        }
    }
    found
}
