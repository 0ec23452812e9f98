//! Functions whose addresses changed code no longer hands out: callbacks that another one replaces.

use std::collections::{BTreeMap, BTreeSet};

use hpbuild_metadata::{Base, FunctionId, Rva, Side};

use super::{Case, Refusal};
use crate::decode::ReferenceKind;
use crate::image::Image;
use crate::meaning::Target;

/// Callbacks that changed code registered, and that no changed or new code of the fixed image does. What
/// holds one goes on with it, patched or not.
pub(super) fn judge(case: &Case<'_>, refusals: &mut Vec<Refusal>) {
    let comparer = case.comparer;
    let (base, fixed) = (comparer.base, comparer.fixed);
    let mut before: BTreeMap<FunctionId<Base>, FunctionId<Base>> = BTreeMap::new();
    for (id, _) in &case.redirected {
        for target in addresses(base, *id, |rva| comparer.in_base(rva)) {
            before.entry(target).or_insert(*id);
        }
    }
    if before.is_empty() {
        return;
    }
    let added = case.comparison.added.iter().copied();
    let after = case.redirected.iter().map(|(_, fixed)| *fixed).chain(added);
    let after: BTreeSet<_> = after
        .flat_map(|id| addresses(fixed, id, |rva| comparer.in_fixed(rva)))
        .collect();
    // That these cannot be told apart is a finding of its own.
    let unmatched: BTreeSet<_> = case.comparison.unmatched_base.iter().copied().collect();
    for (target, by) in before {
        let mut partners = comparer.pairing.fixed_functions(target);
        if unmatched.contains(&target) || partners.any(|it| after.contains(&it)) {
            continue;
        }
        let (name, by) = (base.display_name(target), base.display_name(by));
        let message = format!(
            "{by} no longer hands out the address of {name}: what holds it goes on with it"
        );
        let evidence = format!("rva {} of the base", base.function(target).rva);
        refusals.push(Refusal::new("HP042", name, message, evidence));
    }
}

/// The functions whose addresses code of a function takes.
fn addresses<S: Side>(
    image: &Image<S>,
    function: FunctionId<S>,
    resolve: impl Fn(Rva<S>) -> Target<S>,
) -> Vec<FunctionId<S>> {
    let taken = image
        .references_of(function)
        .iter()
        .filter(|it| it.reference.kind == ReferenceKind::Address && !it.completed_elsewhere);
    let targets = taken.filter_map(|it| match resolve(it.reference.target) {
        Target::Function { id, offset: 0 } => Some(id),
        _ => None,
    });
    targets.collect()
}
