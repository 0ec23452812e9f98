//! Files to [`Image`](crate::image::Image): the PE, its PDB, and the order made of both.

mod alike;
mod assemble;
mod carve;
mod codeview;
mod contained;
mod container;
mod data;
mod dwarf;
mod filler;
mod fixups;
mod image_relative;
mod jump_tables;
mod locate;
mod pdb;
mod places;
mod present;
mod reach;
mod runtime;
mod scan;
mod source_places;
mod symbols;
mod table_jumps;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use hpbuild_metadata::{Rva, Side};

use crate::error::Error;
use crate::pe::{Opened, Pe, Unsupported};

use assemble::assemble;
pub(crate) use assemble::{Unscanned, assemble_pair};
pub(crate) use contained::contained;
pub use contained::panic_is_contained;
pub use fixups::FixupCheck;
pub(crate) use image_relative::is_locator;
pub use locate::SymbolPaths;
pub use scan::code_at;
pub use table_jumps::jumps_in;

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
    /// An image that can be compared, once its code is read, too.
    Image(Box<Unscanned<S>>),
    /// A file that is understood and of a kind that cannot be hotpatched.
    Unsupported(Unsupported),
}

/// Reads the PE of `input` and the PDB that belongs to it.
///
/// # Errors
/// Where a file cannot be read or is broken, where no PDB is found, where the PDB is that of another
/// build, and where the file does not have the code of a function.
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
        present::check(&pe, &symbols)?;
        return Ok(Read::Image(Box::new(Unscanned::new(pe, symbols))));
    }
    let (pdb_path, pdb) = locate::find_pdb(&pe, input.pdb.as_deref(), paths)?;
    let symbols = codeview::read(&pe, pdb_path, pdb)?;
    present::check(&pe, &symbols)?;
    Ok(Read::Image(Box::new(Unscanned::new(pe, symbols))))
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
        Read::Image(unscanned) => assemble(*unscanned),
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
