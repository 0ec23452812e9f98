//! The report of `test` for people.

use std::fmt::Write;

use anstyle::{AnsiColor, Style};
use hpbuild_harness::report::{
    CallReport, Change, GeneratedReport, Outcome, Report, SessionReport, Status, Verdict,
};

const BOLD: Style = Style::new().bold();
const RED: Style = AnsiColor::Red.on_default().bold();
const GREEN: Style = AnsiColor::Green.on_default();
const DIM: Style = Style::new().dimmed();

/// The report as text; `verbose` shows every call.
pub(crate) fn text(report: &Report, verbose: bool) -> String {
    let mut out = String::new();
    write(&mut out, report, verbose).expect("writing to a string does not fail");
    out
}

fn write(out: &mut String, report: &Report, verbose: bool) -> std::fmt::Result {
    let (style, word) = match report.verdict {
        Verdict::Passed => (GREEN.bold(), "passed"),
        Verdict::Failed => (RED, "failed"),
        Verdict::Incomplete => (BOLD, "incomplete"),
    };
    writeln!(out, "{style}{word}{style:#}")?;
    let (base, patch) = (&report.base, &report.patch);
    writeln!(
        out,
        "  base   {}, time stamp {:#010x}, checksum {:#010x}",
        base.machine, base.time_date_stamp, base.checksum
    )?;
    writeln!(
        out,
        "  patch  sequence {}, {} redirected, {} records to reach the base",
        patch.sequence, patch.functions, patch.reverse_records
    )?;
    if report.backend != "native" {
        writeln!(
            out,
            "  this host cannot run the image: checked on a model, nothing was called"
        )?;
    }
    for step in &report.steps {
        status(out, step.status, &step.name)?;
        lines(out, &step.details, DIM)?;
        lines(out, &step.failures, RED)?;
    }
    for session in &report.sessions {
        write_session(out, session, verbose)?;
    }
    for generated in &report.generated {
        write_generated(out, generated)?;
    }
    Ok(())
}

fn status(out: &mut String, status: Status, name: &str) -> std::fmt::Result {
    let (style, word) = match status {
        Status::Passed => (GREEN, "ok"),
        Status::Failed => (RED, "FAIL"),
        Status::Skipped => (DIM, "skip"),
    };
    writeln!(out, "  {style}{word:4}{style:#}  {name}")
}

fn lines(out: &mut String, lines: &[String], style: Style) -> std::fmt::Result {
    for line in lines {
        writeln!(out, "        {style}{line}{style:#}")?;
    }
    Ok(())
}

fn write_session(out: &mut String, session: &SessionReport, verbose: bool) -> std::fmt::Result {
    status(out, session.status, &session.name)?;
    for call in &session.calls {
        // A call that the patch does not change is of no interest unless it went wrong.
        let changed = !alike(&call.before, &call.after);
        if verbose || changed || call.status == Status::Failed {
            write_call(out, call)?;
        }
    }
    Ok(())
}

/// Whether two outcomes look the same to a person: pointers differ from process to process, so of
/// changed bytes only the places count.
fn alike(one: &Outcome, other: &Outcome) -> bool {
    match (one, other) {
        (
            Outcome::Returned {
                value: a,
                changed: b,
                overruns: c,
            },
            Outcome::Returned {
                value: d,
                changed: e,
                overruns: f,
            },
        ) => {
            let places = |changes: &[Change]| -> Vec<_> {
                changes
                    .iter()
                    .map(|change| (change.buffer.clone(), change.length / 8))
                    .collect()
            };
            a == d && c == f && places(b) == places(e)
        }
        _ => one == other,
    }
}

fn write_call(out: &mut String, call: &CallReport) -> std::fmt::Result {
    writeln!(out, "        {BOLD}{}{BOLD:#}", call.function)?;
    writeln!(out, "          base     {}", outcome(&call.before))?;
    writeln!(out, "          patched  {}", outcome(&call.after))?;
    if let Some(fixed) = &call.fixed {
        writeln!(out, "          fixed    {}", outcome(fixed))?;
    }
    if !alike(&call.reverted, &call.before) {
        writeln!(out, "          reverted {}", outcome(&call.reverted))?;
    }
    lines(out, &call.failures, RED)
}

fn outcome(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Returned {
            value,
            changed,
            overruns,
        } => {
            let mut text = format!("returned {value}");
            for change in changed {
                let (buffer, at) = (&change.buffer, change.at);
                let _ = write!(text, "; {buffer}+{at:#x} = {}", change.bytes);
            }
            for buffer in overruns {
                let _ = write!(text, "; wrote behind the end of {buffer}");
            }
            text
        }
        Outcome::Fault(fault) => format!("fault: {fault}"),
        Outcome::NotRun => "not run".into(),
    }
}

fn write_generated(out: &mut String, generated: &GeneratedReport) -> std::fmt::Result {
    status(
        out,
        generated.status,
        &format!("generated calls of {}", generated.function),
    )?;
    let against = if generated.against_fixed {
        ", all equal to the fixed image"
    } else {
        ""
    };
    writeln!(
        out,
        "        {DIM}{} calls (seed {}): {} answered differently, faults {} before and {} after{}{DIM:#}",
        generated.cases,
        generated.seed,
        generated.different,
        generated.base_faults,
        generated.patched_faults,
        if generated.status == Status::Passed {
            against
        } else {
            ""
        },
    )?;
    lines(out, &generated.failures, RED)
}
