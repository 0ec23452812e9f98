//! What `hpbuild` finds on the corpus, held against what is pinned.
//!
//! The oracle says which functions differ and nothing of whether the change can be hotpatched. A
//! rule that refuses what it need not would go unnoticed, so the findings on every pair at
//! [`LEVEL`], linked plainly, are counted by rule and severity, and the counts are pinned in
//! `fixtures/corpus/findings.toml`. docs/accuracy.md says why each of them is true.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::corpus::Pair;
use crate::recipe::Machine;
use crate::run;

/// The level of optimisation whose findings are pinned.
const LEVEL: &str = "O2";

/// How to accept what is found.
const BLESS: &str = "cargo xtask accuracy --bless \" O2 \"";

/// What the pinned file starts with.
const HEAD: &str = "\
# What `hpbuild diff` finds on the corpus at -O2, linked plainly: whether the change can be
# hotpatched, and how many findings of each rule and severity there are. Compared by `cargo xtask
# accuracy`, written by `cargo xtask accuracy --bless \" O2 \"`. Before a change of it is accepted,
# each new refusal is held against the two sources (docs/accuracy.md, \"Findings of the judge\").
";

/// What a report finds, by rule and severity.
#[derive(Default)]
pub(super) struct Findings {
    verdict: String,
    counts: BTreeMap<(String, String), usize>,
}

impl Findings {
    /// Counts what a report of `hpbuild diff` lists.
    ///
    /// # Errors
    /// The report has no verdict, or a finding no rule.
    pub(super) fn read(report: &Value) -> Result<Findings> {
        let text = |value: &Value, field: &str| -> Result<String> {
            let text = value[field].as_str();
            Ok(text.with_context(|| format!("no {field}"))?.to_owned())
        };
        let mut counts = BTreeMap::new();
        for finding in report["refusals"].as_array().context("no list refusals")? {
            let rule = (text(finding, "code")?, text(finding, "severity")?);
            *counts.entry(rule).or_default() += 1;
        }
        let verdict = text(report, "verdict")?;
        Ok(Findings { verdict, counts })
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.verdict)?;
        for (place, ((code, severity), count)) in self.counts.iter().enumerate() {
            let before = if place == 0 { ": " } else { ", " };
            write!(f, "{before}{code} {severity} {count}")?;
        }
        Ok(())
    }
}

/// What is pinned of one project.
#[derive(Default, Deserialize, Serialize)]
struct Project {
    /// The compilers and the linker that made the images.
    made_by: String,
    /// The findings, by machine.
    #[serde(flatten)]
    on: BTreeMap<String, String>,
}

/// The pinned findings, by project.
pub(super) struct Pinned {
    projects: BTreeMap<String, Project>,
    /// Whether what is found takes the place of what is pinned.
    bless: bool,
}

impl Pinned {
    /// Reads what is pinned.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn read(bless: bool) -> Result<Pinned> {
        let path = path();
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let projects = toml::from_str(&text).with_context(|| path.display().to_string())?;
        Ok(Pinned { projects, bless })
    }

    /// Whether the findings on a pair are pinned at all.
    pub(super) fn speaks_of(&self, pair: &Pair) -> bool {
        pair.optimisation == LEVEL
    }

    /// Holds what is found on a pair against the pin; says what is wrong, if anything is.
    ///
    /// # Errors
    /// Nothing tells which tools made the images.
    pub(super) fn compare(&mut self, pair: &Pair, found: &Findings) -> Result<Option<String>> {
        let made_by = pair.made_by()?.join(", ");
        Ok(self.hold(&pair.project, pair.machine, &made_by, &found.to_string()))
    }

    fn hold(
        &mut self,
        project: &str,
        machine: Machine,
        made_by: &str,
        found: &str,
    ) -> Option<String> {
        let pinned = self.projects.entry(project.to_owned()).or_default();
        let tools = pinned.made_by.clone();
        let expected = pinned.on.get(machine.folder()).cloned();
        if self.bless {
            // Findings on images of other tools say nothing of these.
            if tools != made_by {
                *pinned = Project::default();
                made_by.clone_into(&mut pinned.made_by);
            }
            pinned
                .on
                .insert(machine.folder().to_owned(), found.to_owned());
            return None;
        }
        if expected.as_deref() == Some(found) {
            return None;
        }
        let Some(expected) = expected else {
            return Some(format!("nothing is pinned, found `{found}`\nhint: {BLESS}"));
        };
        let why = if tools == made_by {
            String::new()
        } else {
            format!("\nhint: pinned with {tools}; these images are made by {made_by}")
        };
        Some(format!(
            "expected `{expected}`, found `{found}`{why}\n\
             hint: where the sources say that it is right, {BLESS}"
        ))
    }

    /// Writes what was found, where that was asked for.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn finish(&self) -> Result<()> {
        if !self.bless {
            return Ok(());
        }
        let path = path();
        fs::write(&path, self.text()?).with_context(|| format!("cannot write {}", path.display()))
    }

    fn text(&self) -> Result<String> {
        Ok(format!("{HEAD}\n{}", toml::to_string(&self.projects)?))
    }
}

fn path() -> PathBuf {
    run::root().join("fixtures/corpus/findings.toml")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pinned(bless: bool) -> Pinned {
        let project = Project {
            made_by: "clang 1".to_owned(),
            on: [
                ("x64", "refused: HP021 refuse 3, HP031 warn 1"),
                ("arm64", "hotpatchable"),
            ]
            .map(|(machine, found)| (machine.to_owned(), found.to_owned()))
            .into(),
        };
        Pinned {
            projects: BTreeMap::from([("one".to_owned(), project)]),
            bless,
        }
    }

    #[test]
    fn findings_are_counted_by_rule_and_severity() {
        let report = serde_json::json!({
            "verdict": "refused",
            "refusals": [
                { "code": "HP031", "severity": "warn" },
                { "code": "HP021", "severity": "refuse" },
                { "code": "HP031", "severity": "refuse" },
                { "code": "HP021", "severity": "refuse" },
            ],
        });
        let text = Findings::read(&report).map(|it| it.to_string()).ok();
        let expected = "refused: HP021 refuse 2, HP031 refuse 1, HP031 warn 1";
        assert_eq!(text.as_deref(), Some(expected));
        assert!(Findings::read(&serde_json::json!({ "verdict": "same" })).is_err());
    }

    /// One finding more, one less and another severity are all told, and other tools with them.
    #[test]
    fn what_is_not_pinned_is_wrong() {
        let on_x64 = |tools: &str, found: &str| {
            let wrong = pinned(false).hold("one", Machine::X64, tools, found);
            wrong.unwrap_or_default()
        };
        assert_eq!(
            on_x64("clang 1", "refused: HP021 refuse 3, HP031 warn 1"),
            ""
        );
        for found in [
            "refused: HP021 refuse 4, HP031 warn 1",
            "refused: HP021 refuse 3",
            "refused: HP021 refuse 3, HP031 refuse 1",
            "hotpatchable: HP031 warn 1",
        ] {
            let wrong = on_x64("clang 1", found);
            assert!(wrong.contains("expected `refused: HP021 refuse 3, HP031 warn 1`"));
            assert!(wrong.contains(&format!("found `{found}`")), "{wrong}");
            assert!(wrong.contains("--bless") && !wrong.contains("made by"));
            let wrong = on_x64("clang 2", found);
            assert!(wrong.contains("pinned with clang 1; these images are made by clang 2"));
        }
        let unknown = pinned(false).hold("other", Machine::Arm64, "clang 1", "same");
        assert!(unknown.is_some_and(|it| it.starts_with("nothing is pinned, found `same`")));
    }

    /// What is accepted is what is compared next, and other tools make a new start.
    #[test]
    fn what_is_accepted_is_expected() {
        let mut accepted = pinned(true);
        assert_eq!(accepted.hold("one", Machine::X64, "clang 1", "same"), None);
        accepted.bless = false;
        let mut on = |machine, found| accepted.hold("one", machine, "clang 1", found);
        assert_eq!(on(Machine::X64, "same"), None);
        assert_eq!(on(Machine::Arm64, "hotpatchable"), None);
        let mut accepted = pinned(true);
        assert_eq!(accepted.hold("one", Machine::X64, "clang 2", "same"), None);
        assert!(!accepted.projects["one"].on.contains_key("arm64"));
    }

    /// The file is as it is written, and speaks of every pair that there could be.
    #[test]
    fn every_pair_is_pinned() -> Result<()> {
        let pinned = Pinned::read(false)?;
        assert_eq!(fs::read_to_string(path())?, pinned.text()?);
        let mut pairs = 0;
        for pair in crate::corpus::pairs()? {
            if pinned.speaks_of(&pair) {
                let project = pinned.projects.get(&pair.project);
                assert!(project.is_some_and(|it| it.on.contains_key(pair.machine.folder())));
                pairs += 1;
            }
        }
        assert_eq!(pairs, 2 * pinned.projects.len());
        Ok(())
    }
}
