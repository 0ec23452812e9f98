//! The report of `diff` as SARIF 2.1.0, the form in which CI systems take findings and show them
//! beside the source.
//!
//! Every finding of a rule is a result, and every changed, added or removed function is a note. A
//! result stands at the source line that the PDB's line records give; where there is none, the
//! image is the artifact and the decorated name of the function the logical location. Names of
//! fields are those of the standard (OASIS SARIF 2.1.0, 3.13 ff.).

use std::collections::BTreeMap;

use hpbuild_differ::judge::{Refusal, Rule, Severity};
use hpbuild_differ::report::{FunctionReport, Report};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::diff::kind_name;

/// Entries of data that a message tells.
const ENTRIES: usize = 2;
const SCHEMA: &str = "https://json.schemastore.org/sarif-2.1.0.json";

/// Rules of the report itself, behind those of judging: what it calls them, and what they mean.
const NOTES: [(&str, &str, &str); 3] = [
    (
        "function-changed",
        "A function changed",
        "The fixed build's function means something else than the base's. A patch carries it, \
         unless only numbers of source lines changed.",
    ),
    (
        "function-added",
        "A function is new",
        "The base has no such function. A patch carries it where a changed function reaches it.",
    ),
    (
        "function-removed",
        "A function is gone",
        "The fixed build has no such function. The base keeps it.",
    ),
];

/// The report as SARIF; `rules` are all rules there are, and files below `source_root` are named
/// relative to it.
pub(crate) fn text(report: &Report, rules: &[Rule], source_root: Option<&str>) -> String {
    super::json(&log(rules, results(report, rules, source_root)))
}

/// A log of one run with these results.
pub(crate) fn log(rules: &[Rule], results: Vec<Value>) -> Value {
    let mut driver = json!({
        "name": "hpbuild",
        "version": env!("CARGO_PKG_VERSION"),
        "semanticVersion": env!("CARGO_PKG_VERSION"),
        "rules": descriptors(rules),
    });
    // Where the sources are published, once they are: `repository` of the workspace.
    if let Some(uri) = option_env!("CARGO_PKG_REPOSITORY").filter(|uri| uri.contains("://")) {
        driver["informationUri"] = uri.into();
    }
    json!({
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": driver },
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    })
}

fn descriptors(rules: &[Rule]) -> Vec<Value> {
    let judged = rules.iter().map(|rule| {
        let help = format!("{}\n\nWhat to do: {}", rule.why, rule.remedy);
        descriptor(rule.code, rule.title, rule.why, &help, level(rule.severity))
    });
    let notes = NOTES
        .iter()
        .map(|(id, title, why)| descriptor(id, title, why, why, "note"));
    judged.chain(notes).collect()
}

fn descriptor(id: &str, title: &str, why: &str, help: &str, level: &str) -> Value {
    json!({
        "id": id,
        "shortDescription": { "text": title },
        "fullDescription": { "text": why },
        "help": { "text": help },
        "defaultConfiguration": { "level": level },
    })
}

const fn level(severity: Severity) -> &'static str {
    match severity {
        Severity::Refuse => "error",
        Severity::Warn => "warning",
        Severity::Note => "note",
    }
}

/// How a run over many pairs went: errors are notifications of the tool, each with its path.
pub(crate) fn invocations(errors: &[(&str, &str)]) -> Value {
    let notification = |(path, reason): &(&str, &str)| {
        json!({
            "level": "error",
            "message": { "text": reason },
            "locations": [{
                "physicalLocation": { "artifactLocation": { "uri": encoded(path) } },
            }],
        })
    };
    let notifications: Vec<Value> = errors.iter().map(notification).collect();
    json!([{
        "executionSuccessful": errors.is_empty(),
        "toolExecutionNotifications": notifications,
    }])
}

/// The results of one report: findings, then functions.
pub(crate) fn results(report: &Report, rules: &[Rule], source_root: Option<&str>) -> Vec<Value> {
    let mut results = Results::new(report, rules, source_root);
    for refusal in &report.refusals {
        results.finding(refusal);
    }
    for function in &report.functions.changed {
        let message = changed_message(function);
        results.function("function-changed", function, message);
    }
    for function in &report.functions.added {
        let message = format!("{} is new", function.display);
        results.function("function-added", function, message);
    }
    for function in &report.functions.removed {
        let message = format!("{} is gone", function.display);
        results.function("function-removed", function, message);
    }
    results.done
}

fn changed_message(function: &FunctionReport) -> String {
    let kinds: Vec<String> = function.kinds.iter().map(kind_name).collect();
    let mut message = format!("{} changed: {}", function.display, kinds.join(", "));
    if !function.inlined.is_empty() {
        let names: Vec<&str> = function.inlined.iter().map(|i| i.name.as_str()).collect();
        message.push_str(&format!("; in what was inlined from {}", names.join(", ")));
    }
    let entries = function.contents.iter();
    let entries =
        entries.flat_map(|it| it.differences.entries.iter().map(move |entry| (it, entry)));
    for (contents, entry) in entries.take(ENTRIES) {
        let (name, place) = (&contents.display, &entry.place);
        message.push_str(&format!(
            "; {name}{place}: {} -> {}",
            entry.base, entry.fixed
        ));
    }
    if !function.in_patch {
        message.push_str("; not in the patch");
    }
    message
}

/// Results, made one after another.
struct Results<'a> {
    /// Index of each rule in the list of descriptors.
    rules: BTreeMap<&'a str, usize>,
    /// Functions by every name that a finding may use.
    functions: BTreeMap<&'a str, &'a FunctionReport>,
    /// The base and the fixed image as the user named them.
    images: [Option<&'a str>; 2],
    source_root: Option<String>,
    /// How often each fingerprint was given, so that equal findings stay apart.
    seen: BTreeMap<String, u32>,
    done: Vec<Value>,
}

impl<'a> Results<'a> {
    fn new(report: &'a Report, rules: &'a [Rule], source_root: Option<&str>) -> Self {
        let ids = rules.iter().map(|rule| rule.code);
        let ids = ids.chain(NOTES.iter().map(|(id, ..)| *id));
        let lists = [
            &report.functions.removed,
            &report.functions.added,
            &report.functions.changed,
        ];
        let mut functions = BTreeMap::new();
        for function in lists.into_iter().flatten() {
            functions.insert(function.name.as_str(), function);
            functions.insert(function.display.as_str(), function);
            if let Some(decorated) = &function.decorated {
                functions.insert(decorated, function);
            }
        }
        Self {
            rules: ids.enumerate().map(|(index, id)| (id, index)).collect(),
            functions,
            images: [&report.base, &report.fixed]
                .map(|image| image.as_ref().map(|image| image.path.as_str())),
            source_root: source_root.map(normal),
            seen: BTreeMap::new(),
            done: Vec::new(),
        }
    }

    fn finding(&mut self, refusal: &'a Refusal) {
        let mut message = refusal.message.clone();
        if !refusal.evidence.is_empty() {
            message.push_str(&format!(" ({})", refusal.evidence));
        }
        let function = self.functions.get(refusal.name.as_str()).copied();
        let name = function.map_or(refusal.name.as_str(), linkage_name);
        let location = self.location(function, name, false);
        let mut result = self.result(refusal.code, level(refusal.severity), name, message);
        result.insert("locations".into(), json!([location]));
        if let Some(reason) = &refusal.waived {
            let suppression = json!({
                "kind": "external",
                "status": "accepted",
                "justification": reason,
            });
            result.insert("suppressions".into(), json!([suppression]));
        }
        self.done.push(result.into());
    }

    fn function(&mut self, rule: &str, function: &'a FunctionReport, message: String) {
        let name = linkage_name(function);
        let location = self.location(Some(function), name, function.fixed_rva.is_none());
        let mut result = self.result(rule, "note", name, message);
        result.insert("locations".into(), json!([location]));
        self.done.push(result.into());
    }

    fn result(
        &mut self,
        rule: &str,
        level: &str,
        name: &str,
        message: String,
    ) -> Map<String, Value> {
        let mut result = Map::new();
        result.insert("ruleId".into(), rule.into());
        if let Some(index) = self.rules.get(rule) {
            result.insert("ruleIndex".into(), (*index).into());
        }
        result.insert("level".into(), level.into());
        result.insert("message".into(), json!({ "text": message }));
        let fingerprint = self.fingerprint(rule, name);
        result.insert(
            "partialFingerprints".into(),
            json!({ "hpbuildFinding/v1": fingerprint }),
        );
        result
    }

    /// A finding is the same in the next run when rule, image and name are the same; addresses and
    /// numbers in messages are not, nor is the folder of the build.
    fn fingerprint(&mut self, rule: &str, name: &str) -> String {
        let image = self.images.iter().flatten().next().copied();
        let image = image.and_then(|path| path.rsplit(['/', '\\']).next());
        let key = format!("{rule}\0{}\0{name}", image.unwrap_or_default());
        let ordinal = self.seen.entry(key.clone()).or_insert(0);
        let digest = Sha256::digest(format!("{key}\0{ordinal}"));
        *ordinal += 1;
        digest[..16]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }

    fn location(&self, function: Option<&FunctionReport>, name: &str, in_base: bool) -> Value {
        let mut location = Map::new();
        let source = function.and_then(|function| function.source.as_ref());
        let [base, fixed] = self.images;
        let image = if in_base { base } else { fixed };
        let physical = match (source, image) {
            (Some(source), _) => Some(json!({
                "artifactLocation": self.artifact(&source.file),
                "region": { "startLine": source.line },
            })),
            (None, Some(path)) => Some(json!({ "artifactLocation": { "uri": uri(path) } })),
            (None, None) => None,
        };
        location.extend(physical.map(|physical| ("physicalLocation".to_owned(), physical)));
        if !name.is_empty() {
            let mut logical = Map::new();
            logical.insert("fullyQualifiedName".into(), name.into());
            if let Some(function) = function {
                logical.insert("kind".into(), "function".into());
                logical.insert("name".into(), function.display.clone().into());
                if let Some(decorated) = &function.decorated {
                    logical.insert("decoratedName".into(), decorated.clone().into());
                }
            }
            location.insert("logicalLocations".into(), json!([logical]));
        }
        location.into()
    }

    fn artifact(&self, file: &str) -> Value {
        let file = normal(file);
        if let Some(root) = &self.source_root
            && let Some(relative) = below(&file, root)
        {
            return json!({ "uri": encoded(relative), "uriBaseId": "SRCROOT" });
        }
        json!({ "uri": uri(&file) })
    }
}

/// The name by which a linker knows the function.
fn linkage_name(function: &FunctionReport) -> &str {
    function.decorated.as_deref().unwrap_or(&function.name)
}

/// A path with `/` between its parts, whatever system wrote it.
fn normal(path: &str) -> String {
    path.replace('\\', "/")
}

/// What remains of `file` below the folder `root`. Paths with a drive know no case.
fn below<'f>(file: &'f str, root: &str) -> Option<&'f str> {
    let root = root.trim_end_matches('/');
    let (head, rest) = file.split_at_checked(root.len())?;
    let same = head == root || (has_drive(root) && head.eq_ignore_ascii_case(root));
    rest.strip_prefix('/')
        .filter(|rest| same && !rest.is_empty())
}

fn has_drive(path: &str) -> bool {
    matches!(path.as_bytes(), [letter, b':', ..] if letter.is_ascii_alphabetic())
}

/// The URI of a file: absolute where the path is.
fn uri(path: &str) -> String {
    let path = normal(path);
    if has_drive(&path) {
        let (drive, rest) = path.split_at(2);
        format!("file:///{drive}{}", encoded(rest))
    } else if let Some(share) = path.strip_prefix("//") {
        format!("file://{}", encoded(share))
    } else if path.starts_with('/') {
        format!("file://{}", encoded(&path))
    } else {
        encoded(&path)
    }
}

/// Everything but what RFC 3986 leaves unreserved, and `/`, as percent escapes.
pub(crate) fn encoded(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            out.push(byte.into());
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris() {
        assert_eq!(uri(r"C:\a b\<c>.c"), "file:///C:/a%20b/%3Cc%3E.c");
        assert_eq!(uri("/src/a.c"), "file:///src/a.c");
        assert_eq!(uri(r"\\server\share\a.c"), "file://server/share/a.c");
        assert_eq!(uri("x64/a:b%.dll"), "x64/a%3Ab%25.dll");
    }

    #[test]
    fn below_a_root() {
        assert_eq!(below("C:/Src/a.c", "c:/src/"), Some("a.c"));
        assert_eq!(below("/src/a.c", "/SRC"), None);
        assert_eq!(below("/srcs/a.c", "/src"), None);
        assert_eq!(below("/src", "/src"), None);
        assert_eq!(below("é", "a"), None);
    }
}
