//! The published schemas, in the hands of a validator that knows nothing of our types.

use std::path::Path;

use jsonschema::{Registry, Validator};
use serde_json::{Value, json};

use crate::batch::Trees;
use crate::reports::{diff, prebuilt};

/// Schemas by the names of their files.
struct Schemas {
    registry: Registry<'static>,
}

impl Schemas {
    fn new() -> Self {
        let diff = schema("diff-1");
        let id = diff["$id"].as_str().expect("an id").to_owned();
        let registry = Registry::new().add(id, diff).expect("a schema");
        let registry = registry.prepare().expect("a schema by itself");
        Self { registry }
    }

    fn validator(&self, name: &str) -> Validator {
        let options = jsonschema::options().with_registry(&self.registry);
        options.build(&schema(name)).expect("a schema")
    }
}

fn schema(name: &str) -> Value {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/schema");
    let path = folder.join(format!("{name}.json"));
    let text = std::fs::read_to_string(path).expect("a published schema");
    let schema: Value = serde_json::from_str(&text).expect("JSON");
    assert!(jsonschema::meta::is_valid(&schema), "{name}");
    schema
}

#[track_caller]
fn assert_valid(validator: &Validator, value: &Value) {
    let errors: Vec<_> = validator
        .iter_errors(value)
        .map(|error| format!("{error} at {}", error.instance_path()))
        .collect();
    assert!(errors.is_empty(), "{errors:#?}\n{value:#}");
}

/// What the schema must object to: the document with another value at one place.
#[track_caller]
fn assert_objects(validator: &Validator, value: &Value, at: &str, other: Value) {
    let mut broken = value.clone();
    let place = broken.pointer_mut(at);
    *place.unwrap_or_else(|| panic!("nothing at {at}: {value:#}")) = other;
    assert!(!validator.is_valid(&broken), "{at} can be anything");
}

#[test]
fn reports_of_diff() {
    let schemas = Schemas::new();
    let validator = schemas.validator("diff-1");
    let (mut all, mut contents) = (0, 0);
    for group in ["edits", "patterns", "exceptions", "reached", "rules"] {
        let root = prebuilt(group).join("x64");
        for entry in std::fs::read_dir(&root).expect("a folder") {
            let variant = entry.expect("an entry").file_name();
            let variant = variant.to_str().expect("a plain name");
            let image = format!("hp_{group}.dll");
            if !root.join("base").join(&image).is_file() || !root.join(variant).is_dir() {
                continue;
            }
            let text = diff(&root, ["base", variant], &image, &["--format", "json"]);
            let report: Value = serde_json::from_str(&text).expect("JSON");
            assert_valid(&validator, &report);
            all += 1;
            contents += text.matches("\"contents\"").count();
        }
    }
    assert!(all > 50 && contents > 20, "{all} {contents}");
    let sides = ["plain", "plain"];
    let unread = prebuilt("refused-x86/x86");
    let text = diff(&unread, sides, "hp_refused.dll", &["--format", "json"]);
    let report: Value = serde_json::from_str(&text).expect("JSON");
    assert_valid(&validator, &report);
    assert_objects(&validator, &report, "/schema", json!("hpbuild-diff-2"));
    assert_objects(&validator, &report, "/verdict", json!("perhaps"));
    assert_objects(&validator, &report, "/refusals/0/code", json!(1));
}

#[test]
fn files_of_batch() {
    let schemas = Schemas::new();
    let trees = Trees::new();
    trees
        .pair("a", "immediate")
        .pair("b", "initial-value")
        .pair("c", "string");
    let image = std::fs::read(prebuilt("edits/x64/base/hp_edits.dll")).expect("an image");
    trees.file("base/gone.dll", &image);
    trees.file("fixed/new.dll", &image);
    trees.file("base/same.dll", &image);
    trees.file("fixed/same.dll", &image);
    trees.file("base/half.dll", &image);
    trees.file("fixed/half.dll", &image[..image.len() / 2]);
    trees.file("base/other.dll", &image);
    trees.file("fixed/other.dll", b"MZ no image");
    let arguments = ["plan", "base", "fixed", "-o", "plan.json"];
    trees.batch(arguments).ends_with(0);
    trees.batch(["exec", "plan.json", "-o", "results"]);
    let merged = ["merge", "plan.json", "results", "--format", "json"];
    trees
        .batch([&merged[..], &["-o", "all.json"]].concat())
        .ends_with(2);

    let (plan, validator) = (trees.json("plan.json"), schemas.validator("batch-plan-1"));
    assert_valid(&validator, &plan);
    assert_objects(&validator, &plan, "/schema", json!("hpbuild-batch-1"));
    assert_objects(&validator, &plan, "/pairs/0", json!({}));
    assert_objects(&validator, &plan, "/problems/0/reason", json!(null));

    let validator = schemas.validator("batch-result-1");
    let pairs = plan["pairs"].as_array().expect("pairs");
    for (index, pair) in pairs.iter().enumerate() {
        let path = pair.as_str().expect("a path");
        let name = path.rsplit('/').next().expect("a name");
        let result = trees.json(&format!("results/{:06}-{name}.json", index + 1));
        assert_valid(&validator, &result);
        let (ending, other) = match result["ending"].as_str() {
            Some("error") => ("error", "same"),
            _ => ("no error", "error"),
        };
        // Errors have words, and nothing else has.
        assert_objects(&validator, &result, "/ending", json!(other));
        if ending == "no error" && result["report"] != Value::Null {
            assert_objects(&validator, &result, "/report/functions/same", json!("one"));
        }
    }

    let (all, validator) = (trees.json("all.json"), schemas.validator("batch-1"));
    assert_valid(&validator, &all);
    let endings = ["same", "hotpatchable", "refused", "error"];
    let found = |ending: &&str| {
        let mut pairs = all["pairs"].as_array().into_iter().flatten();
        pairs.any(|pair| pair["ending"] == **ending)
    };
    assert!(endings.iter().all(found), "{all:#}");
    assert_objects(&validator, &all, "/schema", json!("hpbuild-batch-2"));
    assert_objects(&validator, &all, "/pairs/0/changed", json!(-1));
    let refused = all["pairs"].as_array().expect("pairs").iter();
    let mut refused = refused.enumerate();
    let refused = refused.find(|(_, pair)| pair["ending"] == "refused");
    let (index, _) = refused.expect("a refused pair");
    let finding = format!("/pairs/{index}/refusals/0/severity");
    assert_objects(&validator, &all, &finding, json!("none"));
}
