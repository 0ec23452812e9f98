//! Jump tables that stand between the instructions.
//!
//! ```text
//!     adr   x8, table
//!     ldrb  w9, [x8, x2]
//!     adr   x8, blocks            ; or the table itself
//!     add   x8, x8, w9, sxtb #2
//!     br    x8
//! table:
//! ```
//!
//! Entries are distances within the function and stay as they are wherever it lies. Read as
//! instructions they would be anything: branches, pages. Where such a table ends is told by its
//! entries: the first block that one of them leads to stands behind it.

use hpbuild_metadata::Side;

use super::effects;
use crate::decode::{Body, Code};

/// How many instructions before the jump the address of the table is made at the earliest.
const WINDOW: usize = 24;

/// Takes back what was read into tables.
pub(super) fn set_apart<S: Side>(code: Code<'_, S>, body: &mut Body<S>) {
    let words = super::words(code);
    for index in 0..words.len() {
        // br xn
        let is_jump = words[index] & 0xffff_fc1f == 0xd61f_0000;
        if !is_jump || !body.instructions[index].valid {
            continue;
        }
        let Some(table) = Table::before(&words, index) else {
            continue;
        };
        let Some(end) = table.end(code.bytes) else {
            continue;
        };
        let span = table.start / 4..end.div_ceil(4);
        for instruction in body.instructions.get_mut(span).unwrap_or_default() {
            instruction.valid = false;
            instruction.reference = None;
        }
    }
}

/// A table, all places in bytes from the start of the code.
struct Table {
    start: usize,
    /// What entries are added to.
    base: usize,
    /// Bytes of an entry.
    size: usize,
    signed: bool,
    /// How far an entry is shifted left.
    shift: u32,
}

impl Table {
    /// The table that the jump at `index` goes by.
    fn before(words: &[u32], index: usize) -> Option<Self> {
        let register = |word: u32, low: u32| (word >> low) & 31;
        let last = |register: u32, before: usize| {
            let first = before.saturating_sub(WINDOW);
            (first..before)
                .rev()
                .find(|at| effects::of(words[*at]).writes & (1 << register) != 0)
        };
        // adr xd, label
        let label = |register: u32, before: usize| {
            let at = last(register, before)?;
            let word = words[at];
            let is_adr = word & 0x9f00_001f == 0x1000_0000 | register;
            let distance = super::AddressField::Address21.value(word);
            let target = i64::try_from(4 * at).ok()?.checked_add(distance)?;
            usize::try_from(target).ok().filter(|_| is_adr)
        };
        let add_at = last(register(words[index], 5), index)?;
        let add = words[add_at];
        // add xd, xn, wm or xm, extended; add xd, xn, xm, lsl.
        let shift = match add {
            _ if add & 0xffe0_0000 == 0x8b20_0000 => (add >> 10) & 7,
            _ if add & 0xffe0_0000 == 0x8b00_0000 => (add >> 10) & 63,
            _ => return None,
        };
        let (base, entry) = (register(add, 5), register(add, 16));
        let load_at = last(entry, add_at)?;
        let load = words[load_at];
        // ldr of a byte, half or word with a register offset.
        let is_load = load & 0x3f20_0c00 == 0x3820_0800 && load >> 30 != 3;
        let how = (load >> 22) & 3;
        if !is_load || how == 0 || shift > 4 {
            return None;
        }
        let start = label(register(load, 5), load_at)?;
        (start % 4 == 0).then_some(Self {
            start,
            base: label(base, add_at)?,
            size: 1 << (load >> 30),
            signed: how > 1,
            shift,
        })
    }

    /// Where it ends at the latest.
    fn end(&self, code: &[u8]) -> Option<usize> {
        let mut end = code.len();
        let mut at = self.start;
        while let Some(bytes) = code
            .get(at..at + self.size)
            .filter(|_| at + self.size <= end)
        {
            let unused = 64 - 8 * self.size as u32;
            let raw = bytes
                .iter()
                .rev()
                .fold(0, |value, byte| value << 8 | u64::from(*byte));
            let value = if self.signed {
                (raw << unused).cast_signed() >> unused
            } else {
                raw.cast_signed()
            };
            let target = i64::try_from(self.base)
                .ok()?
                .checked_add(value << self.shift)?;
            let target = usize::try_from(target)
                .ok()
                .filter(|target| *target < code.len());
            // Filler behind the last entry.
            let Some(target) = target else { break };
            if target > self.start {
                end = end.min(target);
            }
            at += self.size;
        }
        Some(at)
    }
}
