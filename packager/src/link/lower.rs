//! References that leave the patch become references inside it: to thunks, slots and stubs that
//! are added as further pieces.
//!
//! Afterwards no reference needs the base any more; what connects the two images is the list of
//! [`SlotAttach`]es. A slot is shared by everything that needs the same address of the base.

use hpbuild_differ::decode::Field;
use hpbuild_metadata::{Base, Machine, Rva};
use rustc_hash::FxHashMap;

use super::imports;
use super::{arm64, x64};
use crate::piece::{How, Parts, Piece, PieceId, Place, Reference, Room, RuntimeEntry, Target};
use crate::refusal::{Code, Refusal};

/// What a slot receives from the base.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fill {
    /// The address of the place.
    Absolute,
    /// The pointer stored at the place.
    Indirect,
}

/// Eight bytes of the patch that the base fills.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SlotAttach {
    /// The slot.
    pub(crate) place: Place,
    /// The place in the base.
    pub(crate) base: Rva<Base>,
    /// What the slot receives.
    pub(crate) fill: Fill,
}

/// The pieces with nothing left that leaves the patch.
pub(crate) struct Lowered {
    pub(crate) pieces: Vec<Piece>,
    pub(crate) runtime: Vec<RuntimeEntry>,
    pub(crate) attaches: Vec<SlotAttach>,
    /// Pieces of code in the order they are laid out: thunks, then each function with its stubs.
    pub(crate) code_order: Vec<PieceId>,
    /// Import directory and address table, where there are imports.
    pub(crate) imports: Option<imports::ImportPieces>,
}

/// Something eight bytes long that code loads.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum SlotKey {
    Base(Fill, Rva<Base>),
    Patch(Place),
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum ThunkKey {
    /// Goes on at this place of the base.
    To(Rva<Base>),
    /// Goes on at the place that this pointer of the base holds.
    Through(Rva<Base>),
}

pub(super) struct Lowering<'a> {
    pub(super) parts: &'a Parts,
    pub(super) pieces: Vec<Piece>,
    pub(super) runtime: Vec<RuntimeEntry>,
    pub(super) refusals: Vec<Refusal>,
    attaches: Vec<SlotAttach>,
    slots: PieceId,
    slot_offsets: FxHashMap<SlotKey, u32>,
    thunks: FxHashMap<ThunkKey, PieceId>,
    thunk_order: Vec<PieceId>,
    stubs: Vec<(PieceId, PieceId)>,
    import_places: Vec<Option<Place>>,
}

/// Lowers every piece, or says for each reference that cannot be why.
pub(super) fn lower(parts: &Parts) -> Result<Lowered, Vec<Refusal>> {
    let mut lowering = Lowering::new(parts);
    let imports = imports::imports(parts, &mut lowering.pieces);
    if let Some(imports) = &imports {
        for &(index, place) in &imports.slots {
            lowering.import_places[index as usize] = Some(place);
            let base = parts.imports[index as usize].slot;
            lowering.attaches.push(SlotAttach {
                place,
                base,
                fill: Fill::Indirect,
            });
        }
    }
    for index in 0..parts.pieces.len() {
        let id = PieceId(index as u32);
        match (parts.piece(id).room, parts.machine) {
            (Room::Code, Machine::X64) => x64::lower_code(&mut lowering, id),
            (Room::Code, Machine::Arm64) => arm64::lower_code(&mut lowering, id),
            _ => lowering.lower_data(id),
        }
    }
    lowering.finish(imports)
}

impl<'a> Lowering<'a> {
    fn new(parts: &'a Parts) -> Self {
        let mut pieces = parts.pieces.clone();
        let slots = PieceId(pieces.len() as u32);
        pieces.push(new_piece(
            "slots",
            Room::ReadOnly,
            8,
            Vec::new(),
            Vec::new(),
        ));
        Self {
            parts,
            pieces,
            runtime: parts.runtime.clone(),
            refusals: Vec::new(),
            attaches: Vec::new(),
            slots,
            slot_offsets: FxHashMap::default(),
            thunks: FxHashMap::default(),
            thunk_order: Vec::new(),
            stubs: Vec::new(),
            import_places: vec![None; parts.imports.len()],
        }
    }

    fn finish(mut self, imports: Option<imports::ImportPieces>) -> Result<Lowered, Vec<Refusal>> {
        if !self.refusals.is_empty() {
            self.refusals.sort();
            return Err(self.refusals);
        }
        let mut code_order = self.thunk_order;
        self.stubs.sort();
        for id in self.parts.code.iter().copied() {
            code_order.push(id);
            let first = self.stubs.partition_point(|(parent, _)| *parent < id);
            code_order.extend(
                self.stubs[first..]
                    .iter()
                    .take_while(|(parent, _)| *parent == id)
                    .map(|(_, stub)| *stub),
            );
        }
        Ok(Lowered {
            pieces: self.pieces,
            runtime: self.runtime,
            attaches: self.attaches,
            code_order,
            imports,
        })
    }

    /// Notes that something at `offset` of a piece cannot be linked.
    pub(super) fn refuse(&mut self, rule: Code, id: PieceId, offset: u32, message: String) {
        self.refusals.push(Refusal {
            rule,
            name: self.pieces[id.index()].name.clone(),
            offset: Some(offset),
            message,
        });
    }

    pub(super) fn add(&mut self, piece: Piece) -> PieceId {
        let id = PieceId(self.pieces.len() as u32);
        self.pieces.push(piece);
        id
    }

    /// Adds a stub that is laid out right behind `parent`.
    pub(super) fn add_stub(&mut self, parent: PieceId, stub: Piece) -> PieceId {
        let id = self.add(stub);
        self.stubs.push((parent, id));
        id
    }

    fn slot(&mut self, key: SlotKey) -> Place {
        let slots = &mut self.pieces[self.slots.index()];
        let offset = match self.slot_offsets.get(&key) {
            Some(offset) => *offset,
            None => {
                let offset = slots.bytes.len() as u32;
                slots.bytes.extend_from_slice(&[0; 8]);
                self.slot_offsets.insert(key, offset);
                let place = Place::new(self.slots, offset.into());
                match key {
                    SlotKey::Base(fill, base) => {
                        self.attaches.push(SlotAttach { place, base, fill });
                    }
                    SlotKey::Patch(target) => slots.references.push(Reference {
                        offset,
                        how: How::Pointer,
                        target: Target::Piece(target),
                    }),
                }
                offset
            }
        };
        Place::new(self.slots, offset.into())
    }

    /// The slot that holds the address of `base`.
    pub(super) fn address_slot(&mut self, base: Rva<Base>) -> Place {
        self.slot(SlotKey::Base(Fill::Absolute, base))
    }

    /// The slot that holds the value of the base's pointer at `base`.
    pub(super) fn value_slot(&mut self, base: Rva<Base>) -> Place {
        self.slot(SlotKey::Base(Fill::Indirect, base))
    }

    /// The slot that holds the address of a place in the patch.
    pub(super) fn patch_slot(&mut self, place: Place) -> Place {
        self.slot(SlotKey::Patch(place))
    }

    /// The patch's own slot of an import; `None` for an index that is not in the list.
    pub(super) fn import_slot(&mut self, index: u32) -> Option<Place> {
        let import = self.parts.imports.get(index as usize)?;
        let known = *self.import_places.get(index as usize)?;
        Some(known.unwrap_or_else(|| self.value_slot(import.slot)))
    }

    /// The thunk that goes on at `base`.
    pub(super) fn thunk_to(&mut self, base: Rva<Base>) -> PieceId {
        self.thunk(ThunkKey::To(base))
    }

    /// The thunk that goes on where the base's pointer at `base` leads (x64).
    pub(super) fn thunk_through(&mut self, base: Rva<Base>) -> PieceId {
        self.thunk(ThunkKey::Through(base))
    }

    fn thunk(&mut self, key: ThunkKey) -> PieceId {
        if let Some(id) = self.thunks.get(&key) {
            return *id;
        }
        let (ThunkKey::To(base) | ThunkKey::Through(base)) = key;
        let slot = self.address_slot(base);
        let piece = match (self.parts.machine, key) {
            (Machine::X64, ThunkKey::To(_)) => x64::thunk(base, slot),
            (Machine::X64, ThunkKey::Through(_)) => x64::pointer_thunk(base, slot),
            (Machine::Arm64, _) => arm64::thunk(base, slot),
        };
        let id = self.add(piece);
        self.thunks.insert(key, id);
        self.thunk_order.push(id);
        id
    }

    /// Lowers a piece that is not code.
    fn lower_data(&mut self, id: PieceId) {
        let piece = self.parts.piece(id);
        let mut kept = Vec::with_capacity(piece.references.len());
        for reference in &piece.references {
            match (reference.how, reference.target) {
                (How::Pointer, Target::Base(base))
                    if reference.offset.is_multiple_of(8) && piece.align >= 8 =>
                {
                    let place = Place::new(id, reference.offset.into());
                    self.attaches.push(SlotAttach {
                        place,
                        base,
                        fill: Fill::Absolute,
                    });
                }
                (How::Difference { .. }, Target::Base(base)) => {
                    let thunk = self.thunk_to(base);
                    kept.push(Reference {
                        target: Target::Piece(Place::start(thunk)),
                        ..*reference
                    });
                }
                (How::ImageRelative, Target::Base(base)) if piece.room == Room::Unwind => {
                    let thunk = self.thunk_to(base);
                    kept.push(Reference {
                        target: Target::Piece(Place::start(thunk)),
                        ..*reference
                    });
                }
                (How::ImageRelative, Target::Base(base)) => {
                    let at = reference.offset as usize;
                    match self.pieces[id.index()].bytes.get_mut(at..at + 4) {
                        Some(field) => field.copy_from_slice(&base.get().to_le_bytes()),
                        None => self.refuse(
                            Code::DataNotUnderstood,
                            id,
                            reference.offset,
                            "an address outside the data".into(),
                        ),
                    }
                }
                (How::Pointer | How::ImageRelative | How::Difference { .. }, Target::Piece(_)) => {
                    kept.push(*reference)
                }
                _ => self.refuse(
                    Code::DataNotUnderstood,
                    id,
                    reference.offset,
                    format!(
                        "a field of this kind cannot hold {}",
                        describe(reference.target)
                    ),
                ),
            }
        }
        self.pieces[id.index()].references = kept;
    }
}

/// A piece as this stage adds them.
pub(super) fn new_piece(
    name: &str,
    room: Room,
    align: u32,
    bytes: Vec<u8>,
    references: Vec<Reference>,
) -> Piece {
    Piece {
        name: name.into(),
        origin: None,
        room,
        align,
        bytes,
        zeros: 0,
        references,
        page_links: Vec::new(),
    }
}

/// The entry of the exception directory that covers `offset` of a piece.
pub(super) fn runtime_entry_at(
    runtime: &[RuntimeEntry],
    code: PieceId,
    offset: u32,
) -> Option<&RuntimeEntry> {
    let first = runtime.partition_point(|entry| entry.code < code);
    runtime[first..]
        .iter()
        .take_while(|entry| entry.code == code)
        .find(|entry| (entry.begin..entry.end).contains(&offset))
}

/// A four-byte distance that ends `length` bytes into the instruction at `offset`.
pub(super) fn relative(
    offset: u32,
    length: u8,
    at: u8,
    kind: hpbuild_differ::decode::ReferenceKind,
    place: Place,
) -> Reference {
    Reference {
        offset,
        how: How::Instruction {
            length,
            kind,
            field: Field::Relative { at, size: 4 },
        },
        target: Target::Piece(place),
    }
}

/// A target in words.
pub(super) fn describe(target: Target) -> String {
    match target {
        Target::Piece(_) => "a place in the patch".into(),
        Target::Base(rva) => format!("the address of base rva {rva}"),
        Target::BaseValue(rva) => format!("the pointer at base rva {rva}"),
        Target::Import(_) => "an import".into(),
        Target::PatchImageBase => "the image base of the patch".into(),
        Target::OfUsers => "a page".into(),
    }
}
