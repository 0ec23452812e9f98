//! Jumps through tables that the PDB describes, for the decoder, which follows them.

use hpbuild_metadata::{Rva, Side};

use crate::decode::{TableJump, wants_jumps};
use crate::image::SwitchTable;
use crate::pe::Pe;

/// The jumps, sorted by their place. Where records tell different things of one nothing is known of it,
/// nor where the table is not in the file.
pub(super) fn table_jumps<S: Side>(pe: &Pe<S>, tables: &[SwitchTable<S>]) -> Vec<TableJump<S>> {
    if !wants_jumps(pe.machine) {
        return Vec::new();
    }
    let mut tables: Vec<&SwitchTable<S>> = tables.iter().collect();
    tables.sort_by_key(|table| table.branch);
    let mut jumps = Vec::new();
    // Tables do not overlap, so that they are no larger than the image; records that say so are
    // not believed.
    let mut room = pe.image_size;
    for same in tables.chunk_by(|one, other| one.branch == other.branch) {
        // Folded functions have a record each.
        let table = same[0];
        if same.iter().any(|other| *other != table) {
            continue;
        }
        if let Some(jump) = jump(pe, table, room) {
            room -= jump.entries.len() as u32;
            jumps.push(jump);
        }
    }
    jumps
}

fn jump<S: Side>(pe: &Pe<S>, table: &SwitchTable<S>, room: u32) -> Option<TableJump<S>> {
    let size = table.count.checked_mul(table.entry.size.into())?;
    if size == 0 || size > room || table.entry.size > 4 || table.entry.absolute {
        return None;
    }
    Some(TableJump {
        branch: table.branch,
        base: table.base,
        size: table.entry.size,
        entries: pe.bytes(table.table, size)?.into(),
    })
}

/// The jumps in so many bytes of code. All jumps are sorted by their place, as those of an image are.
pub fn jumps_in<S: Side>(jumps: &[TableJump<S>], code: Rva<S>, size: u32) -> &[TableJump<S>] {
    let start = jumps.partition_point(|jump| jump.branch < code);
    let behind = &jumps[start..];
    let inside = |jump: &TableJump<S>| jump.branch.get() - code.get() < size;
    &behind[..behind.partition_point(inside)]
}
