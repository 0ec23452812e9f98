//! Files to [`Image`]: the PE, its PDB, and the order made of both.

mod carve;
mod contained;
mod container;
mod data;
mod dwarf;
mod fixups;
mod image_relative;
mod inline;
mod jump_tables;
mod locate;
mod pdb;
mod scan;
mod symbols;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use hpbuild_metadata::{CompilandId, Rva, Side};
use ms_pdb::tpi::TypeStream;
use rayon::prelude::*;

use crate::error::Error;
use crate::image::{Compiland, Contribution, Fixup, Function, Image, SwitchTable, SymbolSource};
use crate::inline::InlineSites;
use crate::pe::{Opened, Pe, Unsupported};
use crate::types::{CodeViewTypes, Records, Types};
use pdb::{Module, OpenPdb, RawContribution, Streams};
use symbols::{ModuleSymbols, RawData, RawPublic};

use contained::contained;
pub use contained::panic_is_contained;
pub use fixups::FixupCheck;
pub use locate::SymbolPaths;
pub use scan::code_at;

/// How far code without any record is followed through calls.
const MAX_UNNAMED_DEPTH: usize = 4;

/// One side as the user named it.
#[derive(Clone, Debug)]
pub struct Input {
    /// The PE.
    pub pe: PathBuf,
    /// Its PDB, where the user says which; searched for otherwise.
    pub pdb: Option<PathBuf>,
}

/// What reading a side gives.
#[derive(Debug)]
pub(crate) enum Read<S: Side> {
    /// An image that can be compared.
    Image(Box<Image<S>>),
    /// A file that is understood and of a kind that cannot be hotpatched.
    Unsupported(Unsupported),
}

/// Reads the PE of `input` and the PDB that belongs to it.
///
/// # Errors
/// Where a file cannot be read or is broken, where no PDB is found, and where the PDB is that of
/// another build.
pub(crate) fn read<S: Side>(input: &Input, paths: &SymbolPaths) -> Result<Read<S>, Error> {
    let bytes = read_file(&input.pe)?;
    let pe = match Pe::parse(&input.pe, bytes)? {
        Opened::Pe(pe) => *pe,
        Opened::Unsupported(unsupported) => return Ok(Read::Unsupported(unsupported)),
    };
    // An image that names a PDB is described by that and nothing else.
    let names_pdb = pe
        .codeview
        .as_ref()
        .is_some_and(|codeview| !codeview.pdb_path.is_empty());
    if input.pdb.is_none()
        && !names_pdb
        && let Some(symbols) = dwarf::read(&pe)?
    {
        return Ok(Read::Image(Box::new(assemble_dwarf(pe, symbols))));
    }
    let (pdb_path, pdb) = find_pdb(&pe, input.pdb.as_deref(), paths)?;
    assemble(pe, pdb_path, pdb).map(|image| Read::Image(Box::new(image)))
}

/// The entries of all functions that an image's PDB names, by name; names that stand for several
/// functions are left out.
///
/// # Errors
/// As for comparing: an image or PDB that cannot be used, or one of a kind that is not read.
pub fn functions_by_name<S: Side>(
    input: &Input,
    paths: &SymbolPaths,
) -> Result<BTreeMap<String, Rva<S>>, Error> {
    let image = match read::<S>(input, paths)? {
        Read::Image(image) => image,
        Read::Unsupported(kind) => {
            let expected = "a native x64 or Arm64 image";
            let found = format!("{} = {:#x}", kind.field, kind.value);
            return Err(Error::format(&input.pe, "headers", expected, found));
        }
    };
    let mut names: BTreeMap<String, Option<Rva<S>>> = BTreeMap::new();
    for id in image.function_ids() {
        for procedure in image.procedures_of(id) {
            let rva = image.function(id).rva;
            names
                .entry(procedure.name.to_string())
                .and_modify(|known| *known = known.filter(|known| *known == rva))
                .or_insert(Some(rva));
        }
    }
    Ok(names
        .into_iter()
        .filter_map(|(name, rva)| Some((name, rva?)))
        .collect())
}

fn read_file(path: &Path) -> Result<Vec<u8>, Error> {
    let fail = |source| Error::Read {
        path: path.into(),
        source,
    };
    // A device or a pipe could be endless.
    if !std::fs::metadata(path).map_err(fail)?.is_file() {
        return Err(Error::format(path, "input", "a file", "a folder or device"));
    }
    std::fs::read(path).map_err(fail)
}

/// The first PDB in the places to look whose identity is the one the PE names.
fn find_pdb<S: Side>(
    pe: &Pe<S>,
    named: Option<&Path>,
    paths: &SymbolPaths,
) -> Result<(PathBuf, OpenPdb), Error> {
    let Some(codeview) = &pe.codeview else {
        return Err(Error::NoDebugDirectory {
            path: pe.path.clone(),
        });
    };
    let candidates = match named {
        Some(path) => vec![(path.to_owned(), Some(path.to_owned()))],
        None => locate::candidates(&pe.path, codeview, paths)
            .iter()
            .map(|place| (place.path(), place.file()))
            .collect(),
    };
    let looked: Vec<PathBuf> = candidates.iter().map(|(place, _)| place.clone()).collect();
    let mut unusable = None;
    for path in candidates.into_iter().filter_map(|(_, file)| file) {
        // A stale or broken file beside the PE must not hide the right one in a store.
        let pdb = match pdb::open(&path) {
            Ok(pdb) => pdb,
            Err(error) => {
                unusable.get_or_insert(error);
                continue;
            }
        };
        if pdb.guid == codeview.guid && pdb.age == codeview.age {
            return Ok((path, pdb));
        }
        unusable.get_or_insert(Error::PdbMismatch {
            pe: pe.path.clone(),
            pdb: path,
            expected: Box::new((codeview.guid.clone(), codeview.age)),
            found: Box::new((pdb.guid, pdb.age)),
            looked: looked.clone(),
        });
    }
    Err(unusable.unwrap_or(Error::NoPdb {
        path: pe.path.clone(),
        expected: (codeview.guid.clone(), codeview.age),
        looked,
    }))
}

fn assemble<S: Side>(pe: Pe<S>, pdb_path: PathBuf, pdb: OpenPdb) -> Result<Image<S>, Error> {
    let streams = pdb.streams(&pdb_path);
    let (read, (global, types)) = rayon::join(
        || read_modules(&pdb_path, &pdb.modules, streams),
        || {
            rayon::join(
                || read_globals(&pdb_path, streams),
                || read_types(&pdb_path, streams),
            )
        },
    );
    let (modules, compilands) = read?;
    let ((publics, globals), types) = (global?, types?);
    let contributions = contributions(&pdb_path, &pe, &pdb)?;
    let fixups = fixups::parse(&pdb_path, &pe, &pdb.fixups)?;
    let (mut functions, procedures) = carve::carve(&pe, &modules, &publics, &contributions, &types);
    let mut switch_tables = switch_tables(&pe, &modules);
    let data = data::data_symbols(
        &pe,
        &modules,
        (&globals, &publics),
        (&functions, &procedures),
        &contributions,
        &types,
    );
    let inline_sites = inline::inline_sites(&pe, &modules);
    let source_names = streams.source_names();
    let cold_parts = carve::cold_parts(&pe, &modules);
    // What was read is part of the image now. It is freed before the code is scanned, which takes
    // most memory.
    let mut hotpatch_functions: Vec<_> = modules
        .into_iter()
        .flat_map(|module| module.hotpatch_functions)
        .collect();
    hotpatch_functions.sort();
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
    Ok(Image {
        path: pe.path.clone(),
        symbols: SymbolSource::Pdb {
            path: pdb_path,
            guid: pdb.guid,
            age: pdb.age,
        },
        pe,
        functions,
        procedures,
        data,
        compilands,
        contributions,
        switch_tables,
        boundaries,
        hotpatch_functions,
        cold_parts,
        types,
        inline_sites,
        source_names,
        lines: Vec::new(),
        image_relative,
        fixups,
        relative_tables: scanned.relative_tables,
        references: scanned.references,
        reference_starts: scanned.starts,
    })
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
        let called = carve::called(pe, functions, &scanned.references, contributions);
        if called.is_empty() {
            break;
        }
        functions.extend(called);
        functions.sort_by_key(|function| function.rva);
        scanned = scan::scan(pe, fixups, functions);
    }
    scanned
}

/// An image without a PDB, from what its DWARF says.
fn assemble_dwarf<S: Side>(pe: Pe<S>, symbols: dwarf::DwarfSymbols<S>) -> Image<S> {
    let (modules, contributions) = (&symbols.modules, &symbols.contributions);
    let (mut functions, procedures) = carve::carve(
        &pe,
        modules,
        &symbols.publics,
        contributions,
        &symbols.types,
    );
    let scanned = scan_all(&pe, &[], &mut functions, contributions);
    let data = data::data_symbols(
        &pe,
        modules,
        (&symbols.globals, &symbols.publics),
        (&functions, &procedures),
        contributions,
        &symbols.types,
    );
    let image_relative = image_relative::places(&pe, &data, &[]);
    let mut boundaries =
        data::boundaries(&pe, (&data, &image_relative), contributions, &scanned, &[]);
    let cold_parts = carve::cold_parts(&pe, modules);
    // DWARF describes no jump table; those are left that code itself shows.
    let mut switch_tables = Vec::new();
    jump_tables::add(
        &pe,
        &functions,
        &scanned,
        &mut switch_tables,
        &mut boundaries,
    );
    Image {
        path: pe.path.clone(),
        symbols: SymbolSource::Dwarf,
        pe,
        functions,
        procedures,
        data,
        compilands: symbols.compilands,
        contributions: symbols.contributions,
        switch_tables,
        boundaries,
        hotpatch_functions: Vec::new(),
        cold_parts,
        types: symbols.types,
        // Inlined calls and names of source files are read from PDBs alone.
        inline_sites: InlineSites::default(),
        source_names: Box::default(),
        lines: symbols.lines,
        image_relative,
        fixups: Vec::new(),
        relative_tables: scanned.relative_tables,
        references: scanned.references,
        reference_starts: scanned.starts,
    }
}

/// Symbols of all compilands. A stream's bytes are dropped once its records are facts.
fn read_modules(
    path: &Path,
    modules: &[Module],
    streams: Streams<'_>,
) -> Result<(Vec<ModuleSymbols>, Vec<Compiland>), Error> {
    let read = |module: &Module| {
        let place = format!("pdb symbols of {}", module.name);
        contained(path, &place, || {
            let records = streams.module(module)?;
            let symbols = symbols::module_symbols(path, &module.name, records.symbols())?;
            let compiland = compiland(&module.name, &symbols, records.lines());
            Ok((symbols, compiland))
        })
    };
    // Of several errors the first one is reported, whichever thread met its own first.
    let read: Vec<Result<_, Error>> = modules.par_iter().map(read).collect();
    let both: Vec<_> = read.into_iter().collect::<Result<_, _>>()?;
    Ok(both.into_iter().unzip())
}

fn read_globals(
    path: &Path,
    streams: Streams<'_>,
) -> Result<(Vec<RawPublic>, Vec<RawData>), Error> {
    contained(path, "pdb global symbols", || {
        symbols::global_symbols(path, &streams.globals()?)
    })
}

fn read_types(path: &Path, streams: Streams<'_>) -> Result<Types, Error> {
    contained(path, "pdb type stream", || parse_types(path, streams))
}

fn parse_types(path: &Path, streams: Streams<'_>) -> Result<Types, Error> {
    let parse = |stream, bytes: Vec<u8>| {
        let stream = TypeStream::parse(stream, bytes).map_err(|cause| {
            Error::format(
                path,
                "pdb type stream header",
                "sizes inside the stream",
                cause,
            )
        })?;
        let begin = stream.type_index_begin().0;
        let expected = stream.num_types();
        let records = Records::new(stream);
        // What the header promises has to be there, or a type would be taken for another.
        if records.count() == expected as usize {
            return Ok(records);
        }
        let place = format!("pdb type records from {begin:#x}");
        let expected = format!("{expected} records");
        Err(Error::format(path, place, expected, records.count()))
    };
    let types = parse(ms_pdb::Stream::TPI, streams.types()?)?;
    let items = parse(ms_pdb::Stream::IPI, streams.items())?;
    Ok(CodeViewTypes::new(types, items).into())
}

fn compiland(name: &str, symbols: &ModuleSymbols, lines: &[u8]) -> Compiland {
    // An import library's member is called after its DLL, an archive's after its object file.
    Compiland {
        name: name.into(),
        short_name: crate::names::of_object(name).into(),
        tool: symbols.tool.clone(),
        lines: lines.into(),
    }
}

/// Contributions sorted by address. The table is also what tells where unnamed code ends, so
/// overlaps are errors: one of the two must be wrong. Those to the exception directory are left
/// out: linkers sort it after they noted who gave which part, and drop entries, so the notes of
/// some linkers (seen in those of Visual Studio 2015) overlap there and say nothing.
fn contributions<S: Side>(
    path: &Path,
    pe: &Pe<S>,
    pdb: &OpenPdb,
) -> Result<Vec<Contribution<S>>, Error> {
    let contribution = |raw: &RawContribution| {
        let rva: Rva<S> = pe.rva_of_place(raw.place)?;
        let is_sorted = pe
            .exception_directory
            .is_some_and(|(start, size)| rva.checked_sub(start).is_some_and(|at| at < size));
        (raw.size > 0 && !is_sorted).then(|| Contribution {
            rva,
            size: raw.size,
            compiland: CompilandId::new(raw.module.into()),
            characteristics: raw.characteristics,
        })
    };
    let mut found: Vec<_> = pdb.contributions.iter().filter_map(contribution).collect();
    found.sort_by_key(|contribution| (contribution.rva, contribution.size));
    for index in 1..found.len() {
        let (first, second) = (found[index - 1], found[index]);
        let distance = second.rva.get() - first.rva.get();
        if distance < first.size {
            let name = |c: Contribution<S>| {
                pdb.modules
                    .get(c.compiland.index())
                    .map_or("?", |module| &module.name)
            };
            let place = format!(
                "pdb section contribution at rva {} ({})",
                first.rva,
                name(first)
            );
            let found = format!("one of {} at rva {}", name(second), second.rva);
            let end = u64::from(first.rva.get()) + u64::from(first.size);
            let expected = format!("none other before {end:#x}");
            return Err(Error::format(path, place, expected, found));
        }
    }
    Ok(found)
}

fn switch_tables<S: Side>(pe: &Pe<S>, modules: &[ModuleSymbols]) -> Vec<SwitchTable<S>> {
    let table = |raw: &symbols::RawSwitchTable| {
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
