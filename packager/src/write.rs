//! Sections and table to the bytes of a PE32+ file.
//!
//! The file depends on its inputs alone: time stamp, GUID and content hash are all derived from a
//! SHA-256 over the finished bytes with those fields zero, and the checksum comes last.

mod headers;

use hpbuild_metadata::Patch;
use hpbuild_metadata::Rva;
use hpbuild_metadata::table::{HotPatchTable, encode};
use sha2::{Digest, Sha256};

use crate::link::Linked;
use crate::piece::Parts;

/// Sections start at multiples of this in the file.
pub(crate) const FILE_ALIGN: u32 = 0x200;

/// The file name of the patch image: `appinfo_hotpatch.dll` for `appinfo.dll`.
pub fn image_name(parts: &Parts) -> String {
    format!("{}_hotpatch.dll", parts.base.stem)
}

/// The file name of the patch's PDB.
pub fn pdb_name(parts: &Parts) -> String {
    format!("{}_hotpatch.pdb", parts.base.stem)
}

/// The bytes of the patch image.
///
/// # Panics
/// When `table` is not the table of `linked`: its size differs from what was reserved.
pub fn write(linked: &Linked, table: &HotPatchTable) -> Vec<u8> {
    let (mut file, offsets) = headers::headers(linked);
    for (section, offset) in linked.sections.iter().zip(&offsets) {
        assert_eq!(
            file.len(),
            *offset as usize,
            "reserved and written offsets differ"
        );
        file.extend_from_slice(&section.bytes);
        file.resize(file.len().next_multiple_of(FILE_ALIGN as usize), 0);
    }
    let place = |rva: Rva<Patch>| file_offset(linked, &offsets, rva);
    let bytes = encode(table);
    if let Some((rva, size)) = linked.directories.table {
        assert_eq!(
            bytes.len(),
            size as usize,
            "reserved and written table sizes differ"
        );
        put(&mut file, place(rva), &bytes);
    }
    for (field, target) in &linked.directories.file_offsets {
        let target = u32::try_from(place(*target)).expect("a file below 4 GiB");
        put(&mut file, place(*field), &target.to_le_bytes());
    }
    let hash: [u8; 32] = Sha256::digest(&file).into();
    if let Some(rva) = linked.directories.content_hash {
        put(&mut file, place(rva), &hash);
    }
    if let Some(rva) = linked.directories.guid {
        put(&mut file, place(rva), &hash[16..]);
    }
    // Zero and all ones have meanings of their own.
    let stamp = u32::from_le_bytes([hash[0], hash[1], hash[2], hash[3]]).clamp(1, u32::MAX - 1);
    for rva in &linked.directories.time_stamps {
        put(&mut file, place(*rva), &stamp.to_le_bytes());
    }
    put(&mut file, headers::TIME_STAMP, &stamp.to_le_bytes());
    let sum = checksum(&file);
    put(&mut file, headers::CHECKSUM, &sum.to_le_bytes());
    file
}

/// Where a place of the image stands in the written file.
pub(crate) fn place_in_file(linked: &Linked, rva: Rva<Patch>) -> Option<usize> {
    let (_, offsets) = headers::headers(linked);
    linked
        .sections
        .iter()
        .zip(&offsets)
        .find_map(|(section, offset)| {
            let within = rva.checked_sub(section.rva)? as usize;
            (within < section.bytes.len()).then_some(*offset as usize + within)
        })
}

/// Where a place of the image stands in the file.
fn file_offset(linked: &Linked, offsets: &[u32], rva: Rva<Patch>) -> usize {
    let found = linked
        .sections
        .iter()
        .zip(offsets)
        .find_map(|(section, offset)| {
            let within = rva.checked_sub(section.rva)? as usize;
            (within < section.bytes.len()).then_some(*offset as usize + within)
        });
    found.expect("linked places lie in initialised parts of sections")
}

fn put(file: &mut [u8], at: usize, bytes: &[u8]) {
    file[at..at + bytes.len()].copy_from_slice(bytes);
}

/// The PE checksum of a file whose checksum field is zero: the folded sum of its 16-bit words plus
/// its length.
fn checksum(file: &[u8]) -> u32 {
    let mut sum = 0_u64;
    for pair in file.chunks(2) {
        sum += u64::from(pair[0]) | u64::from(pair.get(1).copied().unwrap_or(0)) << 8;
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (sum + file.len() as u64) as u32
}
