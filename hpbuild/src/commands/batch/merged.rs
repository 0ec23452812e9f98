//! The report of a whole batch, and its forms.

use std::fmt::Write;

use anstyle::{AnsiColor, Style};
use serde::Serialize;
use serde_json::Value;

use super::exec::{Ending, PairResult};
use super::plan::{Plan, Problem};
use crate::render::fold::folded;
use crate::render::html::{document, escaped};
use crate::render::plain;

/// Version of the JSON form.
const SCHEMA: &str = "hpbuild-batch-1";

/// Everything that a batch found.
#[derive(Debug, Serialize)]
pub(super) struct Merged {
    schema: &'static str,
    /// In order of paths.
    pub(super) pairs: Vec<MergedPair>,
    only_base: Vec<String>,
    only_fixed: Vec<String>,
    pub(super) problems: Vec<Problem>,
}

/// What one pair gave, without its details.
#[derive(Debug, Serialize)]
pub(super) struct MergedPair {
    path: String,
    pub(super) ending: Ending,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// How many functions changed, those included in which only numbers of source lines did.
    changed: usize,
    added: usize,
    removed: usize,
    /// The findings, as in the report of `diff`.
    refusals: Vec<Value>,
}

impl MergedPair {
    pub(super) fn of(result: PairResult) -> Self {
        let report = result.report.unwrap_or_default();
        let count = |list: &str| {
            let list = report.pointer(&format!("/functions/{list}"));
            list.and_then(Value::as_array).map_or(0, Vec::len)
        };
        Self {
            path: result.path,
            ending: result.ending,
            error: result.error,
            changed: count("changed"),
            added: count("added"),
            removed: count("removed"),
            refusals: report
                .get("refusals")
                .and_then(Value::as_array)
                .cloned()
                .unwrap_or_default(),
        }
    }

    pub(super) fn failed(path: &str, error: String) -> Self {
        Self {
            path: path.to_owned(),
            ending: Ending::Error,
            error: Some(error),
            changed: 0,
            added: 0,
            removed: 0,
            refusals: Vec::new(),
        }
    }

    /// The findings that refuse: code and message.
    fn refusing(&self) -> impl Iterator<Item = (&str, &str)> {
        let text = |refusal: &'_ Value, field: &str| -> bool {
            refusal.get(field).and_then(Value::as_str) == Some("refuse")
        };
        self.refusals
            .iter()
            .filter(move |refusal| text(refusal, "severity") && refusal.get("waived").is_none())
            .map(|refusal| {
                let field = |name| refusal.get(name).and_then(Value::as_str).unwrap_or("?");
                (field("code"), field("message"))
            })
    }

    /// What there is to say of it beside how it ended.
    fn facts(&self) -> String {
        match &self.error {
            Some(error) => error.clone(),
            None => format!(
                "{} changed, {} added, {} removed",
                self.changed, self.added, self.removed
            ),
        }
    }
}

impl Merged {
    pub(super) fn new(plan: &Plan, pairs: Vec<MergedPair>) -> Self {
        Self {
            schema: SCHEMA,
            pairs,
            only_base: plan.only_base.clone(),
            only_fixed: plan.only_fixed.clone(),
            problems: plan.problems.clone(),
        }
    }

    /// Everything that went wrong: path and reason.
    pub(super) fn errors(&self) -> Vec<(&str, &str)> {
        let pairs = self.pairs.iter();
        let pairs = pairs.filter_map(|pair| Some((pair.path.as_str(), pair.error.as_deref()?)));
        let problems = self.problems.iter();
        pairs
            .chain(problems.map(|problem| (problem.path.as_str(), problem.reason.as_str())))
            .collect()
    }

    fn with(&self, ending: Ending) -> impl Iterator<Item = (usize, &MergedPair)> {
        let pairs = self.pairs.iter().enumerate();
        pairs.filter(move |(_, pair)| pair.ending == ending)
    }

    fn counts(&self) -> String {
        let count = |ending| self.with(ending).count();
        format!(
            "{} pairs: {} hotpatchable, {} same, {} refused, {} errors",
            self.pairs.len(),
            count(Ending::Hotpatchable),
            count(Ending::Same),
            count(Ending::Refused),
            count(Ending::Error) + self.problems.len()
        )
    }
}

/// The worst first; what is the same is only counted.
const SHOWN: [Ending; 3] = [Ending::Error, Ending::Refused, Ending::Hotpatchable];

/// The report for people.
pub(super) fn text(merged: &Merged, width: Option<usize>) -> String {
    let mut out = String::new();
    write_text(&mut out, merged, width.unwrap_or(usize::MAX))
        .expect("writing to a string does not fail");
    out
}

fn write_text(out: &mut String, merged: &Merged, width: usize) -> std::fmt::Result {
    const BOLD: Style = Style::new().bold();
    let mut line = |hang: usize, text: String| writeln!(out, "{}", folded(&text, hang, width));
    line(2, format!("{BOLD}{}{BOLD:#}", merged.counts()))?;
    for ending in SHOWN {
        let style = match ending {
            Ending::Error | Ending::Refused => AnsiColor::Red.on_default().bold(),
            _ => AnsiColor::Green.on_default(),
        };
        for (_, pair) in merged.with(ending) {
            let (path, facts) = (plain(&pair.path), pair.facts());
            let facts = plain(&facts);
            let ending = ending.name();
            line(
                16,
                format!("  {style}{ending:12}{style:#}  {path}  {facts}"),
            )?;
            for (code, message) in pair.refusing() {
                line(25, format!("                  {code}  {}", plain(message)))?;
            }
        }
        if ending == Ending::Error {
            for problem in &merged.problems {
                let (path, reason) = (plain(&problem.path), plain(&problem.reason));
                line(
                    16,
                    format!("  {style}{:12}{style:#}  {path}  {reason}", "error"),
                )?;
            }
        }
    }
    for (side, paths) in [
        ("only in base", &merged.only_base),
        ("only in fixed", &merged.only_fixed),
    ] {
        for path in paths {
            line(16, format!("  {side:13} {}", plain(path)))?;
        }
    }
    Ok(())
}

/// The report as a page; `link` gives the page of a pair by its index, where there is one.
pub(super) fn page(merged: &Merged, link: impl Fn(usize) -> Option<String>) -> String {
    let mut body = String::new();
    write_page(&mut body, merged, link).expect("writing to a string does not fail");
    document("batch", &body)
}

fn write_page(
    out: &mut String,
    merged: &Merged,
    link: impl Fn(usize) -> Option<String>,
) -> std::fmt::Result {
    writeln!(
        out,
        "<header><h1>hpbuild batch</h1><p>{}</p></header>\n<main>\n<section>\n<h2>Pairs</h2>\n\
         <div class=\"wide\" tabindex=\"0\" role=\"region\" aria-label=\"Pairs\"><table class=\"findings\">\n\
         <thead><tr><th scope=\"col\">Image</th><th scope=\"col\">Result</th><th scope=\"col\">Why</th></tr></thead>\n<tbody>",
        escaped(&merged.counts())
    )?;
    for ending in SHOWN {
        for (index, pair) in merged.with(ending) {
            page_row(out, pair, link(index))?;
        }
        if ending == Ending::Error {
            for problem in &merged.problems {
                page_row(
                    out,
                    &MergedPair::failed(&problem.path, problem.reason.clone()),
                    None,
                )?;
            }
        }
    }
    writeln!(out, "</tbody></table></div>\n</section>")?;
    let same: Vec<_> = merged
        .with(Ending::Same)
        .map(|(_, pair)| &pair.path)
        .collect();
    for (title, paths) in [
        ("Same", same),
        ("Only in the base", merged.only_base.iter().collect()),
        ("Only in the fixed tree", merged.only_fixed.iter().collect()),
    ] {
        if paths.is_empty() {
            continue;
        }
        let count = paths.len();
        writeln!(
            out,
            "<section>\n<details><summary><h2>{title}</h2> ({count})</summary>\n<ul class=\"names\">"
        )?;
        for path in paths {
            writeln!(out, "<li>{}</li>", escaped(path))?;
        }
        writeln!(out, "</ul></details>\n</section>")?;
    }
    writeln!(out, "</main>")
}

fn page_row(out: &mut String, pair: &MergedPair, link: Option<String>) -> std::fmt::Result {
    let path = escaped(&pair.path);
    match link {
        Some(link) => {
            let link = crate::render::sarif::encoded(&link);
            write!(
                out,
                "<tr><td class=\"name\"><a href=\"{link}\">{path}</a></td>"
            )?;
        }
        None => write!(out, "<tr><td class=\"name\">{path}</td>")?,
    }
    let name = pair.ending.name();
    write!(
        out,
        "<td><span class=\"verdict {name}\">{name}</span></td><td>{}",
        escaped(&pair.facts())
    )?;
    for (code, message) in pair.refusing() {
        write!(out, "<br>{} {}", escaped(code), escaped(message))?;
    }
    writeln!(out, "</td></tr>")
}
