//! What the COFF symbol table says of places, whatever of it is believed, and DWARF of texts.

use hpbuild_metadata::{Rva, SectionOffset, Side};
use rustc_hash::{FxHashMap, FxHashSet};

use super::super::carve::find;
use super::super::symbols::ModuleSymbols;
use super::Entries;
use super::sections::{CoffSymbol, POINTER};
use super::units::{Address, UnitFacts};
use crate::image::Contribution;
use crate::names::is_itanium_vtable;
use crate::pe::Pe;
use crate::types::Types;

/// How names of tables of exceptions begin.
const EXCEPTIONS: &str = "GCC_except_table";
/// How names of labels begin that assemblers keep for themselves.
const PRIVATE: &str = ".L";

/// Where something starts that has no name: what objects gave, and what the linker made.
pub(super) fn starts<S: Side>(pe: &Pe<S>, given: &[SectionOffset]) -> Vec<Rva<S>> {
    let given = given.iter().filter_map(|place| pe.rva_of_place(*place));
    let mut found: Vec<Rva<S>> = given.collect();
    for (start, size) in &pe.linker_tables {
        found.push(*start);
        found.extend(start.checked_add(*size));
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// The vtables of classes that one object knows, which GCC tells of by the COFF table alone. Several
/// objects may have one of a name; where nothing says whose is which, none is believed.
pub(super) fn own_vtables<S: Side>(
    pe: &Pe<S>,
    symbols: &[CoffSymbol],
    contributions: &[Contribution<S>],
) -> FxHashSet<SectionOffset> {
    let own = || {
        let own = symbols.iter().filter(|symbol| !symbol.global);
        own.filter(|symbol| is_itanium_vtable(&symbol.name))
    };
    let mut counts: FxHashMap<&str, u32> = FxHashMap::default();
    for symbol in own() {
        *counts.entry(&symbol.name).or_default() += 1;
    }
    let is_told = |symbol: &&CoffSymbol| {
        let giver = pe
            .rva_of_place(symbol.place)
            .and_then(|rva| find(contributions, rva));
        counts[&*symbol.name] == 1 || giver.is_some()
    };
    own().filter(is_told).map(|symbol| symbol.place).collect()
}

/// Where constants stand that one object names for itself. Tables of exceptions belong to functions.
pub(super) fn constants<S: Side>(
    pe: &Pe<S>,
    symbols: &[CoffSymbol],
    vtables: &FxHashSet<SectionOffset>,
) -> Vec<Rva<S>> {
    let is_own = |it: &&CoffSymbol| !it.global && !it.name.starts_with(EXCEPTIONS);
    let own = symbols.iter().filter(is_own);
    let own = own.filter(|symbol| !vtables.contains(&symbol.place));
    let places = own.filter_map(|symbol| pe.rva_of_place(symbol.place));
    let is_constant = |rva: &Rva<S>| {
        let section = pe.section_at(*rva);
        section.is_some_and(|section| !section.is_code() && !section.is_writable())
    };
    let mut found: Vec<Rva<S>> = places.filter(is_constant).collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// Whether a symbol names a part of what the linker made for the loader, wherever it put that: the
/// descriptors and lists of imports. Pointers to imports are in the program's use.
pub(super) fn is_linker_made<S: Side>(pe: &Pe<S>, symbol: &CoffSymbol) -> bool {
    let Some(rva) = pe.rva_of_place(symbol.place) else {
        return false;
    };
    let tables = &pe.linker_tables;
    let next = tables.partition_point(|(start, _)| *start <= rva);
    let table = next.checked_sub(1).and_then(|last| tables.get(last));
    let is_inside = table
        .is_some_and(|(start, size)| rva.checked_sub(*start).is_some_and(|offset| offset < *size));
    is_inside && !symbol.name.starts_with(POINTER)
}

/// Whether a symbol is a label of the assembler's own, which names neither code nor data. clang's are in
/// the table where sections refer to them: those before the room that it leaves before entries.
pub(super) fn is_private(symbol: &CoffSymbol) -> bool {
    !symbol.global && !symbol.is_function && symbol.name.starts_with(PRIVATE)
}

/// Takes away names of functions that are none. GNU ld marks both ends of sections that may be empty,
/// and of those that it leaves out (`__end__`, `___crt_xc_end__`), with what happens to stand there: the
/// first function, which another one is in the next build.
pub(super) fn drop_marks(symbols: &mut Vec<CoffSymbol>, modules: &[ModuleSymbols]) {
    let procedures = modules.iter().flat_map(|module| &module.procedures);
    let mut functions: FxHashSet<SectionOffset> = procedures.map(|it| it.place).collect();
    let typed = symbols.iter().filter(|symbol| symbol.is_function);
    functions.extend(typed.map(|symbol| symbol.place));
    symbols.retain(|it| it.is_function || !it.global || !functions.contains(&it.place));
}

/// Texts of the source, each with its bytes: clang describes them as constant arrays without a name.
/// Sorted.
pub(super) fn texts<S: Side>(
    pe: &Pe<S>,
    units: &[UnitFacts],
    entries: &Entries,
    types: &Types,
) -> Vec<(Rva<S>, u32)> {
    let variables = units.iter().flat_map(|unit| &unit.variables);
    let mut found: Vec<_> = variables
        .filter_map(|variable| {
            let Address::Virtual(address) = variable.address else {
                return None;
            };
            let described = entries.describe(variable.offset);
            if described.name.is_some() || described.linkage_name.is_some() {
                return None;
            }
            let size = types
                .size(described.ty)
                .filter(|_| types.is_array(described.ty))?;
            let rva = pe.rva_of(address)?;
            let section = pe.section_at(rva)?;
            let is_constant = !section.is_code() && !section.is_writable();
            let is_ended = pe.bytes(rva, size)?.last() == Some(&0);
            (is_constant && is_ended).then_some((rva, size))
        })
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}
