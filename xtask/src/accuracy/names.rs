//! Names of the oracle as reports have them.

use std::collections::BTreeSet;

use hpbuild_tests::oracle::{Comparison, FunctionName};

use super::report::{self, Names};

/// What differs, by the names of procedure records.
pub(super) fn readable(comparison: &Comparison) -> Names {
    by(comparison, |it| undecorated(&it.name))
}

/// The data that differs, likewise.
pub(super) fn data(comparison: &Comparison) -> BTreeSet<String> {
    report::counted(comparison.data.iter().map(|it| undecorated(&it.name)))
}

fn by(comparison: &Comparison, name: impl Fn(&FunctionName) -> String) -> Names {
    Names {
        changed: report::counted(comparison.changed.iter().map(|it| name(&it.function))),
        added: report::counted(comparison.added.iter().map(&name)),
        removed: report::counted(comparison.removed.iter().map(&name)),
    }
}

/// A name as procedure records have it: without what the decoration says of types, and of Rust's
/// instances what the oracle found in such a record.
fn undecorated(name: &str) -> String {
    let recorded = name.strip_suffix(']').and_then(|it| it.split_once(" ["));
    if let Some((_, record)) = recorded {
        return record.to_owned();
    }
    undname::demangle(name, undname::Flags::NAME_ONLY).unwrap_or_else(|_| name.to_owned())
}
