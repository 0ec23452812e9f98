//! Tables of distances from their own start, by the code that reads them.

use hpbuild_metadata::{Rva, Side};
use iced_x86::{
    ConditionCode, Decoder, DecoderOptions, FlowControl, Instruction as Iced,
    InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register,
};

use super::super::{Body, Code, Instruction, ReferenceKind};

/// Registers that a callee need not keep: rax, rcx, rdx, r8 to r11.
const VOLATILE: Registers = Registers(0x0f07);

/// How many instructions behind a load from a relative table the address is added at the latest.
const TABLE_WINDOW: usize = 64;

/// Finds `lea t, [table]`, then `movsxd x, [t+i*4]` or `[i+t]`, then the sum of the two, by an `add` or
/// in the address of an operand, in this order; other instructions may stand between.
pub(in crate::decode) fn relative_tables<S: Side>(
    code: Code<'_, S>,
    body: &Body<S>,
) -> Vec<Rva<S>> {
    let mut found = Vec::new();
    if !body.widens_words {
        return found;
    }
    // The table whose address each register received last.
    let mut tables: [Option<Rva<S>>; 16] = [None; 16];
    let iced_at = |instruction: &Instruction<S>| {
        let start = instruction.offset as usize;
        let bytes = code
            .bytes
            .get(start..start + usize::from(instruction.length))?;
        Some(Decoder::with_ip(64, bytes, 0, DecoderOptions::NONE).decode())
    };
    let takes_address = |instruction: &Instruction<S>| {
        instruction
            .reference
            .filter(|reference| reference.kind == ReferenceKind::Address)
    };
    let first = body
        .instructions
        .iter()
        .position(|i| takes_address(i).is_some());
    let Some(first) = first else { return found };
    for (index, instruction) in body.instructions.iter().enumerate().skip(first) {
        let start = instruction.offset as usize;
        let length = usize::from(instruction.length);
        let Some(bytes) = code.bytes.get(start..start + length) else {
            break;
        };
        if let Some(reference) = takes_address(instruction) {
            if let Some(iced) = iced_at(instruction).filter(|iced| iced.op0_register().is_gpr64()) {
                tables[iced.op0_register().number()] = Some(reference.target);
            }
            continue;
        }
        // movsxd r64, r/m32 is REX.W 63 /r.
        let is_load = length >= 4 && bytes[0] & 0xf8 == 0x48 && bytes[1] == 0x63;
        let Some(load) = is_load.then(|| iced_at(instruction)).flatten() else {
            continue;
        };
        // The table may be either register of the sum where a loop counts bytes.
        let (base, index_register) = (load.memory_base(), load.memory_index());
        let table_in = |register: Register| {
            let number = register.is_gpr64().then(|| register.number())?;
            tables[number]
        };
        let scale = load.memory_index_scale();
        if index_register == Register::None || !matches!(scale, 1 | 4) {
            continue;
        }
        let swapped = || table_in(index_register).filter(|_| scale == 1);
        let Some(table) = table_in(base).or_else(swapped) else {
            continue;
        };
        let Some(loaded) = Registers::of(load.op0_register()) else {
            continue;
        };
        let held = Held {
            distance: loaded,
            address: tables_that_are(&tables, table).without(loaded),
        };
        let rest = body.instructions[index + 1..].iter();
        let rest = rest.take(TABLE_WINDOW).map_while(|instruction| {
            let address = takes_address(instruction);
            let is_again = address.is_some_and(|reference| reference.target == table);
            Some((iced_at(instruction)?, is_again))
        });
        if load.memory_displacement64().is_multiple_of(4) && held.meets(rest) {
            found.push(table);
        }
    }
    found
}

/// Registers of 64 bits, a bit each.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Registers(u16);

impl Registers {
    fn of(register: Register) -> Option<Self> {
        let register = register.full_register();
        register.is_gpr64().then(|| Self(1 << register.number()))
    }

    fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

/// The registers that received the address of `table` last.
fn tables_that_are<S: Side>(tables: &[Option<Rva<S>>; 16], table: Rva<S>) -> Registers {
    let holds = |it: &(usize, &Option<Rva<S>>)| *it.1 == Some(table);
    let holders = tables.iter().enumerate().filter(holds);
    Registers(holders.fold(0, |all, (number, _)| all | 1 << number))
}

/// What registers hold of a table: a distance that was loaded from it, and its address.
struct Held {
    distance: Registers,
    address: Registers,
}

impl Held {
    /// Whether the two meet in a sum, before anything else is put into either. Each instruction comes
    /// with whether it takes the address again.
    fn meets(mut self, instructions: impl Iterator<Item = (Iced, bool)>) -> bool {
        let mut info = InstructionInfoFactory::new();
        for (iced, is_again) in instructions {
            if self.is_sum_of_both(&iced) {
                return true;
            }
            self.go_on(&iced, &mut info);
            if is_again && let Some(register) = Registers::of(iced.op0_register()) {
                self.address = self.address.with(register);
            }
            if self.distance.0 == 0 {
                return false;
            }
        }
        false
    }

    fn are_both(&self, one: Register, other: Register) -> bool {
        let (Some(one), Some(other)) = (Registers::of(one), Registers::of(other)) else {
            return false;
        };
        let is = |distance: Registers, address: Registers| {
            self.distance.has(distance) && self.address.has(address)
        };
        is(one, other) || is(other, one)
    }

    fn is_sum_of_both(&self, iced: &Iced) -> bool {
        let in_operand = iced.memory_index_scale() == 1
            && self.are_both(iced.memory_base(), iced.memory_index());
        let is_add = iced.mnemonic() == Mnemonic::Add
            && iced.op0_kind() == OpKind::Register
            && iced.op1_kind() == OpKind::Register;
        in_operand || is_add && self.are_both(iced.op0_register(), iced.op1_register())
    }

    /// Follows both through copies, and forgets what is overwritten.
    fn go_on(&mut self, iced: &Iced, info: &mut InstructionInfoFactory) {
        let is_copy = iced.op0_kind() == OpKind::Register && iced.op1_kind() == OpKind::Register;
        let from = Registers::of(iced.op1_register()).filter(|_| is_copy);
        let to = Registers::of(iced.op0_register()).filter(|_| is_copy);
        if let (Some(from), Some(to)) = (from, to) {
            let moves = iced.mnemonic() == Mnemonic::Mov;
            // Which of the two it is nobody knows.
            let may_move = iced.condition_code() != ConditionCode::None;
            if moves || may_move {
                for held in [&mut self.distance, &mut self.address] {
                    let kept = if moves { held.without(to) } else { *held };
                    *held = if held.has(from) { kept.with(to) } else { kept };
                }
                return;
            }
        }
        let lost = match iced.flow_control() {
            FlowControl::Call | FlowControl::IndirectCall => VOLATILE,
            _ => Registers(0),
        };
        let written = info.info(iced).used_registers().iter().filter(|used| {
            use OpAccess::{CondWrite, ReadCondWrite, ReadWrite, Write};
            matches!(used.access(), Write | CondWrite | ReadWrite | ReadCondWrite)
        });
        let lost = written
            .filter_map(|used| Registers::of(used.register()))
            .fold(lost, Registers::with);
        self.distance = self.distance.without(lost);
        self.address = self.address.without(lost);
    }
}
