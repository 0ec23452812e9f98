//! Rules about functions: folding, signatures, what went, what could not be told apart.

use rayon::prelude::*;
use rustc_hash::FxHashSet;

use super::{Case, Refusal, handed, initialisers, once};
use crate::compare::{Doubt, Unknown};
use crate::meaning::{Target, is_read_only, resolve};
use crate::types::difference;

/// Names of a folded body that a message shows.
const SHOWN: usize = 8;

pub(super) fn judge(case: &Case<'_>) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    folded(case, &mut refusals);
    signatures(case, &mut refusals);
    initialisers::judge(case, &mut refusals);
    once::judge(case, &mut refusals);
    handed::judge(case, &mut refusals);
    let (base, fixed) = (case.comparer.base, case.comparer.fixed);
    for id in &case.comparison.removed {
        let name = base.display_name(*id);
        let evidence = format!("rva {} of the base", base.function(*id).rva);
        refusals.push(Refusal::new(
            "HP020",
            name.clone(),
            format!("{name} is gone"),
            evidence,
        ));
    }
    for id in &case.comparison.unmatched_base {
        let evidence = format!("rva {} of the base", base.function(*id).rva);
        refusals.push(ambiguous(base.display_name(*id), evidence));
    }
    for id in &case.comparison.unmatched_fixed {
        let evidence = format!("rva {} of the fixed image", fixed.function(*id).rva);
        refusals.push(ambiguous(fixed.display_name(*id), evidence));
    }
    for unknown in &case.comparison.unknown {
        let name = base.display_name(unknown.base);
        let what = match unknown.doubt {
            Doubt::Meaning if reaches_nameless(case, unknown) => {
                "an operand points to writable data without a name, and variables of its kind came or \
                 went: guards, or parts of static structures that the optimiser took apart (which \
                 stay whole with __attribute__((used)))"
            }
            Doubt::Meaning => "an operand points to something that is not understood",
            Doubt::Extent(_) => {
                "it takes the address of constants without a name, and what stands beside them, \
                 perhaps a part of them, changed"
            }
            Doubt::Index(_) => {
                "it adds an index to an address that may lie before the table it counts into, and \
                 what stands behind that address changed"
            }
        };
        let message = format!("{name}: {what}");
        let mut evidence = format!("{name}+{:#x}", unknown.offset);
        match unknown.doubt {
            Doubt::Meaning => {}
            Doubt::Extent(rva) => {
                evidence = format!("{evidence}, constants at rva {rva} of the base");
            }
            Doubt::Index(data) => {
                evidence = format!("{evidence}, {}", base.data_symbol(data).display());
            }
        }
        refusals.push(Refusal::new("HP029", name, message, evidence));
    }
    refusals
}

/// Whether the operand that is not understood points to writable data of the base without a name.
fn reaches_nameless(case: &Case<'_>, unknown: &Unknown) -> bool {
    let base = case.comparer.base;
    let placed = base.references_of(unknown.base).iter();
    let mut here = placed.filter(|placed| placed.offset == unknown.offset);
    here.any(|placed| match resolve(base, placed.reference.target) {
        Target::Anonymous(rva) => base.pe.section_at(rva).is_some() && !is_read_only(base, rva),
        _ => false,
    })
}

fn ambiguous(name: String, evidence: String) -> Refusal {
    let message = format!("{name} has namesakes that could not be told apart");
    Refusal::new("HP028", name, message, evidence)
}

/// A changed body with several names, whose names do not all lead to the same new body.
fn folded(case: &Case<'_>, refusals: &mut Vec<Refusal>) {
    let (base, pairing) = (case.comparer.base, case.comparer.pairing);
    let mut last = None;
    for (id, partner) in &case.redirected {
        if last.replace(*id) == Some(*id) {
            continue;
        }
        let range = base.function(*id).procedures.clone();
        let partners = pairing.fixed_functions(*id).count();
        let unpaired = range
            .clone()
            .filter(|i| pairing.fixed_procedure(*i).is_none())
            .count();
        if range.len() < 2 || (partners == 1 && unpaired == 0) {
            continue;
        }
        let (name, _) = pairing.shown_names((base, *id), (case.comparer.fixed, *partner));
        let procedures = base.procedures_of(*id);
        let mut names: Vec<_> = procedures
            .iter()
            .map(|procedure| procedure.display())
            .collect();
        names.sort();
        let shown = names
            .iter()
            .take(SHOWN)
            .cloned()
            .collect::<Vec<_>>()
            .join(", ");
        let more = match names.len().saturating_sub(SHOWN) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        refusals.push(Refusal::new(
            "HP018",
            name.clone(),
            format!("{name} shares its body with functions that did not change alike"),
            format!("rva {}: {shown}{more}", base.function(*id).rva),
        ));
    }
}

/// Paired procedures whose types differ. Where a side has no type, nothing can be said.
fn signatures(case: &Case<'_>, refusals: &mut Vec<Refusal>) {
    let (base, fixed) = (case.comparer.base, case.comparer.fixed);
    let paired = (0_u32..).zip(&base.procedures);
    let typed = paired.filter_map(|(index, procedure)| {
        let (partner, _) = case.comparer.pairing.fixed_procedure(index)?;
        let types = (
            procedure.type_index,
            fixed.procedures[partner as usize].type_index,
        );
        (types.0 != 0 && types.1 != 0).then_some((procedure, types))
    });
    // Most functions share their type with others.
    let pairs: FxHashSet<(u32, u32)> = typed.clone().map(|(_, types)| types).collect();
    let differ = |(before, after): &(u32, u32)| {
        base.types.layout_hash(*before) != fixed.types.layout_hash(*after)
    };
    let differing: FxHashSet<_> = pairs.into_par_iter().filter(differ).collect();
    if differing.is_empty() {
        return;
    }
    for (procedure, types) in typed.filter(|(_, types)| differing.contains(types)) {
        let name = procedure.display();
        let message = format!("{name}: its parameters, result or calling convention changed");
        let (before, after) = (base.types.parts(types.0), fixed.types.parts(types.1));
        let evidence = difference(&before, &after);
        let evidence = evidence.unwrap_or_else(|| "the records of its type".to_owned());
        refusals.push(Refusal::new("HP021", name, message, evidence));
    }
}
