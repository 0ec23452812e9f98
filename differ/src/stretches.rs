//! A sorted table of addresses that is searched again and again.
//!
//! A binary search of a large table takes some seventeen steps, nearly each of them into memory that
//! is in no cache. So it is noted once where the addresses of each stretch of the image begin.

use std::ops::Range;

/// A sorted table of addresses, cut into stretches of equal length.
#[derive(Debug)]
pub(crate) struct Stretches {
    /// The first address.
    first: u32,
    /// Bytes of a stretch, as a power of two.
    shift: u32,
    /// How many addresses lie before each stretch, with an end mark.
    before: Vec<u32>,
    count: usize,
}

impl Stretches {
    /// Takes the addresses in order. There are no more stretches than addresses.
    pub(crate) fn new(
        addresses: impl ExactSizeIterator<Item = u32> + DoubleEndedIterator + Clone,
    ) -> Self {
        let count = addresses.len();
        let first = addresses.clone().next().unwrap_or(0);
        let span = addresses.clone().next_back().unwrap_or(0) - first;
        let mut shift = 0;
        while (span >> shift) as usize > count {
            shift += 1;
        }
        let mut before = Vec::with_capacity((span >> shift) as usize + 2);
        for (index, address) in (0_u32..).zip(addresses) {
            while before.len() <= ((address - first) >> shift) as usize {
                before.push(index);
            }
        }
        Self {
            first,
            shift,
            before,
            count,
        }
    }

    /// Which entries of the table lie in the stretch of `address`: those that come first lie
    /// before it, and those that follow, behind.
    pub(crate) fn of(&self, address: u32) -> Range<usize> {
        let Some(distance) = address.checked_sub(self.first) else {
            return 0..0;
        };
        let stretch = (distance >> self.shift) as usize;
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
