//! Images that name no PDB and have DWARF.

use std::ffi::OsStr;
use std::path::Path;

use hpbuild_fixtures::{Pair, demo, pairs};

use crate::program::{Run, Workspace, hpbuild, noise};

fn diff(base: &Path, fixed: &Path) -> Run {
    let format = ["--format", "json"].map(OsStr::new);
    hpbuild(
        [
            &[OsStr::new("diff"), base.as_ref(), fixed.as_ref()],
            &format[..],
        ]
        .concat(),
    )
}

fn report(run: &Run) -> serde_json::Value {
    serde_json::from_str(&run.stdout).expect("a report")
}

fn group(name: &str) -> Vec<Pair> {
    let mut pairs = pairs().expect("fixtures");
    pairs.retain(|pair| pair.name.starts_with(name));
    assert!(!pairs.is_empty());
    pairs
}

/// The report says where the symbols come from, and names no PDB.
#[test]
fn source_is_reported() {
    for pair in group("dwarf/immediate") {
        let run = diff(&pair.base.dll, &pair.fixed.dll);
        run.ends_with(0);
        let report = report(&run);
        for side in ["base", "fixed"] {
            assert_eq!(report[side]["symbols"], "dwarf");
            for field in ["pdb", "pdb_guid", "pdb_age"] {
                assert!(report[side][field].is_null(), "{side} {field}");
            }
        }
        let changed = &report["functions"]["changed"];
        assert_eq!(changed[0]["name"], "immediate");
        assert_eq!(changed[0]["compiland"], "edits.c");
        assert_eq!(changed.as_array().map(Vec::len), Some(1));
    }
}

/// The same source with DWARF and with a PDB differs in the same functions.
#[test]
fn same_functions_as_by_pdb() {
    let by_pdb = group("edits/");
    let mut compared = 0;
    for pair in group("dwarf/") {
        let variant = pair.name.trim_start_matches("dwarf/");
        let twin = by_pdb
            .iter()
            .find(|twin| twin.machine == pair.machine && twin.name == format!("edits/{variant}"));
        let Some(twin) = twin else { continue };
        let names = |pair: &Pair| {
            let report = report(&diff(&pair.base.dll, &pair.fixed.dll));
            let names = |list: &str| {
                let functions = report["functions"][list]
                    .as_array()
                    .expect("a list")
                    .clone();
                let mut names: Vec<_> = functions
                    .iter()
                    .map(|function| (function["name"].clone(), function["kinds"].clone()))
                    .map(|pair| format!("{pair:?}"))
                    .collect();
                names.sort();
                names
            };
            let same = report["functions"]["same"].as_u64();
            (
                ["changed", "added", "removed", "unmatched"].map(names),
                same,
            )
        };
        let (dwarf, pdb) = (names(&pair), names(twin));
        assert_eq!(dwarf.0, pdb.0, "{variant} {:?}", pair.machine);
        assert_eq!(dwarf.1, pdb.1, "{variant} {:?}", pair.machine);
        compared += 1;
    }
    assert!(compared >= 20, "{compared}");
}

/// The whole job: the patch of a base without a PDB does in the process what the fixed build does.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
#[test]
fn patch_from_dwarf_works() {
    let files = Workspace::new();
    for pair in group("dwarf-demo/") {
        let patch = files.path("patch.dll");
        let (base, fixed) = (pair.base.dll.as_os_str(), pair.fixed.dll.as_os_str());
        let build = ["build".as_ref(), base, fixed, "-o".as_ref(), patch.as_ref()];
        hpbuild(build).ends_with(0);
        let scenario = files.write("scenario.toml", demo::SCENARIO);
        let test = ["test".as_ref(), base, patch.as_ref()];
        let with = ["--scenario".as_ref(), scenario.as_os_str()];
        let against = ["--against".as_ref(), fixed];
        let run = hpbuild([&test[..], &with, &against].concat());
        // Arm64 code is not executed here, so the calls that are asked for are not made.
        let expected = i32::from(pair.machine.name() != "x64");
        assert_eq!(run.code, Some(expected), "{run:#?}");
        let description = std::fs::read_to_string(files.path("patch.dll.json")).unwrap();
        assert!(!description.contains("pdb"), "{description}");
    }
}

/// One side with a PDB and one with DWARF: their names and types cannot be compared.
#[test]
fn sources_that_differ() {
    let pair = &group("dwarf-demo/")[0];
    let files = Workspace::new();
    diff(&files.base(), &pair.fixed.dll).is_error(&["symbols", "expected pdb", "found dwarf"]);
}

/// Damaged DWARF gives an answer or one error with the file and the place.
#[test]
fn damaged() {
    let pair = &group("dwarf/immediate")[0];
    let files = Workspace::new();
    let whole = std::fs::read(&pair.base.dll).expect("a fixture");
    // DWARF comes last in the file.
    let start = whole.len() / 4;
    for seed in 1..=6 {
        let mut bytes = whole.clone();
        let length = 0x40 << seed;
        let at = start + usize::try_from(seed).unwrap() * 0x517;
        let end = bytes.len().min(at + length);
        bytes[at..end].copy_from_slice(&noise(end - at, seed));
        let damaged = files.write("damaged.dll", &bytes);
        let run = diff(&damaged, &pair.fixed.dll);
        assert!(!run.stderr.contains("panicked"), "{run:#?}");
        match run.code {
            Some(0 | 1 | 3) => assert_eq!(run.stderr, ""),
            _ => run.is_error(&["damaged.dll: ", "expected", "found"]),
        }
    }
}
