//! The report of `diff` for people: a summary to be read in ten seconds, then the details.
//!
//! On a terminal, lines are cut to its width; in files and pipes, and with `--verbose`, nothing is.
//! Names come from the images and can hold anything: see [`plain`].

use std::fmt::Write;

use anstyle::{AnsiColor, Style};
use hpbuild_differ::explain::{Contents, DiffLine, Differences, Tag};
use hpbuild_differ::judge::{Refusal, Severity};
use hpbuild_differ::report::{FunctionReport, ImageReport, Report, Verdict};

use super::{cut, plain, short_name};

/// Lines of an instruction diff that are shown of each function unless all are asked for.
const LINES: usize = 24;
/// Changed instructions that are shown where only line numbers changed, unless all are asked for.
const NUMBERS: usize = 4;
/// Functions of a list that are shown unless all are asked for.
const FUNCTIONS: usize = 12;
/// Inlined functions that are named of each function unless all are asked for.
const INLINED: usize = 6;
/// Lines of a terminal that one finding may take.
const FINDING: usize = 6;
/// Findings of one rule that are shown unless all are asked for: those that refuse, and others.
const FINDINGS: (usize, usize) = (12, 4);

const BOLD: Style = Style::new().bold();
const RED: Style = AnsiColor::Red.on_default();
const GREEN: Style = AnsiColor::Green.on_default();
const YELLOW: Style = AnsiColor::Yellow.on_default();
const DIM: Style = Style::new().dimmed();

/// How much is shown.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Detail {
    /// Whether nothing is left out.
    pub(crate) verbose: bool,
    /// Columns of a line.
    pub(crate) width: usize,
}

impl Detail {
    /// Everything, or what is useful in lines of this many columns.
    pub(crate) fn new(verbose: bool, width: Option<usize>) -> Self {
        let width = width.filter(|_| !verbose).unwrap_or(usize::MAX);
        Self { verbose, width }
    }
}

/// The report as text.
pub(crate) fn text(report: &Report, detail: Detail) -> String {
    let mut out = String::new();
    write(&mut out, report, detail).expect("writing to a string does not fail");
    out
}

fn write(out: &mut String, report: &Report, detail: Detail) -> std::fmt::Result {
    summary(out, report, detail)?;
    list_refusals(out, &report.refusals, detail)?;
    let (changed, lines): (Vec<_>, Vec<_>) = report
        .functions
        .changed
        .iter()
        .partition(|function| function.in_patch);
    for function in &changed {
        changed_function(out, function, detail)?;
    }
    list(
        out,
        "added",
        &report.functions.added.iter().collect::<Vec<_>>(),
        detail,
    )?;
    list(
        out,
        "removed",
        &report.functions.removed.iter().collect::<Vec<_>>(),
        detail,
    )?;
    list(
        out,
        "not told apart",
        &report.functions.unmatched.iter().collect::<Vec<_>>(),
        detail,
    )?;
    line_numbers(out, &lines, detail)?;
    if !report.data.is_empty() {
        writeln!(out, "\n{BOLD}data changed{BOLD:#}")?;
        for data in &report.data {
            let name = short_name(&plain(&data.name), detail.width.saturating_sub(20));
            writeln!(out, "  {name}  {} bytes", data.fixed_size)?;
            differences(out, "", &data.differences, detail)?;
        }
    }
    Ok(())
}

fn summary(out: &mut String, report: &Report, detail: Detail) -> std::fmt::Result {
    let (style, verdict) = match report.verdict {
        Verdict::Same => (BOLD, "same"),
        Verdict::Hotpatchable => (GREEN.bold(), "hotpatchable"),
        Verdict::Refused => (RED.bold(), "refused"),
    };
    let functions = &report.functions;
    write!(out, "{style}{verdict}{style:#}")?;
    let mut codes: Vec<_> = report.refusals.iter().filter(|r| r.refuses()).collect();
    codes.dedup_by_key(|refusal| refusal.code);
    if let Some((first, rest)) = codes.split_first() {
        write!(out, " by {}", first.code)?;
        for refusal in rest {
            write!(out, ", {}", refusal.code)?;
        }
    }
    writeln!(out)?;
    for (side, image) in [("base ", &report.base), ("fixed", &report.fixed)] {
        if let Some(image) = image {
            writeln!(out, "  {side}  {}", describe(image, detail))?;
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

fn describe(image: &ImageReport, detail: Detail) -> String {
    let symbols = match image.symbols {
        // What everybody expects needs no words.
        "pdb" => String::new(),
        other => format!(", symbols from {other}"),
    };
    let facts = format!(
        "  {}, time stamp {:#010x}, checksum {:#010x}{symbols}",
        image.machine, image.time_stamp, image.checksum
    );
    // The end of a path tells more than its start.
    let path = plain(&image.path);
    let room = detail
        .width
        .saturating_sub(facts.chars().count() + 9)
        .max(20);
    let hidden = path.chars().count().saturating_sub(room);
    let path: String = match hidden {
        0 => path.into_owned(),
        _ => std::iter::once('\u{2026}')
            .chain(path.chars().skip(hidden + 1))
            .collect(),
    };
    path + &facts
}

/// Findings, the weightiest first, each on a line.
pub(crate) fn refusal_list(refusals: &[Refusal]) -> String {
    let mut out = String::new();
    list_refusals(&mut out, refusals, Detail::new(true, None))
        .expect("writing to a string does not fail");
    out
}

fn list_refusals(out: &mut String, refusals: &[Refusal], detail: Detail) -> std::fmt::Result {
    let rule = |refusal: &Refusal| (refusal.severity, refusal.code, refusal.waived.is_some());
    let mut shown = refusals.iter().collect::<Vec<_>>();
    shown.sort_by_key(|refusal| rule(refusal));
    if !shown.is_empty() {
        writeln!(out)?;
    }
    for of_rule in shown.chunk_by(|one, other| rule(one) == rule(other)) {
        let limit = match of_rule[0].severity {
            _ if detail.verbose => usize::MAX,
            Severity::Refuse => FINDINGS.0,
            Severity::Warn | Severity::Note => FINDINGS.1,
        };
        for refusal in of_rule.iter().take(limit) {
            write_refusal(out, refusal, detail)?;
        }
        let hidden = of_rule.len().saturating_sub(limit);
        if hidden > 0 {
            let code = of_rule[0].code;
            writeln!(
                out,
                "         {code}  {DIM}... {hidden} more, see --verbose{DIM:#}"
            )?;
        }
    }
    Ok(())
}

fn write_refusal(out: &mut String, refusal: &Refusal, detail: Detail) -> std::fmt::Result {
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
    let mut text = plain(&refusal.message).into_owned();
    if !refusal.evidence.is_empty() {
        write!(text, " ({})", plain(&refusal.evidence))?;
    }
    if let Some(reason) = &refusal.waived {
        write!(text, "; allowed: {}", plain(reason))?;
    }
    // Findings are to be read whole, and names in them may be long beyond use.
    let text = cut(&text, detail.width.saturating_mul(FINDING));
    writeln!(out, "  {style}{word:6}{style:#} {}  {text}", refusal.code)
}

fn changed_function(
    out: &mut String,
    function: &FunctionReport,
    detail: Detail,
) -> std::fmt::Result {
    let kinds: Vec<String> = function.kinds.iter().map(kind_name).collect();
    let mut facts = String::new();
    if let (Some(before), Some(after)) = (function.base_size, function.fixed_size) {
        write!(facts, "  {before} -> {after} bytes")?;
    }
    write!(facts, "  {}", kinds.join(", "))?;
    let compiland = function.compiland.as_deref().map(plain);
    let compiland = compiland.unwrap_or_default();
    let name = short_name(&plain(&function.display), detail.width);
    write!(out, "\n{BOLD}{name}{BOLD:#}")?;
    // What does not fit beside the name goes below it.
    let length = [&*name, &*facts, &*compiland]
        .iter()
        .map(|part| part.chars().count())
        .sum::<usize>();
    if length.saturating_add(2) > detail.width {
        writeln!(out)?;
    }
    write!(out, "{facts}")?;
    if !compiland.is_empty() {
        write!(out, "  {DIM}{compiland}{DIM:#}")?;
    }
    writeln!(out)?;
    also_called(out, function, detail)?;
    let limit = if detail.verbose { usize::MAX } else { INLINED };
    for part in function.parts.iter().take(limit) {
        let name = short_name(&plain(part), detail.width.saturating_sub(30));
        writeln!(out, "  its part {BOLD}{name}{BOLD:#} changed, see there")?;
    }
    let hidden = function.parts.len().saturating_sub(limit);
    if hidden > 0 {
        writeln!(out, "  {DIM}... {hidden} more parts, see --verbose{DIM:#}")?;
    }
    let changed = changed_lines(function);
    for inlined in function.inlined.iter().take(limit) {
        let (name, count) = (plain(&inlined.name), inlined.removed + inlined.added);
        let name = short_name(&name, detail.width.saturating_sub(50));
        writeln!(
            out,
            "  inlined {BOLD}{name}{BOLD:#}: {count} of {changed} changed instructions are its"
        )?;
    }
    let hidden = function.inlined.len().saturating_sub(limit);
    if hidden > 0 {
        writeln!(
            out,
            "  {DIM}... {hidden} more inlined, see --verbose{DIM:#}"
        )?;
    }
    let limit = if detail.verbose { usize::MAX } else { LINES };
    for line in function.diff.iter().take(limit) {
        diff_line(out, line, detail.width)?;
    }
    let hidden = function.diff.len().saturating_sub(limit);
    if hidden > 0 {
        writeln!(out, "  {DIM}... {hidden} more lines, see --verbose{DIM:#}")?;
    }
    contents(out, function, detail)
}

/// What differs in the data that a function reaches.
fn contents(out: &mut String, function: &FunctionReport, detail: Detail) -> std::fmt::Result {
    for Contents {
        name,
        differences: of,
        ..
    } in &function.contents
    {
        differences(out, &short_name(&plain(name), detail.width / 2), of, detail)?;
    }
    if function.more_contents > 0 {
        let more = function.more_contents;
        writeln!(
            out,
            "    {DIM}... {more} more references to data that differs{DIM:#}"
        )?;
    }
    Ok(())
}

/// Entries that differ, each on a line, or on two where that is too narrow.
fn differences(
    out: &mut String,
    name: &str,
    differences: &Differences,
    detail: Detail,
) -> std::fmt::Result {
    for entry in &differences.entries {
        let place = format!("{name}{}", plain(&entry.place));
        let (base, fixed) = (plain(&entry.base), plain(&entry.fixed));
        let place = cut(place.trim_start(), detail.width.saturating_sub(5));
        let parts = [&*place, &*base, &*fixed];
        let length = parts.iter().map(|part| part.chars().count()).sum::<usize>();
        if length.saturating_add(10) <= detail.width {
            let colon = if place.is_empty() { "" } else { ": " };
            writeln!(
                out,
                "    {place}{colon}{RED}{base}{RED:#} -> {GREEN}{fixed}{GREEN:#}"
            )?;
        } else {
            let width = detail.width.saturating_sub(8);
            let (base, fixed) = (cut(&base, width), cut(&fixed, width));
            writeln!(out, "    {place}:")?;
            writeln!(out, "      {RED}- {base}{RED:#}")?;
            writeln!(out, "      {GREEN}+ {fixed}{GREEN:#}")?;
        }
    }
    if let Some(more) = more(differences) {
        writeln!(out, "    {DIM}... {more}{DIM:#}")?;
    }
    Ok(())
}

/// How many entries are not told, in words.
pub(crate) fn more(differences: &Differences) -> Option<String> {
    let (more, at_least) = (differences.more, differences.at_least);
    let verb = if more == 1 {
        "entry differs"
    } else {
        "entries differ"
    };
    match (more, at_least) {
        (0, false) => None,
        (0, true) => Some("the rest was not looked at".into()),
        (_, false) => Some(format!("{more} more {verb}")),
        (_, true) => Some(format!("at least {more} more {verb}")),
    }
}

/// Further names of a function's body: each short, so that a long one hides no other.
fn also_called(out: &mut String, function: &FunctionReport, detail: Detail) -> std::fmt::Result {
    if function.aliases.is_empty() {
        return Ok(());
    }
    let names = function.aliases.iter().map(|name| plain(name));
    let names: Vec<String> = names
        .map(|name| short_name(&name, detail.width / 2))
        .collect();
    let aliases = format!("  also called {}", names.join(", "));
    writeln!(out, "{}", cut(&aliases, detail.width))
}

/// How many instructions of either side changed.
pub(crate) fn changed_lines(function: &FunctionReport) -> usize {
    let changed = |line: &&DiffLine| matches!(line.tag, Tag::Removed | Tag::Added);
    function.diff.iter().filter(changed).count()
}

/// A kind of change as reports name it.
pub(crate) fn kind_name(kind: &hpbuild_differ::compare::Kind) -> String {
    let value = serde_json::to_value(kind).unwrap_or_default();
    value.as_str().unwrap_or_default().to_owned()
}

fn diff_line(out: &mut String, line: &DiffLine, width: usize) -> std::fmt::Result {
    let offset = |offset: Option<u32>| offset.map_or(String::new(), |at| format!("+{at:#x}"));
    let (base, fixed) = (offset(line.base_offset), offset(line.fixed_offset));
    // 23 columns stand before the instruction.
    let text = plain(&line.text);
    let text = cut(&text, width.saturating_sub(23));
    match line.tag {
        Tag::Same => writeln!(out, "    {base:>8} {fixed:>8}  {text}"),
        Tag::Removed => writeln!(out, "  {RED}- {base:>8} {:>8}  {text}{RED:#}", ""),
        Tag::Added => writeln!(out, "  {GREEN}+ {:>8} {fixed:>8}  {text}{GREEN:#}", ""),
        Tag::Gap => writeln!(out, "  {DIM}...{DIM:#}"),
    }
}

/// Functions in which a number equals the line it stands in, before and after: what is written as a
/// number may do so, too, and so it is shown.
fn line_numbers(
    out: &mut String,
    functions: &[&FunctionReport],
    detail: Detail,
) -> std::fmt::Result {
    let title = "only line numbers changed, not in the patch";
    let shown = if detail.verbose {
        usize::MAX
    } else {
        FUNCTIONS
    };
    let limit = if detail.verbose { usize::MAX } else { NUMBERS };
    for (index, function) in functions.iter().take(shown).enumerate() {
        if index == 0 {
            list(out, title, &[function], detail)?;
        } else {
            item(out, function, detail)?;
        }
        let is_changed = |line: &&DiffLine| matches!(line.tag, Tag::Removed | Tag::Added);
        for line in function.diff.iter().filter(is_changed).take(limit) {
            diff_line(out, line, detail.width)?;
        }
        let hidden = changed_lines(function).saturating_sub(limit);
        if hidden > 0 {
            writeln!(out, "  {DIM}... {hidden} more lines, see --verbose{DIM:#}")?;
        }
        contents(out, function, detail)?;
    }
    more_functions(out, functions.len().saturating_sub(shown))
}

fn item(out: &mut String, function: &FunctionReport, detail: Detail) -> std::fmt::Result {
    let size = function.fixed_size.or(function.base_size).unwrap_or(0);
    let name = plain(&function.display);
    let name = short_name(&name, detail.width.saturating_sub(20));
    writeln!(out, "  {name}  {size} bytes")
}

fn more_functions(out: &mut String, hidden: usize) -> std::fmt::Result {
    if hidden > 0 {
        writeln!(out, "  {DIM}... {hidden} more, see --verbose{DIM:#}")?;
    }
    Ok(())
}

fn list(
    out: &mut String,
    title: &str,
    functions: &[&FunctionReport],
    detail: Detail,
) -> std::fmt::Result {
    if functions.is_empty() {
        return Ok(());
    }
    writeln!(out, "\n{BOLD}{title}{BOLD:#}")?;
    let limit = if detail.verbose {
        usize::MAX
    } else {
        FUNCTIONS
    };
    for function in functions.iter().take(limit) {
        item(out, function, detail)?;
    }
    more_functions(out, functions.len().saturating_sub(limit))
}
