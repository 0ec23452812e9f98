//! A policy: findings that somebody decided to allow, each with a reason.
//!
//! A waiver is for one rule and one name, both as the report has them. Names are taken as they
//! stand: what looks like a pattern is an error, and what matches nothing is reported.

use serde::Deserialize;
use toml::Spanned;

use super::{Refusal, rule};

/// Names of other findings of the rule that a report of an unused waiver shows.
const SHOWN: usize = 3;

/// The waivers in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// What is allowed.
    pub waivers: Vec<Waiver>,
}

/// One decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiver {
    /// The rule: `HP0xx`, of those that may be waived.
    pub code: &'static str,
    /// The function or data it is waived for, as the report names it.
    pub name: String,
    /// Why; recorded in the patch's manifest.
    pub reason: String,
    /// The line of the policy file that names the rule, counted from 1.
    pub line: usize,
}

/// The file as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    allow: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    code: Spanned<String>,
    name: Spanned<String>,
    reason: Spanned<String>,
}

/// Why a policy is not usable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// It is not TOML of the right shape.
    #[error("policy: {0}")]
    Syntax(String),
    /// An entry does not say what it must.
    #[error("policy, line {line}: expected {expected}, found {found}")]
    Entry {
        /// The line, counted from 1.
        line: usize,
        /// What should stand there.
        expected: String,
        /// What does.
        found: String,
    },
}

impl Policy {
    /// Reads a policy file's text.
    ///
    /// # Errors
    /// Where it is no policy; where an entry names no rule, or one that may not be waived, names
    /// nothing to waive it for or a pattern, or gives no reason.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        let file: File =
            toml::from_str(text).map_err(|error| PolicyError::Syntax(error.to_string()))?;
        let waivers = file.allow.iter().map(|entry| waiver(text, entry));
        let waivers = waivers.collect::<Result<_, _>>()?;
        Ok(Self { waivers })
    }

    /// Marks what the policy allows as waived, and adds a finding for each waiver that allows
    /// nothing.
    pub(super) fn apply(&self, findings: Vec<Refusal>) -> Vec<Refusal> {
        let mut is_used = vec![false; self.waivers.len()];
        let mut findings: Vec<Refusal> = findings
            .into_iter()
            .map(|mut finding| {
                let matches =
                    |waiver: &Waiver| waiver.code == finding.code && waiver.name == finding.name;
                for (waiver, is_used) in self.waivers.iter().zip(&mut is_used) {
                    if matches(waiver) {
                        *is_used = true;
                        finding.waived.get_or_insert_with(|| waiver.reason.clone());
                    }
                }
                finding
            })
            .collect();
        let unused = self.waivers.iter().zip(is_used).filter(|(_, used)| !used);
        let unused: Vec<Refusal> = unused
            .map(|(waiver, _)| unused_waiver(waiver, &findings))
            .collect();
        findings.extend(unused);
        findings
    }
}

fn waiver(text: &str, entry: &Entry) -> Result<Waiver, PolicyError> {
    let line = |at: usize| {
        1 + text
            .get(..at)
            .map_or(0, |before| before.matches('\n').count())
    };
    let fail = |at: &Spanned<String>, expected: &str, found: &str| PolicyError::Entry {
        line: line(at.span().start),
        expected: expected.to_owned(),
        found: found.to_owned(),
    };
    let (code, name, reason) = (&entry.code, &entry.name, &entry.reason);
    let Some(known) = rule(code.get_ref()) else {
        // Those from HP060 on are about making the patch image.
        let expected = match ("HP060".."HP100").contains(&code.get_ref().as_str()) {
            true => "the code of a rule that may be waived",
            false => "the code of a rule",
        };
        return Err(fail(code, expected, code.get_ref()));
    };
    if !known.may_be_waived() {
        let expected = "the code of a rule that may be waived";
        return Err(fail(code, expected, known.code));
    }
    if name.get_ref().trim().is_empty() {
        let expected = format!("the name that {} is to be allowed for", known.code);
        return Err(fail(name, &expected, "none"));
    }
    if looks_like_pattern(name.get_ref()) {
        let expected = "one whole name (names are no patterns)";
        return Err(fail(name, expected, name.get_ref()));
    }
    if reason.get_ref().trim().is_empty() {
        let expected = format!("a reason to allow {} for {}", known.code, name.get_ref());
        return Err(fail(reason, &expected, "none"));
    }
    Ok(Waiver {
        code: known.code,
        name: name.get_ref().clone(),
        reason: reason.get_ref().clone(),
        line: line(code.span().start),
    })
}

/// Whether somebody means more than one name. In names of C++ a `*` follows a type and is followed
/// by more, `?` starts a linkage name, and both end names of operators.
fn looks_like_pattern(name: &str) -> bool {
    let ends_so = name.ends_with('*') || name.ends_with('?');
    name.starts_with('*') || ends_so && !name.contains("operator") || name.contains(".*")
}

fn unused_waiver(waiver: &Waiver, findings: &[Refusal]) -> Refusal {
    let (code, name, line) = (waiver.code, &waiver.name, waiver.line);
    let others: Vec<&str> = findings
        .iter()
        .filter(|finding| finding.code == code)
        .map(|finding| &*finding.name)
        .take(SHOWN)
        .collect();
    let evidence = match &others[..] {
        [] => format!("policy, line {line}; {code} is not found at all"),
        others => format!(
            "policy, line {line}; {code} is found for {}",
            others.join(", ")
        ),
    };
    let message = format!("the waiver of {code} for {name} allows nothing");
    Refusal::new("HP036", name.clone(), message, evidence)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(code: &str, name: &str, reason: &str) -> String {
        format!("[[allow]]\ncode = \"{code}\"\nname = \"{name}\"\nreason = \"{reason}\"\n")
    }

    fn error(code: &str, name: &str, reason: &str) -> String {
        let text = entry(code, name, reason);
        Policy::parse(&text).unwrap_err().to_string()
    }

    fn finding(code: &'static str, name: &str) -> Refusal {
        Refusal::new(code, name, "m", "e")
    }

    #[test]
    fn waives_a_named_rule_for_a_named_function() {
        let policy = Policy::parse(&entry("HP021", "f", "all callers inlined")).unwrap();
        let all = ["f", "g"].map(|name| finding("HP021", name));
        let [f, g, other] = &policy.apply([&all[..], &[finding("HP022", "f")]].concat())[..] else {
            panic!("a finding was added or lost");
        };
        assert_eq!(f.waived.as_deref(), Some("all callers inlined"));
        assert!(!f.refuses() && g.refuses() && other.refuses());
    }

    #[test]
    fn reports_waivers_that_match_nothing() {
        let text = entry("HP021", "f", "r") + &entry("hp022", "x", "r");
        let policy = Policy::parse(&text).unwrap();
        let found = policy.apply(vec![finding("HP021", "f"), finding("HP022", "y")]);
        assert_eq!(found.len(), 3);
        let unused = &found[2];
        assert_eq!((unused.code, &*unused.name), ("HP036", "x"));
        assert_eq!(unused.evidence, "policy, line 6; HP022 is found for y");
        assert!(!unused.refuses() && found[1].refuses());
    }

    #[test]
    fn needs_a_rule_a_name_and_a_reason() {
        assert!(error("21", "f", "r").contains("line 2: expected the code of a rule, found 21"));
        assert!(error("HP021", "f", " ").contains("line 4: expected a reason"));
        assert!(error("HP021", "", "r").contains("line 3: expected the name"));
        assert!(Policy::parse("[[allow]]\ncode = 1").is_err());
        assert!(Policy::parse("[[permit]]\ncode = \"HP021\"").is_err());
    }

    #[test]
    fn some_rules_may_not_be_waived() {
        for code in ["HP002", "HP008", "HP016", "HP032", "HP066", "HP079"] {
            let expected =
                format!("line 2: expected the code of a rule that may be waived, found {code}");
            assert!(error(code, "f", "r").contains(&expected), "{code}");
        }
    }

    #[test]
    fn names_are_no_patterns() {
        for name in ["*", "parse_*", "*_parse", "ns::?", "parse.*"] {
            assert!(
                error("HP021", name, "r").contains("line 3: expected one whole name"),
                "{name}"
            );
        }
        for name in [
            "int __cdecl f(char *)",
            "V::operator*",
            "V<int *>::at",
            "?f@@YAXXZ",
        ] {
            assert!(Policy::parse(&entry("HP021", name, "r")).is_ok(), "{name}");
        }
    }
}
