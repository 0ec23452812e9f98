//! Constants that are reached by their place alone: entries of a list that the linker gathers from
//! many objects. No code names them, so none changes when there is one more or one less.

use hpbuild_metadata::{DataId, Rva, Side};

use super::{Case, Refusal};
use crate::decode::ReferenceKind;
use crate::image::{DataSymbol, Image};
use crate::meaning::is_read_only;

pub(super) fn judge(case: &Case<'_>, refusals: &mut Vec<Refusal>) {
    let comparer = case.comparer;
    let new = unpaired(comparer.fixed, |id| comparer.base_data_of(id).is_some());
    let gone = unpaired(comparer.base, |id| comparer.fixed_data_of(id).is_some());
    report(
        comparer.fixed,
        new,
        "is new",
        "of the fixed image",
        refusals,
    );
    report(comparer.base, gone, "is gone", "of the base", refusals);
}

fn report<S: Side>(
    image: &Image<S>,
    symbols: Vec<&DataSymbol<S>>,
    what: &str,
    side: &str,
    refusals: &mut Vec<Refusal>,
) {
    if symbols.is_empty() {
        return;
    }
    let reached = reached(image);
    let is_reached = |symbol: &&DataSymbol<S>| {
        let next = reached.partition_point(|rva| *rva < symbol.rva);
        let at = reached
            .get(next)
            .and_then(|rva| rva.checked_sub(symbol.rva));
        at.is_some_and(|at| at < symbol.size)
    };
    for symbol in symbols.into_iter().filter(|symbol| !is_reached(symbol)) {
        let name = symbol.name.to_string();
        let message = format!("{name} {what}, and nothing reaches it but by its place in a list");
        let evidence = format!("rva {} {side}", symbol.rva);
        refusals.push(Refusal::new("HP038", name, message, evidence));
    }
}

/// Constants with a type and with addresses in them that have no partner.
fn unpaired<S: Side>(
    image: &Image<S>,
    has_partner: impl Fn(DataId<S>) -> bool,
) -> Vec<&DataSymbol<S>> {
    let is_it = |id: &DataId<S>| {
        let symbol = image.data_symbol(*id);
        // The loader reaches these by directories, and what they hold has rules of its own.
        let is_directory =
            crate::names::is_linker_made(&symbol.name) || &*symbol.name == "_tls_used";
        symbol.sized_by_type
            && !is_directory
            && symbol.type_index != 0
            && is_read_only(image, symbol.rva)
            && !image.pe.relocations_in(symbol.rva, symbol.size).is_empty()
            && !has_partner(*id)
    };
    let ids = (0..image.data.len()).map(DataId::new);
    ids.filter(is_it).map(|id| image.data_symbol(id)).collect()
}

/// Where code and pointers in data lead; sorted.
fn reached<S: Side>(image: &Image<S>) -> Vec<Rva<S>> {
    let code = image.function_ids().flat_map(|id| image.references_of(id));
    let code = code.filter(|placed| placed.reference.kind != ReferenceKind::Page);
    let pointers = image.pe.base_relocations.iter().filter_map(|place| {
        let word = image.pe.bytes(*place, 8)?.first_chunk()?;
        image.pe.rva_of(u64::from_le_bytes(*word))
    });
    let relative = image.image_relative.iter().filter_map(|place| {
        let word = image.pe.bytes(*place, 4)?.first_chunk()?;
        Some(Rva::new(u32::from_le_bytes(*word)))
    });
    let code = code.map(|placed| placed.reference.target);
    let mut found: Vec<Rva<S>> = code.chain(pointers).chain(relative).collect();
    found.sort_unstable();
    found
}
