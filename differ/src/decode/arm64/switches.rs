//! Where jumps through tables lead.
//!
//! ```text
//!     adr   x12, blocks
//!     ldrb  w13, [x20, x9]           ; an entry; the table may come from far away
//!     add   x12, x12, x13, lsl #2
//!     br    x12
//! ```
//!
//! A record tells the jump, the table and what entries are added to. It is believed where the code
//! before the jump says the same: its own `adr` makes the address of the blocks, and it loads
//! entries of the same size. The code tells as well how far entries are shifted, which clang does
//! not record. No way leads in between. The address of the table may come from anywhere and is not
//! looked at: a jump that is shared by two tables has two records, and none is believed.
//!
//! Entries with four bytes, which are distances from the table itself, are not followed: the table's
//! address is in two instructions, which mostly stand elsewhere.

use hpbuild_metadata::Side;

use super::blocks::word_at;
use super::effects;
use super::field::AddressField;
use crate::decode::{Body, Code, TableJump};

/// How many instructions before the jump the address of its blocks is made at the earliest.
const WINDOW: u32 = 24;

/// A jump that is understood. Places are indexes of instructions.
pub(super) struct Switch {
    pub(super) branch: u32,
    /// All that it may lead to, sorted, each once. What lies right behind the code is left out: it is
    /// where values lead that cannot come.
    pub(super) targets: Vec<u32>,
    /// Where what leads to the jump begins.
    first: u32,
}

/// The jumps of `code` that are understood. Where they lead is added to the starts of blocks, sorted.
pub(super) fn switches<S: Side>(
    code: Code<'_, S>,
    body: &Body<S>,
    starts: &mut Vec<u32>,
) -> Vec<Switch> {
    if code.jumps.is_empty() {
        return Vec::new();
    }
    let found = code.jumps.iter();
    let mut found: Vec<Switch> = found
        .filter_map(|jump| switch(code, body, starts, jump))
        .collect();
    let before = starts.len();
    starts.extend(found.iter().flat_map(|switch| &switch.targets));
    starts.sort_unstable();
    starts.dedup();
    // A table may lead in between after all.
    let is_whole = |switch: &Switch| block_of(starts, switch.branch) <= switch.first;
    if starts.len() > before && !found.iter().all(is_whole) {
        found.clear();
    }
    found
}

/// Where the block of an instruction starts.
fn block_of(starts: &[u32], index: u32) -> u32 {
    let behind = starts.partition_point(|start| *start <= index);
    behind.checked_sub(1).map_or(0, |block| starts[block])
}

fn switch<S: Side>(
    code: Code<'_, S>,
    body: &Body<S>,
    starts: &[u32],
    jump: &TableJump<S>,
) -> Option<Switch> {
    let at = jump.branch.checked_sub(code.rva)?;
    let branch = at / 4;
    if at % 4 != 0 || branch as usize >= body.instructions.len() {
        return None;
    }
    let start = block_of(starts, branch).max(branch.saturating_sub(WINDOW));
    let form = Form::before(code, body, start..branch)?;
    let base = code.rva.checked_offset(form.base)?;
    if base != jump.base || form.size != jump.size {
        return None;
    }
    let end = i64::try_from(code.bytes.len()).ok()?;
    let mut targets = Vec::new();
    for entry in jump.entries.chunks_exact(jump.size.into()) {
        let target = form.base + (form.value(entry) << form.shift);
        if target == end {
            continue;
        }
        if !(0..end).contains(&target) || target % 4 != 0 {
            return None;
        }
        let target = u32::try_from(target / 4).ok()?;
        if !body.instructions.get(target as usize)?.valid {
            return None;
        }
        targets.push(target);
    }
    targets.sort_unstable();
    targets.dedup();
    (!targets.is_empty()).then_some(Switch {
        branch,
        targets,
        first: form.first,
    })
}

/// How the code makes the place to jump to.
struct Form {
    /// The first instruction of those that do.
    first: u32,
    /// What entries are added to, in bytes from the start of the code.
    base: i64,
    /// Bytes of an entry.
    size: u8,
    signed: bool,
    /// How far an entry is shifted left.
    shift: u32,
}

impl Form {
    /// That of the instructions before a jump, which is the one behind `span`.
    fn before<S: Side>(
        code: Code<'_, S>,
        body: &Body<S>,
        span: std::ops::Range<u32>,
    ) -> Option<Self> {
        let word = |index| word_at(code, body, index);
        let register = |word: u32, low: u32| (word >> low) & 31;
        let last = |register: u32, before: u32| {
            (span.start..before)
                .rev()
                .find(|at| effects::of(word(*at)).writes & (1 << register) != 0)
        };
        // br xn
        let branch = word(span.end);
        if branch & 0xffff_fc1f != 0xd61f_0000 {
            return None;
        }
        let add_at = last(register(branch, 5), span.end)?;
        let add = word(add_at);
        let load_at = last(register(add, 16), add_at)?;
        let load = word(load_at);
        // ldrb, ldrh, ldrsb or ldrsh of a general register, [xn, xm or wm, extended].
        let (size, how) = (load >> 30, (load >> 22) & 3);
        if load & 0x3f20_0c00 != 0x3820_0800 || size > 1 || how == 0 {
            return None;
        }
        // add xd, xn, xm, lsl; add xd, xn, wm or xm, extended.
        let (shift, signed) = match (add, how) {
            _ if add & 0xffe0_0000 == 0x8b00_0000 && how != 3 => ((add >> 10) & 63, how == 2),
            (_, 1) if add & 0xffe0_0000 == 0x8b20_0000 => match (add >> 13) & 7 {
                // By its sign from the loaded size, or by zeros from that size or a larger one.
                option if option == 4 + size => ((add >> 10) & 7, true),
                option @ 0..4 if option >= size => ((add >> 10) & 7, false),
                _ => return None,
            },
            _ => return None,
        };
        let adr_at = last(register(add, 5), add_at)?;
        let adr = word(adr_at);
        if adr & 0x9f00_0000 != 0x1000_0000 || shift > 4 {
            return None;
        }
        Some(Self {
            first: adr_at.min(load_at),
            base: 4 * i64::from(adr_at) + AddressField::Address21.value(adr),
            size: 1 << size,
            signed,
            shift,
        })
    }

    /// The value of an entry of one or two bytes.
    fn value(&self, entry: &[u8]) -> i64 {
        match (entry, self.signed) {
            ([byte], false) => (*byte).into(),
            ([byte], true) => byte.cast_signed().into(),
            ([low, high], false) => u16::from_le_bytes([*low, *high]).into(),
            ([low, high], true) => i16::from_le_bytes([*low, *high]).into(),
            _ => 0,
        }
    }
}
