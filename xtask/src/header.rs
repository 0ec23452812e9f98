//! Header fields that no linker at hand writes.

use anyhow::{Context, Result};

/// Number of the data directory that managed images have (`IMAGE_DIRECTORY_ENTRY_COM_DESCRIPTOR`).
const COM_DESCRIPTOR: usize = 14;

/// Bytes of the header that directory names (`IMAGE_COR20_HEADER`).
const COR20_SIZE: u32 = 72;

/// Makes a PE32+ image say that it is managed: its descriptor is the start of the first section.
/// The checksum is left as it was.
///
/// # Errors
/// The header ends before that field.
pub(crate) fn add_com_descriptor(dll: &mut [u8]) -> Result<()> {
    let word = |dll: &[u8], at: usize| -> Option<u32> {
        let bytes = dll.get(at..at + 4)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    };
    let pe = word(dll, 0x3c).context("no e_lfanew")? as usize;
    let optional = pe + 24;
    let first_section = word(dll, optional + 20).context("no BaseOfCode")?;
    let entry = optional + 112 + 8 * COM_DESCRIPTOR;
    let field = dll
        .get_mut(entry..entry + 8)
        .context("no data directories")?;
    field[..4].copy_from_slice(&first_section.to_le_bytes());
    field[4..].copy_from_slice(&COR20_SIZE.to_le_bytes());
    Ok(())
}
