//! Values: every field gets what it should hold, now that everything has an address.

use hpbuild_differ::decode::Field;
use hpbuild_metadata::{Machine, Patch, Rva};

use super::furnish::Furnished;
use super::layout::{Layout, SECTION_ALIGN, SectionPlan};
use super::{
    Directories, IMAGE_BASE, Linked, LinkedSection, LinkedSlot, LinkedSymbol, Range, arm64,
};
use crate::piece::{How, Parts, Piece, PieceId, Place, Reference, Room, Target};
use crate::refusal::{Code, Refusal};

pub(super) fn relocate(
    parts: &Parts,
    mut furnished: Furnished,
    layout: Layout,
) -> Result<Linked, Vec<Refusal>> {
    let mut refusals = Vec::new();
    let mut relocations = Vec::new();
    for index in 0..furnished.lowered.pieces.len() {
        let id = PieceId(index as u32);
        let piece = &mut furnished.lowered.pieces[index];
        check_pages(piece, &layout, &mut refusals);
        for reference in std::mem::take(&mut piece.references) {
            if let Err((rule, message)) = fill(piece, &layout, id, &reference) {
                refusals.push(Refusal {
                    rule,
                    name: piece.name.clone(),
                    offset: Some(reference.offset),
                    message,
                });
            }
            if reference.how == How::Pointer {
                relocations.push(layout.rvas[index] + reference.offset);
            }
        }
    }
    if !refusals.is_empty() {
        refusals.sort();
        return Err(refusals);
    }
    relocations.sort_unstable();
    Ok(finish(parts, &furnished, &layout, &relocations))
}

fn finish(parts: &Parts, furnished: &Furnished, layout: &Layout, relocations: &[u32]) -> Linked {
    let pieces = &furnished.lowered.pieces;
    let mut sections: Vec<_> = layout
        .sections
        .iter()
        .map(|plan| section(parts.machine, pieces, layout, plan))
        .collect();
    let mut image_size = layout.next;
    let mut directories = directories(furnished, layout);
    if !relocations.is_empty() {
        let bytes = base_relocation_blocks(relocations);
        let size = bytes.len() as u32;
        let rva = Rva::new(layout.next);
        sections.push(LinkedSection {
            name: ".reloc",
            rva,
            size,
            bytes,
            characteristics: 0x4200_0040,
        });
        directories.base_relocations = Some((rva, size));
        image_size += size.next_multiple_of(SECTION_ALIGN);
    }
    let mut slots: Vec<_> = furnished
        .lowered
        .attaches
        .iter()
        .map(|attach| LinkedSlot {
            patch: Rva::new(layout.address(attach.place) as u32),
            base: attach.base,
            fill: attach.fill,
        })
        .collect();
    slots.sort_by_key(|slot| slot.patch);
    let mut symbols: Vec<_> = pieces
        .iter()
        .enumerate()
        .map(|(index, piece)| LinkedSymbol {
            name: piece.name.clone(),
            room: piece.room,
            rva: Rva::new(layout.rvas[index]),
            size: piece.size(),
        })
        .collect();
    symbols.sort_by(|a, b| (a.rva, a.size, &a.name).cmp(&(b.rva, b.size, &b.name)));
    Linked {
        machine: parts.machine,
        sections,
        image_size,
        slots,
        entries: parts
            .redirects
            .iter()
            .map(|redirect| layout.rva(redirect.piece))
            .collect(),
        symbols,
        directories,
    }
}

/// The bytes of one section; gaps in code trap.
fn section(
    machine: Machine,
    pieces: &[Piece],
    layout: &Layout,
    plan: &SectionPlan,
) -> LinkedSection {
    let is_code = pieces[plan.pieces[0].index()].room == Room::Code;
    let mut bytes: Vec<u8> = Vec::new();
    for id in &plan.pieces {
        let piece = &pieces[id.index()];
        if piece.bytes.is_empty() {
            continue;
        }
        let start = (layout.rvas[id.index()] - plan.rva) as usize;
        match (is_code, machine) {
            (true, Machine::X64) => bytes.resize(start, 0xcc),
            (true, Machine::Arm64) => {
                bytes.resize(bytes.len().next_multiple_of(4).min(start), 0);
                while bytes.len() + 4 <= start {
                    bytes.extend(0xd43e_0000_u32.to_le_bytes());
                }
            }
            _ => bytes.resize(start, 0),
        }
        bytes.extend_from_slice(&piece.bytes);
    }
    LinkedSection {
        name: plan.name,
        rva: Rva::new(plan.rva),
        size: plan.size,
        bytes,
        characteristics: plan.characteristics,
    }
}

fn directories(furnished: &Furnished, layout: &Layout) -> Directories {
    let pieces = &furnished.lowered.pieces;
    let range = |id: PieceId| -> Range { (layout.rva(id), pieces[id.index()].size()) };
    let imports = furnished.lowered.imports.as_ref();
    let field = |id: PieceId, offset: u32| Rva::<Patch>::new(layout.rvas[id.index()] + offset);
    Directories {
        imports: imports.map(|imports| range(imports.directory)),
        import_addresses: imports.map(|imports| range(imports.addresses)),
        exceptions: furnished.exceptions.map(range),
        base_relocations: None,
        debug: Some(range(furnished.debug)),
        load_config: Some(range(furnished.load_config)),
        table: Some(range(furnished.table)),
        guard_cf: furnished.guard_cf,
        file_offsets: (0..)
            .zip(&furnished.debug_data)
            .map(|(index, data)| (field(furnished.debug, index * 28 + 24), layout.rva(*data)))
            .collect(),
        time_stamps: (0..furnished.debug_data.len() as u32)
            .map(|index| field(furnished.debug, index * 28 + 4))
            .collect(),
        guid: Some(field(furnished.codeview, 4)),
        content_hash: Some(field(furnished.repro, 4)),
    }
}

/// Blocks of `IMAGE_REL_BASED_DIR64` entries, one block a page.
fn base_relocation_blocks(relocations: &[u32]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for page in relocations.chunk_by(|a, b| a >> 12 == b >> 12) {
        let entries = page.len().next_multiple_of(2);
        bytes.extend((page[0] & !0xfff).to_le_bytes());
        bytes.extend((8 + 2 * entries as u32).to_le_bytes());
        for rva in page {
            bytes.extend((0xa000 | (rva & 0xfff) as u16).to_le_bytes());
        }
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    bytes
}

/// Page-forming instructions must form the page of every user.
fn check_pages(piece: &Piece, layout: &Layout, refusals: &mut Vec<Refusal>) {
    let page = |index: u32| match piece.references.get(index as usize)?.target {
        Target::Piece(place) => Some(layout.address(place) >> 12),
        _ => None,
    };
    for &(user, former) in &piece.page_links {
        if page(user) != page(former) {
            refusals.push(Refusal {
                rule: Code::PageSplit,
                name: piece.name.clone(),
                offset: piece
                    .references
                    .get(user as usize)
                    .map(|reference| reference.offset),
                message: "what shares one page instruction lies on different pages of the patch"
                    .into(),
            });
        }
    }
}

type Fault = (Code, String);

/// Puts the value of one reference into the bytes of its piece.
fn fill(
    piece: &mut Piece,
    layout: &Layout,
    id: PieceId,
    reference: &Reference,
) -> Result<(), Fault> {
    let out_of_reach = || {
        (
            Code::OutOfReach,
            "the target is out of reach in the patch".to_string(),
        )
    };
    let target = match reference.target {
        Target::Piece(place) => layout.address(place),
        Target::PatchImageBase => 0,
        _ => return Err((Code::NotUnderstood, "a reference was left over".into())),
    };
    let place = layout.rvas[id.index()] + reference.offset;
    match reference.how {
        How::Pointer => {
            let rva = u32::try_from(target).map_err(|_| out_of_reach())?;
            put(
                piece,
                reference.offset,
                &(IMAGE_BASE + u64::from(rva)).to_le_bytes(),
            )
        }
        How::ImageRelative => {
            let rva = u32::try_from(target).map_err(|_| out_of_reach())?;
            put(piece, reference.offset, &rva.to_le_bytes())
        }
        How::Difference {
            size,
            signed,
            shift,
            from,
        } => {
            let value =
                difference(layout, target, from, size, signed, shift).ok_or_else(out_of_reach)?;
            put(piece, reference.offset, &value.to_le_bytes()[..size.into()])
        }
        How::Instruction { length, field, .. } => match field {
            Field::Relative { at, size: 4 } => {
                let distance = target - i64::from(place) - i64::from(length);
                let distance = i32::try_from(distance).map_err(|_| out_of_reach())?;
                put(
                    piece,
                    reference.offset + u32::from(at),
                    &distance.to_le_bytes(),
                )
            }
            Field::ImageRelative { at } => {
                let rva = u32::try_from(target).map_err(|_| out_of_reach())?;
                put(piece, reference.offset + u32::from(at), &rva.to_le_bytes())
            }
            Field::Word { .. } => {
                let at = reference.offset as usize;
                let word = piece
                    .bytes
                    .get(at..at + 4)
                    .and_then(|word| word.try_into().ok());
                let word = word.map(u32::from_le_bytes).ok_or_else(outside)?;
                let aimed = arm64::aim(word, place, target).ok_or_else(out_of_reach)?;
                put(piece, reference.offset, &aimed.to_le_bytes())
            }
            Field::Relative { .. } | Field::Absolute { .. } => {
                Err((Code::NotUnderstood, "a field was left over".into()))
            }
        },
    }
}

fn difference(
    layout: &Layout,
    target: i64,
    from: Place,
    size: u8,
    signed: bool,
    shift: u8,
) -> Option<i64> {
    let distance = target - layout.address(from);
    if shift > 12 || !matches!(size, 1 | 2 | 4 | 8) || distance & ((1 << shift) - 1) != 0 {
        return None;
    }
    let value = distance >> shift;
    let bits = u32::from(size) * 8;
    let fits = match (bits, signed) {
        (64, _) => true,
        (_, true) => (-(1_i64 << (bits - 1))..1 << (bits - 1)).contains(&value),
        (_, false) => (0..1 << bits).contains(&value),
    };
    fits.then_some(value)
}

fn outside() -> Fault {
    (Code::NotUnderstood, "a field outside its piece".into())
}

fn put(piece: &mut Piece, offset: u32, value: &[u8]) -> Result<(), Fault> {
    let at = offset as usize;
    let field = piece
        .bytes
        .get_mut(at..at + value.len())
        .ok_or_else(outside)?;
    field.copy_from_slice(value);
    Ok(())
}
