//! A table of the fixed image that becomes a piece: read from its start, with the addresses in it
//! aimed at what they should reach in the patch.

use hpbuild_differ::handling::packed;
use hpbuild_metadata::{Fixed, Rva};

use crate::piece::{How, Origin, Piece, Place, Reference, Room, Target};
use crate::refusal::Code;

/// Why a table cannot be carried.
pub(super) type Refused = (Code, String);

/// A table being read.
pub(super) struct Table<'a> {
    rva: Rva<Fixed>,
    /// What is stored from its start on, to the end of the section.
    bytes: &'a [u8],
    /// Bytes read so far, when read in order.
    at: u32,
    references: Vec<Reference>,
}

impl<'a> Table<'a> {
    /// A table that starts at `rva`, where `bytes` stand.
    pub(super) fn new(rva: Rva<Fixed>, bytes: &'a [u8]) -> Self {
        Self {
            rva,
            bytes,
            at: 0,
            references: Vec::new(),
        }
    }

    /// The four bytes `at` bytes from the start.
    pub(super) fn word(&self, at: u32) -> Result<u32, Refused> {
        self.get(at, 4)
            .and_then(|bytes| bytes.first_chunk())
            .map(|word| u32::from_le_bytes(*word))
            .ok_or_else(|| self.ends_early())
    }

    /// The next byte.
    pub(super) fn next_byte(&mut self) -> Result<u8, Refused> {
        let byte = self
            .get(self.at, 1)
            .and_then(|bytes| bytes.first().copied());
        self.at += 1;
        byte.ok_or_else(|| self.ends_early())
    }

    /// The next four bytes.
    pub(super) fn next_word(&mut self) -> Result<u32, Refused> {
        let word = self.word(self.at)?;
        self.at += 4;
        Ok(word)
    }

    /// The next four bytes, an address unless they are zero, and where they stand.
    pub(super) fn next_address(&mut self) -> Result<(u32, Option<u32>), Refused> {
        let at = self.at;
        let rva = self.next_word()?;
        Ok((at, (rva != 0).then_some(rva)))
    }

    /// The next number as [`packed`] reads it.
    pub(super) fn next_packed(&mut self) -> Result<u32, Refused> {
        let rest = self.bytes.get(self.at as usize..).unwrap_or_default();
        let (value, size) = packed(rest).ok_or_else(|| self.ends_early())?;
        self.at += u32::try_from(size).expect("at most five bytes");
        Ok(value)
    }

    /// Bytes read so far.
    pub(super) fn size(&self) -> u32 {
        self.at
    }

    /// Takes a table as read up to `end`.
    pub(super) fn skip_to(&mut self, end: u32) {
        self.at = end;
    }

    /// Makes the four bytes `at` bytes from the start reach `target`, relative to the image.
    pub(super) fn aim(&mut self, at: u32, target: Target) {
        self.refer(at, How::ImageRelative, target);
    }

    /// The same for a place of the patch.
    pub(super) fn aim_at(&mut self, at: u32, place: Place) {
        self.aim(at, Target::Piece(place));
    }

    /// Makes the field `at` bytes from the start reach `target`.
    pub(super) fn refer(&mut self, at: u32, how: How, target: Target) {
        self.references.push(Reference {
            offset: at,
            how,
            target,
        });
    }

    /// The bytes read, as a piece.
    ///
    /// # Errors
    /// Where the table reaches beyond what its section stores.
    pub(super) fn into_piece(
        mut self,
        name: &str,
        room: Room,
        align: u32,
    ) -> Result<Piece, Refused> {
        let bytes = self.get(0, self.at).ok_or_else(|| self.ends_early())?;
        // A table of no entries has an address all the same, which must lie in a section.
        let bytes = if bytes.is_empty() { &[0; 4] } else { bytes };
        self.references.sort_by_key(|reference| reference.offset);
        // What describes code belongs to that code, and nothing else has its address.
        let origin = (room != Room::Unwind).then_some(Origin {
            rva: self.rva,
            lead: 0,
        });
        Ok(Piece {
            name: name.into(),
            origin,
            room,
            align,
            bytes: bytes.to_vec(),
            zeros: 0,
            references: self.references,
            page_links: Vec::new(),
        })
    }

    fn get(&self, at: u32, size: u32) -> Option<&'a [u8]> {
        let at = at as usize;
        self.bytes.get(at..at.checked_add(size as usize)?)
    }

    fn ends_early(&self) -> Refused {
        (
            Code::UnwindInfo,
            format!("exception data at fixed rva {} ends early", self.rva),
        )
    }
}
