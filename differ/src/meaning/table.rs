//! Jump tables by the blocks they lead to.

use hpbuild_metadata::{Rva, Side};

use super::{Comparer, Target, resolve};
use crate::image::{Image, SwitchTable};

/// More entries than a switch has; a record that claims them is not believed.
const MAX_ENTRIES: u32 = 1 << 20;

/// Where the entries of a table lead, in order; `None` where the table leaves its section.
pub(super) fn entries<S: Side>(image: &Image<S>, table: &SwitchTable<S>) -> Option<Vec<Rva<S>>> {
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
        b.into_iter().zip(f).all(
            |(b, f)| match (resolve(self.base, b), resolve(self.fixed, f)) {
                (
                    Target::Function { id: b, offset: at },
                    Target::Function { id: f, offset: of },
                ) => at == of && self.same_function(b, f),
                _ => false,
            },
        )
    }
}
