//! Addresses that code keeps, compares or hands on.

use std::ops::ControlFlow;

use iced_x86::{
    Decoder, DecoderOptions, FlowControl, Instruction as Iced, InstructionInfoFactory, Mnemonic,
    OpAccess, OpKind, Register,
};

use super::back::is_copy;
use super::follow::{Through, follow};
use super::registers::RegisterSet;
use crate::decode::{Escape, Seen};

/// Within so many bytes of its start a function makes its frame.
const PROLOGUE: usize = 48;

/// See [`crate::decode::escape`].
pub(in crate::decode) fn escape(bytes: &[u8], offset: u32) -> Option<Escape> {
    let (stored, seen) = uses(bytes, offset);
    stored.or_else(|| seen.escape())
}

/// See [`crate::decode::is_only_compared`].
pub(in crate::decode) fn is_only_compared(bytes: &[u8], offset: u32) -> bool {
    let (stored, seen) = uses(bytes, offset);
    let is_kept = stored.is_some() || seen.is_lost || seen.is_handed || seen.is_returned;
    seen.is_compared && !seen.is_read && !is_kept
}

/// Whether an address is stored, and what else becomes of it.
fn uses(bytes: &[u8], offset: u32) -> (Option<Escape>, Seen) {
    let mut info = InstructionInfoFactory::new();
    let mut seen = Seen::default();
    let mut frame = RegisterSet::default();
    frame.insert(Register::RSP);
    if points_into_frame(bytes) {
        frame.insert(Register::RBP);
    }
    let stored = follow(bytes, offset, Through::Registers, passes_on, |step| {
        let (iced, held) = (step.iced, step.held);
        seen.is_read |= held.contains(iced.memory_base()) || held.contains(iced.memory_index());
        let returns = iced.flow_control() == FlowControl::Return;
        seen.is_handed |= step.hands;
        seen.is_returned |= returns && held.contains(Register::RAX);
        let info = info.info(iced);
        for operand in 0..iced.op_count() {
            let register = iced.op_register(operand);
            let is_read = matches!(
                info.op_access(operand),
                OpAccess::Read | OpAccess::CondRead | OpAccess::ReadWrite | OpAccess::ReadCondWrite
            );
            if iced.op_kind(operand) != OpKind::Register || !is_read || !held.contains(register) {
                continue;
            }
            let to_memory = iced.op0_kind() == OpKind::Memory && operand > 0;
            match iced.mnemonic() {
                Mnemonic::Cmp => seen.is_compared = true,
                Mnemonic::Mov | Mnemonic::Xchg | Mnemonic::Cmpxchg if to_memory => {
                    match frame.contains(iced.memory_base()) {
                        true => seen.is_lost = true,
                        false => return ControlFlow::Break(Escape::Stored),
                    }
                }
                // What is calculated with it is followed, or is no address.
                Mnemonic::Mov | Mnemonic::Add | Mnemonic::Sub | Mnemonic::Test => {}
                _ if is_selection(iced) => {}
                _ => seen.is_lost = true,
            }
        }
        ControlFlow::Continue(())
    });
    (stored, seen)
}

/// Whether an instruction makes an address within the same data of an address.
fn passes_on(iced: &Iced, held: RegisterSet) -> bool {
    match iced.mnemonic() {
        Mnemonic::Lea => held.contains(iced.memory_base()) || held.contains(iced.memory_index()),
        Mnemonic::Add => {
            held.contains(iced.op0_register())
                || iced.op1_kind() == OpKind::Register && held.contains(iced.op1_register())
        }
        _ if is_selection(iced) => {
            held.contains(iced.op0_register()) || held.contains(iced.op1_register())
        }
        _ => is_copy(iced, held),
    }
}

/// Whether this is `cmovcc` between registers.
fn is_selection(iced: &Iced) -> bool {
    iced.condition_code() != iced_x86::ConditionCode::None
        && iced.flow_control() == FlowControl::Next
        && iced.op1_kind() == OpKind::Register
}

/// Whether `rbp` leads into the frame, as code says at the start of a function.
fn points_into_frame(bytes: &[u8]) -> bool {
    let start = &bytes[..bytes.len().min(PROLOGUE)];
    let mut decoder = Decoder::with_ip(64, start, 0, DecoderOptions::NONE);
    decoder.iter().any(|iced| {
        let is_made = iced.op0_register() == Register::RBP;
        match iced.mnemonic() {
            Mnemonic::Mov => is_made && iced.op1_register() == Register::RSP,
            Mnemonic::Lea => is_made && iced.memory_base() == Register::RSP,
            _ => false,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_of_an_address() {
        let way = |uses: &[u8]| {
            // lea rcx, [rip]
            let code = [&[0x48, 0x8d, 0x0d, 0, 0, 0, 0], uses].concat();
            escape(&code, 0)
        };
        // mov [rax+8], rcx; and by way of rdx; and an element
        assert_eq!(way(&[0x48, 0x89, 0x48, 0x08, 0xc3]), Some(Escape::Stored));
        let copied = [0x48, 0x89, 0xca, 0x48, 0x89, 0x10, 0xc3];
        assert_eq!(way(&copied), Some(Escape::Stored));
        let element = [0x48, 0x01, 0xca, 0x48, 0x89, 0x10, 0xc3];
        assert_eq!(way(&element), Some(Escape::Stored));
        // mov [rsp+8], rcx
        let kept = [0x48, 0x89, 0x4c, 0x24, 0x08, 0xc3];
        assert_eq!(way(&kept), Some(Escape::Lost));
        // cmp [rax], rcx; and where it is read as well
        assert_eq!(way(&[0x48, 0x39, 0x08, 0xc3]), Some(Escape::Compared));
        assert_eq!(way(&[0x8b, 0x01, 0x48, 0x39, 0xc8, 0xc3]), None);
        // cmp rcx, -3; and a call with it
        let compared = |uses: &[u8]| {
            let code = [&[0x48, 0x8d, 0x0d, 0, 0, 0, 0], uses].concat();
            is_only_compared(&code, 0)
        };
        assert!(compared(&[0x48, 0x83, 0xf9, 0xfd, 0xc3]));
        assert!(!compared(&[0x48, 0x83, 0xf9, 0xfd, 0xe8, 0, 0, 0, 0, 0xc3]));
        assert!(!compared(&[0x48, 0x83, 0xf9, 0xfd, 0x8b, 0x01, 0xc3]));
        assert!(!compared(&[0xc3]));
        // call; jmp; and mov rax, rcx and ret
        assert_eq!(way(&[0xe8, 0, 0, 0, 0, 0xc3]), Some(Escape::Handed));
        assert_eq!(way(&[0xe9, 0, 1, 0, 0]), Some(Escape::Handed));
        assert_eq!(way(&[0x48, 0x89, 0xc8, 0xc3]), Some(Escape::Returned));
        // mov eax, [rcx+rdx*4]; test rcx, rcx; mov rcx, rdx and mov [rax], rcx
        assert_eq!(way(&[0x8b, 0x04, 0x91, 0xc3]), None);
        assert_eq!(way(&[0x48, 0x85, 0xc9, 0xc3]), None);
        assert_eq!(way(&[0x48, 0x89, 0xd1, 0x48, 0x89, 0x08, 0xc3]), None);
    }
}
