//! Reports in terminals of several widths.

use std::path::{Path, PathBuf};

use hpbuild_differ::{Differ, Input, Report, SymbolPaths};

use super::{Detail, WORDS, text};
use crate::render::fold::visible;

/// Pairs with findings, long names, changed data and more functions than are shown.
const PAIRS: [(&str, &str); 5] = [
    ("patterns/x64", "parent"),
    ("exceptions/x64", "thrown"),
    ("rules/x64", "every"),
    ("edits/arm64", "struct"),
    ("reached/x64", "bytes"),
];

fn report(folder: &str, fixed: &str) -> Report {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/prebuilt");
    let group = folder.split('/').next().expect("a group");
    let image = |side: &str| -> PathBuf {
        let name = format!("hp_{group}.dll");
        root.join(folder).join(side).join(name)
    };
    let input = |side| Input {
        pe: image(side),
        pdb: None,
    };
    let differ = Differ {
        base: input("base"),
        fixed: input(fixed),
        symbols: SymbolPaths::default(),
        policy: hpbuild_differ::judge::Policy::default(),
    };
    let diff = hpbuild_differ::diff(&differ, &mut Vec::new()).expect("a pair");
    Report::new(&diff.expect("a kind that is read"), false)
}

#[test]
fn nothing_is_lost_or_leaves_the_terminal() {
    for (folder, fixed) in PAIRS {
        let report = report(folder, fixed);
        let plain = |verbose, width| {
            let text = text(&report, Detail::new(verbose, width));
            anstream::adapter::strip_str(&text).to_string()
        };
        let whole = plain(true, None);
        let longest = whole.lines().map(visible).max();
        assert!(longest > Some(80), "nothing to fold: {whole}");
        for width in [40, 60, 80, 200] {
            for verbose in [true, false] {
                let folded = plain(verbose, Some(width));
                for line in folded.lines().filter(|line| visible(line) > width) {
                    let last = line.rsplit(' ').next().expect("a word");
                    let room = width - WORDS.1.min(width / 2);
                    assert!(visible(last) > room, "{width} columns: {line}");
                }
                let words = whole.split_whitespace().map(|it| it.trim_end_matches(':'));
                let lost = words
                    .filter(|word| verbose && *word != "->" && !folded.contains(word))
                    .collect::<Vec<_>>();
                assert!(lost.is_empty(), "{width} columns: {lost:?}\n{folded}");
            }
        }
    }
}
