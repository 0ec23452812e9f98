//! The hotpatch table: which slots of the patch the base fills, and which functions of the base go
//! to the patch.

use hpbuild_metadata::table::{Chunk, ForwardAttach, HotPatchTable, PointerAttach, encode};
use hpbuild_metadata::{Machine, Patch, Rva};

use crate::link::SlotAttach;
use crate::link::{Fill, Linked, LinkedSlot};
use crate::piece::{Parts, Redirect};

/// Connects the linked image with its base: reverse attaches by slot, forward attaches by base
/// entry.
pub fn attach(parts: &Parts, linked: &Linked) -> HotPatchTable {
    table(parts, &linked.slots, &linked.entries)
}

/// Bytes of the table, which do not depend on addresses.
pub(crate) fn table_size(parts: &Parts, attaches: &[SlotAttach]) -> usize {
    let slots: Vec<_> = attaches
        .iter()
        .map(|attach| LinkedSlot {
            patch: Rva::new(0),
            base: attach.base,
            fill: attach.fill,
        })
        .collect();
    encode(&table(
        parts,
        &slots,
        &vec![Rva::new(0); parts.redirects.len()],
    ))
    .len()
}

fn table(parts: &Parts, slots: &[LinkedSlot], entries: &[Rva<Patch>]) -> HotPatchTable {
    let filled = |fill: Fill| -> Vec<_> {
        slots
            .iter()
            .filter(|slot| slot.fill == fill)
            .map(|slot| PointerAttach {
                patch: slot.patch,
                base: slot.base,
            })
            .collect()
    };
    let mut forward: Vec<_> = parts
        .redirects
        .iter()
        .zip(entries)
        .map(|(redirect, entry)| ForwardAttach {
            base: redirect.base,
            patch: *entry,
            original: original_word(parts.machine, redirect),
        })
        .collect();
    forward.sort_by_key(|attach| attach.base);
    let chunks = [
        Chunk::ReverseAbsolute(filled(Fill::Absolute)),
        Chunk::ReverseIndirect(filled(Fill::Indirect)),
        Chunk::ForwardFunction(forward),
    ];
    let chunks = chunks
        .into_iter()
        .filter(|chunk| !chunk.is_empty())
        .collect();
    HotPatchTable::new(parts.sequence, parts.machine, parts.base.identity, chunks)
}

/// The word that is compared with the running base: its first two bytes on x64, the whole first
/// instruction on Arm64 (format reference, section 2).
fn original_word(machine: Machine, redirect: &Redirect) -> u32 {
    let word = u32::from_le_bytes(redirect.original);
    match machine {
        Machine::X64 => word & 0xffff,
        Machine::Arm64 => word,
    }
}
