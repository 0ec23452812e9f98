//! Relocated fields of Arm64 code and data (PE format documentation, "Type Indicators").

use super::object_file::{Relocation, Section};

/// Bits of an instruction that a relocation of this kind writes.
fn instruction_bits(kind: u16) -> Option<u32> {
    match kind {
        // BRANCH26
        0x3 => Some(0x03ff_ffff),
        // PAGEBASE_REL21, REL21: two bits high up and nineteen in the middle
        0x4 | 0x5 => Some(0x60ff_ffe0),
        // PAGEOFFSET_12A, PAGEOFFSET_12L, SECREL_LOW12A, SECREL_HIGH12A, SECREL_LOW12L
        0x6 | 0x7 | 0x9..=0xb => Some(0x003f_fc00),
        // BRANCH19
        0xf => Some(0x00ff_ffe0),
        // BRANCH14
        0x10 => Some(0x0007_ffe0),
        _ => None,
    }
}

/// Blanks the field and gives the number that was in it: for data what the linker adds to the
/// address, for an instruction the bits as they lie there, which are the same for the same
/// addend as long as the rest of the instruction is.
pub(super) fn take(kind: u16, field: &mut [u8]) -> Option<i64> {
    let width = match kind {
        // ADDR64
        0xe => 8,
        // SECTION
        0xd => 2,
        // ADDR32, ADDR32NB, SECREL, REL32, and all instructions
        0x1..=0xb | 0xf..=0x11 => 4,
        _ => return None,
    };
    let field = field.get_mut(..width)?;
    let mut bytes = [0; 8];
    bytes[..width].copy_from_slice(field);
    let Some(bits) = instruction_bits(kind) else {
        let shift = 64 - 8 * width as u32;
        field.fill(0);
        return Some(i64::from_le_bytes(bytes) << shift >> shift);
    };
    let instruction = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    field.copy_from_slice(&(instruction & !bits).to_le_bytes());
    let written = instruction & bits;
    Some(match kind {
        // The only ones whose addend must be known in bytes, to find what a section symbol with
        // an addend means: page and offset in page carry the same one.
        0x4 | 0x5 => {
            let number = (written >> 5 & 0x7_ffff) << 2 | written >> 29 & 3;
            i64::from(number << 11) << 32 >> 43
        }
        0x6 => i64::from(written >> 10),
        0x7 => i64::from(written >> 10) << scale(instruction),
        _ => i64::from(written),
    })
}

/// How many bytes an instruction reads at the address in its field: those of a load; none for the
/// page, where another instruction has the rest of the same address.
pub(super) fn access(section: &Section, relocation: &Relocation) -> Option<u32> {
    match relocation.kind {
        0x4 => {
            let completes = |it: &&Relocation| it.symbol == relocation.symbol;
            let mut others = section.relocations.iter().filter(completes);
            others.any(|it| matches!(it.kind, 0x6 | 0x7)).then_some(0)
        }
        0x7 => {
            let start = relocation.offset as usize;
            let word = section.bytes.get(start..)?.first_chunk()?;
            Some(1 << scale(u32::from_le_bytes(*word)))
        }
        _ => None,
    }
}

/// Power of two by which a load or store scales its offset.
fn scale(instruction: u32) -> u32 {
    let size = instruction >> 30;
    // Loads and stores of 128-bit registers have a size of 0 and the top bit of opc set.
    let vector = instruction & 0x0480_0000 == 0x0480_0000;
    if vector && size == 0 { 4 } else { size }
}
