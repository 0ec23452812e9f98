//! What stands at an address, found without searching a whole image for it.
//!
//! Comparing asks for the meaning of every operand of every function. A binary search of a large
//! image takes some seventeen steps, nearly each of them into memory that is in no cache. So the
//! comparer notes once where the symbols of each stretch of addresses begin.

use std::ops::Range;

use hpbuild_metadata::{Rva, Side};

use super::{Target, resolve_in};
use crate::image::Image;

/// Where in the sorted tables of one image to look for an address.
#[derive(Debug)]
pub(super) struct Lookup {
    functions: Stretches,
    data: Stretches,
    switch_tables: Stretches,
}

impl Lookup {
    pub(super) fn new<S: Side>(image: &Image<S>) -> Self {
        let functions = image.functions.iter().map(|function| function.rva.get());
        let data = image.data.iter().map(|symbol| symbol.rva.get());
        let tables = image.switch_tables.iter().map(|table| table.table.get());
        Self {
            functions: Stretches::new(functions),
            data: Stretches::new(data),
            switch_tables: Stretches::new(tables),
        }
    }

    /// As [`super::resolve`].
    pub(super) fn resolve<S: Side>(&self, image: &Image<S>, rva: Rva<S>) -> Target<S> {
        resolve_in(
            image,
            rva,
            (
                self.functions.of(rva.get()),
                self.data.of(rva.get()),
                self.switch_tables.of(rva.get()),
            ),
        )
    }
}

/// A sorted table of addresses, cut into stretches of equal length.
#[derive(Debug)]
struct Stretches {
    /// Bytes of a stretch, as a power of two.
    shift: u32,
    /// How many addresses lie before each stretch, with an end mark.
    before: Vec<u32>,
    count: usize,
}

impl Stretches {
    /// Takes the addresses in order. There are no more stretches than addresses.
    fn new(addresses: impl ExactSizeIterator<Item = u32> + DoubleEndedIterator + Clone) -> Self {
        let count = addresses.len();
        let last = addresses.clone().next_back().unwrap_or(0);
        let mut shift = 0;
        while (last >> shift) as usize > count {
            shift += 1;
        }
        let mut before = Vec::with_capacity((last >> shift) as usize + 2);
        for (index, address) in (0_u32..).zip(addresses) {
            while before.len() <= (address >> shift) as usize {
                before.push(index);
            }
        }
        Self {
            shift,
            before,
            count,
        }
    }

    /// Which entries of the table lie in the stretch of `address`: those that come first lie
    /// before it, and those that follow, behind.
    fn of(&self, address: u32) -> Range<usize> {
        let stretch = (address >> self.shift) as usize;
        let at = |index: usize| self.before.get(index).map_or(self.count, |at| *at as usize);
        at(stretch)..at(stretch + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Held against looking at every address.
    #[test]
    fn stretches_part_the_table() {
        for addresses in [
            vec![],
            vec![0],
            vec![5, 5, 5],
            vec![0, 1, 2, 3],
            vec![0x1000, 0x1010, 0x1010, 0x8000, 0xffff_fff0],
        ] {
            let stretches = Stretches::new(addresses.iter().copied());
            assert!(stretches.before.len() <= addresses.len() + 1);
            for wanted in [0, 1, 4, 5, 6, 0xfff, 0x1000, 0x1011, 0x9000, u32::MAX] {
                let found = stretches.of(wanted);
                assert!(addresses[..found.start].iter().all(|it| *it < wanted));
                assert!(addresses[found.end..].iter().all(|it| *it > wanted));
            }
        }
    }
}
