//! Reads the written image back and holds it against the pieces it was made from.
//!
//! Nothing here uses the linker's or the writer's code: the PE is read anew, the table comes from
//! `metadata`'s decoder, and where a piece lies is found out by following the references from the
//! redirected entries. For every reference the code in the image is decoded and must reach what
//! the piece says, through whatever thunk, slot or stub stands there.

mod arm64;
mod brought;
mod copies;
mod guard;
mod image;
mod pe;
mod walk;
mod x64;

use std::collections::BTreeMap;
use std::fmt;

use hpbuild_metadata::table::{Chunk, HotPatchTable, TableError, decode};
use hpbuild_metadata::{Base, Rva};

use crate::piece::{Brought, Parts};
use pe::View;

/// Something in the written image that is not as it must be. A bug of this crate, or damage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where.
    pub place: String,
    /// What would have been right.
    pub expected: String,
    /// What stands there.
    pub found: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "patch: {}: expected {}, found {}",
            self.place, self.expected, self.found
        )
    }
}

impl std::error::Error for Fault {}

/// What was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The table as it stands in the image.
    pub table: HotPatchTable,
    /// Pieces that were found and compared.
    pub pieces: usize,
    /// References that were followed.
    pub references: usize,
}

fn fault(place: impl Into<String>, expected: impl Into<String>, found: impl Into<String>) -> Fault {
    Fault {
        place: place.into(),
        expected: expected.into(),
        found: found.into(),
    }
}

/// What the base puts into a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Filled {
    AddressOf(Rva<Base>),
    ValueAt(Rva<Base>),
}

/// Checks the bytes of a patch image against its parts.
///
/// # Errors
/// Everything that is wrong, as far as it could be read.
pub fn verify(file: &[u8], parts: &Parts) -> Result<Verified, Vec<Fault>> {
    let view = View::read(file).map_err(|fault| vec![fault])?;
    let mut faults = image::check(&view, parts);
    let table = match read_table(&view, parts) {
        Ok(table) => table,
        Err(fault) => {
            faults.push(fault);
            return Err(faults);
        }
    };
    let slots = match slots(&view, &table) {
        Ok(slots) => slots,
        Err(fault) => {
            faults.push(fault);
            return Err(faults);
        }
    };
    match brought::read(&view) {
        Ok(brought) if brought == parts.brought => {}
        Ok(other) => faults.push(fault(
            "list of what it brought",
            format!("{} entries of the parts", parts.brought.len()),
            format!("{} others", other.len()),
        )),
        Err(fault) => faults.push(fault),
    }
    let (pieces, references) = walk::walk(&view, parts, &table, &slots, &mut faults);
    if faults.is_empty() {
        Ok(Verified {
            table,
            pieces,
            references,
        })
    } else {
        Err(faults)
    }
}

/// The table behind the load config, with the checks that kernels make.
fn read_table(view: &View<'_>, parts: &Parts) -> Result<HotPatchTable, Fault> {
    let table = table_of(view)?;
    let wrong = |error: TableError| fault(error.to_string(), error.expected, error.found);
    table
        .validate(parts.machine, view.image_size, parts.base.image_size)
        .map_err(wrong)?;
    let base = &table.bases[0];
    if base.identity != parts.base.identity {
        return Err(fault(
            "base identity",
            parts.base.identity.to_string(),
            base.identity.to_string(),
        ));
    }
    if table.sequence != parts.sequence {
        return Err(fault(
            "sequence number",
            parts.sequence.to_string(),
            table.sequence.to_string(),
        ));
    }
    Ok(table)
}

/// The hotpatch table of a patch image.
///
/// # Errors
/// Where the file is no PE32+ image, or has no table that can be read.
pub fn table(file: &[u8]) -> Result<HotPatchTable, Fault> {
    table_of(&View::read(file)?)
}

/// What a patch image and those before it brought that the base does not have.
///
/// # Errors
/// Where the file is no PE32+ image, or has a list that cannot be read.
pub fn brought(file: &[u8]) -> Result<Vec<Brought>, Fault> {
    brought::read(&View::read(file)?)
}

fn table_of(view: &View<'_>) -> Result<HotPatchTable, Fault> {
    let (config, size) = view.directory(10);
    let own = view.u32(config).unwrap_or(0);
    if own != size || size < 0xf4 {
        return Err(fault(
            "load config",
            "its own size in the directory, at least 0xf4",
            format!("{own:#x} and {size:#x}"),
        ));
    }
    let rva = view.u32(config + 0xf0).unwrap_or(0);
    let length = view.u32(rva.saturating_add(4)).unwrap_or(0);
    let bytes = view.bytes(rva, length).filter(|_| rva != 0);
    let bytes = bytes.ok_or_else(|| {
        fault(
            "HotPatchTableOffset",
            "a table inside the image",
            format!("rva {rva:#x}, {length:#x} bytes"),
        )
    })?;
    decode(bytes).map_err(|error| fault(error.to_string(), error.expected, error.found))
}

/// Every slot that the base fills. Slots must be aligned, apart from each other, in data.
fn slots(view: &View<'_>, table: &HotPatchTable) -> Result<BTreeMap<u32, Filled>, Fault> {
    let mut slots = BTreeMap::new();
    for chunk in &table.bases[0].chunks {
        let (records, fill): (_, fn(Rva<Base>) -> Filled) = match chunk {
            Chunk::ReverseAbsolute(records) => (records, Filled::AddressOf),
            Chunk::ReverseIndirect(records) => (records, Filled::ValueAt),
            Chunk::ForwardFunction(_) => continue,
            other => {
                return Err(fault(
                    "table",
                    "ABSOLUTE, INDIRECT and forward FUNCTION",
                    other.name(),
                ));
            }
        };
        for record in records {
            let rva = record.patch.get();
            let in_data = view
                .section_at(rva)
                .is_some_and(|section| !section.is_code());
            if rva % 8 != 0 || !in_data || view.bytes(rva, 8).is_none() {
                return Err(fault(
                    "slot",
                    "eight aligned bytes of data",
                    format!("rva {rva:#x}"),
                ));
            }
            if slots.insert(rva, fill(record.base)).is_some() {
                return Err(fault(
                    "slot",
                    "one record a slot",
                    format!("several for rva {rva:#x}"),
                ));
            }
            if view.relocations.contains(&rva) {
                return Err(fault(
                    "slot",
                    "no base relocation",
                    format!("one at rva {rva:#x}"),
                ));
            }
        }
    }
    Ok(slots)
}
