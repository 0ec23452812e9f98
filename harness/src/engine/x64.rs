//! Redirecting a function on x64 (format reference, section 3.4).
//!
//! ```text
//! entry-5:  e9 rel32        jmp  the function's code in the address table
//! entry:    eb f9           jmp  entry-5
//! table:    ff 25 fa 0f..   jmp  [the pointer one page further on]
//! ```

use std::ops::Range;

pub(crate) use hpbuild_metadata::x64::{LONGEST, PAD, filler_before};
use hpbuild_metadata::{Rva, Side};
use iced_x86::{Decoder, DecoderOptions, FlowControl};

use super::Mapped;
use super::hpat::{Hpat, Slot};

/// Code of one address-table entry: `jmp [rip + 0xffa]`, filled up to eight bytes.
pub(crate) const TABLE_CODE: [u8; 8] = [0xff, 0x25, 0xfa, 0x0f, 0x00, 0x00, 0xcc, 0xcc];
/// The short jump that stands at a redirected entry.
pub(crate) const ENTRY_JUMP: [u8; 2] = [0xeb, 0xf9];
/// Bytes before an entry that are written.
pub(crate) const JUMP: u32 = 5;

/// The five bytes at entry-5 that reach `code`; `None` where it is more than 2 GiB away.
pub(crate) fn jump<S>(entry: Rva<S>, code: Rva<S>) -> Option<[u8; 5]> {
    let distance = i64::from(code.get()) - i64::from(entry.get());
    let [a, b, c, d] = i32::try_from(distance).ok()?.to_le_bytes();
    Some([0xe9, a, b, c, d])
}

/// What stands at an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// The function's own first instruction, as far as two bytes show.
    Plain,
    /// Redirected through this entry of the image's own address table.
    Redirected(Slot),
    /// A short jump backwards that no engine of this kind wrote.
    Foreign,
}

/// Reads the bytes at an entry. A short jump to entry-16 or later is a redirect of some kind.
pub(crate) fn read_entry<S: Side>(mapped: &Mapped<'_, S>, hpat: Hpat, entry: Rva<S>) -> Entry {
    let Some([opcode, displacement]) = mapped.bytes(entry) else {
        return Entry::Foreign;
    };
    if opcode != 0xeb || displacement < 0xee {
        return Entry::Plain;
    }
    let slot = || {
        let at = entry.checked_offset(-i64::from(JUMP))?;
        let [0xe9, a, b, c, d] = mapped.bytes(at)? else {
            return None;
        };
        let distance = i64::from(i32::from_le_bytes([a, b, c, d]));
        hpat.slot_at(entry.checked_offset(distance)?)
    };
    match slot() {
        Some(slot) if displacement == ENTRY_JUMP[1] => Entry::Redirected(slot),
        _ => Entry::Foreign,
    }
}

/// Why the first two bytes of the function at `entry` cannot be replaced under its feet, if so:
/// they must be one instruction, and no jump of the function's own may lead to them, for a thread
/// in old code would come out in the new function with half of a call behind it.
///
/// Without an `extent` only the first instruction is looked at: whose code follows is not known.
pub(crate) fn entry_in_use(
    memory: &[u8],
    entry: u32,
    extent: Option<Range<u32>>,
) -> Option<String> {
    let end = extent
        .as_ref()
        .map_or(memory.len(), |extent| extent.end as usize);
    let code = memory.get(entry as usize..end.min(memory.len()))?;
    let mut decoder = Decoder::with_ip(64, code, entry.into(), DecoderOptions::NONE);
    let first = decoder.decode();
    if first.len() < ENTRY_JUMP.len() {
        return Some(format!("one of {} byte", first.len()));
    }
    extent?;
    decoder.set_ip(entry.into());
    decoder.set_position(0).ok()?;
    for instruction in &mut decoder {
        // Data between instructions ends what can be said; what was seen up to there holds.
        if instruction.is_invalid() {
            return None;
        }
        let jump = matches!(
            instruction.flow_control(),
            FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch
        );
        let target = instruction.near_branch_target().wrapping_sub(entry.into());
        if jump && target < ENTRY_JUMP.len() as u64 {
            return Some(format!(
                "a jump back to it from rva {:#x}",
                instruction.ip()
            ));
        }
    }
    None
}

/// Whether an entry starts with `endbr64`, which indirect branches may need to find there.
pub(crate) fn is_landing_pad(entry: [u8; 4]) -> bool {
    entry == [0xf3, 0x0f, 0x1e, 0xfa]
}

/// Where a call of `entry` ends up after the table's jump; `None` where it is not redirected.
pub(crate) fn follow<S: Side>(mapped: &Mapped<'_, S>, hpat: Hpat, entry: Rva<S>) -> Option<u64> {
    let Entry::Redirected(slot) = read_entry(mapped, hpat, entry) else {
        return None;
    };
    let [0xff, 0x25, a, b, c, d] = mapped.bytes(hpat.code(slot))? else {
        return None;
    };
    let next = i64::from(i32::from_le_bytes([a, b, c, d])) + 6;
    let pointer = hpat.code::<S>(slot).checked_offset(next)?;
    mapped.bytes(pointer).map(u64::from_le_bytes)
}
