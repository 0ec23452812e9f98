//! Comparing the pairs of a plan.
//!
//! A few pairs are held in memory at a time, whatever the number of threads: each is compared by
//! all of them. What a pair gave is written as soon as it is known, under a name that the plan
//! alone decides, so that shards never meet and every run gives the same files.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use hpbuild_differ::judge::{Policy, Rule};
use hpbuild_differ::report::Verdict;
use hpbuild_differ::{Differ, Input, Report, SymbolPaths};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::plan::Plan;
use super::{CompareArguments, ExecArguments};
use crate::commands::{diff, explain, verdict};
use crate::failure::{Failure, Outcome};
use crate::{output, render};

/// Version of the form of a result.
pub(super) const SCHEMA: &str = "hpbuild-batch-result-1";

/// Every `of`-th pair, from the one before `number` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shard {
    /// From 1.
    number: usize,
    of: usize,
}

impl Shard {
    pub(super) const ALL: Shard = Shard { number: 1, of: 1 };

    fn holds(self, index: usize) -> bool {
        index % self.of == self.number - 1
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('/');
        let parts = parts.and_then(|(k, n)| Some((k.parse().ok()?, n.parse().ok()?)));
        match parts {
            Some((number, of)) if 1 <= number && number <= of => Ok(Shard { number, of }),
            _ => Err("expected K/N with K from 1 to N, such as 2/8".into()),
        }
    }
}

/// How comparing a pair ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Ending {
    Same,
    Hotpatchable,
    Refused,
    Error,
}

impl Ending {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Ending::Same => "same",
            Ending::Hotpatchable => "hotpatchable",
            Ending::Refused => "refused",
            Ending::Error => "error",
        }
    }
}

/// What a pair gave, as it is written.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct PairResult {
    pub(super) schema: String,
    pub(super) path: String,
    pub(super) ending: Ending,
    /// What went wrong; absent where nothing did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
    /// The report of `diff`; absent where the files are the same byte for byte, or an error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) report: Option<Value>,
}

/// The file of what the pair at `index` of the plan gave, without its extension.
pub(super) fn stem(index: usize, path: &str) -> String {
    let name = path.rsplit('/').next().unwrap_or(path);
    format!("{:06}-{name}", index + 1)
}

pub(super) fn run(arguments: &ExecArguments) -> Result<Outcome, Failure> {
    let mut plan = Plan::read(&arguments.plan)?;
    if let Some(base) = &arguments.base {
        plan.base.clone_from(base);
    }
    if let Some(fixed) = &arguments.fixed {
        plan.fixed.clone_from(fixed);
    }
    let endings = compare(
        &plan,
        &arguments.output,
        arguments.shard,
        &arguments.compare,
    )?;
    let worst = endings.iter().copied().max();
    let count = |ending| endings.iter().filter(|found| **found == ending).count();
    output::print(&format!(
        "{} pairs: {} hotpatchable, {} same, {} refused, {} errors\n",
        endings.len(),
        count(Ending::Hotpatchable),
        count(Ending::Same),
        count(Ending::Refused),
        count(Ending::Error)
    ))?;
    super::merge::outcome(worst, endings.contains(&Ending::Hotpatchable), &[])
}

/// Compares the pairs of one shard and writes what each gave into the folder `results`.
///
/// # Errors
/// The policy is unusable, or a result cannot be written. What is wrong with a pair is its result.
pub(super) fn compare(
    plan: &Plan,
    results: &Path,
    shard: Shard,
    arguments: &CompareArguments,
) -> Result<Vec<Ending>, Failure> {
    std::fs::create_dir_all(results)
        .map_err(|error| Failure::new(format!("{}: {error}", results.display())))?;
    let policy = arguments.policy.as_deref().map(diff::read_policy);
    let worker = Worker {
        plan,
        results,
        policy: policy.transpose()?.unwrap_or_default(),
        symbols: arguments.symbols.paths(),
        rules: explain::rules(),
        arguments,
    };
    let wanted: Vec<usize> = (0..plan.pairs.len())
        .filter(|index| shard.holds(*index))
        .collect();
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<Result<Ending, Failure>>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..arguments.pairs.get().min(wanted.len()) {
            scope.spawn(|| {
                while let Some(index) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let ending = worker.pair(*index);
                    let failed = ending.is_err();
                    if let Ok(mut done) = done.lock() {
                        done.push(ending);
                    }
                    // Where one result cannot be written, the next cannot either.
                    if failed {
                        next.store(wanted.len(), Ordering::Relaxed);
                    }
                }
            });
        }
    });
    done.into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
        .into_iter()
        .collect()
}

/// What all pairs are compared with.
struct Worker<'a> {
    plan: &'a Plan,
    results: &'a Path,
    policy: Policy,
    symbols: SymbolPaths,
    rules: Vec<Rule>,
    arguments: &'a CompareArguments,
}

impl Worker<'_> {
    /// Compares a pair and writes what it gave.
    fn pair(&self, index: usize) -> Result<Ending, Failure> {
        let path = &self.plan.pairs[index];
        let (base, fixed) = (self.plan.base.join(path), self.plan.fixed.join(path));
        let mut result = PairResult {
            schema: SCHEMA.to_owned(),
            path: path.clone(),
            ending: Ending::Same,
            error: None,
            report: None,
        };
        // Most files of a tree are the same, and some of those have no PDB.
        if !same_bytes(&base, &fixed) {
            match self.diff(base, fixed) {
                Ok(report) => {
                    result.ending = match report.verdict {
                        Verdict::Same => Ending::Same,
                        Verdict::Hotpatchable => Ending::Hotpatchable,
                        Verdict::Refused => Ending::Refused,
                    };
                    self.write_reports(index, &report)?;
                    result.report = serde_json::to_value(&report).ok();
                }
                Err(failure) => {
                    result.ending = Ending::Error;
                    result.error = Some(failure.parts().0.to_owned());
                }
            }
        }
        let text = render::json(&result);
        output::write_file(&self.file(index, "json"), text.as_bytes())?;
        Ok(result.ending)
    }

    fn diff(&self, base: PathBuf, fixed: PathBuf) -> Result<Report, Failure> {
        let side = |pe| Input { pe, pdb: None };
        let differ = Differ {
            base: side(base),
            fixed: side(fixed),
            symbols: self.symbols.clone(),
            policy: self.policy.clone(),
        };
        Ok(match hpbuild_differ::diff(&differ, &mut Vec::new())? {
            Ok(diff) => verdict::report(&diff, self.arguments.with_line_numbers, &mut Vec::new()),
            Err(refusals) => Report::refused(refusals),
        })
    }

    fn write_reports(&self, index: usize, report: &Report) -> Result<(), Failure> {
        let source_root = self.arguments.source_root.as_deref();
        let sarif = render::sarif::text(report, &self.rules, source_root);
        output::write_file(&self.file(index, "sarif"), sarif.as_bytes())?;
        let page = render::html::page(report);
        output::write_file(&self.file(index, "html"), page.as_bytes())
    }

    fn file(&self, index: usize, extension: &str) -> PathBuf {
        let stem = stem(index, &self.plan.pairs[index]);
        self.results.join(format!("{stem}.{extension}"))
    }
}

/// Whether two files hold the same bytes; what cannot be read is not the same.
fn same_bytes(one: &Path, other: &Path) -> bool {
    let equal = || -> std::io::Result<bool> {
        let (one, other) = (std::fs::File::open(one)?, std::fs::File::open(other)?);
        if one.metadata()?.len() != other.metadata()?.len() {
            return Ok(false);
        }
        let mut one = std::io::BufReader::new(one);
        let mut other = std::io::BufReader::new(other);
        let (mut here, mut there) = (vec![0; 1 << 16], vec![0; 1 << 16]);
        loop {
            let count = one.read(&mut here)?;
            if count == 0 {
                return Ok(other.read(&mut there)? == 0);
            }
            other.read_exact(&mut there[..count])?;
            if here[..count] != there[..count] {
                return Ok(false);
            }
        }
    };
    let files = [one, other].map(|path| std::fs::metadata(path).is_ok_and(|found| found.is_file()));
    files == [true, true] && equal().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_share_the_pairs() {
        let shards = ["1/3", "2/3", "3/3"].map(|text| text.parse::<Shard>().unwrap());
        for index in 0..10 {
            let holders = shards.iter().filter(|shard| shard.holds(index)).count();
            assert_eq!(holders, 1);
        }
        for text in ["", "0/1", "2/1", "1/0", "1", "a/b", "1/-1", "1/2/3"] {
            assert!(text.parse::<Shard>().is_err(), "{text}");
        }
    }
}
