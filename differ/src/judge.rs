//! Can the change be applied to a running process? Every rule looks at everything it concerns,
//! so that no refusal hides another.

mod beside;
mod confined;
mod data;
mod destructors;
mod entry;
mod enumerators;
mod function;
mod guards;
mod handed;
mod headers;
mod held;
mod hidden;
mod image;
mod initialisers;
mod lists;
mod local;
mod nameless;
mod nameless_types;
mod new_types;
mod once;
mod order;
mod outside;
mod padding;
mod policy;
mod renamed_types;
mod resources;
mod rights;
mod rules;
mod state;
mod tables;
mod types;
mod unknown_types;
mod variables;

use std::collections::BTreeSet;
use std::sync::OnceLock;

use hpbuild_metadata::{Base, DataId, Fixed, FunctionId, Rva, Side};
use serde::Serialize;

use crate::compare::Comparison;
use crate::image::{DataSymbol, Image};
use crate::meaning::{Comparer, Target, resolve};
use crate::pe::{Unsupported, UnsupportedKind};

pub use new_types::{NewPart, NewType, new_types};
pub use policy::{Policy, PolicyError, Waiver};
pub use rules::{RULES, Rule, Severity, rule};

/// A finding of a rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// `HP0xx`.
    pub code: &'static str,
    /// How much it matters.
    pub severity: Severity,
    /// The function or data it concerns; empty where it concerns the whole image.
    pub name: String,
    /// What is wrong, in one line.
    pub message: String,
    /// What shows it: places and values.
    pub evidence: String,
    /// The reason a policy gives for allowing it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waived: Option<String>,
}

impl Refusal {
    /// A finding of the rule with this code, with the rule's own severity.
    pub fn new(
        code: &'static str,
        name: impl Into<String>,
        message: impl Into<String>,
        evidence: impl Into<String>,
    ) -> Self {
        let severity = rule(code).map_or(Severity::Refuse, |rule| rule.severity);
        Self {
            code,
            severity,
            name: name.into(),
            message: message.into(),
            evidence: evidence.into(),
            waived: None,
        }
    }

    /// Whether it stops the patch.
    pub fn refuses(&self) -> bool {
        self.severity == Severity::Refuse && self.waived.is_none()
    }
}

/// What was judged, ready for the rules.
pub(crate) struct Case<'a> {
    comparer: &'a Comparer<'a>,
    comparison: &'a Comparison,
    /// Base bodies that would be redirected.
    redirected: Vec<(FunctionId<Base>, FunctionId<Fixed>)>,
    /// Asked for by [`Case::reached_after`].
    reached: OnceLock<BTreeSet<Rva<Fixed>>>,
}

impl<'a> Case<'a> {
    fn new(comparer: &'a Comparer<'a>, comparison: &'a Comparison) -> Self {
        let changed = comparison.changed.iter();
        let redirected = changed.filter(|it| !it.is_line_number_only() && !it.in_owner);
        Self {
            comparer,
            comparison,
            redirected: redirected.map(|it| (it.base, it.fixed)).collect(),
            reached: OnceLock::new(),
        }
    }

    /// The data that both sides have, in the order of the base.
    fn data_of_both(&self) -> impl Iterator<Item = (&'a DataSymbol<Base>, &'a DataSymbol<Fixed>)> {
        let comparer = self.comparer;
        let data = comparer.base.data.iter().enumerate();
        data.filter_map(move |(index, symbol)| {
            let partner = comparer.pairing.fixed_data(DataId::new(index))?;
            Some((symbol, comparer.fixed.data_symbol(partner)))
        })
    }

    /// The starts of the data that changed and new functions reach.
    fn reached_after(&self) -> &BTreeSet<Rva<Fixed>> {
        self.reached.get_or_init(|| {
            let fixed = self.comparer.fixed;
            let added = self.comparison.added.iter().copied();
            let after = self.redirected.iter().map(|(_, fixed)| *fixed).chain(added);
            let found = data_reached(fixed, after);
            found.map(|id| fixed.data_symbol(id).rva).collect()
        })
    }
}

/// The data that functions reach, as often as they do.
fn data_reached<S: Side>(
    image: &Image<S>,
    functions: impl Iterator<Item = FunctionId<S>>,
) -> impl Iterator<Item = DataId<S>> {
    let placed = functions.flat_map(|id| image.references_of(id));
    placed.filter_map(|placed| match resolve(image, placed.reference.target) {
        Target::Data { id, .. } => Some(id),
        _ => None,
    })
}

/// Applies every rule, then the policy; findings in order of rule, and within one as it found them.
pub fn judge(comparer: &Comparer<'_>, comparison: &Comparison, policy: &Policy) -> Vec<Refusal> {
    let case = Case::new(comparer, comparison);
    let (mut refusals, (of_functions, of_data)) = rayon::join(
        || image::judge(&case),
        || {
            rayon::join(
                || {
                    let mut refusals = entry::judge(&case);
                    beside::judge(&case, &mut refusals);
                    [refusals, function::judge(&case)]
                },
                || data::judge(&case),
            )
        },
    );
    refusals.extend(of_functions.into_iter().flatten());
    refusals.extend(of_data);
    let mut refusals = policy.apply(refusals);
    refusals.sort_by_key(|refusal| refusal.code);
    refusals
}

/// The finding for an image of a kind that cannot be hotpatched.
pub fn unsupported(side: &str, unsupported: &Unsupported) -> Refusal {
    let (code, what) = match unsupported.kind {
        UnsupportedKind::X86 => ("HP001", "a 32-bit x86 image".to_owned()),
        UnsupportedKind::ChpeX86 => ("HP002", "a hybrid image (CHPE x86)".to_owned()),
        UnsupportedKind::Arm64Ec => ("HP002", "a hybrid image (Arm64EC)".to_owned()),
        UnsupportedKind::Arm64X => ("HP002", "a hybrid image (Arm64X)".to_owned()),
        UnsupportedKind::Managed => ("HP003", "a managed image".to_owned()),
        UnsupportedKind::OtherMachine(machine) => {
            ("HP003", format!("an image for machine {machine:#x}"))
        }
    };
    let evidence = format!("{} = {:#x}", unsupported.field, unsupported.value);
    Refusal::new(code, "", format!("the {side} is {what}"), evidence)
}
