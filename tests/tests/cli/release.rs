//! `hpbuild release`: two builds in, one verified package out, or nothing.

use std::path::Path;
use std::process::Command;

use hpbuild_fixtures::demo;

use crate::program::{Run, Workspace, program, run};

const OUTDATED: &str = r#"
schema = 1
[[baseline]]
month = "2026-10"
build = "26100.1742"
hotpatches = []
[[baseline]]
month = "2026-11"
build = "26100.2000"
hotpatches = ["2026-12"]
"#;

/// Runs the program in the folder of `files`, at a fixed time.
fn at(files: &Workspace, arguments: &[&str]) -> Run {
    let mut command = Command::new(program());
    command
        .args(arguments)
        .current_dir(files.path(""))
        .env("SOURCE_DATE_EPOCH", "1767225600");
    run(command)
}

fn prepared(pair: &demo::Demo) -> Workspace {
    let files = Workspace::of(pair);
    for keys in ["keys", "others"] {
        at(&files, &["keygen", "--test", "-o", keys, "--days", "36500"]).ends_with(0);
    }
    files.write("release.toml", demo::RELEASE);
    files.write("outdated.toml", OUTDATED);
    files
}

fn release(files: &Workspace, fixed: &str, trust: &str, rest: &[&str]) -> Run {
    let arguments = [
        "release",
        "base/hp_demo.dll",
        fixed,
        "-o",
        "a.cab",
        "--release",
        "release.toml",
        "--key",
        "keys/test-code-signing.key.pem",
        "--certificate",
        "keys/test-code-signing.pem",
        "--trust",
        trust,
    ];
    at(files, &[&arguments[..], rest].concat())
}

const FIXED: &str = "fixed/hp_demo.dll";
const TRUST: &str = "keys/test-authority.pem";

/// The package, and the statement beside it.
fn written(files: &Workspace) -> [Option<Vec<u8>>; 2] {
    ["a.cab", "a.cab.intoto.jsonl"].map(|name| std::fs::read(files.path(name)).ok())
}

/// The same bytes with any number of threads; and what is in the package is a patch that applies.
#[test]
fn a_release_is_whole_and_reproducible() {
    for pair in &demo::ALL {
        let files = prepared(pair);
        let one = release(&files, FIXED, TRUST, &["--jobs", "1"]);
        one.ends_with(0);
        let temporary = std::env::temp_dir();
        let outside = one.stdout.replace(&*files.path("").to_string_lossy(), "");
        let temporary = temporary.to_str().expect("plain names");
        assert!(!outside.contains(temporary), "{one:#?}");
        let first = written(&files);
        assert!(first.iter().all(Option::is_some));
        release(&files, FIXED, TRUST, &["--jobs", "4"]).ends_with(0);
        assert_eq!(first, written(&files), "{:?}", pair.machine);

        let inspect = at(&files, &["inspect", "a.cab"]);
        inspect.ends_with(0);
        for part in ["not verified", "KB-demo-1", "critical", "read_name"] {
            assert!(inspect.stdout.contains(part), "no {part}: {inspect:#?}");
        }
        let json = at(&files, &["inspect", "a.cab", "--format", "json"]);
        let json: serde_json::Value = serde_json::from_str(&json.stdout).expect("JSON");
        assert_eq!(json["kind"], "package");
        assert_eq!(json["manifest"]["id"], "KB-demo-1");
        assert_eq!(json["files"].as_array().map(Vec::len), Some(3));

        let unpack = ["verify", "a.cab", "--trust", TRUST, "--unpack", "out"];
        at(&files, &unpack).ends_with(0);
        let patch = "out/hp_demo_hotpatch.dll";
        let test = at(&files, &["test", "base/hp_demo.dll", patch]);
        assert!(test.stdout.contains("ok    revert"), "{test:#?}");
    }
}

/// What cannot be released leaves nothing behind.
#[test]
fn no_release_no_file() {
    let files = prepared(&demo::X64);
    release(&files, "base/hp_demo.dll", TRUST, &[]).ends_with(3);
    let outdated = release(&files, FIXED, TRUST, &["--calendar", "outdated.toml"]);
    assert_eq!(outdated.code, Some(1), "{outdated:#?}");
    assert!(outdated.stderr.contains("outdated"), "{outdated:#?}");
    let untrusted = release(&files, FIXED, "others/test-authority.pem", &[]);
    assert_eq!(untrusted.code, Some(1), "{untrusted:#?}");
    assert!(untrusted.stdout.contains("FAILED"), "{untrusted:#?}");
    let missing = release(&files, "fixed/none.dll", TRUST, &[]);
    missing.is_error(&["fixed/none.dll"]);
    assert_eq!(written(&files), [None, None]);
    assert!(!Path::new(&files.path("a.cab")).exists());
}
