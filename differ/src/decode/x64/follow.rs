//! The way of an address through registers, and through slots of the frame where that is asked for.

use std::ops::ControlFlow;

use iced_x86::{
    Decoder, DecoderOptions, FlowControl, Instruction as Iced, InstructionInfo,
    InstructionInfoFactory, OpAccess, OpKind, Register,
};
use rustc_hash::FxHashSet;

use super::registers::RegisterSet;
use super::slots::Slots;
use super::uses::VOLATILE;

/// How many instructions behind an address its registers are followed, counted anew where others of
/// them hold it.
const WINDOW: usize = 128;

/// Registers that hold the arguments of a callee.
const ARGUMENTS: [Register; 4] = [Register::RCX, Register::RDX, Register::R8, Register::R9];

/// What is followed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Through {
    Registers,
    /// Slots of the frame as well, and the registers that these are loaded into.
    Frame,
}

/// What holds the address at one place of the code.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
struct Holders {
    held: RegisterSet,
    loaded: RegisterSet,
    slots: Slots,
}

/// An instruction on the way.
pub(super) struct Step<'a> {
    pub(super) iced: &'a Iced,
    /// The registers that hold the address before it, and did ever since it was taken.
    pub(super) held: RegisterSet,
    /// The registers that it was loaded into from the frame.
    pub(super) loaded: RegisterSet,
    /// The slots of the frame that hold it.
    pub(super) slots: Slots,
    /// Whether it calls or jumps to another function, with the address as an argument.
    pub(super) hands: bool,
}

/// Goes through the code behind the instruction at `offset`, which puts an address into a register, as
/// far as anything holds it. `passes_on` tells whether an instruction makes its first operand hold it,
/// too.
pub(super) fn follow<T>(
    bytes: &[u8],
    offset: u32,
    through: Through,
    passes_on: impl Fn(&Iced, RegisterSet) -> bool,
    mut see: impl FnMut(Step<'_>) -> ControlFlow<T>,
) -> Option<T> {
    let decode = |at: u64| {
        let rest = bytes.get(usize::try_from(at).ok()?..)?;
        (!rest.is_empty()).then(|| Decoder::with_ip(64, rest, at, DecoderOptions::NONE).decode())
    };
    let first = decode(offset.into())?;
    let mut holders = Holders::default();
    holders.held.insert(first.op0_register());
    let mut open = vec![(first.next_ip(), holders)];
    let mut seen = FxHashSet::default();
    let mut info = InstructionInfoFactory::new();
    while let Some((at, mut holders)) = open.pop() {
        if holders.is_empty() || seen.len() == WINDOW || !seen.insert((at, holders)) {
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
            held: holders.held,
            loaded: holders.loaded,
            slots: holders.slots,
            hands: leaves && ARGUMENTS.iter().any(|it| holders.held.contains(*it)),
        };
        if let ControlFlow::Break(found) = see(step) {
            return Some(found);
        }
        if leaves {
            VOLATILE.iter().for_each(|it| holders.remove(*it));
        }
        holders.step(&iced, info.info(&iced), through, &passes_on);
        match flow {
            FlowControl::UnconditionalBranch => open.push((target, holders)),
            FlowControl::ConditionalBranch => {
                open.extend([(target, holders), (iced.next_ip(), holders)]);
            }
            FlowControl::Next | FlowControl::Call | FlowControl::IndirectCall => {
                open.push((iced.next_ip(), holders));
            }
            _ => {}
        }
    }
    None
}

impl Holders {
    fn is_empty(self) -> bool {
        self.held.is_empty() && self.loaded.is_empty() && self.slots.is_empty()
    }

    fn remove(&mut self, register: Register) {
        self.held.remove(register);
        self.loaded.remove(register);
    }

    /// What an instruction does to what holds the address.
    fn step(
        &mut self,
        iced: &Iced,
        info: &InstructionInfo,
        through: Through,
        passes_on: impl Fn(&Iced, RegisterSet) -> bool,
    ) {
        let is_passed_on = passes_on(iced, self.held);
        let is_loaded = passes_on(iced, self.loaded) || self.slots.are_loaded(iced);
        let to_memory = iced.op0_kind() == OpKind::Memory && writes(info.op0_access());
        if through == Through::Frame && to_memory {
            self.slots.write(iced, self.held.union(self.loaded));
        }
        // A call leaves the stack pointer as it was.
        let is_call = matches!(
            iced.flow_control(),
            FlowControl::Call | FlowControl::IndirectCall
        );
        let used = info.used_registers().iter();
        for used in used.filter(|it| writes(it.access()) && !is_call) {
            let register = used.register().full_register();
            self.remove(register);
            self.slots.lose(register);
        }
        if is_passed_on {
            self.held.insert(iced.op0_register());
        } else if is_loaded {
            self.loaded.insert(iced.op0_register());
        }
    }
}

fn writes(access: OpAccess) -> bool {
    use OpAccess::{CondWrite, ReadCondWrite, ReadWrite, Write};
    matches!(access, Write | CondWrite | ReadWrite | ReadCondWrite)
}
