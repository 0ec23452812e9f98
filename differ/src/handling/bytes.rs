//! Reading numbers one after the other.

use super::NotUnderstood;

/// Bytes being read; behind their end there is nothing.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(rest: &'a [u8]) -> Self {
        Self { rest }
    }

    /// How many bytes are left.
    pub(super) fn left(&self) -> usize {
        self.rest.len()
    }

    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], NotUnderstood> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(NotUnderstood)?;
        self.rest = rest;
        Ok(taken)
    }

    pub(super) fn u8(&mut self) -> Result<u8, NotUnderstood> {
        Ok(self.take(1)?[0])
    }

    pub(super) fn u32(&mut self) -> Result<u32, NotUnderstood> {
        let bytes = self.take(4)?.first_chunk().ok_or(NotUnderstood)?;
        Ok(u32::from_le_bytes(*bytes))
    }

    pub(super) fn u64(&mut self) -> Result<u64, NotUnderstood> {
        let bytes = self.take(8)?.first_chunk().ok_or(NotUnderstood)?;
        Ok(u64::from_le_bytes(*bytes))
    }

    /// The next number as [`packed`] reads it.
    pub(super) fn packed(&mut self) -> Result<u32, NotUnderstood> {
        let (value, size) = packed(self.rest).ok_or(NotUnderstood)?;
        self.take(size)?;
        Ok(value)
    }

    /// Unsigned LEB128.
    pub(super) fn uleb(&mut self) -> Result<u64, NotUnderstood> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(NotUnderstood)
    }

    /// Signed LEB128.
    pub(super) fn sleb(&mut self) -> Result<i64, NotUnderstood> {
        let mut value = 0_i64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            value |= i64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                let unused = 64 - (shift + 7).min(64);
                return Ok(value << unused >> unused);
            }
        }
        Err(NotUnderstood)
    }
}

/// The unsigned number of `__CxxFrameHandler4`'s data that `bytes` begin with, and how many bytes
/// it has: as many ones at the bottom of the first byte as bytes follow it, then a zero, then the
/// value; four ones mean four whole bytes (`ehdata4_export.h` of the C++ runtime's published
/// headers).
///
/// Nothing where the bytes end before it does.
pub fn packed(bytes: &[u8]) -> Option<(u32, usize)> {
    let first = bytes.first()?;
    let length = match first.trailing_ones() {
        more @ 0..=3 => more as usize + 1,
        _ => {
            let word = bytes.get(1..)?.first_chunk()?;
            return Some((u32::from_le_bytes(*word), 5));
        }
    };
    let value = bytes
        .get(..length)?
        .iter()
        .rev()
        .fold(0, |value, byte| value << 8 | u32::from(*byte));
    Some((value >> length, length))
}
