//! One report of all results.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::MergedArguments;
use super::exec::{Ending, PairResult, SCHEMA as RESULT_SCHEMA, stem};
use super::merged::{self, Merged, MergedPair};
use super::plan::{Plan, Problem};
use crate::cli::ReportFormat;
use crate::commands::explain;
use crate::failure::{Failure, Outcome};
use crate::{input, output, render};

pub(super) fn run(
    plan: &Plan,
    results: &[PathBuf],
    arguments: &MergedArguments,
) -> Result<Outcome, Failure> {
    let mut pairs = Vec::new();
    for index in 0..plan.pairs.len() {
        pairs.push(pair(plan, index, results)?);
    }
    let merged = Merged::new(plan, pairs);
    let path = arguments.output.as_deref();
    let text = match arguments.format {
        ReportFormat::Text => merged::text(&merged, output::width(path)),
        ReportFormat::Json => render::json(&merged),
        ReportFormat::Sarif => sarif(plan, &merged, results)?,
        ReportFormat::Html => {
            let near = path.and_then(|path| pages(path, results));
            merged::page(&merged, |index| {
                let name = format!("{}.html", stem(index, &plan.pairs[index]));
                near.filter(|folder| folder.join(&name).is_file())
                    .map(|_| name)
            })
        }
    };
    output::deliver(&text, path)?;
    let worst = merged.pairs.iter().map(|pair| pair.ending).max();
    let patched = merged
        .pairs
        .iter()
        .any(|pair| pair.ending == Ending::Hotpatchable);
    outcome(worst, patched, &merged.problems)
}

/// The worst of all: an error, a refusal, something to patch, nothing.
pub(super) fn outcome(
    worst: Option<Ending>,
    patched: bool,
    problems: &[Problem],
) -> Result<Outcome, Failure> {
    Ok(match worst {
        _ if !problems.is_empty() => Outcome::Partial,
        Some(Ending::Error) => Outcome::Partial,
        Some(Ending::Refused) => Outcome::Refused,
        _ if patched => Outcome::Done,
        _ => Outcome::Same,
    })
}

/// What the pair at `index` gave: the first result that any folder has.
fn pair(plan: &Plan, index: usize, results: &[PathBuf]) -> Result<MergedPair, Failure> {
    let path = &plan.pairs[index];
    let Some(file) = existing(results, &stem(index, path), "json") else {
        return Ok(MergedPair::failed(path, "not compared: no result".into()));
    };
    let fail = |error: &dyn std::fmt::Display| Failure::new(format!("{}: {error}", file.display()));
    let result: PairResult =
        serde_json::from_str(&input::read_text(&file)?).map_err(|error| fail(&error))?;
    if result.schema != RESULT_SCHEMA || result.path != *path {
        let (schema, found) = (render::plain(&result.schema), render::plain(&result.path));
        let expected = render::plain(path);
        return Err(fail(&format!(
            "expected {RESULT_SCHEMA} of {expected}, found {schema} of {found}"
        )));
    }
    Ok(MergedPair::of(result))
}

fn existing(results: &[PathBuf], stem: &str, extension: &str) -> Option<PathBuf> {
    let name = format!("{stem}.{extension}");
    results
        .iter()
        .map(|folder| folder.join(&name))
        .find(|path| path.is_file())
}

/// The folder of results that a page at `path` stands in.
fn pages<'r>(path: &Path, results: &'r [PathBuf]) -> Option<&'r Path> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let folder = folder.canonicalize().ok()?;
    results
        .iter()
        .map(PathBuf::as_path)
        .find(|results| results.canonicalize().is_ok_and(|known| known == folder))
}

/// The results of all pairs in one run.
fn sarif(plan: &Plan, merged: &Merged, folders: &[PathBuf]) -> Result<String, Failure> {
    let mut results = Vec::new();
    for (index, path) in plan.pairs.iter().enumerate() {
        let Some(file) = existing(folders, &stem(index, path), "sarif") else {
            continue;
        };
        let mut log: Value = serde_json::from_str(&input::read_text(&file)?)
            .map_err(|error| Failure::new(format!("{}: {error}", file.display())))?;
        if let Some(Value::Array(found)) = log.pointer_mut("/runs/0/results").map(Value::take) {
            results.extend(found);
        }
    }
    let errors = merged.errors();
    let mut log = render::sarif::log(&explain::rules(), results);
    if let Some(Value::Object(run)) = log.pointer_mut("/runs/0") {
        run.insert("invocations".into(), render::sarif::invocations(&errors));
    }
    Ok(render::json(&log))
}
