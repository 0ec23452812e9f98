//! A PE file as the loader sees it: laid out in memory, with the tables that a loader follows.
//!
//! Parsing lays the sections out first and then reads every directory from that memory, as a
//! loader does, so that a directory which only makes sense in the file is never believed. Nothing
//! here runs or maps code; the result is a value, the same for every backend.

mod directories;
mod headers;

use std::collections::BTreeMap;
use std::ops::Range;

use hpbuild_metadata::{BaseIdentity, Machine, Rva, Side};

use crate::error::Error;

/// Bytes of a page on both machines.
pub(crate) const PAGE: u32 = 0x1000;

/// The largest image that is loaded. Far above any real one, far below what would hurt.
pub(crate) const MAX_IMAGE: u32 = 256 << 20;

/// One loadable image.
#[derive(Clone, Debug)]
pub(crate) struct Image<S: Side> {
    pub(crate) machine: Machine,
    pub(crate) identity: BaseIdentity,
    /// `ImageBase`: the address the file is linked for.
    pub(crate) preferred: u64,
    /// `SizeOfImage` in bytes, rounded up to a page.
    pub(crate) size: u32,
    /// The DLL's entry point, where it has one.
    pub(crate) entry_point: Option<Rva<S>>,
    pub(crate) sections: Vec<Section<S>>,
    /// Places of 8-byte addresses that move with the image.
    pub(crate) relocations: Vec<Rva<S>>,
    pub(crate) imports: Vec<Import<S>>,
    /// Exports by name that are addresses; forwarders are left out.
    pub(crate) exports: BTreeMap<String, Rva<S>>,
    pub(crate) tls: Option<Tls<S>>,
    /// Extents of functions with unwind entries, in address order.
    pub(crate) extents: Vec<Range<u32>>,
    /// Where the hotpatch table starts, in a patch image.
    pub(crate) table: Option<Rva<S>>,
    /// The image as it lies at its preferred address, before imports are filled in.
    pub(crate) memory: Vec<u8>,
}

/// One section, as far as mapping it needs.
#[derive(Clone, Debug)]
pub(crate) struct Section<S: Side> {
    pub(crate) name: String,
    pub(crate) start: Rva<S>,
    /// Bytes in memory, a multiple of the page size.
    pub(crate) size: u32,
    pub(crate) readable: bool,
    pub(crate) writable: bool,
    pub(crate) executable: bool,
}

/// One imported function or variable and the slot that receives its address.
#[derive(Clone, Debug)]
pub(crate) struct Import<S: Side> {
    pub(crate) dll: String,
    /// The name, or `#n` for an import by ordinal.
    pub(crate) name: String,
    pub(crate) slot: Rva<S>,
}

/// The thread-local storage template.
#[derive(Clone, Debug)]
pub(crate) struct Tls<S: Side> {
    /// The initial bytes, then `zero_fill` zero ones.
    pub(crate) template: Range<u32>,
    pub(crate) zero_fill: u32,
    /// Where the loader stores the index of the image's block.
    pub(crate) index: Rva<S>,
    pub(crate) callbacks: Vec<Rva<S>>,
}

impl<S: Side> Image<S> {
    /// Reads a PE file.
    ///
    /// # Errors
    /// Where the file is damaged, too large, or not a plain x64 or Arm64 image: x86, hybrid
    /// (CHPE, Arm64EC, Arm64X) and managed images are refused by name.
    pub(crate) fn parse(file: &[u8]) -> Result<Self, Error> {
        let headers = headers::read::<S>(file)?;
        directories::read(headers)
    }

    /// The image's memory as it lies at `address`, with every address in it moved.
    pub(crate) fn relocated(&self, address: u64) -> Vec<u8> {
        let mut memory = self.memory.clone();
        let delta = address.wrapping_sub(self.preferred);
        for place in &self.relocations {
            let place = place.get() as usize;
            if let Some(word) = memory.get_mut(place..place + 8) {
                let mut bytes = [0; 8];
                bytes.copy_from_slice(word);
                let moved = u64::from_le_bytes(bytes).wrapping_add(delta);
                word.copy_from_slice(&moved.to_le_bytes());
            }
        }
        memory
    }

    /// The section that holds `rva`, if any.
    pub(crate) fn section_at(&self, rva: Rva<S>) -> Option<&Section<S>> {
        self.sections.iter().find(|section| {
            rva.checked_sub(section.start)
                .is_some_and(|at| at < section.size)
        })
    }

    /// The function with an unwind entry that covers `rva`, if any.
    pub(crate) fn extent_at(&self, rva: Rva<S>) -> Option<Range<u32>> {
        let after = self
            .extents
            .partition_point(|extent| extent.start <= rva.get());
        let extent = self.extents.get(after.checked_sub(1)?)?;
        extent.contains(&rva.get()).then(|| extent.clone())
    }
}

#[cfg(test)]
mod tests;
