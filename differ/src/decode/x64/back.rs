//! Code that reaches what lies before an address that it takes.

use std::ops::ControlFlow;

use iced_x86::{Instruction as Iced, Mnemonic, OpKind};

use super::follow::follow;
use super::registers::RegisterSet;
use crate::decode::Back;

/// See [`crate::decode::reaches_back`].
pub(in crate::decode) fn reaches_back(bytes: &[u8], offset: u32) -> Option<Back> {
    let mut callee = None;
    let itself = follow(bytes, offset, is_copy, |step| {
        if reads_before(step.iced, step.held) || steps_back(step.iced, step.held) {
            return ControlFlow::Break(Back::Itself);
        }
        if step.hands {
            callee = Some(Back::Callee);
        }
        ControlFlow::Continue(())
    });
    itself.or(callee)
}

/// Whether an instruction copies an address from one register to another.
pub(super) fn is_copy(iced: &Iced, held: RegisterSet) -> bool {
    iced.mnemonic() == Mnemonic::Mov
        && iced.op0_kind() == OpKind::Register
        && iced.op1_kind() == OpKind::Register
        && held.contains(iced.op1_register())
}

fn reads_before(iced: &Iced, held: RegisterSet) -> bool {
    held.contains(iced.memory_base())
        && iced.memory_displacement64().cast_signed() < 0
        && !iced.is_ip_rel_memory_operand()
}

fn steps_back(iced: &Iced, held: RegisterSet) -> bool {
    let is_immediate = matches!(
        iced.op1_kind(),
        OpKind::Immediate8to64 | OpKind::Immediate32to64
    );
    held.contains(iced.op0_register())
        && match iced.mnemonic() {
            Mnemonic::Dec | Mnemonic::Sub => true,
            Mnemonic::Add => is_immediate && iced.immediate(1).cast_signed() < 0,
            _ => false,
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn walks_from_the_end() {
        let walks = |uses: &[u8]| {
            // lea rcx, [rip+0x100]
            let mut code = vec![0x48, 0x8d, 0x0d, 0, 1, 0, 0];
            code.extend(uses);
            reaches_back(&code, 0)
        };
        let itself = |uses: &[u8]| walks(uses) == Some(Back::Itself);
        // mov eax, [rcx-4]; sub rcx, 4; add rcx, -4; dec rcx
        assert!(itself(&[0x8b, 0x41, 0xfc]) && itself(&[0x48, 0x83, 0xe9, 4]));
        assert!(itself(&[0x48, 0x83, 0xc1, 0xfc]) && itself(&[0x48, 0xff, 0xc9]));
        // mov rbx, rcx; call +0; mov eax, [rbx-4]: kept in another register, in spite of the call.
        assert!(itself(&[
            0x48, 0x89, 0xcb, 0xe8, 0, 0, 0, 0, 0x8b, 0x43, 0xfc
        ]));
        // call; jmp out of the function: an argument. mov rax, rcx; xor ecx, ecx; call: none.
        assert_eq!(walks(&[0xe8, 0, 0, 0, 0]), Some(Back::Callee));
        assert_eq!(walks(&[0xe9, 0, 1, 0, 0]), Some(Back::Callee));
        let other = [0x48, 0x89, 0xc8, 0x31, 0xc9, 0xe8, 0, 0, 0, 0];
        assert_eq!(walks(&other), None);
        // jmp +1; ret; mov eax, [rcx-4]: behind a jump. jmp rax: a table of the function's own.
        assert!(itself(&[0xeb, 1, 0xc3, 0x8b, 0x41, 0xfc]));
        assert_eq!(walks(&[0xff, 0xe0]), None);
        // mov ecx, eax; mov eax, [rcx-4]: the address is gone.
        assert_eq!(walks(&[0x89, 0xc1, 0x8b, 0x41, 0xfc]), None);
        // mov eax, [rcx+4]; add rcx, 4; mov eax, [rdx-4]
        for uses in [
            &[0x8b, 0x41, 4][..],
            &[0x48, 0x83, 0xc1, 4],
            &[0x8b, 0x42, 0xfc],
        ] {
            assert_eq!(walks(uses), None);
        }
    }
}
