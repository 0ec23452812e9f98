//! What the COFF symbol table says of places in data, whatever of it is believed.

use hpbuild_metadata::{Rva, SectionOffset, Side};
use rustc_hash::{FxHashMap, FxHashSet};

use super::super::carve::find;
use super::sections::{CoffSymbol, POINTER};
use crate::image::Contribution;
use crate::names::is_itanium_vtable;
use crate::pe::Pe;

/// How names of tables of exceptions begin.
const EXCEPTIONS: &str = "GCC_except_table";

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
