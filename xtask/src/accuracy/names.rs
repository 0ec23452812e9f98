//! Names of the oracle as reports have them.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use hpbuild_tests::oracle::{Comparison, FunctionName};

use super::report::{self, Names};
use crate::run;
use crate::toolchain::Toolchain;

/// How many names one command is asked to make readable.
const AT_ONCE: usize = 500;

/// What differs, by the names of procedure records.
pub(super) fn readable(comparison: &Comparison) -> Names {
    by(comparison, |it| undecorated(&it.name))
}

/// The data that differs, likewise.
pub(super) fn data(comparison: &Comparison) -> BTreeSet<String> {
    report::counted(comparison.data.iter().map(|it| undecorated(&it.name)))
}

/// What differs, with namesakes told apart.
pub(super) fn keys(tools: &Toolchain, comparison: &Comparison) -> Result<Names> {
    let changed = comparison.changed.iter().map(|it| &it.function);
    let all = changed.chain(&comparison.added).chain(&comparison.removed);
    let of_objects = all.filter(|it| it.object.is_some());
    let itanium: BTreeSet<&str> = of_objects
        .map(|it| it.name.as_str())
        .filter(|name| name.starts_with("_Z") || name.starts_with("_R"))
        .collect();
    let itanium: Vec<&str> = itanium.into_iter().collect();
    let mut readable = BTreeMap::new();
    for names in itanium.chunks(AT_ONCE) {
        let text = run::captured(tools.cxxfilt().arg("--no-params").args(names))?;
        readable.extend(names.iter().copied().zip(text.lines().map(str::to_owned)));
    }
    Ok(by(comparison, |it| match &it.object {
        Some(object) => {
            let known = readable.get(it.name.as_str()).cloned();
            let name = known.unwrap_or_else(|| undecorated(&it.name));
            report::key(None, &name, object)
        }
        None => report::key(Some(&it.name), "", ""),
    }))
}

fn by(comparison: &Comparison, name: impl Fn(&FunctionName) -> String) -> Names {
    Names {
        changed: report::counted(comparison.changed.iter().map(|it| name(&it.function))),
        added: report::counted(comparison.added.iter().map(&name)),
        removed: report::counted(comparison.removed.iter().map(&name)),
    }
}

/// A name as procedure records have it: without what the decoration says of types.
fn undecorated(name: &str) -> String {
    undname::demangle(name, undname::Flags::NAME_ONLY).unwrap_or_else(|_| name.to_owned())
}
