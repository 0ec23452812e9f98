//! Cabinet files (`.cab`): written byte for byte reproducibly, read with every number bounded
//! first, signed as a whole.
//!
//! A signed cabinet has 20 reserved bytes in its header that say where the signature stands; it
//! follows the cabinet proper:
//!
//! ```text
//! 0        36        60                                    cbCabinet
//! | header | reserve | folder | file entries | data blocks | signature |
//! ```
//!
//! The digest leaves out what changes when a signature comes or goes: bytes 4 to 8 (reserved), 34
//! to 36 (number in a set) and 36 to 56 (the reserve but for its last word). Reading demands the
//! one right value there, so that no byte of the file is free. Source: "Microsoft Cabinet Format"
//! and the signatures that existing tools write, with which the tests compare.

mod mszip;
mod read;
mod write;

pub use read::{CabinetFile, Limits, read_cabinet};
pub(crate) use read::{Header, header};
pub use write::write_cabinet;

use crate::digest::DigestAlgorithm;
use crate::error::Error;

/// Bytes of the header before the reserve.
pub(crate) const HEADER: usize = 36;
/// Bytes that the reserve adds: three lengths, and the 20 bytes for a signature.
pub(crate) const RESERVE: usize = 24;
/// Header flag: the lengths of reserved areas follow.
pub(crate) const RESERVE_PRESENT: u16 = 4;
/// The lengths (20, 0, 0) and the first word of the reserve, as every signing tool writes them.
pub(crate) const RESERVE_START: [u8; 8] = [20, 0, 0, 0, 0, 0, 0x10, 0];

/// The digest of a cabinet that has a reserve.
pub(crate) fn digest(bytes: &[u8], header: &Header, algorithm: DigestAlgorithm) -> Vec<u8> {
    algorithm.digest_parts(&[&bytes[..4], &bytes[8..34], &bytes[56..header.size]])
}

/// The cabinet as it is before it is signed: with an empty reserve and nothing behind it.
pub(crate) fn normalise(bytes: &[u8]) -> Result<Vec<u8>, Error> {
    let header = header(bytes)?;
    if header.reserved {
        let mut cabinet = bytes[..header.size].to_vec();
        cabinet[44..52].fill(0);
        return Ok(cabinet);
    }
    let mut cabinet = bytes[..HEADER].to_vec();
    cabinet.extend_from_slice(&RESERVE_START);
    cabinet.resize(HEADER + RESERVE, 0);
    cabinet.extend_from_slice(&bytes[HEADER..header.size]);
    let flags = header.flags | RESERVE_PRESENT;
    cabinet[30..32].copy_from_slice(&flags.to_le_bytes());
    // The size, the place of the file entries, and each folder's place of its data.
    let folders = (0..header.folders).map(|index| HEADER + RESERVE + 8 * index);
    for at in [8, 16].into_iter().chain(folders) {
        let value = read::u32_at(&cabinet, at, "cabinet header")?;
        let moved = value.checked_add(RESERVE as u32).ok_or_else(|| {
            Error::format("cabinet", "offsets below 4 GiB", format!("{value:#x}"))
        })?;
        cabinet[at..at + 4].copy_from_slice(&moved.to_le_bytes());
    }
    Ok(cabinet)
}

/// The signed cabinet made of a [`normalise`]d one and the DER of its signature.
pub(crate) fn attach(cabinet: &[u8], signature: &[u8]) -> Result<Vec<u8>, Error> {
    let header = header(cabinet)?;
    let length = signature.len().next_multiple_of(8);
    let too_large = |_| Error::request("cabinet", "the signed cabinet is over 4 GiB");
    let offset = u32::try_from(header.size).map_err(too_large)?;
    let size = u32::try_from(length).map_err(too_large)?;
    let mut signed = cabinet[..header.size].to_vec();
    signed[44..48].copy_from_slice(&offset.to_le_bytes());
    signed[48..52].copy_from_slice(&size.to_le_bytes());
    signed.extend_from_slice(signature);
    signed.resize(header.size + length, 0);
    Ok(signed)
}

/// The DER of the signature of a cabinet, if it has one.
pub(crate) fn signature<'a>(bytes: &'a [u8], header: &Header) -> Result<Option<&'a [u8]>, Error> {
    let rest = &bytes[header.size..];
    if rest.is_empty() {
        return Ok(None);
    }
    crate::pe::without_padding(rest, "cabinet signature").map(Some)
}
