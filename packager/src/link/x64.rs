//! x64: how each form of instruction reaches the base without changing its length.
//!
//! ```text
//! call f            call thunk             thunk: jmp [slot of f]
//! lea rax, [g]      mov rax, [slot of g]
//! mov eax, [g]      jmp stub               stub:  mov rax, [slot of g]; mov eax, [rax]; jmp back
//! call [g]          addr32 call thunk      thunk: mov r11, [slot of g]; jmp [r11]
//! call [__imp_f]    call [own slot of f]
//! ```
//!
//! A `call` keeps its length so that the return address keeps its place: scope tables and unwind
//! info see the same code as in the fixed image.

mod liveness;
mod stub;
mod unwind;

use hpbuild_differ::decode::{Field, ReferenceKind};
use hpbuild_metadata::{Base, Rva};
use iced_x86::{Code as Opcode, Instruction, Mnemonic, OpKind, Register};

use super::lower::{Lowering, describe, new_piece, relative};
use crate::piece::{How, Piece, PieceId, Place, Reference, Room, Target};
use crate::refusal::Code;

/// `jmp [slot]`.
pub(super) fn thunk(base: Rva<Base>, slot: Place) -> Piece {
    let reference = relative(0, 6, 2, ReferenceKind::Memory(8), slot);
    let name = format!("thunk to base+{base}");
    new_piece(
        &name,
        Room::Code,
        8,
        vec![0xff, 0x25, 0, 0, 0, 0],
        vec![reference],
    )
}

/// `mov r11, [slot]; jmp [r11]`: r11 carries nothing over a call.
pub(super) fn pointer_thunk(base: Rva<Base>, slot: Place) -> Piece {
    let reference = relative(0, 7, 3, ReferenceKind::Memory(8), slot);
    let name = format!("thunk through base+{base}");
    let bytes = vec![0x4c, 0x8b, 0x1d, 0, 0, 0, 0, 0x41, 0xff, 0x23];
    new_piece(&name, Room::Code, 16, bytes, vec![reference])
}

/// Lowers one piece of code.
pub(super) fn lower_code(lowering: &mut Lowering<'_>, id: PieceId) {
    let parts = lowering.parts;
    let piece = parts.piece(id);
    check_image_base(lowering, id);
    let mut kept = Vec::with_capacity(piece.references.len());
    for reference in &piece.references {
        let How::Instruction { length, field, .. } = reference.how else {
            // Data within code: jump tables between instructions.
            match reference.target {
                Target::Piece(_) => kept.push(*reference),
                target => lowering.refuse(
                    Code::DataNotUnderstood,
                    id,
                    reference.offset,
                    format!("data between code holds {}", describe(target)),
                ),
            }
            continue;
        };
        let decoded = liveness::decode_at(&piece.bytes, reference.offset)
            .filter(|instruction| instruction.len() == usize::from(length));
        let Some(instruction) = decoded else {
            lowering.refuse(
                Code::NotUnderstood,
                id,
                reference.offset,
                "no instruction stands here".into(),
            );
            continue;
        };
        let site = Site {
            id,
            offset: reference.offset,
            instruction,
            field,
        };
        match field {
            Field::Relative { size: 4, .. } => {
                kept.extend(lower_relative(lowering, &site, reference))
            }
            Field::Relative { .. } => lowering.refuse(
                Code::ShortBranch,
                id,
                reference.offset,
                format!("a one-byte branch to {}", describe(reference.target)),
            ),
            Field::ImageRelative { at } => {
                kept.extend(lower_image_relative(lowering, &site, reference, at))
            }
            Field::Absolute { .. } => kept.extend(lower_absolute(lowering, &site, reference)),
            Field::Word { .. } => {
                lowering.refuse(
                    Code::NotUnderstood,
                    id,
                    reference.offset,
                    "an Arm64 field in x64 code".into(),
                );
            }
        }
    }
    lowering.pieces[id.index()].references = kept;
}

/// The instruction with the reference that is being lowered.
struct Site {
    id: PieceId,
    offset: u32,
    instruction: Instruction,
    field: Field,
}

/// Overwrites a whole instruction: `bytes`, then filling.
fn rewrite(lowering: &mut Lowering<'_>, site: &Site, bytes: &[u8], fill: u8) {
    let start = site.offset as usize;
    let end = start + site.instruction.len();
    let target = &mut lowering.pieces[site.id.index()].bytes[start..end];
    target.fill(fill);
    target[..bytes.len()].copy_from_slice(bytes);
}

fn lower_relative(
    lowering: &mut Lowering<'_>,
    site: &Site,
    reference: &Reference,
) -> Option<Reference> {
    let aimed = |place| {
        Some(Reference {
            target: Target::Piece(place),
            ..*reference
        })
    };
    let is_branch = site.instruction.op0_kind() == OpKind::NearBranch64;
    let is_lea = site.instruction.mnemonic() == Mnemonic::Lea;
    let base = match reference.target {
        Target::Piece(_) | Target::PatchImageBase => return Some(*reference),
        Target::Base(base) => base,
        // The address of a pointer that the patch only mirrors is the base's.
        Target::BaseValue(base) if is_lea => base,
        Target::Import(index) if is_lea => lowering.parts.imports.get(index as usize)?.slot,
        Target::BaseValue(base) if reads_pointer(site) => return aimed(lowering.value_slot(base)),
        Target::Import(index) if reads_pointer(site) => {
            return match lowering.import_slot(index) {
                Some(slot) => aimed(slot),
                None => refuse_form(lowering, site, "an import that is not in the list"),
            };
        }
        Target::BaseValue(_) | Target::Import(_) => {
            return refuse_form(
                lowering,
                site,
                "something other than a read of a mirrored pointer",
            );
        }
        Target::OfUsers => return refuse_form(lowering, site, "a page"),
    };
    if is_branch {
        return aimed(Place::start(lowering.thunk_to(base)));
    }
    if !site.instruction.is_ip_rel_memory_operand()
        || site.instruction.memory_base() != Register::RIP
        || site.instruction.has_segment_prefix()
    {
        return refuse_form(
            lowering,
            site,
            "an operand that is not relative to rip in the plain way",
        );
    }
    if is_lea {
        return lower_lea(lowering, site, reference, base);
    }
    match site.instruction.code() {
        Opcode::Call_rm64 => lower_pointer_call(lowering, site, base),
        Opcode::Jmp_rm64 => {
            let thunk = lowering.thunk_through(base);
            rewrite(lowering, site, &[0xe9, 0, 0, 0, 0], 0xcc);
            Some(relative(
                site.offset,
                5,
                1,
                ReferenceKind::Jump,
                Place::start(thunk),
            ))
        }
        _ => {
            let stub = stub::add(lowering, site, base)?;
            rewrite(lowering, site, &[0xe9, 0, 0, 0, 0], 0xcc);
            Some(relative(
                site.offset,
                5,
                1,
                ReferenceKind::Jump,
                Place::start(stub),
            ))
        }
    }
}

/// `lea r, [g]` becomes `mov r, [slot]`: the opcode byte stands two before the displacement, and
/// a narrower `lea` truncates as a narrower load does.
fn lower_lea(
    lowering: &mut Lowering<'_>,
    site: &Site,
    reference: &Reference,
    base: Rva<Base>,
) -> Option<Reference> {
    let Field::Relative { at, .. } = site.field else {
        return refuse_form(lowering, site, "an address without displacement");
    };
    let opcode = site.offset as usize + usize::from(at).checked_sub(2)?;
    let byte = lowering.pieces[site.id.index()].bytes.get_mut(opcode);
    match byte {
        Some(byte) if *byte == 0x8d => *byte = 0x8b,
        _ => return refuse_form(lowering, site, "an unusual encoding of lea"),
    }
    let slot = lowering.address_slot(base);
    Some(Reference {
        target: Target::Piece(slot),
        ..*reference
    })
}

/// `call [g]` becomes a prefixed `call thunk` of the same length.
fn lower_pointer_call(
    lowering: &mut Lowering<'_>,
    site: &Site,
    base: Rva<Base>,
) -> Option<Reference> {
    let length = site.instruction.len();
    if !(6..=7).contains(&length) {
        return refuse_form(lowering, site, "an unusual encoding of call");
    }
    let thunk = lowering.thunk_through(base);
    // The address-size prefix means nothing to a direct call; a second one neither.
    let mut bytes = vec![0x67; length - 5];
    bytes.extend([0xe8, 0, 0, 0, 0]);
    rewrite(lowering, site, &bytes, 0xcc);
    let at = (length - 4) as u8;
    Some(relative(
        site.offset,
        length as u8,
        at,
        ReferenceKind::Call,
        Place::start(thunk),
    ))
}

fn lower_image_relative(
    lowering: &mut Lowering<'_>,
    site: &Site,
    reference: &Reference,
    at: u8,
) -> Option<Reference> {
    match reference.target {
        Target::Piece(_) => Some(*reference),
        Target::Base(base) => {
            let start = site.offset as usize + usize::from(at);
            match lowering.pieces[site.id.index()]
                .bytes
                .get_mut(start..start + 4)
            {
                Some(field) => field.copy_from_slice(&base.get().to_le_bytes()),
                None => return refuse_form(lowering, site, "a displacement outside the function"),
            }
            None
        }
        target => refuse_form(
            lowering,
            site,
            &format!("an image-relative operand for {}", describe(target)),
        ),
    }
}

/// `mov r, imm64` (10 bytes) becomes `mov r, [slot]` (7 bytes) and a three-byte nop, so that the
/// code needs no base relocation.
fn lower_absolute(
    lowering: &mut Lowering<'_>,
    site: &Site,
    reference: &Reference,
) -> Option<Reference> {
    if site.instruction.code() != Opcode::Mov_r64_imm64 || site.instruction.len() != 10 {
        return refuse_form(lowering, site, "a virtual address");
    }
    let slot = match reference.target {
        Target::Base(base) => lowering.address_slot(base),
        Target::Piece(place) => lowering.patch_slot(place),
        target => {
            return refuse_form(
                lowering,
                site,
                &format!("the address of {}", describe(target)),
            );
        }
    };
    let number = site.instruction.op0_register().number() as u8;
    let mut bytes = load_slot(number).to_vec();
    bytes.extend([0x0f, 0x1f, 0x00]);
    rewrite(lowering, site, &bytes, 0xcc);
    Some(relative(site.offset, 7, 3, ReferenceKind::Memory(8), slot))
}

/// `mov r64, [rip+0]`.
fn load_slot(number: u8) -> [u8; 7] {
    [
        0x48 | (number >> 3) << 2,
        0x8b,
        0x05 | (number & 7) << 3,
        0,
        0,
        0,
        0,
    ]
}

/// Whether the instruction only reads the eight bytes it points at.
fn reads_pointer(site: &Site) -> bool {
    let mut factory = iced_x86::InstructionInfoFactory::new();
    let info = factory.info(&site.instruction);
    site.instruction.is_ip_rel_memory_operand()
        && info
            .used_memory()
            .iter()
            .filter(|memory| memory.base() == Register::RIP || memory.base() == Register::None)
            .all(|memory| {
                memory.memory_size().size() == 8
                    && matches!(memory.access(), iced_x86::OpAccess::Read)
            })
}

/// A function that adds image-relative addresses to one image base must add those of one image.
fn check_image_base(lowering: &mut Lowering<'_>, id: PieceId) {
    let piece = lowering.parts.piece(id);
    let operands = || {
        piece.references.iter().filter(|reference| {
            matches!(
                reference.how,
                How::Instruction {
                    field: Field::ImageRelative { .. },
                    ..
                }
            )
        })
    };
    let of_patch = |reference: &&Reference| matches!(reference.target, Target::Piece(_));
    if let (Some(own), Some(_)) = (operands().find(of_patch), operands().find(|r| !of_patch(r))) {
        lowering.refuse(
            Code::MixedImageBase,
            id,
            own.offset,
            "addresses relative to both images are added to the image base".into(),
        );
    }
}

fn refuse_form<T>(lowering: &mut Lowering<'_>, site: &Site, what: &str) -> Option<T> {
    let message = format!("`{}`: {what}", site.instruction);
    lowering.refuse(Code::InstructionForm, site.id, site.offset, message);
    None
}
