//! Which registers hold nothing that is needed behind an instruction.
//!
//! A register is free at a place when every path from there overwrites it before anything can
//! read it. Whatever cannot be followed (calls, returns, jumps through registers, jumps out of the
//! function, interrupts) counts as reading everything, so no calling convention is relied upon.

use iced_x86::{
    Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, OpAccess, OpKind,
    Register,
};
use rustc_hash::FxHashSet;

/// Enough for any path that ends soon; a longer one counts as reading everything.
const MAX_INSTRUCTIONS: usize = 256;

/// Whether `register` (64 bits wide) is overwritten on every path from `offset` of `code` before
/// it may be read.
pub(super) fn is_free(code: &[u8], offset: u32, register: Register) -> bool {
    let mut info = InstructionInfoFactory::new();
    let mut seen = FxHashSet::default();
    let mut open = vec![offset];
    while let Some(at) = open.pop() {
        if !seen.insert(at) {
            continue;
        }
        let Some(instruction) = (seen.len() <= MAX_INSTRUCTIONS)
            .then(|| decode_at(code, at))
            .flatten()
        else {
            return false;
        };
        match effect(&mut info, &instruction, register) {
            Effect::Reads => return false,
            Effect::Overwrites => continue,
            Effect::None => {}
        }
        let next = u32::try_from(instruction.next_ip()).ok();
        let target = || {
            let near = instruction.op0_kind() == OpKind::NearBranch64;
            near.then(|| u32::try_from(instruction.near_branch64()).ok())
                .flatten()
        };
        let followed = match instruction.flow_control() {
            FlowControl::Next => [next, next],
            FlowControl::UnconditionalBranch => [target(), target()],
            FlowControl::ConditionalBranch => [next, target()],
            _ => return false,
        };
        for way in followed {
            match way {
                Some(way) if (way as usize) < code.len() => open.push(way),
                _ => return false,
            }
        }
    }
    true
}

/// The instruction at `offset`, with addresses counted from the start of `code`.
pub(super) fn decode_at(code: &[u8], offset: u32) -> Option<Instruction> {
    let bytes = code.get(offset as usize..)?;
    let instruction = Decoder::with_ip(64, bytes, offset.into(), DecoderOptions::NONE).decode();
    (!instruction.is_invalid()).then_some(instruction)
}

enum Effect {
    None,
    Reads,
    Overwrites,
}

fn effect(
    info: &mut InstructionInfoFactory,
    instruction: &Instruction,
    register: Register,
) -> Effect {
    let info = info.info(instruction);
    let mut overwrites = false;
    for used in info.used_registers() {
        if used.register().full_register() != register {
            continue;
        }
        match used.access() {
            OpAccess::None | OpAccess::NoMemAccess => {}
            // Writing 32 bits clears the upper half; writing fewer keeps the rest.
            OpAccess::Write if used.register().size() >= 4 => overwrites = true,
            _ => return Effect::Reads,
        }
    }
    for memory in info.used_memory() {
        if [memory.base(), memory.index()]
            .iter()
            .any(|used| used.full_register() == register)
        {
            return Effect::Reads;
        }
    }
    if overwrites {
        Effect::Overwrites
    } else {
        Effect::None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overwritten_on_every_path() {
        // mov rax, 1 / ret: rax is overwritten first.
        assert!(is_free(
            &[0x48, 0xc7, 0xc0, 1, 0, 0, 0, 0xc3],
            0,
            Register::RAX
        ));
        // mov eax, 1 clears the upper half too.
        assert!(is_free(&[0xb8, 1, 0, 0, 0, 0xc3], 0, Register::RAX));
        // mov al, 1 does not.
        assert!(!is_free(&[0xb0, 1, 0xc3], 0, Register::RAX));
        // je +2 / xor-like read on one path: inc eax; the other writes.
        assert!(!is_free(
            &[0x74, 0x02, 0xff, 0xc0, 0xb8, 1, 0, 0, 0, 0xc3],
            0,
            Register::RAX
        ));
        // je +5 / mov eax,1 / mov eax,2: both paths write.
        let both = [0x74, 0x05, 0xb8, 1, 0, 0, 0, 0xb8, 2, 0, 0, 0, 0xc3];
        assert!(is_free(&both, 0, Register::RAX));
    }

    #[test]
    fn unknown_ways_read_everything() {
        assert!(!is_free(&[0xc3], 0, Register::R11));
        assert!(!is_free(
            &[0xe8, 0, 0, 0, 0, 0x41, 0xbb, 1, 0, 0, 0],
            0,
            Register::R11
        ));
        assert!(!is_free(&[0xff, 0xe0], 0, Register::R11));
        assert!(!is_free(&[0x90], 0, Register::R11));
        // An endless loop never reads it.
        assert!(is_free(&[0xeb, 0xfe], 0, Register::R11));
        // A conditional move reads what it may keep: cmove eax, ecx.
        assert!(!is_free(
            &[0x0f, 0x44, 0xc1, 0xb8, 1, 0, 0, 0, 0xc3],
            0,
            Register::RAX
        ));
        // mov rax, [rax] reads it first.
        assert!(!is_free(&[0x48, 0x8b, 0x00, 0xc3], 0, Register::RAX));
    }
}
