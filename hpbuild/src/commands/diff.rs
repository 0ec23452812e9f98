//! `hpbuild diff`: what changed, and can it be hotpatched.

use std::path::Path;

use hpbuild_differ::image::SymbolSource;
use hpbuild_differ::judge::{Policy, Refusal};
use hpbuild_differ::report::Verdict;
use hpbuild_differ::{Diff, Differ, Report, Stage};

use super::verdict;
use crate::cli::{DiffArguments, OutputArguments, PairArguments, ReportFormat};
use crate::failure::{Failure, Outcome};
use crate::{input, output, render};

pub(crate) fn run(arguments: &DiffArguments) -> Result<Outcome, Failure> {
    let mut stages = Vec::new();
    let report = match compare(&arguments.pair, policy(&arguments.pair)?, &mut stages)? {
        Ok(diff) => {
            let report = verdict::report(&diff, arguments.with_line_numbers, &mut stages);
            // The process ends with the report, and what it holds with the process: freeing every
            // name of two images one by one takes longer than all of judging.
            std::mem::forget(diff);
            report
        }
        Err(refusals) => Report::refused(refusals),
    };
    deliver(&report, &arguments.output)?;
    if arguments.output.time {
        print_stages(&stages);
    }
    Ok(match report.verdict {
        Verdict::Same => Outcome::Same,
        Verdict::Hotpatchable => Outcome::Done,
        Verdict::Refused => Outcome::Refused,
    })
}

/// Reads and compares the pair the user named.
pub(crate) fn compare(
    pair: &PairArguments,
    policy: Policy,
    stages: &mut Vec<Stage>,
) -> Result<Result<Box<Diff>, Vec<Refusal>>, Failure> {
    let differ = Differ {
        base: pair.base(),
        fixed: pair.fixed(),
        symbols: pair.symbols.paths(),
        policy,
    };
    for side in [&differ.base, &differ.fixed] {
        input::note(&side.pe);
    }
    let outcome = hpbuild_differ::diff(&differ, stages)?;
    if let Ok(diff) = &outcome {
        let symbols = [&diff.base.symbols, &diff.fixed.symbols];
        for path in symbols.into_iter().filter_map(SymbolSource::pdb) {
            input::note(path);
        }
    }
    Ok(outcome)
}

/// The policy that the user named, or one that allows nothing.
pub(super) fn policy(pair: &PairArguments) -> Result<Policy, Failure> {
    let policy = pair.policy.as_deref().map(read_policy).transpose()?;
    Ok(policy.unwrap_or_default())
}

pub(super) fn read_policy(path: &Path) -> Result<Policy, Failure> {
    let fail = |error: &dyn std::fmt::Display| Failure::new(format!("{}: {error}", path.display()));
    Policy::parse(&input::read_text(path)?).map_err(|error| fail(&error))
}

fn deliver(report: &Report, arguments: &OutputArguments) -> Result<(), Failure> {
    if arguments.quiet && arguments.output.is_none() {
        return Ok(());
    }
    let source_root = arguments.source_root.as_deref();
    let text = match arguments.format {
        ReportFormat::Text => {
            let width = output::width(arguments.output.as_deref());
            let detail = render::diff::Detail::new(arguments.verbose, width);
            render::diff::text(report, detail)
        }
        ReportFormat::Json => render::json(report),
        ReportFormat::Sarif => render::sarif::text(report, &super::explain::rules(), source_root),
        ReportFormat::Html => render::html::page(report),
    };
    output::deliver(&text, arguments.output.as_deref())
}

/// Times go to standard error: they differ from run to run, and reports do not.
pub(crate) fn print_stages(stages: &[Stage]) {
    for stage in stages {
        let time = stage.time.as_secs_f64() * 1e3;
        anstream::eprintln!("{time:>10.1} ms  {}", stage.name);
    }
    if let Some(bytes) = peak_memory() {
        anstream::eprintln!("{:>10.1} MB  peak memory", bytes as f64 / 1e6);
    }
}

/// The most memory that this process held so far, where the system says.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}
