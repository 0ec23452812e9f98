//! `hpbuild build`: the patch image.

use std::fmt::Write;
use std::path::Path;
use std::time::Instant;

use hpbuild_differ::judge::Refusal;
use hpbuild_differ::report::Verdict;
use hpbuild_differ::{Diff, Report, Stage};
use hpbuild_metadata::{Base, Rva, Sequence};
use hpbuild_packager::extract::{Options, Previous};
use hpbuild_packager::{NoPatch, Patch};
use serde::Serialize;

use super::describe::describe;
use super::diff::{compare, policy};
use super::package::DESCRIPTION_SUFFIX;
use crate::cli::{BuildArguments, Format};
use crate::failure::{Failure, Outcome};
use crate::{input, output, render};

/// What was built, or why nothing was.
#[derive(Debug, Serialize)]
struct Built {
    schema: &'static str,
    verdict: Verdict,
    /// The file that was written; absent where none was.
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<String>,
    /// The name the system expects the patch of this base to have.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sequence: Option<u32>,
    functions: Vec<Redirected>,
    refusals: Vec<Refusal>,
}

/// A base function that the patch replaces.
#[derive(Debug, Serialize)]
struct Redirected {
    name: String,
    base_rva: Rva<Base>,
}

pub(crate) fn run(arguments: &BuildArguments) -> Result<Outcome, Failure> {
    let mut stages = Vec::new();
    let policy = policy(&arguments.pair)?;
    let diff = match compare(&arguments.pair, policy.clone(), &mut stages)? {
        Ok(diff) => diff,
        Err(refusals) => return refuse(arguments, refusals),
    };
    let mut report = Report::new(&diff, arguments.with_line_numbers);
    match report.verdict {
        Verdict::Refused => return refuse(arguments, report.refusals),
        Verdict::Same => {
            deliver(arguments, &nothing(Verdict::Same, report.refusals))?;
            return Ok(Outcome::Same);
        }
        Verdict::Hotpatchable => {}
    }
    let start = Instant::now();
    let patch = match build(&diff, &options(arguments)?) {
        Ok(patch) => patch,
        Err(NoPatch::Refused(found)) => {
            let mut refusals = report.refusals;
            refusals.extend(found.iter().map(hpbuild_packager::Refusal::judged));
            return refuse(arguments, refusals);
        }
        Err(NoPatch::Faulty(faults)) => return Err(faulty(&faults)),
    };
    stages.push(Stage {
        name: "build",
        time: start.elapsed(),
    });
    let found = policy.allow_of_older_patch(patch.findings.clone());
    let is_refused = found.iter().any(Refusal::refuses);
    report.refusals.extend(found);
    report.refusals.sort_by_key(|refusal| refusal.code);
    if is_refused {
        return refuse(arguments, report.refusals);
    }
    let description = describe(&diff, &patch, &report.refusals, &arguments.output)?;
    let mut beside = arguments.output.clone().into_os_string();
    beside.push(DESCRIPTION_SUFFIX);
    let beside = Path::new(&beside);
    let name = hpbuild_packager::write::pdb_name(&patch.parts);
    let pdb = arguments.output.with_file_name(name);
    for path in [&arguments.output, beside, &pdb] {
        output::check(path)?;
    }
    output::write_file(&arguments.output, &patch.file)?;
    output::write_file(beside, render::json(&description).as_bytes())?;
    if let Some(bytes) = &patch.pdb {
        output::write_file(&pdb, bytes)?;
    }
    if arguments.time {
        super::diff::print_stages(&stages);
    }
    deliver(
        arguments,
        &built(
            arguments.shown.as_ref().unwrap_or(&arguments.output),
            &patch,
            report.refusals,
        ),
    )?;
    Ok(Outcome::Done)
}

/// All stages of the packager.
pub(crate) fn build(diff: &Diff, options: &Options) -> Result<Patch, NoPatch> {
    hpbuild_packager::build(diff, options)
}

fn options(arguments: &BuildArguments) -> Result<Options, Failure> {
    let previous = arguments
        .previous
        .as_deref()
        .map(read_previous)
        .transpose()?;
    let follows = previous
        .as_ref()
        .and_then(|older| older.sequence.get().checked_add(1));
    let sequence = match arguments.sequence {
        Some(number) => Some(number.get()),
        None => follows,
    };
    Ok(Options {
        sequence: sequence.and_then(Sequence::new).unwrap_or(Sequence::FIRST),
        with_line_numbers: arguments.with_line_numbers,
        previous,
    })
}

fn read_previous(path: &Path) -> Result<Previous, Failure> {
    let fail = |error: &dyn std::fmt::Display| Failure::new(format!("{}: {error}", path.display()));
    let file = input::read(path)?;
    Previous::read(&file).map_err(|fault| fail(&fault))
}

/// The verifier found something: no image is better than a wrong one.
pub(crate) fn faulty(faults: &[hpbuild_packager::verify::Fault]) -> Failure {
    let mut message =
        "the patch image does not hold what it should, and was not written".to_owned();
    for fault in faults {
        let _ = write!(message, "\n  {fault}");
    }
    Failure::new(message).hint("this is a mistake in hpbuild; please report it with both builds")
}

fn nothing(verdict: Verdict, refusals: Vec<Refusal>) -> Built {
    Built {
        schema: "hpbuild-build-1",
        verdict,
        output: None,
        name: None,
        size: None,
        sequence: None,
        functions: Vec::new(),
        refusals,
    }
}

fn built(path: &Path, patch: &Patch, refusals: Vec<Refusal>) -> Built {
    let redirected = |redirect: &hpbuild_packager::piece::Redirect| Redirected {
        name: redirect.name.to_string(),
        base_rva: redirect.base,
    };
    Built {
        output: Some(path.display().to_string()),
        name: Some(patch.name.clone()),
        size: Some(patch.file.len()),
        sequence: Some(patch.parts.sequence.get()),
        functions: patch.parts.redirects.iter().map(redirected).collect(),
        ..nothing(Verdict::Hotpatchable, refusals)
    }
}

fn refuse(arguments: &BuildArguments, refusals: Vec<Refusal>) -> Result<Outcome, Failure> {
    deliver(arguments, &nothing(Verdict::Refused, refusals))?;
    Ok(Outcome::Refused)
}

fn deliver(arguments: &BuildArguments, built: &Built) -> Result<(), Failure> {
    if arguments.quiet {
        return Ok(());
    }
    output::print(&match arguments.format {
        Format::Text => text(built),
        Format::Json => render::json(built),
    })
}

fn text(built: &Built) -> String {
    let mut out = String::new();
    match (&built.output, built.verdict) {
        (Some(path), _) => {
            let size = built.size.unwrap_or_default();
            let sequence = built.sequence.unwrap_or_default();
            let count = built.functions.len();
            let functions = if count == 1 { "function" } else { "functions" };
            let _ = writeln!(
                out,
                "wrote {path}: {count} {functions}, {size} bytes, sequence {sequence}"
            );
            for function in &built.functions {
                let _ = writeln!(
                    out,
                    "  {:>10}  {}",
                    function.base_rva.to_string(),
                    function.name
                );
            }
        }
        (None, Verdict::Same) => out.push_str("same: nothing to patch, nothing written\n"),
        (None, _) => out.push_str("refused: nothing written\n"),
    }
    out.push_str(&render::diff::refusal_list(
        &built.refusals,
        output::width(None),
    ));
    out
}
