//! What `hpbuild diff` finds, as its report says.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result};
use hpbuild_tests::oracle::Linked;
use serde_json::Value;

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

/// What tells a function from its namesakes: the linkage name where all objects see it, otherwise
/// the readable one and the object.
pub(super) fn key(linkage: Option<&str>, readable: &str, object: &str) -> String {
    linkage.map_or_else(|| format!("{readable} in {object}"), str::to_owned)
}

/// What `hpbuild diff` says of a pair.
pub(super) struct Found {
    /// By the names of procedure records, as people write them down.
    pub(super) names: Names,
    /// By what tells namesakes apart: see [`key`].
    pub(super) keys: Names,
    pub(super) bodies: Bodies,
    pub(super) unmatched: Vec<String>,
    pub(super) unknown: Vec<String>,
}

/// Functions by what happened to them, by address, with their names.
#[derive(Default)]
pub(super) struct Bodies {
    /// Addresses in the base and in the fixed image.
    pub(super) changed: BTreeMap<(u32, u32), String>,
    pub(super) added: BTreeMap<u32, String>,
    pub(super) removed: BTreeMap<u32, String>,
}

impl Bodies {
    fn read(report: &Value) -> Option<Bodies> {
        let address = |it: &Value, side: &str| u32::try_from(it[side].as_u64()?).ok();
        let name = |it: &Value| Some(it["name"].as_str()?.to_owned());
        let functions = |kind: &str| report["functions"][kind].as_array();
        let lone = |kind: &str, side: &str| -> Option<BTreeMap<u32, String>> {
            let of = |it| Some((address(it, side)?, name(it)?));
            functions(kind)?.iter().map(of).collect()
        };
        let both = |it| {
            Some((
                (address(it, "base_rva")?, address(it, "fixed_rva")?),
                name(it)?,
            ))
        };
        Some(Bodies {
            changed: functions("changed")?
                .iter()
                .map(both)
                .collect::<Option<_>>()?,
            added: lone("added", "fixed_rva")?,
            removed: lone("removed", "base_rva")?,
        })
    }
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
    let report: Value = serde_json::from_slice(&output.stdout).with_context(|| {
        let errors = String::from_utf8_lossy(&output.stderr);
        format!("`{line}`: {}: no report\n{errors}", output.status)
    })?;
    let functions = |kind: &str| {
        let list = report["functions"][kind].as_array();
        list.with_context(|| format!("`{line}`: no list functions.{kind}"))
    };
    let each = |of: fn(&Value) -> String| -> Result<Names> {
        let all = |kind: &str| -> Result<BTreeSet<String>> {
            Ok(counted(functions(kind)?.iter().map(of)))
        };
        Ok(Names {
            changed: all("changed")?,
            added: all("added")?,
            removed: all("removed")?,
        })
    };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Ok(Found {
        names: each(|it| it["name"].as_str().unwrap_or_default().to_owned())?,
        keys: each(|it| {
            let [name, compiland] = ["name", "compiland"].map(|field| it[field].as_str());
            key(
                it["decorated"].as_str(),
                name.unwrap_or_default(),
                compiland.unwrap_or_default(),
            )
        })?,
        bodies: Bodies::read(&report)
            .with_context(|| format!("`{line}`: a function without a name or an address"))?,
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
    })
}

impl Found {
    /// Takes out what is no function of any object: a jump to an import is made from the import
    /// library.
    pub(super) fn leave_out(&mut self, names: &BTreeSet<String>, base: &Linked, fixed: &Linked) {
        let elsewhere = |image: &Linked, rva| image.names(rva).any(|name| names.contains(name));
        let bodies = &mut self.bodies;
        bodies.changed.retain(|at, _| !elsewhere(base, at.0));
        bodies.removed.retain(|at, _| !elsewhere(base, *at));
        bodies.added.retain(|at, _| !elsewhere(fixed, *at));
    }
}
