//! The tables of `__CxxFrameHandler4`: packed numbers, and words for addresses.

use super::super::Extraction;
use super::super::table::{Refused, Table};
use super::{CxxTable, Form, bounded};
use crate::refusal::Code;

impl Extraction<'_> {
    /// `FuncInfo4`: a header that says which fields follow.
    pub(super) fn info4(&mut self, table: &mut Table<'_>, source: CxxTable) -> Result<(), Refused> {
        const IS_CATCH: u8 = 1;
        const IS_SEPARATED: u8 = 2;
        const HAS_FLAGS: u8 = 4;
        const HAS_UNWIND_MAP: u8 = 8;
        const HAS_TRY_MAP: u8 = 0x10;
        const UNKNOWN: u8 = 0x80;
        let header = table.next_byte()?;
        if header & UNKNOWN != 0 {
            let message = format!("exception data with the header {header:#x}");
            return Err((Code::HandlerData, message));
        }
        if header & HAS_FLAGS != 0 {
            table.next_packed()?;
        }
        if header & HAS_UNWIND_MAP != 0 {
            self.aim_table(table, Form::Cleanups4, source)?;
        }
        if header & HAS_TRY_MAP != 0 {
            self.aim_table(table, Form::Tries4, source)?;
        }
        let is_parted = header & IS_SEPARATED != 0;
        let places = if is_parted {
            Form::Parts4
        } else {
            Form::Places4
        };
        self.aim_table(table, places, source)?;
        if header & IS_CATCH != 0 {
            table.next_packed()?;
        }
        Ok(())
    }

    /// The unwind map: for each state where it goes next, and what is done.
    pub(super) fn cleanups4(&mut self, table: &mut Table<'_>) -> Result<(), Refused> {
        for _ in 0..next_packed_count(table)? {
            match table.next_packed()? & 3 {
                0 => {}
                // A destructor, and where its object or the pointer to it is in the frame.
                1 | 2 => {
                    self.aim_function(table)?;
                    table.next_packed()?;
                }
                _ => self.aim_code(table)?,
            }
        }
        Ok(())
    }

    /// Three states and the handlers.
    pub(super) fn tries4(
        &mut self,
        table: &mut Table<'_>,
        source: CxxTable,
    ) -> Result<(), Refused> {
        self.check_continuations()?;
        for _ in 0..next_packed_count(table)? {
            for _ in 0..3 {
                table.next_packed()?;
            }
            self.aim_table(table, Form::Catches4, source)?;
        }
        Ok(())
    }

    /// `HandlerType4`: a header that says which fields follow, and where the code goes on.
    pub(super) fn catches4(&mut self, table: &mut Table<'_>) -> Result<(), Refused> {
        const HAS_ADJECTIVES: u8 = 1;
        const HAS_TYPE: u8 = 2;
        const HAS_OBJECT: u8 = 4;
        const CONTINUES_AT_RVA: u8 = 8;
        for _ in 0..next_packed_count(table)? {
            let header = table.next_byte()?;
            if header & HAS_ADJECTIVES != 0 {
                table.next_packed()?;
            }
            if header & HAS_TYPE != 0 {
                self.aim_type(table)?;
            }
            if header & HAS_OBJECT != 0 {
                table.next_packed()?;
            }
            self.aim_code(table)?;
            for _ in 0..(header >> 4) & 3 {
                if header & CONTINUES_AT_RVA != 0 {
                    self.aim_code(table)?;
                } else {
                    // A distance from the start of the function.
                    table.next_packed()?;
                }
            }
        }
        Ok(())
    }

    /// The parts of a function that was parted, and a map for each.
    pub(super) fn parts4(
        &mut self,
        table: &mut Table<'_>,
        source: CxxTable,
    ) -> Result<(), Refused> {
        for _ in 0..next_packed_count(table)? {
            self.aim_code(table)?;
            self.aim_table(table, Form::Places4, source)?;
        }
        Ok(())
    }
}

/// From which distance on the code is in which state.
pub(super) fn places4(table: &mut Table<'_>) -> Result<(), Refused> {
    for _ in 0..next_packed_count(table)? {
        table.next_packed()?;
        table.next_packed()?;
    }
    Ok(())
}

fn next_packed_count(table: &mut Table<'_>) -> Result<u32, Refused> {
    bounded(table.next_packed()?)
}
