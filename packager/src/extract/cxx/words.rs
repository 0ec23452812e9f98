//! The tables of `__CxxFrameHandler3`: words.

use hpbuild_metadata::Rva;

use super::super::Extraction;
use super::super::table::{Refused, Table};
use super::{CxxTable, Form, bounded};
use crate::refusal::Code;

/// The first version of `FuncInfo`; later ones count up.
const MAGIC: u32 = 0x1993_0520;
impl Extraction<'_> {
    /// `FuncInfo`: ten words, of which old versions lack the last or the last two.
    pub(super) fn info3(&mut self, table: &mut Table<'_>, source: CxxTable) -> Result<(), Refused> {
        let magic = table.next_word()?;
        // The upper three bits are flags.
        let version = (magic & 0x1fff_ffff).wrapping_sub(MAGIC);
        if version > 2 {
            let message = format!("exception data of version {magic:#x}");
            return Err((Code::HandlerData, message));
        }
        let count = next_count(table)?;
        self.aim_table(table, Form::Cleanups3 { count }, source)?;
        let count = next_count(table)?;
        self.aim_table(table, Form::Tries3 { count }, source)?;
        let count = next_count(table)?;
        self.aim_table(table, Form::Places3 { count }, source)?;
        table.next_word()?;
        if version >= 1 && table.next_word()? != 0 {
            let message = "an exception specification".to_string();
            return Err((Code::HandlerData, message));
        }
        if version >= 2 {
            table.next_word()?;
        }
        Ok(())
    }

    /// `UnwindMapEntry`: the next state, and a funclet.
    pub(super) fn cleanups3(&mut self, table: &mut Table<'_>, count: u32) -> Result<(), Refused> {
        for _ in 0..count {
            table.next_word()?;
            self.aim_code(table)?;
        }
        Ok(())
    }

    /// `TryBlockMapEntry`: three states and the handlers.
    pub(super) fn tries3(
        &mut self,
        table: &mut Table<'_>,
        source: CxxTable,
        count: u32,
    ) -> Result<(), Refused> {
        self.check_continuations()?;
        for _ in 0..count {
            for _ in 0..3 {
                table.next_word()?;
            }
            let count = next_count(table)?;
            self.aim_table(table, Form::Catches3 { count }, source)?;
        }
        Ok(())
    }

    /// `HandlerType`: adjectives, type, place of the object, funclet, and distance of the frame.
    pub(super) fn catches3(&mut self, table: &mut Table<'_>, count: u32) -> Result<(), Refused> {
        for _ in 0..count {
            table.next_word()?;
            self.aim_type(table)?;
            table.next_word()?;
            self.aim_code(table)?;
            table.next_word()?;
        }
        Ok(())
    }

    /// `IpToStateMapEntry`: where code begins to be in a state. The handler looks for the last
    /// entry that is not behind it, so their order must last: code keeps its order in the patch
    /// ([`crate::piece::Parts::code`]).
    pub(super) fn places3(
        &mut self,
        table: &mut Table<'_>,
        source: CxxTable,
        count: u32,
    ) -> Result<(), Refused> {
        let users = self.users_of(source.info);
        let mut before = 0;
        for _ in 0..count {
            let (at, rva) = (table.size(), table.next_word()?);
            table.next_word()?;
            if rva < before {
                let message = "its states are not in the order of its code".to_string();
                return Err((Code::HandlerData, message));
            }
            before = rva;
            let place = self.place_in(&users, Rva::new(rva)).ok_or_else(|| {
                let message = format!("a state begins at fixed rva {rva:#x}, in another function");
                (Code::HandlerData, message)
            })?;
            table.aim_at(at, place);
        }
        Ok(())
    }
}

fn next_count(table: &mut Table<'_>) -> Result<u32, Refused> {
    bounded(table.next_word()?)
}
