//! Variables of changed functions that lead to a structure of another name, which is laid out otherwise:
//! a type that was renamed while it changed, or moved to another namespace. And those that lead to
//! numbers of another size: a `typedef` leaves no record of its own.

use std::collections::{BTreeMap, BTreeSet};

use hpbuild_metadata::{FunctionId, Side};
use ms_pdb::syms::SymKind;

use super::local::Variable;
use super::{Case, Refusal, Severity};
use crate::image::Image;
use crate::names::{holds_nameless_type, of_type};
use crate::records::SymbolRecords;
use crate::types::difference;

/// By the names of variables what they are or lead to.
type Variables<T> = BTreeMap<String, BTreeSet<T>>;

/// What pointers lead to: a number in words, and its bytes.
type Number = (String, u32);

pub(super) fn judge(case: &Case<'_>, refusals: &mut Vec<Refusal>) {
    let (base, fixed) = (case.comparer.base, case.comparer.fixed);
    let mut found: BTreeMap<(String, String), (String, String)> = BTreeMap::new();
    for (b, f) in &case.redirected {
        let (before, after) = (Led::of(base, *b), Led::of(fixed, *f));
        for (variable, old, new) in replaced(&before.structures, &after.structures) {
            let here = || (variable, base.display_name(*b));
            found.entry((old, new)).or_insert_with(here);
        }
        for (variable, old, new) in replaced(&before.numbers, &after.numbers) {
            refusals.extend(resized(base.display_name(*b), &variable, &old, &new));
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

/// A finding where a variable leads to numbers of another size.
fn resized(function: String, variable: &str, old: &Number, new: &Number) -> Option<Refusal> {
    if old.1 == new.1 {
        return None;
    }
    let message = format!(
        "{variable} of {function} leads to {} in place of {}: what exists has the old size",
        new.0, old.0
    );
    let evidence = format!("{} bytes before, {} after", old.1, new.1);
    let mut refusal = Refusal::new("HP031", function, message, evidence);
    refusal.severity = Severity::Warn;
    Some(refusal)
}

/// Variables that lead to one thing alone on each side which they do not on the other.
fn replaced<T: Clone + Ord>(before: &Variables<T>, after: &Variables<T>) -> Vec<(String, T, T)> {
    let of_both = before
        .iter()
        .filter_map(|(name, old)| Some((name, old, after.get(name)?)));
    // Of several that an optimiser inlined into one function nobody knows which is which.
    let lone = of_both
        .filter_map(|(name, old, new)| Some((name.clone(), only(old, new)?, only(new, old)?)));
    lone.collect()
}

/// The only one of `these` that `others` does not have, where there is one.
fn only<T: Clone + Ord>(these: &BTreeSet<T>, others: &BTreeSet<T>) -> Option<T> {
    let mut own = these.difference(others);
    let first = own.next()?;
    own.next().is_none().then(|| first.clone())
}

/// What the variables of a function lead to.
#[derive(Default)]
struct Led {
    /// Names of structures.
    structures: Variables<String>,
    /// Of variables of the function's own: `x` and `at` of what is inlined are any number's.
    numbers: Variables<Number>,
}

impl Led {
    fn of<S: Side>(image: &Image<S>, id: FunctionId<S>) -> Self {
        let mut found = Self::default();
        for procedure in image.procedures_of(id) {
            let bytes = image.records_of(procedure);
            let mut inlined = 0_u32;
            for record in SymbolRecords::new(&bytes) {
                match record.kind {
                    SymKind::S_INLINESITE | SymKind::S_INLINESITE2 => inlined += 1,
                    SymKind::S_INLINESITE_END => inlined = inlined.saturating_sub(1),
                    _ => {}
                }
                let Some(variable) = Variable::of(record.kind.0, record.data) else {
                    continue;
                };
                if variable.name == b"this" || variable.name.is_empty() {
                    continue;
                }
                let name = || String::from_utf8_lossy(variable.name).into_owned();
                if let Some(number) = image.types.number_behind(variable.ty) {
                    if inlined == 0 {
                        found.numbers.entry(name()).or_default().insert(number);
                    }
                    continue;
                }
                let udt = image.types.udt_of(variable.ty);
                let udt = udt.map(|it| of_type(&String::from_utf8_lossy(&it)).into_owned());
                if let Some(udt) = udt.filter(|it| !holds_nameless_type(it)) {
                    found.structures.entry(name()).or_default().insert(udt);
                }
            }
        }
        found
    }
}
