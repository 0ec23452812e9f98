//! Jump tables that only the code tells of.

use hpbuild_metadata::{Rva, Side};

use super::data::Boundaries;
use super::scan::Scanned;
use crate::image::{Function, SwitchEntry, SwitchTable};
use crate::pe::Pe;

/// Adds the tables that code was found to jump through to those that the PDB describes, and their
/// ends to the boundaries of data.
pub(super) fn add<S: Side>(
    pe: &Pe<S>,
    functions: &[Function<S>],
    scanned: &Scanned<S>,
    tables: &mut Vec<SwitchTable<S>>,
    boundaries: &mut Boundaries<S>,
) {
    let described = tables.len();
    let mut ends = Vec::new();
    for (function, found) in &scanned.jump_tables {
        let known = &tables[..described];
        if known
            .binary_search_by_key(&found.table, |table| table.table)
            .is_ok()
        {
            continue;
        }
        let count = found.count.unwrap_or_else(|| {
            let count = entries(pe, &functions[*function], &boundaries.all, found.table);
            ends.extend(found.table.checked_add(4 * count));
            count
        });
        if count > 0 {
            tables.push(SwitchTable {
                table: found.table,
                base: Rva::new(0),
                branch: found.branch,
                entry: SwitchEntry {
                    size: 4,
                    signed: false,
                    shift: 0,
                    absolute: false,
                },
                count,
            });
        }
    }
    tables.sort_by_key(|table| (table.table, table.branch));
    for list in [&mut boundaries.all, &mut boundaries.certain] {
        list.extend(&ends);
        list.sort_unstable();
        list.dedup();
    }
}

/// The entries of a table in data: as long as they lead into the function that jumps through it,
/// and nothing else is known to start.
fn entries<S: Side>(
    pe: &Pe<S>,
    function: &Function<S>,
    boundaries: &[Rva<S>],
    table: Rva<S>,
) -> u32 {
    let next = boundaries.partition_point(|boundary| *boundary <= table);
    let room = boundaries
        .get(next)
        .and_then(|next| next.checked_sub(table))
        .unwrap_or(u32::MAX);
    let words = pe.bytes_from(table).chunks_exact(4);
    let leads_inside = |word: &&[u8]| {
        let rva = word.first_chunk().map(|word| u32::from_le_bytes(*word));
        let offset = rva.and_then(|rva| Rva::new(rva).checked_sub(function.rva));
        offset.is_some_and(|offset| offset < function.size)
    };
    let count = words
        .take(room as usize / 4)
        .take_while(leads_inside)
        .count();
    u32::try_from(count).unwrap_or(0)
}
