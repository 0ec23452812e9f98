//! Findings beside the truth, and what is wrong with them.

use std::collections::BTreeSet;

use hpbuild_tests::oracle::{FunctionName, InImages, Missing};

use super::report::{Found, Names};

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

#[cfg(test)]
mod tests {
    use super::super::report::Bodies;
    use super::*;

    fn function(name: &str) -> FunctionName {
        FunctionName {
            name: name.to_owned(),
            object: None,
        }
    }

    fn found(changed: &[((u32, u32), &str)]) -> Found {
        let changed = changed.iter().map(|(at, name)| (*at, (*name).to_owned()));
        Found {
            names: Names::default(),
            keys: Names::default(),
            bodies: Bodies {
                changed: changed.collect(),
                ..Bodies::default()
            },
            unmatched: Vec::new(),
            unknown: Vec::new(),
        }
    }

    /// What is in the image and changed must be reported, and nothing else.
    #[test]
    fn what_is_missing_and_what_is_too_much_counts() {
        let mut truth = InImages::default();
        truth
            .changed
            .insert((0x1000, 0x1010), vec![function("one")]);
        truth.same.insert((0x1020, 0x1030));
        let count = |found: &Found| {
            let mut totals = Totals::default();
            totals.images("test", &truth, found);
            (totals.missed, totals.false_changes, totals.wrong())
        };
        assert_eq!(count(&found(&[((0x1000, 0x1010), "one")])), (0, 0, false));
        assert_eq!(count(&found(&[])), (1, 0, true));
        // The name is right and the place is not.
        assert_eq!(count(&found(&[((0x1000, 0x1020), "one")])), (1, 1, true));
        let both = [((0x1000, 0x1010), "one"), ((0x1020, 0x1030), "other")];
        assert_eq!(count(&found(&both)), (0, 1, true));
    }

    /// A body cannot be the same for one of its functions and changed for another.
    #[test]
    fn an_oracle_that_contradicts_itself_is_wrong() {
        let mut truth = InImages::default();
        truth
            .changed
            .insert((0x1000, 0x1010), vec![function("one")]);
        truth.same.insert((0x1000, 0x1010));
        let mut totals = Totals::default();
        totals.images("test", &truth, &found(&[((0x1000, 0x1010), "one")]));
        assert!(totals.wrong());
    }
}
