//! Every rule has an input that breaks it and one that nearly does, and each is found where it is
//! broken and nowhere else.
//!
//! The inputs are the prebuilt pairs, with what `expected.toml` says the rules must find, and those
//! that `made.rs` makes of them: what no compiler here writes. A rule without both kinds fails
//! the test.

mod findings;
mod made;
mod pages;
mod pdb;

use std::collections::{BTreeMap, BTreeSet};

use findings::{Findings, findings_of_builds};
use hpbuild_differ::judge;
use hpbuild_fixtures::pairs;
use hpbuild_packager::refusal;

/// An input, what the rules must find in it, and what comes close.
struct Case {
    name: String,
    expected: BTreeSet<String>,
    near: Vec<String>,
    /// Those of them that warn, where somebody says.
    warned: BTreeSet<String>,
    /// Whether a patch comes out, where somebody says.
    hotpatchable: Option<bool>,
    found: Findings,
}

impl Case {
    /// What is wrong with it.
    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let name = &self.name;
        for missing in self.expected.difference(&self.found.rules) {
            faults.push(format!("{name}: {missing} is not found"));
        }
        for extra in self.found.rules.difference(&self.expected) {
            faults.push(format!("{name}: {extra} is found"));
        }
        if !self.warned.is_empty() && self.warned != self.found.warned {
            faults.push(format!("{name}: {:?} warn", self.found.warned));
        }
        if self.hotpatchable.is_some_and(|it| it == self.found.refused) {
            faults.push(format!("{name}: refused is {}", self.found.refused));
        }
        for near in &self.near {
            if self.expected.contains(near) {
                faults.push(format!("{name}: {near} is both expected and a near miss"));
            }
            // A near miss must be something that the rule could have been about.
            let about = near.split_once(' ').map(|(_, about)| about);
            if about.is_some_and(|about| !self.found.names.contains(about)) {
                faults.push(format!("{name}: nothing is called as in {near}"));
            }
        }
        faults
    }
}

fn code(finding: &str) -> &str {
    finding.split(' ').next().unwrap_or_default()
}

fn cases() -> Vec<Case> {
    let of_pair = |pair: &hpbuild_fixtures::Pair| Case {
        name: format!("{} {}", pair.name, pair.machine.name()),
        expected: pair.expected.rules.iter().cloned().collect(),
        near: pair.expected.near.clone(),
        warned: pair.expected.warned.iter().cloned().collect(),
        hotpatchable: pair.expected.hotpatchable,
        found: findings_of_builds(&pair.base, &pair.fixed),
    };
    let mut cases: Vec<Case> = pairs().expect("fixtures").iter().map(of_pair).collect();
    cases.extend(made::cases());
    cases
}

/// One run over all inputs shows every fault.
#[test]
fn every_rule_is_broken_and_nearly_broken() {
    let cases = cases();
    let mut faults: Vec<String> = cases.iter().flat_map(Case::faults).collect();
    let mut broken: BTreeMap<&str, usize> = BTreeMap::new();
    let mut near: BTreeMap<&str, usize> = BTreeMap::new();
    for case in &cases {
        for finding in case.expected.intersection(&case.found.rules) {
            *broken.entry(code(finding)).or_default() += 1;
        }
        for finding in case
            .near
            .iter()
            .filter(|it| !case.found.rules.contains(*it))
        {
            *near.entry(code(finding)).or_default() += 1;
        }
    }
    let differ = judge::RULES.iter().map(|rule| rule.code);
    let packager = refusal::RULES.iter().map(|rule| rule.code);
    let rules: BTreeSet<&str> = differ.chain(packager).collect();
    for rule in &rules {
        if !broken.contains_key(rule) {
            faults.push(format!("{rule}: no input breaks it"));
        }
        if !near.contains_key(rule) {
            faults.push(format!("{rule}: no input nearly breaks it"));
        }
    }
    for named in broken.keys().chain(near.keys()) {
        if !rules.contains(named) {
            faults.push(format!("{named} is no rule"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    eprintln!("{} rules, {} inputs", rules.len(), cases.len());
}
