//! Code that reaches what lies before an address that it takes.

use iced_x86::{
    Decoder, DecoderOptions, FlowControl, Instruction as Iced, InstructionInfoFactory, Mnemonic,
    OpAccess, OpKind, Register, UsedRegister,
};
use rustc_hash::FxHashSet;

use super::registers::RegisterSet;
use super::uses::VOLATILE;
use crate::decode::Back;

/// How many instructions behind an address its registers are followed, counted anew where others of
/// them hold it.
const WINDOW: usize = 128;

/// Registers that hold the arguments of a callee.
const ARGUMENTS: [Register; 4] = [Register::RCX, Register::RDX, Register::R8, Register::R9];

/// See [`crate::decode::reaches_back`].
pub(in crate::decode) fn reaches_back(bytes: &[u8], offset: u32) -> Option<Back> {
    let decode = |at: u64| {
        let rest = bytes.get(usize::try_from(at).ok()?..)?;
        (!rest.is_empty()).then(|| Decoder::with_ip(64, rest, at, DecoderOptions::NONE).decode())
    };
    let first = decode(offset.into())?;
    // The registers that hold the address.
    let mut held = RegisterSet::default();
    held.insert(first.op0_register());
    let mut open = vec![(first.next_ip(), held)];
    let mut seen = FxHashSet::default();
    let mut info = InstructionInfoFactory::new();
    let mut found = None;
    while let Some((at, mut held)) = open.pop() {
        if held.is_empty() || seen.len() == WINDOW || !seen.insert((at, held)) {
            continue;
        }
        let Some(iced) = decode(at) else { continue };
        if reads_before(&iced, held) || steps_back(&iced, held) {
            return Some(Back::Itself);
        }
        let target = iced.near_branch64();
        let is_left = target >= bytes.len() as u64;
        let flow = iced.flow_control();
        let is_call = matches!(flow, FlowControl::Call | FlowControl::IndirectCall);
        if is_call || flow == FlowControl::UnconditionalBranch && is_left {
            if ARGUMENTS.iter().any(|it| held.contains(*it)) {
                found = Some(Back::Callee);
            }
            VOLATILE.iter().for_each(|it| held.remove(*it));
        }
        copy(&mut info, &iced, &mut held);
        match flow {
            FlowControl::UnconditionalBranch => open.push((target, held)),
            FlowControl::ConditionalBranch => open.extend([(target, held), (iced.next_ip(), held)]),
            FlowControl::Next | FlowControl::Call | FlowControl::IndirectCall => {
                open.push((iced.next_ip(), held));
            }
            _ => {}
        }
    }
    found
}

/// What an instruction does to the registers that hold an address.
fn copy(info: &mut InstructionInfoFactory, iced: &Iced, held: &mut RegisterSet) {
    let is_copy = iced.mnemonic() == Mnemonic::Mov
        && iced.op0_kind() == OpKind::Register
        && iced.op1_kind() == OpKind::Register
        && held.contains(iced.op1_register());
    let written = info.info(iced).used_registers().iter();
    for used in written.filter(|it| is_write(it)) {
        held.remove(used.register().full_register());
    }
    if is_copy {
        held.insert(iced.op0_register());
    }
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

fn is_write(used: &UsedRegister) -> bool {
    use OpAccess::{CondWrite, ReadCondWrite, ReadWrite, Write};
    matches!(used.access(), Write | CondWrite | ReadWrite | ReadCondWrite)
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
