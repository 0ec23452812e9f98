//! Exception handlers and their data.
//!
//! Handlers stay those of the base, reached through thunks. Their data is copied where its layout
//! is known: scope tables, the tables of the C++ frame handlers ([`super::cxx`]), and the plain
//! words of the stack cookie check. Anything else is refused, because a missed address would send
//! an exception into the wrong code.

use hpbuild_differ::decode::ReferenceKind;
use hpbuild_differ::handling::Handler;
use hpbuild_differ::meaning::{Target as Meaning, resolve};
use hpbuild_metadata::{Fixed, Rva};

use super::cxx::{CxxTable, Form};
use super::function::extent;
use super::table::{Refused, Table};
use super::{Extraction, Source};
use crate::piece::{Place, Target};
use crate::refusal::Code;

/// More scopes than a function has.
const MAX_SCOPES: u32 = 1 << 12;

impl Extraction<'_> {
    /// The handler at `at` and its data; where the data ends.
    pub(super) fn handler(&mut self, info: &mut Table<'_>, at: u32) -> Result<u32, Refused> {
        let rva = Rva::new(info.word(at)?);
        let target = self.handler_function(rva)?;
        info.aim(at, target);
        let image = &self.diff.fixed;
        let known = Handler::at(image, rva).filter(|known| *known != Handler::Itanium);
        let known = known.ok_or_else(|| {
            let handler = image.function_at(rva).map(|id| image.display_name(id));
            let message = format!("the data of {}", handler.unwrap_or_default());
            (Code::HandlerData, message)
        })?;
        let mut end = at + 4;
        match known {
            Handler::Scopes { .. } => end = self.scopes(info, end)?,
            Handler::Cxx3 { .. } => end = self.cxx_info(info, end, Form::Info3)?,
            Handler::Cxx4 { .. } => end = self.cxx_info(info, end, Form::Info4)?,
            Handler::Cookie | Handler::Itanium => {}
        }
        if known.has_cookie() {
            // EHANDLER and UHANDLER in the lowest bits; the next one says that the frame is aligned.
            end += if info.word(end)? & 4 != 0 { 12 } else { 4 };
        }
        Ok(end)
    }

    /// The address of `FuncInfo` or `FuncInfo4` at `at`; where it ends.
    fn cxx_info(&mut self, info: &mut Table<'_>, at: u32, form: Form) -> Result<u32, Refused> {
        let rva = Rva::new(info.word(at)?);
        let table = CxxTable {
            form,
            rva,
            info: rva,
        };
        let piece = self.piece_of(Source::Cxx(table));
        info.aim_at(at, Place::start(piece));
        Ok(at + 4)
    }

    /// How the patch reaches a handler.
    fn handler_function(&mut self, rva: Rva<Fixed>) -> Result<Target, Refused> {
        let Meaning::Function { id, offset: 0 } = resolve(&self.diff.fixed, rva) else {
            let message = format!("a handler at fixed rva {rva} that is no function");
            return Err((Code::HandlerData, message));
        };
        self.function_target(id, 0, ReferenceKind::Address)
    }

    /// A scope table: ranges of code, a filter or the value 1, and where to go on.
    fn scopes(&mut self, info: &mut Table<'_>, at: u32) -> Result<u32, Refused> {
        let count = info.word(at)?;
        if count > MAX_SCOPES {
            return Err((Code::HandlerData, format!("{count} scopes")));
        }
        for scope in (0..count).map(|index| at + 4 + 16 * index) {
            let (begin, end) = (info.word(scope)?, info.word(scope + 4)?);
            let (filter, jump) = (info.word(scope + 8)?, info.word(scope + 12)?);
            let place = self.code_place(begin, false)?;
            info.aim_at(scope, place);
            let place = self.code_place(end, true)?;
            info.aim_at(scope + 4, place);
            // 1 stands for "always handled" and is no address.
            if filter > 1 {
                let place = self.code_place(filter, false)?;
                info.aim_at(scope + 8, place);
            }
            // A scope without target is a finally block.
            if jump != 0 {
                self.check_continuation(jump)?;
                let place = self.code_place(jump, false)?;
                info.aim_at(scope + 12, place);
            }
        }
        Ok(at + 4 + 16 * count)
    }

    /// A place in code that the patch then carries; `is_end` where it may be one past a function.
    pub(super) fn code_place(&mut self, rva: u32, is_end: bool) -> Result<Place, Refused> {
        let image = &self.diff.fixed;
        let wrong = || {
            (
                Code::UnwindInfo,
                format!("fixed rva {rva:#x} is in no function"),
            )
        };
        let inside = rva
            .checked_sub(u32::from(is_end))
            .map(Rva::new)
            .ok_or_else(wrong)?;
        let id = image.function_at(inside).or_else(|| {
            // Behind the record's extent, but within what the unwind entry covers.
            let entry = image.pe.runtime_function_at(inside)?;
            let id = image.function_at(entry.begin)?;
            extent(image, id).offset_of(inside).map(|_| id)
        });
        let id = id.ok_or_else(wrong)?;
        let start = image.function(id).rva.get();
        Ok(Place::new(
            self.piece_of(Source::Function(id)),
            i64::from(rva) - i64::from(start),
        ))
    }
}
