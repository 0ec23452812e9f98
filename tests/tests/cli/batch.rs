//! Whole trees of pairs.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::program::{Run, program, run};
use crate::reports::assert_sarif;

/// Two trees, and a place for results.
pub(crate) struct Trees {
    folder: tempfile::TempDir,
}

impl Trees {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for side in ["base", "fixed"] {
            std::fs::create_dir(folder.path().join(side)).expect("a folder");
        }
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Puts a prebuilt pair into both trees.
    pub(crate) fn pair(&self, at: &str, fixed: &str) -> &Self {
        for (side, variant) in [("base", "base"), ("fixed", fixed)] {
            for file in ["hp_edits.dll", "hp_edits.pdb"] {
                self.file(&format!("{side}/{at}/{file}"), &prebuilt(variant, file));
            }
        }
        self
    }

    pub(crate) fn file(&self, name: &str, bytes: &[u8]) -> &Self {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(path, bytes).expect("a written file");
        self
    }

    /// `hpbuild batch` in the folder.
    pub(crate) fn batch<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Run {
        let mut command = Command::new(program());
        command.current_dir(self.folder.path());
        command.arg("batch").args(arguments);
        run(command)
    }

    pub(crate) fn json(&self, name: &str) -> Value {
        let text = std::fs::read_to_string(self.path(name)).expect("a report");
        serde_json::from_str(&text).expect("JSON")
    }
}

fn prebuilt(variant: &str, file: &str) -> Vec<u8> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/prebuilt/edits/x64");
    std::fs::read(root.join(variant).join(file)).expect("a prebuilt file")
}

/// The exit code is the worst of all pairs: error, refused, something to patch, nothing.
#[test]
fn worst_of_all() {
    let trees = Trees::new();
    // Without its PDB, too: the same bytes are the same.
    let image = prebuilt("base", "hp_edits.dll");
    trees.file("base/same.dll", &image);
    trees.file("fixed/same.dll", &image);
    trees.batch(["base", "fixed"]).ends_with(3);
    trees.pair("a", "immediate");
    trees.batch(["base", "fixed"]).ends_with(0);
    trees.pair("b/c", "initial-value");
    let refused = trees.batch(["base", "fixed"]);
    refused.ends_with(1);
    assert!(refused.stdout.contains("HP030"), "{refused:#?}");
    trees.file("base/d.dll", &image);
    trees.file("fixed/d.dll", &image[..image.len() / 2]);
    let broken = trees.batch(["base", "fixed", "--format", "json"]);
    broken.ends_with(2);
    let report: Value = serde_json::from_str(&broken.stdout).expect("JSON");
    let endings: Vec<_> = report["pairs"]
        .as_array()
        .expect("pairs")
        .iter()
        .map(|pair| (pair["path"].as_str(), pair["ending"].as_str()))
        .collect();
    let expected = [
        ("a/hp_edits.dll", "hotpatchable"),
        ("b/c/hp_edits.dll", "refused"),
        ("d.dll", "error"),
        ("same.dll", "same"),
    ];
    assert_eq!(endings, expected.map(|(path, how)| (Some(path), Some(how))));
}

/// Shards on many machines and one run on one give the same bytes.
#[test]
fn shards_come_to_the_same() {
    let trees = Trees::new();
    for (at, variant) in [
        ("a", "immediate"),
        ("b", "struct"),
        ("c", "string"),
        ("d", "base"),
    ] {
        trees.pair(at, variant);
    }
    let plan = trees.batch(["plan", "base", "fixed", "-o", "plan.json"]);
    plan.ends_with(0);
    assert_eq!(trees.json("plan.json")["schema"], "hpbuild-batch-plan-1");
    for (shard, folder) in [("2/2", "two"), ("1/2", "one")] {
        let run = trees.batch(["exec", "plan.json", "--shard", shard, "-o", folder]);
        assert!(matches!(run.code, Some(0 | 1 | 3)), "{run:#?}");
    }
    for format in ["text", "json", "sarif", "html"] {
        let merged = ["merge", "plan.json", "one", "two", "--format", format];
        let (merged, whole) = (
            trees.batch(merged),
            trees.batch(["base", "fixed", "--format", format, "--pairs", "3"]),
        );
        merged.ends_with(1);
        assert_eq!(merged.stdout, whole.stdout);
        if format == "sarif" {
            assert_sarif(&merged.stdout);
        }
    }
    // A shard that is missing is no success.
    let half = trees.batch(["merge", "plan.json", "one"]);
    half.ends_with(2);
    assert!(half.stdout.contains("not compared"), "{half:#?}");
    // Pages stand beside the page that leads to them.
    let index = [
        "merge",
        "plan.json",
        "one",
        "--format",
        "html",
        "-o",
        "one/index.html",
    ];
    trees.batch(index).ends_with(2);
    let page = std::fs::read_to_string(trees.path("one/index.html")).expect("a page");
    assert!(page.contains("href=\"000001-hp_edits.dll.html\""), "{page}");
    assert!(trees.path("one/000001-hp_edits.dll.html").is_file());
}

/// What is on one side alone, no image, or not to be read is said, and the rest is compared.
#[test]
fn odd_files() {
    let trees = Trees::new();
    let image = prebuilt("base", "hp_edits.dll");
    trees.pair("a", "immediate");
    trees.file("base/gone.dll", &image);
    trees.file("fixed/new.dll", &image);
    trees
        .file("base/half.dll", &image)
        .file("fixed/half.dll", b"MZ no image");
    trees
        .file("base/notes.txt", b"text")
        .file("fixed/notes.txt", b"other");
    let run = trees.batch(["base", "fixed", "--format", "json", "-o", "report.json"]);
    run.ends_with(2);
    let report = trees.json("report.json");
    assert_eq!(report["only_base"], serde_json::json!(["gone.dll"]));
    assert_eq!(report["only_fixed"], serde_json::json!(["new.dll"]));
    assert_eq!(report["problems"].as_array().map(Vec::len), Some(1));
    assert_eq!(report["problems"][0]["path"], "half.dll");
    assert_eq!(report["pairs"].as_array().map(Vec::len), Some(1));
}

/// Links that lead in circles, and a pipe, end nothing and hold nothing up.
#[cfg(unix)]
#[test]
fn hostile_trees() {
    let trees = Trees::new();
    trees.pair("a", "immediate");
    for side in ["base", "fixed"] {
        std::os::unix::fs::symlink(".", trees.path(side).join("a/loop")).expect("a link");
        std::os::unix::fs::symlink("nowhere", trees.path(side).join("dead")).expect("a link");
        let pipe = Command::new("mkfifo")
            .arg(trees.path(side).join("pipe"))
            .status();
        assert!(pipe.expect("mkfifo runs").success());
    }
    let mut deep = String::from("base");
    for _ in 0..70 {
        deep.push_str("/d");
    }
    trees.file(&format!("{deep}/x.dll"), b"MZ");
    let run = trees.batch(["base", "fixed", "--format", "json"]);
    run.ends_with(2);
    let report: Value = serde_json::from_str(&run.stdout).expect("JSON");
    assert_eq!(
        report["pairs"].as_array().map(Vec::len),
        Some(1),
        "{report:#}"
    );
    let problems = report["problems"].as_array().expect("problems");
    let paths: Vec<_> = problems.iter().filter_map(|p| p["path"].as_str()).collect();
    assert!(paths.contains(&"dead"), "{paths:?}");
    assert!(paths.iter().any(|path| path.ends_with("/d")), "{paths:?}");
}

/// A plan may come from anywhere: it names nothing outside its trees.
#[test]
fn hostile_plans() {
    let trees = Trees::new();
    trees.pair("a", "immediate");
    trees
        .batch(["plan", "base", "fixed", "-o", "plan.json"])
        .ends_with(0);
    let plan = trees.json("plan.json");
    for path in ["../secret.dll", "/etc/passwd", ""] {
        let mut hostile = plan.clone();
        hostile["pairs"][0] = path.into();
        trees.file("hostile.json", hostile.to_string().as_bytes());
        let run = trees.batch(["exec", "hostile.json", "-o", "results"]);
        run.is_error(&["hostile.json", "below the trees"]);
    }
    let mut other = plan;
    other["schema"] = "hpbuild-batch-plan-2".into();
    trees.file("other.json", other.to_string().as_bytes());
    let run = trees.batch(["exec", "other.json", "-o", "results"]);
    run.is_error(&["other.json", "hpbuild-batch-plan-1"]);
    trees.file("other.json", b"{");
    trees
        .batch(["merge", "other.json", "results"])
        .is_error(&["other.json"]);
    trees.batch(["base", "nowhere"]).is_error(&["nowhere"]);
    assert!(!trees.path("results").exists());
}
