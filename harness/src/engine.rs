//! The engine: what Windows does to two mapped images when it applies a hotpatch.
//!
//! Everything here is planning. [`plan::apply`] and [`plan::revert`] read the bytes of both images
//! and return a list of [`Write`]s; a backend performs them. So the rules are the same for a
//! running process and for a plain byte vector, for x64 and for Arm64, and between stopping and
//! resuming threads nothing is left to do but copy bytes.
//!
//! Order, conflict rules and the hot patch address table follow the format reference, section 3.

pub(crate) mod arm64;
pub(crate) mod hpat;
pub(crate) mod plan;
pub(crate) mod redirect;
pub(crate) mod x64;

use hpbuild_metadata::{Rva, Side};
use serde::Serialize;

use crate::image::Image;

/// One image as it lies in memory, with the space reserved behind it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mapped<'a, S: Side> {
    pub(crate) image: &'a Image<S>,
    /// Where byte 0 of the image lies.
    pub(crate) address: u64,
    /// The image's bytes, then those of its hot patch address table.
    pub(crate) memory: &'a [u8],
}

impl<S: Side> Mapped<'_, S> {
    /// `N` bytes at `rva`, where they lie inside the mapping.
    pub(crate) fn bytes<const N: usize>(&self, rva: Rva<S>) -> Option<[u8; N]> {
        let bytes = self.memory.get(rva.get() as usize..)?.first_chunk()?;
        Some(*bytes)
    }

    /// The address of `rva`.
    pub(crate) fn address_of(&self, rva: Rva<S>) -> u64 {
        self.address.wrapping_add(u64::from(rva.get()))
    }
}

/// Up to eight bytes: the longest thing the engine writes at once is a pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    bytes: [u8; 8],
    length: u8,
}

impl Piece {
    pub(crate) const fn new<const N: usize>(piece: [u8; N]) -> Self {
        assert!(N <= 8);
        let mut bytes = [0; 8];
        let mut index = 0;
        while index < N {
            bytes[index] = piece[index];
            index += 1;
        }
        Self {
            bytes,
            length: N as u8,
        }
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

/// One planned write; `before` is what must stand there, and what a rollback puts back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Write<S: Side> {
    pub(crate) at: Rva<S>,
    pub(crate) before: Piece,
    pub(crate) after: Piece,
    /// Whether code that a thread may be about to execute changes.
    pub(crate) code: bool,
}

/// The NTSTATUS a Windows kernel gives for the same conflict (format reference, 1.4 and 3.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Status {
    /// `STATUS_REVISION_MISMATCH`: the patch is for another base.
    RevisionMismatch,
    /// `STATUS_INVALID_IMAGE_FORMAT`: the table does not fit its images.
    InvalidImageFormat,
    /// `STATUS_CONFLICTING_ADDRESSES`: an entry is not as it was when the patch was built.
    ConflictingAddresses,
    /// `STATUS_PATCH_CONFLICT`: no room in the hot patch address table.
    PatchConflict,
    /// `STATUS_UNSUCCESSFUL`: the patch's own callout said no.
    CalloutFailed,
}

impl Status {
    /// The 32-bit NTSTATUS.
    pub(crate) const fn code(self) -> u32 {
        match self {
            Status::RevisionMismatch => 0xc000_0059,
            Status::InvalidImageFormat => 0xc000_007b,
            Status::ConflictingAddresses => 0xc000_0018,
            Status::PatchConflict => 0xc000_04ac,
            Status::CalloutFailed => 0xc000_0001,
        }
    }
}

/// Why a patch is not applied. The images are as they were.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{image}: {place}: expected {expected}, found {found} (status {:#010x})", .status.code())]
pub(crate) struct Refusal {
    /// What a Windows kernel would return.
    pub(crate) status: Status,
    /// The image that the place lies in: `base` or `patch`.
    pub(crate) image: String,
    /// The record and address.
    pub(crate) place: String,
    /// What would have been right.
    pub(crate) expected: String,
    /// What stands there.
    pub(crate) found: String,
}

impl Refusal {
    pub(crate) fn new<S: Side>(
        status: Status,
        place: impl Into<String>,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Self {
        Self {
            status,
            image: S::NAME.to_owned(),
            place: place.into(),
            expected: expected.into(),
            found: found.into(),
        }
    }
}

/// Bytes as two-digit hexadecimal numbers with spaces between.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let digits: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    digits.join(" ")
}

#[cfg(test)]
mod tests;
