//! Unwind info: copied as it is, with the addresses in it named by meaning.

use hpbuild_differ::pe::Unwind;
use hpbuild_metadata::{Fixed, FunctionId, Machine, Rva};

use super::function::Extent;
use super::table::{Refused, Table};
use super::{Extraction, Source};
use crate::piece::{Piece, PieceId, Place, Room, RuntimeEntry, UnwindOf};
use crate::refusal::Code;

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
        let mut info = Table::new(rva, self.diff.fixed.pe.bytes_from(rva));
        let read = self.read_info(&mut info);
        let made = read.and_then(|()| info.into_piece(&name, Room::Unwind, 4));
        made.unwrap_or_else(|(rule, message)| {
            let named = self.owner_of(rva).unwrap_or_else(|| name.clone());
            self.refuse(rule, &named, None, message);
            Piece::placeholder(&name, Room::Unwind)
        })
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

    /// Reads unwind info up to where it ends: codes, then a chain or a handler with its data.
    fn read_info(&mut self, info: &mut Table<'_>) -> Result<(), Refused> {
        let machine = self.diff.fixed.pe.machine;
        let trailer = trailer(machine, info)?;
        let end = match trailer {
            Trailer::None { end } => end,
            Trailer::Handler { at } => self.handler(info, at)?,
            Trailer::Chain { at } => {
                let (begin, end) = (info.word(at)?, info.word(at + 4)?);
                let next = Rva::new(info.word(at + 8)?);
                let place = self.code_place(begin, false)?;
                info.aim_at(at, place);
                let place = self.code_place(end, true)?;
                info.aim_at(at + 4, place);
                let next = self.piece_of(Source::Unwind(next));
                info.aim_at(at + 8, Place::start(next));
                at + 12
            }
        };
        info.skip_to(end);
        Ok(())
    }
}

/// What stands behind the unwind codes.
enum Trailer {
    None {
        end: u32,
    },
    /// A handler's address, and its data.
    Handler {
        at: u32,
    },
    /// An entry of the exception directory.
    Chain {
        at: u32,
    },
}

/// Where the address of the handler stands in unwind info, from its start, if it names one.
pub(super) fn handler_offset(machine: Machine, info: &Table<'_>) -> Result<Option<u32>, Refused> {
    Ok(match trailer(machine, info)? {
        Trailer::Handler { at } => Some(at),
        Trailer::None { .. } | Trailer::Chain { .. } => None,
    })
}

fn trailer(machine: Machine, info: &Table<'_>) -> Result<Trailer, Refused> {
    match machine {
        Machine::X64 => x64_trailer(info),
        Machine::Arm64 => arm64_trailer(info),
    }
}

/// `UNWIND_INFO`: head, codes, then a chain or a handler.
fn x64_trailer(info: &Table<'_>) -> Result<Trailer, Refused> {
    let head = info.word(0)?;
    let (version, flags) = (head & 7, head >> 3 & 31);
    let codes = head >> 16 & 0xff;
    if !(1..=2).contains(&version) || flags > 4 {
        let message = format!("version {version}, flags {flags}");
        return Err((Code::UnwindInfo, message));
    }
    let at = 4 + 2 * ((codes + 1) & !1);
    Ok(match flags {
        0 => Trailer::None { end: at },
        4 => Trailer::Chain { at },
        _ => Trailer::Handler { at },
    })
}

/// An `.xdata` record: one or two words, epilogue scopes, codes, then a handler.
fn arm64_trailer(info: &Table<'_>) -> Result<Trailer, Refused> {
    let head = info.word(0)?;
    let (version, has_handler, one_epilogue) =
        (head >> 18 & 3, head >> 20 & 1 == 1, head >> 21 & 1 == 1);
    if version != 0 {
        return Err((Code::UnwindInfo, format!("version {version}")));
    }
    let (mut epilogues, mut codes, mut at) = (head >> 22 & 31, head >> 27, 4);
    if epilogues == 0 && codes == 0 {
        let more = info.word(4)?;
        (epilogues, codes, at) = (more & 0xffff, more >> 16 & 0xff, 8);
    }
    if !one_epilogue {
        at += 4 * epilogues;
    }
    let at = at + 4 * codes;
    Ok(if has_handler {
        Trailer::Handler { at }
    } else {
        Trailer::None { end: at }
    })
}
