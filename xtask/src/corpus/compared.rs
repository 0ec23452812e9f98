//! The released pairs, compared.
//!
//! Nobody here has their sources or object files, so little is known of what differs: that a
//! rebuild differs in nothing, and that whatever MSVC's patterns explain must be understood.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use hpbuild_differ::{Differ, Input};
use serde::Deserialize;
use serde_json::Value;

use super::proof::Profile;
use crate::run;

/// Two versions of a package.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Pair {
    package: String,
    base: String,
    fixed: String,
    /// Whether nothing changed.
    #[serde(default)]
    rebuild: bool,
    /// What changed, by file.
    #[serde(default)]
    changed: BTreeMap<String, Vec<String>>,
    /// Whether the images have DWARF in them and name no PDB.
    #[serde(default)]
    dwarf: bool,
    /// How many functions cannot be told apart, by file.
    #[serde(default)]
    unmatched: BTreeMap<String, usize>,
}

/// Compares every image of every pair and prints a line for each; then holds the differ against
/// the linkers' own records, where there are some.
///
/// # Errors
/// A result is not what is known of the pair, or an image is missing.
pub(super) fn compare(pairs: &[Pair], folder: &Path) -> Result<()> {
    Profile::Release.compile()?;
    let mut wrong = Vec::new();
    let mut all = BTreeSet::new();
    println!(
        "{:7} {:>6} {:>7} {:>5} {:>7} {:>9} {:>7} {:>8}",
        "machine", "same", "changed", "added", "removed", "unmatched", "unknown", "refusals"
    );
    for pair in pairs {
        let [base, fixed] =
            [&pair.base, &pair.fixed].map(|version| folder.join(&pair.package).join(version));
        let mut images = Vec::new();
        find(&base, pair.dwarf, &mut images)?;
        images.sort();
        if images.is_empty() {
            bail!("no image with symbols in {}", base.display());
        }
        for image in images {
            let name = image.strip_prefix(&base)?.to_string_lossy().into_owned();
            // A wheel names its folders after its version.
            let partner = fixed.join(name.replace(&pair.base, &pair.fixed));
            let what = format!("{} {} -> {}", pair.package, pair.base, pair.fixed);
            if !partner.is_file() {
                continue;
            }
            let row = Row::of(&image, &partner).with_context(|| format!("{what}: {name}"))?;
            let file = image.file_name().unwrap_or_default().to_string_lossy();
            println!("{row}  {what}  {file}");
            if let Some(problem) = row.problem(pair, &file) {
                wrong.push(format!("{what}: {name}: {problem}"));
            }
            all.extend([image, partner]);
        }
    }
    run::step("compare with the linkers' fixups");
    for image in &all {
        check_fixups(image, &mut wrong)?;
    }
    if wrong.is_empty() {
        return Ok(());
    }
    bail!("not what is known of the pairs\n{}", wrong.join("\n"))
}

/// Holds what the differ reads from code against the linker's own record, where the PDB has one.
fn check_fixups(image: &Path, wrong: &mut Vec<String>) -> Result<()> {
    let input = Input {
        pe: image.to_owned(),
        pdb: None,
    };
    let itself = Differ {
        base: input.clone(),
        fixed: input,
        symbols: Default::default(),
        policy: Default::default(),
    };
    // Images of a kind that is not read have nothing to compare.
    let Ok(diff) = hpbuild_differ::diff(&itself, &mut Vec::new())? else {
        return Ok(());
    };
    let Some(check) = diff.base.check_fixups() else {
        return Ok(());
    };
    println!(
        "{:6} fixups in functions, {:6} found, {} imagined  {}",
        check.fixups,
        check.found,
        check.imagined.len(),
        image.display()
    );
    for (what, places) in [("missed", &check.missed), ("imagined", &check.imagined)] {
        if let Some(place) = places.first() {
            wrong.push(format!(
                "{}: {} references {what}, one of them at rva {place:#x}",
                image.display(),
                places.len()
            ));
        }
    }
    Ok(())
}

/// Images with a PDB beside them, or, with DWARF, all.
fn find(folder: &Path, dwarf: bool, images: &mut Vec<PathBuf>) -> Result<()> {
    let entries = fs::read_dir(folder)
        .with_context(|| format!("cannot read {}", folder.display()))?
        .collect::<std::io::Result<Vec<_>>>()?;
    for entry in entries {
        let path = entry.path();
        let kind = entry.file_type()?;
        if kind.is_dir() {
            find(&path, dwarf, images)?;
        } else if kind.is_file()
            && path.extension().is_some_and(|extension| extension != "pdb")
            && (dwarf || path.with_extension("pdb").is_file())
        {
            images.push(path);
        }
    }
    Ok(())
}

/// What `hpbuild diff` says of a pair.
struct Row {
    machine: String,
    verdict: String,
    same: u64,
    changed: BTreeSet<String>,
    /// Changed, added, removed, unmatched, unknown.
    counts: [usize; 5],
    refusals: BTreeSet<String>,
}

impl Row {
    fn of(base: &Path, fixed: &Path) -> Result<Self> {
        let output = Profile::Release
            .hpbuild()
            .arg("diff")
            .args([base, fixed])
            .args(["--format", "json"])
            .output()
            .context("cannot start hpbuild")?;
        // Refused and unchanged have exit codes of their own.
        let report: Value = serde_json::from_slice(&output.stdout).with_context(|| {
            let errors = String::from_utf8_lossy(&output.stderr);
            format!("no report: {}", errors.trim_end())
        })?;
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let texts = |value: &Value, field: &str| -> BTreeSet<String> {
            let texts = list(value).into_iter();
            texts
                .filter_map(|it| Some(it[field].as_str()?.to_owned()))
                .collect()
        };
        let functions = &report["functions"];
        let count = |value: &Value| list(value).len();
        Ok(Self {
            machine: report["base"]["machine"].as_str().unwrap_or("-").into(),
            verdict: report["verdict"].as_str().unwrap_or_default().into(),
            same: functions["same"].as_u64().unwrap_or(0),
            changed: texts(&functions["changed"], "name"),
            counts: [
                count(&functions["changed"]),
                count(&functions["added"]),
                count(&functions["removed"]),
                count(&functions["unmatched"]),
                count(&report["unknown"]),
            ],
            refusals: texts(&report["refusals"], "code"),
        })
    }

    /// What is wrong with this result.
    fn problem(&self, pair: &Pair, file: &str) -> Option<String> {
        // Images for 32-bit x86 are refused unread.
        if self.machine == "-" {
            let refused = self.refusals.contains("HP001");
            return (!refused).then(|| "neither read nor refused".to_owned());
        }
        let [_, added, removed, unmatched, unknown] = self.counts;
        let known = pair.unmatched.get(file).copied().unwrap_or(0);
        if unmatched != known || unknown > 0 {
            return Some(format!(
                "{unmatched} functions unmatched, {unknown} references unknown"
            ));
        }
        if !pair.rebuild && pair.changed.is_empty() {
            return None;
        }
        let expected = pair.changed.get(file).into_iter().flatten();
        let expected: BTreeSet<String> = expected.cloned().collect();
        if self.changed != expected {
            let found: Vec<&str> = self.changed.iter().map(String::as_str).collect();
            return Some(format!("changed: {}", found.join(", ")));
        }
        let nothing = expected.is_empty() && self.verdict != "same";
        (nothing || added + removed > 0).then(|| {
            let refusals: Vec<&str> = self.refusals.iter().map(String::as_str).collect();
            let refusals = refusals.join(" ");
            format!(
                "{}, {added} added, {removed} removed, {refusals}",
                self.verdict
            )
        })
    }
}

impl std::fmt::Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [changed, added, removed, unmatched, unknown] = self.counts;
        let refusals: Vec<&str> = self.refusals.iter().map(String::as_str).collect();
        write!(
            f,
            "{:7} {:6} {changed:7} {added:5} {removed:7} {unmatched:9} {unknown:7} {:>8}",
            self.machine,
            self.same,
            refusals.len(),
        )
    }
}
