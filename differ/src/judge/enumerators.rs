//! Enumerators whose values changed and that no record of a type leads to: programs keep them in plain
//! integers.

use std::collections::{BTreeMap, BTreeSet};

use hpbuild_metadata::Side;

use super::{Case, Refusal, Severity};
use crate::image::Image;
use crate::names::is_nameless_type;

/// Enumerators that a finding names.
const SHOWN: usize = 3;

/// The values that each enumerator has.
type Values = BTreeMap<String, BTreeSet<i128>>;

/// One warning for all of them: a new one in front moves all that follow. What one image has of a name
/// in several values changed where each image has a value that the other does not have.
pub(super) fn judge(case: &Case<'_>, refusals: &mut Vec<Refusal>) {
    if case.redirected.is_empty() {
        return;
    }
    let (before, after) = (values(case.comparer.base), values(case.comparer.fixed));
    let changed = before.iter().filter_map(|(name, before)| {
        let after = after.get(name)?;
        let gone = before.difference(after).next()?;
        let new = after.difference(before).next()?;
        Some((name, format!("{name}: {gone} before, {new} after")))
    });
    let mut changed: Vec<_> = changed.collect();
    if !changed.is_empty() {
        let named = of_named_enumerations(case.comparer.base);
        changed.retain(|(name, _)| !named.contains(*name));
    }
    let Some((first, _)) = changed.first() else {
        return;
    };
    let shown: Vec<_> = changed.iter().take(SHOWN).map(|it| &*it.1).collect();
    let more = match changed.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    // Static variables that nothing writes, and of which the compiler leaves the value alone, have the
    // same records as enumerators of C.
    let message = "enumerators (or variables of which the compiler left nothing but the value) have \
                   other values: integers that hold the old ones mean something else to the patch";
    let evidence = format!("{}{more}", shown.join("; "));
    let mut refusal = Refusal::new("HP031", (*first).clone(), message, evidence);
    refusal.severity = Severity::Warn;
    refusals.push(refusal);
}

/// Enumerators of enumerations with names, which are compared as types.
fn of_named_enumerations<S: Side>(image: &Image<S>) -> BTreeSet<String> {
    let definitions = image.types.definitions().into_iter();
    let named = definitions.filter(|(name, _)| !is_nameless_type(name));
    let own = named.flat_map(|(_, index)| image.types.enumerators(index));
    own.map(|(name, _)| name).collect()
}

/// Enumerators of C, which are integers, and of enumerations without a name.
fn values<S: Side>(image: &Image<S>) -> Values {
    let mut found = Values::new();
    for (name, value) in image.types.nameless_enumerators() {
        found.entry(name).or_default().insert(value);
    }
    for (name, value) in &image.enumerators {
        found.entry(name.to_string()).or_default().insert(*value);
    }
    found
}
