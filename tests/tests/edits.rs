//! The differ against what the sources of our own pairs say: exactly these functions, no more and
//! no fewer.

use std::collections::BTreeSet;

use hpbuild_differ::compare::Kind;
use hpbuild_differ::report::FunctionReport;
use hpbuild_differ::{Differ, Input, Report, SymbolPaths};
use hpbuild_fixtures::{Build, Pair, pairs};

/// The report of a pair, and the names of all its data.
fn report(pair: &Pair) -> (Report, BTreeSet<String>) {
    let input = |build: &Build| Input {
        pe: build.dll.clone(),
        pdb: None,
    };
    let differ = Differ {
        base: input(&pair.base),
        fixed: input(&pair.fixed),
        symbols: SymbolPaths::default(),
        policy: Default::default(),
    };
    let diff = hpbuild_differ::diff(&differ, &mut Vec::new());
    let diff = diff.unwrap_or_else(|error| panic!("{}: {error}", pair.name));
    match diff {
        Ok(diff) => {
            let base = diff.base.data.iter().map(|it| it.name.to_string());
            let fixed = diff.fixed.data.iter().map(|it| it.name.to_string());
            (Report::new(&diff, false), base.chain(fixed).collect())
        }
        Err(refusals) => (Report::refused(refusals), BTreeSet::new()),
    }
}

fn names(functions: &[FunctionReport]) -> BTreeSet<&str> {
    functions
        .iter()
        .map(|function| function.name.as_str())
        .collect()
}

fn expected(names: &[String]) -> BTreeSet<&str> {
    names.iter().map(String::as_str).collect()
}

/// What a rule is expected to be about.
fn found_by<'a>(code: &str, rules: &'a [String]) -> BTreeSet<&'a str> {
    let about = |rule: &'a String| rule.strip_prefix(code)?.strip_prefix(' ');
    rules.iter().filter_map(about).collect()
}

/// All disagreements are collected, so that one run shows the whole picture.
#[test]
fn pairs_differ_in_what_their_sources_say() {
    let pairs = pairs().unwrap();
    assert!(!pairs.is_empty());
    let mut wrong = Vec::new();
    for pair in &pairs {
        let (report, data) = report(pair);
        let functions = &report.functions;
        let lines: Vec<_> = functions
            .changed
            .iter()
            .filter(|function| function.kinds == [Kind::LineNumber])
            .cloned()
            .collect();
        let lists = [
            (
                "changed",
                names(&functions.changed),
                expected(&pair.expected.changed),
            ),
            (
                "added",
                names(&functions.added),
                expected(&pair.expected.added),
            ),
            (
                "removed",
                names(&functions.removed),
                expected(&pair.expected.removed),
            ),
            (
                "line number",
                names(&lines),
                expected(&pair.expected.line_number),
            ),
            (
                "unmatched",
                names(&functions.unmatched),
                found_by("HP028", &pair.expected.rules)
                    .into_iter()
                    .filter(|name| !data.contains(*name))
                    .collect(),
            ),
            (
                "unknown",
                report.unknown.iter().map(|u| u.name.as_str()).collect(),
                found_by("HP029", &pair.expected.rules),
            ),
        ];
        for (list, found, expected) in lists {
            if found != expected {
                wrong.push(format!(
                    "{} {}: {list}: expected {expected:?}, found {found:?}",
                    pair.name,
                    pair.machine.name()
                ));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "of {} pairs:\n{}",
        pairs.len(),
        wrong.join("\n")
    );
}
