//! Data that is copied: its bytes, and what its pointers should reach.

use std::ops::Range;

use hpbuild_differ::decode::ReferenceKind;
use hpbuild_differ::image::SwitchTable;
use hpbuild_differ::meaning::{Target as Meaning, is_read_only, relative_entries, resolve};
use hpbuild_metadata::{Fixed, Rva};

use super::constants::alignment;
use super::{Extraction, Source};
use crate::piece::{How, Origin, Piece, PieceId, Place, Reference, Room, Target};
use crate::refusal::Code;

/// More entries than a switch has; a record that claims them is not believed.
const MAX_ENTRIES: u32 = 1 << 16;
/// More bytes than any piece of data a patch should carry.
const MAX_DATA: u32 = 1 << 28;

impl Extraction<'_> {
    /// Makes the piece of data at a place. `lead` bytes will be put in front of it.
    pub(super) fn data(&mut self, rva: Rva<Fixed>, size: u32, lead: u32, piece: PieceId) -> Piece {
        let image = &self.diff.fixed;
        let name = self.name_of(rva);
        let room = if is_read_only(image, rva) {
            Room::ReadOnly
        } else {
            Room::Writable
        };
        let stored = image.pe.bytes_from(rva);
        let mut bytes = stored[..stored.len().min(size as usize)].to_vec();
        if size > MAX_DATA {
            let message = format!("{size:#x} bytes");
            self.refuse(Code::DataNotUnderstood, &name, None, message);
        }
        if let Some(place) = image.runtime.rewritten_in(rva, size) {
            let message = "the C runtime fills it in at the start (a runtime pseudo relocation), and \
                           would not fill in a copy";
            self.refuse(
                Code::DataNotUnderstood,
                &name,
                place.checked_sub(rva),
                message,
            );
        }
        let references = match resolve(image, rva) {
            Meaning::JumpTable(index) => self.table_entries(index, &name).unwrap_or_default(),
            _ => {
                let mut references = self.pointers((rva, size), lead, &name);
                references.extend(self.distances(rva, size, piece, &name));
                references.sort_by_key(|reference| reference.offset);
                references
            }
        };
        // What a section does not store is zero, and what is all zero need not be stored.
        if room == Room::Writable && references.is_empty() && bytes.iter().all(|byte| *byte == 0) {
            bytes.clear();
        }
        let zeros = size.saturating_sub(bytes.len() as u32);
        let align = alignment(image, rva);
        // A slot that the base fills must be aligned even where the compiler packed it.
        let holds_slots = references
            .iter()
            .any(|reference| reference.how == How::Pointer);
        let align = if holds_slots { align.max(8) } else { align };
        Piece {
            name: name.into(),
            origin: Some(Origin { rva, lead: 0 }),
            room,
            align,
            bytes,
            zeros,
            references,
            page_links: Vec::new(),
        }
    }

    /// What to call data.
    pub(super) fn name_of(&self, rva: Rva<Fixed>) -> String {
        let image = &self.diff.fixed;
        match resolve(image, rva) {
            Meaning::Data { id, .. } => image.data_symbol(id).name.to_string(),
            Meaning::JumpTable(_) => format!("jump table at fixed rva {rva}"),
            _ if !is_read_only(image, rva) => format!("variable at fixed rva {rva}"),
            _ => format!("constant at fixed rva {rva}"),
        }
    }

    /// Tables of distances from their own start, which no relocation tells of.
    fn distances(
        &mut self,
        rva: Rva<Fixed>,
        size: u32,
        piece: PieceId,
        name: &str,
    ) -> Vec<Reference> {
        let image = &self.diff.fixed;
        let first = image.relative_tables.partition_point(|table| *table < rva);
        let mut references = Vec::new();
        for table in &image.relative_tables[first..] {
            let start = table.get() - rva.get();
            if start >= size {
                break;
            }
            let Some(entries) = relative_entries(&image.pe, &image.boundaries, *table) else {
                let message = "a table of distances that leaves its section";
                self.refuse(Code::DataNotUnderstood, name, Some(start), message);
                continue;
            };
            let how = How::Difference {
                size: 4,
                signed: true,
                shift: 0,
                from: Place::new(piece, start.into()),
            };
            for (index, entry) in (0..(size - start) / 4).zip(entries) {
                let offset = start + 4 * index;
                match self.distance_target(entry) {
                    Ok(target) => references.push(Reference {
                        offset,
                        how,
                        target,
                    }),
                    Err((rule, message)) => self.refuse(rule, name, Some(offset), message),
                }
            }
        }
        references
    }

    /// What a distance should lead to: code, by thunk where it is the base's, or a constant, which
    /// must then be carried.
    fn distance_target(&mut self, rva: Rva<Fixed>) -> Result<Target, (Code, String)> {
        let image = &self.diff.fixed;
        match resolve(image, rva) {
            Meaning::Function { id, offset } => self.pointer_to_function(id, offset),
            Meaning::Data { id, offset } if is_read_only(image, rva) => {
                let symbol = image.data_symbol(id);
                let piece = self.piece_of(Source::Data(symbol.rva, symbol.size.max(1)));
                Ok(Target::Piece(Place::new(piece, offset.into())))
            }
            Meaning::Anonymous(_) if is_read_only(image, rva) => {
                self.anonymous_target(rva, ReferenceKind::Address)
            }
            _ => Err((
                Code::DataNotUnderstood,
                format!("a distance to fixed rva {rva}, which the patch cannot carry"),
            )),
        }
    }

    /// Copies of data with addresses that nothing tells of would lead astray. Where the address of
    /// the data is taken, words that all lead to places where something is known to start, counted
    /// from the data or from the image, are too many to be chance.
    pub(super) fn check_hidden(&mut self, rva: Rva<Fixed>, size: u32) {
        let image = &self.diff.fixed;
        let end = u64::from(rva.get()) + u64::from(size);
        let first = image.relative_tables.partition_point(|table| *table < rva);
        let is_known = image.relative_tables[first..]
            .first()
            .is_some_and(|table| u64::from(table.get()) < end);
        if is_known || !image.pe.relocations_in(rva, size).is_empty() {
            return;
        }
        let mut words: Vec<i64> = image
            .pe
            .bytes(rva, size)
            .unwrap_or_default()
            .chunks_exact(4)
            .filter_map(|word| word.first_chunk())
            .map(|word| i32::from_le_bytes(*word).into())
            .filter(|word| *word != 0)
            .collect();
        words.sort_unstable();
        words.dedup();
        if words.len() < 2 {
            return;
        }
        let starts = |from: u32| {
            words.iter().all(|word| {
                let target = Rva::new(from).checked_offset(*word);
                target.is_some_and(|target| {
                    target != rva
                        && (image.boundaries.binary_search(&target).is_ok()
                            || image
                                .functions
                                .binary_search_by_key(&target, |f| f.rva)
                                .is_ok())
                })
            })
        };
        if starts(rva.get()) || starts(0) {
            let name = match resolve(image, rva) {
                Meaning::Data { id, .. } => image.data_symbol(id).name.to_string(),
                _ => format!("constant at fixed rva {rva}"),
            };
            let message = "its words look like addresses relative to it or to the image";
            self.refuse(Code::DataNotUnderstood, &name, None, message);
        }
    }

    /// The pointers in a stretch of data, known by their base relocations. `lead` bytes will come
    /// before it in its piece.
    fn pointers(
        &mut self,
        (rva, size): (Rva<Fixed>, u32),
        lead: u32,
        name: &str,
    ) -> Vec<Reference> {
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
        let places = image.pe.relocations_in(rva, size);
        let led_to = |place: &Rva<Fixed>| {
            let word = image.pe.bytes(*place, 8)?.first_chunk()?;
            image.pe.rva_of(u64::from_le_bytes(*word))
        };
        let mut all: Vec<Rva<Fixed>> = places.iter().filter_map(led_to).collect();
        all.sort_unstable();
        let leads_into = |range: Range<Rva<Fixed>>| {
            let first = all.partition_point(|target| *target < range.start);
            all.get(first).is_some_and(|target| *target < range.end)
        };
        for place in places {
            let offset = place.get() - rva.get();
            let target = match led_to(place) {
                // The loader would take one that is not aligned; the table of patches does not.
                Some(_) if !(lead + offset).is_multiple_of(8) => Err((
                    Code::DataNotUnderstood,
                    "a pointer at an offset that is not aligned".to_string(),
                )),
                Some(target) if offset + 8 <= size => self
                    .pointer_to_end(target, leads_into)
                    .unwrap_or_else(|| self.pointer_target(target)),
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
    pub(super) fn pointer_target(&mut self, rva: Rva<Fixed>) -> Result<Target, (Code, String)> {
        let image = &self.diff.fixed;
        match resolve(image, rva) {
            Meaning::Function { id, offset } => self.pointer_to_function(id, offset),
            Meaning::Data { id, offset } => {
                self.data_target(id, offset, ReferenceKind::Address, false)
            }
            Meaning::Anonymous(rva) => self.anonymous_target(rva, ReferenceKind::Address),
            Meaning::ImageBase(offset) => Ok(Target::Base(Rva::new(offset))),
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

    pub(super) fn read_entries(
        &self,
        table: &SwitchTable<Fixed>,
    ) -> Result<Vec<Rva<Fixed>>, String> {
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
                .end_of_owner(table, *rva)
                .or_else(|| self.block(*rva))
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

    /// The place behind the function that jumps through the table, if `rva` is that: compilers let
    /// entries that cannot be reached lead there, and what stands there means nothing.
    fn end_of_owner(&mut self, table: &SwitchTable<Fixed>, rva: Rva<Fixed>) -> Option<Place> {
        let image = &self.diff.fixed;
        let id = image.function_at(table.branch)?;
        let function = image.function(id);
        (rva.checked_sub(function.rva)? == function.size)
            .then(|| Place::new(self.piece_of(Source::Function(id)), function.size.into()))
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
