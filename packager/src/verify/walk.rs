//! From the redirected entries along every reference to everything the patch holds.
//!
//! The first reference to a piece tells where it lies; every further one must agree. Bytes outside
//! references must be what the compiler emitted.

use std::collections::BTreeMap;

use hpbuild_differ::decode::Field;
use hpbuild_metadata::table::{Chunk, ForwardAttach, HotPatchTable};
use hpbuild_metadata::{Base, Machine, Rva};

use super::pe::View;
use super::{Fault, Filled, arm64, copies, fault, guard, x64};
use crate::piece::{
    How, Parts, Piece, PieceId, Place, Redirect, Reference, Room, RuntimeEntry, Target, UnwindOf,
};

/// What is known while walking.
pub(super) struct Walk<'a> {
    pub(super) view: &'a View<'a>,
    pub(super) parts: &'a Parts,
    pub(super) slots: &'a BTreeMap<u32, Filled>,
    pub(super) rvas: Vec<Option<u32>>,
    open: Vec<PieceId>,
    pub(super) faults: &'a mut Vec<Fault>,
    references: usize,
}

/// The outcome of one check: `Err` says what was expected and what was found.
pub(super) type Check = Result<(), (String, String)>;

/// Shorthand for a failed check.
pub(super) fn differs<T>(
    expected: impl Into<String>,
    found: impl Into<String>,
) -> Result<T, (String, String)> {
    Err((expected.into(), found.into()))
}

/// Walks the image; the number of pieces compared and of references followed.
pub(super) fn walk(
    view: &View<'_>,
    parts: &Parts,
    table: &HotPatchTable,
    slots: &BTreeMap<u32, Filled>,
    faults: &mut Vec<Fault>,
) -> (usize, usize) {
    let mut walk = Walk {
        view,
        parts,
        slots,
        rvas: vec![None; parts.pieces.len()],
        open: Vec::new(),
        faults,
        references: 0,
    };
    walk.enter(table);
    while let Some(id) = walk.open.pop() {
        walk.compare(id);
    }
    walk.check_exceptions();
    walk.check_order();
    copies::check(&mut walk);
    guard::check(&mut walk);
    (walk.rvas.iter().flatten().count(), walk.references)
}

impl Walk<'_> {
    /// Takes the forward attaches, which must be those of the parts and no others.
    fn enter(&mut self, table: &HotPatchTable) {
        let mut attaches: Vec<&ForwardAttach> = Vec::new();
        for chunk in &table.bases[0].chunks {
            if let Chunk::ForwardFunction(records) = chunk {
                attaches.extend(records);
            }
        }
        let redirects: &[Redirect] = &self.parts.redirects;
        if attaches.len() != redirects.len() {
            self.faults.push(fault(
                "forward attaches",
                redirects.len().to_string(),
                attaches.len().to_string(),
            ));
        }
        for redirect in redirects {
            let Some(attach) = attaches.iter().find(|attach| attach.base == redirect.base) else {
                self.faults.push(fault(
                    &*redirect.name,
                    format!("a forward attach of base rva {}", redirect.base),
                    "none",
                ));
                continue;
            };
            let compared = match self.parts.machine {
                Machine::X64 => u32::from(u16::from_le_bytes([
                    redirect.original[0],
                    redirect.original[1],
                ])),
                Machine::Arm64 => u32::from_le_bytes(redirect.original),
            };
            if attach.original != compared {
                self.faults.push(fault(
                    &*redirect.name,
                    format!("original bytes {compared:#x}"),
                    format!("{:#x}", attach.original),
                ));
            }
            if let Err((expected, found)) =
                self.found(Place::start(redirect.piece), i64::from(attach.patch.get()))
            {
                self.faults.push(fault(&*redirect.name, expected, found));
            }
        }
    }

    /// Code must lie in the order of the parts, on which exception data relies.
    fn check_order(&mut self) {
        let lies = |id: &PieceId| Some((self.rvas[id.index()]?, *id));
        let places: Vec<_> = self.parts.code.iter().filter_map(lies).collect();
        for pair in places.windows(2) {
            let ((before, first), (after, second)) = (pair[0], pair[1]);
            if after <= before {
                let (first, second) = (self.parts.piece(first), self.parts.piece(second));
                let expected = format!("{} behind {}", second.name, first.name);
                let found = format!("{after:#x} and {before:#x}");
                self.faults.push(fault("order of code", expected, found));
            }
        }
    }

    /// Notes that something in the image points at `rva` where the parts say `place`.
    pub(super) fn found(&mut self, place: Place, rva: i64) -> Check {
        let start = rva
            .checked_sub(place.offset)
            .and_then(|start| u32::try_from(start).ok());
        let Some(start) = start else {
            return differs("a place in the image", format!("{rva:#x}"));
        };
        match &mut self.rvas[place.piece.index()] {
            Some(known) if *known == start => Ok(()),
            Some(known) => {
                let expected = format!("{} at rva {known:#x}", self.parts.piece(place.piece).name);
                differs(expected, format!("rva {start:#x}"))
            }
            unknown => {
                *unknown = Some(start);
                self.open.push(place.piece);
                Ok(())
            }
        }
    }

    /// Compares one piece with what the image holds where it lies.
    fn compare(&mut self, id: PieceId) {
        let piece = self.parts.piece(id);
        let rva = self.rvas[id.index()].unwrap_or(0);
        let Some(bytes) = room_of(self.view, piece, rva) else {
            self.faults.push(fault(
                &*piece.name,
                format!("{:?} room for it", piece.room),
                format!("rva {rva:#x}"),
            ));
            return;
        };
        let mut open = vec![false; bytes.len()];
        for reference in &piece.references {
            self.references += 1;
            let (start, end) = touched(reference);
            match open.get_mut(start..end) {
                Some(range) => range.fill(true),
                None => {
                    self.faults.push(fault(
                        &*piece.name,
                        "references inside the piece",
                        format!("+{start:#x}"),
                    ));
                    return;
                }
            }
        }
        let change = (0..bytes.len()).find(|at| !open[*at] && bytes[*at] != piece.bytes[*at]);
        if let Some(at) = change {
            let place = format!("{}+{at:#x}", piece.name);
            self.faults.push(fault(
                place,
                format!("{:#04x}", piece.bytes[at]),
                format!("{:#04x}", bytes[at]),
            ));
        }
        for (index, reference) in piece.references.iter().enumerate() {
            let checked = match (reference.how, self.parts.machine) {
                (How::Instruction { .. }, Machine::X64) => {
                    x64::check(self, piece, rva, bytes, reference)
                }
                (How::Instruction { .. }, Machine::Arm64) => {
                    arm64::check(self, piece, rva, bytes, index)
                }
                _ => self.check_data(piece, rva, bytes, reference),
            };
            if let Err((expected, found)) = checked {
                let place = format!(
                    "{}+{:#x} (rva {:#x})",
                    piece.name,
                    reference.offset,
                    rva + reference.offset
                );
                self.faults.push(fault(place, expected, found));
            }
        }
        self.open_handlers(id);
    }

    /// Unwind info is reached from the exception directory, which is sorted by code.
    fn open_handlers(&mut self, id: PieceId) {
        let entries = self.parts.runtime.iter().filter(|entry| entry.code == id);
        for entry in entries {
            if let Err((expected, found)) = self.check_entry(entry) {
                let place = format!(
                    "unwind entry of {}+{:#x}",
                    self.parts.piece(id).name,
                    entry.begin
                );
                self.faults.push(fault(place, expected, found));
            }
        }
    }

    /// Finds the entry of the exception directory that starts where `entry` does.
    fn check_entry(&mut self, entry: &RuntimeEntry) -> Check {
        let Some(code) = self.rvas[entry.code.index()] else {
            return Ok(());
        };
        let (begin, end) = (
            code.saturating_add(entry.begin),
            code.saturating_add(entry.end),
        );
        let (start, size) = self.view.directory(3);
        let stride = match self.parts.machine {
            Machine::X64 => 12,
            Machine::Arm64 => 8,
        };
        if self.view.bytes(start, size).is_none() {
            return differs("an exception directory in the file", "none");
        }
        let at = (0..size / stride)
            .map(|index| start + index * stride)
            .find(|at| self.view.u32(*at) == Some(begin));
        let Some(at) = at else {
            return differs(format!("an entry for rva {begin:#x}"), "none");
        };
        let (found_end, info) = match self.parts.machine {
            Machine::X64 => (self.view.u32(at + 4), self.view.u32(at + 8)),
            Machine::Arm64 => (arm64::code_end(self.view, at), self.view.u32(at + 4)),
        };
        if found_end != Some(end) {
            return differs(format!("an end at {end:#x}"), format!("{found_end:x?}"));
        }
        match (entry.unwind, info) {
            (UnwindOf::Info(piece), Some(info)) => self.found(Place::start(piece), i64::from(info)),
            (UnwindOf::Packed(word), Some(info)) if word == info => Ok(()),
            (unwind, info) => differs(format!("{unwind:?}"), format!("{info:x?}")),
        }
    }

    /// Every entry of the parts was checked with its piece; here, that no code was missed.
    fn check_exceptions(&mut self) {
        let missed: Vec<_> = self
            .parts
            .redirects
            .iter()
            .filter(|redirect| self.rvas[redirect.piece.index()].is_none())
            .map(|redirect| redirect.name.to_string())
            .collect();
        for name in missed {
            self.faults
                .push(fault(name, "a place in the image", "none"));
        }
    }

    fn expect_thunk(&self, rva: i64, base: Rva<Base>) -> Check {
        match self.parts.machine {
            Machine::X64 => x64::expect_thunk(self, rva, Filled::AddressOf(base)),
            Machine::Arm64 => arm64::expect_thunk(self, rva, base),
        }
    }

    /// A field in data.
    fn check_data(
        &mut self,
        piece: &Piece,
        rva: u32,
        bytes: &[u8],
        reference: &Reference,
    ) -> Check {
        let at = reference.offset as usize;
        let place = rva.saturating_add(reference.offset);
        match (reference.how, reference.target) {
            (How::Pointer, Target::Base(base)) => match self.slots.get(&place) {
                Some(Filled::AddressOf(found)) if *found == base => Ok(()),
                found => differs(
                    format!("the address of base rva {base}"),
                    format!("{found:?}"),
                ),
            },
            (How::Pointer, Target::Piece(target)) => {
                let address = bytes
                    .get(at..at + 8)
                    .and_then(|field| field.try_into().ok())
                    .map(u64::from_le_bytes);
                let found = address.and_then(|address| {
                    i64::try_from(address.checked_sub(self.view.image_base)?).ok()
                });
                match found {
                    Some(found) if self.view.relocations.contains(&place) => {
                        self.found(target, found)
                    }
                    found => differs("a pointer with a base relocation", format!("{found:x?}")),
                }
            }
            (How::ImageRelative, target) => {
                let Some(found) = word(bytes, at) else {
                    return differs("four bytes", "the end");
                };
                match target {
                    Target::Piece(target) => self.found(target, i64::from(found)),
                    Target::Base(base) if piece.room == Room::Unwind => {
                        self.expect_thunk(i64::from(found), base)
                    }
                    Target::Base(base) if base.get() == found => Ok(()),
                    other => differs(format!("{other:?}"), format!("{found:#x}")),
                }
            }
            (
                How::Difference {
                    size,
                    signed,
                    shift,
                    from,
                },
                target,
            ) => {
                let Some(distance) = distance(bytes, at, size, signed) else {
                    return differs("an entry", "the end");
                };
                let Some(origin) = self.rvas[from.piece.index()] else {
                    return differs("a table whose base is known", "none");
                };
                let found = i64::from(origin) + from.offset + (distance << shift);
                match target {
                    Target::Piece(target) => self.found(target, found),
                    Target::Base(base) => self.expect_thunk(found, base),
                    other => differs("a distance", format!("{other:?}")),
                }
            }
            (how, target) => differs(
                "a field that data can hold",
                format!("{how:?} to {target:?}"),
            ),
        }
    }
}

/// The bytes of a piece that a reference may change: its field where the instruction stays, the
/// whole instruction where it is replaced.
fn touched(reference: &Reference) -> (usize, usize) {
    let offset = reference.offset as usize;
    let length = match reference.how {
        How::Pointer => 8,
        How::ImageRelative => 4,
        How::Difference { size, .. } => size.into(),
        How::Instruction {
            field: Field::ImageRelative { at },
            ..
        } => {
            return (offset + usize::from(at), offset + usize::from(at) + 4);
        }
        How::Instruction { length, .. } => length.into(),
    };
    (offset, offset + length)
}

/// A distance of `size` bytes as a number.
fn distance(bytes: &[u8], at: usize, size: u8, signed: bool) -> Option<i64> {
    let field = bytes.get(at..at + usize::from(size))?;
    let mut value = [0; 8];
    value.get_mut(..field.len())?.copy_from_slice(field);
    let spare = 64_u32.checked_sub(8 * u32::from(size))?;
    let value = u64::from_le_bytes(value) << spare;
    Some(if signed {
        value.cast_signed() >> spare
    } else {
        (value >> spare).cast_signed()
    })
}

/// Four bytes as a number.
pub(super) fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(
        bytes.get(at..at.checked_add(4)?)?.try_into().ok()?,
    ))
}

/// The bytes where a piece lies, if that is the right kind of section.
fn room_of<'v>(view: &View<'v>, piece: &Piece, rva: u32) -> Option<&'v [u8]> {
    let section = view.section_at(rva)?;
    let right = match piece.room {
        Room::Code => section.is_code(),
        Room::Writable => section.is_writable(),
        Room::ReadOnly | Room::Unwind => !section.is_code() && !section.is_writable(),
    };
    let aligned = rva.is_multiple_of(piece.align.max(1));
    let inside = (rva - section.rva).checked_add(piece.size())? <= section.size;
    if !right || !aligned || !inside {
        return None;
    }
    if piece.bytes.is_empty() {
        return Some(&[]);
    }
    view.bytes(rva, u32::try_from(piece.bytes.len()).ok()?)
}
