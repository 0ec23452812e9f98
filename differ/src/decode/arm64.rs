//! Arm64 instructions: a codec of the fields that hold addresses, and the pages they belong to.
//!
//! On Arm64 an address mostly takes two instructions: `adrp` makes that of a 4 KiB page, and a
//! later `add`, load or store adds the offset within it. [`pages`] connects the two.

mod effects;
mod field;
mod listing;
mod pages;
mod text;

#[cfg(test)]
mod tests;

use hpbuild_metadata::Side;

use super::{Body, Code, Instruction, Reference};

pub use field::{AddressField, FieldError};
pub(super) use listing::constants_differing;
pub use listing::text;
pub use text::Text;

/// Decodes `code` into `body`, which is empty.
///
/// `valid` is false for a piece of a word at the end, for permanently undefined words (which data
/// between functions often looks like), and for words in encoding groups that are not allocated.
/// Other words that are no instruction are not noticed; they have no reference.
pub(super) fn decode<S: Side>(code: Code<'_, S>, body: &mut Body<S>) {
    body.instructions.reserve(code.bytes.len().div_ceil(4));
    let mut pages = false;
    for (index, bytes) in code.bytes.chunks(4).enumerate() {
        let offset = index as u32 * 4;
        let Ok(word) = bytes.try_into().map(u32::from_le_bytes) else {
            body.instructions.push(Instruction {
                offset,
                length: bytes.len() as u8,
                valid: false,
                reference: None,
            });
            continue;
        };
        let reference = distance(code, offset, word);
        pages |= word & 0x9f00_0000 == 0x9000_0000;
        body.instructions.push(Instruction {
            offset,
            length: 4,
            valid: is_allocated(word),
            reference,
        });
    }
    if pages {
        pages::link(code, body);
    }
}

/// The operand of `word` that is encoded as a distance.
#[inline]
fn distance<S: Side>(code: Code<'_, S>, offset: u32, word: u32) -> Option<Reference<S>> {
    // Everything with a distance is a branch (101x), an `adr` (1000) or a literal load (x1x0 with
    // bits 29 to 27 being 011 and bit 24 clear); most words are none of them.
    let group = (word >> 25) & 0xf;
    let may = match group {
        0b1010 | 0b1011 | 0b1000 => true,
        0b1100 | 0b1110 => word & 0x3b00_0000 == 0x1800_0000,
        _ => false,
    };
    if !may {
        return None;
    }
    let field = AddressField::of(word).filter(|field| !field.is_page_offset())?;
    let target = field.target(word, code.rva.checked_add(offset)?)?;
    Some(Reference {
        target,
        kind: field::kind(word, field),
        field: field.field(),
    })
}

/// Whether `word` lies in an encoding group that holds instructions.
fn is_allocated(word: u32) -> bool {
    match (word >> 25) & 0xf {
        // Of the reserved group only half belongs to an extension.
        0b0000 => word >> 31 == 1,
        0b0001 | 0b0011 => false,
        _ => true,
    }
}
