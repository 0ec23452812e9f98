//! Registers that somewhere in a function receive the image base.

use hpbuild_metadata::Side;
use iced_x86::{Code as Opcode, Instruction as Iced, Mnemonic, OpKind, Register};

use super::super::Reference;

/// Remembers registers that receive the image base, directly or from one another.
pub(super) fn note_image_base<S: Side>(
    iced: &Iced,
    reference: Option<&Reference<S>>,
    found: &mut RegisterSet,
) {
    let takes_base = reference.is_some_and(|reference| reference.target.get() == 0)
        && iced.mnemonic() == Mnemonic::Lea;
    if found.is_empty() && !takes_base {
        return;
    }
    let copies_base = iced.code() == Opcode::Mov_r64_rm64 && found.contains(iced.op1_register())
        || iced.code() == Opcode::Mov_rm64_r64 && found.contains(iced.op1_register());
    if takes_base || (copies_base && iced.op0_kind() == OpKind::Register) {
        found.insert(iced.op0_register());
    }
}

/// A set of the sixteen general registers.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(super) struct RegisterSet(u16);

impl RegisterSet {
    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    fn bit(register: Register) -> u16 {
        if register.is_gpr64() {
            1 << register.number()
        } else {
            0
        }
    }

    pub(super) fn contains(self, register: Register) -> bool {
        self.0 & Self::bit(register) != 0
    }

    /// Whether a memory operand is based on one of the registers.
    pub(super) fn is_base_of(self, iced: &Iced) -> bool {
        self.contains(iced.memory_base())
            || (self.contains(iced.memory_index()) && iced.memory_index_scale() == 1)
    }

    pub(super) fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(super) fn insert(&mut self, register: Register) {
        self.0 |= Self::bit(register);
    }

    pub(super) fn remove(&mut self, register: Register) {
        self.0 &= !Self::bit(register);
    }
}
