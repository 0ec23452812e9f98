//! Findings beside the truth, and what is wrong with them.

use std::collections::BTreeSet;

use super::places::Truth;
use super::report::{Found, Names};

/// Sums over all pairs.
#[derive(Default)]
pub(super) struct Totals {
    pairs: usize,
    functions: usize,
    changed: usize,
    /// Pairs of which the oracle was held against what is written of them.
    oracle_pairs: usize,
    oracle_wrong: usize,
    missed: usize,
    false_changes: usize,
    unmatched: usize,
    unknown: usize,
    untold: usize,
    skipped: usize,
    failed: usize,
    dropped: Fate,
    folded: Fate,
    /// Pairs with the findings that are pinned, and with others.
    as_pinned: usize,
    not_as_pinned: usize,
    /// What is wrong, in words, with what kind of wrong it is.
    findings: Vec<(&'static str, String)>,
    /// What helps to understand it.
    notes: Vec<String>,
    quiet: bool,
}

/// Functions that the linker did something to.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Fate {
    pub(super) functions: usize,
    /// How many of them changed, and no image shows it.
    pub(super) unseen: usize,
}

impl Fate {
    fn add(&mut self, other: Fate) {
        self.functions += other.functions;
        self.unseen += other.unseen;
    }
}

/// Kinds of what is wrong, the worst first.
const WORST: [&str; 10] = [
    "missed changed",
    "missed added",
    "missed removed",
    "failed",
    "wrongly changed",
    "wrongly added",
    "wrongly removed",
    "unmatched",
    "unknown",
    "contradiction",
];

impl Totals {
    /// Counts, and prints nothing until asked to.
    pub(super) fn quiet() -> Totals {
        Totals {
            quiet: true,
            ..Totals::default()
        }
    }

    /// What was found to be wrong, unknown references included.
    pub(super) fn findings(&self) -> impl ExactSizeIterator<Item = &String> {
        self.findings.iter().map(|(_, line)| line)
    }

    /// What was noted beside it.
    pub(super) fn notes(&self) -> impl Iterator<Item = &String> {
        self.notes.iter()
    }

    pub(super) fn note(&mut self, line: String) {
        self.notes.push(line);
    }

    /// The worst kind of what is wrong.
    pub(super) fn worst(&self) -> Option<&'static str> {
        let found = |kind: &&&str| self.findings.iter().any(|it| it.0 == **kind);
        WORST.iter().find(found).copied()
    }

    /// The same pair could not be compared.
    pub(super) fn failed(&mut self, who: &str, why: &str) {
        self.pairs += 1;
        self.failed += 1;
        self.say("failed", format!(": {who}: failed: {why}"));
    }

    /// Adds what others counted.
    pub(super) fn add(&mut self, other: &Totals) {
        self.pairs += other.pairs;
        self.functions += other.functions;
        self.changed += other.changed;
        self.oracle_pairs += other.oracle_pairs;
        self.oracle_wrong += other.oracle_wrong;
        self.missed += other.missed;
        self.false_changes += other.false_changes;
        self.unmatched += other.unmatched;
        self.unknown += other.unknown;
        self.untold += other.untold;
        self.skipped += other.skipped;
        self.failed += other.failed;
        self.dropped.add(other.dropped);
        self.folded.add(other.folded);
        self.as_pinned += other.as_pinned;
        self.not_as_pinned += other.not_as_pinned;
    }

    fn say(&mut self, kind: &'static str, line: String) {
        if !self.quiet {
            println!("{line}");
        }
        self.findings.push((kind, line));
    }

    /// The oracle on a fixture.
    pub(super) fn oracle(&mut self, title: &str, truth: &Names, found: &Names) {
        self.oracle_pairs += 1;
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
            let line = format!("{title}: oracle: data {which} changed: {name}");
            self.say("data", line);
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
            truth.dropped.functions,
            truth.ambiguous
        );
        self.functions += truth.same + changed.len();
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

    /// The differ on two images of which the oracle knows where everything is.
    pub(super) fn against_oracle(
        &mut self,
        title: &str,
        truth: &Truth,
        names: &Names,
        found: &Found,
    ) {
        self.untold += truth.ambiguous;
        self.dropped.add(truth.dropped);
        self.folded.add(truth.folded);
        for at in &truth.contradictions {
            self.oracle_wrong += 1;
            let line = format!("{title}: oracle: changed, and the same for another function: {at}");
            self.say("contradiction", line);
        }
        self.differ(title, &truth.names, names, found);
    }

    /// The findings on a pair, and what is wrong with them beside those that are pinned.
    pub(super) fn judged(&mut self, title: &str, wrong: Option<String>) {
        match wrong {
            None => self.as_pinned += 1,
            Some(wrong) => {
                self.not_as_pinned += 1;
                self.say("findings", format!("{title}: findings: {wrong}"));
            }
        }
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
                self.say(what, format!("{title}: hpbuild: {what}: {name}"));
            }
        }
    }

    /// Prints what is missing and what is too much, and counts both.
    fn compare(&mut self, title: &str, who: &str, truth: &Names, found: &Names) -> (usize, usize) {
        let (mut missed, mut wrongly) = (0, 0);
        for (kinds, truth, found) in [
            (
                ["missed changed", "wrongly changed"],
                &truth.changed,
                &found.changed,
            ),
            (
                ["missed added", "wrongly added"],
                &truth.added,
                &found.added,
            ),
            (
                ["missed removed", "wrongly removed"],
                &truth.removed,
                &found.removed,
            ),
        ] {
            for name in truth.difference(found) {
                missed += 1;
                self.say(kinds[0], format!("{title}: {who}: {}: {name}", kinds[0]));
            }
            for name in found.difference(truth) {
                wrongly += 1;
                self.say(kinds[1], format!("{title}: {who}: {}: {name}", kinds[1]));
            }
        }
        (missed, wrongly)
    }

    pub(super) fn print(&self) {
        let (dropped, folded) = (self.dropped, self.folded);
        println!(
            "linker: {} functions dropped, {} of them changed; {} folded with others, and of {} \
             changed ones nothing is left to see",
            dropped.functions, dropped.unseen, folded.functions, folded.unseen
        );
        println!(
            "oracle against fixtures: {} pairs, {} wrong",
            self.oracle_pairs, self.oracle_wrong
        );
        println!(
            "hpbuild: {} pairs, {} functions of the corpus, {} changes: {} missed, {} false, \
             {} unmatched, {} unknown; {} not told by the oracle; {} pairs skipped, {} failed",
            self.pairs,
            self.functions,
            self.changed,
            self.missed,
            self.false_changes,
            self.unmatched,
            self.unknown,
            self.untold,
            self.skipped,
            self.failed
        );
        if self.as_pinned + self.not_as_pinned > 0 {
            println!(
                "findings on the corpus: {} pairs as pinned, {} not",
                self.as_pinned, self.not_as_pinned
            );
        }
    }

    /// Whether there was nothing at all to look at: no finding says nothing then.
    pub(super) fn is_empty(&self) -> bool {
        self.oracle_pairs + self.pairs + self.functions + self.skipped == 0
    }

    /// Whether anything is not as it should be.
    pub(super) fn wrong(&self) -> bool {
        self.oracle_wrong
            + self.missed
            + self.false_changes
            + self.unmatched
            + self.failed
            + self.not_as_pinned
            > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(changed: &[&str]) -> Names {
        Names {
            changed: changed.iter().map(|it| (*it).to_owned()).collect(),
            ..Names::default()
        }
    }

    /// What is in the image and changed must be reported, and nothing else.
    #[test]
    fn what_is_missing_and_what_is_too_much_counts() {
        let truth = Truth {
            names: names(&["one at 0x1000, 0x1010"]),
            ..Truth::default()
        };
        let count = |found: &[&str]| {
            let mut totals = Totals::default();
            totals.against_oracle("test", &truth, &names(found), &Found::default());
            (totals.missed, totals.false_changes, totals.wrong())
        };
        assert_eq!(count(&["one at 0x1000, 0x1010"]), (0, 0, false));
        assert_eq!(count(&[]), (1, 0, true));
        assert_eq!(count(&["one at 0x1000, 0x1020"]), (1, 1, true));
        let both = ["one at 0x1000, 0x1010", "other at 0x1020, 0x1030"];
        assert_eq!(count(&both), (0, 1, true));
    }

    /// Findings that nobody looked at fail the run.
    #[test]
    fn findings_that_are_not_pinned_are_wrong() {
        let mut totals = Totals::default();
        totals.judged("test", None);
        assert!(!totals.wrong());
        totals.judged("test", Some("expected `same`, found `refused`".to_owned()));
        assert!(totals.wrong());
    }

    /// A body cannot be the same for one of its functions and changed for another.
    #[test]
    fn an_oracle_that_contradicts_itself_is_wrong() {
        let truth = Truth {
            contradictions: vec!["one at 0x1000, 0x1010".to_owned()],
            ..Truth::default()
        };
        let mut totals = Totals::default();
        totals.against_oracle("test", &truth, &Names::default(), &Found::default());
        assert!(totals.wrong());
    }
}
