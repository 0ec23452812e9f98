//! Data that is copied: its bytes, and what its pointers should reach.

use hpbuild_differ::decode::ReferenceKind;
use hpbuild_differ::image::SwitchTable;
use hpbuild_differ::meaning::{Target as Meaning, is_read_only, resolve};
use hpbuild_metadata::{Fixed, Rva};

use super::{Extraction, Source};
use crate::piece::{How, Piece, Place, Reference, Room, Target};
use crate::refusal::Code;

/// The strictest alignment that vector instructions ask for.
const MAX_ALIGN: u32 = 64;
/// More entries than a switch has; a record that claims them is not believed.
const MAX_ENTRIES: u32 = 1 << 16;
/// More bytes than any piece of data a patch should carry.
const MAX_DATA: u32 = 1 << 28;

impl Extraction<'_> {
    /// Makes the piece of data at a place.
    pub(super) fn data(&mut self, rva: Rva<Fixed>, size: u32) -> Piece {
        let image = &self.diff.fixed;
        let name = match resolve(image, rva) {
            Meaning::Data { id, .. } => image.data_symbol(id).name.to_string(),
            Meaning::JumpTable(_) => format!("jump table at fixed rva {rva}"),
            _ => format!("constant at fixed rva {rva}"),
        };
        let room = if is_read_only(image, rva) {
            Room::ReadOnly
        } else {
            Room::Writable
        };
        let bytes = image.pe.bytes_from(rva);
        let mut bytes = bytes[..bytes.len().min(size as usize)].to_vec();
        // What a section does not store is zero, and what ends in zeros need not be stored.
        let zeros = size - bytes.len() as u32;
        if size > MAX_DATA {
            self.refuse(
                Code::DataNotUnderstood,
                &name,
                None,
                format!("{size:#x} bytes"),
            );
        }
        if bytes.iter().all(|byte| *byte == 0)
            && room == Room::Writable
            && image.pe.relocations_in(rva, size).is_empty()
        {
            bytes.clear();
        }
        let zeros = if bytes.is_empty() { size } else { zeros };
        let references = match resolve(image, rva) {
            Meaning::JumpTable(index) => self.table_entries(index, &name).unwrap_or_default(),
            _ => self.pointers(rva, size, &name),
        };
        let align = 1_u32 << rva.get().trailing_zeros().min(MAX_ALIGN.trailing_zeros());
        // A slot that the base fills must be aligned even where the compiler packed it.
        let align = if references.is_empty() {
            align
        } else {
            align.max(8)
        };
        Piece {
            name: name.into(),
            room,
            align,
            bytes,
            zeros,
            references,
            page_links: Vec::new(),
        }
    }

    /// The pointers in a stretch of data, known by their base relocations.
    fn pointers(&mut self, rva: Rva<Fixed>, size: u32, name: &str) -> Vec<Reference> {
        let image = &self.diff.fixed;
        if let Some(kind) = holds_image_relative(name) {
            self.refuse(
                Code::DataNotUnderstood,
                name,
                None,
                format!("{kind} holds addresses relative to the image"),
            );
        }
        let mut references = Vec::new();
        for place in image.pe.relocations_in(rva, size) {
            let offset = place.get() - rva.get();
            let value = image
                .pe
                .bytes(*place, 8)
                .and_then(|bytes| bytes.try_into().ok())
                .map(u64::from_le_bytes);
            let target = match value.and_then(|value| image.pe.rva_of(value)) {
                Some(target) if offset + 8 <= size => self.pointer_target(target),
                _ => Err((
                    Code::DataNotUnderstood,
                    "a pointer that leads outside the image".to_string(),
                )),
            };
            match target {
                Ok(target) => references.push(Reference {
                    offset,
                    how: How::Pointer,
                    target,
                }),
                Err((rule, message)) => self.refuse(rule, name, Some(offset), message),
            }
        }
        references
    }

    /// What a pointer in data should hold.
    fn pointer_target(&mut self, rva: Rva<Fixed>) -> Result<Target, (Code, String)> {
        let image = &self.diff.fixed;
        match resolve(image, rva) {
            Meaning::Function { id, offset } => {
                self.function_target(id, offset, ReferenceKind::Address)
            }
            Meaning::Data { id, offset } => {
                self.data_target(id, offset, ReferenceKind::Address, false)
            }
            Meaning::Anonymous(rva) => self.anonymous_target(rva, ReferenceKind::Address),
            Meaning::ImageBase => Ok(Target::Base(Rva::new(0))),
            Meaning::Import(index) => match self.import(index) {
                Some(Target::Import(index)) => Ok(Target::Base(self.imports[index as usize].slot)),
                _ => Err((
                    Code::NotInBase,
                    "a pointer to an import that the base does not have".into(),
                )),
            },
            Meaning::JumpTable(_) | Meaning::Outside => {
                Err((Code::NotUnderstood, format!("a pointer to fixed rva {rva}")))
            }
        }
    }

    /// The entries of a jump table as references, with offsets from the start of the table.
    pub(super) fn table_entries(&mut self, index: usize, name: &str) -> Option<Vec<Reference>> {
        let table = self.diff.fixed.switch_tables[index];
        let entries = self
            .read_entries(&table)
            .and_then(|targets| self.aim_entries(&table, &targets));
        match entries {
            Ok(entries) => Some(entries),
            Err(message) => {
                self.refuse(Code::JumpTable, name, None, message);
                None
            }
        }
    }

    fn read_entries(&self, table: &SwitchTable<Fixed>) -> Result<Vec<Rva<Fixed>>, String> {
        let image = &self.diff.fixed;
        let size = u32::from(table.entry.size);
        if !matches!(size, 1 | 2 | 4 | 8) || table.count > MAX_ENTRIES {
            return Err(format!("{} entries of {size} bytes", table.count));
        }
        let bytes = image
            .pe
            .bytes(table.table, size * table.count)
            .ok_or("a table outside its section")?;
        let entry = |bytes: &[u8]| {
            let mut word = [0; 8];
            word[..bytes.len()].copy_from_slice(bytes);
            let raw = u64::from_le_bytes(word);
            if table.entry.absolute {
                return image.pe.rva_of(raw);
            }
            let spare = 64 - 8 * size;
            let value = if table.entry.signed {
                (raw << spare).cast_signed() >> spare
            } else {
                raw.cast_signed()
            };
            let distance = value.checked_mul(1_i64.checked_shl(table.entry.shift.into())?)?;
            table.base.checked_offset(distance)
        };
        let entries: Option<Vec<_>> = bytes.chunks_exact(size as usize).map(entry).collect();
        entries.ok_or_else(|| "an entry that leads outside the image".to_string())
    }

    fn aim_entries(
        &mut self,
        table: &SwitchTable<Fixed>,
        targets: &[Rva<Fixed>],
    ) -> Result<Vec<Reference>, String> {
        let how = match (table.entry.absolute, table.base.get()) {
            (true, _) => How::Pointer,
            (false, 0) if table.entry.size == 4 && table.entry.shift == 0 => How::ImageRelative,
            (false, 0) => return Err("entries relative to the image in an unknown form".into()),
            (false, _) => {
                let from = self.table_base(table)?;
                How::Difference {
                    size: table.entry.size,
                    signed: table.entry.signed,
                    shift: table.entry.shift,
                    from,
                }
            }
        };
        let mut references = Vec::new();
        for (index, rva) in (0..).zip(targets) {
            let target = self
                .block(*rva)
                .ok_or_else(|| format!("entry {index} leads to fixed rva {rva}"))?;
            references.push(Reference {
                offset: index * u32::from(table.entry.size),
                how,
                target: Target::Piece(target),
            });
        }
        Ok(references)
    }

    /// What the entries of a table are counted from: the table itself, or a place in code.
    fn table_base(&mut self, table: &SwitchTable<Fixed>) -> Result<Place, String> {
        if table.base == table.table && self.block(table.table).is_none() {
            let size = u32::from(table.entry.size) * table.count;
            return Ok(Place::start(self.piece_of(Source::Data(table.table, size))));
        }
        self.block(table.base)
            .ok_or_else(|| format!("entries counted from fixed rva {}", table.base))
    }

    /// A place in a function, which the patch then carries.
    fn block(&mut self, rva: Rva<Fixed>) -> Option<Place> {
        let image = &self.diff.fixed;
        let id = image.function_at(rva)?;
        let offset = rva.checked_sub(image.function(id).rva)?;
        Some(Place::new(
            self.piece_of(Source::Function(id)),
            offset.into(),
        ))
    }
}

/// Data in which compilers hide four-byte addresses that nothing else tells of: type descriptors
/// and throw descriptions of C++.
fn holds_image_relative(name: &str) -> Option<&'static str> {
    let starts = |prefix: &str| name.starts_with(prefix);
    if ["??_R1", "??_R2", "??_R3", "??_R4"].into_iter().any(starts) || name.contains("RTTI ") {
        return Some("run-time type information");
    }
    (["_TI", "_CTA", "_CT?"].into_iter().any(starts)).then_some("a throw description")
}
