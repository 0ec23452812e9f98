//! Jump tables, entry by entry.

use hpbuild_metadata::{Base, Fixed, Rva, Side};

use super::{Differences, POINTERS};
use crate::decode::entry_shift;
use crate::image::{Image, SwitchTable};
use crate::meaning::{Comparer, jump_table_entries};

/// In which entries two jump tables differ. `is_same` tells whether two places in code correspond,
/// and `names` name them.
pub(in crate::explain) fn of_jump_table(
    comparer: &Comparer<'_>,
    (base, fixed): (usize, usize),
    is_same: impl Fn(Rva<Base>, Rva<Fixed>) -> bool,
    names: (impl Fn(Rva<Base>) -> String, impl Fn(Rva<Fixed>) -> String),
) -> Differences {
    let (b, f) = (
        &comparer.base.switch_tables[base],
        &comparer.fixed.switch_tables[fixed],
    );
    let mut found = Differences::default();
    if b.count != f.count {
        let entries = |count| format!("{count} entries");
        found.push(String::new, || (entries(b.count), entries(f.count)));
    }
    let (Some(b), Some(f)) = (
        jump_table_entries(comparer.base, &shifted(comparer.base, b)),
        jump_table_entries(comparer.fixed, &shifted(comparer.fixed, f)),
    ) else {
        return found;
    };
    found.at_least = b.len().min(f.len()) > POINTERS;
    let pairs: Vec<_> = b.into_iter().zip(f).take(POINTERS).enumerate().collect();
    for (index, (b, f)) in &pairs {
        if !is_same(*b, *f) {
            found.push(|| format!("[{index}]"), || (names.0(*b), names.1(*f)));
        }
    }
    if found.is_empty() {
        // All lead to code that corresponds, and that moved.
        for (index, (b, f)) in pairs {
            let names = (names.0(b), names.1(f));
            if names.0 != names.1 {
                found.push(|| format!("[{index}]"), || names);
            }
        }
    }
    found
}

/// The table with its entries shifted as the code that jumps through it does.
fn shifted<S: Side>(image: &Image<S>, table: &SwitchTable<S>) -> SwitchTable<S> {
    let owner = image.function_at(table.branch);
    let shift = owner.and_then(|owner| {
        let at = table.branch.checked_sub(image.function(owner).rva)?;
        let (before, jump) = image.code_of(owner).split_at_checked(at as usize)?;
        entry_shift(image.pe.machine, before, jump)
    });
    let mut table = *table;
    table.entry.shift = shift.unwrap_or(table.entry.shift);
    table
}
