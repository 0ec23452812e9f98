//! Rules of the house that no other tool knows, checked over the files under version control.

use std::fs;
use std::process::Command;

use anyhow::{Result, bail};

use crate::run;

/// Lines after which a source file is split or defended in review.
const MANY_LINES: usize = 800;

/// Words that belong to one instruction set. A file that uses one says so in its path.
const INSTRUCTION_SET: [&str; 4] = ["iced_x86", "capstone", "adrp", "modrm"];

/// Parts of a path that say which instruction set a file is about. Tests and the command line's
/// dependencies are free.
const NAMED_AFTER_ONE: [&str; 4] = ["x64", "arm64", "x86", "aarch64"];

/// Crates in which instruction sets are kept apart.
const KEPT_APART: [&str; 3] = ["differ/src/", "packager/src/", "metadata/src/"];

/// Where unsafe code may be: the native backend, the child's memory of a running image, which is
/// part of it, the program that tests start as a child, and what images of the corpus export to C.
const UNSAFE: [&str; 4] = [
    "harness/src/native",
    "harness/src/child/memory.rs",
    "harness/tests/programs/",
    "fixtures/corpus/",
];

/// Module names that say nothing of what is inside.
const EMPTY_NAMES: [&str; 4] = ["common", "util", "utils", "helpers"];

/// Checks every rule over every file.
///
/// # Errors
/// Lists all places that break a rule.
pub(crate) fn run() -> Result<()> {
    let root = run::root();
    let listed = run::captured(Command::new("git").current_dir(&root).args([
        "ls-files",
        "--cached",
        "--others",
        "--exclude-standard",
    ]))?;
    let mut broken = Vec::new();
    for path in listed.lines() {
        // Prebuilt images are not text; the tests of the fixtures look into them.
        let Ok(text) = fs::read_to_string(root.join(path)) else {
            continue;
        };
        broken.extend(file(path, &text));
    }
    if broken.is_empty() {
        return Ok(());
    }
    bail!("{} rules broken\n{}", broken.len(), broken.join("\n"))
}

/// What is wrong with one file.
fn file(path: &str, text: &str) -> Vec<String> {
    let mut broken = machine_paths(path, text);
    broken.extend(conflict_marks(path, text));
    if !path.ends_with(".rs") {
        return broken;
    }
    let lines = text.lines().count();
    if lines > MANY_LINES {
        broken.push(format!("{path}: {lines} lines, {MANY_LINES} are the bound"));
    }
    let name = path
        .rsplit('/')
        .find(|part| *part != "mod.rs")
        .unwrap_or(path);
    if EMPTY_NAMES.contains(&name.trim_end_matches(".rs")) {
        broken.push(format!("{path}: the name says nothing of what is inside"));
    }
    let is_root = path.ends_with("/src/lib.rs") || path.ends_with("/src/main.rs");
    if is_root && !path.starts_with("harness/") && !text.contains("#![forbid(unsafe_code)]") {
        broken.push(format!("{path}: no #![forbid(unsafe_code)]"));
    }
    for (number, line) in text.lines().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        let place = format!("{path}:{}", number + 1);
        broken.extend(code_line(path, code).map(|what| format!("{place}: {what}")));
        if let Some(comment) = line.split_once("//").map(|(_, comment)| comment)
            && comment.trim_start().starts_with(concat!("TO", "DO"))
        {
            broken.push(format!("{place}: say why, or do it"));
        }
    }
    broken
}

/// What is wrong with one line of code.
fn code_line(path: &str, code: &str) -> Option<String> {
    if code.trim_start().starts_with(concat!("#[ign", "ore")) {
        return Some("a test that is not run is no test".to_owned());
    }
    let unsafe_code =
        code.contains(concat!("unsafe", " {")) || code.contains(concat!("unsafe", " fn"));
    if unsafe_code && !UNSAFE.iter().any(|start| path.starts_with(start)) {
        return Some(format!("unsafe code lives in {} alone", UNSAFE.join(", ")));
    }
    let apart = KEPT_APART.iter().any(|start| path.starts_with(start));
    if !apart || NAMED_AFTER_ONE.iter().any(|name| path.contains(name)) {
        return None;
    }
    let word = INSTRUCTION_SET.iter().find(|word| has_word(code, word))?;
    Some(format!(
        "`{word}` belongs in a file named after its instruction set"
    ))
}

/// Places of the machine that somebody worked on.
fn machine_paths(path: &str, text: &str) -> Vec<String> {
    let mut broken = Vec::new();
    for (number, line) in text.lines().enumerate() {
        for start in [
            concat!("/ho", "me/"),
            concat!("/ro", "ot/"),
            concat!("/wo", "rk/"),
        ] {
            let follows = line.match_indices(start).any(|(at, _)| {
                let next = line[at + start.len()..].chars().next();
                next.is_some_and(char::is_alphanumeric)
            });
            if follows {
                broken.push(format!("{path}:{}: a path of one machine", number + 1));
            }
        }
    }
    broken
}

/// What a merge leaves where it could not decide.
fn conflict_marks(path: &str, text: &str) -> Vec<String> {
    let marks = [concat!("<<<<", "<<< "), concat!(">>>>", ">>> ")];
    (text.lines().enumerate())
        .filter(|(_, line)| marks.iter().any(|mark| line.starts_with(mark)))
        .map(|(number, _)| format!("{path}:{}: the mark of a merge conflict", number + 1))
        .collect()
}

/// Whether `word` stands in `code` with nothing of an identifier on either side.
fn has_word(code: &str, word: &str) -> bool {
    let part = |next: Option<char>| next.is_some_and(|it| it.is_alphanumeric() || it == '_');
    code.match_indices(word).any(|(at, _)| {
        !part(code[..at].chars().next_back()) && !part(code[at + word.len()..].chars().next())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_general_file_never_names_an_instruction_set() {
        let line = "use iced_x86::Decoder;\n";
        assert_eq!(file("differ/src/compare.rs", line).len(), 1);
        assert!(file("differ/src/decode/x64.rs", line).is_empty());
        assert!(file("differ/src/compare.rs", "// iced_x86 is elsewhere\n").is_empty());
        assert!(file("differ/src/compare.rs", "let adrprefix = 1;\n").is_empty());
    }

    #[test]
    fn machine_paths_are_found_in_any_text() {
        let line = concat!("see /ho", "me/someone/file\n");
        assert_eq!(file("docs/x.md", line).len(), 1);
        assert!(file("docs/x.md", "see /usr/share\n").is_empty());
    }

    #[test]
    fn marks_of_merge_conflicts_are_found_in_any_text() {
        let text = concat!("<<<<", "<<< HEAD\none\n=======\ntwo\n>>>>", ">>> other\n");
        assert_eq!(file("docs/x.md", text).len(), 2);
        assert!(file("docs/x.md", "Title\n=======\n1 <<<<<<< 2\n").is_empty());
    }

    #[test]
    fn a_long_file_is_reported_and_a_full_one_is_not() {
        assert!(file("differ/src/pair.rs", &"\n".repeat(MANY_LINES)).is_empty());
        assert_eq!(
            file("differ/src/pair.rs", &"\n".repeat(MANY_LINES + 1)).len(),
            1
        );
    }
}
