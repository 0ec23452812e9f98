//! Named data, and the boundaries that tell unnamed data apart.

use hpbuild_metadata::{CompilandId, Rva, Side};
use rustc_hash::FxHashSet;

use super::carve::find;
use super::image_relative::{Told, is_locator};
use super::reach::{Known, size_the_rest};
use super::scan::Scanned;
use super::symbols::{ModuleSymbols, RawData, RawPublic};
use crate::image::{Contribution, DataSymbol, Function, Procedure, SwitchTable};
use crate::meaning::relative_entries;
use crate::names::{is_bound, is_named_vtable};
use crate::pe::Pe;
use crate::types::Types;

/// The data symbols of an image, sorted by address; of several names of one address those with a
/// type come first.
pub(super) fn data_symbols<S: Side>(
    pe: &Pe<S>,
    modules: &[ModuleSymbols],
    (globals, publics): (&[RawData], &[RawPublic]),
    code: (&[Function<S>], &[Procedure]),
    known: Known<'_, S>,
    types: &Types,
) -> Vec<DataSymbol<S>> {
    let mut symbols = Vec::new();
    let mut add = |raw: &RawData, parent: Option<u32>| {
        let Some(rva) = pe.rva_of_place(raw.place) else {
            return;
        };
        let told = raw.compiland.map(|index| CompilandId::new(index as usize));
        let given = || find(known.contributions, rva).map(|contribution| contribution.compiland);
        // A vtable is typed as the pointer that leads to it.
        let type_index = match is_named_vtable(&raw.name) {
            true => 0,
            false => raw.type_index,
        };
        let size = types
            .size(type_index)
            .filter(|_| !types.is_open_ended(type_index));
        symbols.push(DataSymbol {
            rva,
            size: size.unwrap_or(0),
            sized_by_type: size.is_some(),
            name: raw.name.clone(),
            decorated: None,
            compiland: told.or_else(given),
            parents: parent.into_iter().collect(),
            declared_in: raw.declared_in.clone().or_else(|| {
                let inlinee = (raw.inlinee != 0).then(|| types.item_name(raw.inlinee));
                Some(inlinee??.into())
            }),
            global: raw.global,
            thread_local: raw.thread_local,
            type_index,
        });
    };
    for module in modules {
        for raw in &module.data {
            let procedure = raw
                .parent
                .and_then(|index| module.procedures.get(index as usize));
            let parent = procedure.and_then(|procedure| {
                procedure_at(code, pe.rva_of_place(procedure.place)?, &procedure.name)
            });
            add(raw, parent);
        }
    }
    globals.iter().for_each(|raw| add(raw, None));
    // The global stream repeats what compilands say; theirs come first and know the parent.
    symbols.sort_by(|a, b| (a.rva, &a.name).cmp(&(b.rva, &b.name)));
    symbols.dedup_by(|later, first| {
        let same = later.rva == first.rva && later.name == first.name;
        if same {
            first.parents.append(&mut later.parents);
            first.declared_in = first.declared_in.take().or(later.declared_in.take());
        }
        same
    });
    add_publics(pe, publics, known.contributions, &mut symbols);
    name_delay_descriptors(pe, &mut symbols);
    symbols.sort_by(|a, b| {
        (a.rva, !a.sized_by_type, &a.name).cmp(&(b.rva, !b.sized_by_type, &b.name))
    });
    size_the_rest(pe, known, &mut symbols);
    symbols
}

/// The procedure of this name and entry, to which a static local belongs; of several the last.
fn procedure_at<S: Side>(
    (functions, procedures): (&[Function<S>], &[Procedure]),
    rva: Rva<S>,
    name: &str,
) -> Option<u32> {
    let function = functions.binary_search_by_key(&rva, |it| it.rva).ok()?;
    let mut own = functions[function].procedures.clone().rev();
    own.find(|index| *procedures[*index as usize].name == *name)
}

/// Gives symbols their linkage names, and adds publics that no record knows.
fn add_publics<S: Side>(
    pe: &Pe<S>,
    publics: &[RawPublic],
    contributions: &[Contribution<S>],
    symbols: &mut Vec<DataSymbol<S>>,
) {
    let known = symbols.len();
    for public in publics {
        let Some(rva) = pe.rva_of_place(public.place) else {
            continue;
        };
        // Names of places, where the first variable stands that may have no name.
        if is_bound(&public.name) {
            continue;
        }
        // The end of a list may be the end of its section, too.
        let last = rva.get().checked_sub(1).map(Rva::new);
        let section = pe.section_at(rva).or_else(|| pe.section_at(last?));
        if section.is_none_or(|section| section.is_code()) {
            continue;
        }
        let start = symbols[..known].partition_point(|symbol| symbol.rva < rva);
        let end = symbols[..known].partition_point(|symbol| symbol.rva <= rva);
        let here = &mut symbols[start..end];
        let count = here.len();
        let matching = here.iter_mut().find(|symbol| {
            // The only record of an address has its mangled name, however that is written.
            symbol.decorated.is_none()
                && (count == 1 && crate::names::is_mangled(&public.name)
                    || crate::names::matches(&public.name, &symbol.name))
        });
        if let Some(symbol) = matching {
            symbol.decorated = Some(public.name.clone());
            if is_named_vtable(&symbol.name) {
                symbol.name = public.name.clone();
            }
            continue;
        }
        symbols.push(DataSymbol {
            rva,
            size: 0,
            sized_by_type: false,
            name: public.name.clone(),
            decorated: Some(public.name.clone()),
            compiland: find(contributions, rva).map(|contribution| contribution.compiland),
            parents: Vec::new(),
            declared_in: None,
            global: true,
            thread_local: false,
            type_index: 0,
        });
    }
}

/// Names the descriptors of DLLs that are loaded late as link.exe does, where the linker did not:
/// the thunks of those DLLs reach them, and they say nothing that the imports do not.
fn name_delay_descriptors<S: Side>(pe: &Pe<S>, symbols: &mut Vec<DataSymbol<S>>) {
    if pe.delay_descriptors.is_empty() {
        return;
    }
    let named: FxHashSet<Rva<S>> = symbols.iter().map(|symbol| symbol.rva).collect();
    for (rva, dll) in &pe.delay_descriptors {
        if named.contains(rva) {
            continue;
        }
        let dll = dll.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
        let name = format!("__DELAY_IMPORT_DESCRIPTOR_{dll}");
        symbols.push(DataSymbol {
            rva: *rva,
            size: 0,
            sized_by_type: false,
            name: name.into(),
            decorated: None,
            compiland: None,
            parents: Vec::new(),
            declared_in: None,
            global: true,
            thread_local: false,
            type_index: 0,
        });
    }
}

/// Where in data something starts, for telling apart what has no name.
pub(super) struct Boundaries<S: Side> {
    /// Everywhere; sorted, unique.
    pub(super) all: Vec<Rva<S>>,
    /// Where something else tells than that code or a pointer reaches it, which may reach into the
    /// middle of a thing; sorted, unique.
    pub(super) certain: Vec<Rva<S>>,
}

/// Every address in data where something starts.
pub(super) fn boundaries<S: Side>(
    pe: &Pe<S>,
    (data, told): (&[DataSymbol<S>], &Told<S>),
    (contributions, starts): (&[Contribution<S>], &[Rva<S>]),
    scanned: &Scanned<S>,
    switch_tables: &[SwitchTable<S>],
) -> Boundaries<S> {
    let mut certain: Vec<Rva<S>> = data.iter().map(|symbol| symbol.rva).collect();
    for contribution in contributions {
        certain.push(contribution.rva);
        certain.extend(contribution.rva.checked_add(contribution.size));
    }
    certain.extend(starts);
    certain.extend(&scanned.relative_tables);
    let mut reached = scanned.reached.clone();
    // Behind what has a name and a type may be what has none.
    let typed = data.iter().filter(|symbol| symbol.sized_by_type);
    reached.extend(typed.filter_map(|symbol| symbol.rva.checked_add(symbol.size)));
    for place in &pe.base_relocations {
        let address = pe.bytes(*place, 8).and_then(|bytes| bytes.first_chunk());
        let target = address.and_then(|bytes| pe.rva_of(u64::from_le_bytes(*bytes)));
        reached.extend(target);
        // The pointer to what a vtable says of its object stands before the vtable.
        let is_locator = target.is_some_and(|it| is_locator(pe, it));
        certain.extend(target.filter(|_| is_locator));
        certain.extend(is_locator.then_some(*place));
    }
    certain.extend(&told.ends);
    for place in &told.places {
        let distance = pe.bytes(*place, 4).and_then(|bytes| bytes.first_chunk());
        certain.extend(distance.map(|word| Rva::new(u32::from_le_bytes(*word))));
    }
    for table in switch_tables {
        certain.push(table.table);
        let bytes = table.count.saturating_mul(table.entry.size.into());
        certain.extend(table.table.checked_add(bytes));
    }
    let certain = in_data(pe, certain);
    reached.extend(&certain);
    let mut all = in_data(pe, reached);
    // What tables lead to starts something, too; the tables' own ends are told by the rest.
    let entries = |table: &Rva<S>| relative_entries(pe, &all, *table);
    let tables = scanned.relative_tables.iter();
    let led_to: Vec<Rva<S>> = tables.filter_map(entries).flatten().collect();
    if !led_to.is_empty() {
        all.extend(led_to);
        all = in_data(pe, all);
    }
    Boundaries { all, certain }
}

/// The addresses that lie in data, sorted and unique.
fn in_data<S: Side>(pe: &Pe<S>, mut found: Vec<Rva<S>>) -> Vec<Rva<S>> {
    found.retain(|rva| is_in_data(pe, *rva));
    // Much of it is in order already, piece by piece, which the stable sort makes use of.
    found.sort();
    found.dedup();
    found
}

fn is_in_data<S: Side>(pe: &Pe<S>, rva: Rva<S>) -> bool {
    pe.section_at(rva).is_some_and(|section| !section.is_code())
}
