//! What a patch image says that it and those before it brought: an entry of the debug directory with a
//! kind of its own, which systems pass over. An image that brings nothing has none.
//!
//! | bytes | |
//! |---|---|
//! | 4 | version, 1 |
//! | 4 | how many follow |
//! | 1 | what becomes of its address: 0 handed on, 1 compared, 2 stored; 4 more where it has state; 8 more for the layout of a type, 16 more for a value of one |
//! | 2 | bytes of the name |
//! | | the name, UTF-8 |
//! | 32 | the digest |

use hpbuild_differ::decode::Escape;

use super::pe::View;
use super::{Fault, fault};
use crate::piece::{Brought, Lasting};

/// `Type` of the entry.
const KIND: u32 = 0x4250_4842;
/// Bytes of one entry of the debug directory.
const ENTRY: u32 = 28;
/// Directories have fewer entries.
const MAX_ENTRIES: u32 = 64;

/// What the image brought.
pub(super) fn read(view: &View<'_>) -> Result<Vec<Brought>, Fault> {
    let (start, size) = view.directory(6);
    let entries = (0..(size / ENTRY).min(MAX_ENTRIES)).map(|index| start + ENTRY * index);
    let mut ours = entries.filter(|at| view.u32(at + 12) == Some(KIND));
    let Some(at) = ours.next() else {
        return Ok(Vec::new());
    };
    let (rva, size) = (view.u32(at + 20), view.u32(at + 16));
    let bytes = rva.zip(size).and_then(|(rva, size)| view.bytes(rva, size));
    bytes
        .and_then(decode)
        .ok_or_else(|| fault("list of what it brought", "one of version 1", "another"))
}

fn decode(bytes: &[u8]) -> Option<Vec<Brought>> {
    let (version, bytes) = bytes.split_first_chunk()?;
    let (count, mut bytes) = bytes.split_first_chunk()?;
    if u32::from_le_bytes(*version) != 1 {
        return None;
    }
    let mut all = Vec::new();
    for _ in 0..u32::from_le_bytes(*count) {
        let (head, rest) = bytes.split_first_chunk::<3>()?;
        let length = u16::from_le_bytes([head[1], head[2]]).into();
        let (name, rest) = rest.split_at_checked(length)?;
        let (digest, rest) = rest.split_first_chunk()?;
        bytes = rest;
        all.push(Brought {
            lasting: match head[0] >> 3 {
                0 => Lasting::Address,
                1 => Lasting::Layout,
                2 => Lasting::Value,
                _ => return None,
            },
            name: std::str::from_utf8(name).ok()?.into(),
            digest: *digest,
            way: match head[0] & 3 {
                0 => Escape::Handed,
                1 => Escape::Compared,
                2 => Escape::Stored,
                _ => return None,
            },
            has_state: head[0] & 4 != 0,
        });
    }
    bytes.is_empty().then_some(all)
}

#[cfg(test)]
mod tests {
    use super::{Lasting, decode};

    fn list(version: u8, head: u8) -> Vec<u8> {
        let mut bytes = vec![version, 0, 0, 0, 1, 0, 0, 0, head, 1, 0, b'x'];
        bytes.extend([7; 32]);
        bytes
    }

    #[test]
    fn what_may_be_listed() {
        let lasting = |version, head| Some(decode(&list(version, head))?.first()?.lasting);
        assert_eq!(lasting(1, 6), Some(Lasting::Address));
        assert_eq!(lasting(1, 8), Some(Lasting::Layout));
        assert_eq!(lasting(1, 16), Some(Lasting::Value));
        // What nothing has, and another version.
        assert_eq!(lasting(1, 24), None);
        assert_eq!(lasting(1, 32), None);
        assert_eq!(lasting(2, 0), None);
    }
}
