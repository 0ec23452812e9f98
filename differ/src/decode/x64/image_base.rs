//! The image base as MSVC uses it in x64 code, and the jump tables behind it.
//!
//! ```text
//!     lea   rdx, [__ImageBase]
//!     movzx eax, byte ptr [rdx+rax+indexes]   ; only where many cases share a block
//!     mov   ecx, [rdx+rax*4+table]            ; the RVA of a block
//!     add   rcx, rdx
//!     jmp   rcx
//! ```
//!
//! Nothing in the file says that `indexes` and `table` are addresses, nor where the tables are:
//! behind the code of the function or, for assembly, in read-only data. So what registers hold is
//! followed through the control flow, tables included, which also tells code from tables. What no
//! way leads to is taken to be code.

use hpbuild_metadata::{Rva, Side};
use iced_x86::{
    Code as Opcode, Decoder, DecoderOptions, FlowControl, Instruction as Iced,
    InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register,
};
use rustc_hash::{FxHashMap, FxHashSet};

use super::super::{Code, JumpTable};

/// Below this a displacement is never taken for an RVA: headers come first.
const LOWEST_RVA: u64 = 0x1000;

/// Instructions looked at before giving up, counted as often as they are.
const MAX_STEPS: usize = 1 << 20;

/// What a register holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    /// Nothing known.
    Other,
    /// The image base.
    Base,
    /// An entry of the table at this RVA.
    Entry(u32),
    /// The address of a block that the table at this RVA leads to.
    Block(u32),
}

type Registers = [Held; 16];

/// What following the image base found.
#[derive(Default)]
pub(super) struct Found {
    /// Instructions, by offset, whose displacement is an RVA.
    pub(super) accesses: FxHashMap<u32, u32>,
    /// Instructions that some way leads to, by offset.
    pub(super) reached: FxHashSet<u32>,
    /// Jump tables; the place of the jump and what it goes by.
    pub(super) tables: Vec<Jump>,
    /// Offsets in the code where tables of bytes or words begin.
    pub(super) indexes: Vec<u32>,
}

/// A jump through a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Jump {
    /// RVA of the table.
    pub(super) table: u32,
    /// Offset of the jump.
    pub(super) branch: u32,
}

impl Found {
    /// The tables with their extents, as far as they stand in the code.
    pub(super) fn jump_tables<S: Side>(&self, code: Code<'_, S>) -> Vec<JumpTable<S>> {
        let mut starts: Vec<u32> = self.indexes.clone();
        let offset = |rva: u32| {
            let offset = rva.checked_sub(code.rva.get())?;
            ((offset as usize) < code.bytes.len()).then_some(offset)
        };
        starts.extend(self.tables.iter().filter_map(|jump| offset(jump.table)));
        starts.sort_unstable();
        let mut tables: Vec<JumpTable<S>> = Vec::new();
        for jump in &self.tables {
            if tables.iter().any(|table| table.table.get() == jump.table) {
                continue;
            }
            tables.push(JumpTable {
                table: Rva::new(jump.table),
                branch: Rva::new(code.rva.get().wrapping_add(jump.branch)),
                count: offset(jump.table).map(|start| {
                    let next = starts.partition_point(|other| *other <= start);
                    let end = starts.get(next).copied();
                    let entries = entries(code, start, end.unwrap_or(u32::MAX));
                    entries
                        .take_while(|entry| !self.reached.contains(&entry.0))
                        .count() as u32
                }),
            });
        }
        tables
    }
}

/// The entries of a table in the code at `start`, which `end` ends at the latest: the offset of
/// each and the offset it leads to. Another end is whatever does not lead into the code.
fn entries<S: Side>(
    code: Code<'_, S>,
    start: u32,
    end: u32,
) -> impl Iterator<Item = (u32, u32)> + use<'_, S> {
    let bytes = code.bytes.get(start as usize..).unwrap_or_default();
    let places = (start..end).step_by(4);
    bytes
        .chunks_exact(4)
        .zip(places)
        .map_while(move |(word, place)| {
            let rva = u32::from_le_bytes(*word.first_chunk()?);
            let target = rva.checked_sub(code.rva.get())?;
            let is_whole = place.checked_add(4)? <= end;
            (is_whole && (target as usize) < code.bytes.len()).then_some((place, target))
        })
}

/// Follows the image base through `code`.
pub(super) fn follow<S: Side>(code: Code<'_, S>) -> Found {
    let mut walk = Walk {
        code,
        states: FxHashMap::default(),
        open: Vec::new(),
        found: Found::default(),
        info: InstructionInfoFactory::new(),
        steps: 0,
    };
    walk.enter(0, &[Held::Other; 16]);
    while let Some(offset) = walk.open.pop() {
        walk.visit(offset);
        if walk.steps > MAX_STEPS {
            return Found::default();
        }
    }
    walk.found.reached = walk.states.into_keys().collect();
    walk.found.indexes.sort_unstable();
    walk.found.indexes.dedup();
    walk.found
}

struct Walk<'a, S: Side> {
    code: Code<'a, S>,
    /// What holds before each instruction that some way leads to.
    states: FxHashMap<u32, Registers>,
    /// Instructions before which that changed.
    open: Vec<u32>,
    found: Found,
    info: InstructionInfoFactory,
    steps: usize,
}

impl<S: Side> Walk<'_, S> {
    /// Brings `state` to an instruction. Where ways disagree about a register nothing is known of it.
    fn enter(&mut self, offset: u32, state: &Registers) {
        if offset as usize >= self.code.bytes.len() {
            return;
        }
        match self.states.get_mut(&offset) {
            None => {
                self.states.insert(offset, *state);
                self.open.push(offset);
            }
            Some(known) => {
                let mut changed = false;
                for (known, new) in known.iter_mut().zip(state) {
                    if *known != *new && *known != Held::Other {
                        *known = Held::Other;
                        changed = true;
                    }
                }
                if changed {
                    self.open.push(offset);
                }
            }
        }
    }

    /// Goes over one instruction.
    fn visit(&mut self, offset: u32) {
        self.steps += 1;
        let Some(mut state) = self.states.get(&offset).copied() else {
            return;
        };
        let bytes = self.code.bytes.get(offset as usize..).unwrap_or_default();
        let ip = u64::from(self.code.rva.get()) + u64::from(offset);
        let mut decoder = Decoder::with_ip(64, bytes, ip, DecoderOptions::NONE);
        let iced = decoder.decode();
        if iced.is_invalid() {
            return;
        }
        self.note(offset, &iced, &state);
        if iced.op0_kind() == OpKind::NearBranch64
            && iced.flow_control() != FlowControl::Call
            && let Some(target) = self.inside(iced.near_branch64())
        {
            self.enter(target, &state);
        }
        match iced.flow_control() {
            FlowControl::Next
            | FlowControl::Call
            | FlowControl::IndirectCall
            | FlowControl::ConditionalBranch
            | FlowControl::XbeginXabortXend => {
                self.step(&iced, &mut state);
                self.enter(offset + iced.len() as u32, &state);
            }
            FlowControl::IndirectBranch => self.jump(offset, &iced, &state),
            FlowControl::UnconditionalBranch
            | FlowControl::Return
            | FlowControl::Interrupt
            | FlowControl::Exception => {}
        }
    }

    fn inside(&self, address: u64) -> Option<u32> {
        let offset = u32::try_from(address)
            .ok()?
            .checked_sub(self.code.rva.get())?;
        ((offset as usize) < self.code.bytes.len()).then_some(offset)
    }

    /// Notes a displacement that is added to the image base.
    fn note(&mut self, offset: u32, iced: &Iced, state: &Registers) {
        if let Some(rva) = based(iced, state) {
            self.found.accesses.insert(offset, rva);
            let is_index = matches!(iced.memory_size().size(), 1 | 2)
                && iced.mnemonic() != Mnemonic::Lea
                && is_indexed(iced);
            if let (true, Some(at)) = (is_index, self.inside(rva.into())) {
                self.found.indexes.push(at);
            }
        } else {
            self.found.accesses.remove(&offset);
        }
    }

    /// A jump to where a register says.
    fn jump(&mut self, offset: u32, iced: &Iced, state: &Registers) {
        let register = iced.op0_register();
        if iced.op0_kind() != OpKind::Register || !register.is_gpr64() {
            return;
        }
        let Held::Block(table) = state[register.number()] else {
            return;
        };
        let jump = Jump {
            table,
            branch: offset,
        };
        if !self.found.tables.contains(&jump) {
            self.found.tables.push(jump);
        }
        let Some(start) = self.inside(table.into()) else {
            return;
        };
        let targets: Vec<u32> = entries(self.code, start, u32::MAX)
            .take_while(|(place, _)| !self.found.indexes.contains(place))
            .map(|(_, target)| target)
            .collect();
        self.steps += targets.len();
        for target in targets {
            self.enter(target, state);
        }
    }

    /// What the registers hold after an instruction.
    fn step(&mut self, iced: &Iced, state: &mut Registers) {
        let before = *state;
        let held = |register: Register| match register.is_gpr64() {
            true => before[register.number()],
            false => Held::Other,
        };
        if matches!(
            iced.flow_control(),
            FlowControl::Call | FlowControl::IndirectCall
        ) {
            for register in [0, 1, 2, 8, 9, 10, 11] {
                state[register] = Held::Other;
            }
            return;
        }
        for used in self.info.info(iced).used_registers() {
            let full = used.register().full_register();
            let writes = !matches!(
                used.access(),
                OpAccess::Read | OpAccess::CondRead | OpAccess::NoMemAccess | OpAccess::None
            );
            if full.is_gpr64() && writes {
                state[full.number()] = Held::Other;
            }
        }
        let to = iced.op0_register();
        if iced.op0_kind() != OpKind::Register || !to.full_register().is_gpr64() {
            return;
        }
        let place = &mut state[to.full_register().number()];
        let is_copy = matches!(iced.code(), Opcode::Mov_r64_rm64 | Opcode::Mov_rm64_r64);
        if iced.mnemonic() == Mnemonic::Lea && iced.is_ip_rel_memory_operand() {
            if iced.ip_rel_memory_address() == 0 {
                *place = Held::Base;
            }
        } else if is_copy && iced.op1_kind() == OpKind::Register {
            *place = held(iced.op1_register());
        } else if matches!(iced.code(), Opcode::Mov_r32_rm32 | Opcode::Movsxd_r64_rm32)
            && iced.op1_kind() == OpKind::Memory
        {
            let is_entry = is_indexed(iced)
                && (iced.memory_index_scale() == 4 || iced.memory_index_scale() == 1);
            if let (true, Some(rva)) = (is_entry, based(iced, &before)) {
                *place = Held::Entry(rva);
            }
        } else if iced.mnemonic() == Mnemonic::Add && iced.op1_kind() == OpKind::Register {
            *place = match (held(to), held(iced.op1_register())) {
                (Held::Entry(table), Held::Base) | (Held::Base, Held::Entry(table)) => {
                    Held::Block(table)
                }
                _ => Held::Other,
            };
        } else if iced.code() == Opcode::Lea_r64_m && iced.memory_displacement64() == 0 {
            // lea rcx, [rcx+rdx] for add rcx, rdx.
            let parts = (held(iced.memory_base()), held(iced.memory_index()));
            if let (Held::Entry(table), Held::Base) | (Held::Base, Held::Entry(table)) = parts {
                *place = Held::Block(table);
            }
        }
    }
}

/// The displacement of a memory operand whose base or index is the image base.
fn based(iced: &Iced, state: &Registers) -> Option<u32> {
    let holds = |register: Register| register.is_gpr64() && state[register.number()] == Held::Base;
    let on_base =
        holds(iced.memory_base()) || (holds(iced.memory_index()) && iced.memory_index_scale() == 1);
    let has_memory = (0..iced.op_count()).any(|at| iced.op_kind(at) == OpKind::Memory);
    let displacement = iced.memory_displacement64();
    if !has_memory || !on_base || iced.memory_displ_size() < 4 || displacement < LOWEST_RVA {
        return None;
    }
    u32::try_from(displacement).ok()
}

/// Whether the operand picks one of many.
pub(super) fn is_indexed(iced: &Iced) -> bool {
    iced.memory_base() != Register::None && iced.memory_index() != Register::None
}

#[cfg(test)]
mod tests {
    use hpbuild_metadata::Base;

    use super::*;

    /// The two-level switch of the module's example at 1000h, with both tables behind it:
    ///
    /// ```text
    ///  0  lea   rdx, [__ImageBase]
    ///  7  movzx eax, byte ptr [rdx+rcx+indexes]
    ///  f  mov   ecx, [rdx+rax*4+table]
    /// 16  add   rcx, rdx
    /// 19  jmp   rcx
    /// 1b  ret                       ; block 0
    /// 1c  mov   eax, [rcx+2000h]    ; block 1: rcx is no longer the base
    /// 22  ret
    /// 23  int3
    /// 24  table: block 0, block 1
    /// 2c  indexes: 0, 1, 0, 1
    /// ```
    fn switch() -> Vec<u8> {
        let mut code = vec![
            0x48, 0x8d, 0x15, 0xf9, 0xef, 0xff, 0xff, 0x0f, 0xb6, 0x84, 0x0a, 0x2c, 0x10, 0, 0,
            0x8b, 0x8c, 0x82, 0x24, 0x10, 0, 0, 0x48, 0x01, 0xd1, 0xff, 0xe1, 0xc3, 0x8b, 0x81, 0,
            0x20, 0, 0, 0xc3, 0xcc,
        ];
        for block in [0x101b_u32, 0x101c] {
            code.extend(block.to_le_bytes());
        }
        code.extend([0, 1, 0, 1]);
        code
    }

    fn at(bytes: &[u8]) -> Code<'_, Base> {
        Code {
            bytes,
            rva: Rva::new(0x1000),
            image_base: 0x1_8000_0000,
            relocated: &[],
            jumps: &[],
        }
    }

    #[test]
    fn both_tables_of_a_switch() {
        let bytes = switch();
        let found = follow(at(&bytes));
        let mut accesses: Vec<_> = found.accesses.iter().map(|(at, rva)| (*at, *rva)).collect();
        accesses.sort_unstable();
        // Not the load of block 1, whose register held the base before.
        assert_eq!(accesses, [(0x7, 0x102c), (0xf, 0x1024)]);
        assert_eq!(found.indexes, [0x2c]);
        let tables = found.jump_tables(at(&bytes));
        assert_eq!(tables.len(), 1);
        assert_eq!((tables[0].table.get(), tables[0].count), (0x1024, Some(2)));
        assert_eq!(tables[0].branch.get(), 0x1019);
        assert!(found.reached.contains(&0x1b) && found.reached.contains(&0x1c));
        assert!(!found.reached.contains(&0x23) && !found.reached.contains(&0x24));
    }

    #[test]
    fn a_table_elsewhere_has_no_extent_yet() {
        let mut bytes = switch();
        // The same table, in data.
        bytes[18..22].copy_from_slice(&0x5000_u32.to_le_bytes());
        let tables = follow(at(&bytes)).jump_tables(at(&bytes));
        assert_eq!((tables[0].table.get(), tables[0].count), (0x5000, None));
    }

    #[test]
    fn where_ways_disagree_nothing_is_known() {
        // test ecx, ecx; je +7; lea rdx, [__ImageBase]; mov eax, [rdx+2000h]; ret
        let bytes = [
            0x85, 0xc9, 0x74, 0x07, 0x48, 0x8d, 0x15, 0xf5, 0xef, 0xff, 0xff, 0x8b, 0x82, 0, 0x20,
            0, 0, 0xc3,
        ];
        assert!(follow(at(&bytes)).accesses.is_empty());
    }
}
