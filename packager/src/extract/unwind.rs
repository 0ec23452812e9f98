//! Unwind info: copied as it is, with the addresses in it named by meaning.
//!
//! Handlers stay those of the base, reached through thunks. Their data is copied where its layout
//! is known: scope tables, whose ranges and funclets move with the code, and the plain words of
//! the stack cookie check. Anything else is refused, because a missed address would send an
//! exception into the wrong code.

use hpbuild_differ::decode::ReferenceKind;
use hpbuild_differ::meaning::{Target as Meaning, resolve};
use hpbuild_differ::pe::{ImportSymbol, Unwind};
use hpbuild_metadata::{Fixed, FunctionId, Machine, Rva};

use super::function::{Extent, extent};
use super::{Extraction, Source};
use crate::piece::{How, Piece, PieceId, Place, Reference, Room, RuntimeEntry, Target, UnwindOf};
use crate::refusal::Code;

/// More scopes than a function has.
const MAX_SCOPES: u32 = 1 << 12;

/// What is known of a handler's data.
#[derive(Clone, Copy, PartialEq, Eq)]
enum HandlerData {
    /// A count and four addresses each.
    Scopes,
    /// A word, and two more where a bit of it says so.
    Cookie,
    /// Scopes, then a cookie.
    ScopesAndCookie,
}

/// Unwind info under construction.
struct Info {
    rva: Rva<Fixed>,
    bytes: Vec<u8>,
    references: Vec<Reference>,
}

type Read = Result<Info, (Code, String)>;

impl Info {
    fn word(&self, at: u32) -> Option<u32> {
        let at = at as usize;
        self.bytes
            .get(at..at.checked_add(4)?)?
            .first_chunk()
            .map(|word| u32::from_le_bytes(*word))
    }

    fn need(&self, at: u32) -> Result<u32, (Code, String)> {
        self.word(at).ok_or_else(|| {
            (
                Code::UnwindInfo,
                format!("unwind info at fixed rva {} ends early", self.rva),
            )
        })
    }

    fn aim(&mut self, at: u32, target: Target) {
        self.references.push(Reference {
            offset: at,
            how: How::ImageRelative,
            target,
        });
    }
}

impl Extraction<'_> {
    /// The entries of the exception directory for a function.
    pub(super) fn unwind_of(&mut self, id: FunctionId<Fixed>, piece: PieceId, extent: &Extent) {
        let image = &self.diff.fixed;
        let all = &image.pe.runtime_functions;
        let first = all.partition_point(|entry| entry.begin < extent.rva);
        for entry in all[first..]
            .iter()
            .take_while(|entry| extent.offset_of(entry.begin).is_some())
        {
            let begin = entry.begin.get() - extent.rva.get();
            let end = entry.end.get().saturating_sub(extent.rva.get());
            let name = image.display_name(id);
            if end > extent.size || end <= begin {
                self.refuse(
                    Code::UnwindInfo,
                    &name,
                    Some(begin),
                    "its unwind entry reaches beyond it",
                );
                continue;
            }
            let unwind = match entry.unwind {
                Unwind::Info(rva) => UnwindOf::Info(self.piece_of(Source::Unwind(rva))),
                Unwind::Packed(word) => UnwindOf::Packed(word),
                Unwind::Shared(rva) => {
                    self.refuse(
                        Code::UnwindInfo,
                        &name,
                        Some(begin),
                        format!("it shares the unwind entry at fixed rva {rva}"),
                    );
                    continue;
                }
            };
            self.runtime.push(RuntimeEntry {
                code: piece,
                begin,
                end,
                unwind,
            });
        }
    }

    /// Makes the piece of unwind info.
    pub(super) fn unwind_info(&mut self, rva: Rva<Fixed>) -> Piece {
        let name = format!("unwind info at fixed rva {rva}");
        let all = self.diff.fixed.pe.bytes_from(rva);
        let info = Info {
            rva,
            bytes: all.to_vec(),
            references: Vec::new(),
        };
        let read = match self.diff.fixed.pe.machine {
            Machine::X64 => self.x64_info(info),
            Machine::Arm64 => self.arm64_info(info),
        };
        let info = read.unwrap_or_else(|(rule, message)| {
            let named = self.owner_of(rva).unwrap_or_else(|| name.clone());
            self.refuse(rule, &named, None, message);
            Info {
                rva,
                bytes: Vec::new(),
                references: Vec::new(),
            }
        });
        Piece {
            name: name.into(),
            room: Room::Unwind,
            align: 4,
            bytes: info.bytes,
            zeros: 0,
            references: info.references,
            page_links: Vec::new(),
        }
    }

    /// The name of a function that uses the unwind info at `rva`.
    fn owner_of(&self, rva: Rva<Fixed>) -> Option<String> {
        let image = &self.diff.fixed;
        let entry = image
            .pe
            .runtime_functions
            .iter()
            .find(|entry| entry.unwind == Unwind::Info(rva))?;
        Some(image.display_name(image.function_at(entry.begin)?))
    }

    /// UNWIND_INFO: head, codes, then a chain or a handler.
    fn x64_info(&mut self, mut info: Info) -> Read {
        let head = info.need(0)?;
        let (version, flags) = (head & 7, head >> 3 & 31);
        let codes = head >> 16 & 0xff;
        if !(1..=2).contains(&version) || flags > 4 {
            return Err((
                Code::UnwindInfo,
                format!("version {version}, flags {flags}"),
            ));
        }
        let trailer = 4 + 2 * ((codes + 1) & !1);
        let end = match flags {
            0 => trailer,
            4 => {
                let (begin, end, next) = (
                    info.need(trailer)?,
                    info.need(trailer + 4)?,
                    info.need(trailer + 8)?,
                );
                let (begin, end) = (self.code_place(begin, false)?, self.code_place(end, true)?);
                info.aim(trailer, Target::Piece(begin));
                info.aim(trailer + 4, Target::Piece(end));
                let next = self.piece_of(Source::Unwind(Rva::new(next)));
                info.aim(trailer + 8, Target::Piece(Place::start(next)));
                trailer + 12
            }
            _ => self.handler(&mut info, trailer)?,
        };
        info.need(end.saturating_sub(4))?;
        info.bytes.truncate(end as usize);
        Ok(info)
    }

    /// An `.xdata` record: one or two words, epilogue scopes, codes, then a handler.
    fn arm64_info(&mut self, mut info: Info) -> Read {
        let head = info.need(0)?;
        let (version, has_handler, one_epilogue) =
            (head >> 18 & 3, head >> 20 & 1 == 1, head >> 21 & 1 == 1);
        if version != 0 {
            return Err((Code::UnwindInfo, format!("version {version}")));
        }
        let (mut epilogues, mut codes, mut at) = (head >> 22 & 31, head >> 27, 4);
        if epilogues == 0 && codes == 0 {
            let more = info.need(4)?;
            (epilogues, codes, at) = (more & 0xffff, more >> 16 & 0xff, 8);
        }
        if !one_epilogue {
            at += 4 * epilogues;
        }
        let trailer = at + 4 * codes;
        let end = if has_handler {
            self.handler(&mut info, trailer)?
        } else {
            trailer
        };
        info.need(end.saturating_sub(4))?;
        info.bytes.truncate(end as usize);
        Ok(info)
    }

    /// The handler at `at` and its data; where the data ends.
    fn handler(&mut self, info: &mut Info, at: u32) -> Result<u32, (Code, String)> {
        let rva = Rva::new(info.need(at)?);
        let (name, target) = self.handler_function(rva)?;
        info.aim(at, target);
        let data = match &*name {
            "__C_specific_handler" => HandlerData::Scopes,
            "__GSHandlerCheck" => HandlerData::Cookie,
            "__GSHandlerCheck_SEH" => HandlerData::ScopesAndCookie,
            _ => return Err((Code::HandlerData, format!("the data of {name}"))),
        };
        let mut end = at + 4;
        if data != HandlerData::Cookie {
            end = self.scopes(info, end)?;
        }
        if data != HandlerData::Scopes {
            // EHANDLER and UHANDLER in the lowest bits; the next one says that the frame is aligned.
            end += if info.need(end)? & 4 != 0 { 12 } else { 4 };
        }
        Ok(end)
    }

    /// The name of a handler, imported ones included, and how the patch reaches it.
    fn handler_function(&mut self, rva: Rva<Fixed>) -> Result<(String, Target), (Code, String)> {
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
        let is_thunk = image.function(id).kind == hpbuild_differ::image::FunctionKind::Thunk;
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
    fn scopes(&mut self, info: &mut Info, at: u32) -> Result<u32, (Code, String)> {
        let count = info.need(at)?;
        if count > MAX_SCOPES {
            return Err((Code::HandlerData, format!("{count} scopes")));
        }
        for scope in (0..count).map(|index| at + 4 + 16 * index) {
            let (begin, end) = (info.need(scope)?, info.need(scope + 4)?);
            let (filter, jump) = (info.need(scope + 8)?, info.need(scope + 12)?);
            let place = self.code_place(begin, false)?;
            info.aim(scope, Target::Piece(place));
            let place = self.code_place(end, true)?;
            info.aim(scope + 4, Target::Piece(place));
            // 1 stands for "always handled" and is no address.
            if filter > 1 {
                let place = self.code_place(filter, false)?;
                info.aim(scope + 8, Target::Piece(place));
            }
            // A scope without target is a finally block.
            if jump != 0 {
                let place = self.code_place(jump, false)?;
                info.aim(scope + 12, Target::Piece(place));
            }
        }
        Ok(at + 4 + 16 * count)
    }

    /// A place in code that the patch then carries; `is_end` where it may be one past a function.
    fn code_place(&mut self, rva: u32, is_end: bool) -> Result<Place, (Code, String)> {
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
