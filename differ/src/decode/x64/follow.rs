//! The way of an address through registers.

use std::ops::ControlFlow;

use iced_x86::{
    Decoder, DecoderOptions, FlowControl, Instruction as Iced, InstructionInfoFactory, OpAccess,
    Register, UsedRegister,
};
use rustc_hash::FxHashSet;

use super::registers::RegisterSet;
use super::uses::VOLATILE;

/// How many instructions behind an address its registers are followed, counted anew where others of
/// them hold it.
const WINDOW: usize = 128;

/// Registers that hold the arguments of a callee.
const ARGUMENTS: [Register; 4] = [Register::RCX, Register::RDX, Register::R8, Register::R9];

/// An instruction on the way.
pub(super) struct Step<'a> {
    pub(super) iced: &'a Iced,
    /// The registers that hold the address before it.
    pub(super) held: RegisterSet,
    /// Whether it calls or jumps to another function, with the address as an argument.
    pub(super) hands: bool,
}

/// Goes through the code behind the instruction at `offset`, which puts an address into a register, as
/// far as any register holds it. `passes_on` tells whether an instruction makes its first operand hold
/// it, too.
pub(super) fn follow<T>(
    bytes: &[u8],
    offset: u32,
    passes_on: impl Fn(&Iced, RegisterSet) -> bool,
    mut see: impl FnMut(Step<'_>) -> ControlFlow<T>,
) -> Option<T> {
    let decode = |at: u64| {
        let rest = bytes.get(usize::try_from(at).ok()?..)?;
        (!rest.is_empty()).then(|| Decoder::with_ip(64, rest, at, DecoderOptions::NONE).decode())
    };
    let first = decode(offset.into())?;
    let mut held = RegisterSet::default();
    held.insert(first.op0_register());
    let mut open = vec![(first.next_ip(), held)];
    let mut seen = FxHashSet::default();
    let mut info = InstructionInfoFactory::new();
    while let Some((at, mut held)) = open.pop() {
        if held.is_empty() || seen.len() == WINDOW || !seen.insert((at, held)) {
            continue;
        }
        let Some(iced) = decode(at) else { continue };
        let target = iced.near_branch64();
        let is_left = target >= bytes.len() as u64;
        let flow = iced.flow_control();
        let is_call = matches!(flow, FlowControl::Call | FlowControl::IndirectCall);
        let leaves = is_call || flow == FlowControl::UnconditionalBranch && is_left;
        let step = Step {
            iced: &iced,
            held,
            hands: leaves && ARGUMENTS.iter().any(|it| held.contains(*it)),
        };
        if let ControlFlow::Break(found) = see(step) {
            return Some(found);
        }
        if leaves {
            VOLATILE.iter().for_each(|it| held.remove(*it));
        }
        let is_passed_on = passes_on(&iced, held);
        let used = info.info(&iced).used_registers();
        for used in used.iter().filter(|it| is_write(it)) {
            held.remove(used.register().full_register());
        }
        if is_passed_on {
            held.insert(iced.op0_register());
        }
        match flow {
            FlowControl::UnconditionalBranch => open.push((target, held)),
            FlowControl::ConditionalBranch => open.extend([(target, held), (iced.next_ip(), held)]),
            FlowControl::Next | FlowControl::Call | FlowControl::IndirectCall => {
                open.push((iced.next_ip(), held));
            }
            _ => {}
        }
    }
    None
}

fn is_write(used: &UsedRegister) -> bool {
    use OpAccess::{CondWrite, ReadCondWrite, ReadWrite, Write};
    matches!(used.access(), Write | CondWrite | ReadWrite | ReadCondWrite)
}
