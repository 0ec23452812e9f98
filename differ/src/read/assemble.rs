//! What symbols say, and what the code shows, to an [`Image`].

use std::borrow::Cow;
use std::sync::Arc;

use hpbuild_metadata::{Base, Fixed, Machine, Rva, Side};

use super::alike::Decoded;
use super::scan::Scanned;
use super::symbols::{ModuleSymbols, RawData, RawGroup, RawPublic, RawSwitchTable};
use super::{
    alike, carve, data, image_relative, jump_tables, places, reach, runtime, scan, source_places,
    table_jumps,
};
use crate::decode::TableJump;
use crate::image::{
    Compiland, Contribution, DataSymbol, Fixup, Function, Group, Image, Mention, Procedure,
    RuntimeLists, SwitchTable, SymbolSource,
};
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
    /// Names and values of enumerators whose enumerations are not told.
    pub(super) enumerators: Vec<(Box<str>, i128)>,
    pub(super) types: Types,
    pub(super) compilands: Vec<Compiland>,
    /// Sorted, disjoint.
    pub(super) contributions: Vec<Contribution<S>>,
    /// Where else in data something of another origin starts, beside symbols and contributions;
    /// sorted.
    pub(super) starts: Vec<Rva<S>>,
    /// Places of constants whose symbols tell no size; sorted.
    pub(super) constants: Vec<Rva<S>>,
    /// Texts without a name whose size is told: (start, bytes), sorted.
    pub(super) texts: Vec<(Rva<S>, u32)>,
    /// The symbols that tell of the lists of a runtime.
    pub(super) lists: Vec<runtime::Named>,
    /// Sorted by place; none where nothing tells of them.
    pub(super) fixups: Vec<Fixup<S>>,
    /// From DWARF: (address, line), sorted by address; line 0 where nothing has one.
    pub(super) lines: Vec<(Rva<S>, u32)>,
    /// Names of source files, each with a zero at its end.
    pub(super) source_names: Box<[u8]>,
    /// Where further records of compilands are read.
    pub(super) streams: Option<Arc<CompilandStreams>>,
}

/// An image whose code was not looked at yet.
#[derive(Debug)]
pub(crate) struct Unscanned<S: Side> {
    pe: Pe<S>,
    source: SymbolSource,
    functions: Vec<Function<S>>,
    procedures: Vec<Procedure>,
    mentions: Vec<Mention>,
    data: Vec<DataSymbol<S>>,
    compilands: Vec<Compiland>,
    contributions: Vec<Contribution<S>>,
    starts: Vec<Rva<S>>,
    constants: Vec<Rva<S>>,
    texts: Vec<(Rva<S>, u32)>,
    switch_tables: Vec<SwitchTable<S>>,
    table_jumps: Vec<TableJump<S>>,
    hotpatch_functions: Vec<Box<str>>,
    cold_parts: Vec<(Rva<S>, Rva<S>)>,
    bodiless: Vec<Box<str>>,
    groups: Vec<Group<S>>,
    runtime: RuntimeLists<S>,
    enumerators: Vec<(Box<str>, i128)>,
    types: Types,
    streams: Option<Arc<CompilandStreams>>,
    source_names: Box<[u8]>,
    lines: Vec<(Rva<S>, u32)>,
    fixups: Vec<Fixup<S>>,
}

impl<S: Side> Unscanned<S> {
    /// Puts in order what symbols say.
    pub(super) fn new(pe: Pe<S>, symbols: Symbols<S>) -> Self {
        let Symbols {
            mut compilands,
            mut modules,
            mut publics,
            globals,
            types,
            contributions,
            starts,
            constants,
            lists,
            ..
        } = symbols;
        let runtime = runtime::lists(&pe, &lists);
        places::tell_apart(&mut compilands);
        let carved = carve::carve(&pe, &mut modules, &mut publics, &contributions, &types);
        let mut switch_tables = switch_tables(&pe, &modules);
        switch_tables.sort_by_key(|table| (table.table, table.branch));
        let table_jumps = table_jumps::table_jumps(&pe, &switch_tables);
        let data = data::data_symbols(
            &pe,
            &modules,
            (&globals, &publics),
            (&carved.functions, &carved.procedures),
            reach::Known {
                contributions: &contributions,
                starts: &starts,
                constants: &constants,
            },
            &types,
        );
        let cold_parts = carve::cold_parts(&pe, &modules);
        let groups = groups(&pe, &modules);
        let bodiless = modules
            .iter_mut()
            .map(|it| std::mem::take(&mut it.bodiless));
        let mut bodiless: Vec<_> = bodiless.flatten().collect();
        bodiless.sort_unstable();
        bodiless.dedup();
        let hotpatch_functions = modules.into_iter().flat_map(|it| it.hotpatch_functions);
        let mut hotpatch_functions: Vec<_> = hotpatch_functions.collect();
        hotpatch_functions.sort();
        Self {
            pe,
            source: symbols.source,
            functions: carved.functions,
            procedures: carved.procedures,
            mentions: carved.mentions,
            data,
            compilands,
            contributions,
            starts,
            constants,
            texts: symbols.texts,
            switch_tables,
            table_jumps,
            hotpatch_functions,
            cold_parts,
            bodiless,
            groups,
            runtime,
            enumerators: symbols.enumerators,
            types,
            streams: symbols.streams,
            source_names: symbols.source_names,
            lines: symbols.lines,
            fixups: symbols.fixups,
        }
    }

    /// The machine, and the word for where its symbols come from.
    pub(crate) fn kind(&self) -> (Machine, &'static str) {
        (self.pe.machine, self.source.name())
    }

    /// Decodes all functions, and those without any record that they call, which may call more of
    /// their kind: with these the functions are returned, where there are any. What is the same in
    /// `other` is not decoded again.
    fn scan<O: Side>(
        &self,
        other: Option<&Decoded<'_, O>>,
    ) -> (Scanned<S>, Option<Vec<Function<S>>>) {
        // The linker's record says more than the code does.
        let other = other.filter(|_| self.fixups.is_empty());
        let scan = |functions: &[Function<S>]| {
            let functions = (functions, &*self.procedures);
            let known = (&*self.fixups, &*self.table_jumps);
            scan::scan(&self.pe, known, functions, other)
        };
        let mut functions = Cow::Borrowed(&*self.functions);
        let mut scanned = scan(&functions);
        for _ in 0..MAX_UNNAMED_DEPTH {
            let called = carve::called(&self.pe, &functions, &scanned.unknown, &self.contributions);
            if called.is_empty() {
                break;
            }
            let all = functions.to_mut();
            all.extend(called);
            all.sort_by_key(|function| function.rva);
            scanned = scan(&functions);
        }
        match functions {
            Cow::Borrowed(_) => (scanned, None),
            Cow::Owned(functions) => (scanned, Some(functions)),
        }
    }

    /// Puts the image together.
    fn finish(self, scanned: Scanned<S>) -> Image<S> {
        let Self {
            pe,
            functions,
            mut data,
            contributions,
            starts,
            constants,
            mut switch_tables,
            fixups,
            ..
        } = self;
        reach::end_at_tables(&contributions, &scanned, &mut data);
        let given = (&*contributions, &*starts);
        let constants = reach::constants(&pe, &constants, given, &data, &scanned);
        let told = image_relative::told(&pe, &data, &fixups);
        let mut boundaries = data::boundaries(
            &pe,
            (&data, &told),
            (&contributions, &starts),
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
        let mut certain = boundaries.certain;
        certain.extend(constants.iter().map(|(rva, _)| *rva));
        certain.sort_unstable();
        certain.dedup();
        let source_places = source_places::source_places(&pe);
        Image {
            path: pe.path.clone(),
            symbols: self.source,
            pe,
            functions,
            procedures: self.procedures,
            mentions: self.mentions,
            data,
            constants,
            texts: self.texts,
            compilands: self.compilands,
            contributions,
            switch_tables,
            table_jumps: self.table_jumps,
            boundaries: boundaries.all,
            certain_boundaries: certain,
            source_places,
            hotpatch_functions: self.hotpatch_functions,
            cold_parts: self.cold_parts,
            bodiless: self.bodiless,
            groups: self.groups,
            runtime: self.runtime,
            enumerators: self.enumerators,
            types: self.types,
            streams: self.streams,
            source_names: self.source_names,
            lines: self.lines,
            image_relative: told.places,
            fixups,
            relative_tables: scanned.relative_tables,
            references: scanned.references,
        }
    }
}

/// Puts an image together by itself.
pub(super) fn assemble<S: Side>(mut unscanned: Unscanned<S>) -> Image<S> {
    let (scanned, functions) = unscanned.scan::<S>(None);
    unscanned.functions = functions.unwrap_or(unscanned.functions);
    unscanned.finish(scanned)
}

/// Puts both images of a pair together.
pub(crate) fn assemble_pair(
    mut base: Unscanned<Base>,
    mut fixed: Unscanned<Fixed>,
) -> (Image<Base>, Image<Fixed>) {
    let ((base_scanned, functions), by_name) = rayon::join(
        || base.scan::<Base>(None),
        || alike::by_name(&base.functions, &base.procedures),
    );
    base.functions = functions.unwrap_or(base.functions);
    let decoded = Decoded::new((&base.pe, &base.functions), &by_name, &base_scanned);
    let (fixed_scanned, functions) = fixed.scan(Some(&decoded));
    fixed.functions = functions.unwrap_or(fixed.functions);
    rayon::join(|| base.finish(base_scanned), || fixed.finish(fixed_scanned))
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

fn groups<S: Side>(pe: &Pe<S>, modules: &[ModuleSymbols]) -> Vec<Group<S>> {
    let raw = modules.iter().flat_map(|module| &module.groups);
    let group = |raw: &RawGroup| {
        Some(Group {
            rva: pe.rva_of_place(raw.place)?,
            size: raw.size,
            name: raw.name.clone(),
        })
    };
    let mut found: Vec<_> = raw.filter_map(group).collect();
    found.retain(|group| group.size > 0);
    found.sort_by(|one, other| (one.rva, &one.name).cmp(&(other.rva, &other.name)));
    // No linker writes two that overlap; what looks through them all counts on it.
    found.dedup_by(|later, kept| {
        later
            .rva
            .checked_sub(kept.rva)
            .is_some_and(|at| at < kept.size)
    });
    found
}
