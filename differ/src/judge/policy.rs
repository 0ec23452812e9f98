//! A policy: findings that somebody decided to allow, each with a reason.

use serde::Deserialize;

use super::{Refusal, Severity, rule};

/// The waivers in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// What is allowed.
    #[serde(default, rename = "allow")]
    pub waivers: Vec<Waiver>,
}

/// One decision.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Waiver {
    /// The rule: `HP0xx`.
    pub code: String,
    /// The function or data it is waived for, as the report names it.
    pub name: String,
    /// Why; recorded in the patch's manifest.
    pub reason: String,
}

/// Why a policy is not usable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// It is not TOML of the right shape.
    #[error("policy: {0}")]
    Syntax(String),
    /// It names a rule that does not exist.
    #[error("policy: expected the code of a rule, found {0}")]
    NoRule(String),
    /// It gives no reason.
    #[error("policy: {code} for {name}: expected a reason, found none")]
    NoReason {
        /// The rule.
        code: String,
        /// The function.
        name: String,
    },
    /// It names no function or data.
    #[error("policy: {0}: expected the name of a function or data, found none")]
    NoName(String),
}

impl Policy {
    /// Reads a policy file's text.
    ///
    /// # Errors
    /// Where it is no policy, names no rule or nothing to waive it for, or gives no reason.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        let policy: Policy =
            toml::from_str(text).map_err(|error| PolicyError::Syntax(error.to_string()))?;
        for waiver in &policy.waivers {
            if !waiver.code.starts_with("HP") {
                return Err(PolicyError::NoRule(waiver.code.clone()));
            }
            if waiver.name.is_empty() {
                return Err(PolicyError::NoName(waiver.code.clone()));
            }
            if waiver.reason.trim().is_empty() {
                let (code, name) = (waiver.code.clone(), waiver.name.clone());
                return Err(PolicyError::NoReason { code, name });
            }
        }
        Ok(policy)
    }

    /// Marks a finding as waived where the policy allows it.
    pub fn apply(&self, mut refusal: Refusal) -> Refusal {
        let waiver = self
            .waivers
            .iter()
            .find(|waiver| waiver.code == refusal.code && waiver.name == refusal.name);
        if let Some(waiver) = waiver.filter(|_| refusal.severity == Severity::Refuse) {
            refusal.waived = Some(waiver.reason.clone());
        }
        refusal
    }

    /// The codes of the policy that no rule of this crate has.
    pub fn unknown_codes(&self) -> impl Iterator<Item = &str> {
        self.waivers
            .iter()
            .map(|waiver| &*waiver.code)
            .filter(|code| rule(code).is_none())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waives_a_named_rule_for_a_named_function() {
        let text = "[[allow]]\ncode = \"HP021\"\nname = \"f\"\nreason = \"all callers inlined\"\n";
        let policy = Policy::parse(text).unwrap();
        let waived = policy.apply(Refusal::new("HP021", "f", "m", "e"));
        assert!(!waived.refuses());
        assert_eq!(waived.waived.as_deref(), Some("all callers inlined"));
        assert!(policy.apply(Refusal::new("HP021", "g", "m", "e")).refuses());
        assert!(policy.apply(Refusal::new("HP022", "f", "m", "e")).refuses());
    }

    #[test]
    fn needs_a_rule_a_name_and_a_reason() {
        let policy = |code, name, reason| {
            let text =
                format!("[[allow]]\ncode = \"{code}\"\nname = \"{name}\"\nreason = \"{reason}\"");
            Policy::parse(&text).unwrap_err().to_string()
        };
        assert!(policy("21", "f", "r").contains("found 21"));
        assert!(policy("HP021", "f", " ").contains("expected a reason"));
        assert!(policy("HP021", "", "r").contains("expected the name"));
        assert!(Policy::parse("[[allow]]\ncode = 1").is_err());
        assert!(Policy::parse("[[permit]]\ncode = \"HP021\"").is_err());
    }
}
