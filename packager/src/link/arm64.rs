//! Arm64: how each form of instruction reaches the base without changing its length.
//!
//! ```text
//! bl f                      bl thunk            thunk: ldr x16, slot of f; br x16
//! adrp x8, g                ldr x8, slot of the page of g
//! ldr  w0, [x8, lo12 g]     ldr w0, [x8, lo12 of base g]
//! adr  x0, g                ldr x0, slot of g
//! ```
//!
//! Page-forming instructions and their users are treated in groups: everything that is connected
//! through a shared `adrp` or a shared user must land on one page of one image.

use hpbuild_differ::decode::{Field, ReferenceKind};
use hpbuild_metadata::{Base, Rva};

use super::lower::{Lowering, describe, new_piece};
use crate::piece::{How, Piece, PieceId, Place, Reference, Room, Target};
use crate::refusal::Code;

/// The bits of a literal load's or conditional branch's distance, in words.
pub(super) const IMM19: u32 = 0x00ff_ffe0;
const IMM26: u32 = 0x03ff_ffff;
const IMM14: u32 = 0x0007_ffe0;
const IMM12: u32 = 0x003f_fc00;
const IMM21: u32 = 0x60ff_ffe0;

/// `ldr x16, slot; br x16`: x16 carries nothing over a call or branch between functions.
pub(super) fn thunk(base: Rva<Base>, slot: Place) -> Piece {
    let mut bytes = 0x5800_0010_u32.to_le_bytes().to_vec();
    bytes.extend(0xd61f_0200_u32.to_le_bytes());
    let name = format!("thunk to base+{base}");
    new_piece(&name, Room::Code, 8, bytes, vec![literal(0, slot)])
}

fn literal(offset: u32, slot: Place) -> Reference {
    Reference {
        offset,
        how: How::Instruction {
            length: 4,
            kind: ReferenceKind::Memory(8),
            field: Field::Word { mask: IMM19 },
        },
        target: Target::Piece(slot),
    }
}

/// What a PC-relative or page-offset instruction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Branch26,
    Branch19,
    Branch14,
    Literal,
    Adr,
    Adrp,
    /// `add` with an unshifted immediate.
    Add,
    /// A load, store or prefetch with a scaled offset: the scale in bits.
    Scaled(u32),
}

fn form(word: u32) -> Option<Form> {
    Some(match word {
        _ if word & 0x7c00_0000 == 0x1400_0000 => Form::Branch26,
        _ if word & 0xff00_0000 == 0x5400_0000 => Form::Branch19,
        _ if word & 0x7e00_0000 == 0x3400_0000 => Form::Branch19,
        _ if word & 0x7e00_0000 == 0x3600_0000 => Form::Branch14,
        _ if word & 0x3b00_0000 == 0x1800_0000 => Form::Literal,
        _ if word & 0x9f00_0000 == 0x1000_0000 => Form::Adr,
        _ if word & 0x9f00_0000 == 0x9000_0000 => Form::Adrp,
        _ if word & 0x7fc0_0000 == 0x1100_0000 => Form::Add,
        _ if word & 0x3b00_0000 == 0x3900_0000 => {
            // A quadword of a vector register has size 0 with the upper bit of opc set.
            let quad = word & 0xff80_0000 == 0x3d80_0000;
            Form::Scaled(if quad { 4 } else { word >> 30 })
        }
        _ => return None,
    })
}

/// `word` with its field aimed from `pc` at `target` (both relative to one image base); `None`
/// where the target is out of reach or off scale.
pub(super) fn aim(word: u32, pc: u32, target: i64) -> Option<u32> {
    let distance = target - i64::from(pc);
    let words = |bits: u32| {
        let value = distance >> 2;
        let reach = 1_i64 << (bits - 1);
        (distance & 3 == 0 && (-reach..reach).contains(&value)).then_some(value as u32)
    };
    let put = |mask: u32, shift: u32, value: u32| word & !mask | (value << shift) & mask;
    Some(match form(word)? {
        Form::Branch26 => put(IMM26, 0, words(26)?),
        Form::Branch19 | Form::Literal => put(IMM19, 5, words(19)?),
        Form::Branch14 => put(IMM14, 5, words(14)?),
        Form::Adr => aim_split(word, distance)?,
        Form::Adrp => aim_split(word, (target >> 12) - i64::from(pc >> 12))?,
        Form::Add | Form::Scaled(_) => set_page_offset(word, (target & 0xfff) as u32)?,
    })
}

/// `adr` and `adrp` hold the low two bits apart.
fn aim_split(word: u32, value: i64) -> Option<u32> {
    let reach = 1 << 20;
    (-reach..reach).contains(&value).then(|| {
        let value = value as u32;
        word & !IMM21 | (value & 3) << 29 | (value >> 2 & 0x7_ffff) << 5
    })
}

/// `word` with another offset within a page.
fn set_page_offset(word: u32, offset: u32) -> Option<u32> {
    let scale = match form(word)? {
        Form::Add => 0,
        Form::Scaled(scale) => scale,
        _ => return None,
    };
    (offset & ((1 << scale) - 1) == 0).then(|| word & !IMM12 | (offset >> scale) << 10)
}

/// Lowers one piece of code.
pub(super) fn lower_code(lowering: &mut Lowering<'_>, id: PieceId) {
    let parts = lowering.parts;
    let piece = parts.piece(id);
    let groups = Groups::of(piece);
    let mut references = piece.references.clone();
    let mut kept = vec![true; references.len()];
    for group in &groups.members {
        lower_group(lowering, id, group, &mut references, &mut kept);
    }
    for (index, reference) in references.iter_mut().enumerate() {
        if groups.grouped[index] {
            continue;
        }
        match lower_single(lowering, id, reference) {
            Some(lowered) => *reference = lowered,
            None => kept[index] = false,
        }
    }
    let mut survivors = Vec::new();
    let mut new_index = vec![None; references.len()];
    for (index, reference) in references.into_iter().enumerate() {
        if kept[index] {
            new_index[index] = Some(survivors.len() as u32);
            survivors.push(reference);
        }
    }
    let links = &piece.page_links;
    let page_links = links
        .iter()
        .filter_map(|&(user, page)| {
            let at = |index: u32| new_index.get(index as usize).copied().flatten();
            Some((at(user)?, at(page)?))
        })
        .collect();
    let lowered = &mut lowering.pieces[id.index()];
    lowered.references = survivors;
    lowered.page_links = page_links;
}

/// References connected through page links.
struct Groups {
    members: Vec<Vec<usize>>,
    grouped: Vec<bool>,
}

impl Groups {
    fn of(piece: &Piece) -> Self {
        let count = piece.references.len();
        let mut parent: Vec<usize> = (0..count).collect();
        let mut grouped = vec![false; count];
        fn root(parent: &mut [usize], mut at: usize) -> usize {
            while parent[at] != at {
                parent[at] = parent[parent[at]];
                at = parent[at];
            }
            at
        }
        for &(user, page) in &piece.page_links {
            let (user, page) = (user as usize, page as usize);
            if user < count && page < count {
                let (one, other) = (root(&mut parent, user), root(&mut parent, page));
                parent[one.max(other)] = one.min(other);
                grouped[user] = true;
                grouped[page] = true;
            }
        }
        for (index, reference) in piece.references.iter().enumerate() {
            // A page nobody uses is a group of its own, which cannot be resolved.
            grouped[index] |= reference.target == Target::OfUsers;
        }
        let mut members = vec![Vec::new(); count];
        for index in (0..count).filter(|index| grouped[*index]) {
            let root = root(&mut parent, index);
            members[root].push(index);
        }
        members.retain(|group| !group.is_empty());
        Self { members, grouped }
    }
}

fn word_at(lowering: &Lowering<'_>, id: PieceId, offset: u32) -> Option<u32> {
    let at = offset as usize;
    let bytes = lowering.pieces[id.index()].bytes.get(at..at + 4)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

fn put_word(lowering: &mut Lowering<'_>, id: PieceId, offset: u32, word: u32) {
    let at = offset as usize;
    lowering.pieces[id.index()].bytes[at..at + 4].copy_from_slice(&word.to_le_bytes());
}

fn refuse(
    lowering: &mut Lowering<'_>,
    rule: Code,
    id: PieceId,
    offset: u32,
    message: impl Into<String>,
) {
    lowering.refuse(rule, id, offset, message.into());
}

/// Lowers page-forming instructions and their users, which all reach one page of one image.
fn lower_group(
    lowering: &mut Lowering<'_>,
    id: PieceId,
    group: &[usize],
    references: &mut [Reference],
    kept: &mut [bool],
) {
    let is_page = |reference: &Reference| reference.target == Target::OfUsers;
    let first = references[group[0]].offset;
    let users: Vec<_> = group
        .iter()
        .copied()
        .filter(|index| !is_page(&references[*index]))
        .collect();
    if users.is_empty() {
        return refuse(
            lowering,
            Code::NotUnderstood,
            id,
            first,
            "a page is formed and no use of it is found",
        );
    }
    // Mirrored pointers live in slots of the patch.
    for &index in &users {
        let reference = references[index];
        let word = word_at(lowering, id, reference.offset);
        let loads_pointer = word.is_some_and(|word| word & 0xffc0_0000 == 0xf940_0000);
        let target = match reference.target {
            Target::BaseValue(base) if loads_pointer => {
                Some(Target::Piece(lowering.value_slot(base)))
            }
            Target::BaseValue(base) => Some(Target::Base(base)),
            Target::Import(at) if loads_pointer => lowering.import_slot(at).map(Target::Piece),
            Target::Import(at) => lowering
                .parts
                .imports
                .get(at as usize)
                .map(|import| Target::Base(import.slot)),
            other => Some(other),
        };
        match target {
            Some(target) => references[index].target = target,
            None => {
                return refuse(
                    lowering,
                    Code::NotUnderstood,
                    id,
                    reference.offset,
                    "an import that is not in the list",
                );
            }
        }
    }
    let bases: Vec<Rva<Base>> = users
        .iter()
        .filter_map(|index| match references[*index].target {
            Target::Base(base) => Some(base),
            _ => None,
        })
        .collect();
    if bases.is_empty() {
        // In the patch: each page instruction is aimed at what its users reach; layout checks
        // that they agree.
        for &index in group
            .iter()
            .filter(|index| is_page(&references[**index]))
            .collect::<Vec<_>>()
        {
            references[index].target = references[users[0]].target;
        }
        return;
    }
    let page = bases[0].page();
    if bases.len() != users.len() || bases.iter().any(|base| base.page() != page) {
        let reached: Vec<_> = users
            .iter()
            .map(|index| describe(references[*index].target))
            .collect();
        let message = format!("one page serves {}", reached.join(" and "));
        return refuse(lowering, Code::PageSplit, id, first, message);
    }
    let slot = lowering.address_slot(page);
    for &index in group {
        let reference = references[index];
        let Some(word) = word_at(lowering, id, reference.offset) else {
            refuse(
                lowering,
                Code::NotUnderstood,
                id,
                reference.offset,
                "no instruction stands here",
            );
            continue;
        };
        if let Target::Base(base) = reference.target {
            kept[index] = false;
            match set_page_offset(word, base.get() & 0xfff) {
                Some(word) => put_word(lowering, id, reference.offset, word),
                None => refuse(
                    lowering,
                    Code::Alignment,
                    id,
                    reference.offset,
                    format!("base rva {base} does not fit the scale"),
                ),
            }
        } else if form(word) == Some(Form::Adrp) {
            put_word(lowering, id, reference.offset, 0x5800_0000 | word & 31);
            references[index] = literal(reference.offset, slot);
        } else {
            refuse(
                lowering,
                Code::NotUnderstood,
                id,
                reference.offset,
                "a page formed by something other than adrp",
            );
        }
    }
}

/// Lowers a reference that stands alone; `None` where nothing is left to be aimed.
fn lower_single(
    lowering: &mut Lowering<'_>,
    id: PieceId,
    reference: &Reference,
) -> Option<Reference> {
    let offset = reference.offset;
    let is_instruction = matches!(reference.how, How::Instruction { .. });
    if !is_instruction || matches!(reference.target, Target::Piece(_)) {
        if !is_instruction && !matches!(reference.target, Target::Piece(_)) {
            let message = format!("data between code holds {}", describe(reference.target));
            refuse(lowering, Code::DataNotUnderstood, id, offset, message);
        }
        return Some(*reference);
    }
    let Target::Base(base) = reference.target else {
        let message = format!(
            "this instruction cannot reach {}",
            describe(reference.target)
        );
        refuse(lowering, Code::InstructionForm, id, offset, message);
        return None;
    };
    let word = word_at(lowering, id, offset);
    match (word, word.and_then(form)) {
        (Some(_), Some(Form::Branch26)) => {
            let thunk = lowering.thunk_to(base);
            Some(Reference {
                target: Target::Piece(Place::start(thunk)),
                ..*reference
            })
        }
        (Some(word), Some(Form::Adr)) => {
            let slot = lowering.address_slot(base);
            put_word(lowering, id, offset, 0x5800_0000 | word & 31);
            Some(literal(offset, slot))
        }
        (Some(word), _) => {
            let message = format!("instruction {word:#010x} cannot reach base rva {base}");
            refuse(lowering, Code::InstructionForm, id, offset, message);
            None
        }
        (None, _) => {
            refuse(
                lowering,
                Code::NotUnderstood,
                id,
                offset,
                "no instruction stands here",
            );
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aims_each_form() {
        // Expected words come from an assembler, not from this file.
        assert_eq!(aim(0x9400_0000, 0x1000, 0x1010), Some(0x9400_0004)); // bl .+16
        assert_eq!(aim(0x1400_0000, 0x1000, 0xffc), Some(0x17ff_ffff)); // b .-4
        assert_eq!(aim(0x9000_0008, 0x1ffc, 0x2010), Some(0xb000_0008)); // adrp x8, next page
        assert_eq!(aim(0x5800_0010, 0x1000, 0x1008), Some(0x5800_0050)); // ldr x16, .+8
        assert_eq!(aim(0x9100_0108, 0x1000, 0x2123), Some(0x9104_8d08)); // add x8, x8, #0x123
        assert_eq!(aim(0xf940_0108, 0x1000, 0x2128), Some(0xf940_9508)); // ldr x8, [x8, #0x128]
        assert_eq!(aim(0xf940_0108, 0x1000, 0x2124), None);
        assert_eq!(aim(0x3dc0_0100, 0x1000, 0x2120), Some(0x3dc0_4900)); // ldr q0, [x8, #0x120]
        assert_eq!(aim(0x5400_0000, 0x1000, 0x0020_0000), None);
        assert_eq!(aim(0x3600_0000, 0x1000, 0x1008), Some(0x3600_0040)); // tbz w0, #0, .+8
        assert_eq!(aim(0x1000_0000, 0x1000, 0x1001), Some(0x3000_0000)); // adr x0, .+1
    }
}
