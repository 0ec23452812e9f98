//! The report of `diff` as one page that needs nothing else: no script, style, font or picture
//! from anywhere.
//!
//! A page has to stay quick with thousands of changed functions, so the instruction diffs are not
//! part of the document: each lies in it as JSON that nothing runs, and becomes a table when its
//! function is opened. Everything that comes from an image can hold any characters; it reaches the
//! page through [`escaped`], or as JSON in which no `<` stands, and the page's script only ever
//! sets text. Beside that, a content security policy lets only this page's own script and style
//! run, named by their hashes.

use std::fmt::{Display, Write};

use base64::Engine;
use hpbuild_differ::explain::{DiffLine, Differences};
use hpbuild_differ::judge::{Refusal, Severity};
use hpbuild_differ::report::{DataReport, FunctionReport, ImageReport, Report, Verdict};
use sha2::{Digest, Sha256};

use super::diff::{changed_lines, kind_name, more};

const STYLE: &str = include_str!("html/report.css");
/// Changed parts that are named of each function.
const PARTS: usize = 20;
/// Notes that are shown without being asked for.
const NOTES: usize = 6;
const SCRIPT: &str = include_str!("html/report.js");

/// The report as a page.
pub(crate) fn page(report: &Report) -> String {
    let title = match &report.base {
        Some(base) => format!("{}: {}", file_name(&base.path), verdict(report.verdict)),
        None => verdict(report.verdict).to_owned(),
    };
    let mut body = String::new();
    write(&mut body, report).expect("writing to a string does not fail");
    document(&title, &body)
}

/// A whole document with this body, which is HTML already.
pub(crate) fn document(title: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; \
         script-src 'sha256-{}'; style-src 'sha256-{}'; base-uri 'none'; form-action 'none'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>{} - hpbuild</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{body}\
         <script>{SCRIPT}</script>\n</body>\n</html>\n",
        hash(SCRIPT),
        hash(STYLE),
        escaped(title),
    )
}

/// The hash by which a content security policy names a script or style.
fn hash(text: &str) -> String {
    base64::engine::general_purpose::STANDARD.encode(Sha256::digest(text))
}

/// Text as HTML shows it. Characters that a terminal or page would act on, or that turn the
/// direction of text around, are shown by number.
pub(crate) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            _ if super::misleads(character) => {
                out.push_str(&format!("\\u{{{:x}}}", u32::from(character)));
            }
            _ => out.push(character),
        }
    }
    out
}

/// JSON that can stand inside a script element: no character of it is markup.
fn embedded(value: &impl serde::Serialize) -> String {
    let text = serde_json::to_string(value).expect("reports hold plain data");
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' | '<' | '>' => out.push_str(&format!("\\u{:04x}", u32::from(character))),
            // As `escaped` has it: nothing but text holds such a character.
            _ if super::misleads(character) => {
                out.push_str(&format!("\\\\u{{{:x}}}", u32::from(character)));
            }
            _ => out.push(character),
        }
    }
    out
}

/// What of a changed function becomes tables when it is opened.
#[derive(serde::Serialize)]
struct Opened<'a> {
    diff: &'a [DiffLine],
    /// Place, value in the base, value in the fixed image; a text alone where it says how many more
    /// there are.
    data: Vec<Vec<String>>,
}

impl<'a> Opened<'a> {
    fn new(function: &'a FunctionReport) -> Self {
        let mut data = Vec::new();
        for contents in &function.contents {
            let entries = contents.differences.entries.iter();
            data.extend(entries.map(|entry| {
                let place = format!("{}{}", contents.display, entry.place);
                vec![place, entry.base.clone(), entry.fixed.clone()]
            }));
            data.extend(more(&contents.differences).map(|more| vec![more]));
        }
        if function.more_contents > 0 {
            let more = function.more_contents;
            data.push(vec![format!("{more} more references to data that differs")]);
        }
        let diff = &function.diff;
        Self { diff, data }
    }
}

pub(crate) const fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Same => "same",
        Verdict::Hotpatchable => "hotpatchable",
        Verdict::Refused => "refused",
    }
}

fn file_name(path: &str) -> &str {
    path.rsplit(['/', '\\']).next().unwrap_or(path)
}

fn write(out: &mut String, report: &Report) -> std::fmt::Result {
    let word = verdict(report.verdict);
    let name = report.base.as_ref().map(|base| file_name(&base.path));
    writeln!(
        out,
        "<header>\n<h1>{} <span class=\"verdict {word}\">{word}</span></h1>",
        escaped(name.unwrap_or("hpbuild diff")),
    )?;
    summary(out, report)?;
    writeln!(out, "</header>\n<main>")?;
    refusals(out, &report.refusals)?;
    let functions = &report.functions;
    if !functions.changed.is_empty() {
        changed(out, &functions.changed)?;
    }
    list(out, "added", "Added functions", &functions.added)?;
    list(out, "removed", "Removed functions", &functions.removed)?;
    list(
        out,
        "unmatched",
        "Functions not told apart",
        &functions.unmatched,
    )?;
    data(out, &report.data)?;
    unknown(out, report)?;
    images(out, [("Base", &report.base), ("Fixed", &report.fixed)])?;
    writeln!(out, "</main>")
}

fn summary(out: &mut String, report: &Report) -> std::fmt::Result {
    let functions = &report.functions;
    let in_patch = functions.changed.iter().filter(|f| f.in_patch).count();
    let refuse = report.refusals.iter().filter(|r| r.refuses()).count();
    let facts = [
        (refuse, "refusals", "refusals"),
        (in_patch, "changed", "changed"),
        (
            functions.changed.len() - in_patch,
            "by line numbers only",
            "lines",
        ),
        (functions.added.len(), "added", "added"),
        (functions.removed.len(), "removed", "removed"),
        (functions.unmatched.len(), "not told apart", "unmatched"),
        (report.data.len(), "data changed", "data"),
        (report.unknown.len(), "references not understood", "unknown"),
    ];
    write!(out, "<ul class=\"summary\">")?;
    for (count, what, anchor) in facts.into_iter().filter(|fact| fact.0 > 0) {
        write!(
            out,
            "<li><a href=\"#{anchor}\"><b>{count}</b> {what}</a></li>"
        )?;
    }
    let (same, moved) = (functions.same, functions.moved);
    writeln!(out, "<li><b>{same}</b> same ({moved} moved)</li></ul>")
}

fn refusals(out: &mut String, refusals: &[Refusal]) -> std::fmt::Result {
    if refusals.is_empty() {
        return Ok(());
    }
    let mut shown: Vec<&Refusal> = refusals.iter().collect();
    shown.sort_by_key(|refusal| (refusal.waived.is_some(), refusal.severity, refusal.code));
    writeln!(out, "<section id=\"refusals\">\n<h2>Findings</h2>")?;
    let is_weighty = |refusal: &&&Refusal| refusal.severity != Severity::Note;
    let weighty = shown.iter().filter(is_weighty).count();
    // What only informs must not push the changes off the screen.
    let (weighty, notes) = match shown.len() - weighty {
        0..=NOTES => (&shown[..], &[][..]),
        _ => {
            shown.sort_by_key(|refusal| refusal.severity == Severity::Note);
            shown.split_at(weighty)
        }
    };
    if !weighty.is_empty() {
        findings(out, weighty)?;
    }
    if !notes.is_empty() {
        writeln!(
            out,
            "<details class=\"notes\"><summary>{} notes</summary>",
            notes.len()
        )?;
        findings(out, notes)?;
        writeln!(out, "</details>")?;
    }
    writeln!(out, "</section>")
}

fn findings(out: &mut String, shown: &[&Refusal]) -> std::fmt::Result {
    writeln!(
        out,
        "<div class=\"wide\" tabindex=\"0\" role=\"region\" aria-label=\"Findings\"><table class=\"findings\">\n\
         <thead><tr><th scope=\"col\">Rule</th><th scope=\"col\">Weight</th>\
         <th scope=\"col\">Finding</th></tr></thead>\n<tbody>"
    )?;
    for refusal in shown {
        finding(out, refusal)?;
    }
    writeln!(out, "</tbody></table></div>")
}

/// One finding as a row.
pub(crate) fn finding(out: &mut String, refusal: &Refusal) -> std::fmt::Result {
    let (class, word) = match (refusal.severity, &refusal.waived) {
        (_, Some(_)) => ("note", "waived"),
        (Severity::Refuse, _) => ("refuse", "refuse"),
        (Severity::Warn, _) => ("warn", "warn"),
        (Severity::Note, _) => ("note", "note"),
    };
    write!(
        out,
        "<tr><td class=\"code\">{}</td><td><span class=\"{class}\">{word}</span></td><td>{}",
        refusal.code,
        escaped(&refusal.message)
    )?;
    if !refusal.evidence.is_empty() {
        write!(out, "<br><small>{}</small>", escaped(&refusal.evidence))?;
    }
    if let Some(reason) = &refusal.waived {
        write!(out, "<br><small>allowed: {}</small>", escaped(reason))?;
    }
    writeln!(out, "</td></tr>")
}

fn changed(out: &mut String, functions: &[FunctionReport]) -> std::fmt::Result {
    writeln!(
        out,
        "<section id=\"changed\">\n<h2>Changed functions</h2>\n\
         <form role=\"search\"><label for=\"search\">Filter</label> <input id=\"search\" \
         type=\"search\" autocomplete=\"off\" spellcheck=\"false\" placeholder=\"name, kind or \
         object file\"> <output id=\"found\" for=\"search\" aria-live=\"polite\">{} of {0}</output></form>\n\
         <noscript><p>The filter and the instruction diffs need the script of this page.</p>\
         </noscript>",
        functions.len()
    )?;
    // What the patch carries must not be looked for among what it does not.
    let (carried, lines): (Vec<_>, Vec<_>) = functions.iter().partition(|it| it.in_patch);
    for function in carried {
        changed_function(out, function)?;
    }
    if !lines.is_empty() {
        let count = lines.len();
        writeln!(
            out,
            "<div id=\"lines\">\n<h3>By line numbers only ({count})</h3>"
        )?;
        for function in lines {
            changed_function(out, function)?;
        }
        writeln!(out, "</div>")?;
    }
    writeln!(out, "</section>")
}

fn changed_function(out: &mut String, function: &FunctionReport) -> std::fmt::Result {
    write!(
        out,
        "<details class=\"function\"><summary><span class=\"name\">{}</span> <span class=\"size\">{} \u{2192} {} bytes</span>",
        escaped(&function.display),
        number(function.base_size),
        number(function.fixed_size),
    )?;
    for kind in &function.kinds {
        write!(
            out,
            " <span class=\"kind\">{}</span>",
            escaped(&kind_name(kind))
        )?;
    }
    if !function.in_patch {
        write!(out, " <span class=\"kind\">not in the patch</span>")?;
    }
    writeln!(out, "</summary>\n<dl>")?;
    if let Some(decorated) = &function.decorated {
        fact(out, "decorated", decorated)?;
    }
    if !function.aliases.is_empty() {
        fact(out, "also called", function.aliases.join(", "))?;
    }
    for part in function.parts.iter().take(PARTS) {
        fact(out, "changed part", part)?;
    }
    let more = function.parts.len().saturating_sub(PARTS);
    if more > 0 {
        fact(out, "changed part", format!("{more} more"))?;
    }
    let lines = changed_lines(function);
    for inlined in &function.inlined {
        let count = inlined.removed + inlined.added;
        let text = format!("{} ({count} of {lines} changed instructions)", inlined.name);
        fact(out, "inlined callee", text)?;
    }
    if let Some(source) = &function.source {
        fact(out, "source", format!("{}:{}", source.file, source.line))?;
    }
    if let Some(compiland) = &function.compiland {
        fact(out, "object file", compiland)?;
    }
    if let (Some(base), Some(fixed)) = (function.base_rva, function.fixed_rva) {
        fact(out, "rva", format!("{base} \u{2192} {fixed}"))?;
    }
    writeln!(out, "</dl>")?;
    if !function.diff.is_empty() || !function.contents.is_empty() {
        let diff = embedded(&Opened::new(function));
        writeln!(out, "<script type=\"application/json\">{diff}</script>")?;
    }
    writeln!(out, "</details>")
}

fn number(number: Option<u32>) -> String {
    number.map_or_else(|| "?".into(), |number| number.to_string())
}

fn fact(out: &mut String, name: &str, value: impl Display) -> std::fmt::Result {
    let value = escaped(&value.to_string());
    writeln!(out, "<dt>{name}</dt><dd>{value}</dd>")
}

fn list(out: &mut String, id: &str, title: &str, functions: &[FunctionReport]) -> std::fmt::Result {
    if functions.is_empty() {
        return Ok(());
    }
    section(out, id, title, functions.len())?;
    for function in functions {
        let size = function.fixed_size.or(function.base_size);
        item(
            out,
            &function.display,
            function.decorated.as_deref(),
            &format!("{} bytes", number(size)),
            &Differences::default(),
        )?;
    }
    writeln!(out, "</ul></details>\n</section>")
}

/// The head of a list that is open while it is short.
fn section(out: &mut String, id: &str, title: &str, count: usize) -> std::fmt::Result {
    let open = if count <= 20 { " open" } else { "" };
    writeln!(
        out,
        "<section id=\"{id}\">\n<details{open}><summary><h2>{title}</h2> ({count})</summary>\n<ul class=\"names\">"
    )
}

fn item(
    out: &mut String,
    name: &str,
    decorated: Option<&str>,
    what: &str,
    differences: &Differences,
) -> std::fmt::Result {
    write!(
        out,
        "<li><span class=\"name\">{}</span> <span class=\"size\">{}</span>",
        escaped(name),
        escaped(what)
    )?;
    if let Some(decorated) = decorated.filter(|decorated| *decorated != name) {
        write!(out, " <small>{}</small>", escaped(decorated))?;
    }
    for entry in &differences.entries {
        let (base, fixed) = (escaped(&entry.base), escaped(&entry.fixed));
        write!(
            out,
            "<br><span class=\"code\">{} <del>{base}</del> \u{2192} <ins>{fixed}</ins></span>",
            escaped(entry.place.trim_start())
        )?;
    }
    if let Some(more) = more(differences) {
        write!(out, "<br><small>{more}</small>")?;
    }
    writeln!(out, "</li>")
}

fn data(out: &mut String, data: &[DataReport]) -> std::fmt::Result {
    if data.is_empty() {
        return Ok(());
    }
    section(out, "data", "Changed read-only data", data.len())?;
    for data in data {
        let sizes = format!("{} \u{2192} {} bytes", data.base_size, data.fixed_size);
        let name = data.decorated.as_deref().unwrap_or(&data.name);
        item(out, &data.display, Some(name), &sizes, &data.differences)?;
    }
    writeln!(out, "</ul></details>\n</section>")
}

fn unknown(out: &mut String, report: &Report) -> std::fmt::Result {
    if report.unknown.is_empty() {
        return Ok(());
    }
    let count = report.unknown.len();
    section(out, "unknown", "References that are not understood", count)?;
    for unknown in &report.unknown {
        let place = format!("+{:#x}", unknown.offset);
        item(out, &unknown.name, None, &place, &Differences::default())?;
    }
    writeln!(out, "</ul></details>\n</section>")
}

fn images(out: &mut String, sides: [(&str, &Option<ImageReport>); 2]) -> std::fmt::Result {
    if sides.iter().all(|(_, image)| image.is_none()) {
        return Ok(());
    }
    writeln!(out, "<section id=\"images\">\n<h2>Images</h2>")?;
    for (side, image) in sides {
        let Some(image) = image else { continue };
        writeln!(out, "<h3>{side}</h3>\n<dl>")?;
        fact(out, "file", &image.path)?;
        fact(out, "machine", image.machine)?;
        fact(out, "time stamp", format!("{:#010x}", image.time_stamp))?;
        fact(out, "checksum", format!("{:#010x}", image.checksum))?;
        fact(out, "SHA-256", &image.sha256)?;
        fact(out, "symbols", image.symbols)?;
        if let Some(pdb) = &image.pdb {
            fact(out, "PDB", pdb)?;
        }
        if let (Some(guid), Some(age)) = (&image.pdb_guid, image.pdb_age) {
            fact(out, "PDB identity", format!("{guid}, age {age}"))?;
        }
        writeln!(out, "</dl>")?;
    }
    writeln!(out, "</section>")
}
