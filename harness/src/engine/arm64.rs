//! Redirecting a function on Arm64 (format reference, section 3.4).
//!
//! ```text
//! entry:    b               the function's code in the address table, at most 128 MiB ahead
//! table:    ldr x16, [pc + 0x1000]
//!           br  x16
//! ```
//!
//! No bytes before the entry are used, and `x16` is lost, as in any veneer.

use hpbuild_metadata::{Rva, Side};

use super::Mapped;
use super::hpat::{Hpat, Slot};

/// Code of one address-table entry.
pub(crate) const TABLE_CODE: [u8; 8] = [0x10, 0x80, 0x00, 0x58, 0x00, 0x02, 0x1f, 0xd6];

/// The branch at `entry` that reaches `code`; `None` where it lies behind or too far ahead.
pub(crate) fn branch<S>(entry: Rva<S>, code: Rva<S>) -> Option<[u8; 4]> {
    let distance = code.checked_sub(entry)?;
    let reachable = distance % 4 == 0 && distance < 1 << 27;
    reachable.then(|| (0x1400_0000 | (distance >> 2)).to_le_bytes())
}

/// The address-table entry that an entry branches to, if it is redirected.
pub(crate) fn redirected_to<S: Side>(
    mapped: &Mapped<'_, S>,
    hpat: Hpat,
    entry: Rva<S>,
) -> Option<Slot> {
    let word = u32::from_le_bytes(mapped.bytes(entry)?);
    if word & 0xfc00_0000 != 0x1400_0000 {
        return None;
    }
    // Sign-extends the 26-bit word count and turns it into bytes.
    let distance = i64::from(((word << 6) as i32) >> 4);
    hpat.slot_at(entry.checked_offset(distance)?)
}

/// Whether an entry starts with a `bti`, which indirect branches may need to find there.
pub(crate) fn is_landing_pad(entry: [u8; 4]) -> bool {
    matches!(
        u32::from_le_bytes(entry),
        0xd503_241f | 0xd503_245f | 0xd503_249f | 0xd503_24df
    )
}

/// Where a call of `entry` ends up after the table's branch; `None` where it is not redirected.
pub(crate) fn follow<S: Side>(mapped: &Mapped<'_, S>, hpat: Hpat, entry: Rva<S>) -> Option<u64> {
    let code = hpat.code::<S>(redirected_to(mapped, hpat, entry)?);
    let load = u32::from_le_bytes(mapped.bytes(code)?);
    let branch = u32::from_le_bytes(mapped.bytes(code.checked_add(4)?)?);
    // ldr x16, literal: a signed 19-bit word count from the instruction itself.
    if load & 0xff00_001f != 0x5800_0010 || branch != 0xd61f_0200 {
        return None;
    }
    let distance = i64::from(((load << 8) as i32) >> 13) * 4;
    mapped
        .bytes(code.checked_offset(distance)?)
        .map(u64::from_le_bytes)
}
