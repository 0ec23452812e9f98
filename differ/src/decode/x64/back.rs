//! Code that reaches what lies before an address that it takes.

use std::ops::ControlFlow;

use iced_x86::{Instruction as Iced, Mnemonic, OpKind};

use super::follow::{Step, Through, follow};
use super::registers::RegisterSet;
use crate::decode::Back;

/// See [`crate::decode::reaches_back`].
pub(in crate::decode) fn reaches_back(bytes: &[u8], offset: u32) -> Option<Back> {
    let mut callee = None;
    let itself = follow(bytes, offset, Through::Frame, is_copy, |step| {
        let itself = reads_before(step.iced, step.held) || steps_back(step.iced, step.held);
        if itself || steps_back_in_frame(&step) {
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
    held.contains(iced.op0_register())
        && (iced.mnemonic() == Mnemonic::Sub || subtracted(iced).is_some_and(|number| number > 0))
}

/// The number that an instruction takes from its first operand.
fn subtracted(iced: &Iced) -> Option<i64> {
    let is_number = matches!(
        iced.op1_kind(),
        OpKind::Immediate8to64 | OpKind::Immediate32to64
    );
    let number = || is_number.then(|| iced.immediate(1).cast_signed());
    match iced.mnemonic() {
        Mnemonic::Dec => Some(1),
        Mnemonic::Sub => number(),
        Mnemonic::Add => number().and_then(i64::checked_neg),
        _ => None,
    }
}

/// The same where the address is kept in the frame, in a slot or in a register that one was loaded
/// into. There the difference of two addresses, which a text ends with as often, is none.
fn steps_back_in_frame(step: &Step<'_>) -> bool {
    let iced = step.iced;
    let is_it = step.loaded.contains(iced.op0_register())
        || iced.op0_kind() == OpKind::Memory && step.slots.hold(iced);
    reads_before(iced, step.loaded) || is_it && subtracted(iced).is_some_and(|number| number > 0)
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
        // mov [rbp-8], rcx; sub qword [rbp-8], 4; and dec, and add of -4: stepped in the frame.
        let kept = [0x48, 0x89, 0x4d, 0xf8];
        for step in [
            &[0x83, 0x6d, 0xf8, 4][..],
            &[0xff, 0x4d, 0xf8],
            &[0x83, 0x45, 0xf8, 0xfc],
        ] {
            assert!(itself(&[&kept[..], &[0x48], step].concat()));
            // Four bytes of it; another slot; behind mov [rbp-8], rax.
            assert!(!itself(&[&kept[..], step].concat()));
            let other = [0x48, step[0], step[1], 0xf0];
            assert!(!itself(&[&kept[..], &other, &step[3..]].concat()));
            let overwritten = [0x48, 0x89, 0x45, 0xf8];
            assert!(!itself(&[&kept[..], &overwritten, &[0x48], step].concat()));
        }
        // sub [rbp-8], rax; add qword [rbp-8], 4 and then -4: no longer the same address.
        assert!(!itself(&[&kept[..], &[0x48, 0x29, 0x45, 0xf8]].concat()));
        let forward = [0x48, 0x83, 0x45, 0xf8, 4, 0x48, 0x83, 0x45, 0xf8, 0xfc];
        assert!(!itself(&[&kept[..], &forward].concat()));
        // mov [rbp-8], rcx; call; mov rax, [rbp-8]; mov eax, [rax-4]; and lea rdx, [rax-4].
        let loaded = [&kept[..], &[0xe8, 0, 0, 0, 0, 0x48, 0x8b, 0x45, 0xf8]].concat();
        assert!(itself(&[&loaded[..], &[0x8b, 0x40, 0xfc]].concat()));
        assert!(itself(&[&loaded[..], &[0x48, 0x8d, 0x50, 0xfc]].concat()));
        // sub rax, rdx: how long a text is. mov rcx, rax; call: who gets it is not asked.
        assert_eq!(
            walks(&[&kept[..], &[0x48, 0x8b, 0x45, 0xf8, 0x48, 0x29, 0xd0]].concat()),
            None
        );
        let handed = [
            0x31, 0xc9, 0x48, 0x8b, 0x45, 0xf8, 0x48, 0x89, 0xc1, 0xe8, 0, 0, 0, 0,
        ];
        assert_eq!(walks(&[&kept[..], &handed].concat()), None);
        // mov [rsp+8], rcx; push rax; dec qword [rsp+8]: another slot. Without push it is.
        let kept = [0x48, 0x89, 0x4c, 0x24, 8];
        let step = [0x48, 0xff, 0x4c, 0x24, 8];
        assert!(itself(&[&kept[..], &step].concat()));
        assert!(!itself(&[&kept[..], &[0x50], &step].concat()));
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
