//! Every code that anything of the project mentions has a page, and every page is about something
//! that is found.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use hpbuild_differ::judge;
use hpbuild_packager::refusal;

/// What is searched for codes: what finds, what prints, and what people read.
const PLACES: [&str; 7] = [
    "differ/src",
    "packager/src",
    "hpbuild/src",
    "metadata/src",
    "docs",
    "README.md",
    "ARCHITECTURE.md",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// All texts below a path, with their paths.
fn texts(path: &Path, found: &mut Vec<(PathBuf, String)>) {
    if path.is_dir() {
        let entries = fs::read_dir(path).expect("a folder of the project");
        for entry in entries {
            texts(&entry.expect("an entry").path(), found);
        }
    } else if let Ok(text) = fs::read_to_string(path) {
        found.push((path.to_owned(), text));
    }
}

/// The codes in a text: `HP` and three digits.
fn codes(text: &str) -> BTreeSet<&str> {
    let code = |(at, _)| {
        let code: &str = text.get(at..at + 5)?;
        let is_number = code[2..].bytes().all(|byte| byte.is_ascii_digit());
        let ends = text[at + 5..]
            .bytes()
            .next()
            .is_none_or(|byte| !byte.is_ascii_digit());
        (is_number && ends).then_some(code)
    };
    text.match_indices("HP").filter_map(code).collect()
}

#[test]
fn every_code_has_a_page_and_every_page_a_finding() {
    let pages: BTreeSet<&str> = judge::RULES
        .iter()
        .map(|rule| rule.code)
        .chain(refusal::RULES.iter().map(|rule| rule.code))
        .collect();
    let mut files = Vec::new();
    for place in PLACES {
        texts(&root().join(place), &mut files);
    }
    // HP059 and HP099 end ranges.
    let is_bound = |code: &str| matches!(code, "HP059" | "HP099" | "HP100");
    let mut wrong = Vec::new();
    let mut raised = BTreeSet::new();
    for (path, text) in &files {
        let is_list = path.ends_with("judge/rules.rs") || path.ends_with("src/refusal.rs");
        for code in codes(text) {
            if !pages.contains(code) && !is_bound(code) {
                wrong.push(format!("{}: {code} has no page", path.display()));
            }
            if !is_list && path.extension().is_some_and(|it| it == "rs") {
                raised.insert(code);
            }
        }
    }
    for rule in judge::RULES {
        if !raised.contains(rule.code) {
            wrong.push(format!("{}: nothing finds it", rule.code));
        }
    }
    // The packager names its rules by variant: a variant that is never made is a warning of the
    // compiler, unless it is public as here.
    let list = include_str!("../../../packager/src/refusal.rs");
    for rule in refusal::RULES {
        let before = list
            .split(&format!("\"{}\"", rule.code))
            .next()
            .unwrap_or_default();
        let variant = before.split_whitespace().last().unwrap_or_default();
        let made = format!("Code::{variant}");
        let is_made = |(path, text): &(PathBuf, String)| {
            path.starts_with(root().join("packager")) && text.contains(&made)
        };
        if !files.iter().any(is_made) {
            wrong.push(format!("{}: nothing finds it", rule.code));
        }
    }
    for rule in judge::RULES {
        let parts = [rule.title, rule.why, rule.remedy, rule.example];
        if parts.iter().any(|part| part.trim().is_empty()) {
            wrong.push(format!("{}: a part of its page is empty", rule.code));
        }
    }
    for rule in refusal::RULES {
        let parts = [rule.title, rule.why, rule.remedy, rule.example];
        if parts.iter().any(|part| part.trim().is_empty()) {
            wrong.push(format!("{}: a part of its page is empty", rule.code));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(pages.len() > 50 && files.len() > 100);
}
