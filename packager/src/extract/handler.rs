//! Exception handlers and their data.
//!
//! Handlers stay those of the base, reached through thunks. Their data is copied where its layout
//! is known: scope tables, the tables of the C++ frame handlers ([`super::cxx`]), and the plain
//! words of the stack cookie check. Anything else is refused, because a missed address would send
//! an exception into the wrong code.

use hpbuild_differ::decode::ReferenceKind;
use hpbuild_differ::image::FunctionKind;
use hpbuild_differ::meaning::{Target as Meaning, resolve};
use hpbuild_differ::pe::ImportSymbol;
use hpbuild_metadata::{Fixed, Rva};

use super::cxx::{CxxTable, Form};
use super::function::extent;
use super::table::{Refused, Table};
use super::{Extraction, Source};
use crate::piece::{Place, Target};
use crate::refusal::Code;

/// More scopes than a function has.
const MAX_SCOPES: u32 = 1 << 12;

/// What stands at the start of a handler's data.
#[derive(Clone, Copy, PartialEq, Eq)]
enum HandlerData {
    /// Nothing.
    None,
    /// A count and four addresses each.
    Scopes,
    /// The address of `FuncInfo` or `FuncInfo4`.
    Cxx(Form),
}

/// The data of a known handler, and whether the stack cookie's follows.
fn known(name: &str) -> Option<(HandlerData, bool)> {
    Some(match name {
        "__C_specific_handler" => (HandlerData::Scopes, false),
        "__GSHandlerCheck" => (HandlerData::None, true),
        "__GSHandlerCheck_SEH" => (HandlerData::Scopes, true),
        "__CxxFrameHandler3" => (HandlerData::Cxx(Form::Info3), false),
        "__GSHandlerCheck_EH" => (HandlerData::Cxx(Form::Info3), true),
        "__CxxFrameHandler4" => (HandlerData::Cxx(Form::Info4), false),
        "__GSHandlerCheck_EH4" => (HandlerData::Cxx(Form::Info4), true),
        _ => return None,
    })
}

impl Extraction<'_> {
    /// The handler at `at` and its data; where the data ends.
    pub(super) fn handler(&mut self, info: &mut Table<'_>, at: u32) -> Result<u32, Refused> {
        let rva = Rva::new(info.word(at)?);
        let (name, target) = self.handler_function(rva)?;
        info.aim(at, target);
        let (data, has_cookie) =
            known(&name).ok_or_else(|| (Code::HandlerData, format!("the data of {name}")))?;
        let mut end = at + 4;
        match data {
            HandlerData::None => {}
            HandlerData::Scopes => end = self.scopes(info, end)?,
            HandlerData::Cxx(form) => {
                let rva = Rva::new(info.word(end)?);
                let table = self.piece_of(Source::Cxx(CxxTable {
                    form,
                    rva,
                    info: rva,
                }));
                info.aim_at(end, Place::start(table));
                end += 4;
            }
        }
        if has_cookie {
            // EHANDLER and UHANDLER in the lowest bits; the next one says that the frame is aligned.
            end += if info.word(end)? & 4 != 0 { 12 } else { 4 };
        }
        Ok(end)
    }

    /// The name of a handler, imported ones included, and how the patch reaches it.
    fn handler_function(&mut self, rva: Rva<Fixed>) -> Result<(String, Target), Refused> {
        let image = &self.diff.fixed;
        let unknown = || {
            (
                Code::HandlerData,
                format!("a handler at fixed rva {rva} that is no function"),
            )
        };
        let Meaning::Function { id, offset: 0 } = resolve(image, rva) else {
            return Err(unknown());
        };
        let imported = image
            .references_of(id)
            .first()
            .and_then(|reference| image.pe.import_at(reference.reference.target));
        let is_thunk = image.function(id).kind == FunctionKind::Thunk;
        let name = match imported.map(|import| &import.symbol) {
            Some(ImportSymbol::Name(name)) if is_thunk => name.to_string(),
            _ => image
                .procedures_of(id)
                .first()
                .ok_or_else(unknown)?
                .name
                .to_string(),
        };
        let target = self.function_target(id, 0, ReferenceKind::Address)?;
        Ok((name, target))
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
                self.check_continuations()?;
                let place = self.code_place(jump, false)?;
                info.aim_at(scope + 12, place);
            }
        }
        Ok(at + 4 + 16 * count)
    }

    /// Where the base lists the places at which code may go on after an exception, those of the
    /// patch would have to be listed, too.
    pub(super) fn check_continuations(&self) -> Result<(), Refused> {
        // IMAGE_GUARD_EH_CONTINUATION_TABLE_PRESENT.
        const LISTED: u32 = 0x0040_0000;
        let config = self.diff.base.pe.load_config.as_ref();
        if config.is_none_or(|config| config.guard_flags & LISTED == 0) {
            return Ok(());
        }
        let message = "the base has a table of exception continuations (/guard:ehcont), which a \
                       patch does not have";
        Err((Code::HandlerData, message.to_string()))
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
