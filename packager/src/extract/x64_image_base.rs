//! What `__ImageBase` means in a function: the start of the base, as a module handle and for
//! tables of the base; or the start of the patch, where jump tables that the patch carries are
//! added to it.

use hpbuild_differ::decode::{Body, Field, Instruction};
use hpbuild_differ::meaning::{Target as Meaning, is_read_only, resolve};
use hpbuild_metadata::{Fixed, Rva};

use iced_x86::{
    Decoder, DecoderOptions, FlowControl, InstructionInfoFactory, Mnemonic, OpAccess, OpKind,
    Register,
};
use rustc_hash::FxHashSet;

use super::Extraction;
use super::code::Operand;
use super::function::FunctionWalk;
use crate::piece::Target;
use crate::refusal::Code;

impl Extraction<'_> {
    /// The image base as this function needs it. Where it needs both, the linker refuses.
    pub(super) fn image_base_target(&self, walk: &FunctionWalk<'_>, body: &Body<Fixed>) -> Target {
        let needs_patch = body.instructions.iter().any(|instruction| {
            instruction.reference.is_some_and(|reference| {
                matches!(reference.field, Field::ImageRelative { .. })
                    && self.must_be_carried(walk, reference.target)
            })
        });
        if needs_patch {
            Target::PatchImageBase
        } else {
            Target::Base(Rva::new(0))
        }
    }

    /// Refuses a function that adds tables of the patch to the image base and uses the image base
    /// for something else as well: it would get the patch's where it wants the base's.
    pub(super) fn check_image_base_uses(
        &mut self,
        walk: &FunctionWalk<'_>,
        body: &Body<Fixed>,
        bytes: &[u8],
    ) {
        let takes_base = body.instructions.iter().filter(|instruction| {
            instruction
                .reference
                .is_some_and(|reference| reference.target.get() == 0)
        });
        let other_uses: Vec<u32> = takes_base
            .filter_map(|instruction| self.other_use(walk, body, bytes, instruction))
            .collect();
        for offset in other_uses {
            self.refuse(
                Code::MixedImageBase,
                walk.name,
                Some(offset),
                "the image base that jump tables are added to is used for something else",
            );
        }
    }

    /// Follows the register that receives the image base until it is overwritten; the offset of
    /// the first instruction that does more with it than reach a table.
    fn other_use(
        &self,
        walk: &FunctionWalk<'_>,
        body: &Body<Fixed>,
        bytes: &[u8],
        start: &Instruction<Fixed>,
    ) -> Option<u32> {
        let decode = |offset: u32| {
            let rest = bytes.get(offset as usize..)?;
            let options = DecoderOptions::NONE;
            let instruction = Decoder::with_ip(64, rest, offset.into(), options).decode();
            (!instruction.is_invalid()).then_some(instruction)
        };
        let lea = decode(start.offset)?;
        let register = lea.op0_register();
        if lea.mnemonic() != Mnemonic::Lea || !register.is_gpr64() {
            return Some(start.offset);
        }
        let mut info = InstructionInfoFactory::new();
        let mut seen = FxHashSet::default();
        let mut open = vec![start.offset + u32::from(start.length)];
        while let Some(at) = open.pop() {
            if !seen.insert(at) {
                continue;
            }
            let Some(instruction) = decode(at) else {
                return Some(at);
            };
            let reaches_table = body
                .instructions
                .binary_search_by_key(&at, |instruction| instruction.offset)
                .ok()
                .and_then(|index| body.instructions[index].reference)
                .is_some_and(|reference| matches!(reference.field, Field::ImageRelative { .. }));
            let (reads, writes) = uses(&mut info, &instruction, register);
            let adds = instruction.mnemonic() == Mnemonic::Add
                && instruction.op1_kind() == OpKind::Register
                && instruction.op0_kind() == OpKind::Register;
            if reads && !reaches_table && !adds {
                return Some(at);
            }
            if writes {
                continue;
            }
            let next = u32::try_from(instruction.next_ip()).ok();
            let target = (instruction.op0_kind() == OpKind::NearBranch64)
                .then(|| u32::try_from(instruction.near_branch64()).ok())
                .flatten();
            match instruction.flow_control() {
                FlowControl::Next => open.extend(next),
                FlowControl::UnconditionalBranch => open.extend(target),
                FlowControl::ConditionalBranch => open.extend(next.into_iter().chain(target)),
                FlowControl::Call | FlowControl::IndirectCall => {
                    // An argument register may carry it into the callee.
                    if is_argument(register) {
                        return Some(at);
                    }
                    if !is_volatile(register) {
                        open.extend(next);
                    }
                }
                FlowControl::IndirectBranch => open.extend(self.table_blocks(walk)),
                FlowControl::Return if register == Register::RAX => return Some(at),
                _ => {}
            }
            open.retain(|offset| (*offset as usize) < bytes.len());
        }
        None
    }

    /// Whether an instruction reads one or two bytes, which hold no address: an index into a table
    /// of addresses, right wherever it stands.
    pub(super) fn reads_index(&self, walk: &FunctionWalk<'_>, operand: &Operand) -> bool {
        let rva = walk.extent.rva.checked_add(operand.offset);
        let bytes = rva.and_then(|rva| self.diff.fixed.pe.bytes(rva, operand.length.into()));
        let decode = |bytes| Decoder::with_ip(64, bytes, 0, DecoderOptions::NONE).decode();
        let decoded = bytes.map(decode);
        decoded.is_some_and(|it| {
            it.mnemonic() == Mnemonic::Movzx && matches!(it.memory_size().size(), 1 | 2)
        })
    }

    /// Where the jump tables of a function lead, as offsets.
    fn table_blocks(&self, walk: &FunctionWalk<'_>) -> Vec<u32> {
        let tables = self.diff.fixed.switch_tables.iter();
        tables
            .filter(|table| walk.extent.offset_of(table.branch).is_some())
            .filter_map(|table| self.read_entries(table).ok())
            .flatten()
            .filter_map(|rva| walk.extent.offset_of(rva))
            .collect()
    }

    /// Whether only a copy in the patch will do.
    fn must_be_carried(&self, walk: &FunctionWalk<'_>, rva: Rva<Fixed>) -> bool {
        match resolve(&self.diff.fixed, rva) {
            Meaning::JumpTable(_) | Meaning::Anonymous(_) => true,
            Meaning::Function { id, .. } => id == walk.id,
            Meaning::Data { id, .. } => match self.comparer.base_data_of(id) {
                Some(base) => is_read_only(&self.diff.fixed, rva) && !self.comparer.data_same(base),
                None => true,
            },
            Meaning::Import(_) | Meaning::ImageBase(_) | Meaning::Outside => false,
        }
    }
}

/// Whether an instruction reads a register, and whether it overwrites it.
fn uses(
    info: &mut InstructionInfoFactory,
    instruction: &iced_x86::Instruction,
    register: Register,
) -> (bool, bool) {
    let info = info.info(instruction);
    let (mut reads, mut writes) = (false, false);
    for used in info.used_registers() {
        if used.register().full_register() == register {
            match used.access() {
                OpAccess::Write if used.register().size() >= 4 => writes = true,
                OpAccess::ReadWrite => {
                    reads = true;
                    writes = true;
                }
                _ => reads = true,
            }
        }
    }
    (reads, writes)
}

fn is_argument(register: Register) -> bool {
    [Register::RCX, Register::RDX, Register::R8, Register::R9].contains(&register)
}

fn is_volatile(register: Register) -> bool {
    [Register::RAX, Register::R10, Register::R11].contains(&register)
}
