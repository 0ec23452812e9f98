//! Findings beside the truth, and what is wrong with them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result};
use hpbuild_tests::oracle::{FunctionName, InImages, Linked, Missing};
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
    names: Names,
    /// By what tells namesakes apart: see [`key`].
    keys: Names,
    bodies: Bodies,
    unmatched: Vec<String>,
    unknown: Vec<String>,
}

/// Functions by what happened to them, by address, with their names.
#[derive(Default)]
struct Bodies {
    /// Addresses in the base and in the fixed image.
    changed: BTreeMap<(u32, u32), String>,
    added: BTreeMap<u32, String>,
    removed: BTreeMap<u32, String>,
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
    dropped: Fate,
    folded: Fate,
}

/// Functions that the linker did something to.
#[derive(Default)]
struct Fate {
    functions: usize,
    /// How many of them changed, and no image shows it.
    unseen: usize,
}

impl Fate {
    fn add(&mut self, missing: &[Missing]) {
        self.functions += missing.len();
        self.unseen += missing.iter().filter(|it| it.unseen).count();
    }
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
    pub(super) fn corpus(&mut self, title: &str, same: usize, truth: &Names) {
        println!(
            "{title}: {same} same, {} changed, {} added, {} removed",
            truth.changed.len(),
            truth.added.len(),
            truth.removed.len()
        );
        self.functions += same + truth.changed.len();
    }

    /// The differ on a fixture.
    pub(super) fn fixture(&mut self, title: &str, truth: &Names, found: &Found) {
        self.differ(title, truth, &found.names, found);
    }

    /// The differ on two images of which the oracle knows where everything is.
    pub(super) fn images(&mut self, title: &str, truth: &InImages, found: &Found) {
        self.dropped.add(&truth.dropped);
        self.folded.add(&truth.folded);
        let label = |functions: &Vec<FunctionName>| {
            let names: Vec<&str> = functions.iter().map(|it| it.name.as_str()).collect();
            names.join(", ")
        };
        for (at, functions) in &truth.changed {
            if truth.same.contains(at) {
                self.oracle_wrong += 1;
                let names = label(functions);
                println!("{title}: oracle: changed, and a part of what is the same: {names}");
            }
        }
        let listed = |kind: &'static str, at: String, name: &str| (kind, at, name.to_owned());
        let both = |at: &(u32, u32)| format!("{:#x} and {:#x}", at.0, at.1);
        let one = |at: &u32| format!("{at:#x}");
        let truths = truth.changed.iter();
        let truths = truths.map(|(at, names)| listed("changed", both(at), &label(names)));
        let truths = truths
            .chain(
                truth
                    .added
                    .iter()
                    .map(|it| listed("added", one(it.0), &label(it.1))),
            )
            .chain(
                truth
                    .removed
                    .iter()
                    .map(|it| listed("removed", one(it.0), &label(it.1))),
            );
        let bodies = &found.bodies;
        let findings = bodies.changed.iter();
        let findings = findings.map(|(at, name)| listed("changed", both(at), name));
        let findings = findings
            .chain(
                bodies
                    .added
                    .iter()
                    .map(|it| listed("added", one(it.0), it.1)),
            )
            .chain(
                bodies
                    .removed
                    .iter()
                    .map(|it| listed("removed", one(it.0), it.1)),
            );
        let places = |it: &(&'static str, String, String)| (it.0, it.1.clone());
        let (truths, findings): (Vec<_>, Vec<_>) = (truths.collect(), findings.collect());
        let [known, told] =
            [&truths, &findings].map(|list| list.iter().map(places).collect::<BTreeSet<_>>());
        for it in truths.iter().filter(|it| !told.contains(&places(it))) {
            self.missed += 1;
            println!("{title}: hpbuild: missed {}: {} at {}", it.0, it.2, it.1);
        }
        for it in findings.iter().filter(|it| !known.contains(&places(it))) {
            self.false_changes += 1;
            println!("{title}: hpbuild: wrongly {}: {} at {}", it.0, it.2, it.1);
        }
        self.pairs += 1;
        self.changed += truths.len();
        self.open(title, found);
    }

    /// The differ on one set of objects, linked twice.
    pub(super) fn relinked(&mut self, title: &str, found: &Found) {
        self.differ(title, &Names::default(), &found.keys, found);
    }

    fn differ(&mut self, title: &str, truth: &Names, names: &Names, found: &Found) {
        self.pairs += 1;
        self.changed += truth.changed.len();
        let (missed, wrongly) = self.compare(title, "hpbuild", truth, names);
        self.missed += missed;
        self.false_changes += wrongly;
        self.open(title, found);
    }

    /// What the differ could not tell.
    fn open(&mut self, title: &str, found: &Found) {
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
        let Totals {
            dropped, folded, ..
        } = self;
        println!(
            "linker: {} functions dropped, {} of them changed; {} folded with others, and of {} \
             changed ones nothing is left to see",
            dropped.functions, dropped.unseen, folded.functions, folded.unseen
        );
        println!("oracle against fixtures: {} wrong", self.oracle_wrong);
        println!(
            "hpbuild: {} pairs, {} functions of the corpus, {} changes: {} missed, {} false, \
             {} unmatched, {} unknown",
            self.pairs,
            self.functions,
            self.changed,
            self.missed,
            self.false_changes,
            self.unmatched,
            self.unknown
        );
    }

    /// Whether anything is not as it should be.
    pub(super) fn wrong(&self) -> bool {
        self.oracle_wrong + self.missed + self.false_changes + self.unmatched > 0
    }
}
