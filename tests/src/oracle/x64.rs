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
