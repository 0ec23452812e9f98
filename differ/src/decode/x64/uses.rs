//! What single instructions do with an address or a constant.

use iced_x86::{Decoder, DecoderOptions, FlowControl, Mnemonic, OpKind, Register};

use crate::decode::{Constants, Flow};

/// Registers that a callee need not keep.
pub(super) const VOLATILE: [Register; 7] = [
    Register::RAX,
    Register::RCX,
    Register::RDX,
    Register::R8,
    Register::R9,
    Register::R10,
    Register::R11,
];

/// How many instructions behind an address its register is looked for.
const USE_WINDOW: usize = 64;

/// See [`crate::decode::index_scale`].
pub(in crate::decode) fn index_scale(bytes: &[u8], offset: u32) -> Option<u32> {
    let rest = bytes.get(offset as usize..)?;
    let iced = Decoder::with_ip(64, rest, 0, DecoderOptions::NONE).decode();
    let is_indexed = iced.memory_index() != Register::None;
    is_indexed.then(|| iced.memory_index_scale())
}

/// See [`crate::decode::runs_on`].
pub(in crate::decode) fn runs_on(instruction: &[u8]) -> Option<bool> {
    let iced = Decoder::with_ip(64, instruction, 0, DecoderOptions::NONE).decode();
    if iced.mnemonic() == Mnemonic::Nop {
        return None;
    }
    let goes_on = matches!(
        iced.flow_control(),
        FlowControl::Next | FlowControl::ConditionalBranch
    );
    let is_whole = iced.len() == instruction.len();
    Some(goes_on && is_whole && iced.mnemonic() != Mnemonic::Hlt)
}

/// See [`crate::decode::flow`].
pub(in crate::decode) fn flow(instruction: &[u8]) -> Flow {
    let iced = Decoder::with_ip(64, instruction, 0, DecoderOptions::NONE).decode();
    if iced.is_invalid() || iced.mnemonic() == Mnemonic::Hlt {
        return Flow::Trap;
    }
    match iced.flow_control() {
        // What aborts a transaction goes on elsewhere, and that is its operand.
        FlowControl::XbeginXabortXend => Flow::ConditionalJump,
        FlowControl::Next => Flow::Next,
        FlowControl::Call | FlowControl::IndirectCall => Flow::Call,
        FlowControl::UnconditionalBranch => Flow::Jump,
        FlowControl::ConditionalBranch => Flow::ConditionalJump,
        // A table is read with an index; a table of methods, or a slot, is not.
        FlowControl::IndirectBranch => {
            let is_slot = iced.op0_kind() == OpKind::Memory;
            match is_slot && iced.memory_index() == Register::None {
                true => Flow::Away,
                false => Flow::Indirect,
            }
        }
        FlowControl::Return => Flow::Return,
        FlowControl::Interrupt | FlowControl::Exception => Flow::Trap,
    }
}

/// See [`crate::decode::is_compared`].
pub(in crate::decode) fn is_compared(bytes: &[u8], offset: u32) -> bool {
    let rest = bytes.get(offset as usize..).unwrap_or_default();
    let mut decoder = Decoder::with_ip(64, rest, 0, DecoderOptions::NONE);
    let register = decoder.decode().op0_register();
    let mut info = iced_x86::InstructionInfoFactory::new();
    for iced in decoder.iter().take(USE_WINDOW) {
        let registers = info.info(&iced).used_registers();
        if registers
            .iter()
            .any(|used| used.register().full_register() == register)
        {
            let whole = [iced.op0_kind(), iced.op1_kind()]
                .into_iter()
                .zip([iced.op0_register(), iced.op1_register()])
                .any(|(kind, held)| kind == OpKind::Register && held == register);
            return iced.mnemonic() == Mnemonic::Cmp && whole;
        }
        // The comparison may stand at the end of a loop, behind calls; never behind the function.
        match iced.flow_control() {
            FlowControl::Call | FlowControl::IndirectCall if VOLATILE.contains(&register) => {
                return false;
            }
            FlowControl::Return | FlowControl::Interrupt | FlowControl::Exception => return false,
            _ => {}
        }
    }
    false
}

/// If two instructions differ in nothing but an immediate or a displacement, what that is.
pub(in crate::decode) fn constants_differing(base: &[u8], fixed: &[u8]) -> Option<Constants> {
    let read = |bytes| {
        let mut decoder = Decoder::with_ip(64, bytes, 0, DecoderOptions::NONE);
        let iced = decoder.decode();
        let at = decoder.get_constant_offsets(&iced);
        (!iced.is_invalid() && iced.len() == bytes.len()).then_some((iced, at))
    };
    let ((b, b_at), (f, f_at)) = (read(base)?, read(fixed)?);
    if b.code() != f.code() || b_at != f_at {
        return None;
    }
    let immediate = (b_at.immediate_offset(), b_at.immediate_size());
    let displacement = (b_at.displacement_offset(), b_at.displacement_size());
    let differs = |(start, size): (usize, usize)| {
        let range = start..start + size;
        base.get(range.clone()) != fixed.get(range)
    };
    let (start, size) = match (differs(immediate), differs(displacement)) {
        (true, false) => immediate,
        (false, true) => displacement,
        _ => return None,
    };
    let outside = |at: usize| !(start..start + size).contains(&at);
    if (0..base.len()).any(|at| outside(at) && base[at] != fixed[at]) {
        return None;
    }
    let value = |bytes: &[u8]| {
        let mut word = [0; 8];
        word.get_mut(..size)?
            .copy_from_slice(bytes.get(start..start + size)?);
        Some(u64::from_le_bytes(word))
    };
    let moves = matches!(b.mnemonic(), Mnemonic::Mov | Mnemonic::Push);
    Some(Constants {
        base: value(base)?,
        fixed: value(fixed)?,
        is_moved: moves && start == immediate.0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_control_goes() {
        for (instruction, expected) in [
            (&[0x90][..], Flow::Next),
            (&[0xe8, 0, 0, 0, 0], Flow::Call),
            (&[0xff, 0x15, 0, 0, 0, 0], Flow::Call),
            (&[0xeb, 0], Flow::Jump),
            (&[0x74, 0], Flow::ConditionalJump),
            // jmp rax, jmp [rax+rcx*8]; jmp [rip], jmp [rax+8]
            (&[0xff, 0xe0], Flow::Indirect),
            (&[0xff, 0x24, 0xc8], Flow::Indirect),
            (&[0xff, 0x25, 0, 0, 0, 0], Flow::Away),
            (&[0xff, 0x60, 8], Flow::Away),
            (&[0xc3], Flow::Return),
            // int3, int 29h, ud2, hlt, no instruction
            (&[0xcc], Flow::Trap),
            (&[0xcd, 0x29], Flow::Trap),
            (&[0x0f, 0x0b], Flow::Trap),
            (&[0xf4], Flow::Trap),
            (&[0x06], Flow::Trap),
        ] {
            assert_eq!(flow(instruction), expected, "{instruction:x?}");
        }
    }

    /// Only what is put somewhere may be the number of a line, and only where nothing else differs.
    #[test]
    fn constants_that_differ() {
        let differing = |base: &[u8], fixed: &[u8]| {
            constants_differing(base, fixed).map(|it| (it.base, it.fixed, it.is_moved))
        };
        // mov edx, 57
        assert_eq!(
            differing(&[0xba, 57, 0, 0, 0], &[0xba, 58, 0, 0, 0]),
            Some((57, 58, true))
        );
        // mov dword [rcx+4], 57 and [rcx+8], 57: another place, and [rcx+8], 58.
        let store = |at, value| [0xc7, 0x41, at, value, 0, 0, 0];
        assert_eq!(differing(&store(4, 57), &store(8, 57)), Some((4, 8, false)));
        assert_eq!(
            differing(&store(4, 57), &store(4, 58)),
            Some((57, 58, true))
        );
        assert_eq!(differing(&store(4, 57), &store(8, 58)), None);
        // cmp ecx, 57 and add ecx, 57
        for (opcode, register) in [(0x83, 0xf9), (0x83, 0xc1)] {
            assert_eq!(
                differing(&[opcode, register, 57], &[opcode, register, 58]),
                Some((57, 58, false))
            );
        }
    }
}
