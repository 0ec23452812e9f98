//! Descriptions of what is thrown: which types a handler may catch it as, how it is copied, and
//! how it is destroyed.
//!
//! One that the base has is the base's. One that is new is copied, with the descriptions of types
//! it leads to; functions stay those of the base, reached through thunks. Layouts: `ehdata.h` of
//! the C++ runtime's published headers, and LLVM's `MicrosoftCXXABI.cpp`. Fields are words, and
//! addresses are relative to the image that `_CxxThrowException` finds the description in.

use hpbuild_metadata::{Fixed, Rva};

use super::table::{Refused, Table};
use super::{Extraction, Source};
use crate::piece::{Piece, Place, Room};
use crate::refusal::Code;

/// More types than one has to be caught as.
const MAX_TYPES: u32 = 1 << 12;

/// What a table describes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Thrown {
    /// `_ThrowInfo`: flags, destructor, a word of old, and the list.
    Info,
    /// `_CatchableTypeArray`: a count and that many types.
    Types,
    /// `_CatchableType`: flags, type, three distances, size, and how it is copied.
    Type,
}

/// What data of this name describes, if it is such a description.
pub(super) fn thrown(name: &str) -> Option<Thrown> {
    // `_TI2?AV...` and `_TIC1?AV...`, with a count of types behind qualifiers of the object.
    let starts = |prefix| name.starts_with(prefix);
    if starts("_TI") {
        Some(Thrown::Info)
    } else if starts("_CTA") {
        Some(Thrown::Types)
    } else if starts("_CT?") {
        Some(Thrown::Type)
    } else {
        None
    }
}

impl Extraction<'_> {
    /// Makes the piece of a description.
    pub(super) fn thrown(&mut self, rva: Rva<Fixed>, what: Thrown) -> Piece {
        let name = &self.name_of(rva);
        let mut table = Table::new(rva, self.diff.fixed.pe.bytes_from(rva));
        let read = match what {
            Thrown::Info => self.throw_info(&mut table),
            Thrown::Types => self.catchable_types(&mut table),
            Thrown::Type => self.catchable_type(&mut table),
        };
        let made = read.and_then(|()| table.into_piece(name, Room::ReadOnly, 4));
        made.unwrap_or_else(|(rule, message)| {
            self.refuse(rule, name, None, message);
            Piece::placeholder(name, Room::ReadOnly)
        })
    }

    fn throw_info(&mut self, table: &mut Table<'_>) -> Result<(), Refused> {
        table.next_word()?;
        self.aim_function(table)?;
        if table.next_word()? != 0 {
            let message = "a throw description with a field that is not known".to_string();
            return Err((Code::DataNotUnderstood, message));
        }
        self.aim_thrown(table, Thrown::Types)
    }

    fn catchable_types(&mut self, table: &mut Table<'_>) -> Result<(), Refused> {
        let count = table.next_word()?;
        if count > MAX_TYPES {
            let message = format!("a throw description with {count} types");
            return Err((Code::DataNotUnderstood, message));
        }
        (0..count).try_for_each(|_| self.aim_thrown(table, Thrown::Type))
    }

    fn catchable_type(&mut self, table: &mut Table<'_>) -> Result<(), Refused> {
        table.next_word()?;
        self.aim_type(table)?;
        for _ in 0..4 {
            table.next_word()?;
        }
        self.aim_function(table)
    }

    fn aim_thrown(&mut self, table: &mut Table<'_>, what: Thrown) -> Result<(), Refused> {
        if let (at, Some(rva)) = table.next_address()? {
            let piece = self.piece_of(Source::Thrown(Rva::new(rva), what));
            table.aim_at(at, Place::start(piece));
        }
        Ok(())
    }
}
