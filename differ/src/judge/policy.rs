//! A policy: findings that somebody decided to allow, each with a reason.
//!
//! A waiver is for one rule and one name, both as the report has them. Names are taken as they
//! stand: what looks like a pattern is an error, and what matches nothing is reported.

use serde::Deserialize;
use toml::Spanned;

use hpbuild_metadata::manifest::{LINE, is_line};

use super::{Refusal, rule};
use crate::names::display_data;

/// The rule about what an older patch brought: without one, waivers of it wait.
const OF_OLDER_PATCH: &str = "HP043";

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

    /// Marks what the policy allows of the findings about what an older patch brought, which only who
    /// makes a patch over one can have.
    #[must_use]
    pub fn allow_of_older_patch(&self, findings: Vec<Refusal>) -> Vec<Refusal> {
        let of_it = |waiver: &&Waiver| waiver.code == OF_OLDER_PATCH;
        let waivers = self.waivers.iter().filter(of_it).cloned().collect();
        Self { waivers }.apply_all(findings)
    }

    /// The same for all other findings, with one more for each waiver that allows nothing.
    pub(super) fn apply(&self, findings: Vec<Refusal>) -> Vec<Refusal> {
        let of_others = |waiver: &&Waiver| waiver.code != OF_OLDER_PATCH;
        let waivers = self.waivers.iter().filter(of_others).cloned().collect();
        Self { waivers }.apply_all(findings)
    }

    fn apply_all(&self, findings: Vec<Refusal>) -> Vec<Refusal> {
        let mut uses = vec![Use::None; self.waivers.len()];
        let names: Vec<Option<String>> = self
            .waivers
            .iter()
            .map(|waiver| name_meant(waiver, &findings))
            .collect();
        let mut findings: Vec<Refusal> = findings
            .into_iter()
            .map(|mut finding| {
                let waivers = self.waivers.iter().zip(&names).zip(&mut uses);
                let mut first = None;
                for ((waiver, name), used) in waivers {
                    if waiver.code != finding.code || name.as_ref() != Some(&finding.name) {
                        continue;
                    }
                    match first {
                        None => *used = Use::Needed,
                        // All findings of one name are for the first one.
                        Some(line) => *used = Use::After(line),
                    }
                    first.get_or_insert(waiver.line);
                    finding.waived.get_or_insert_with(|| waiver.reason.clone());
                }
                finding
            })
            .collect();
        let waivers = self.waivers.iter().zip(uses);
        let unused: Vec<Refusal> = waivers
            .filter_map(|(waiver, used)| match used {
                Use::Needed => None,
                Use::After(line) => Some(superfluous_waiver(waiver, line)),
                Use::None => Some(unused_waiver(waiver, &findings)),
            })
            .collect();
        findings.extend(unused);
        findings
    }
}

/// The name of findings that a waiver is for: its own, or the one that reads so.
fn name_meant(waiver: &Waiver, findings: &[Refusal]) -> Option<String> {
    let of_rule = findings.iter().filter(|it| it.code == waiver.code);
    let mut names = of_rule.map(|it| &it.name);
    if names.clone().any(|name| *name == waiver.name) {
        return Some(waiver.name.clone());
    }
    let mut read_so = names.by_ref().filter(|it| display_data(it) == waiver.name);
    let name = read_so.next()?;
    // More than one is meant, or none.
    read_so.all(|other| other == name).then(|| name.clone())
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
    if !is_line(name.get_ref()) {
        let expected = format!("a name in {LINE}");
        return Err(fail(name, &expected, no_line(name.get_ref())));
    }
    if reason.get_ref().trim().is_empty() {
        let expected = format!("a reason to allow {} for {}", known.code, name.get_ref());
        return Err(fail(reason, &expected, "none"));
    }
    // The manifest of a release is to hold it.
    if !is_line(reason.get_ref()) {
        let expected = format!("a reason in {LINE}");
        return Err(fail(reason, &expected, no_line(reason.get_ref())));
    }
    Ok(Waiver {
        code: known.code,
        name: name.get_ref().clone(),
        reason: reason.get_ref().clone(),
        line: line(code.span().start),
    })
}

/// What a text is that is not blank and no line.
fn no_line(text: &str) -> &'static str {
    match text.chars().find(|it| it.is_control()) {
        Some('\n' | '\r') => "several lines",
        Some(_) => "a control character",
        None => "more",
    }
}

/// Whether somebody means more than one name. In names of C++ a `*` follows a type and is followed
/// by more, `?` starts a linkage name, and both end names of operators.
fn looks_like_pattern(name: &str) -> bool {
    let ends_so = name.ends_with('*') || name.ends_with('?');
    name.starts_with('*') || ends_so && !name.contains("operator") || name.contains(".*")
}

/// What a waiver is good for.
#[derive(Clone, Copy)]
enum Use {
    /// It allows nothing.
    None,
    /// It allows a finding.
    Needed,
    /// What it allows is allowed by the waiver at this line already.
    After(usize),
}

fn superfluous_waiver(waiver: &Waiver, first: usize) -> Refusal {
    let (code, name, line) = (waiver.code, &waiver.name, waiver.line);
    let message = format!("the waiver of {code} for {name} allows nothing more");
    let evidence = format!("policy, line {line}; line {first} allows it already");
    Refusal::new("HP036", name.clone(), message, evidence)
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
    fn decorated_names_may_be_given_as_they_read() {
        let policy = Policy::parse(&entry("HP027", "Cat::`vftable'", "r")).unwrap();
        let waived = |names: &[&str]| {
            let found = names.iter().map(|name| finding("HP027", name)).collect();
            let found = policy.apply(found).into_iter();
            found.filter(|it| it.waived.is_some()).count()
        };
        assert_eq!(waived(&["??_7Cat@@6B@", "??_7Dog@@6B@"]), 1);
        assert_eq!(waived(&["??_7Cat@@6B@", "??_7Cat@@6B@"]), 2);
        // Two that read alike; and one that is called so.
        assert_eq!(waived(&["??_7Cat@@6B@", "??_7Cat@@6A@"]), 0);
        assert_eq!(waived(&["??_7Cat@@6B@", "Cat::`vftable'"]), 1);
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
    fn reports_waivers_of_what_is_waived_already() {
        let text = entry("HP027", "??_7Cat@@6B@", "r")
            + &entry("HP027", "Cat::`vftable'", "s")
            + &entry("HP027", "other", "t");
        let policy = Policy::parse(&text).unwrap();
        let found = ["??_7Cat@@6B@", "??_7Cat@@6B@", "other"];
        let found = policy.apply(found.map(|name| finding("HP027", name)).into());
        let waived = found.iter().filter_map(|it| it.waived.as_deref());
        assert_eq!(waived.collect::<Vec<_>>(), ["r", "r", "t"]);
        let [.., superfluous] = &found[..] else {
            panic!("nothing was found");
        };
        assert_eq!(found.len(), 4);
        assert_eq!(
            (superfluous.code, &*superfluous.name),
            ("HP036", "Cat::`vftable'")
        );
        assert_eq!(
            superfluous.evidence,
            "policy, line 6; line 2 allows it already"
        );
    }

    #[test]
    fn manifests_can_hold_what_is_allowed_and_why() {
        for (reason, found) in [
            (r"two\nlines", "several lines"),
            (r"a\u001bb", "a control character"),
            (&*"r".repeat(4097), "more"),
        ] {
            let error = error("HP021", "f", reason);
            let expected = format!("line 4: expected a reason in {LINE}, found {found}");
            assert!(error.contains(&expected), "{error}");
        }
        assert!(error("HP021", r"f\tg", "r").contains("line 3: expected a name in one line"));
        assert!(error("HP021", &"n".repeat(4097), "r").contains("found more"));
        assert!(Policy::parse(&entry("HP021", "f", &"r".repeat(4096))).is_ok());
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
