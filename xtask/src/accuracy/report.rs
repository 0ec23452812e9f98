//! Findings beside the truth, and what is wrong with them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use super::places::Truth;
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
pub(super) struct Found {
    /// By the names of procedure records, as people write them down.
    names: Names,
    /// By their places.
    pub(super) changed: Vec<Reported>,
    pub(super) added: Vec<Reported>,
    pub(super) removed: Vec<Reported>,
    unmatched: Vec<String>,
    unknown: Vec<String>,
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
    let report: Value = serde_json::from_slice(&output.stdout).with_context(|| {
        let errors = String::from_utf8_lossy(&output.stderr);
        format!("`{line}`: {}: no report\n{errors}", output.status)
    })?;
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
    })
}

/// Sums over all pairs.
#[derive(Default)]
pub(super) struct Totals {
    pairs: usize,
    functions: usize,
    changed: usize,
    oracle_wrong: usize,
    missed: usize,
    false_changes: usize,
    unmatched: usize,
    unknown: usize,
    untold: usize,
    skipped: usize,
}

impl Totals {
    /// The oracle on a fixture.
    pub(super) fn oracle(&mut self, title: &str, truth: &Names, found: &Names) {
        let wrong = self.compare(title, "oracle", truth, found);
        self.oracle_wrong += wrong.0 + wrong.1;
    }

    /// The oracle on the data of a fixture.
    pub(super) fn data(&mut self, title: &str, truth: &BTreeSet<String>, found: &BTreeSet<String>) {
        for name in truth.symmetric_difference(found) {
            self.oracle_wrong += 1;
            let which = if truth.contains(name) {
                "missed"
            } else {
                "wrongly"
            };
            println!("{title}: oracle: data {which} changed: {name}");
        }
    }

    /// The oracle on a corpus pair, where it is the truth.
    pub(super) fn corpus(&mut self, title: &str, truth: &Truth) {
        let Names {
            changed,
            added,
            removed,
        } = &truth.names;
        println!(
            "{title}: {} same, {} changed, {} added, {} removed; {} not linked, {} that the oracle \
             cannot tell from namesakes",
            truth.same,
            changed.len(),
            added.len(),
            removed.len(),
            truth.dropped,
            truth.ambiguous
        );
        self.functions += truth.same + changed.len();
        self.untold += truth.ambiguous;
    }

    /// A pair that nobody built here.
    pub(super) fn not_built(&mut self, title: &str) {
        println!("{title}: skipped, because it is not built\nhint: cargo xtask corpus");
        self.skipped += 1;
    }

    /// The differ on a fixture.
    pub(super) fn fixture(&mut self, title: &str, truth: &Names, found: &Found) {
        self.differ(title, truth, &found.names, found);
    }

    /// The differ on a corpus pair.
    pub(super) fn against_oracle(
        &mut self,
        title: &str,
        truth: &Truth,
        names: &Names,
        found: &Found,
    ) {
        self.differ(title, &truth.names, names, found);
    }

    /// The differ on one set of objects, linked twice.
    pub(super) fn relinked(&mut self, title: &str, found: &Found) {
        self.differ(title, &Names::default(), &found.names, found);
    }

    fn differ(&mut self, title: &str, truth: &Names, names: &Names, found: &Found) {
        self.pairs += 1;
        self.changed += truth.changed.len();
        let (missed, wrongly) = self.compare(title, "hpbuild", truth, names);
        self.missed += missed;
        self.false_changes += wrongly;
        self.unmatched += found.unmatched.len();
        self.unknown += found.unknown.len();
        for (what, list) in [("unmatched", &found.unmatched), ("unknown", &found.unknown)] {
            for name in list {
                println!("{title}: hpbuild: {what}: {name}");
            }
        }
    }

    /// Prints what is missing and what is too much, and counts both.
    fn compare(&self, title: &str, who: &str, truth: &Names, found: &Names) -> (usize, usize) {
        let (mut missed, mut wrongly) = (0, 0);
        for (kind, truth, found) in [
            ("changed", &truth.changed, &found.changed),
            ("added", &truth.added, &found.added),
            ("removed", &truth.removed, &found.removed),
        ] {
            for name in truth.difference(found) {
                missed += 1;
                println!("{title}: {who}: missed {kind}: {name}");
            }
            for name in found.difference(truth) {
                wrongly += 1;
                println!("{title}: {who}: wrongly {kind}: {name}");
            }
        }
        (missed, wrongly)
    }

    pub(super) fn print(&self) {
        println!("oracle against fixtures: {} wrong", self.oracle_wrong);
        println!(
            "hpbuild: {} pairs, {} functions of the corpus, {} changes: {} missed, {} false, \
             {} unmatched, {} unknown; {} not told by the oracle; {} pairs skipped",
            self.pairs,
            self.functions,
            self.changed,
            self.missed,
            self.false_changes,
            self.unmatched,
            self.unknown,
            self.untold,
            self.skipped
        );
    }

    /// Whether anything is not as it should be.
    pub(super) fn wrong(&self) -> bool {
        self.oracle_wrong + self.missed + self.false_changes + self.unmatched > 0
    }
}
