//! Finding the hotpatch table of a patch image, to hold it against the manifest.

use hpbuild_metadata::Machine;
use hpbuild_metadata::table::{self, HotPatchTable};

use super::Layout;
use super::layout::u32_at;
use crate::error::Error;

/// Where `HotPatchTableOffset` stands in the 64-bit load configuration (format reference, 1.1).
const TABLE_FIELD: u32 = 0xf0;
/// The largest table that is read: far more than 100,000 records.
const MAX_TABLE: u32 = 16 << 20;

/// What a patch image says of itself.
#[derive(Clone, Debug)]
pub(crate) struct PatchFacts {
    pub(crate) machine: Machine,
    pub(crate) table: HotPatchTable,
}

/// Reads the hotpatch table of the image `bytes`.
pub(crate) fn patch_facts(bytes: &[u8]) -> Result<PatchFacts, Error> {
    let layout = Layout::read(bytes)?;
    let place = "load configuration";
    let (address, size) = layout.load_config;
    let config = layout
        .mapped(bytes, address, size)
        .filter(|_| size >= TABLE_FIELD + 4);
    let config = config.ok_or_else(|| {
        let found = format!("{size:#x} bytes at {address:#x}");
        Error::format(place, "at least 0xf4 bytes inside one section", found)
    })?;
    let own_size = u32_at(config, 0, place)?;
    if own_size != size {
        let found = format!("{own_size:#x}");
        return Err(Error::format(
            "load configuration: Size",
            format!("{size:#x}"),
            found,
        ));
    }
    let at = u32_at(config, TABLE_FIELD as usize, place)?;
    let field = "load configuration: HotPatchTableOffset";
    let header = (at != 0).then(|| layout.mapped(bytes, at, 8)).flatten();
    let header = header.ok_or_else(|| {
        Error::format(field, "the address of a hotpatch table", format!("{at:#x}"))
    })?;
    let length = u32_at(header, 4, "hotpatch table")?;
    let bytes_of_table = layout
        .mapped(bytes, at, length)
        .filter(|_| length <= MAX_TABLE);
    let bytes_of_table = bytes_of_table.ok_or_else(|| {
        let expected = "a size inside the section";
        Error::format("hotpatch table: Size", expected, format!("{length:#x}"))
    })?;
    let table = table::decode(bytes_of_table).map_err(|error| {
        let place = format!("hotpatch table+{:#x}: {}", error.offset, error.what);
        Error::format(place, error.expected, error.found)
    })?;
    Ok(PatchFacts {
        machine: layout.machine,
        table,
    })
}
