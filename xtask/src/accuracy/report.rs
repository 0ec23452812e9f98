//! What `hpbuild diff` finds, as its report says.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::findings::Findings;
use crate::corpus::proof::Profile;
use crate::run;

/// Functions by what happened to them.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    pub(super) changed: BTreeSet<String>,
    pub(super) added: BTreeSet<String>,
    pub(super) removed: BTreeSet<String>,
}

/// The names, each further one of the same name with a number: static functions of several
/// sources may share theirs, and one of them must not stand for all.
pub(super) fn counted(names: impl Iterator<Item = String>) -> BTreeSet<String> {
    let mut seen = BTreeMap::<String, usize>::new();
    names
        .map(|name| {
            let count = seen.entry(name.clone()).or_default();
            *count += 1;
            match count {
                1 => name,
                count => format!("{name} ({count})"),
            }
        })
        .collect()
}

/// What `hpbuild diff` says of a pair.
#[derive(Default)]
pub(super) struct Found {
    /// By the names of procedure records, as people write them down.
    pub(super) names: Names,
    /// By their places.
    pub(super) changed: Vec<Reported>,
    pub(super) added: Vec<Reported>,
    pub(super) removed: Vec<Reported>,
    pub(super) unmatched: Vec<String>,
    pub(super) unknown: Vec<String>,
    /// What stands in the way of a patch, counted.
    pub(super) findings: Findings,
}

/// Where the report says that a function is, in RVAs.
pub(super) struct Reported {
    pub(super) base: Option<u64>,
    pub(super) fixed: Option<u64>,
}

/// Asks `hpbuild diff` for its report on a pair. That a change cannot be hotpatched is no matter
/// here.
pub(super) fn diff(profile: Profile, base: &Path, fixed: &Path) -> Result<Found> {
    let mut command = profile.hpbuild();
    command
        .arg("diff")
        .args([base, fixed])
        .args(["--format", "json"]);
    let line = run::shown(&command);
    let output = command
        .output()
        .with_context(|| format!("cannot start `{line}`"))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    // Hotpatchable, refused, or nothing changed; all else is a mistake of hpbuild.
    if !output
        .status
        .code()
        .is_some_and(|it| [0, 1, 3].contains(&it))
    {
        bail!("`{line}`: {}\n{errors}", output.status);
    }
    let report: Value = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("`{line}`: {}: no report\n{errors}", output.status))?;
    let functions = |kind: &str| {
        let list = report["functions"][kind].as_array();
        list.with_context(|| format!("`{line}`: no list functions.{kind}"))
    };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let named = |kind: &str| -> Result<BTreeSet<String>> {
        Ok(counted(functions(kind)?.iter().map(|it| text(&it["name"]))))
    };
    let places = |kind: &str| -> Result<Vec<Reported>> {
        let place = |it: &Value| Reported {
            base: it["base_rva"].as_u64(),
            fixed: it["fixed_rva"].as_u64(),
        };
        Ok(functions(kind)?.iter().map(place).collect())
    };
    Ok(Found {
        names: Names {
            changed: named("changed")?,
            added: named("added")?,
            removed: named("removed")?,
        },
        changed: places("changed")?,
        added: places("added")?,
        removed: places("removed")?,
        unmatched: functions("unmatched")?
            .iter()
            .map(|it| text(&it["name"]))
            .collect(),
        unknown: report["unknown"]
            .as_array()
            .with_context(|| format!("`{line}`: no list unknown"))?
            .iter()
            .map(|it| {
                format!(
                    "{}+{:#x}",
                    text(&it["name"]),
                    it["offset"].as_u64().unwrap_or(0)
                )
            })
            .collect(),
        findings: Findings::read(&report).with_context(|| format!("`{line}`"))?,
    })
}
