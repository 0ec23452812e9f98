//! The parts of a PE file that a signature touches: what it covers, where it is put, and the
//! checksum that has to be right afterwards.
//!
//! ```text
//! 0           checksum      security entry        end of image    end of file
//! |-- covered --|  4  |-- covered --|  8  |-- covered --|- certificate table -|
//! ```
//!
//! The certificate table is the one data directory whose address is a file offset; it lies behind
//! everything else and is never mapped. Source: the PE format specification, "Attribute
//! Certificate Table" and "Appendix A: Calculating Authenticode PE Image Hash".

mod attach;
mod hotpatch;
mod layout;
mod page_hashes;

pub(crate) use attach::{attach, checksum, normalise, signature, without_padding};
pub(crate) use hotpatch::patch_facts;
pub(crate) use layout::{Layout, u16_at, u32_at};
pub(crate) use page_hashes::page_hashes;

use crate::digest::DigestAlgorithm;

/// The Authenticode digest of an image.
pub(crate) fn digest(bytes: &[u8], layout: &Layout, algorithm: DigestAlgorithm) -> Vec<u8> {
    let covered = layout.covered(bytes);
    algorithm.digest_parts(&covered)
}
