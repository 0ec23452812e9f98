//! Operands of instructions: what each should reach.

use hpbuild_differ::decode::{
    Field, Reference as Decoded, ReferenceKind, alignment_at, alignment_by_register,
};
use hpbuild_differ::image::Contribution;
use hpbuild_differ::meaning::{
    Fresh, Target as Meaning, anonymous_extent, counted_from, function_behind, is_read_only,
    resolve,
};
use hpbuild_differ::pe::Tls;
use hpbuild_metadata::{Base, DataId, Fixed, Rva};

use super::ends::place_in_base;
use super::function::FunctionWalk;
use super::throw::thrown;
use super::{Extraction, LoaderPointer, Source, unnamed};
use crate::piece::{Place, Target};
use crate::refusal::Code;

/// A pointing operand of an instruction.
#[derive(Clone, Copy)]
pub(super) struct Operand {
    pub(super) offset: u32,
    pub(super) length: u8,
    pub(super) reference: Decoded<Fixed>,
    /// What the image base means in this function.
    pub(super) image_base: Target,
}

pub(super) type Found = Result<Target, (Code, String)>;

impl Extraction<'_> {
    /// What an operand should reach; `None` where the copied bytes are right as they are, and
    /// where it was refused.
    pub(super) fn operand(&mut self, walk: &FunctionWalk<'_>, operand: &Operand) -> Option<Target> {
        let Decoded {
            target,
            kind,
            field,
        } = operand.reference;
        if kind == ReferenceKind::Page {
            return Some(Target::OfUsers);
        }
        let own = walk.extent.offset_of(target);
        let is_distance = is_distance(field);
        let takes_entry = own == Some(0) && kind == ReferenceKind::Address;
        if let (Some(offset), false) = (own, takes_entry) {
            let is_unknown = || !self.is_switch_table(target) && !self.reads_index(walk, operand);
            if matches!(field, Field::ImageRelative { .. }) && is_unknown() {
                // Entries of such a table are addresses relative to the image; copied as they stand
                // they would lead into nowhere.
                let message = "a table between its instructions that no symbol describes";
                self.refuse(Code::JumpTable, walk.name, Some(operand.offset), message);
                return None;
            }
            let place = Target::Piece(Place::new(walk.piece, offset.into()));
            return (!is_distance).then_some(place);
        }
        let found = match kind {
            ReferenceKind::Address => self.address(walk, operand),
            _ => self.target(target, kind, operand),
        };
        let found = found
            .and_then(|found| self.check_index(walk, operand, found))
            .and_then(|found| self.check_alignment(walk, operand, found));
        match found {
            // A pointer of a new function to itself.
            Ok(Target::Piece(place)) if place.piece == walk.piece && is_distance => None,
            Ok(target) => Some(target),
            Err((rule, message)) => {
                let found = format!("{message} (fixed rva {target}, {} bytes)", operand.length);
                self.refuse(rule, walk.name, Some(operand.offset), found);
                None
            }
        }
    }

    /// Refuses an operand whose index may count into something else than what stands at its RVA, unless
    /// that something is where the operand would find it.
    fn check_index(&self, walk: &FunctionWalk<'_>, operand: &Operand, found: Target) -> Found {
        let image = &self.diff.fixed;
        let rva = operand.reference.target;
        let is_there = |table: DataId<Fixed>| {
            let Target::Base(place) = found else {
                return false;
            };
            let distance = image.data_symbol(table).rva.get() - rva.get();
            self.comparer.base_data_of(table).is_some_and(|base| {
                let symbol = self.diff.base.data_symbol(base);
                place.checked_add(distance) == Some(symbol.rva) && self.comparer.data_same(base)
            })
        };
        let mut tables = counted_from(image, walk.id, operand.offset, operand.reference);
        match tables.find(|table| !is_there(*table)) {
            None => Ok(found),
            Some(table) => {
                let name = image.data_symbol(table).display();
                let message = format!("an index that may count into {name}, which lies behind");
                Err((Code::Neighbour, message))
            }
        }
    }

    /// Refuses an operand that must be aligned, or an address from which the function may reach one that
    /// must, where the base has it less aligned than the fixed image.
    fn check_alignment(&self, walk: &FunctionWalk<'_>, operand: &Operand, found: Target) -> Found {
        let Target::Base(place) = found else {
            return Ok(found);
        };
        let image = &self.diff.fixed;
        let rva = operand.reference.target;
        let code = image.code_of(walk.id);
        let most = match operand.reference.kind {
            ReferenceKind::Memory(_) => alignment_at(image.pe.machine, code, operand.offset),
            ReferenceKind::Address => alignment_by_register(image.pe.machine, code),
            _ => 1,
        };
        // Code relies on what the section asks for, and not on where the datum happens to lie.
        let section = image.contribution_at(rva).and_then(Contribution::alignment);
        let most = section.map_or(most, |asked| most.min(asked));
        if !rva.get().is_multiple_of(most) || place.get().is_multiple_of(most) {
            return Ok(found);
        }
        let message = format!(
            "what is aligned to {most} bytes in the fixed image lies at rva {place} of the base"
        );
        Err((Code::Alignment, message))
    }

    /// What an address means by itself: a place in the constants that the function reaches, or else
    /// what stands there.
    pub(super) fn place(&mut self, walk: &FunctionWalk<'_>, operand: &Operand) -> Found {
        match self.place_in_spans(walk, operand) {
            Some(found) => found,
            None => self.target(operand.reference.target, ReferenceKind::Address, operand),
        }
    }

    fn is_switch_table(&self, rva: Rva<Fixed>) -> bool {
        let tables = &self.diff.fixed.switch_tables;
        tables
            .binary_search_by_key(&rva, |table| table.table)
            .is_ok()
    }

    pub(super) fn target(
        &mut self,
        rva: Rva<Fixed>,
        kind: ReferenceKind,
        operand: &Operand,
    ) -> Found {
        if let Some(pointer) = self.loader_pointer(rva) {
            let missing = || {
                (
                    Code::NotInBase,
                    "a guard pointer that the base does not have".to_string(),
                )
            };
            return match pointer {
                LoaderPointer::Mirrored(base) => base.map(Target::BaseValue).ok_or_else(missing),
                LoaderPointer::Cookie(base) => base.map(Target::Base).ok_or_else(missing),
            };
        }
        let image = &self.diff.fixed;
        let index = |tls: &Option<Tls<Fixed>>| tls.as_ref().and_then(|tls| tls.index);
        if index(&image.pe.tls) == Some(rva) {
            return self.thread_local_index();
        }
        let wants_copy = matches!(operand.reference.field, Field::ImageRelative { .. })
            && operand.image_base == Target::PatchImageBase;
        match resolve(image, rva) {
            Meaning::Function { id, offset } => match kind {
                ReferenceKind::Memory(_) => Err((
                    Code::NotUnderstood,
                    format!("data inside {}", image.display_name(id)),
                )),
                ReferenceKind::Address => self.pointer_to_function(id, offset),
                _ => self.function_target(id, offset, kind),
            },
            Meaning::Data { id, offset } => {
                let found = self.data_target(id, offset, kind, wants_copy)?;
                if matches!(found, Target::Base(_)) && kind == ReferenceKind::Address {
                    self.check_neighbours(id)?;
                }
                Ok(found)
            }
            Meaning::Import(index) => self.import(index).ok_or_else(|| {
                let import = &image.pe.imports[index];
                (
                    Code::NotInBase,
                    format!("import {} of {}", import.symbol, import.dll),
                )
            }),
            Meaning::ImageBase(0) => Ok(operand.image_base),
            Meaning::ImageBase(offset)
                if !matches!(operand.reference.field, Field::ImageRelative { .. }) =>
            {
                Ok(Target::Base(Rva::new(offset)))
            }
            Meaning::JumpTable(index) => {
                let table = &image.switch_tables[index];
                let size = u32::from(table.entry.size).checked_mul(table.count);
                let size =
                    size.ok_or_else(|| (Code::JumpTable, "an endless jump table".to_string()))?;
                Ok(Target::Piece(Place::start(
                    self.piece_of(Source::Data(table.table, size)),
                )))
            }
            Meaning::Anonymous(rva) => self.anonymous_target(rva, kind),
            Meaning::ImageBase(_) | Meaning::Outside => Err((
                Code::NotUnderstood,
                "an address outside every section".into(),
            )),
        }
    }

    /// The index of the base's thread-local storage. What the code adds to a thread's block is right
    /// where the blocks of both images are laid out alike.
    fn thread_local_index(&self) -> Found {
        let differs = |message: String| (Code::ThreadLocal, message);
        if let Some(change) = self.comparer.thread_local_changes().into_iter().next() {
            let message = format!("thread-local storage differs: {}", change.evidence);
            return Err(differs(message));
        }
        let index = self.diff.base.pe.tls.as_ref().and_then(|tls| tls.index);
        index
            .map(Target::Base)
            .ok_or_else(|| differs("the base has no thread-local storage".to_owned()))
    }

    /// Named data: the base's where it has it unchanged, a copy otherwise.
    pub(super) fn data_target(
        &mut self,
        id: DataId<Fixed>,
        offset: u32,
        kind: ReferenceKind,
        wants_copy: bool,
    ) -> Found {
        let image = &self.diff.fixed;
        let symbol = image.data_symbol(id);
        if symbol.thread_local {
            return Err((
                Code::ThreadLocal,
                format!("the thread-local variable {}", symbol.display()),
            ));
        }
        let constant = is_read_only(image, symbol.rva);
        let copy = |this: &mut Self| {
            if constant && kind == ReferenceKind::Address && thrown(&symbol.name).is_none() {
                this.check_hidden(symbol.rva, symbol.size);
            }
            let source = match thrown(&symbol.name).filter(|_| constant) {
                Some(what) => Source::Thrown(symbol.rva, what),
                None => Source::Data(symbol.rva, symbol.size.max(1)),
            };
            let piece = this.piece_of(source);
            Ok(Target::Piece(Place::new(piece, offset.into())))
        };
        let Some(base) = self.comparer.base_data_of(id) else {
            return copy(self);
        };
        if constant && !self.comparer.data_same(base) {
            return copy(self);
        }
        // Those of the base lead into the function that is replaced.
        if constant && self.has_labels(symbol.rva, symbol.size) {
            return copy(self);
        }
        // A constant read in place costs a stub less when it is copied.
        let reads_in_place = matches!(kind, ReferenceKind::Memory(_)) || wants_copy;
        let has_pointers = !image.pe.relocations_in(symbol.rva, symbol.size).is_empty();
        if constant
            && reads_in_place
            && !has_pointers
            && image.pe.bytes(symbol.rva, symbol.size).is_some()
        {
            return copy(self);
        }
        let counterpart = self.diff.base.data_symbol(base);
        if offset >= counterpart.size.max(1) {
            return Err((
                Code::Neighbour,
                format!(
                    "{}+{offset:#x} lies outside it in the base",
                    symbol.display()
                ),
            ));
        }
        place_in_base(counterpart.rva, offset)
    }

    /// Whether data has addresses within functions that are replaced: labels, which are the patch's
    /// own.
    fn has_labels(&self, rva: Rva<Fixed>, size: u32) -> bool {
        let image = &self.diff.fixed;
        image.pe.relocations_in(rva, size).iter().any(|place| {
            let word = image.pe.bytes(*place, 8).and_then(|it| it.first_chunk());
            let target = word.and_then(|it| image.pe.rva_of(u64::from_le_bytes(*it)));
            match target.map(|target| resolve(image, target)) {
                Some(Meaning::Function { id, offset }) => {
                    offset != 0 && self.replaced.contains_key(&id)
                }
                _ => false,
            }
        })
    }

    /// Where a compiler merges globals, code that has the address of one reaches its neighbours.
    /// What one compiland gave to the section must then lie the same in both images.
    fn check_neighbours(&self, id: DataId<Fixed>) -> Result<(), (Code, String)> {
        let (fixed_image, base_image) = (&self.diff.fixed, &self.diff.base);
        let symbol = fixed_image.data_symbol(id);
        let base = self.comparer.base_data_of(id);
        let Some(base) = base.filter(|_| !is_read_only(fixed_image, symbol.rva)) else {
            return Ok(());
        };
        let merges = fixed_image.pe.machine == hpbuild_metadata::Machine::Arm64;
        let Some(contribution) = fixed_image.contribution_at(symbol.rva).filter(|_| merges) else {
            return Ok(());
        };
        let end = contribution.rva.get().saturating_add(contribution.size);
        let shift = i64::from(base_image.data_symbol(base).rva.get()) - i64::from(symbol.rva.get());
        let first = fixed_image
            .data
            .partition_point(|data| data.rva < contribution.rva);
        let neighbours = fixed_image.data[first..]
            .iter()
            .enumerate()
            .take_while(|(_, data)| data.rva.get() < end);
        for (index, neighbour) in neighbours {
            // Static data alone is merged.
            if neighbour.global {
                continue;
            }
            let partner = self.diff.pairing.base_data(DataId::new(first + index));
            let moved = partner.map(|partner| {
                i64::from(base_image.data_symbol(partner).rva.get())
                    - i64::from(neighbour.rva.get())
            });
            if moved != Some(shift) {
                return Err((
                    Code::Neighbour,
                    format!(
                        "{} and {} lie differently in the base",
                        symbol.display(),
                        neighbour.display()
                    ),
                ));
            }
        }
        Ok(())
    }

    /// An address that lies a few bytes before a function of the base: compilers join it with the small
    /// numbers that code compares it with. Both images have the same bytes there, in case they are
    /// constants after all.
    fn before_function(&mut self, rva: Rva<Fixed>, kind: ReferenceKind) -> Option<Rva<Base>> {
        let image = &self.diff.fixed;
        let is_address = kind == ReferenceKind::Address;
        let (id, distance) = function_behind(image, rva).filter(|_| is_address)?;
        let Ok(Target::Base(entry)) = self.pointer_to_function(id, 0) else {
            return None;
        };
        let place = Rva::new(entry.get().checked_sub(distance)?);
        let base = &self.diff.base;
        let bytes = image.pe.bytes(rva, distance)?;
        let is_same = base.pe.bytes(place, distance) == Some(bytes);
        (is_same && base.function_at(place).is_none()).then_some(place)
    }

    /// Data without a name: constants are copied, writable data is where unchanged code has it.
    pub(super) fn anonymous_target(&mut self, rva: Rva<Fixed>, kind: ReferenceKind) -> Found {
        let image = &self.diff.fixed;
        let in_code = image
            .pe
            .section_at(rva)
            .is_some_and(|section| section.is_code());
        if is_read_only(image, rva) {
            if in_code && !matches!(kind, ReferenceKind::Memory(1..)) {
                let found = self.before_function(rva, kind).map(Target::Base);
                let between = || (Code::NotUnderstood, "a place between functions".into());
                return found.ok_or_else(between);
            }
            if kind == ReferenceKind::Address {
                return self.constants_at(rva);
            }
            let extent = anonymous_extent(image, rva, kind).filter(|extent| extent.size > 0);
            let extent = extent.ok_or_else(|| {
                (
                    Code::NotUnderstood,
                    "a constant of unknown extent".to_string(),
                )
            })?;
            return Ok(Target::Piece(Place::start(
                self.piece_of(Source::Data(rva, extent.size)),
            )));
        }
        let unnamed = self
            .unnamed
            .get_or_init(|| unnamed::unnamed(self.diff, &self.comparer));
        let known = unnamed.get(&rva).copied();
        if let Some(Some(known)) = known {
            return Ok(Target::Base(known));
        }
        let fresh = self.fresh.get_or_init(|| Fresh::new(&self.comparer));
        if let (None, Some((start, size))) = (known, fresh.stretch(rva)) {
            let piece = self.piece_of(Source::Data(start, size));
            let offset = i64::from(rva.get()) - i64::from(start.get());
            return Ok(Target::Piece(Place::new(piece, offset)));
        }
        let message = "writable data without a name, which unchanged code does not reach: a guard, a flag, \
                       or a part of a static structure that the optimiser took apart, which the base may \
                       have";
        Err((Code::NotUnderstood, message.to_string()))
    }
}

/// Whether the field holds a distance, which stays right when a function is moved as a whole.
fn is_distance(field: Field) -> bool {
    match field {
        Field::Relative { .. } => true,
        // `adrp` and page offsets depend on where the code lies; branches, `adr` and literal loads
        // do not.
        Field::Word { mask } => mask != 0x003f_fc00,
        Field::ImageRelative { .. } | Field::Absolute { .. } => false,
    }
}
