//! Lists that the linker makes for the C runtime of MinGW, which works through them when a process
//! starts and ends.

use hpbuild_metadata::{Rva, Side};

/// The lists of an image; empty where it has none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeLists<S: Side> {
    /// Pointers to functions, called at the start from the last to the first: place and bytes.
    pub(crate) constructors: Option<(Rva<S>, u32)>,
    /// Pointers to functions, called at the end in their order: place and bytes.
    pub(crate) destructors: Option<(Rva<S>, u32)>,
    /// Places that the runtime rewrites at the start, and the bytes of each; sorted, unique.
    pub(crate) rewritten: Vec<(Rva<S>, u32)>,
}

/// More bytes than the runtime rewrites at one place.
const MAX_WIDTH: u32 = 8;

impl<S: Side> RuntimeLists<S> {
    /// The first place that the runtime rewrites at the start, in whole or in part among the `size`
    /// bytes from `rva`.
    pub fn rewritten_in(&self, rva: Rva<S>, size: u32) -> Option<Rva<S>> {
        let end = u64::from(rva.get()) + u64::from(size);
        let before = rva.get().saturating_sub(MAX_WIDTH);
        let first = self
            .rewritten
            .partition_point(|(place, _)| place.get() < before);
        let near = self.rewritten[first..].iter();
        let mut near = near.take_while(|(place, _)| u64::from(place.get()) < end);
        let reaches = |place: Rva<S>, width: u32| {
            u64::from(place.get()) + u64::from(width) > u64::from(rva.get())
        };
        let found = near.find(|(place, width)| reaches(*place, *width));
        found.map(|(place, _)| *place)
    }
}
