//! What symbols say, and what the code shows, to an [`Image`].

use std::sync::Arc;

use hpbuild_metadata::{Rva, Side};

use super::symbols::{ModuleSymbols, RawData, RawPublic, RawSwitchTable};
use super::{carve, data, image_relative, jump_tables, places, scan};
use crate::image::{Compiland, Contribution, Fixup, Function, Image, SwitchTable, SymbolSource};
use crate::pe::Pe;
use crate::records::CompilandStreams;
use crate::types::Types;

/// How far code without any record is followed through calls.
const MAX_UNNAMED_DEPTH: usize = 4;

/// What the symbols of an image say, wherever they come from.
pub(super) struct Symbols<S: Side> {
    pub(super) source: SymbolSource,
    /// For each compiland its symbols.
    pub(super) modules: Vec<ModuleSymbols>,
    pub(super) publics: Vec<RawPublic>,
    pub(super) globals: Vec<RawData>,
    pub(super) types: Types,
    pub(super) compilands: Vec<Compiland>,
    /// Sorted, disjoint.
    pub(super) contributions: Vec<Contribution<S>>,
    /// Sorted by place; none where nothing tells of them.
    pub(super) fixups: Vec<Fixup<S>>,
    /// From DWARF: (address, line), sorted by address; line 0 where nothing has one.
    pub(super) lines: Vec<(Rva<S>, u32)>,
    /// Names of source files, each with a zero at its end.
    pub(super) source_names: Box<[u8]>,
    /// Where further records of compilands are read.
    pub(super) streams: Option<Arc<CompilandStreams>>,
}

/// Puts an image together.
pub(super) fn assemble<S: Side>(pe: Pe<S>, symbols: Symbols<S>) -> Image<S> {
    let Symbols {
        mut compilands,
        mut modules,
        mut publics,
        globals,
        types,
        contributions,
        fixups,
        ..
    } = symbols;
    places::tell_apart(&mut compilands);
    let carved = carve::carve(&pe, &mut modules, &mut publics, &contributions, &types);
    let (mut functions, procedures) = (carved.functions, carved.procedures);
    let mut switch_tables = switch_tables(&pe, &modules);
    let data = data::data_symbols(
        &pe,
        &modules,
        (&globals, &publics),
        (&functions, &procedures),
        &contributions,
        &types,
    );
    let cold_parts = carve::cold_parts(&pe, &modules);
    let mut hotpatch_functions: Vec<_> = modules
        .into_iter()
        .flat_map(|module| module.hotpatch_functions)
        .collect();
    hotpatch_functions.sort();
    // What was read is part of the image now. It is freed before the code is scanned, which takes
    // most memory.
    drop((publics, globals));
    let scanned = scan_all(&pe, &fixups, &mut functions, &contributions);
    switch_tables.sort_by_key(|table| (table.table, table.branch));
    let image_relative = image_relative::places(&pe, &data, &fixups);
    let mut boundaries = data::boundaries(
        &pe,
        (&data, &image_relative),
        &contributions,
        &scanned,
        &switch_tables,
    );
    jump_tables::add(
        &pe,
        &functions,
        &scanned,
        &mut switch_tables,
        &mut boundaries,
    );
    Image {
        path: pe.path.clone(),
        symbols: symbols.source,
        pe,
        functions,
        procedures,
        mentions: carved.mentions,
        data,
        compilands,
        contributions,
        switch_tables,
        boundaries,
        hotpatch_functions,
        cold_parts,
        types,
        streams: symbols.streams,
        source_names: symbols.source_names,
        lines: symbols.lines,
        image_relative,
        fixups,
        relative_tables: scanned.relative_tables,
        references: scanned.references,
    }
}

/// Decodes all functions, and those without any record that they call, which may call more of
/// their kind.
fn scan_all<S: Side>(
    pe: &Pe<S>,
    fixups: &[Fixup<S>],
    functions: &mut Vec<Function<S>>,
    contributions: &[Contribution<S>],
) -> scan::Scanned<S> {
    let mut scanned = scan::scan(pe, fixups, functions);
    for _ in 0..MAX_UNNAMED_DEPTH {
        let called = carve::called(pe, functions, &scanned.unknown, contributions);
        if called.is_empty() {
            break;
        }
        functions.extend(called);
        functions.sort_by_key(|function| function.rva);
        scanned = scan::scan(pe, fixups, functions);
    }
    scanned
}

fn switch_tables<S: Side>(pe: &Pe<S>, modules: &[ModuleSymbols]) -> Vec<SwitchTable<S>> {
    let table = |raw: &RawSwitchTable| {
        Some(SwitchTable {
            table: pe.rva_of_place(raw.table)?,
            base: pe.rva_of_place(raw.base)?,
            branch: pe.rva_of_place(raw.branch)?,
            entry: raw.entry,
            count: raw.count,
        })
    };
    modules
        .iter()
        .flat_map(|module| &module.switch_tables)
        .filter_map(table)
        .collect()
}
