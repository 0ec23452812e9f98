//! `hpbuild explain`: what a rule means and what to do.

use hpbuild_differ::judge::{RULES, Rule, Severity};

use crate::cli::ExplainArguments;
use crate::failure::{Failure, Outcome};
use crate::output;
use crate::render::fold::folded;

/// How codes begin.
const LETTERS: &str = "HP";

pub(crate) fn run(arguments: &ExplainArguments) -> Result<Outcome, Failure> {
    let Some(code) = &arguments.code else {
        let width = output::width(None).unwrap_or(usize::MAX);
        let lines = rules().into_iter().map(|rule| {
            let (code, severity, title) = (rule.code, rule.severity.name(), rule.title);
            folded(&format!("{code}  {severity:6}  {title}"), 15, width) + "\n"
        });
        output::print(&lines.collect::<String>())?;
        return Ok(Outcome::Done);
    };
    let rule = rules()
        .into_iter()
        .find(|rule| is_code(rule.code, code))
        .ok_or_else(|| {
            Failure::new(format!("{code}: expected the code of a rule such as HP010"))
                .hint("hpbuild explain lists them all")
        })?;
    output::print(&page(rule))?;
    Ok(Outcome::Done)
}

/// Whether what was typed means this rule: its code, in any case, with or without the letters and
/// the zeros before its number.
fn is_code(code: &str, typed: &str) -> bool {
    fn number(text: &str) -> Option<u32> {
        let letters = text.get(..LETTERS.len());
        let is_whole = letters.is_some_and(|it| it.eq_ignore_ascii_case(LETTERS));
        let digits = if is_whole {
            &text[LETTERS.len()..]
        } else {
            text
        };
        let is_number = digits.bytes().all(|digit| digit.is_ascii_digit());
        is_number.then(|| digits.parse().ok()).flatten()
    }
    number(code).is_some() && number(code) == number(typed)
}

/// Every rule there is, by code: those of judging, then those of the packager.
pub(crate) fn rules() -> Vec<Rule> {
    let packager = hpbuild_packager::refusal::RULES.iter().map(|rule| Rule {
        code: rule.code,
        severity: Severity::Refuse,
        title: rule.title,
        why: rule.why,
        remedy: rule.remedy,
        example: rule.example,
    });
    RULES.iter().copied().chain(packager).collect()
}

fn page(rule: Rule) -> String {
    let mut page = format!(
        "{} ({}): {}\n\n{}\nFor example:\n{}\nWhat to do:\n{}",
        rule.code,
        rule.severity.name(),
        rule.title,
        wrapped(rule.why),
        wrapped(rule.example),
        wrapped(rule.remedy)
    );
    if rule.may_be_waived() {
        page.push_str("\nA policy (--policy) may allow it for a named function or data.\n");
    }
    page
}

/// The text in lines that fit the terminal, of at most 80 columns.
fn wrapped(text: &str) -> String {
    const MOST: usize = 80;
    let width = output::width(None).unwrap_or(MOST).min(MOST);
    folded(text, 0, width) + "\n"
}

#[cfg(test)]
mod tests {
    use super::is_code;

    #[test]
    fn codes_as_people_type_them() {
        for typed in ["HP026", "hp026", "Hp26", "26", "026", "hp0026"] {
            assert!(is_code("HP026", typed), "{typed}");
        }
        for typed in [
            "", "HP", "h026", "HP26x", "+26", "HP+26", "HP-26", "260", "P26", "ü26",
        ] {
            assert!(!is_code("HP026", typed), "{typed}");
        }
    }
}
