//! How far data without a name reaches.

use hpbuild_metadata::{Rva, Side};

use crate::decode::ReferenceKind;
use crate::image::Image;

/// A stretch of data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent<S: Side> {
    /// Where it starts.
    pub rva: Rva<S>,
    /// Bytes.
    pub size: u32,
    /// Whether the size is certain: given by an access or by a terminating zero. Otherwise the
    /// end is where something else is known to start, and filler may be counted in.
    pub exact: bool,
}

/// The extent of the unnamed data at `rva` that an instruction of this kind reaches.
///
/// An access has a width. An address taken leads to as much as there is: to the next place where
/// something is known to start, and, because linkers share the tails of strings, on to the zero
/// that ends a text which that place cuts in two. A text that has no such zero within what its
/// object gave ends there: texts of Rust have none, and behind them lies whatever the linker put
/// there.
pub fn anonymous_extent<S: Side>(
    image: &Image<S>,
    rva: Rva<S>,
    kind: ReferenceKind,
) -> Option<Extent<S>> {
    if let ReferenceKind::Memory(width @ 1..) = kind {
        return Some(Extent {
            rva,
            size: width.into(),
            exact: true,
        });
    }
    let end = image.next_boundary(rva)?;
    let size = end.checked_sub(rva)?;
    let bytes = image.pe.bytes_from(rva);
    let to_boundary = bytes.get(..size as usize)?;
    if !to_boundary.is_empty() && to_boundary.iter().all(|byte| is_text(*byte)) {
        let length = bytes.iter().position(|byte| !is_text(*byte));
        let length = length.unwrap_or(bytes.len());
        if let Some(size) = left_in_contribution(image, rva).filter(|left| *left as usize <= length)
        {
            return Some(Extent {
                rva,
                size,
                exact: true,
            });
        }
        if length == bytes.len() {
            return None;
        }
        let is_terminated = bytes[length] == 0;
        if is_terminated && std::str::from_utf8(&bytes[..length]).is_ok() {
            return Some(Extent {
                rva,
                size: u32::try_from(length + 1).ok()?,
                exact: true,
            });
        }
    }
    Some(Extent {
        rva,
        size,
        exact: false,
    })
}

/// How many bytes of what an object gave lie at `rva` and behind it.
pub(crate) fn left_in_contribution<S: Side>(image: &Image<S>, rva: Rva<S>) -> Option<u32> {
    let contribution = image.contribution_at(rva)?;
    let end = contribution.rva.checked_add(contribution.size)?;
    end.checked_sub(rva)
}

/// Bytes that occur in texts in ASCII and UTF-8.
pub(super) fn is_text(byte: u8) -> bool {
    matches!(byte, b'\t' | b'\n' | b'\r' | 0x1b | 0x20..=0x7e | 0x80..=0xff)
}
