//! Places in Rust's sources, as panics carry them: constants that compilers put right behind those of
//! the program, without a name.
//!
//! ```text
//! 03 00 00 00 05 00 00 00 ..    an array of the program
//! 73 72 63 2e 72 73             src.rs
//! -> src.rs, 6, 14, 5           the place: name, its length, line, column
//! ```
//!
//! One line more in the source changes them all. Where code reaches one, or a place leads to its name,
//! whatever stands in front ends there.

use hpbuild_metadata::{Rva, Side};

use crate::pe::Pe;

/// Bytes of a place: see [`crate::compare::location`].
const SIZE: u32 = 24;
/// What a real one does not exceed.
const MAX_NAME: u64 = 1 << 12;
const MAX_LINE: u32 = 1 << 24;
const MAX_COLUMN: u32 = 1 << 12;

/// All of them and where their names start; sorted, unique.
pub(super) fn source_places<S: Side>(pe: &Pe<S>) -> Vec<Rva<S>> {
    let mut found = Vec::new();
    for place in &pe.base_relocations {
        if let Some(name) = name_of(pe, *place) {
            found.extend([*place, name]);
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// Where the name of the source starts that the constant at `rva` is a place in.
fn name_of<S: Side>(pe: &Pe<S>, rva: Rva<S>) -> Option<Rva<S>> {
    let bytes = pe.bytes(rva, SIZE)?;
    let (name, rest) = bytes.split_first_chunk()?;
    let (length, rest) = rest.split_first_chunk()?;
    let (line, column) = rest.split_first_chunk()?;
    let length = u64::from_le_bytes(*length);
    let (line, column) = (
        u32::from_le_bytes(*line),
        u32::from_le_bytes(*column.first_chunk()?),
    );
    let is_place = (1..=MAX_NAME).contains(&length)
        && (1..=MAX_LINE).contains(&line)
        && (1..=MAX_COLUMN).contains(&column);
    if !is_place || pe.relocations_in(rva, SIZE) != [rva] {
        return None;
    }
    let is_constant = |rva| {
        let section = pe.section_at(rva);
        section.is_some_and(|it| !it.is_writable() && !it.is_code())
    };
    let name = pe.rva_of(u64::from_le_bytes(*name))?;
    let text = pe.bytes(name, u32::try_from(length).ok()?)?;
    let text = text.strip_suffix(b"\0").unwrap_or(text);
    (is_constant(rva) && is_constant(name) && text.ends_with(b".rs") && !text.contains(&0))
        .then_some(name)
}
