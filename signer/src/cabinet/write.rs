//! Writing a cabinet. Same files, same bytes: dates are fixed, and so is the compression.

use super::mszip;
use super::read::{CabinetFile, check_name, checksum};
use crate::error::Error;

/// 1980-01-01, the first day of the format's calendar.
const DATE: u16 = 0x0021;
/// The attribute "archive", which every tool sets.
const ATTRIBUTES: u16 = 0x20;
/// Compression type: MSZIP.
pub(super) const MSZIP: u16 = 1;
/// What one folder can hold: as many blocks as a 16-bit number counts, below 2 GiB.
const MAX_TOTAL: usize = 0x7fff_8000;

/// Writes an unsigned cabinet with `files` in the order given, in one folder.
///
/// # Errors
/// When a name is not one that [`super::read_cabinet`] accepts or stands twice, or when the files
/// are too many or too large for one folder.
pub fn write_cabinet(files: &[CabinetFile]) -> Result<Vec<u8>, Error> {
    let mut entries = Vec::new();
    let mut content = Vec::new();
    for (index, file) in files.iter().enumerate() {
        check_name(&file.name)?;
        let twice = files[..index]
            .iter()
            .any(|other| other.name.eq_ignore_ascii_case(&file.name));
        if twice || content.len() + file.bytes.len() > MAX_TOTAL || files.len() > 0xffff {
            let reason = "a name stands twice, or the files are too many or too large";
            return Err(Error::request(format!("cabinet: {}", file.name), reason));
        }
        entries.extend_from_slice(&(file.bytes.len() as u32).to_le_bytes());
        entries.extend_from_slice(&(content.len() as u32).to_le_bytes());
        for field in [0, DATE, 0, ATTRIBUTES] {
            entries.extend_from_slice(&u16::to_le_bytes(field));
        }
        entries.extend_from_slice(file.name.as_bytes());
        entries.push(0);
        content.extend_from_slice(&file.bytes);
    }
    let mut blocks = Vec::new();
    for block in content.chunks(mszip::BLOCK) {
        let data = mszip::compress(block);
        let sizes = [data.len() as u16, block.len() as u16]
            .map(u16::to_le_bytes)
            .concat();
        blocks.extend_from_slice(&checksum(&data, &sizes).to_le_bytes());
        blocks.extend_from_slice(&sizes);
        blocks.extend_from_slice(&data);
    }
    let files_at = super::HEADER + 8;
    let data_at = files_at + entries.len();
    let size = u32::try_from(data_at + blocks.len())
        .map_err(|_| Error::request("cabinet", "it would be over 4 GiB"))?;

    let mut cabinet = b"MSCF".to_vec();
    for field in [0, size, 0, files_at as u32, 0] {
        cabinet.extend_from_slice(&u32::to_le_bytes(field));
    }
    // Version 1.3, stored minor number first; one folder; no flags, no set.
    cabinet.extend_from_slice(&[3, 1]);
    for field in [1, files.len() as u16, 0, 0, 0] {
        cabinet.extend_from_slice(&u16::to_le_bytes(field));
    }
    cabinet.extend_from_slice(&(data_at as u32).to_le_bytes());
    for field in [content.len().div_ceil(mszip::BLOCK) as u16, MSZIP] {
        cabinet.extend_from_slice(&field.to_le_bytes());
    }
    cabinet.extend(entries);
    cabinet.extend(blocks);
    Ok(cabinet)
}
