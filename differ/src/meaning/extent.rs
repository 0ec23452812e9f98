//! How far data without a name reaches.

use hpbuild_metadata::{Rva, Side};

use crate::decode::ReferenceKind;
use crate::image::{Contribution, Image};

/// A section of which the linker keeps one copy (`winnt.h`).
const IMAGE_SCN_LNK_COMDAT: u32 = 0x1000;

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
    if let Some(size) = left_in_comdat(image, rva) {
        return Some(Extent {
            rva,
            size,
            exact: true,
        });
    }
    let end = image.next_boundary(rva)?;
    let size = end.checked_sub(rva)?;
    let bytes = image.pe.bytes_from(rva);
    let to_boundary = bytes.get(..size as usize)?;
    if let Some(size) = wide_text(bytes, to_boundary.len()) {
        return Some(Extent {
            rva,
            size,
            exact: true,
        });
    }
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

/// How many bytes lie at `rva` and behind it in a section of its own, which holds one thing, that
/// others may reach into: that something starts there means nothing.
fn left_in_comdat<S: Side>(image: &Image<S>, rva: Rva<S>) -> Option<u32> {
    let contribution = image.contribution_at(rva)?;
    if contribution.characteristics & IMAGE_SCN_LNK_COMDAT == 0 {
        return None;
    }
    let left = left_in_contribution(image, rva)?;
    // With names in it, the names tell.
    let next = image
        .data
        .partition_point(|symbol| symbol.rva < contribution.rva);
    let name = image.data.get(next);
    let is_named = name.is_some_and(|symbol| {
        symbol
            .rva
            .checked_sub(contribution.rva)
            .is_some_and(|at| at < contribution.size)
    });
    (!is_named && !holds_jump_table(image, contribution)).then_some(left)
}

/// Compilers put the jump tables of a function into one section.
fn holds_jump_table<S: Side>(image: &Image<S>, contribution: &Contribution<S>) -> bool {
    let tables = &image.switch_tables;
    let next = tables.partition_point(|table| table.table < contribution.rva);
    tables.get(next).is_some_and(|table| {
        table
            .table
            .checked_sub(contribution.rva)
            .is_some_and(|at| at < contribution.size)
    })
}

/// The bytes of a text in UTF-16 that begins with a letter of ASCII and that a boundary behind so
/// many bytes cuts in two, up to the zero that ends it.
fn wide_text(bytes: &[u8], boundary: usize) -> Option<u32> {
    let is_cut = boundary > 0 && boundary.is_multiple_of(2);
    let mut units = bytes
        .chunks_exact(2)
        .map(|unit| u16::from_le_bytes([unit[0], unit[1]]));
    let first = units.clone().next()?;
    let is_letter = u8::try_from(first).is_ok_and(|byte| byte.is_ascii() && is_text(byte));
    if !is_cut || !is_letter {
        return None;
    }
    let length = units.position(|unit| unit == 0)?;
    let size = u32::try_from(2 * length + 2).ok()?;
    (2 * length >= boundary).then_some(size)
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
