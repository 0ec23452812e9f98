//! Relocated fields of x64 code and data (PE format documentation, "Type Indicators").

/// Width in bytes of the field that a relocation of this kind writes; `None` for one that writes
/// nothing or is not known.
pub(super) fn width(kind: u16) -> Option<usize> {
    match kind {
        // ADDR64
        0x1 => Some(8),
        // ADDR32, ADDR32NB, REL32 and REL32_1 to REL32_5, SECREL
        0x2..=0x9 | 0xb => Some(4),
        // SECTION
        0xa => Some(2),
        _ => None,
    }
}

/// Blanks the field and gives the number that was in it, which the linker adds to the address.
pub(super) fn take(kind: u16, field: &mut [u8]) -> Option<i64> {
    let field = field.get_mut(..width(kind)?)?;
    let mut bytes = [0; 8];
    bytes[..field.len()].copy_from_slice(field);
    let shift = 64 - 8 * field.len() as u32;
    field.fill(0);
    Some(i64::from_le_bytes(bytes) << shift >> shift)
}

/// How many bytes an instruction reads at the address in its field, for the instructions that
/// compilers read parts of strings with. `offset` is that of the field, which follows the ModRM byte
/// of the operand (Intel 64 manual, volume 2, chapter 2).
pub(super) fn access(kind: u16, code: &[u8], offset: u32) -> Option<u32> {
    // REL32 to REL32_5
    if !(0x4..=0x9).contains(&kind) {
        return None;
    }
    let before = code.get(..offset as usize)?;
    let [.., second, opcode, operand] = *before else {
        return None;
    };
    let third = before.len().checked_sub(4).map(|at| before[at]);
    if operand & 0xc7 != 5 {
        return None;
    }
    match (second, opcode) {
        // movzx and movsx
        (0x0f, 0xb6 | 0xbe) => Some(1),
        (0x0f, 0xb7 | 0xbf) => Some(2),
        // Opcodes of the maps 0f38 and 0f3a are others.
        (0x38 | 0x3a, _) if third == Some(0x0f) => None,
        // cmp and mov of a byte register, cmp with a byte
        (_, 0x38 | 0x3a | 0x8a) => Some(1),
        (_, 0x80) if operand >> 3 & 7 == 7 => Some(1),
        _ => None,
    }
}
