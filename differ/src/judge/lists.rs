//! Constants that are reached by their place alone: entries of a list that the linker gathers from
//! many objects. No code names them, so none changes when there is one more or one less, or when what
//! stands in them changes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use hpbuild_metadata::{Base, DataId, Fixed, Rva, Side};

use super::order::{self, Entry};
use super::{Case, Refusal};
use crate::decode::ReferenceKind;
use crate::image::{DataSymbol, Image};
use crate::meaning::{Comparer, Meaning, is_read_only, relative_entries};
use crate::pe::ExportTarget;

pub(super) fn judge(case: &Case<'_>, refusals: &mut Vec<Refusal>) {
    let comparer = case.comparer;
    let (base, fixed) = (comparer.base, comparer.fixed);
    let (before, after) = (order::lists(base), order::lists(fixed));
    for (name, before) in &before {
        let after = after.get(name).map_or(&[][..], Vec::as_slice);
        list(comparer, name, (before, after), refusals);
    }
    for (name, after) in &after {
        if !before.contains_key(name) {
            list(comparer, name, (&[], after), refusals);
        }
    }
    beside_lists(comparer, refusals);
}

/// What of a list is new, gone, changed, or in another order.
fn list(
    comparer: &Comparer<'_>,
    list: &str,
    (before, after): (&[Entry<'_, Base>], &[Entry<'_, Fixed>]),
    refusals: &mut Vec<Refusal>,
) {
    let (base, fixed) = (comparer.base, comparer.fixed);
    let mut refuse = |name: &str, message: String, evidence: String| {
        refusals.push(Refusal::new("HP038", name, message, evidence));
    };
    let named = |entry: &Entry<'_, Fixed>| comparer.base_data_of(entry.symbol?);
    let places: BTreeMap<DataId<Base>, usize> = (after.iter().map(named).enumerate())
        .filter_map(|(place, id)| Some((id?, place)))
        .collect();
    let mut stays = Vec::new();
    for entry in before {
        let Some(id) = entry.symbol else { continue };
        let symbol = base.data_symbol(id);
        let (name, shown) = (&*symbol.name, symbol.display());
        let evidence = format!("rva {} of the base", entry.rva);
        match places.get(&id) {
            None => refuse(
                name,
                format!("{shown} is gone from the list {list}"),
                evidence,
            ),
            // What is written while the program runs has a rule of its own.
            Some(_) if is_read_only(base, entry.rva) && !comparer.data_same(id) => {
                let message = format!("{shown} changed, an entry of the list {list}");
                refuse(name, message, evidence);
            }
            Some(place) => stays.push((*place, entry.origin, name)),
        }
    }
    for entry in after.iter().filter(|entry| named(entry).is_none()) {
        let Some(id) = entry.symbol else { continue };
        let symbol = fixed.data_symbol(id);
        let (name, shown) = (&*symbol.name, symbol.display());
        let evidence = format!("rva {} of the fixed image", entry.rva);
        refuse(name, format!("{shown} is new in the list {list}"), evidence);
    }
    let order: Vec<_> = stays
        .iter()
        .map(|(place, origin, _)| (*place, *origin))
        .collect();
    if let Some((first, second)) = order::swapped(&order) {
        let (first, second) = (stays[first].2, stays[second].2);
        let message = format!("the order of the list {list} changed");
        refuse(list, message, format!("{second} now stands before {first}"));
    }
    if let Some(evidence) = nameless(comparer, before, after) {
        refuse(
            list,
            format!("entries of the list {list} changed"),
            evidence,
        );
    }
}

/// How entries without a name differ, whatever their order. In a very long list those far apart are not brought together.
fn nameless(
    comparer: &Comparer<'_>,
    before: &[Entry<'_, Base>],
    after: &[Entry<'_, Fixed>],
) -> Option<String> {
    let before: Vec<_> = before.iter().filter(|it| it.symbol.is_none()).collect();
    let mut after: VecDeque<_> = after.iter().filter(|it| it.symbol.is_none()).collect();
    if before.len() != after.len() {
        let (before, after) = (before.len(), after.len());
        return Some(format!("{before} without a name before, {after} after"));
    }
    for entry in before {
        let is_same = |it: &&Entry<'_, Fixed>| {
            comparer.compare(entry.rva, it.rva, ReferenceKind::Address) == Meaning::Same
        };
        match after.iter().take(order::MAX_LIST).position(is_same) {
            Some(place) => after.remove(place),
            None => return Some(format!("that at rva {} of the base", entry.rva)),
        };
    }
    None
}

/// The same of lists that no group tells of: constants with addresses, and all data of sections that the
/// program named, that nothing reaches.
fn beside_lists(comparer: &Comparer<'_>, refusals: &mut Vec<Refusal>) {
    let new = lonely(comparer.fixed, |id| comparer.base_data_of(id).is_some());
    let gone = lonely(comparer.base, |id| comparer.fixed_data_of(id).is_some());
    let changed = lonely(comparer.base, |id| {
        let is_variable = || !is_read_only(comparer.base, comparer.base.data_symbol(id).rva);
        // The initial value of what may be written has a rule of its own.
        comparer.fixed_data_of(id).is_none() || is_variable() || comparer.data_same(id)
    });
    let (base, fixed) = (comparer.base, comparer.fixed);
    report(fixed, new, "is new", "of the fixed image", refusals);
    report(base, gone, "is gone", "of the base", refusals);
    report(base, changed, "changed", "of the base", refusals);
    changed_in_walked(comparer, refusals);
}

/// Changed constants that code names, in sections that the program named and in which something is
/// reached by its place alone: who walks there from one that it names would walk behind the copy of it.
fn changed_in_walked(comparer: &Comparer<'_>, refusals: &mut Vec<Refusal>) {
    let base = comparer.base;
    let section = |symbol: &DataSymbol<Base>| {
        let section = base.pe.section_at(symbol.rva)?;
        order::is_named_by_program(&section.name).then_some(&*section.name)
    };
    let changed = lonely(base, |id| {
        let symbol = base.data_symbol(id);
        let is_other = !is_read_only(base, symbol.rva) || section(symbol).is_none();
        is_other || comparer.fixed_data_of(id).is_none() || comparer.data_same(id)
    });
    if changed.is_empty() {
        return;
    }
    let reached = reached(base);
    let by_place = lonely(base, |id| section(base.data_symbol(id)).is_none());
    let by_place = by_place.into_iter().filter(|it| !is_reached(&reached, it));
    let walked: BTreeSet<&str> = by_place.filter_map(section).collect();
    // What nothing reaches is reported above.
    for symbol in changed.into_iter().filter(|it| is_reached(&reached, it)) {
        let Some(list) = section(symbol).filter(|it| walked.contains(it)) else {
            continue;
        };
        let message = format!(
            "{} changed, in the section {list} of which code reaches a part by its place alone",
            symbol.display()
        );
        let evidence = format!("rva {} of the base", symbol.rva);
        refusals.push(Refusal::new("HP038", &*symbol.name, message, evidence));
    }
}

/// Whether any of these places, which are sorted, lies in data.
fn is_reached<S: Side>(reached: &[Rva<S>], symbol: &DataSymbol<S>) -> bool {
    let next = reached.partition_point(|rva| *rva < symbol.rva);
    let at = reached
        .get(next)
        .and_then(|rva| rva.checked_sub(symbol.rva));
    at.is_some_and(|at| at < symbol.size)
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
    let symbols = symbols.into_iter();
    for symbol in symbols.filter(|it| !is_reached(&reached, it)) {
        let name = symbol.name.to_string();
        let message = format!(
            "{} {what}, and nothing reaches it but by its place",
            symbol.display()
        );
        let evidence = format!("rva {} {side}", symbol.rva);
        refusals.push(Refusal::new("HP038", name, message, evidence));
    }
}

/// Data with a type that may be entries, are in no list and not `settled`.
fn lonely<S: Side>(image: &Image<S>, settled: impl Fn(DataId<S>) -> bool) -> Vec<&DataSymbol<S>> {
    let listed = order::listed(image);
    let is_it = |id: &DataId<S>| {
        let symbol = image.data_symbol(*id);
        // The loader reaches these by directories, and what they hold has rules of its own.
        let is_directory = || {
            crate::names::is_linker_made(&symbol.name, symbol.type_index != 0)
                || &*symbol.name == "_tls_used"
        };
        symbol.sized_by_type
            && symbol.type_index != 0
            && may_be_entry(image, symbol)
            && !is_directory()
            && !listed.contains(id)
            && !settled(*id)
    };
    let ids = (0..image.data.len()).map(DataId::new);
    ids.filter(is_it).map(|id| image.data_symbol(id)).collect()
}

/// Whether the linker may have gathered data: constants with addresses in them, and whatever stands in
/// a section that the program named.
fn may_be_entry<S: Side>(image: &Image<S>, symbol: &DataSymbol<S>) -> bool {
    let section = image.pe.section_at(symbol.rva);
    let is_apart = || section.is_some_and(|it| order::is_named_by_program(&it.name));
    let has_addresses = || !image.pe.relocations_in(symbol.rva, symbol.size).is_empty();
    is_read_only(image, symbol.rva) && has_addresses() || is_apart()
}

/// Where the entries of tables of distances lead.
pub(super) fn by_distances<S: Side>(image: &Image<S>) -> impl Iterator<Item = Rva<S>> + '_ {
    let tables = image.relative_tables.iter();
    let entries = |table: &Rva<S>| relative_entries(&image.pe, &image.boundaries, *table);
    tables.filter_map(entries).flatten()
}

/// Where code, pointers and distances in data, and exports lead; sorted.
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
    let exports = image.pe.exports.iter().filter_map(|it| match it.target {
        ExportTarget::Rva(rva) => Some(rva),
        ExportTarget::Forward(_) => None,
    });
    let code = code.map(|placed| placed.reference.target);
    let all = code.chain(pointers).chain(relative).chain(exports);
    let all = all.chain(by_distances(image));
    let mut found: Vec<Rva<S>> = all.collect();
    found.sort_unstable();
    found
}
