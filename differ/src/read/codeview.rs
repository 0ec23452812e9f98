//! The streams of a PDB to what its records say.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use hpbuild_metadata::{CompilandId, Rva, Side};
use ms_pdb::tpi::TypeStream;
use rayon::prelude::*;

use super::assemble::Symbols;
use super::contained::contained;
use super::fixups;
use super::pdb::{Module, OpenPdb, RawContribution, Streams};
use super::runtime::is_list;
use super::symbols::{self, GlobalSymbols, ModuleSymbols};
use crate::error::Error;
use crate::image::{Compiland, Contribution, SymbolSource};
use crate::lines::LineRecords;
use crate::pe::Pe;
use crate::types::{CodeViewTypes, Records, Types};

/// Reads the records of the PDB of an image.
///
/// # Errors
/// Where some of what is used cannot be read or contradicts itself.
pub(super) fn read<S: Side>(pe: &Pe<S>, path: PathBuf, pdb: OpenPdb) -> Result<Symbols<S>, Error> {
    let streams = pdb.streams(&path);
    let (modules, (global, types)) = rayon::join(
        || read_modules(&path, &pdb.modules, streams),
        || {
            rayon::join(
                || read_globals(&path, streams),
                || read_types(&path, streams),
            )
        },
    );
    let (modules, global, types) = (modules?, global?, types?);
    let contributions = contributions(&path, pe, &pdb)?;
    let fixups = fixups::parse(&path, pe, &pdb.fixups)?;
    let source_names = streams.source_names();
    let source = SymbolSource::Pdb {
        path: path.clone(),
        guid: pdb.guid.clone(),
        age: pdb.age,
    };
    let (names, streams) = pdb.keep(path);
    let streams = Arc::new(streams);
    let compilands = (0..).zip(names).zip(&modules);
    let compilands = compilands
        .map(|((index, name), symbols)| {
            compiland(&name, symbols, LineRecords::new(streams.clone(), index))
        })
        .collect();
    let lists = global.publics.iter().filter(|it| is_list(&it.name));
    let lists = lists.map(|it| (it.name.clone(), it.place)).collect();
    Ok(Symbols {
        source,
        modules,
        publics: global.publics,
        globals: global.data,
        enumerators: global.enumerators,
        types,
        compilands,
        contributions,
        // Contributions tell.
        starts: Vec::new(),
        constants: Vec::new(),
        texts: Vec::new(),
        lists,
        fixups,
        lines: Vec::new(),
        source_names,
        streams: Some(streams),
    })
}

/// Symbols of all compilands. A stream's bytes are dropped once its records are facts.
fn read_modules(
    path: &Path,
    modules: &[Module],
    streams: Streams<'_>,
) -> Result<Vec<ModuleSymbols>, Error> {
    let read = |bytes: &mut Vec<u8>, module: &Module| {
        let place = format!("pdb symbols of {}", module.name);
        contained(path, &place, || {
            streams.symbols(module, bytes)?;
            symbols::module_symbols(path, &module.name, bytes)
        })
    };
    // Of several errors the first one is reported, whichever thread met its own first.
    let modules = modules.par_iter();
    let read: Vec<Result<_, Error>> = modules.map_init(Vec::new, read).collect();
    read.into_iter().collect()
}

fn read_globals(path: &Path, streams: Streams<'_>) -> Result<GlobalSymbols, Error> {
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

fn compiland(name: &str, symbols: &ModuleSymbols, lines: LineRecords) -> Compiland {
    // An import library's member is called after its DLL, an archive's after its object file.
    Compiland {
        name: name.into(),
        short_name: crate::names::of_object(name).into(),
        place: Box::default(),
        tool: symbols.tool.clone(),
        lines,
    }
}

/// Contributions sorted by address. The table is also what tells where unnamed code ends, so
/// overlaps are errors: one of the two must be wrong. Those to the exception directory are left
/// out: linkers sort it after they noted who gave which part, and drop entries, so the notes of
/// some linkers (seen in an image of MSVC 19.13) overlap there and say nothing.
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
