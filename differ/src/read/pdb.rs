//! The streams of a PDB, copied out so that they can be parsed in parallel.
//!
//! `ms_pdb::Pdb` is `Send` but not `Sync`, and its accessors cache behind cells. So this file
//! reads every stream that later stages want, once and in order, and hands out plain bytes.
//! Nothing is interpreted here but what is needed to find the streams.

use std::fs::File;
use std::path::Path;

use hpbuild_metadata::SectionOffset;
use ms_pdb::Pdb;
use ms_pdb::dbi::DbiStream;
use ms_pdb::dbi::optional_dbg::OptionalDebugStream;

use super::contained::contained;
use super::container;
use crate::error::Error;

/// What a PDB holds, as bytes and small tables.
pub(super) struct PdbStreams {
    /// GUID in upper-case `8-4-4-4-12` form.
    pub(super) guid: String,
    /// The age that the PE's debug directory repeats.
    pub(super) age: u32,
    pub(super) modules: Vec<ModuleStream>,
    /// Records of the global symbol stream: publics, globals and references to procedures.
    pub(super) globals: Vec<u8>,
    pub(super) contributions: Vec<RawContribution>,
    /// Type records, headers included.
    pub(super) types: Vec<u8>,
    /// Item records (function ids), headers included.
    pub(super) items: Vec<u8>,
    /// Names of source files, each with a zero at its end; line records give offsets in it.
    pub(super) source_names: Vec<u8>,
}

/// The symbols and lines of one compiland.
pub(super) struct ModuleStream {
    pub(super) name: String,
    /// Symbol records, without the signature.
    pub(super) symbols: Vec<u8>,
    /// C13 line subsections.
    pub(super) lines: Vec<u8>,
}

pub(super) struct RawContribution {
    pub(super) place: SectionOffset,
    pub(super) size: u32,
    pub(super) module: u16,
    pub(super) characteristics: u32,
}

/// Reads the streams of the PDB at `path`.
///
/// # Errors
/// Where the file cannot be read, is not a PDB, is cut or contradicts itself, or was rewritten
/// behind the linker's back (OMAP streams), which makes its addresses useless.
pub(super) fn read_streams(path: &Path) -> Result<PdbStreams, Error> {
    let fail = |source| Error::Read {
        path: path.into(),
        source,
    };
    // Looked at before it is opened: opening a pipe waits for somebody to write to it.
    let is_file = std::fs::metadata(path).map_err(fail)?.is_file();
    if !is_file {
        return Err(Error::format(path, "pdb", "a file", "a folder or device"));
    }
    let file = File::open(path).map_err(fail)?;
    let most = container::check(path, &file)?;
    contained(path, "pdb", || read_open_pdb(path, file, most))
}

/// Reads an open PDB whose streams have no more than `most` bytes together.
fn read_open_pdb(path: &Path, file: File, most: u64) -> Result<PdbStreams, Error> {
    let broken = |place: &'static str| {
        move |cause: anyhow::Error| Error::format(path, place, "a readable structure", cause)
    };
    let pdb = Pdb::open_from_file(file).map_err(broken("pdb header and stream directory"))?;
    // Streams are allocated at the size the directory gives them. Pages are not shared between
    // streams of a real PDB, so all of them together fit in the file.
    let total: u64 = (0..pdb.num_streams())
        .map(|stream| pdb.stream_len(stream))
        .sum();
    if total > most {
        let expected = format!("streams of at most {most:#x} bytes together");
        let found = format!("{total:#x} bytes");
        return Err(Error::format(path, "pdb stream directory", expected, found));
    }
    let dbi = pdb.read_dbi_stream().map_err(broken("pdb dbi stream"))?;
    let header = dbi.header().map_err(broken("pdb dbi header"))?;
    for stream in [
        OptionalDebugStream::OMAP_TO_SRC_DATA,
        OptionalDebugStream::OMAP_FROM_SRC_DATA,
    ] {
        if pdb.optional_debug_stream(stream).ok().flatten().is_some() {
            let expected = "addresses as the linker gave them";
            return Err(Error::format(
                path,
                "pdb omap stream",
                expected,
                "a rewritten image (HP006)",
            ));
        }
    }
    let key = pdb.binding_key();
    let stream_of = |index: Result<u32, _>| -> Result<Vec<u8>, Error> {
        match index {
            Ok(index) => pdb
                .read_stream_to_vec(index)
                .map_err(broken("pdb symbol record stream")),
            Err(ms_pdb::StreamIndexIsNilError) => Ok(Vec::new()),
        }
    };
    Ok(PdbStreams {
        guid: key.guid.hyphenated().to_string().to_uppercase(),
        age: header.age.get(),
        modules: read_modules(path, &pdb, &dbi)?,
        globals: stream_of(header.sym_record_stream())?,
        contributions: read_contributions(path, &dbi)?,
        types: pdb
            .read_stream_to_vec(2)
            .map_err(broken("pdb type stream"))?,
        items: pdb.read_stream_to_vec(4).unwrap_or_default(),
        // Only reports name source files: without them, they say less.
        source_names: pdb
            .names()
            .map(|names| names.strings_bytes().to_vec())
            .unwrap_or_default(),
    })
}

fn read_modules<F: ms_pdb::ReadAt>(
    path: &Path,
    pdb: &Pdb<F>,
    dbi: &DbiStream<Vec<u8>>,
) -> Result<Vec<ModuleStream>, Error> {
    let mut modules = Vec::new();
    let mut iter = dbi.iter_modules();
    for module in iter.by_ref() {
        let name = module.module_name().to_string();
        let broken = |cause| {
            Error::format(
                path,
                format!("pdb module stream of {name}"),
                "a readable stream",
                cause,
            )
        };
        let stream = pdb.read_module_stream(&module).map_err(broken)?;
        let (symbols, lines) = match &stream {
            Some(stream) => {
                let symbols = stream.sym_data().map_err(broken)?;
                (symbols.to_vec(), stream.c13_line_data_bytes().to_vec())
            }
            None => (Vec::new(), Vec::new()),
        };
        modules.push(ModuleStream {
            name,
            symbols,
            lines,
        });
    }
    if !iter.rest().is_empty() {
        let found = format!(
            "{:#x} bytes behind the last readable module",
            iter.rest().len()
        );
        return Err(Error::format(
            path,
            "pdb module list",
            "whole module records",
            found,
        ));
    }
    Ok(modules)
}

fn read_contributions(
    path: &Path,
    dbi: &DbiStream<Vec<u8>>,
) -> Result<Vec<RawContribution>, Error> {
    let broken = |cause| Error::format(path, "pdb section contributions", "a readable list", cause);
    let list = dbi.section_contributions().map_err(broken)?;
    let raw = |entry: &ms_pdb::dbi::section_contrib::SectionContribEntry| {
        Some(RawContribution {
            place: SectionOffset {
                section: entry.section.get(),
                offset: u32::try_from(entry.offset.get()).ok()?,
            },
            size: u32::try_from(entry.size.get()).ok()?,
            module: entry.module_index.get(),
            characteristics: entry.characteristics.get(),
        })
    };
    list.contribs
        .iter()
        .map(|entry| {
            raw(entry).ok_or_else(|| {
                let found = format!("offset {}, size {}", entry.offset.get(), entry.size.get());
                Error::format(
                    path,
                    "pdb section contribution",
                    "offset and size from 0",
                    found,
                )
            })
        })
        .collect()
}
