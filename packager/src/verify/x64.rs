//! What x64 code in the image reaches, decoded anew.

use std::collections::BTreeSet;

use hpbuild_differ::decode::Field;
use iced_x86::{
    Code, Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, Mnemonic,
    OpAccess, OpKind, Register,
};

use super::Filled;
use super::walk::{Check, Walk, differs, word};
use crate::piece::{How, Piece, Reference, Target};

/// More instructions than the linker looks at, stubs and jumps back included.
const MAX_WAYS: usize = 4096;

fn decode_in(bytes: &[u8], ip: u64) -> Option<Instruction> {
    let instruction = Decoder::with_ip(64, bytes, ip, DecoderOptions::NONE).decode();
    (!instruction.is_invalid()).then_some(instruction)
}

/// The instruction at an address of the image, which must be in code.
fn decode_at(walk: &Walk<'_>, rva: i64) -> Result<Instruction, (String, String)> {
    let found = u32::try_from(rva).ok().and_then(|rva| {
        let section = walk
            .view
            .section_at(rva)
            .filter(|section| section.is_code())?;
        let rest = (section.rva + section.size - rva).min(15);
        decode_in(walk.view.bytes(rva, rest)?, rva.into())
    });
    found.ok_or_else(|| ("an instruction".to_string(), format!("rva {rva:#x}")))
}

fn branch_target(instruction: &Instruction) -> Option<i64> {
    (instruction.op0_kind() == OpKind::NearBranch64).then(|| instruction.near_branch64() as i64)
}

/// Whether a `[rip+d]` operand names a slot filled as wanted.
fn names_slot(walk: &Walk<'_>, instruction: &Instruction, wanted: Filled) -> bool {
    let address = instruction
        .is_ip_rel_memory_operand()
        .then(|| instruction.ip_rel_memory_address());
    let slot = address.and_then(|address| u32::try_from(address).ok());
    slot.is_some_and(|slot| walk.slots.get(&slot) == Some(&wanted))
}

/// `jmp [slot]` at `rva`.
pub(super) fn expect_thunk(walk: &Walk<'_>, rva: i64, wanted: Filled) -> Check {
    let thunk = decode_at(walk, rva)?;
    if thunk.code() == Code::Jmp_rm64 && names_slot(walk, &thunk, wanted) {
        return Ok(());
    }
    differs(format!("a thunk to {wanted:?}"), format!("`{thunk}`"))
}

/// `mov r11, [slot]; jmp [r11]` at `rva`.
fn expect_pointer_thunk(walk: &Walk<'_>, rva: i64, wanted: Filled) -> Check {
    let load = decode_at(walk, rva)?;
    let jump = decode_at(walk, rva + load.len() as i64)?;
    let right = load.code() == Code::Mov_r64_rm64
        && load.op0_register() == Register::R11
        && names_slot(walk, &load, wanted)
        && jump.code() == Code::Jmp_rm64
        && jump.memory_base() == Register::R11
        && jump.memory_index() == Register::None
        && jump.memory_displacement64() == 0;
    if right {
        Ok(())
    } else {
        differs(
            format!("a thunk through {wanted:?}"),
            format!("`{load}; {jump}`"),
        )
    }
}

/// Checks one reference of a piece at `rva`.
pub(super) fn check(
    walk: &mut Walk<'_>,
    piece: &Piece,
    rva: u32,
    bytes: &[u8],
    reference: &Reference,
) -> Check {
    let How::Instruction { field, .. } = reference.how else {
        return differs("an instruction", "data");
    };
    let at = reference.offset as usize;
    let place = u64::from(rva) + u64::from(reference.offset);
    let original = piece
        .bytes
        .get(at..)
        .and_then(|bytes| decode_in(bytes, place));
    let written = bytes.get(at..).and_then(|bytes| decode_in(bytes, place));
    let (Some(original), Some(written)) = (original, written) else {
        return differs("an instruction", "none");
    };
    if let Field::ImageRelative { at: field } = field {
        let Some(found) = word(bytes, at + usize::from(field)) else {
            return differs("four bytes", "the end");
        };
        return match reference.target {
            Target::Piece(target) => walk.found(target, found.into()),
            Target::Base(base) if base.get() == found => Ok(()),
            target => differs(format!("{target:?}"), format!("{found:#x}")),
        };
    }
    check_filling(&original, &written, &bytes[at..])?;
    if matches!(field, Field::Absolute { .. }) {
        return check_absolute(walk, &original, &written, reference);
    }
    let is_branch = branch_target(&original).is_some();
    match reference.target {
        Target::Piece(target) => {
            same_but_operand(&original, &written)?;
            let found = branch_target(&written).unwrap_or(written.ip_rel_memory_address() as i64);
            walk.found(target, found)
        }
        Target::PatchImageBase => {
            same_but_operand(&original, &written)?;
            if written.ip_rel_memory_address() == 0 {
                Ok(())
            } else {
                differs("the image base", format!("`{written}`"))
            }
        }
        Target::BaseValue(base) if original.mnemonic() != Mnemonic::Lea => {
            check_mirror(walk, &original, &written, Filled::ValueAt(base))
        }
        Target::Import(index) if original.mnemonic() != Mnemonic::Lea => {
            let base = walk.parts.imports[index as usize].slot;
            check_mirror(walk, &original, &written, Filled::ValueAt(base))
        }
        Target::Base(base) if is_branch => {
            same_but_operand(&original, &written)?;
            expect_thunk(
                walk,
                branch_target(&written).unwrap_or(-1),
                Filled::AddressOf(base),
            )
        }
        Target::Base(base) | Target::BaseValue(base) => check_base(walk, &original, &written, base),
        Target::Import(index) => {
            let base = walk.parts.imports[index as usize].slot;
            check_base(walk, &original, &written, base)
        }
        Target::OfUsers => differs("an x64 target", "a page"),
    }
}

/// Behind a shorter replacement: a nop where it is reached, traps where it is not.
fn check_filling(original: &Instruction, written: &Instruction, bytes: &[u8]) -> Check {
    let filling = bytes.get(written.len()..original.len().max(written.len()));
    let right = filling.is_some_and(|filling| match written.mnemonic() {
        Mnemonic::Jmp => filling.iter().all(|byte| *byte == 0xcc),
        _ => filling.is_empty() || filling == [0x0f, 0x1f, 0x00],
    });
    if right {
        Ok(())
    } else {
        differs("filling", format!("{filling:x?}"))
    }
}

/// An operand in the base: through `mov`, thunk or stub.
fn check_base(
    walk: &Walk<'_>,
    original: &Instruction,
    written: &Instruction,
    base: hpbuild_metadata::Rva<hpbuild_metadata::Base>,
) -> Check {
    let wanted = Filled::AddressOf(base);
    let is_same_length = written.len() == original.len();
    match original.code() {
        _ if original.mnemonic() == Mnemonic::Lea => {
            let right = written.mnemonic() == Mnemonic::Mov
                && is_same_length
                && written.op0_register() == original.op0_register()
                && names_slot(walk, written, wanted);
            if right {
                Ok(())
            } else {
                differs(format!("a load of {wanted:?}"), format!("`{written}`"))
            }
        }
        Code::Call_rm64 if written.code() == Code::Call_rel32_64 && is_same_length => {
            expect_pointer_thunk(walk, branch_target(written).unwrap_or(-1), wanted)
        }
        Code::Jmp_rm64 if written.code() == Code::Jmp_rel32_64 => {
            expect_pointer_thunk(walk, branch_target(written).unwrap_or(-1), wanted)
        }
        _ if written.code() == Code::Jmp_rel32_64 => check_stub(walk, original, written, wanted),
        _ => differs(format!("a way to {wanted:?}"), format!("`{written}`")),
    }
}

/// The moved instruction between loading its register and jumping back.
fn check_stub(
    walk: &Walk<'_>,
    original: &Instruction,
    written: &Instruction,
    wanted: Filled,
) -> Check {
    let mut next = branch_target(written).unwrap_or(-1);
    let mut step = || {
        let instruction = decode_at(walk, next)?;
        next += instruction.len() as i64;
        Ok::<_, (String, String)>(instruction)
    };
    let mut current = step()?;
    let saved = (current.code() == Code::Push_r64).then(|| current.op0_register());
    if saved.is_some() {
        current = step()?;
    }
    let register = current.op0_register();
    if current.code() != Code::Mov_r64_rm64 || !names_slot(walk, &current, wanted) {
        return differs(format!("a load of {wanted:?}"), format!("`{current}`"));
    }
    let moved = step()?;
    let operands_agree = moved.op_count() == original.op_count()
        && (0..moved.op_count()).all(|at| {
            moved.op_kind(at) == original.op_kind(at)
                && match moved.op_kind(at) {
                    OpKind::Register => moved.op_register(at) == original.op_register(at),
                    OpKind::Memory => true,
                    _ => moved.immediate(at) == original.immediate(at),
                }
        });
    let agrees = moved.code() == original.code()
        && operands_agree
        && moved.memory_base() == register
        && moved.memory_index() == Register::None
        && moved.memory_displacement64() == 0
        && moved.has_lock_prefix() == original.has_lock_prefix()
        && moved.memory_size() == original.memory_size();
    if !agrees {
        return differs(
            format!("`{original}` through {register:?}"),
            format!("`{moved}`"),
        );
    }
    if let Some(saved) = saved {
        let restore = step()?;
        let right =
            saved == register && restore.code() == Code::Pop_r64 && restore.op0_register() == saved;
        if !right {
            return differs(format!("pop {saved:?}"), format!("`{restore}`"));
        }
    } else if !is_free(walk, original, register) {
        let found = format!("{register:?} for `{original}`");
        return differs("a register that nothing needs", found);
    }
    let back = step()?;
    if branch_target(&back) == Some(original.next_ip() as i64) && back.mnemonic() == Mnemonic::Jmp {
        return Ok(());
    }
    differs(
        format!("a jump back to {:#x}", original.next_ip()),
        format!("`{back}`"),
    )
}

/// Whether `original` writes all of `register` and reads none of it.
fn overwrites(original: &Instruction, register: Register) -> bool {
    let mut factory = InstructionInfoFactory::new();
    let info = factory.info(original);
    let accesses: Vec<_> = info
        .used_registers()
        .iter()
        .filter(|used| used.register().full_register() == register)
        .map(|used| (used.access(), used.register().size()))
        .collect();
    !accesses.is_empty()
        && accesses
            .iter()
            .all(|(access, size)| *access == OpAccess::Write && *size >= 4)
}

/// Whether nothing needs what `register` holds around `original`.
fn is_free(walk: &Walk<'_>, original: &Instruction, register: Register) -> bool {
    overwrites(original, register)
        || (is_volatile(register) && is_overwritten_behind(walk, original, register))
}

/// Whether the code behind `original`, as it stands in the image, overwrites `register` on every
/// way before an instruction names it otherwise. What cannot be followed counts as a use.
fn is_overwritten_behind(walk: &Walk<'_>, original: &Instruction, register: Register) -> bool {
    let mut factory = InstructionInfoFactory::new();
    let mut seen = BTreeSet::new();
    let mut ways = vec![original.next_ip() as i64];
    while let Some(at) = ways.pop() {
        if seen.contains(&at) {
            continue;
        }
        let Ok(instruction) = decode_at(walk, at) else {
            return false;
        };
        seen.insert(at);
        if overwrites(&instruction, register) {
            continue;
        }
        let info = factory.info(&instruction);
        let names = |used: Register| used.full_register() == register;
        if seen.len() > MAX_WAYS || info.used_registers().iter().any(|u| names(u.register())) {
            return false;
        }
        let next = at + instruction.len() as i64;
        match (instruction.flow_control(), branch_target(&instruction)) {
            (FlowControl::Next, _) => ways.push(next),
            (FlowControl::UnconditionalBranch, Some(target)) => ways.push(target),
            (FlowControl::ConditionalBranch, Some(target)) => ways.extend([next, target]),
            _ => return false,
        }
    }
    true
}

fn is_volatile(register: Register) -> bool {
    use Register::{R8, R9, R10, R11, RAX, RCX, RDX};
    [RAX, RCX, RDX, R8, R9, R10, R11].contains(&register)
}

/// An import or mirrored pointer: the same instruction on the patch's own slot.
fn check_mirror(
    walk: &Walk<'_>,
    original: &Instruction,
    written: &Instruction,
    wanted: Filled,
) -> Check {
    same_but_operand(original, written)?;
    if names_slot(walk, written, wanted) {
        Ok(())
    } else {
        differs(format!("{wanted:?}"), format!("`{written}`"))
    }
}

/// A virtual address in an instruction becomes a load of a slot.
fn check_absolute(
    walk: &mut Walk<'_>,
    original: &Instruction,
    written: &Instruction,
    reference: &Reference,
) -> Check {
    let right = written.code() == Code::Mov_r64_rm64
        && written.op0_register() == original.op0_register()
        && written.is_ip_rel_memory_operand();
    if !right {
        return differs("a load of a slot", format!("`{written}`"));
    }
    match reference.target {
        Target::Base(base) if names_slot(walk, written, Filled::AddressOf(base)) => Ok(()),
        Target::Piece(place) => {
            let slot = u32::try_from(written.ip_rel_memory_address()).unwrap_or(0);
            let address = walk
                .view
                .u64(slot)
                .and_then(|address| address.checked_sub(walk.view.image_base));
            match address {
                Some(rva) if walk.view.relocations.contains(&slot) => walk.found(place, rva as i64),
                other => differs("a relocated pointer", format!("{other:x?}")),
            }
        }
        target => differs(format!("{target:?}"), format!("`{written}`")),
    }
}

/// The instruction stayed as it was but for where it points.
fn same_but_operand(original: &Instruction, written: &Instruction) -> Check {
    let same = original.code() == written.code()
        && original.len() == written.len()
        && original.op_count() == written.op_count()
        && original.has_lock_prefix() == written.has_lock_prefix()
        && original.is_ip_rel_memory_operand() == written.is_ip_rel_memory_operand()
        && (0..original.op_count()).all(|at| {
            original.op_kind(at) == written.op_kind(at)
                && match original.op_kind(at) {
                    OpKind::Register => original.op_register(at) == written.op_register(at),
                    OpKind::Memory | OpKind::NearBranch64 => true,
                    _ => original.immediate(at) == written.immediate(at),
                }
        });
    if same {
        Ok(())
    } else {
        differs(
            format!("`{original}` aimed elsewhere"),
            format!("`{written}`"),
        )
    }
}
