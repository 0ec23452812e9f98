//! The test that needs no scenario: does the patch go in, reach its functions, and come out?
//!
//! `load -> match -> apply -> follow -> apply again -> revert -> compare`, over an older patch
//! where there is one. The same steps run on the process and on a model of it.

use std::time::Instant;

use crate::job::Record;
use crate::running::Running;

/// Places named of those that differ.
const SHOWN: usize = 8;

/// One step as it ended.
pub(crate) struct Step {
    pub(crate) name: &'static str,
    /// What is wrong; empty where the step passed.
    pub(crate) failures: Vec<String>,
    pub(crate) details: Vec<String>,
    pub(crate) microseconds: u64,
}

impl Step {
    pub(crate) fn record(self) -> Record {
        Record::Step {
            name: self.name.to_owned(),
            failures: self.failures,
            details: self.details,
            microseconds: self.microseconds,
        }
    }
}

/// Failures and details of a step.
type Findings = (Vec<String>, Vec<String>);

/// What a step does.
type Work<'a> = dyn Fn(&mut Running) -> Findings + 'a;

/// Runs every step until one fails, and tells `each` of every one.
pub(crate) fn run(running: &mut Running, each: &mut dyn FnMut(Step)) {
    let before = running.space.snapshot(running.base.mapping);
    let newest = running.patches.len() - 1;
    let steps: [(&str, &Work<'_>); 6] = [
        ("match", &|running| matched(running, newest)),
        ("apply", &|running| apply_all(running)),
        ("follow", &|running| follow(running, newest)),
        ("apply again", &|running| apply_again(running, newest)),
        ("revert", &|running| reverted(running, &before)),
        ("apply after revert", &|running| {
            let (mut failures, details) = apply_again(running, newest);
            failures.extend(reverted(running, &before).0);
            (failures, details)
        }),
    ];
    for (name, step) in steps {
        let start = Instant::now();
        let (failures, details) = step(running);
        let failed = !failures.is_empty();
        each(Step {
            name,
            failures,
            details,
            microseconds: u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX),
        });
        if failed {
            return;
        }
    }
}

fn matched(running: &mut Running, newest: usize) -> Findings {
    let refusals = running.match_base(newest);
    let identity = running.base.image.identity.to_string();
    (
        refusals.iter().map(ToString::to_string).collect(),
        vec![identity],
    )
}

fn apply_all(running: &mut Running) -> Findings {
    let mut details = Vec::new();
    for index in 0..running.patches.len() {
        if let Err(refusal) = running.apply(index) {
            return (vec![refusal.to_string()], details);
        }
        let sequence = running.patches[index].table.sequence;
        let count = running.active.redirects.by_entry.len();
        details.push(format!(
            "patch of sequence {sequence}: {count} functions redirected"
        ));
    }
    (Vec::new(), details)
}

fn follow(running: &mut Running, newest: usize) -> Findings {
    let mut failures = Vec::new();
    let reached = running.reached(newest);
    for function in &reached {
        if function.found != Some(function.wanted) {
            let found = function
                .found
                .map_or("no redirect".to_owned(), |at| format!("{at:#x}"));
            failures.push(format!(
                "base: function at rva {}: expected a redirect to {:#x}, found {found}",
                function.entry, function.wanted
            ));
        }
    }
    // Only what the newest patch names may be redirected: patches are cumulative.
    let redirected = running.active.redirects.by_entry.keys();
    for entry in redirected.filter(|entry| !reached.iter().any(|r| r.entry == **entry)) {
        failures.push(format!(
            "base: function at rva {entry}: redirected by no record"
        ));
    }
    (
        failures,
        vec![format!(
            "{} redirects lead to their function",
            reached.len()
        )],
    )
}

/// A second application must change nothing.
fn apply_again(running: &mut Running, newest: usize) -> Findings {
    let before =
        (running.active.sequence.is_some()).then(|| running.space.snapshot(running.base.mapping));
    if let Err(refusal) = running.apply(newest) {
        return (vec![refusal.to_string()], Vec::new());
    }
    let (mut failures, details) = follow(running, newest);
    if let Some(before) = before {
        let changed = running.differs(&before, SHOWN);
        failures.extend(
            changed
                .iter()
                .map(|rva| format!("base: byte at rva {rva}: changed")),
        );
    }
    (failures, details)
}

fn reverted(running: &mut Running, before: &[u8]) -> Findings {
    if let Err(refusal) = running.revert() {
        return (vec![refusal.to_string()], Vec::new());
    }
    let left = running.differs(before, SHOWN);
    let failures = left
        .iter()
        .map(|rva| format!("base: byte at rva {rva}: not as before the patch"))
        .collect();
    (
        failures,
        vec!["code and read-only data are as before".to_owned()],
    )
}
