//! What kind of number an instruction reads.

use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction as Iced, MemorySize, Mnemonic};

use crate::decode::Access;

/// How many instructions behind an address the first access through it is looked for.
const WINDOW: usize = 16;

/// See [`crate::decode::access`].
pub(in crate::decode) fn access(bytes: &[u8], offset: u32) -> Option<Access> {
    let rest = bytes.get(offset as usize..)?;
    let mut decoder = Decoder::with_ip(64, rest, 0, DecoderOptions::NONE);
    let first = decoder.decode();
    if first.mnemonic() != Mnemonic::Lea && first.memory_size() != MemorySize::Unknown {
        return of(&first);
    }
    let register = first.op0_register();
    if !register.is_gpr64() {
        return None;
    }
    let mut info = iced_x86::InstructionInfoFactory::new();
    for iced in decoder.iter().take(WINDOW) {
        let through = iced.memory_base() == register || iced.memory_index() == register;
        if through && iced.mnemonic() != Mnemonic::Lea {
            return of(&iced);
        }
        let is_write = |used: &iced_x86::UsedRegister| {
            use iced_x86::OpAccess::{CondWrite, ReadCondWrite, ReadWrite, Write};
            used.register().full_register() == register
                && matches!(used.access(), Write | CondWrite | ReadWrite | ReadCondWrite)
        };
        let goes_on = matches!(
            iced.flow_control(),
            FlowControl::Next | FlowControl::ConditionalBranch
        );
        if !goes_on || info.info(&iced).used_registers().iter().any(is_write) {
            return None;
        }
    }
    None
}

fn of(iced: &Iced) -> Option<Access> {
    let element = iced.memory_size().element_type();
    let size = u8::try_from(element.size()).ok()?;
    Some(Access {
        size,
        signed: element.is_signed() && !is_float(element),
        float: is_float(element),
    })
    .filter(|_| (1..=16).contains(&size))
}

fn is_float(element: MemorySize) -> bool {
    matches!(element, MemorySize::Float32 | MemorySize::Float64)
}
