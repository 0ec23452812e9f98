//! Writable variables that have another type: the running base holds values of the old one, which
//! patched code would read by the new one.
//!
//! A structure with a name counts by its name here, as its definition has rules of its own. What has
//! another size is refused as such.

use hpbuild_metadata::{Base, Fixed};

use super::{Case, Refusal, Severity, types};
use crate::image::DataSymbol;
use crate::meaning::is_read_only;
use crate::types::{Types, difference};

pub(super) fn judge(case: &Case<'_>, refusals: &mut Vec<Refusal>) {
    let (base, fixed) = (case.comparer.base, case.comparer.fixed);
    if case.redirected.is_empty() {
        return;
    }
    let mut last = None;
    for (symbol, partner) in case.data_of_both() {
        if last == Some(symbol.rva) || is_read_only(base, symbol.rva) {
            continue;
        }
        let Some(evidence) = retyped((&base.types, symbol), (&fixed.types, partner)) else {
            continue;
        };
        last = Some(symbol.rva);
        // Code names a thread-local variable by its place in a block.
        let is_reached = symbol.thread_local || case.reached_after().contains(&partner.rva);
        let shown = symbol.display();
        let message = match is_reached {
            true => format!("the type of {shown} changed"),
            false => {
                format!("the type of {shown} changed; no changed function is known to reach it")
            }
        };
        let mut refusal = Refusal::new("HP031", &*symbol.name, message, evidence);
        if !is_reached {
            refusal.severity = Severity::Warn;
        }
        refusals.push(refusal);
    }
}

/// What shows that a variable has another type.
fn retyped(
    (base, before): (&Types, &DataSymbol<Base>),
    (fixed, after): (&Types, &DataSymbol<Fixed>),
) -> Option<String> {
    let (b, f) = (before.type_index, after.type_index);
    if b == 0 || f == 0 || before.size != after.size {
        return None;
    }
    let nameless = (base.nameless_in(b), fixed.nameless_in(f));
    if base.named_hash(b) == fixed.named_hash(f) {
        // Values of an enumeration are no part of a layout.
        let (Some(b), Some(f)) = nameless else {
            return None;
        };
        let found = types::findings((base, b), (fixed, f));
        return found.into_iter().next().map(|(_, _, evidence)| evidence);
    }
    let (before, after) = (base.words(b), fixed.words(f));
    if before != after {
        return Some(format!("{before} before, {after} after"));
    }
    let parts = match nameless {
        (Some(b), Some(f)) => difference(&base.parts(b), &fixed.parts(f)),
        _ => None,
    };
    Some(parts.unwrap_or_else(|| format!("{before}, which is laid out otherwise")))
}
