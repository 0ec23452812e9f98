//! What becomes of an address, and which constant of an instruction differs from another's.

use iced_x86::{Decoder, DecoderOptions, FlowControl, Mnemonic, OpKind, Register};

/// Registers that a callee need not keep.
const VOLATILE: [Register; 7] = [
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

/// See [`super::super::is_compared`].
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

/// If two instructions differ in nothing but an immediate or a displacement, the two values.
pub(in crate::decode) fn constants_differing(base: &[u8], fixed: &[u8]) -> Option<(u64, u64)> {
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
    let outside = |at: usize| {
        let within = |start: usize, size: usize| (start..start + size).contains(&at);
        !within(b_at.immediate_offset(), b_at.immediate_size())
            && !within(b_at.displacement_offset(), b_at.displacement_size())
    };
    if (0..base.len()).any(|at| outside(at) && base[at] != fixed[at]) {
        return None;
    }
    // An immediate wins over a displacement, as that is where numbers of source are.
    let (start, size) = if b_at.has_immediate() {
        (b_at.immediate_offset(), b_at.immediate_size())
    } else {
        (b_at.displacement_offset(), b_at.displacement_size())
    };
    let value = |bytes: &[u8]| {
        let mut word = [0; 8];
        word[..size].copy_from_slice(bytes.get(start..start + size)?);
        Some(u64::from_le_bytes(word))
    };
    Some((value(base)?, value(fixed)?))
}
