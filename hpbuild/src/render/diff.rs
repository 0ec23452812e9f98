//! The report of `diff` for people: a summary to be read in ten seconds, then the details.

use std::fmt::Write;

use anstyle::{AnsiColor, Style};
use hpbuild_differ::explain::{DiffLine, Tag};
use hpbuild_differ::judge::{Refusal, Severity};
use hpbuild_differ::report::{FunctionReport, ImageReport, Report, Verdict};

/// Lines of an instruction diff that are shown of each function unless all are asked for.
const LINES: usize = 24;
/// Functions of a list that are shown unless all are asked for.
const FUNCTIONS: usize = 12;

const BOLD: Style = Style::new().bold();
const RED: Style = AnsiColor::Red.on_default();
const GREEN: Style = AnsiColor::Green.on_default();
const YELLOW: Style = AnsiColor::Yellow.on_default();
const DIM: Style = Style::new().dimmed();

/// The report as text; `verbose` leaves nothing out.
pub(crate) fn text(report: &Report, verbose: bool) -> String {
    let mut out = String::new();
    write(&mut out, report, verbose).expect("writing to a string does not fail");
    out
}

fn write(out: &mut String, report: &Report, verbose: bool) -> std::fmt::Result {
    summary(out, report)?;
    list_refusals(out, &report.refusals)?;
    let (changed, lines): (Vec<_>, Vec<_>) = report
        .functions
        .changed
        .iter()
        .partition(|function| function.in_patch);
    for function in &changed {
        changed_function(out, function, verbose)?;
    }
    list(
        out,
        "added",
        &report.functions.added.iter().collect::<Vec<_>>(),
        verbose,
    )?;
    list(
        out,
        "removed",
        &report.functions.removed.iter().collect::<Vec<_>>(),
        verbose,
    )?;
    list(
        out,
        "not told apart",
        &report.functions.unmatched.iter().collect::<Vec<_>>(),
        verbose,
    )?;
    list(
        out,
        "only line numbers changed, not in the patch",
        &lines,
        verbose,
    )?;
    if !report.data.is_empty() {
        writeln!(out, "\n{BOLD}data changed{BOLD:#}")?;
        for data in &report.data {
            writeln!(out, "  {}  {} bytes", data.name, data.fixed_size)?;
        }
    }
    Ok(())
}

fn summary(out: &mut String, report: &Report) -> std::fmt::Result {
    let (style, verdict) = match report.verdict {
        Verdict::Same => (BOLD, "same"),
        Verdict::Hotpatchable => (GREEN.bold(), "hotpatchable"),
        Verdict::Refused => (RED.bold(), "refused"),
    };
    let functions = &report.functions;
    writeln!(out, "{style}{verdict}{style:#}")?;
    for (side, image) in [("base ", &report.base), ("fixed", &report.fixed)] {
        if let Some(image) = image {
            writeln!(out, "  {side}  {}", describe(image))?;
        }
    }
    if report.base.is_none() {
        return Ok(());
    }
    let patched = functions
        .changed
        .iter()
        .filter(|function| function.in_patch)
        .count();
    let lines = functions.changed.len() - patched;
    write!(
        out,
        "  {} changed, {} added, {} removed, {} same ({} moved)",
        patched,
        functions.added.len(),
        functions.removed.len(),
        functions.same,
        functions.moved
    )?;
    if lines > 0 {
        write!(out, ", {lines} by line numbers only")?;
    }
    if !functions.unmatched.is_empty() {
        write!(out, ", {} not told apart", functions.unmatched.len())?;
    }
    if !report.unknown.is_empty() {
        write!(out, ", {} references not understood", report.unknown.len())?;
    }
    writeln!(out)
}

fn describe(image: &ImageReport) -> String {
    let symbols = match image.symbols {
        // What everybody expects needs no words.
        "pdb" => String::new(),
        other => format!(", symbols from {other}"),
    };
    format!(
        "{}  {}, time stamp {:#010x}, checksum {:#010x}{symbols}",
        image.path, image.machine, image.time_stamp, image.checksum
    )
}

/// Findings, the weightiest first, each on a line.
pub(crate) fn refusal_list(refusals: &[Refusal]) -> String {
    let mut out = String::new();
    list_refusals(&mut out, refusals).expect("writing to a string does not fail");
    out
}

fn list_refusals(out: &mut String, refusals: &[Refusal]) -> std::fmt::Result {
    let mut shown = refusals.iter().collect::<Vec<_>>();
    shown.sort_by_key(|refusal| (refusal.severity, refusal.code));
    if !shown.is_empty() {
        writeln!(out)?;
    }
    for refusal in shown {
        write_refusal(out, refusal)?;
    }
    Ok(())
}

fn write_refusal(out: &mut String, refusal: &Refusal) -> std::fmt::Result {
    let style = match refusal.severity {
        Severity::Refuse if refusal.waived.is_some() => DIM,
        Severity::Refuse => RED.bold(),
        Severity::Warn => YELLOW,
        Severity::Note => DIM,
    };
    let word = if refusal.waived.is_some() {
        "waived"
    } else {
        refusal.severity.name()
    };
    let (code, message) = (refusal.code, &refusal.message);
    write!(out, "  {style}{word:6}{style:#} {code}  {message}")?;
    if !refusal.evidence.is_empty() {
        write!(out, " ({})", refusal.evidence)?;
    }
    if let Some(reason) = &refusal.waived {
        write!(out, "; allowed: {reason}")?;
    }
    writeln!(out)
}

fn changed_function(
    out: &mut String,
    function: &FunctionReport,
    verbose: bool,
) -> std::fmt::Result {
    let kinds: Vec<String> = function.kinds.iter().map(kind_name).collect();
    write!(out, "\n{BOLD}{}{BOLD:#}", function.display)?;
    if let (Some(before), Some(after)) = (function.base_size, function.fixed_size) {
        write!(out, "  {before} -> {after} bytes")?;
    }
    write!(out, "  {}", kinds.join(", "))?;
    if let Some(compiland) = &function.compiland {
        write!(out, "  {DIM}{compiland}{DIM:#}")?;
    }
    writeln!(out)?;
    if !function.aliases.is_empty() {
        writeln!(out, "  also called {}", function.aliases.join(", "))?;
    }
    let limit = if verbose { usize::MAX } else { LINES };
    for line in function.diff.iter().take(limit) {
        diff_line(out, line)?;
    }
    let hidden = function.diff.len().saturating_sub(limit);
    if hidden > 0 {
        writeln!(out, "  {DIM}... {hidden} more lines, see --verbose{DIM:#}")?;
    }
    Ok(())
}

/// A kind of change as reports name it.
pub(crate) fn kind_name(kind: &hpbuild_differ::compare::Kind) -> String {
    let value = serde_json::to_value(kind).unwrap_or_default();
    value.as_str().unwrap_or_default().to_owned()
}

fn diff_line(out: &mut String, line: &DiffLine) -> std::fmt::Result {
    let offset = |offset: Option<u32>| offset.map_or(String::new(), |at| format!("+{at:#x}"));
    let (base, fixed) = (offset(line.base_offset), offset(line.fixed_offset));
    match line.tag {
        Tag::Same => writeln!(out, "    {base:>8} {fixed:>8}  {}", line.text),
        Tag::Removed => writeln!(out, "  {RED}- {base:>8} {:>8}  {}{RED:#}", "", line.text),
        Tag::Added => writeln!(
            out,
            "  {GREEN}+ {:>8} {fixed:>8}  {}{GREEN:#}",
            "", line.text
        ),
        Tag::Gap => writeln!(out, "  {DIM}...{DIM:#}"),
    }
}

fn list(
    out: &mut String,
    title: &str,
    functions: &[&FunctionReport],
    verbose: bool,
) -> std::fmt::Result {
    if functions.is_empty() {
        return Ok(());
    }
    writeln!(out, "\n{BOLD}{title}{BOLD:#}")?;
    let limit = if verbose { usize::MAX } else { FUNCTIONS };
    for function in functions.iter().take(limit) {
        let size = function.fixed_size.or(function.base_size).unwrap_or(0);
        writeln!(out, "  {}  {size} bytes", function.display)?;
    }
    let hidden = functions.len().saturating_sub(limit);
    if hidden > 0 {
        writeln!(out, "  {DIM}... {hidden} more, see --verbose{DIM:#}")?;
    }
    Ok(())
}
