//! Arm64 instructions: a codec of the fields that hold addresses, and the pages they belong to.
//!
//! On Arm64 an address mostly takes two instructions: `adrp` makes that of a 4 KiB page, and a
//! later `add`, load or store adds the offset within it. `pages` connects the two.

mod access;
mod back;
mod blocks;
pub(super) mod derived;
mod effects;
mod escapes;
mod field;
mod follow;
mod frame;
mod kept;
mod listing;
mod pages;
mod relative_tables;
mod switches;
mod tables;
mod text;

#[cfg(test)]
mod tests;

use hpbuild_metadata::Side;

use super::{Body, Code, Instruction, Reference, ReferenceKind};

pub(super) use access::{access, entry_shift};
pub(super) use back::reaches_back;
pub(super) use escapes::escape;
pub use field::{AddressField, FieldError};
pub use listing::text;
pub(super) use listing::{constants_differing, flow, is_compared, is_kept_or_indexed, runs_on};
pub(super) use relative_tables::relative_tables;
pub use text::Text;

/// Decodes `code` into `body`, which is empty.
///
/// `valid` is false for constants that the code loads from between its instructions, for a piece
/// of a word at the end, for permanently undefined words (which data between functions often looks
/// like), and for words in encoding groups that are not allocated. Other words that are no
/// instruction are not noticed; they have no reference.
///
/// A stretch is understood by itself: a page that is made in one part of a split function and used
/// in another has a user that is not found.
pub(super) fn decode<S: Side>(code: Code<'_, S>, body: &mut Body<S>) {
    body.instructions.reserve(code.bytes.len().div_ceil(4));
    let (mut pages, mut literals, mut jumps) = (false, false, false);
    let words = code.bytes.chunks_exact(4);
    let rest = words.remainder().len();
    for (index, bytes) in words.enumerate() {
        let offset = index as u32 * 4;
        let word = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        pages |= word & 0x9f00_0000 == 0x9000_0000;
        literals |= word & 0x3b00_0000 == 0x1800_0000;
        jumps |= word & 0xffff_fc1f == 0xd61f_0000;
        body.instructions.push(Instruction {
            offset,
            length: 4,
            valid: is_allocated(word),
            reference: distance(code, offset, word),
        });
    }
    if rest != 0 {
        body.instructions.push(Instruction {
            offset: (code.bytes.len() - rest) as u32,
            length: rest as u8,
            valid: false,
            reference: None,
        });
    }
    if jumps {
        tables::set_apart(code, body);
    }
    if literals {
        set_constants_apart(code, body);
    }
    if pages {
        pages::link(code, body);
    }
}

/// The whole words of `code`.
fn words<S: Side>(code: Code<'_, S>) -> Vec<u32> {
    code.bytes
        .chunks_exact(4)
        .filter_map(|word| word.first_chunk())
        .map(|word| u32::from_le_bytes(*word))
        .collect()
}

/// Takes back what was read into words that the code loads as constants.
fn set_constants_apart<S: Side>(code: Code<'_, S>, body: &mut Body<S>) {
    let mut constants = Vec::new();
    for (instruction, bytes) in body.instructions.iter().zip(code.bytes.chunks_exact(4)) {
        let Some(reference) = instruction.reference else {
            continue;
        };
        let ReferenceKind::Memory(size) = reference.kind else {
            continue;
        };
        // A word that is itself a constant may look like a load.
        let offset = reference.target.checked_sub(code.rva);
        let inside = offset.filter(|offset| (*offset as usize) < code.bytes.len());
        if let (Some(offset), true) = (inside, bytes[3] & 0x3b == 0x18) {
            constants.push((instruction.offset, offset / 4, u32::from(size) / 4));
        }
    }
    // In the order of the loads, so that a load found to be a constant no longer counts: constants
    // stand behind the code that loads them.
    for (load, first, words) in constants {
        if !body.instructions[load as usize / 4].valid {
            continue;
        }
        for instruction in body
            .instructions
            .iter_mut()
            .skip(first as usize)
            .take(words as usize)
        {
            instruction.valid = false;
            instruction.reference = None;
        }
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
