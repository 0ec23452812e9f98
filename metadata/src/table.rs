//! The hotpatch table: `IMAGE_HOT_PATCH_INFO`, its bases and their chunks of records.
//!
//! The load config of a patch image points at this table. It says which base the image belongs
//! to and lists, in chunks of equal kind, the records that connect the two images. Layout and
//! checks follow the format reference, sections 1.2 to 1.4 and 2; the checks rest on observed
//! behaviour (tag X there).
//!
//! A table is read in two steps, because the second needs sizes the table does not hold:
//! [`decode()`] turns bytes into values and checks everything the bytes alone can show;
//! [`HotPatchTable::validate`] checks the addresses against the two images.
//!
//! ```
//! use hpbuild_metadata::table::{Chunk, HotPatchTable, PointerAttach, decode, encode};
//! use hpbuild_metadata::{BaseIdentity, Machine, Rva, Sequence};
//!
//! let identity = BaseIdentity { time_date_stamp: 0x662a_7c63, checksum: 0x1f2a4 };
//! let chunk = Chunk::ReverseAbsolute(vec![PointerAttach {
//!     patch: Rva::new(0x5000),
//!     base: Rva::new(0x4010),
//! }]);
//! let table = HotPatchTable::new(Sequence::FIRST, Machine::X64, identity, vec![chunk]);
//! assert_eq!(decode(&encode(&table)).unwrap(), table);
//! ```

mod decode;
mod encode;
mod validate;

use crate::address::{Base, Patch, Rva};
use crate::identity::{BaseIdentity, Machine, Sequence};

pub use decode::decode;
pub use encode::encode;

/// Bits of a chunk header (format reference, section 2).
pub(crate) mod header {
    pub(crate) const INVERSE: u32 = 0x8000_0000;
    pub(crate) const OBLIGATORY: u32 = 0x4000_0000;
    pub(crate) const RESERVED: u32 = 0x3ff0_3000;
    pub(crate) const TYPE: u32 = 0x000f_c000;
    pub(crate) const SIZE: u32 = 0x0000_0fff;

    pub(crate) const FUNCTION: u32 = 0x0001_c000;
    pub(crate) const ABSOLUTE: u32 = 0x0002_c000;
    pub(crate) const REL32: u32 = 0x0003_c000;
    pub(crate) const CALL_TARGET: u32 = 0x0004_4000;
    pub(crate) const INDIRECT: u32 = 0x0005_c000;
    pub(crate) const NO_CALL_TARGET: u32 = 0x0006_4000;
    pub(crate) const DYNAMIC_VALUE: u32 = 0x0007_8000;
}

/// The most records one chunk can hold; longer lists are split over several chunks.
pub const MAX_RECORDS_PER_CHUNK: usize = header::SIZE as usize;

/// Bytes of one `IMAGE_HOT_PATCH_BASE`.
pub(crate) const BASE_SIZE: u32 = 32;

/// Version of the table: decides how long its header and its records are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// The first; no extra words in records.
    V1,
    /// Adds `BufferOffset`.
    V2,
    /// Adds `ExtraPatchSize`; the version written by this project.
    V3,
    /// Adds `MinSequenceNumber` and `Flags`.
    V4,
}

impl Version {
    /// The version with this number, or `None` where no such version is known.
    pub const fn from_number(number: u32) -> Option<Self> {
        match number {
            1 => Some(Version::V1),
            2 => Some(Version::V2),
            3 => Some(Version::V3),
            4 => Some(Version::V4),
            _ => None,
        }
    }

    /// The number stored in the table.
    pub const fn number(self) -> u32 {
        match self {
            Version::V1 => 1,
            Version::V2 => 2,
            Version::V3 => 3,
            Version::V4 => 4,
        }
    }

    /// Bytes of the table's header in this version.
    pub const fn header_size(self) -> u32 {
        match self {
            Version::V1 => 20,
            Version::V2 => 24,
            Version::V3 => 28,
            Version::V4 => 36,
        }
    }
}

/// One whole hotpatch table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HotPatchTable {
    /// Version of the layout.
    pub version: Version,
    /// Order of this patch among the patches over the same base.
    pub sequence: Sequence,
    /// `BufferOffset`; its meaning is not public, and 0 in every table known (since version 2).
    pub buffer_offset: u32,
    /// Extra words behind the first two of every record (since version 3; 0 before).
    pub extra_patch_size: u32,
    /// `MinSequenceNumber` (since version 4; 0 before).
    pub min_sequence: u32,
    /// `Flags` (since version 4; 0 before).
    pub flags: u32,
    /// The bases this image can patch. Kernels around 24H2 want exactly one.
    pub bases: Vec<HotPatchBase>,
}

impl HotPatchTable {
    /// A table as this project writes it: version 3, one extra word a record, one base.
    pub fn new(
        sequence: Sequence,
        machine: Machine,
        identity: BaseIdentity,
        chunks: Vec<Chunk>,
    ) -> Self {
        let flags = match machine {
            Machine::X64 => BASE_FLAG_AMD64,
            Machine::Arm64 => BASE_FLAG_ARM64,
        };
        Self {
            version: Version::V3,
            sequence,
            buffer_offset: 0,
            extra_patch_size: 1,
            min_sequence: 0,
            flags: 0,
            bases: vec![HotPatchBase {
                sequence: sequence.get(),
                flags,
                identity,
                code_integrity_info: 0,
                code_integrity_size: 0,
                buffer_offset: 0,
                chunks,
            }],
        }
    }
}

/// `Flags` of a base: it is an Arm64 image.
pub const BASE_FLAG_ARM64: u32 = 0x8;
/// `Flags` of a base: it is an x64 image.
pub const BASE_FLAG_AMD64: u32 = 0x10;
/// The three machine bits of a base's `Flags`.
pub const BASE_FLAG_MACHINES: u32 = 0x1c;

/// One base image and the records that connect it with the patch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HotPatchBase {
    /// Sequence number of the base entry.
    pub sequence: u32,
    /// `IMAGE_HOT_PATCH_BASE_*` bits.
    pub flags: u32,
    /// Which image this is.
    pub identity: BaseIdentity,
    /// `CodeIntegrityInfo`; meaning not public, 0 when written here.
    pub code_integrity_info: u32,
    /// `CodeIntegritySize`; meaning not public, 0 when written here.
    pub code_integrity_size: u32,
    /// `BufferOffset`; meaning not public, 0 when written here.
    pub buffer_offset: u32,
    /// The chunks, in the order they stand in the table.
    pub chunks: Vec<Chunk>,
}

/// Records of one kind and direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chunk {
    /// Base functions redirected to their replacements in the patch.
    ForwardFunction(Vec<ForwardAttach>),
    /// Patch functions redirected to the base's copy.
    ReverseFunction(Vec<ReverseFunctionAttach>),
    /// Pointers in the patch that receive the address of something in the base.
    ReverseAbsolute(Vec<PointerAttach>),
    /// Declared by the format and ignored by the kernels read; never written here.
    ReverseRel32(Vec<PointerAttach>),
    /// Pointers in the patch that receive the *value* of a pointer in the base.
    ReverseIndirect(Vec<PointerAttach>),
    /// Addresses that indirect calls may reach.
    CallTarget(Vec<CallTarget>),
    /// By its name the opposite of [`Chunk::CallTarget`].
    NoCallTarget(Vec<CallTarget>),
    /// System dynamic values; for the kernel's own images.
    DynamicValue(Vec<DynamicValue>),
}

impl Chunk {
    /// Number of records in the chunk.
    pub fn len(&self) -> usize {
        match self {
            Chunk::ForwardFunction(records) => records.len(),
            Chunk::ReverseFunction(records) => records.len(),
            Chunk::ReverseAbsolute(records)
            | Chunk::ReverseRel32(records)
            | Chunk::ReverseIndirect(records) => records.len(),
            Chunk::CallTarget(records) | Chunk::NoCallTarget(records) => records.len(),
            Chunk::DynamicValue(records) => records.len(),
        }
    }

    /// Whether the chunk holds no record.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The kind as the format names it, with its direction.
    pub const fn name(&self) -> &'static str {
        match self {
            Chunk::ForwardFunction(_) => "forward FUNCTION",
            Chunk::ReverseFunction(_) => "reverse FUNCTION",
            Chunk::ReverseAbsolute(_) => "reverse ABSOLUTE",
            Chunk::ReverseRel32(_) => "reverse REL32",
            Chunk::ReverseIndirect(_) => "reverse INDIRECT",
            Chunk::CallTarget(_) => "CALL_TARGET",
            Chunk::NoCallTarget(_) => "NO_CALL_TARGET",
            Chunk::DynamicValue(_) => "DYNAMIC_VALUE",
        }
    }

    /// Direction and type bits of the chunk's header.
    pub(crate) const fn header_bits(&self) -> u32 {
        match self {
            Chunk::ForwardFunction(_) => header::FUNCTION,
            Chunk::ReverseFunction(_) => header::INVERSE | header::FUNCTION,
            Chunk::ReverseAbsolute(_) => header::INVERSE | header::ABSOLUTE,
            Chunk::ReverseRel32(_) => header::INVERSE | header::REL32,
            Chunk::ReverseIndirect(_) => header::INVERSE | header::INDIRECT,
            Chunk::CallTarget(_) => header::INVERSE | header::CALL_TARGET,
            Chunk::NoCallTarget(_) => header::INVERSE | header::NO_CALL_TARGET,
            Chunk::DynamicValue(_) => header::INVERSE | header::DYNAMIC_VALUE,
        }
    }
}

/// Redirects a base function to its replacement in the patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ForwardAttach {
    /// Entry of the base function; written.
    pub base: Rva<Base>,
    /// Entry of its replacement.
    pub patch: Rva<Patch>,
    /// Bytes at the base entry before patching, little endian: on x64 the first two are compared
    /// with memory, on Arm64 the whole instruction. Zero where the table has no extra word.
    pub original: u32,
}

/// Redirects a function of the patch to the base's copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReverseFunctionAttach {
    /// Entry of the patch function; written.
    pub patch: Rva<Patch>,
    /// Entry of the base function.
    pub base: Rva<Base>,
    /// Bytes at the patch entry before patching, as in [`ForwardAttach::original`].
    pub original: u32,
}

/// A pointer-sized slot in the patch, filled from the base.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PointerAttach {
    /// The slot; written, 8 bytes.
    pub patch: Rva<Patch>,
    /// What the slot receives: this address, or the value stored there.
    pub base: Rva<Base>,
}

/// A place that indirect calls may (or may not) reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CallTarget {
    /// Word 0: not an address.
    pub word: u32,
    /// The target, in the other image.
    pub target: Rva<Base>,
}

/// A system dynamic value to be added to a place in the patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DynamicValue {
    /// The place; written.
    pub patch: Rva<Patch>,
    /// Index of the value; never 0xffff_ffff.
    pub index: u32,
}

/// Why bytes are not a hotpatch table, or why a table does not fit its images.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("hotpatch table+{offset:#x}: {what}: expected {expected}, found {found}")]
pub struct TableError {
    /// Where, in bytes from the start of the table.
    pub offset: u32,
    /// The field or record that is wrong.
    pub what: &'static str,
    /// What would have been right.
    pub expected: String,
    /// What stands there.
    pub found: String,
}

#[cfg(test)]
mod tests;
