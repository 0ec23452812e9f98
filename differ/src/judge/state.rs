//! Writable variables that changed and new functions reach and that only one side has, or that the
//! sides have in other places: what the process holds in them stays behind, or is another's.

use std::collections::{BTreeMap, BTreeSet};

use hpbuild_metadata::{Base, DataId, Fixed, FunctionId, Side};

use super::guards::is_guard;
use super::hidden::Hidden;
use super::{Case, Refusal, Severity, data_reached};
use crate::image::{DataSymbol, Image};
use crate::meaning::is_read_only;

/// All processes have one copy of the section (`winnt.h`).
const IMAGE_SCN_MEM_SHARED: u32 = 0x1000_0000;

pub(super) fn judge(case: &Case<'_>, refusals: &mut Vec<Refusal>) {
    let (base, fixed) = (case.comparer.base, case.comparer.fixed);
    let added = case.comparison.added.iter().copied();
    let after = case.redirected.iter().map(|(_, fixed)| *fixed).chain(added);
    let removed = case.comparison.removed.iter().copied();
    let before = case.redirected.iter().map(|(base, _)| *base).chain(removed);
    let has_partner = |id| case.comparer.fixed_data_of(id).is_some();
    let gone = reached(base, before, has_partner);
    let has_partner = |id| case.comparer.base_data_of(id).is_some();
    let new = reached(fixed, after, has_partner);
    let left = left_behind(case, &gone, &new);
    for id in gone {
        let symbol = base.data_symbol(id);
        let evidence = format!("rva {} of the base", symbol.rva);
        if case.comparer.pairing.is_doubtful_base(id) {
            refusals.push(doubtful(symbol, evidence));
            continue;
        }
        let message = format!("{} is gone", symbol.display());
        refusals.push(Refusal::new("HP032", &*symbol.name, message, evidence));
    }
    let hidden = (!new.is_empty()).then(|| Hidden::new(case));
    for id in new {
        let symbol = fixed.data_symbol(id);
        let (name, shown) = (&*symbol.name, symbol.display());
        let evidence = format!(
            "rva {} of the fixed image, {} bytes",
            symbol.rva, symbol.size
        );
        if case.comparer.pairing.is_doubtful_fixed(id) {
            refusals.push(doubtful(symbol, evidence));
            continue;
        }
        if let Some(finding) = hidden.as_ref().and_then(|it| it.finding(id)) {
            refusals.push(finding);
            continue;
        }
        let section = fixed.pe.section_at(symbol.rva);
        if section.is_some_and(|it| it.characteristics & IMAGE_SCN_MEM_SHARED != 0) {
            let message = format!(
                "{shown} is new in a section that all processes share, and no section of a patch is"
            );
            let mut refusal = Refusal::new("HP032", name, message, evidence);
            refusal.severity = Severity::Refuse;
            refusals.push(refusal);
            continue;
        }
        let message = format!("{shown} is new and will live in the patch");
        let mut refusal = Refusal::new("HP032", name, message, evidence);
        if let Some(olds) = left.get(&id) {
            let old = some_of(olds.iter().map(|old| base.data_symbol(*old).display()));
            refusal.severity = Severity::Warn;
            refusal.message = format!(
                "{shown} is new and will live in the patch, perhaps for {old}: what the process holds \
                 there is lost"
            );
        }
        refusals.push(refusal);
    }
    moved(case, refusals);
}

/// A variable that may be one of the other image that has its name, and would lose what it holds.
fn doubtful<S: Side>(symbol: &DataSymbol<S>, evidence: String) -> Refusal {
    let shown = symbol.display();
    let message =
        format!("nothing tells which variable of its name in the other image {shown} is, if any");
    Refusal::new("HP028", &*symbol.name, message, evidence)
}

/// The first of these names, and how many there are behind.
fn some_of(names: impl ExactSizeIterator<Item = String>) -> String {
    const SHOWN: usize = 3;
    let further = names.len().saturating_sub(SHOWN);
    let shown: Vec<_> = names.take(SHOWN).collect();
    let rest = match further {
        0 => String::new(),
        count => format!(" and {count} more"),
    };
    shown.join(", ") + &rest
}

/// For new variables those that are gone and whose place they seem to take: parts of one variable
/// that the compiler has cut up, the only ones of their type that a function has before and after, or
/// else all those that a function has no more which has the new one now.
fn left_behind(
    case: &Case<'_>,
    gone: &BTreeSet<DataId<Base>>,
    new: &BTreeSet<DataId<Fixed>>,
) -> BTreeMap<DataId<Fixed>, BTreeSet<DataId<Base>>> {
    let (base, fixed) = (case.comparer.base, case.comparer.fixed);
    let mut found: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    if gone.is_empty() || new.is_empty() {
        return found;
    }
    let mut parts: BTreeMap<&str, DataId<Base>> = BTreeMap::new();
    for id in gone {
        if let Some(whole) = part_of(&base.data_symbol(*id).name) {
            parts.entry(whole).or_insert(*id);
        }
    }
    for id in new {
        let whole = part_of(&fixed.data_symbol(*id).name);
        if let Some(old) = whole.and_then(|whole| parts.get(whole)) {
            found.insert(*id, [*old].into());
        }
    }
    let mut others: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for (b, f) in &case.redirected {
        let before = reached(base, [*b].into_iter(), |id| !gone.contains(&id));
        let after = reached(fixed, [*f].into_iter(), |id| !new.contains(&id));
        for id in after {
            let symbol = fixed.data_symbol(id);
            let is_like = |old: &&DataId<Base>| {
                let old = base.data_symbol(**old);
                let types = (old.type_index, symbol.type_index);
                old.size == symbol.size
                    && base.types.named_hash(types.0) == fixed.types.named_hash(types.1)
            };
            let mut like = before.iter().filter(is_like);
            if let (Some(old), None) = (like.next(), like.next()) {
                found.entry(id).or_insert_with(|| [*old].into());
            } else if !is_any_guard(symbol) {
                let old = before
                    .iter()
                    .filter(|id| !is_any_guard(base.data_symbol(**id)));
                others.entry(id).or_default().extend(old.copied());
            }
        }
    }
    others.retain(|_, old| !old.is_empty());
    for (id, old) in others {
        found.entry(id).or_insert(old);
    }
    found
}

/// Whether this is the guard of another variable, in either C++ ABI.
fn is_any_guard<S: Side>(symbol: &DataSymbol<S>) -> bool {
    is_guard(symbol)
        || symbol
            .decorated
            .as_deref()
            .unwrap_or(&symbol.name)
            .starts_with("_ZGV")
}

/// The variable of which this is a part, by the name that LLVM gives to parts: `state.0`.
fn part_of(name: &str) -> Option<&str> {
    let (whole, number) = name.rsplit_once('.')?;
    let is_number = !number.is_empty() && number.bytes().all(|it| it.is_ascii_digit());
    (is_number && !whole.is_empty()).then_some(whole)
}

/// Static variables that were paired by their name alone, and are of another source or function now.
fn moved(case: &Case<'_>, refusals: &mut Vec<Refusal>) {
    let (base, fixed) = (case.comparer.base, case.comparer.fixed);
    if case.redirected.is_empty() {
        return;
    }
    let reached = case.reached_after();
    let mut last = None;
    for (symbol, partner) in case.data_of_both() {
        let is_static = !symbol.global && !partner.global && symbol.type_index != 0;
        let is_variable = !is_read_only(base, symbol.rva) && !symbol.thread_local;
        if !is_static || !is_variable || !reached.contains(&partner.rva) {
            continue;
        }
        let (before, after) = (home(base, symbol), home(fixed, partner));
        let is_same_function = partner.parents.iter().any(|after| {
            let before = case.comparer.pairing.base_procedure(*after);
            before.is_some_and(|before| symbol.parents.contains(&before))
        });
        let is_told = symbol.declared_in.is_some() && symbol.declared_in == partner.declared_in;
        if is_same_function
            || is_told
            || before == after
            || last.replace(symbol.rva) == Some(symbol.rva)
        {
            continue;
        }
        let message = format!(
            "{} moved, and goes on with what the base has under that name",
            symbol.display()
        );
        let evidence = format!("of {before} before, of {after} after");
        let mut refusal = Refusal::new("HP032", &*symbol.name, message, evidence);
        refusal.severity = Severity::Warn;
        refusals.push(refusal);
    }
}

/// The function or the source that a variable is of.
fn home<S: Side>(image: &Image<S>, symbol: &DataSymbol<S>) -> String {
    let function = symbol.parents.first();
    let function = function.and_then(|index| image.procedures.get(*index as usize));
    if let Some(function) = function {
        return function.display();
    }
    let compiland = symbol
        .compiland
        .and_then(|id| image.compilands.get(id.index()));
    compiland.map_or_else(String::new, |it| it.place.to_string())
}

/// The writable variables without a partner that these functions reach, in address order.
fn reached<S: Side>(
    image: &Image<S>,
    functions: impl Iterator<Item = FunctionId<S>>,
    has_partner: impl Fn(DataId<S>) -> bool,
) -> BTreeSet<DataId<S>> {
    let is_lone = |id: &DataId<S>| {
        let symbol = image.data_symbol(*id);
        !symbol.thread_local && !is_read_only(image, symbol.rva) && !has_partner(*id)
    };
    data_reached(image, functions).filter(is_lone).collect()
}
