//! The report of `diff` for people: a summary to be read in ten seconds, then the details.
//!
//! On a terminal, lines are folded to its width, and what is long beyond use is shortened; in files and
//! pipes neither is done, and with `--verbose` nothing is shortened. Names come from the images and can hold anything: see [`plain`].

use std::fmt::Write;

use anstyle::{AnsiColor, Style};
use hpbuild_differ::explain::{Contents, DiffLine, Differences, Tag};
use hpbuild_differ::judge::{Refusal, Severity};
use hpbuild_differ::report::{FunctionReport, ImageReport, Report, Verdict};

use super::fold::{folded, visible};
use super::{cut, plain, short_name};

/// Lines of an instruction diff that are shown of each function unless all are asked for.
const LINES: usize = 24;
/// Changed instructions that are shown where only line numbers changed, unless all are asked for.
const NUMBERS: usize = 4;
/// Functions of a list that are shown unless all are asked for.
const FUNCTIONS: usize = 12;
/// Inlined functions that are named of each function unless all are asked for.
const INLINED: usize = 6;
/// Columns of a terminal that names of two lines are measured by, if it has no more.
const USUAL: usize = 80;
/// Columns that the words of a finding stand behind, and those of an instruction.
const WORDS: (usize, usize) = (16, 23);
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
    /// Characters of a name.
    pub(crate) room: usize,
}

impl Detail {
    /// Everything, or what is useful, in lines of this many columns.
    pub(crate) fn new(verbose: bool, width: Option<usize>) -> Self {
        let room = width.filter(|_| !verbose);
        Self {
            verbose,
            width: width.unwrap_or(usize::MAX),
            room: room.map_or(usize::MAX, |width| 2 * width.max(USUAL)),
        }
    }

    /// Characters of a finding or of a list in one line.
    fn words(self) -> usize {
        self.room.saturating_mul(3)
    }
}

/// Writes a line, folded where it is too long.
fn line(out: &mut String, hang: usize, detail: Detail, text: &str) -> std::fmt::Result {
    writeln!(out, "{}", folded(text, hang, detail.width))
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
            let name = short_name(&plain(&data.display), detail.room);
            line(
                out,
                4,
                detail,
                &format!("  {name}  {} bytes", data.fixed_size),
            )?;
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
    let mut first_line = format!("{style}{verdict}{style:#}");
    let mut codes: Vec<_> = report.refusals.iter().filter(|r| r.refuses()).collect();
    codes.dedup_by_key(|refusal| refusal.code);
    if let Some((first, rest)) = codes.split_first() {
        write!(first_line, " by {}", first.code)?;
        for refusal in rest {
            write!(first_line, ", {}", refusal.code)?;
        }
    }
    line(out, 4, detail, &first_line)?;
    for (side, image) in [("base ", &report.base), ("fixed", &report.fixed)] {
        if let Some(image) = image {
            line(out, 9, detail, &format!("  {side}  {}", describe(image)))?;
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
    let mut counts = format!(
        "  {} changed, {} added, {} removed, {} same ({} moved)",
        patched,
        functions.added.len(),
        functions.removed.len(),
        functions.same,
        functions.moved
    );
    if lines > 0 {
        write!(counts, ", {lines} by line numbers only")?;
    }
    if !functions.unmatched.is_empty() {
        write!(counts, ", {} not told apart", functions.unmatched.len())?;
    }
    if !report.unknown.is_empty() {
        write!(
            counts,
            ", {} references not understood",
            report.unknown.len()
        )?;
    }
    line(out, 4, detail, &counts)
}

fn describe(image: &ImageReport) -> String {
    let symbols = match image.symbols {
        // What everybody expects needs no words.
        "pdb" => String::new(),
        other => format!(", symbols from {other}"),
    };
    let (path, machine) = (plain(&image.path), image.machine);
    let (time, checksum) = (image.time_stamp, image.checksum);
    format!("{path}  {machine}, time stamp {time:#010x}, checksum {checksum:#010x}{symbols}")
}

/// Findings, the weightiest first, each on a line of this many columns.
pub(crate) fn refusal_list(refusals: &[Refusal], width: Option<usize>) -> String {
    let mut out = String::new();
    list_refusals(&mut out, refusals, Detail::new(true, width))
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
            let text = format!("         {code}  {DIM}... {hidden} more, see --verbose{DIM:#}");
            line(out, WORDS.0, detail, &text)?;
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
    let text = cut(&text, detail.words());
    let text = format!("  {style}{word:6}{style:#} {}  {text}", refusal.code);
    line(out, WORDS.0, detail, &text)
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
    if !compiland.is_empty() {
        write!(facts, "  {DIM}{compiland}{DIM:#}")?;
    }
    let name = short_name(&plain(&function.display), detail.room);
    let name = format!("{BOLD}{name}{BOLD:#}");
    writeln!(out)?;
    // What does not fit beside the name goes below it.
    if visible(&name) + visible(&facts) > detail.width {
        line(out, 4, detail, &name)?;
        line(out, 4, detail, &facts)?;
    } else {
        writeln!(out, "{name}{facts}")?;
    }
    also_called(out, function, detail)?;
    let limit = if detail.verbose { usize::MAX } else { INLINED };
    for part in function.parts.iter().take(limit) {
        let name = short_name(&plain(part), detail.room);
        let text = format!("  its part {BOLD}{name}{BOLD:#} changed, see there");
        line(out, 4, detail, &text)?;
    }
    let hidden = function.parts.len().saturating_sub(limit);
    if hidden > 0 {
        writeln!(out, "  {DIM}... {hidden} more parts, see --verbose{DIM:#}")?;
    }
    let changed = changed_lines(function);
    for inlined in function.inlined.iter().take(limit) {
        let (name, count) = (plain(&inlined.name), inlined.removed + inlined.added);
        let name = short_name(&name, detail.room);
        let text = format!(
            "  inlined {BOLD}{name}{BOLD:#}: {count} of {changed} changed instructions are its"
        );
        line(out, 4, detail, &text)?;
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
        diff_line(out, line, detail)?;
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
        display: name,
        differences: of,
        ..
    } in &function.contents
    {
        differences(out, &short_name(&plain(name), detail.room / 2), of, detail)?;
    }
    if function.more_contents > 0 {
        let more = function.more_contents;
        let text = format!("    {DIM}... {more} more references to data that differs{DIM:#}");
        line(out, 6, detail, &text)?;
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
        let place = cut(place.trim_start(), detail.room);
        let parts = [&*place, &*base, &*fixed];
        let length = parts.iter().map(|part| part.chars().count()).sum::<usize>();
        if length.saturating_add(10) <= detail.width {
            let colon = if place.is_empty() { "" } else { ": " };
            writeln!(
                out,
                "    {place}{colon}{RED}{base}{RED:#} -> {GREEN}{fixed}{GREEN:#}"
            )?;
        } else {
            let (base, fixed) = (cut(&base, detail.room), cut(&fixed, detail.room));
            line(out, 6, detail, &format!("    {place}:"))?;
            line(out, 8, detail, &format!("      {RED}- {base}{RED:#}"))?;
            line(out, 8, detail, &format!("      {GREEN}+ {fixed}{GREEN:#}"))?;
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
        .map(|name| short_name(&name, detail.room / 2))
        .collect();
    let aliases = format!("  also called {}", names.join(", "));
    line(out, 4, detail, &cut(&aliases, detail.words()))
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

fn diff_line(out: &mut String, of: &DiffLine, detail: Detail) -> std::fmt::Result {
    let offset = |offset: Option<u32>| offset.map_or(String::new(), |at| format!("+{at:#x}"));
    let (base, fixed) = (offset(of.base_offset), offset(of.fixed_offset));
    let text = plain(&of.text);
    let text = cut(&text, detail.room);
    let text = match of.tag {
        Tag::Same => format!("    {base:>8} {fixed:>8}  {text}"),
        Tag::Removed => format!("  {RED}- {base:>8} {:>8}  {text}{RED:#}", ""),
        Tag::Added => format!("  {GREEN}+ {:>8} {fixed:>8}  {text}{GREEN:#}", ""),
        Tag::Gap => format!("  {DIM}...{DIM:#}"),
    };
    line(out, WORDS.1, detail, &text)
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
    heading(out, title, functions, detail)?;
    for function in functions.iter().take(shown) {
        item(out, function, detail)?;
        let is_changed = |line: &&DiffLine| matches!(line.tag, Tag::Removed | Tag::Added);
        for line in function.diff.iter().filter(is_changed).take(limit) {
            diff_line(out, line, detail)?;
        }
        let hidden = changed_lines(function).saturating_sub(limit);
        if hidden > 0 {
            writeln!(out, "  {DIM}... {hidden} more lines, see --verbose{DIM:#}")?;
        }
        contents(out, function, detail)?;
    }
    more_functions(out, functions.len().saturating_sub(shown))
}

fn heading(
    out: &mut String,
    title: &str,
    functions: &[&FunctionReport],
    detail: Detail,
) -> std::fmt::Result {
    if functions.is_empty() {
        return Ok(());
    }
    writeln!(out)?;
    line(out, 2, detail, &format!("{BOLD}{title}{BOLD:#}"))
}

fn item(out: &mut String, function: &FunctionReport, detail: Detail) -> std::fmt::Result {
    let size = function.fixed_size.or(function.base_size).unwrap_or(0);
    let name = plain(&function.display);
    let name = short_name(&name, detail.room);
    line(out, 4, detail, &format!("  {name}  {size} bytes"))
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
    heading(out, title, functions, detail)?;
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

#[cfg(test)]
mod tests;
