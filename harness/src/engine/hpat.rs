//! The hot patch address table: the space behind a mapped image through which redirects go.
//!
//! It is a row of blocks, each a page of code and a page of pointers. Entry `n` lies at
//! `(n >> 9) * 0x2000 + (n & 0x1ff) * 8` from the start; its pointer lies one page further on
//! (format reference, section 3.3).

use hpbuild_metadata::{Rva, Side};

use crate::image::{Image, PAGE};

const ENTRIES_PER_BLOCK: u32 = PAGE / 8;
/// A page of code and a page of pointers.
const BLOCK: u32 = 2 * PAGE;

/// Number of an entry in the table of one image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Slot(pub(crate) u32);

/// Where the table of one image lies and how large it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hpat {
    start: u32,
    blocks: u32,
}

impl Hpat {
    /// The table of `blocks` blocks behind `image`.
    pub(crate) fn behind<S: Side>(image: &Image<S>, blocks: u32) -> Self {
        Self {
            start: image.size,
            blocks,
        }
    }

    /// The table in a mapping of `length` bytes that starts with `image`.
    pub(crate) fn in_mapping<S: Side>(image: &Image<S>, length: usize) -> Self {
        let behind = length.saturating_sub(image.size as usize) / BLOCK as usize;
        Self::behind(image, u32::try_from(behind).unwrap_or(0))
    }

    /// Bytes of the whole table.
    pub(crate) fn size(self) -> u32 {
        self.blocks * BLOCK
    }

    /// How many functions can be redirected through it.
    pub(crate) fn capacity(self) -> u32 {
        self.blocks * ENTRIES_PER_BLOCK
    }

    /// The pages of code, as (offset from the image, is code).
    pub(crate) fn pages(self) -> impl Iterator<Item = (u32, bool)> {
        (0..self.blocks * 2).map(move |page| (self.start + page * PAGE, page % 2 == 0))
    }

    /// Where the code of `slot` lies.
    pub(crate) fn code<S>(self, slot: Slot) -> Rva<S> {
        let block = slot.0 / ENTRIES_PER_BLOCK;
        Rva::new(self.start + block * BLOCK + (slot.0 % ENTRIES_PER_BLOCK) * 8)
    }

    /// Where the pointer of `slot` lies.
    pub(crate) fn pointer<S>(self, slot: Slot) -> Rva<S> {
        Rva::new(self.code::<S>(slot).get() + PAGE)
    }

    /// The entry whose code lies at `rva`; `None` for a place that is no entry's start.
    pub(crate) fn slot_at<S>(self, rva: Rva<S>) -> Option<Slot> {
        let offset = rva.get().checked_sub(self.start)?;
        let within = offset % BLOCK;
        let is_code = offset < self.size() && within < PAGE && within.is_multiple_of(8);
        is_code.then(|| Slot(offset / BLOCK * ENTRIES_PER_BLOCK + within / 8))
    }
}
