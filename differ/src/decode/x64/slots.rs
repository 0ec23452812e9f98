//! Slots of the frame that hold an address, as unoptimised code keeps its variables in.

use iced_x86::{Instruction as Iced, Mnemonic, OpKind, Register};

use super::registers::RegisterSet;

/// How many slots of one address are followed.
const MOST: usize = 4;

/// A slot by the register that it is reached through and the distance from there. What leads to it
/// in another way is not known to.
type Slot = (Register, u64);

/// The slots that hold an address.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(super) struct Slots([Option<Slot>; MOST]);

impl Slots {
    pub(super) fn is_empty(self) -> bool {
        self == Self::default()
    }

    /// Whether the memory operand of an instruction is one of them, whole.
    pub(super) fn hold(self, iced: &Iced) -> bool {
        iced.memory_size().size() == 8
            && slot(iced).is_some_and(|slot| self.0.contains(&Some(slot)))
    }

    /// Whether an instruction puts what one of them holds into a register.
    pub(super) fn are_loaded(self, iced: &Iced) -> bool {
        iced.mnemonic() == Mnemonic::Mov && iced.op0_register().is_gpr64() && self.hold(iced)
    }

    /// Notes what an instruction writes that has its memory operand for a destination, where these
    /// registers hold the address.
    pub(super) fn write(&mut self, iced: &Iced, held: RegisterSet) {
        let Some(slot) = slot(iced) else { return };
        for known in &mut self.0 {
            known.take_if(|known| *known == slot);
        }
        let is_kept = iced.mnemonic() == Mnemonic::Mov
            && iced.op1_kind() == OpKind::Register
            && held.contains(iced.op1_register());
        if let Some(free) = self.0.iter_mut().find(|known| known.is_none() && is_kept) {
            *free = Some(slot);
        }
    }

    /// Forgets the slots that are reached through a register which gets another value.
    pub(super) fn lose(&mut self, register: Register) {
        for known in &mut self.0 {
            known.take_if(|known| known.0 == register);
        }
    }
}

fn slot(iced: &Iced) -> Option<Slot> {
    let base = iced.memory_base();
    let is_slot =
        matches!(base, Register::RSP | Register::RBP) && iced.memory_index() == Register::None;
    is_slot.then(|| (base, iced.memory_displacement64()))
}
