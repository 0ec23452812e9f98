//! Tables of addresses in short form: jump tables, by the blocks they lead to, and tables of
//! distances, by what their entries mean.

use hpbuild_metadata::{Rva, Side};

use super::{Comparer, Target};
use crate::image::{Image, SwitchTable};
use crate::pe::Pe;

/// More entries than a switch has; a record that claims them is not believed.
const MAX_ENTRIES: u32 = 1 << 20;

/// Where the entries of a table lead, in order; `None` where the table leaves its section.
pub(crate) fn entries<S: Side>(image: &Image<S>, table: &SwitchTable<S>) -> Option<Vec<Rva<S>>> {
    if table.count > MAX_ENTRIES {
        return None;
    }
    let size = table.entry.size;
    let bytes = image
        .pe
        .bytes(table.table, table.count.checked_mul(size.into())?)?;
    let entry = |bytes: &[u8]| {
        let mut word = [0; 8];
        word.get_mut(..bytes.len())?.copy_from_slice(bytes);
        let raw = u64::from_le_bytes(word);
        if table.entry.absolute {
            return image.pe.rva_of(raw);
        }
        let unused = 64 - 8 * u32::from(size);
        let value = if table.entry.signed {
            (raw << unused).cast_signed() >> unused
        } else {
            raw.cast_signed()
        };
        table.base.checked_offset(value << table.entry.shift)
    };
    bytes.chunks_exact(size.into()).map(entry).collect()
}

/// Where the entries of a table of distances from its own start lead.
///
/// Where such a table ends is not recorded. It ends where something else is known to start, and
/// what its own entries lead to counts: compilers place the strings of such a table right behind
/// it. Filler at the end, zeros, would be distances to the table itself.
pub fn relative_entries<S: Side>(
    pe: &Pe<S>,
    boundaries: &[Rva<S>],
    table: Rva<S>,
) -> Option<Vec<Rva<S>>> {
    let stored = pe.bytes_from(table);
    let last = table.checked_add(u32::try_from(stored.len()).ok()?)?;
    let next = boundaries.partition_point(|boundary| *boundary <= table);
    let mut end = boundaries.get(next).map_or(last, |next| last.min(*next));
    let mut entries = Vec::new();
    let mut filler = 0;
    for word in stored.chunks_exact(4) {
        let at = table.checked_add(u32::try_from(4 * entries.len() + 4).ok()?)?;
        if at > end {
            break;
        }
        let distance = i32::from_le_bytes(*word.first_chunk()?);
        let target = table.checked_offset(distance.into())?;
        if target > table {
            end = end.min(target);
        }
        entries.push(target);
        filler = if distance == 0 { filler + 1 } else { 0 };
    }
    entries.truncate(entries.len() - filler);
    Some(entries)
}

impl Comparer<'_> {
    /// Whether two tables lead to the same places of the same functions.
    pub(super) fn same_table(&self, base: usize, fixed: usize) -> bool {
        let (b, f) = (
            &self.base.switch_tables[base],
            &self.fixed.switch_tables[fixed],
        );
        if (b.entry, b.count) != (f.entry, f.count) {
            return false;
        }
        let (Some(b), Some(f)) = (entries(self.base, b), entries(self.fixed, f)) else {
            return false;
        };
        let (b_end, f_end) = (
            end_of_owner(self.base, self.base.switch_tables[base].branch),
            end_of_owner(self.fixed, self.fixed.switch_tables[fixed].branch),
        );
        b.into_iter().zip(f).all(|(b, f)| {
            // A value that cannot come leads behind the last instruction, where anything stands.
            if b_end == Some(b) && f_end == Some(f) {
                return true;
            }
            match (self.in_base(b), self.in_fixed(f)) {
                (
                    Target::Function { id: b, offset: at },
                    Target::Function { id: f, offset: of },
                ) => at == of && self.same_function(b, f),
                _ => false,
            }
        })
    }
}

/// The first place behind the function that jumps through a table.
fn end_of_owner<S: Side>(image: &Image<S>, branch: Rva<S>) -> Option<Rva<S>> {
    let owner = image.function(image.function_at(branch)?);
    owner.rva.checked_add(owner.size)
}
