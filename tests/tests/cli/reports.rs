//! The forms of a report: what they say of prebuilt pairs, and that names stay names.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;

use crate::program::{program, run};

/// Pairs whose reports are pinned: folder of the prebuilt images, base, fixed and their name.
const PINNED: [(&str, [&str; 2], &str); 6] = [
    ("edits/x64", ["base", "inlined-callee"], "hp_edits.dll"),
    ("edits/x64", ["base", "function-gone"], "hp_edits.dll"),
    ("edits/x64", ["base", "struct"], "hp_edits.dll"),
    ("edits/x64", ["base", "line-shift"], "hp_edits.dll"),
    ("edits/arm64", ["base", "table-entry"], "hp_edits.dll"),
    ("demo/x64", ["base", "fixed"], "hp_demo.dll"),
];

pub(crate) fn prebuilt(folder: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/prebuilt");
    root.join(folder)
}

/// `hpbuild diff` of two images, as the folder they stand in sees them: paths are part of reports.
pub(crate) fn diff(folder: &Path, [base, fixed]: [&str; 2], image: &str, rest: &[&str]) -> String {
    let mut command = Command::new(program());
    command
        .current_dir(folder)
        .arg("diff")
        .args([base, fixed].map(|side| format!("{side}/{image}")))
        .args(rest);
    let run = run(command);
    assert!(matches!(run.code, Some(0 | 1 | 3)), "{run:#?}");
    assert_eq!(run.stderr, "");
    run.stdout
}

/// Holds `text` against `expected/NAME`; with `HPBUILD_BLESS=1` in the environment writes it.
#[track_caller]
fn assert_expected(text: &str, name: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/expected");
    let path = folder.join(name);
    if std::env::var_os("HPBUILD_BLESS").is_some() {
        std::fs::write(&path, text).expect("a written file");
    }
    let expected = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}; run cargo xtask bless", path.display()));
    assert!(
        text == expected,
        "{name}: run cargo xtask bless and review the difference; found:\n{text}"
    );
}

#[test]
fn reports_of_prebuilt_pairs() {
    for (folder, [base, fixed], image) in PINNED {
        let name = format!("{}-{fixed}", folder.replace('/', "-"));
        let root = prebuilt(folder);
        let report = |format| diff(&root, [base, fixed], image, &["--format", format]);
        assert_expected(&report("text"), &format!("{name}.txt"));
        assert_expected(&report("json"), &format!("{name}.json"));
        assert_expected(&body(&report("html")), &format!("{name}.html"));
        assert_expected(&results(&report("sarif")), &format!("{name}.sarif"));
    }
}

/// What the sources of the edits say of data that changed: variant, function and entry.
const CONTENTS: [(&str, &str, [&str; 3]); 9] = [
    ("table-entry", "step_sum", ["steps[5]", "9", "8"]),
    ("table-entry", "step_at", ["steps[5]", "9", "8"]),
    (
        "pointer-table",
        "operate",
        ["operations[2]", "op_mul", "op_xor"],
    ),
    (
        "nested-table",
        "weigh",
        ["<constant>[1] -> far_weights[2]", "30", "31"],
    ),
    (
        "relative-table",
        "month",
        ["<constant>[11]", "\"December\"", "\"Decembre\""],
    ),
    (
        "string",
        "outcome",
        ["<constant>", "\"access refused\"", "\"access delayed\""],
    ),
    (
        "string-length",
        "greeting",
        ["<constant>", "\"hello\"", "\"hello there\""],
    ),
    ("float", "float_literal", ["<constant>", "0.1", "0.3"]),
    ("single", "single_literal", ["<constant>", "0.1", "0.3"]),
];

#[test]
fn changed_data_is_told_entry_by_entry() {
    for machine in ["x64", "arm64"] {
        let root = prebuilt("edits").join(machine);
        for (variant, function, expected) in CONTENTS {
            // Compilers for Arm64 put these constants into the code.
            if machine == "arm64" && ["float", "single"].contains(&variant) {
                continue;
            }
            let report = diff(
                &root,
                ["base", variant],
                "hp_edits.dll",
                &["--format", "json"],
            );
            let report: Value = serde_json::from_str(&report).expect("JSON");
            let changed = report["functions"]["changed"].as_array().expect("a list");
            let changed = changed.iter().find(|it| it["name"] == function);
            let contents = &changed.expect("the changed function")["contents"];
            let text = |value: &Value| value.as_str().expect("a text").to_owned();
            let [(name, entry)] = &entries(contents)[..] else {
                panic!("{machine} {variant}: one entry expected: {contents}");
            };
            let found = [
                text(name) + &text(&entry["place"]),
                text(&entry["base"]),
                text(&entry["fixed"]),
            ];
            assert_eq!(found, expected, "{machine} {variant}");
        }
    }
}

/// A function of which only a handler changed has no lines of its own.
#[test]
fn changed_parts_are_named_by_their_functions() {
    let root = prebuilt("exceptions/x64");
    let image = "hp_exceptions.dll";
    let report = diff(&root, ["base", "handled"], image, &["--format", "json"]);
    let report: Value = serde_json::from_str(&report).expect("JSON");
    let changed = report["functions"]["changed"].as_array().expect("a list");
    let parts = |it: &Value| it["parts"].as_array().cloned().unwrap_or_default();
    let named: Vec<Value> = changed.iter().flat_map(parts).collect();
    assert!(!named.is_empty(), "{report:#}");
    for part in named {
        let part = changed.iter().find(|it| it["display"] == part);
        let lines = part.and_then(|part| part["diff"].as_array());
        assert!(lines.is_some_and(|lines| !lines.is_empty()), "{report:#}");
    }
}

/// All entries of a function's contents, each with the name of what it is of.
fn entries(contents: &Value) -> Vec<(Value, Value)> {
    let mut found = Vec::new();
    for contents in contents.as_array().into_iter().flatten() {
        let entries = contents["entries"].as_array().expect("entries");
        found.extend(
            entries
                .iter()
                .map(|it| (contents["name"].clone(), it.clone())),
        );
    }
    found
}

/// A page without its style and script, which are files of their own.
fn body(page: &str) -> String {
    let (_, body) = page.split_once("<body>").expect("a body");
    let (body, _) = body.rsplit_once("<script>").expect("the page's script");
    body.to_owned()
}

/// The results alone: the list of rules grows.
fn results(log: &str) -> String {
    let mut log: Value = serde_json::from_str(log).expect("JSON");
    let mut results = log["runs"][0]["results"].take();
    for result in results.as_array_mut().expect("results") {
        result
            .as_object_mut()
            .expect("a result")
            .remove("ruleIndex");
    }
    serde_json::to_string_pretty(&results).expect("JSON") + "\n"
}

/// The published schema of SARIF, from the sources of a crate that carries it and that nothing
/// here is built with.
fn sarif_schema() -> &'static jsonschema::Validator {
    static SCHEMA: OnceLock<jsonschema::Validator> = OnceLock::new();
    SCHEMA.get_or_init(|| {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| env!("CARGO").into());
        let metadata = Command::new(cargo)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .args(["metadata", "--format-version", "1", "--locked"])
            .output()
            .expect("cargo runs");
        let metadata: Value = serde_json::from_slice(&metadata.stdout).expect("cargo metadata");
        let packages = metadata["packages"].as_array().expect("packages");
        let package = packages.iter().find(|p| p["name"] == "serde-sarif");
        let manifest = package.expect("serde-sarif")["manifest_path"].as_str();
        let schema = Path::new(manifest.expect("a path")).with_file_name("src/schema.json");
        let schema = std::fs::read_to_string(schema).expect("the schema of SARIF");
        let mut schema: Value = serde_json::from_str(&schema).expect("JSON");
        // A bracket too many, which only browsers' regular expressions put up with.
        for object in ["run", "toolComponent"] {
            let path = format!("/definitions/{object}/properties/language");
            let language = schema.pointer_mut(&path).and_then(Value::as_object_mut);
            let pattern = language.and_then(|language| language.remove("pattern"));
            assert!(pattern.is_some(), "{path}");
        }
        jsonschema::validator_for(&schema).expect("a schema")
    })
}

#[track_caller]
pub(crate) fn assert_sarif(text: &str) -> Value {
    let log: Value = serde_json::from_str(text).expect("JSON");
    let errors: Vec<_> = sarif_schema()
        .iter_errors(&log)
        .map(|error| format!("{error} at {}", error.instance_path()))
        .collect();
    assert!(errors.is_empty(), "{errors:#?}");
    let mut broken = log.clone();
    broken["runs"][0]["tool"]["driver"]["name"] = Value::Null;
    assert!(!sarif_schema().is_valid(&broken), "the schema says nothing");
    // Nothing is pointed to that is published nowhere.
    let driver = &log["runs"][0]["tool"]["driver"];
    let workspace = include_str!("../../../Cargo.toml").lines();
    let mut repository = workspace.filter_map(|line| line.strip_prefix("repository = "));
    let repository = repository.next().map(|uri| uri.trim_matches('"'));
    assert_eq!(driver["informationUri"].as_str(), repository);
    // What the schema cannot say: indexes lead to the rule that is named.
    let run = &log["runs"][0];
    for result in run["results"].as_array().expect("results") {
        let index = result["ruleIndex"].as_u64().expect("an index") as usize;
        assert_eq!(
            run["tool"]["driver"]["rules"][index]["id"],
            result["ruleId"]
        );
    }
    log
}

#[test]
fn sarif_is_as_published() {
    for (folder, sides, image) in PINNED {
        let root = prebuilt(folder);
        assert_sarif(&diff(&root, sides, image, &["--format", "sarif"]));
    }
    // An image that is not read has no path, and a finding all the same.
    let run = diff(
        &prebuilt("refused-x86/x86"),
        ["plain", "plain"],
        "hp_refused.dll",
        &["--format", "sarif"],
    );
    let log = assert_sarif(&run);
    assert_eq!(log["runs"][0]["results"][0]["ruleId"], "HP001");
}

/// A waived finding stays, suppressed with its reason; the source root makes paths relative; and
/// the fingerprint is that of the finding, whatever else changed.
#[test]
fn sarif_says_what_ci_needs() {
    let folder = tempfile::tempdir().expect("a folder");
    let policy = folder.path().join("policy.toml");
    let allow = "[[allow]]\ncode = \"HP030\"\nname = \"threshold\"\nreason = \"looked at\"\n";
    std::fs::write(&policy, allow).expect("a written file");
    let policy = policy.to_str().expect("a plain name");
    let root = prebuilt("edits/x64");
    let report = |fixed: &str, rest: &[&str]| {
        let rest = [&["--format", "sarif"], rest].concat();
        let text = diff(&root, ["base", fixed], "hp_edits.dll", &rest);
        assert_sarif(&text)["runs"][0]["results"].clone()
    };
    let waived = report("initial-value", &["--policy", policy]);
    let plain = report("initial-value", &[]);
    let finding = |results: &Value| -> Value {
        let named = |result: &&Value| result["message"]["text"].to_string().contains("threshold");
        let results = results.as_array().expect("results");
        results.iter().find(named).expect("a finding").clone()
    };
    let (waived, plain) = (finding(&waived), finding(&plain));
    assert_eq!(waived["suppressions"][0]["justification"], "looked at");
    assert_eq!(plain["suppressions"], Value::Null);
    assert_eq!(plain["level"], "error");
    assert_eq!(waived["partialFingerprints"], plain["partialFingerprints"]);

    let changed = report("inlined-callee", &["--source-root", r"c:\HP_edits"]);
    let place = &changed[0]["locations"][0]["physicalLocation"];
    assert_eq!(place["artifactLocation"]["uri"], "edits.c");
    assert_eq!(place["artifactLocation"]["uriBaseId"], "SRCROOT");
    // The line of `blend_pair` in the source.
    let source = include_str!("../../../fixtures/pairs/edits/edits.c");
    let line = source
        .lines()
        .position(|line| line.contains("uint32_t blend_pair("));
    let line = line.expect("a function") as u64 + 1;
    assert_eq!(place["region"]["startLine"], line);
}

/// A function that changed because of what was inlined into it says so, on both machines.
#[test]
fn inlined_callee_is_named() {
    for (machine, function) in [
        ("x64", "blend_pair"),
        ("x64", "blend_bytes"),
        ("arm64", "blend_pair"),
    ] {
        let root = prebuilt("edits").join(machine);
        let sides = ["base", "inlined-callee"];
        let json = diff(&root, sides, "hp_edits.dll", &["--format", "json"]);
        let report: Value = serde_json::from_str(&json).expect("JSON");
        let changed = report["functions"]["changed"]
            .as_array()
            .expect("functions");
        let function = changed.iter().find(|f| f["name"] == function);
        let inlined = &function.expect("a changed function")["inlined"];
        assert_eq!(inlined[0]["name"], "blend", "{machine}: {inlined:#}");
        assert_eq!(inlined[0]["removed"], inlined[0]["added"]);
        let text = diff(&root, sides, "hp_edits.dll", &[]);
        assert!(text.contains("inlined blend: "), "{text}");
    }
    // What changed in the function itself is not laid on what was inlined.
    let json = diff(
        &prebuilt("edits/x64"),
        ["base", "immediate"],
        "hp_edits.dll",
        &["--format", "json"],
    );
    assert!(!json.contains("\"inlined\""), "{json}");
}

/// Every changed instruction of every prebuilt edit comes from the inlined function that LLVM's
/// symbolizer names, or from none.
#[test]
fn inlined_callees_are_those_of_llvm() {
    let Some(symbolizer) = symbolizer() else {
        return;
    };
    let mut compared = 0;
    for machine in ["x64", "arm64"] {
        let root = prebuilt("edits").join(machine);
        for entry in std::fs::read_dir(&root).expect("a folder") {
            let variant = entry.expect("an entry").file_name();
            let variant = variant.to_str().expect("a plain name");
            if variant.contains("base") {
                continue;
            }
            let json = ["--format", "json"];
            let json = diff(&root, ["base", variant], "hp_edits.dll", &json);
            let report: Value = serde_json::from_str(&json).expect("JSON");
            for function in report["functions"]["changed"]
                .as_array()
                .expect("functions")
            {
                let sides = [
                    ("removed", "base", "base_rva", "base_offset"),
                    ("added", variant, "fixed_rva", "fixed_offset"),
                ];
                for (tag, side, rva, offset) in sides {
                    let lines = function["diff"].as_array().into_iter().flatten();
                    let places: Vec<u64> = lines
                        .filter(|line| line["tag"] == tag)
                        .filter_map(|line| Some(function[rva].as_u64()? + line[offset].as_u64()?))
                        .collect();
                    let expected = inlined_by(symbolizer, &root.join(side), &places);
                    let inlined = function["inlined"].as_array().into_iter().flatten();
                    let found: BTreeMap<String, u64> = inlined
                        .filter_map(|inlined| {
                            let name = inlined["name"].as_str()?.to_owned();
                            Some((name, inlined[tag].as_u64().filter(|count| *count > 0)?))
                        })
                        .collect();
                    assert_eq!(found, expected, "{machine} {variant} {tag}: {function:#}");
                    compared += found.len();
                }
            }
        }
    }
    assert!(compared >= 6, "{compared}");
}

/// LLVM's symbolizer, where it is installed.
fn symbolizer() -> Option<&'static str> {
    ["llvm-symbolizer-22", "llvm-symbolizer-19"]
        .into_iter()
        .find(|tool| Command::new(tool).arg("--version").output().is_ok())
}

/// How many of these places came from which inlined function.
fn inlined_by(symbolizer: &str, folder: &Path, places: &[u64]) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    if places.is_empty() {
        return counts;
    }
    let output = Command::new(symbolizer)
        .args(["--relative-address", "--output-style=JSON", "--obj"])
        .arg(folder.join("hp_edits.dll"))
        .args(places.iter().map(|place| format!("{place:#x}")))
        .output()
        .expect("the symbolizer runs");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let answers = serde_json::Deserializer::from_str(&text).into_iter::<Value>();
    let mut answered = 0;
    for answer in answers.flat_map(|answer| match answer.expect("JSON") {
        Value::Array(answers) => answers,
        answer => vec![answer],
    }) {
        answered += 1;
        // The innermost frame first; the last one is the function itself.
        let frames = answer["Symbol"].as_array().expect("frames");
        if let [innermost, _, ..] = &frames[..] {
            let name = innermost["FunctionName"].as_str().expect("a name");
            *counts.entry(name.to_owned()).or_insert(0) += 1;
        }
    }
    assert_eq!(answered, places.len());
    counts
}

/// Names can hold anything. In no form do they become markup or orders to a terminal.
#[test]
fn hostile_names() {
    let folder = tempfile::tempdir().expect("a folder");
    for (side, from) in [("base", "base"), ("fixed", "inlined-callee")] {
        let to = folder.path().join(side);
        std::fs::create_dir(&to).expect("a folder");
        for file in ["hp_edits.dll", "hp_edits.pdb"] {
            let bytes = std::fs::read(prebuilt("edits/x64").join(from).join(file)).expect("a file");
            let bytes = replaced(bytes, b"blend_pair", b"<script>&'");
            let bytes = replaced(bytes, b"blend_bytes", b"\x1b[31m\"</b>x");
            std::fs::write(to.join(file), bytes).expect("a written file");
        }
    }
    let report = |rest: &[&str]| diff(folder.path(), ["base", "fixed"], "hp_edits.dll", rest);
    let page = report(&["--format", "html"]);
    assert!(page.contains("&lt;script&gt;&amp;&#39;"), "{page}");
    assert!(page.contains("\\u{1b}[31m&quot;&lt;/b&gt;x"), "{page}");
    for raw in ["<script>&", "</b>x", "\u{1b}"] {
        assert!(!page.contains(raw), "{raw:?} in the page");
    }
    let text = report(&["--color", "always"]);
    assert!(text.contains("<script>&'"), "{text}");
    assert!(text.contains("\\u{1b}[31m\"</b>x"), "{text}");
    assert_sarif(&report(&["--format", "sarif"]));
}

#[track_caller]
fn replaced(mut bytes: Vec<u8>, from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut at = 0;
    while let Some(next) = bytes[at..]
        .windows(from.len())
        .position(|found| found == from)
    {
        at += next;
        bytes[at..at + to.len()].copy_from_slice(to);
    }
    assert!(at > 0, "nothing to replace");
    bytes
}

/// Colour is for terminals, unless it is asked for; it never reaches a file.
#[test]
fn colour() {
    let root = prebuilt("edits/x64");
    let report = |rest: &[&str]| diff(&root, ["base", "struct"], "hp_edits.dll", rest);
    assert!(!report(&[]).contains('\u{1b}'));
    assert!(report(&["--color", "always"]).contains("\u{1b}[1m"));
    assert!(!report(&["--color", "never"]).contains('\u{1b}'));
}

/// What the text leaves out of a long list it counts, and `--verbose` shows; what refuses a change
/// by one rule stays apart from what was waived.
#[test]
fn findings_left_out_are_counted() {
    // Two libraries that share next to nothing.
    let of = |rest: &[&str]| {
        let mut command = Command::new(program());
        command.arg("diff").args(rest);
        command.arg(prebuilt("edits/x64/base/hp_edits.dll"));
        command.arg(prebuilt("rules/x64/every/hp_rules.dll"));
        run(command).stdout
    };
    let json: Value = serde_json::from_str(&of(&["--format", "json"])).expect("JSON");
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for finding in json["refusals"].as_array().expect("a list") {
        *counts
            .entry(finding["code"].as_str().expect("a code"))
            .or_default() += 1;
    }
    let is_finding = |line: &&str| {
        let word = line.split_whitespace().next();
        line.starts_with("  ")
            && word.is_some_and(|word| ["refuse", "warn", "note"].contains(&word))
    };
    let verbose = of(&["--verbose"]);
    let (short, mut hidden_at_all) = (of(&[]), 0);
    for (code, count) in counts {
        let lines = |text: &str| {
            text.lines()
                .filter(is_finding)
                .filter(|it| it.contains(code))
                .count()
        };
        let more = format!("{code}  ... ");
        let hidden = short
            .lines()
            .find_map(|line| line.trim_start().strip_prefix(&more));
        let hidden = hidden.map_or(0, |rest| {
            let number = rest.split(' ').next().expect("a number");
            number.parse::<usize>().expect("a number")
        });
        assert_eq!(lines(&verbose), count, "{code}");
        assert_eq!(lines(&short) + hidden, count, "{code}");
        hidden_at_all += hidden;
    }
    assert!(hidden_at_all > 0, "nothing was left out:\n{short}");
}
