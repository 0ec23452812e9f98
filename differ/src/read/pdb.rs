//! The streams of a PDB.
//!
//! `ms_pdb::Pdb` is `Send` but not `Sync`, as some of its accessors cache behind cells. The streams
//! themselves are read without them, from any thread: see [`Streams`]. Nothing is interpreted here
//! but what is needed to find the streams, and no stream is read before it is wanted: most of a PDB
//! never is.

use std::fmt::Display;
use std::fs::File;
use std::path::{Path, PathBuf};

use hpbuild_metadata::SectionOffset;
use ms_pdb::dbi::optional_dbg::OptionalDebugStream;
use ms_pdb::dbi::{DbiStream, ModuleInfoFixed};
use ms_pdb::{Container, Pdb, RandomAccessFile, ReadAt, StreamData};

use super::contained::contained;
use super::container;
use crate::error::Error;
use crate::records::CompilandStreams;

/// Bytes before the symbol records of a compiland: `CV_SIGNATURE_C13`.
const SIGNATURE: u32 = 4;

/// An open PDB and the small tables that say where everything else is.
pub(super) struct OpenPdb {
    /// GUID in upper-case `8-4-4-4-12` form.
    pub(super) guid: String,
    /// The age that the PE's debug directory repeats.
    pub(super) age: u32,
    pub(super) modules: Vec<Module>,
    pub(super) contributions: Vec<RawContribution>,
    /// The linker's fixups; empty where it did not record them.
    pub(super) fixups: Vec<u8>,
    /// The stream of global symbol records, if there is one.
    globals: Option<u32>,
    /// The stream of source files' names, if there is one.
    source_names: Option<u32>,
    pdb: Box<Pdb<RandomAccessFile>>,
}

/// A compiland as the list of them has it.
pub(super) struct Module {
    pub(super) name: String,
    header: ModuleInfoFixed,
}

pub(super) struct RawContribution {
    pub(super) place: SectionOffset,
    pub(super) size: u32,
    pub(super) module: u16,
    pub(super) characteristics: u32,
}

/// Opens the PDB at `path`.
///
/// # Errors
/// Where the file cannot be read, is not a PDB, is cut or contradicts itself, or was rewritten
/// behind the linker's back (OMAP streams), which makes its addresses useless.
pub(super) fn open(path: &Path) -> Result<OpenPdb, Error> {
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
fn read_open_pdb(path: &Path, file: File, most: u64) -> Result<OpenPdb, Error> {
    let broken = |place| broken(path, place);
    let file = RandomAccessFile::from(file);
    // Opening reads a whole stream already.
    container::check_directory(path, &file, most)?;
    let place = "pdb header and stream directory";
    let pdb = Pdb::open_from_random_file(file).map_err(broken(place))?;
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
    let fixups = match pdb.optional_debug_stream(OptionalDebugStream::FIXUP_DATA) {
        Ok(Some(stream)) => pdb
            .read_stream_to_vec(stream)
            .map_err(broken("pdb fixup stream"))?,
        _ => Vec::new(),
    };
    let key = pdb.binding_key();
    Ok(OpenPdb {
        guid: key.guid.hyphenated().to_string().to_uppercase(),
        age: header.age.get(),
        modules: read_modules(path, &dbi)?,
        contributions: read_contributions(path, &dbi)?,
        fixups,
        globals: header.sym_record_stream().ok(),
        source_names: pdb.named_stream("/names"),
        pdb,
    })
}

fn broken(path: &Path, place: &'static str) -> impl Fn(anyhow::Error) -> Error {
    move |cause| Error::format(path, place, "a readable structure", cause)
}

impl OpenPdb {
    /// The names of the compilands, and what further records of theirs are read with.
    pub(super) fn keep(self, path: PathBuf) -> (Vec<String>, CompilandStreams) {
        let modules = self.modules.into_iter();
        let (names, headers) = modules.map(|module| (module.name, module.header)).unzip();
        (names, CompilandStreams::new(path, self.pdb, headers))
    }

    /// What reads the streams.
    pub(super) fn streams<'a>(&'a self, path: &'a Path) -> Streams<'a> {
        Streams {
            path,
            globals: self.globals,
            source_names: self.source_names,
            container: &self.pdb,
        }
    }
}

/// Reads streams whole, on any thread.
#[derive(Clone, Copy)]
pub(super) struct Streams<'a> {
    path: &'a Path,
    globals: Option<u32>,
    source_names: Option<u32>,
    container: &'a Container<RandomAccessFile>,
}

impl Streams<'_> {
    /// Puts the symbol records of one compiland, without the signature before them, into `bytes`,
    /// whose memory is used again.
    ///
    /// # Errors
    /// Where they cannot be read, or are not where the list of compilands says.
    pub(super) fn symbols(&self, module: &Module, bytes: &mut Vec<u8>) -> Result<(), Error> {
        let broken = |cause: &dyn Display| {
            let place = format!("pdb module stream of {}", module.name);
            Error::format(self.path, place, "a readable stream", cause)
        };
        let header = &module.header;
        let Some(stream) = header.stream() else {
            bytes.clear();
            return Ok(());
        };
        let reader = self.container.get_stream_reader(stream);
        let reader = reader.map_err(|cause| broken(&cause))?;
        let parts = [
            header.sym_byte_size,
            header.c11_byte_size,
            header.c13_byte_size,
        ];
        let needed: u64 = parts.map(|part| u64::from(part.get())).iter().sum();
        let size = self.container.stream_len(stream);
        if needed > size {
            let cause = format!("{size:#x} bytes where {needed:#x} are promised");
            return Err(broken(&cause));
        }
        let Some(size) = header.sym_byte_size.get().checked_sub(SIGNATURE) else {
            return Err(broken(&"symbols without a signature"));
        };
        // What is there already is overwritten, and need not be cleared.
        bytes.resize(size as usize, 0);
        let read = reader.read_exact_at(bytes, SIGNATURE.into());
        read.map_err(|cause| broken(&cause))
    }

    /// Records of the global symbol stream: publics, globals and references to procedures.
    ///
    /// # Errors
    /// Where they cannot be read.
    pub(super) fn globals(&self) -> Result<StreamData, Error> {
        match self.globals {
            Some(stream) => {
                let broken = broken(self.path, "pdb symbol record stream");
                self.container.read_stream(stream).map_err(broken)
            }
            None => Ok(StreamData::default()),
        }
    }

    /// Type records, headers included.
    ///
    /// # Errors
    /// Where they cannot be read.
    pub(super) fn types(&self) -> Result<Vec<u8>, Error> {
        let stream = self.container.read_stream_to_vec(2);
        stream.map_err(broken(self.path, "pdb type stream"))
    }

    /// Item records (function ids), headers included; empty where there are none.
    pub(super) fn items(&self) -> Vec<u8> {
        self.container.read_stream_to_vec(4).unwrap_or_default()
    }

    /// Names of source files, each with a zero at its end; line records give offsets in it. Only
    /// reports name source files: where there are none, they say less.
    ///
    /// The stream `/names` (LLVM's "The PDB Info Stream"): signature, version and bytes of the
    /// names, then these.
    pub(super) fn source_names(&self) -> Box<[u8]> {
        let stream = self.source_names.and_then(|index| {
            let bytes = self.container.read_stream_to_vec(index).ok()?;
            let size = u32::from_le_bytes(*bytes.get(8..)?.first_chunk()?);
            let names = bytes.get(12..)?.get(..usize::try_from(size).ok()?)?;
            Some(names.into())
        });
        stream.unwrap_or_default()
    }
}

fn read_modules(path: &Path, dbi: &DbiStream<Vec<u8>>) -> Result<Vec<Module>, Error> {
    let mut iter = dbi.iter_modules();
    let modules = iter
        .by_ref()
        .map(|module| Module {
            name: module.module_name().to_string(),
            header: module.header().clone(),
        })
        .collect();
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
