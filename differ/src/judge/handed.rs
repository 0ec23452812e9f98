//! Functions whose addresses changed code hands out: callbacks that another one replaces, and those that
//! stood for two. And what only code handed out that is gone.

use std::collections::{BTreeMap, BTreeSet};

use hpbuild_metadata::{Base, Fixed, FunctionId, Rva, Side};

use super::{Case, Refusal, data_reached};
use crate::compare::are_alike;
use crate::decode::ReferenceKind;
use crate::image::{DataSymbol, Image};
use crate::meaning::{Target, is_read_only, pointer_at, resolve};
use crate::names::is_of_lambda;
use crate::pair::Tier;

pub(super) fn judge(case: &Case<'_>, refusals: &mut Vec<Refusal>) {
    let comparer = case.comparer;
    let handed = case.redirected.iter().map(|(b, f)| Handed {
        by: *b,
        before: addresses(comparer.base, *b, |rva| comparer.in_base(rva)),
        after: addresses(comparer.fixed, *f, |rva| comparer.in_fixed(rva)),
    });
    let handed: Vec<_> = handed.collect();
    replaced(case, &handed, refusals);
    gone(case, &handed, refusals);
    split(case, &handed, refusals);
    in_order(case, &handed, refusals);
}

/// The functions whose addresses a changed function takes on either side, each once, sorted.
struct Handed {
    by: FunctionId<Base>,
    before: BTreeSet<FunctionId<Base>>,
    after: BTreeSet<FunctionId<Fixed>>,
}

/// Callbacks that changed code registered, and that no changed or new code of the fixed image does. What
/// holds one goes on with it, patched or not.
fn replaced(case: &Case<'_>, handed: &[Handed], refusals: &mut Vec<Refusal>) {
    let (comparer, base) = (case.comparer, case.comparer.base);
    let mut before: BTreeMap<FunctionId<Base>, FunctionId<Base>> = BTreeMap::new();
    for it in handed {
        for target in &it.before {
            before.entry(*target).or_insert(it.by);
        }
    }
    if before.is_empty() {
        return;
    }
    let mut after: BTreeSet<_> = handed.iter().flat_map(|it| &it.after).copied().collect();
    for id in &case.comparison.added {
        after.extend(addresses(comparer.fixed, *id, |rva| comparer.in_fixed(rva)));
    }
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

/// Callbacks and vtables that a function handed out which the fixed image does not have, as little as
/// them: where it was renamed, objects that exist go on without the fix.
fn gone(case: &Case<'_>, handed: &[Handed], refusals: &mut Vec<Refusal>) {
    let (comparer, base) = (case.comparer, case.comparer.base);
    let removed: BTreeSet<_> = case.comparison.removed.iter().copied().collect();
    // Of these `replaced` speaks.
    let by_changed: BTreeSet<_> = handed.iter().flat_map(|it| &it.before).collect();
    let mut known = BTreeSet::new();
    for by in &case.comparison.removed {
        let by_name = || base.display_name(*by);
        let functions = addresses(base, *by, |rva| comparer.in_base(rva));
        let left_alone = |it: &FunctionId<Base>| removed.contains(it) && !by_changed.contains(it);
        for target in functions.into_iter().filter(left_alone) {
            let rva = base.function(target).rva;
            if known.insert(rva) {
                refusals.push(left(by_name(), base.display_name(target), rva));
            }
        }
        for id in data_reached(base, [*by].into_iter()) {
            let symbol = base.data_symbol(id);
            let leads_to_gone = || functions_in(base, symbol).any(|it| removed.contains(&it));
            if is_read_only(base, symbol.rva)
                && comparer.fixed_data_of(id).is_none()
                && leads_to_gone()
                && known.insert(symbol.rva)
            {
                refusals.push(left(by_name(), symbol.display(), symbol.rva));
            }
        }
    }
}

/// The finding for what only a function that is gone handed out.
fn left(by: String, name: String, rva: Rva<Base>) -> Refusal {
    let message = format!(
        "{by}, which is gone, handed out the address of {name}: what holds it goes on with it"
    );
    Refusal::new("HP042", name, message, format!("rva {rva} of the base"))
}

/// The functions that the pointers of a constant lead to.
fn functions_in<'a, S: Side>(
    image: &'a Image<S>,
    symbol: &DataSymbol<S>,
) -> impl Iterator<Item = FunctionId<S>> + 'a {
    let places = image.pe.relocations_in(symbol.rva, symbol.size);
    let pointers = places.iter();
    let targets = pointers.filter_map(|place| pointer_at(image, *place, true));
    targets.filter_map(|rva| match resolve(image, rva) {
        Target::Function { id, offset: 0 } => Some(id),
        _ => None,
    })
}

/// Functions that changed and were handed out where a new one with the body that they had is now:
/// compilers make one function of two with equal bodies, and what holds its address for the other one is
/// redirected as well.
fn split(case: &Case<'_>, handed: &[Handed], refusals: &mut Vec<Refusal>) {
    let (comparer, base) = (case.comparer, case.comparer.base);
    let added: BTreeSet<_> = case.comparison.added.iter().copied().collect();
    let changed: BTreeSet<_> = case.redirected.iter().map(|(base, _)| *base).collect();
    let mut known = BTreeSet::new();
    for it in handed {
        let bodies = it.before.iter().map(|id| behind_thunk(case, *id));
        let bodies: BTreeSet<_> = bodies.filter(|id| changed.contains(id)).collect();
        for new in it.after.iter().filter(|id| added.contains(*id)) {
            let mut alike = bodies.iter().filter(|id| are_alike(comparer, **id, *new));
            let Some(body) = alike.next().filter(|body| known.insert((**body, *new))) else {
                continue;
            };
            let (name, new) = (base.display_name(*body), comparer.fixed.display_name(*new));
            let message = format!(
                "{name} stood for {new}, too, which did not change: what holds its address for that one \
                 is redirected as well"
            );
            let by = base.display_name(it.by);
            let evidence = format!("{by} hands out {new}, which has the body that {name} had");
            refusals.push(Refusal::new("HP018", name, message, evidence));
        }
    }
}

/// Lambdas that changed, of which only their order says which is which, and that a function hands out
/// which changed, too: where that exchanged them, what holds one goes on as the other one.
fn in_order(case: &Case<'_>, handed: &[Handed], refusals: &mut Vec<Refusal>) {
    let (pairing, base) = (case.comparer.pairing, case.comparer.base);
    let changed: BTreeSet<_> = case.redirected.iter().map(|(base, _)| *base).collect();
    let is_unsure = |id: &FunctionId<Base>| {
        let by_order = pairing.tier_of(*id) == Some(Tier::Order);
        let mut procedures = base.procedures_of(*id).iter();
        by_order
            && changed.contains(id)
            && procedures.any(|it| is_of_lambda(&it.name, it.decorated.as_deref()))
    };
    for it in handed {
        let lambdas: Vec<_> = it.before.iter().filter(|id| is_unsure(id)).collect();
        let [first, others @ ..] = &lambdas[..] else {
            continue;
        };
        if others.is_empty() {
            continue;
        }
        let (by, count) = (base.display_name(it.by), lambdas.len());
        let message = format!(
            "{by} hands out {count} lambdas that changed, and changed itself: they are taken to stand in \
             the order in which they stood"
        );
        let evidence = format!("the first of them is {}", base.display_name(**first));
        refusals.push(Refusal::new("HP042", by, message, evidence));
    }
}

/// The function that one leads to which only jumps there; any other itself.
fn behind_thunk(case: &Case<'_>, id: FunctionId<Base>) -> FunctionId<Base> {
    let base = case.comparer.base;
    let [only] = base.references_of(id) else {
        return id;
    };
    let is_all = only.offset == 0 && u32::from(only.length) == base.function(id).size;
    if !is_all || only.reference.kind != ReferenceKind::Jump {
        return id;
    }
    match case.comparer.in_base(only.reference.target) {
        Target::Function { id, offset: 0 } => id,
        _ => id,
    }
}

/// The functions whose addresses code of a function takes.
fn addresses<S: Side>(
    image: &Image<S>,
    function: FunctionId<S>,
    resolve: impl Fn(Rva<S>) -> Target<S>,
) -> BTreeSet<FunctionId<S>> {
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
