//! Stubs: an instruction with a memory operand in the base, moved out so that it can go through a
//! pointer.
//!
//! The operand needs a register. In order of preference: the register the instruction overwrites
//! anyway, one that is proven free behind it, one that is saved on the stack around it. Neither
//! `mov` nor `push` and `pop` touch flags.
//!
//! ```text
//! cmp [g], 5        jmp stub         stub: push r11
//!                   int3                   mov r11, [slot of g]
//!                                          cmp [r11], 5
//!                                          pop r11
//!                                          jmp back
//! ```

use hpbuild_differ::decode::ReferenceKind;
use hpbuild_metadata::{Base, Rva};
use iced_x86::{
    Decoder, DecoderOptions, Encoder, FlowControl, Instruction, InstructionInfoFactory, Mnemonic,
    OpAccess, OpKind, Register,
};

use super::super::lower::{Lowering, new_piece, relative, runtime_entry_at};
use super::{Site, liveness, load_slot, refuse_form, unwind};
use crate::piece::{PieceId, Place, Room};
use crate::refusal::Code;

/// Registers that a function may change without saving them, least used first.
const VOLATILE: [Register; 7] = [
    Register::R11,
    Register::R10,
    Register::R9,
    Register::R8,
    Register::RAX,
    Register::RDX,
    Register::RCX,
];

/// How the stub gets its register.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scratch {
    /// Nothing needs what it held.
    Free(Register),
    /// Saved around the instruction.
    Saved(Register),
}

/// Adds the stub for an instruction, or refuses.
pub(super) fn add(lowering: &mut Lowering<'_>, site: &Site, base: Rva<Base>) -> Option<PieceId> {
    if matches!(site.instruction.mnemonic(), Mnemonic::Push | Mnemonic::Pop) {
        return refuse_form(
            lowering,
            site,
            "it moves the stack pointer around base data",
        );
    }
    let entry = runtime_entry_at(&lowering.parts.runtime, site.id, site.offset).copied();
    if let Some(entry) = &entry
        && may_raise(&site.instruction)
        && unwind::has_handler(lowering.parts, entry)
    {
        let message = format!(
            "`{}` may raise in a function with a handler",
            site.instruction
        );
        lowering.refuse(Code::MayRaise, site.id, site.offset, message);
        return None;
    }
    if site.instruction.flow_control() != FlowControl::Next {
        return refuse_form(lowering, site, "it does not go on to the next instruction");
    }
    let usage = Usage::of(&site.instruction);
    let code = &lowering.parts.piece(site.id).bytes;
    let mut choices = Vec::new();
    choices.extend(usage.overwritten.map(Scratch::Free));
    let behind = site.offset + site.instruction.len() as u32;
    choices.extend(
        VOLATILE
            .into_iter()
            .filter(|register| {
                !usage.names(*register) && liveness::is_free(code, behind, *register)
            })
            .map(Scratch::Free),
    );
    if !usage.names(Register::RSP) {
        let unused = VOLATILE
            .into_iter()
            .filter(|register| !usage.names(*register));
        choices.extend(unused.map(Scratch::Saved));
    }
    if choices.is_empty() {
        let message = format!(
            "`{}` names the stack pointer and no register is free",
            site.instruction
        );
        lowering.refuse(Code::StackOperand, site.id, site.offset, message);
        return None;
    }
    let encoded = choices.into_iter().find_map(|scratch| {
        Some((
            scratch,
            through_register(&site.instruction, scratch.register())?,
        ))
    });
    let Some((scratch, instruction)) = encoded else {
        return refuse_form(
            lowering,
            site,
            "the assembler cannot reproduce it with a register",
        );
    };
    let (piece, saved) = assemble(lowering, site, base, scratch, &instruction);
    let stub = lowering.add_stub(site.id, piece);
    unwind::describe_stub(lowering, site, entry.as_ref(), stub, saved)?;
    Some(stub)
}

impl Scratch {
    fn register(self) -> Register {
        match self {
            Scratch::Free(register) | Scratch::Saved(register) => register,
        }
    }
}

/// The bytes of the stub, and the push at its start where there is one.
fn assemble(
    lowering: &mut Lowering<'_>,
    site: &Site,
    base: Rva<Base>,
    scratch: Scratch,
    instruction: &[u8],
) -> (crate::piece::Piece, Option<unwind::Push>) {
    let slot = lowering.address_slot(base);
    let number = scratch.register().number() as u8;
    let with_stack = |opcode: u8| {
        let mut bytes = Vec::new();
        if number >= 8 {
            bytes.push(0x41);
        }
        bytes.push(opcode + (number & 7));
        bytes
    };
    let saved = matches!(scratch, Scratch::Saved(_));
    let mut bytes = if saved { with_stack(0x50) } else { Vec::new() };
    let push = saved.then_some(unwind::Push {
        length: bytes.len() as u8,
        register: number,
    });
    let mut references = vec![relative(
        bytes.len() as u32,
        7,
        3,
        ReferenceKind::Memory(8),
        slot,
    )];
    bytes.extend(load_slot(number));
    bytes.extend_from_slice(instruction);
    if saved {
        bytes.extend(with_stack(0x58));
    }
    let behind = i64::from(site.offset) + site.instruction.len() as i64;
    let back = Place::new(site.id, behind);
    references.push(relative(
        bytes.len() as u32,
        5,
        1,
        ReferenceKind::Jump,
        back,
    ));
    bytes.extend([0xe9, 0, 0, 0, 0]);
    let name = format!(
        "{} stub+{:#x}",
        lowering.parts.piece(site.id).name,
        site.offset
    );
    (new_piece(&name, Room::Code, 1, bytes, references), push)
}

/// The registers an instruction names, its implicit ones included.
struct Usage {
    named: Vec<Register>,
    /// The destination, where the instruction overwrites all of it and reads none of it.
    overwritten: Option<Register>,
}

impl Usage {
    fn of(instruction: &Instruction) -> Self {
        let mut factory = InstructionInfoFactory::new();
        let info = factory.info(instruction);
        let named: Vec<_> = info
            .used_registers()
            .iter()
            .map(|used| used.register().full_register())
            .chain(info.used_memory().iter().flat_map(|memory| {
                [
                    memory.base().full_register(),
                    memory.index().full_register(),
                ]
            }))
            .collect();
        let destination = instruction.op0_register();
        let full = destination.full_register();
        let is_plain = instruction.op_count() >= 2
            && instruction.op0_kind() == OpKind::Register
            && (destination.is_gpr64() || destination.is_gpr32())
            && full != Register::RSP
            && info.op0_access() == OpAccess::Write
            && (1..instruction.op_count()).any(|at| instruction.op_kind(at) == OpKind::Memory)
            && info.used_registers().iter().all(|used| {
                used.register().full_register() != full || used.access() == OpAccess::Write
            });
        Self {
            named,
            overwritten: is_plain.then_some(full),
        }
    }

    fn names(&self, register: Register) -> bool {
        self.named.contains(&register)
    }
}

/// The bytes of `instruction` with `[register]` for its memory operand, decoded again to be sure.
fn through_register(instruction: &Instruction, register: Register) -> Option<Vec<u8>> {
    let mut moved = *instruction;
    moved.set_memory_base(register);
    moved.set_memory_index(Register::None);
    moved.set_memory_displacement64(0);
    moved.set_memory_displ_size(0);
    let mut encoder = Encoder::new(64);
    let length = encoder.encode(&moved, 0).ok()?;
    let bytes = encoder.take_buffer();
    let again = Decoder::with_ip(64, &bytes, 0, DecoderOptions::NONE).decode();
    let same_operands = (0..again.op_count()).all(|at| {
        again.op_kind(at) == instruction.op_kind(at)
            && (again.op_kind(at) != OpKind::Register
                || again.op_register(at) == instruction.op_register(at))
    });
    let same = length == bytes.len()
        && again.len() == length
        && again.mnemonic() == instruction.mnemonic()
        && again.memory_size() == instruction.memory_size()
        && again.memory_base() == register
        && again.memory_index() == Register::None
        && again.memory_displacement64() == 0
        && again.has_lock_prefix() == instruction.has_lock_prefix()
        && again.has_rep_prefix() == instruction.has_rep_prefix()
        && again.op_count() == instruction.op_count()
        && same_operands
        && immediates(&again) == immediates(instruction);
    same.then_some(bytes)
}

fn immediates(instruction: &Instruction) -> Vec<u64> {
    (0..instruction.op_count())
        .filter_map(|at| instruction.try_immediate(at).ok())
        .collect()
}

/// Whether executing it can raise although its operand is accessible.
fn may_raise(instruction: &Instruction) -> bool {
    matches!(instruction.mnemonic(), Mnemonic::Div | Mnemonic::Idiv)
}
