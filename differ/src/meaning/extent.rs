//! How far data without a name reaches.

use hpbuild_metadata::{Rva, Side};

use crate::decode::ReferenceKind;
use crate::image::{Contribution, Image};

/// Letters that a text has at least which is no number.
pub(super) const SHORT_TEXT: usize = 4;

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
    if let Some(whole) = comdat(image, rva) {
        return Some(Extent {
            rva,
            size: left_in_contribution(image, rva)?,
            ..whole
        });
    }
    if let Some(size) = left_in_text(image, rva) {
        return Some(Extent {
            rva,
            size,
            exact: true,
        });
    }
    // Code may reach into the middle of an array, which does not end there.
    let named = image.constants.binary_search_by_key(&rva, |it| it.0);
    if let Some((_, size)) = named.ok().and_then(|index| image.constants.get(index)) {
        return Some(Extent {
            rva,
            size: *size,
            exact: false,
        });
    }
    let end = image.next_boundary(rva)?;
    let size = end.checked_sub(rva)?;
    let bytes = image.pe.bytes_from(rva);
    let to_boundary = bytes.get(..size as usize)?;
    let given = left_in_contribution(image, rva).map_or(bytes.len(), |left| left as usize);
    let given = &bytes[..bytes.len().min(given)];
    if let Some(size) = wide_text(given, to_boundary.len()) {
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

/// The bytes that data may have whose end is where something reaches: those to where something is
/// certain to start. `None` where the end is certain. A text ends with its zero.
pub(super) fn open_size<S: Side>(image: &Image<S>, extent: Extent<S>) -> Option<u32> {
    let is_known = image.relative_tables.binary_search(&extent.rva).is_ok()
        || image
            .constants
            .binary_search_by_key(&extent.rva, |it| it.0)
            .is_ok();
    if extent.exact || is_known {
        return None;
    }
    let certain = image.next_certain_boundary(extent.rva)?;
    let most = certain.checked_sub(extent.rva)?;
    let bytes = image.pe.bytes_from(extent.rva);
    let bytes = bytes.get(..extent.size as usize)?;
    (most > extent.size && !is_ended_text(bytes)).then_some(most)
}

/// Whether bytes are a text, the zero that ends it, and filler. A small number looks like a short
/// one that filler follows.
pub(super) fn is_ended_text(bytes: &[u8]) -> bool {
    let Some(length) = bytes.iter().position(|byte| *byte == 0) else {
        return false;
    };
    let (text, filler) = bytes.split_at(length);
    let is_utf8 = text.iter().all(|byte| is_text(*byte)) && std::str::from_utf8(text).is_ok();
    let is_filler = filler.iter().all(|byte| *byte == 0);
    is_utf8 && is_filler && (length >= SHORT_TEXT || filler.len() == 1)
}

/// Whether data are a text of some encoding, as far as the first thousands of bytes tell: with a zero
/// behind it or without, as those of Rust are. Whatever follows a text of some length is no part of it.
pub(crate) fn is_text_alone(bytes: &[u8]) -> bool {
    const ENOUGH: usize = 1 << 12;
    let bytes = &bytes[..bytes.len().min(ENOUGH)];
    let units = bytes.chunks_exact(2);
    let wide = units.take_while(|unit| is_text(unit[0]) && unit[1] == 0);
    match bytes.iter().position(|byte| *byte == 0) {
        None => bytes.iter().all(|byte| is_text(*byte)),
        Some(0) => bytes.len() == 1,
        Some(end) => {
            is_long_text(&bytes[..=end]) || is_ended_text(bytes) || wide.count() >= SHORT_TEXT / 2
        }
    }
}

/// The bytes of the text and its zero that constants start with. Numbers look like short texts.
pub(super) fn text_size(bytes: &[u8]) -> Option<u32> {
    let size = bytes.iter().position(|byte| *byte == 0)? + 1;
    is_long_text(&bytes[..size]).then(|| u32::try_from(size).ok())?
}

/// Whether a text of any letters and its zero come first.
pub fn starts_with_text(bytes: &[u8]) -> bool {
    let end = bytes.iter().position(|byte| *byte == 0);
    end.is_some_and(|end| end > 0 && is_ended_text(&bytes[..=end]))
}

/// As [`is_ended_text`], of so many letters that it is no number.
pub(super) fn is_long_text(bytes: &[u8]) -> bool {
    let length = bytes.iter().position(|byte| *byte == 0);
    length.is_some_and(|length| length >= SHORT_TEXT) && is_ended_text(bytes)
}

/// The whole of what has a section of its own, of which `rva` is the start or a place inside it.
/// Others may reach into it: that something else is known to start there means nothing.
pub(super) fn comdat<S: Side>(image: &Image<S>, rva: Rva<S>) -> Option<Extent<S>> {
    let contribution = image.contribution_at(rva)?;
    if !contribution.is_comdat() {
        return None;
    }
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
    (!is_named && !holds_jump_table(image, contribution)).then_some(Extent {
        rva: contribution.rva,
        size: contribution.size,
        exact: true,
    })
}

/// Compilers put the jump tables of a function into one section, and its other tables with them.
fn holds_jump_table<S: Side>(image: &Image<S>, contribution: &Contribution<S>) -> bool {
    let holds = |rva: Rva<S>| {
        let at = rva.checked_sub(contribution.rva);
        at.is_some_and(|at| at < contribution.size)
    };
    let (tables, relative) = (&image.switch_tables, &image.relative_tables);
    let next = tables.partition_point(|table| table.table < contribution.rva);
    let next_relative = relative.partition_point(|table| *table < contribution.rva);
    tables.get(next).is_some_and(|table| holds(table.table))
        || relative
            .get(next_relative)
            .is_some_and(|table| holds(*table))
}

/// The bytes of a text in UTF-16 that a boundary behind so many bytes cuts in two, up to the zero
/// that ends it. Texts with other than Latin letters look like numbers.
fn wide_text(bytes: &[u8], boundary: usize) -> Option<u32> {
    const BEHIND_LATIN: u16 = 0x250;
    if boundary == 0 || !boundary.is_multiple_of(2) {
        return None;
    }
    let units = bytes.chunks_exact(2);
    let units = units.map(|unit| u16::from_le_bytes([unit[0], unit[1]]));
    let is_letter = |unit: &u16| match u8::try_from(*unit) {
        Ok(byte) => is_text(byte),
        Err(_) => *unit < BEHIND_LATIN,
    };
    let length = units.clone().take_while(is_letter).count();
    let is_ended = units.clone().nth(length) == Some(0);
    let size = u32::try_from(2 * length + 2).ok()?;
    (is_ended && 2 * length >= boundary).then_some(size)
}

/// How many bytes of what an object gave lie at `rva` and behind it.
pub(crate) fn left_in_contribution<S: Side>(image: &Image<S>, rva: Rva<S>) -> Option<u32> {
    let contribution = image.contribution_at(rva)?;
    let end = contribution.rva.checked_add(contribution.size)?;
    end.checked_sub(rva)
}

/// How many bytes of a text lie at `rva` and behind it whose size is told.
fn left_in_text<S: Side>(image: &Image<S>, rva: Rva<S>) -> Option<u32> {
    let behind = image.texts.partition_point(|(start, _)| *start <= rva);
    let (start, size) = image.texts.get(behind.checked_sub(1)?)?;
    let end = start.checked_add(*size)?;
    end.checked_sub(rva).filter(|left| *left > 0)
}

/// Bytes that occur in texts in ASCII and UTF-8.
pub(super) fn is_text(byte: u8) -> bool {
    matches!(byte, b'\t' | b'\n' | b'\r' | 0x1b | 0x20..=0x7e | 0x80..=0xff)
}

#[cfg(test)]
mod tests {
    use super::{is_text_alone, wide_text};

    #[test]
    fn texts_and_numbers() {
        let texts: [&[u8]; 5] = [
            b"word\0",
            b"no zero",
            b"ab\0",
            b"a\0b\0\0\0",
            b"long\0\0\0\x01",
        ];
        assert!(texts.into_iter().all(is_text_alone));
        // The numbers 64 and 2; 5 and 0; one and a half.
        let numbers = [
            [0x40, 0, 0, 0, 2, 0, 0, 0],
            [5, 0, 0, 0, 0, 0, 0, 0],
            1.5_f64.to_le_bytes(),
        ];
        assert!(!numbers.iter().any(|it| is_text_alone(it)));
    }

    #[test]
    fn texts_in_two_pieces() {
        let wide =
            |text: &str| -> Vec<u8> { text.encode_utf16().flat_map(u16::to_le_bytes).collect() };
        let text = wide("fore hind\0other");
        assert_eq!(wide_text(&text, 10), Some(20));
        // Not cut; not ended; cut within a letter; words that are no letters.
        assert_eq!(wide_text(&text, 20), None);
        assert_eq!(wide_text(&wide("fore hind"), 10), None);
        assert_eq!(wide_text(&text, 9), None);
        assert_eq!(wide_text(&[0x50, 0, 0, 8, 0x44, 0, 0, 0], 4), None);
    }
}
