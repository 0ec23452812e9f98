//! What the exit codes and the reports say of input that is understood.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::Path;

use hpbuild_fixtures::{demo, lone};

use crate::program::{Run, Workspace, hpbuild};

fn with(command: &str, files: [&Path; 2], rest: &[&str]) -> Run {
    let mut arguments: Vec<&OsStr> = vec![command.as_ref(), files[0].as_ref(), files[1].as_ref()];
    arguments.extend(rest.iter().map(OsStr::new));
    hpbuild(arguments)
}

/// A hotpatchable pair: a report, a patch, and nothing on standard error.
#[test]
fn hotpatchable_pair() {
    for pair in &demo::ALL {
        let files = Workspace::of(pair);
        let diff = files.diff();
        diff.ends_with(0);
        assert!(diff.stdout.contains("read_name"), "{diff:#?}");
        let (build, patch) = files.build();
        build.ends_with(0);
        assert!(patch.is_file());
        let inspect = hpbuild([OsStr::new("inspect"), patch.as_ref()]);
        inspect.ends_with(0);
        assert!(inspect.stdout.contains("hotpatch table"), "{inspect:#?}");
    }
}

/// The base against itself: nothing to do, and no file.
#[test]
fn same_pair() {
    let files = Workspace::new();
    let (base, patch) = (files.base(), files.path("patch.dll"));
    with("diff", [&base, &base], &[]).ends_with(3);
    let json = with("diff", [&base, &base], &["--format", "json"]);
    json.ends_with(3);
    assert!(json.stdout.contains("\"verdict\": \"same\""), "{json:#?}");
    let output = patch.to_str().expect("temporary folders have plain names");
    with("build", [&base, &base], &["-o", output]).ends_with(3);
    assert!(!patch.exists());
}

/// Every image of a kind that is refused: exit code 1, the rule on standard output as text and as
/// JSON, and no file.
#[test]
fn refused_kinds() {
    let x86 = lone("refused-x86").expect("fixtures");
    let other = lone("refused").expect("fixtures");
    let expected = |variant: &str, x86: bool| match (variant, x86) {
        ("plain", true) => Some(["x86", "machine"]),
        ("hybrid", _) => Some(["CHPE", "hybrid"]),
        ("managed", _) => Some(["managed", "managed"]),
        _ => None,
    };
    let files = Workspace::new();
    let patch = files.path("patch.dll");
    let output = patch.to_str().expect("temporary folders have plain names");
    let mut seen = 0;
    for (images, is_x86) in [(x86, true), (other, false)] {
        for (variant, machine, build) in images {
            let Some(words) = expected(&variant, is_x86) else {
                continue;
            };
            let pair = [build.dll.as_path(), build.dll.as_path()];
            let text = with("diff", pair, &[]);
            text.ends_with(1);
            assert!(text.stdout.contains("HP00"), "{text:#?}");
            let lower = text.stdout.to_lowercase();
            assert!(
                words
                    .iter()
                    .any(|word| lower.contains(&word.to_lowercase())),
                "{variant} {machine:?}: {text:#?}"
            );
            let json = with("diff", pair, &["--format", "json"]);
            json.ends_with(1);
            let report: serde_json::Value =
                serde_json::from_str(&json.stdout).expect("a report is JSON");
            assert_eq!(report["verdict"], "refused", "{json:#?}");
            let code = report["refusals"][0]["code"].as_str().expect("a code");
            assert!(text.stdout.contains(code), "{text:#?}");
            with("build", pair, &["-o", output]).ends_with(1);
            assert!(!patch.exists());
            // Refused on one side alone, too.
            with("diff", [&files.base(), pair[1]], &[]).ends_with(1);
            with("diff", [pair[0], &files.fixed()], &[]).ends_with(1);
            seen += 1;
        }
    }
    assert_eq!(seen, 6);
}

/// `explain` prints every rule, and no two rules share a code.
#[test]
fn explain_every_rule() {
    let list = hpbuild(["explain"]);
    list.ends_with(0);
    let codes: Vec<&str> = list
        .stdout
        .lines()
        .map(|line| line.split_whitespace().next().unwrap_or_default())
        .collect();
    let unique: BTreeSet<_> = codes.iter().collect();
    assert_eq!(unique.len(), codes.len(), "{codes:?}");
    for known in ["HP001", "HP004", "HP005"] {
        assert!(codes.contains(&known), "no {known} in {codes:?}");
    }
    for code in codes {
        let digits = code.strip_prefix("HP").unwrap_or_default();
        assert!(
            digits.len() == 3 && digits.bytes().all(|byte| byte.is_ascii_digit()),
            "{code}"
        );
        let page = hpbuild(["explain", code]);
        page.ends_with(0);
        assert!(page.stdout.starts_with(code), "{page:#?}");
        for part in ["For example:\n", "What to do:\n"] {
            let text = page.stdout.split(part).nth(1).unwrap_or_default();
            assert!(!text.trim().is_empty(), "{page:#?}");
        }
    }
    hpbuild(["explain", "HP999"]).is_error(&["HP999", "expected the code of a rule"]);
}

/// A waiver that names the finding turns it from refused to allowed: in the verdict, in both
/// reports, in what is built, and in what the package will say.
#[test]
fn good_policy() {
    let files = Workspace::new();
    let pairs = hpbuild_fixtures::pairs().expect("fixtures");
    let is_it = |pair: &&hpbuild_fixtures::Pair| {
        pair.name == "edits/unpadded" && pair.machine == hpbuild_fixtures::Machine::X64
    };
    let pair = pairs.iter().find(is_it).expect("a pair without padding");
    let images = [pair.base.dll.as_path(), pair.fixed.dll.as_path()];
    let patch = files.path("patch.dll");
    let output = patch.to_str().expect("temporary folders have plain names");
    let refused = with("diff", images, &[]);
    refused.ends_with(1);
    assert!(refused.stdout.contains("refuse HP010"), "{refused:#?}");
    with("build", images, &["-o", output]).ends_with(1);

    let text = "[[allow]]\ncode = 'HP010'\nname = 'immediate'\nreason = 'filler by hand'\n";
    let policy = files.write("policy.toml", text);
    let policy = policy.to_str().expect("temporary folders have plain names");
    let allowed = with("diff", images, &["--policy", policy]);
    allowed.ends_with(0);
    assert!(allowed.stdout.starts_with("hotpatchable\n"), "{allowed:#?}");
    assert!(allowed.stdout.contains("waived HP010"), "{allowed:#?}");
    assert!(
        allowed.stdout.contains("allowed: filler by hand"),
        "{allowed:#?}"
    );
    let json = with("diff", images, &["--policy", policy, "--format", "json"]);
    let report: serde_json::Value = serde_json::from_str(&json.stdout).expect("a report");
    assert_eq!(report["verdict"], "hotpatchable");
    assert_eq!(report["refusals"][0]["waived"], "filler by hand");
    with("build", images, &["--policy", policy, "-o", output]).ends_with(0);
    let part = std::fs::read_to_string(files.path("patch.dll.json")).expect("a description");
    let part: serde_json::Value = serde_json::from_str(&part).expect("a description");
    let waiver = &part["waivers"][0];
    assert_eq!(waiver["rule"], "HP010");
    assert_eq!(waiver["symbol"], "immediate");
    assert_eq!(waiver["reason"], "filler by hand");

    // One that allows nothing is said to, and changes nothing.
    let text = text.replace("'immediate'", "'immediately'");
    let policy = files.write("other.toml", text);
    let policy = policy.to_str().expect("temporary folders have plain names");
    let unused = with("diff", images, &["--policy", policy]);
    unused.ends_with(1);
    assert!(unused.stdout.contains("warn   HP036"), "{unused:#?}");
    assert!(
        unused.stdout.contains("HP010 is found for immediate"),
        "{unused:#?}"
    );
}

/// The demo runs through and leaves what it says it leaves.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
#[test]
fn demo_runs_through() {
    let files = Workspace::new();
    let folder = files.path("demo");
    let run = hpbuild([OsStr::new("demo"), "-o".as_ref(), folder.as_ref()]);
    assert_eq!(run.code, Some(0), "{run:#?}");
    for name in [
        "scenario.toml",
        "base.c",
        "fixed.c",
        "x64/base/hp_demo.dll",
        "x64/fixed/hp_demo.pdb",
        "x64/hp_demo_hotpatch.dll",
        "arm64/hp_demo_hotpatch.dll",
    ] {
        assert!(folder.join(name).is_file(), "no {name}: {run:#?}");
    }
    for step in ["diff", "build", "inspect", "test"] {
        assert!(
            run.stdout.contains(&format!("$ hpbuild {step} ")),
            "{run:#?}"
        );
    }
}

/// The demo's scenario holds against the patch that `build` makes, and not without it.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
#[test]
fn demo_scenario() {
    let files = Workspace::new();
    let (build, patch) = files.build();
    build.ends_with(0);
    let scenario = files.write("scenario.toml", demo::SCENARIO);
    let scenario = scenario
        .to_str()
        .expect("temporary folders have plain names");
    let fixed = files.fixed();
    let fixed = fixed.to_str().expect("temporary folders have plain names");
    let pair = [files.base(), patch];
    let pair = [pair[0].as_path(), pair[1].as_path()];
    let run = with("test", pair, &["--scenario", scenario, "--against", fixed]);
    assert_eq!(run.code, Some(0), "{run:#?}");
    // A base that the patch was not built against.
    let other = with("test", [&files.fixed(), pair[1]], &["--scenario", scenario]);
    assert!(matches!(other.code, Some(1 | 2)), "{other:#?}");
    assert!(!other.stderr.contains("panicked"), "{other:#?}");
}
