//! The tables of the C++ frame handlers: where code is in which state, what a state undoes, and
//! what is caught.
//!
//! They are copied entry by entry. Code they name (funclets and ranges) comes with them, as do the
//! type descriptors that handlers are matched by: the C++ runtime takes two of one name for one
//! type. Destructors stay those of the base, reached through thunks. Layouts: `ehdata.h` and
//! `ehdata4_export.h` of the C++ runtime's published headers, and LLVM's `WinException.cpp`.

mod packed;
mod words;

use hpbuild_differ::decode::ReferenceKind;
use hpbuild_differ::meaning::{Target as Meaning, resolve};
use hpbuild_differ::pe::Unwind;
use hpbuild_metadata::{Fixed, FunctionId, Rva};

use super::function::extent;
use super::table::{Refused, Table};
use super::{Extraction, Source};
use crate::piece::{How, Piece, Place, Room};
use crate::refusal::Code;

/// More entries than a table has.
const MAX_ENTRIES: u32 = 1 << 16;
/// Longer than any name of a type.
const MAX_TYPE: u32 = 1 << 16;

/// A table of a function's exception data.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct CxxTable {
    pub(super) form: Form,
    pub(super) rva: Rva<Fixed>,
    /// The `FuncInfo` or `FuncInfo4` it belongs to, by which its functions are found.
    pub(super) info: Rva<Fixed>,
}

/// What a table holds. Numbered as the handlers are: 3 for words, 4 for packed numbers.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Form {
    Info3,
    Cleanups3 {
        count: u32,
    },
    Tries3 {
        count: u32,
    },
    Catches3 {
        count: u32,
    },
    Places3 {
        count: u32,
    },
    Info4,
    Cleanups4,
    Tries4,
    Catches4,
    /// A [`Form::Places4`] for each part of code that was parted.
    Parts4,
    Places4,
}

impl Extraction<'_> {
    /// Makes the piece of a table.
    pub(super) fn cxx(&mut self, source: CxxTable) -> Piece {
        let image = &self.diff.fixed;
        let mut table = Table::new(source.rva, image.pe.bytes_from(source.rva));
        let read = match source.form {
            Form::Info3 => self.info3(&mut table, source),
            Form::Cleanups3 { count } => self.cleanups3(&mut table, count),
            Form::Tries3 { count } => self.tries3(&mut table, source, count),
            Form::Catches3 { count } => self.catches3(&mut table, count),
            Form::Places3 { count } => self.places3(&mut table, source, count),
            Form::Info4 => self.info4(&mut table, source),
            Form::Cleanups4 => self.cleanups4(&mut table),
            Form::Tries4 => self.tries4(&mut table, source),
            Form::Catches4 => self.catches4(&mut table),
            Form::Parts4 => self.parts4(&mut table, source),
            Form::Places4 => packed::places4(&mut table),
        };
        let name = format!("exception data at fixed rva {}", source.rva);
        let made = read.and_then(|()| table.into_piece(&name, Room::Unwind, 4));
        made.unwrap_or_else(|(rule, message)| {
            let owner = self.users_of(source.info).first().copied();
            let owner = owner.map_or_else(|| name.clone(), |id| image.display_name(id));
            self.refuse(rule, &owner, None, message);
            Piece::placeholder(&name, Room::Unwind)
        })
    }

    /// The functions whose handlers are given the data at `info`: a function and, with
    /// `__CxxFrameHandler3`, its funclets.
    fn users_of(&self, info: Rva<Fixed>) -> Vec<FunctionId<Fixed>> {
        let image = &self.diff.fixed;
        let uses = |place: Rva<Fixed>| {
            let table = Table::new(place, image.pe.bytes_from(place));
            let handler = super::unwind::handler_offset(image.pe.machine, &table);
            matches!(handler, Ok(Some(at)) if table.word(at + 4) == Ok(info.get()))
        };
        let entries = image.pe.runtime_functions.iter();
        entries
            .filter(|entry| matches!(entry.unwind, Unwind::Info(place) if uses(place)))
            .filter_map(|entry| image.function_at(entry.begin))
            .collect()
    }

    /// Makes the next address, if it is one, reach a table of the same function.
    fn aim_table(
        &mut self,
        table: &mut Table<'_>,
        form: Form,
        from: CxxTable,
    ) -> Result<(), Refused> {
        if let (at, Some(rva)) = table.next_address()? {
            let source = CxxTable {
                form,
                rva: Rva::new(rva),
                ..from
            };
            let piece = self.piece_of(Source::Cxx(source));
            table.aim_at(at, Place::start(piece));
        }
        Ok(())
    }

    /// Makes the next address, if it is one, reach the patch's copy of a place in code.
    fn aim_code(&mut self, table: &mut Table<'_>) -> Result<(), Refused> {
        if let (at, Some(rva)) = table.next_address()? {
            let place = self.code_place(rva, false)?;
            table.aim_at(at, place);
        }
        Ok(())
    }

    /// Makes the next address, if it is one, reach the patch's copy of a type descriptor.
    pub(super) fn aim_type(&mut self, table: &mut Table<'_>) -> Result<(), Refused> {
        if let (at, Some(rva)) = table.next_address()? {
            let piece = self.piece_of(Source::Type(Rva::new(rva)));
            table.aim_at(at, Place::start(piece));
        }
        Ok(())
    }

    /// A place in one of some functions, or behind one of them.
    fn place_in(&mut self, functions: &[FunctionId<Fixed>], rva: Rva<Fixed>) -> Option<Place> {
        let image = &self.diff.fixed;
        let inside = functions
            .iter()
            .find_map(|id| Some((*id, extent(image, *id).offset_of(rva)?)));
        let behind = || {
            functions.iter().find_map(|id| {
                let extent = extent(image, *id);
                (rva.checked_sub(extent.rva)? == extent.size).then_some((*id, extent.size))
            })
        };
        let (id, offset) = inside.or_else(behind)?;
        Some(Place::new(
            self.piece_of(Source::Function(id)),
            offset.into(),
        ))
    }

    /// Makes the next address, if it is one, reach a function like any other: the base's, unless it
    /// is new. Destructors and copy constructors are.
    pub(super) fn aim_function(&mut self, table: &mut Table<'_>) -> Result<(), Refused> {
        let (at, Some(rva)) = table.next_address()? else {
            return Ok(());
        };
        let Meaning::Function { id, offset: 0 } = resolve(&self.diff.fixed, Rva::new(rva)) else {
            let message = format!(
                "a destructor or copy constructor at fixed rva {rva:#x}, which is no function"
            );
            return Err((Code::HandlerData, message));
        };
        let target = self.function_target(id, 0, ReferenceKind::Address)?;
        table.aim(at, target);
        Ok(())
    }

    /// Makes the piece of a type descriptor: a pointer to the virtual functions of `type_info`, a
    /// word that the runtime fills, and the name.
    pub(super) fn type_descriptor(&mut self, rva: Rva<Fixed>) -> Piece {
        let name = match resolve(&self.diff.fixed, rva) {
            Meaning::Data { id, .. } => self.diff.fixed.data_symbol(id).name.to_string(),
            _ => format!("type descriptor at fixed rva {rva}"),
        };
        let mut table = Table::new(rva, self.diff.fixed.pe.bytes_from(rva));
        let read = self.read_type(&mut table, rva);
        let made = read.and_then(|()| table.into_piece(&name, Room::Writable, 8));
        made.unwrap_or_else(|(rule, message)| {
            self.refuse(rule, &name, None, message);
            Piece::placeholder(&name, Room::Writable)
        })
    }

    fn read_type(&mut self, table: &mut Table<'_>, rva: Rva<Fixed>) -> Result<(), Refused> {
        let wrong = |found: &str| (Code::HandlerData, format!("{found} in a type descriptor"));
        let pe = &self.diff.fixed.pe;
        let words = [table.next_word()?, table.next_word()?];
        let pointer = u64::from(words[0]) | u64::from(words[1]) << 32;
        let functions = pe
            .rva_of(pointer)
            .filter(|_| pe.relocations_in(rva, 16) == [rva]);
        let functions = functions.ok_or_else(|| wrong("no pointer to virtual functions"))?;
        if table.next_word()? != 0 || table.next_word()? != 0 {
            return Err(wrong("a value where the runtime keeps its own"));
        }
        if table.next_byte()? != b'.' {
            return Err(wrong("no name"));
        }
        while table.next_byte()? != 0 {
            if table.size() > MAX_TYPE {
                return Err(wrong("an endless name"));
            }
        }
        let target = self.pointer_target(functions)?;
        table.refer(0, How::Pointer, target);
        Ok(())
    }
}

fn bounded(count: u32) -> Result<u32, Refused> {
    if count > MAX_ENTRIES {
        let message = format!("exception data with {count} entries");
        return Err((Code::HandlerData, message));
    }
    Ok(count)
}
