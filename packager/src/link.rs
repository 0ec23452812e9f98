//! Pieces to sections: every piece gets an address and every field its value.
//!
//! ```text
//! lower -> furnish -> lay out -> relocate
//! ```
//!
//! *Lower* turns references that leave the patch into thunks, slots and stubs. *Furnish* adds what
//! a PE needs: exception directory, load config, guard table, debug directory, room for the
//! hotpatch table. Everything is a piece, so one loop fills all fields.

mod arm64;
mod furnish;
mod imports;
mod layout;
mod lower;
mod relocate;
mod x64;

use hpbuild_metadata::{Base, Machine, Patch, Rva};

pub use lower::Fill;
pub(crate) use lower::SlotAttach;

use crate::piece::{Parts, Room};
use crate::refusal::Refusal;

/// Preferred base of patch images. The loader moves them; only pointers within the patch's own
/// data have base relocations.
pub const IMAGE_BASE: u64 = 0x1_8000_0000;

/// The patch image with addresses, without headers and without hotpatch table.
#[derive(Clone, Debug)]
pub struct Linked {
    /// The instruction set.
    pub machine: Machine,
    /// In address order.
    pub sections: Vec<LinkedSection>,
    /// Bytes of the image when mapped.
    pub image_size: u32,
    /// Slots that the base fills, sorted by place.
    pub slots: Vec<LinkedSlot>,
    /// Entry of each replacement, in the order of [`Parts::redirects`].
    pub entries: Vec<Rva<Patch>>,
    /// Where each piece lies, those of the linker included, sorted by address.
    pub symbols: Vec<LinkedSymbol>,
    /// Where the header points.
    pub(crate) directories: Directories,
}

/// A section with its bytes.
#[derive(Clone, Debug)]
pub struct LinkedSection {
    /// Its name.
    pub name: &'static str,
    /// Where it starts.
    pub rva: Rva<Patch>,
    /// Bytes when mapped; what is not in `bytes` is zero.
    pub size: u32,
    /// Its initialised bytes.
    pub bytes: Vec<u8>,
    /// `IMAGE_SCN_*`.
    pub characteristics: u32,
}

/// A slot that the base fills.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkedSlot {
    /// The slot, eight bytes.
    pub patch: Rva<Patch>,
    /// The place in the base.
    pub base: Rva<Base>,
    /// What the slot receives.
    pub fill: Fill,
}

/// A piece with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkedSymbol {
    /// Its name.
    pub name: Box<str>,
    /// What it is.
    pub room: Room,
    /// Where it lies.
    pub rva: Rva<Patch>,
    /// Bytes.
    pub size: u32,
}

/// A range of the image that a header or directory points at.
pub(crate) type Range = (Rva<Patch>, u32);

#[derive(Clone, Debug, Default)]
pub(crate) struct Directories {
    pub(crate) imports: Option<Range>,
    pub(crate) import_addresses: Option<Range>,
    pub(crate) exceptions: Option<Range>,
    pub(crate) base_relocations: Option<Range>,
    pub(crate) debug: Option<Range>,
    pub(crate) load_config: Option<Range>,
    pub(crate) table: Option<Range>,
    pub(crate) guard_cf: bool,
    /// Fields that receive the file offset of a place.
    pub(crate) file_offsets: Vec<(Rva<Patch>, Rva<Patch>)>,
    /// Fields that receive the time stamp.
    pub(crate) time_stamps: Vec<Rva<Patch>>,
    /// Where the 16 bytes of the GUID stand.
    pub(crate) guid: Option<Rva<Patch>>,
    /// Where the 32 bytes of the content hash stand.
    pub(crate) content_hash: Option<Rva<Patch>>,
}

/// Gives every piece its address and every field its value.
///
/// # Errors
/// Every reference that cannot be linked.
pub fn link(parts: &Parts) -> Result<Linked, Vec<Refusal>> {
    let lowered = lower::lower(parts)?;
    let furnished = furnish::furnish(parts, lowered);
    let layout = layout::lay_out(parts, &furnished)?;
    relocate::relocate(parts, furnished, layout)
}
