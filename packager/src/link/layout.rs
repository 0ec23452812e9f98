//! Addresses: which piece lies where.

use hpbuild_metadata::{Machine, Patch, Rva};

use super::furnish::Furnished;
use crate::piece::{Parts, PieceId, Room};
use crate::refusal::{Code, Refusal};

/// Sections start at pages.
pub(super) const SECTION_ALIGN: u32 = 0x1000;
/// Filler in front of every x64 function, so that the functions of the patch can be redirected in
/// their turn: six bytes are needed, 16 keep the alignment.
const X64_PAD: u32 = 16;
/// No patch is anywhere near this; beyond it distances no longer fit their fields.
const MAX_IMAGE: u64 = 0x4000_0000;

/// The pieces of one section.
pub(super) struct SectionPlan {
    pub(super) name: &'static str,
    pub(super) characteristics: u32,
    pub(super) rva: u32,
    pub(super) size: u32,
    pub(super) pieces: Vec<PieceId>,
}

/// Where everything lies.
pub(super) struct Layout {
    pub(super) sections: Vec<SectionPlan>,
    /// By piece.
    pub(super) rvas: Vec<u32>,
    /// Where the base relocations will go.
    pub(super) next: u32,
}

const CODE: u32 = 0x6000_0020;
const READ_ONLY: u32 = 0x4000_0040;
const WRITABLE: u32 = 0xc000_0040;

pub(super) fn lay_out(parts: &Parts, furnished: &Furnished) -> Result<Layout, Vec<Refusal>> {
    let pieces = &furnished.lowered.pieces;
    let of_room = |room| {
        (0..pieces.len() as u32)
            .map(PieceId)
            .filter(move |id| pieces[id.index()].room == room && Some(*id) != furnished.exceptions)
    };
    // What the linker added comes first, so that slots lie within reach of the code.
    let added = |id: &PieceId| id.index() >= parts.pieces.len();
    let mut read_only: Vec<_> = of_room(Room::ReadOnly).collect();
    read_only.sort_by_key(|id| (!added(id), *id));
    // Pieces that are all zeros go last, where the file need not hold them.
    let mut writable: Vec<_> = of_room(Room::Writable).collect();
    writable.sort_by_key(|id| (pieces[id.index()].zeros > 0, *id));
    let plan = [
        (".text", CODE, furnished.lowered.code_order.clone()),
        (".rdata", READ_ONLY, read_only),
        (".data", WRITABLE, writable),
        (
            ".pdata",
            READ_ONLY,
            furnished.exceptions.into_iter().collect(),
        ),
        (".xdata", READ_ONLY, of_room(Room::Unwind).collect()),
    ];
    let mut rvas = vec![0; pieces.len()];
    let mut sections = Vec::new();
    let mut next = u64::from(SECTION_ALIGN);
    for (name, characteristics, ids) in plan {
        if ids.is_empty() {
            continue;
        }
        let start = next;
        for id in &ids {
            let piece = &pieces[id.index()];
            let mut align = u64::from(piece.align.max(1));
            if parts.machine == Machine::X64 && piece.room == Room::Code && !added(id) {
                next += u64::from(X64_PAD);
                align = align.max(16);
            }
            next = next.next_multiple_of(align);
            rvas[id.index()] = next as u32;
            next += u64::from(piece.size());
            if next > MAX_IMAGE {
                return Err(vec![too_large(&piece.name)]);
            }
        }
        let size = (next - start).max(1) as u32;
        sections.push(SectionPlan {
            name,
            characteristics,
            rva: start as u32,
            size,
            pieces: ids,
        });
        next = (start + u64::from(size)).next_multiple_of(SECTION_ALIGN.into());
    }
    Ok(Layout {
        sections,
        rvas,
        next: next as u32,
    })
}

fn too_large(name: &str) -> Refusal {
    Refusal {
        rule: Code::OutOfReach,
        name: name.into(),
        offset: None,
        message: format!("the patch image would be larger than {MAX_IMAGE:#x} bytes"),
    }
}

impl Layout {
    /// Where `place` lies, which may be outside the image.
    pub(super) fn address(&self, place: crate::piece::Place) -> i64 {
        i64::from(self.rvas[place.piece.index()]).saturating_add(place.offset)
    }

    /// Where a piece starts.
    pub(super) fn rva(&self, id: PieceId) -> Rva<Patch> {
        Rva::new(self.rvas[id.index()])
    }
}
