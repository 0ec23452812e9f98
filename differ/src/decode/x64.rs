//! x64 instructions, decoded by `iced-x86`.
//!
//! Three kinds of operand point somewhere: a displacement relative to the next instruction, an
//! eight-byte immediate under a base relocation, and a four-byte displacement that MSVC adds to a
//! register holding the image base (`mov ecx, [rdx+rax*4+table]` behind `lea rdx, __ImageBase`).
//! The last one is told from a plain displacement by its register: see `image_base`, which also
//! finds the tables that stand between instructions. In code that no known way leads to, only
//! operands based on a register that held the image base somewhere in the function count.

mod image_base;
mod uses;

use hpbuild_metadata::{Rva, Side};
use iced_x86::{
    Code as Opcode, ConstantOffsets, Decoder, DecoderOptions, FlowControl, Formatter,
    Instruction as Iced, MasmFormatter, Mnemonic, OpKind, Register, SymbolResolver, SymbolResult,
};

use super::{Body, Code, Field, Instruction, JumpTable, Reference, ReferenceKind};

pub(super) use uses::{constants_differing, is_compared, reaches_back, runs_on};

/// Bytes of code below which a displacement is never taken for an RVA: headers come first.
const LOWEST_RVA: u64 = 0x1000;

/// No instruction has more bytes.
const LONGEST: usize = 15;

pub(super) fn decode<S: Side>(code: Code<'_, S>, body: &mut Body<S>) {
    let mut tables = Tables::default();
    let bases = walk(code, body, RegisterSet::default(), &tables);
    let literals = literals(code, body);
    if bases.is_empty() && literals.is_empty() {
        return;
    }
    // The image base is in play, or there are constants between the instructions: walk again, now
    // knowing where it is and what is no code.
    body.instructions.clear();
    tables.found = image_base::follow(code);
    body.jump_tables = tables.found.jump_tables(code);
    tables.add_literals(code, &literals);
    tables.set_apart(code, &body.jump_tables);
    walk(code, body, bases, &tables);
}

/// Where in the code instructions read constants: the offset of each such instruction, and the
/// offset and the size of what it reads. Constants that were taken for instructions may be among
/// the readers.
fn literals<S: Side>(code: Code<'_, S>, body: &Body<S>) -> Vec<(u32, usize, usize)> {
    let literal = |instruction: &Instruction<S>| {
        let reference = instruction.reference?;
        let ReferenceKind::Memory(size @ 1..) = reference.kind else {
            return None;
        };
        let start = reference.target.get().checked_sub(code.rva.get())? as usize;
        let end = start.checked_add(size.into())?;
        (end <= code.bytes.len()).then_some((instruction.offset, start, end))
    };
    body.instructions.iter().filter_map(literal).collect()
}

/// What stands between the instructions and is none.
#[derive(Default)]
struct Tables {
    found: image_base::Found,
    /// Start and end of each table, and the bytes of an entry; sorted, disjoint.
    spans: Vec<(usize, usize, usize)>,
}

impl Tables {
    /// Sets apart what instructions read that some way leads to, where no way leads into it.
    fn add_literals<S: Side>(&mut self, code: Code<'_, S>, literals: &[(u32, usize, usize)]) {
        let reached = &self.found.reached;
        let is_reached = |at: &usize| u32::try_from(*at).is_ok_and(|at| reached.contains(&at));
        let length = |at: usize| {
            let bytes = code.bytes.get(at..).unwrap_or_default();
            Decoder::new(64, bytes, DecoderOptions::NONE).decode().len()
        };
        let is_code = |start: usize, end: usize| {
            let before = start.saturating_sub(LONGEST)..start;
            (start..end).any(|at| is_reached(&at))
                || before.filter(is_reached).any(|at| at + length(at) > start)
        };
        let read = literals
            .iter()
            .filter(|(reader, start, end)| reached.contains(reader) && !is_code(*start, *end))
            .map(|(_, start, end)| (*start, *end, 8));
        self.spans.extend(read);
    }

    fn set_apart<S: Side>(&mut self, code: Code<'_, S>, jumps: &[JumpTable<S>]) {
        for table in jumps {
            let start = table.table.get().wrapping_sub(code.rva.get()) as usize;
            if let Some(count @ 1..) = table.count {
                self.spans.push((start, start + 4 * count as usize, 4));
            }
        }
        for start in &self.found.indexes {
            self.spans.push((*start as usize, code.bytes.len(), 1));
        }
        self.spans.sort_unstable();
        // A table of indexes ends where anything else is known to be.
        let next: Vec<usize> = self.spans.iter().skip(1).map(|span| span.0).collect();
        let mut reached: Vec<u32> = self.found.reached.iter().copied().collect();
        reached.sort_unstable();
        for (index, span) in self.spans.iter_mut().enumerate() {
            let code_behind = reached.partition_point(|at| (*at as usize) <= span.0);
            let ends = [
                next.get(index).copied(),
                reached.get(code_behind).map(|at| *at as usize),
            ];
            span.1 = ends.into_iter().flatten().fold(span.1, usize::min);
        }
        self.spans.retain(|span| span.0 < span.1);
    }

    /// The table that begins at or behind `position`.
    fn next(&self, position: usize) -> Option<(usize, usize, usize)> {
        let index = self.spans.partition_point(|span| span.1 <= position);
        self.spans.get(index).copied()
    }
}

/// Decodes everything, taking displacements on `bases` for image-relative addresses. Returns the
/// registers that receive the image base.
fn walk<S: Side>(
    code: Code<'_, S>,
    body: &mut Body<S>,
    bases: RegisterSet,
    tables: &Tables,
) -> RegisterSet {
    let start = u64::from(code.rva.get());
    let mut decoder = Decoder::with_ip(64, code.bytes, start, DecoderOptions::NONE);
    let mut iced = Iced::default();
    let mut found = RegisterSet::default();
    let mut relocated = code.relocated.iter().map(|place| u64::from(place.get()));
    let mut next_relocated = relocated.next();
    // Where no register is known to hold the image base, no displacement counts from it.
    let any_base = !bases.is_empty() || !tables.found.reached.is_empty();
    let data = |offset: usize, length: usize| Instruction {
        offset: u32::try_from(offset).expect("a function is smaller than 4 GiB"),
        length: u8::try_from(length).expect("as long as an entry"),
        valid: false,
        reference: None,
    };
    let mut table = tables.next(0);
    while decoder.can_decode() {
        let position = decoder.position();
        if let Some((_, end, size)) = table.filter(|(start, ..)| *start <= position) {
            let mut at = position;
            while at < end {
                let length = size.min(end - at);
                body.instructions.push(data(at, length));
                at += length;
            }
            resume(&mut decoder, start, at);
            table = tables.next(at);
            continue;
        }
        decoder.decode_out(&mut iced);
        let straddles = table.is_some_and(|(start, ..)| position + iced.len() > start);
        if iced.is_invalid() || straddles {
            // Resume one byte on, so that one bad byte hides no more than itself.
            body.instructions.push(data(position, 1));
            resume(&mut decoder, start, position + 1);
            continue;
        }
        let offset = u32::try_from(position).expect("a function is smaller than 4 GiB");
        let length = u8::try_from(iced.len()).expect("an instruction has at most 15 bytes");
        let end = start + (position + iced.len()) as u64;
        let mut has_relocation = false;
        while next_relocated.is_some_and(|place| place < end) {
            has_relocation = true;
            next_relocated = relocated.next();
        }
        let constants = || decoder.get_constant_offsets(&iced);
        let on_base = || match any_base && tables.found.reached.contains(&offset) {
            true => tables.found.accesses.contains_key(&offset),
            false => bases.is_base_of(&iced),
        };
        let reference = if has_relocation {
            absolute(&iced, constants(), code.image_base)
        } else {
            relative(&iced, constants).or_else(|| match any_base {
                true => image_relative(&iced, constants, on_base),
                false => None,
            })
        };
        note_image_base(&iced, reference.as_ref(), &mut found);
        body.widens_words |= iced.code() == Opcode::Movsxd_r64_rm32;
        body.instructions.push(Instruction {
            offset,
            length,
            valid: true,
            reference,
        });
    }
    found
}

/// Goes on decoding at `position`.
fn resume(decoder: &mut Decoder<'_>, start: u64, position: usize) {
    let resumed = decoder.set_position(position);
    debug_assert!(resumed.is_ok(), "the decoder stays inside its bytes");
    decoder.set_ip(start + position as u64);
}

/// Branches, calls and `[rip+x]`.
fn relative<S: Side>(iced: &Iced, constants: impl Fn() -> ConstantOffsets) -> Option<Reference<S>> {
    let is_branch = matches!(
        iced.op0_kind(),
        OpKind::NearBranch64 | OpKind::NearBranch32 | OpKind::NearBranch16
    ) && iced.op_count() > 0;
    if is_branch {
        let kind = match iced.flow_control() {
            FlowControl::Call => ReferenceKind::Call,
            FlowControl::UnconditionalBranch => ReferenceKind::Jump,
            _ => ReferenceKind::ConditionalJump,
        };
        let at = constants();
        let field = Field::Relative {
            at: u8::try_from(at.immediate_offset()).ok()?,
            size: u8::try_from(at.immediate_size()).ok()?,
        };
        return Some(Reference {
            target: rva(iced.near_branch_target())?,
            kind,
            field,
        });
    }
    if iced.is_ip_rel_memory_operand() {
        let at = constants();
        let field = Field::Relative {
            at: u8::try_from(at.displacement_offset()).ok()?,
            size: u8::try_from(at.displacement_size()).ok()?,
        };
        let target = rva(iced.ip_rel_memory_address())?;
        return Some(Reference {
            target,
            kind: memory_kind(iced),
            field,
        });
    }
    None
}

/// An eight-byte address that the loader adjusts.
fn absolute<S: Side>(iced: &Iced, at: ConstantOffsets, image_base: u64) -> Option<Reference<S>> {
    let (address, at, kind) = if at.immediate_size() == 8 {
        (
            iced.immediate64(),
            at.immediate_offset(),
            ReferenceKind::Address,
        )
    } else if at.displacement_size() == 8 {
        (
            iced.memory_displacement64(),
            at.displacement_offset(),
            memory_kind(iced),
        )
    } else {
        return None;
    };
    let target = rva(address.checked_sub(image_base)?)?;
    Some(Reference {
        target,
        kind,
        field: Field::Absolute {
            at: u8::try_from(at).ok()?,
        },
    })
}

/// `[base+index*scale+rva]` where `base` or `index` holds the image base.
fn image_relative<S: Side>(
    iced: &Iced,
    constants: impl Fn() -> ConstantOffsets,
    on_base: impl Fn() -> bool,
) -> Option<Reference<S>> {
    let displacement = iced.memory_displacement64();
    if iced.memory_displ_size() < 4 || displacement < LOWEST_RVA || !on_base() {
        return None;
    }
    let at = constants();
    let field = Field::ImageRelative {
        at: u8::try_from(at.displacement_offset()).ok()?,
    };
    // With an index it is a whole table that is reached, not so many bytes.
    let kind = match image_base::is_indexed(iced) {
        true => ReferenceKind::Address,
        false => memory_kind(iced),
    };
    Some(Reference {
        target: rva(displacement)?,
        kind,
        field,
    })
}

/// Remembers registers that receive the image base, directly or from one another.
fn note_image_base<S: Side>(
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

fn memory_kind(iced: &Iced) -> ReferenceKind {
    if iced.mnemonic() == Mnemonic::Lea {
        return ReferenceKind::Address;
    }
    ReferenceKind::Memory(u16::try_from(iced.memory_size().size()).unwrap_or(0))
}

/// An address as the decoder computes it, wrapped to 64 bits, as an RVA.
fn rva<S: Side>(address: u64) -> Option<Rva<S>> {
    u32::try_from(address).ok().map(Rva::new)
}

/// A set of the sixteen general registers.
#[derive(Clone, Copy, Default)]
struct RegisterSet(u16);

impl RegisterSet {
    fn is_empty(self) -> bool {
        self.0 == 0
    }

    fn bit(register: Register) -> u16 {
        if register.is_gpr64() {
            1 << register.number()
        } else {
            0
        }
    }

    fn contains(self, register: Register) -> bool {
        self.0 & Self::bit(register) != 0
    }

    /// Whether a memory operand is based on one of the registers.
    fn is_base_of(self, iced: &Iced) -> bool {
        self.contains(iced.memory_base())
            || (self.contains(iced.memory_index()) && iced.memory_index_scale() == 1)
    }

    fn insert(&mut self, register: Register) {
        self.0 |= Self::bit(register);
    }
}

/// How many instructions behind a load from a relative table the address is added at the latest.
const TABLE_WINDOW: usize = 12;

/// Finds `lea t, [table]`, then `movsxd x, [t+i*4]` or `[i+t]`, then `add` of the two, in this order; other
/// instructions may stand between.
pub(super) fn relative_tables<S: Side>(code: Code<'_, S>, body: &Body<S>) -> Vec<Rva<S>> {
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
            Some((register, tables[number]?))
        };
        let scale = load.memory_index_scale();
        if index_register == Register::None || !matches!(scale, 1 | 4) {
            continue;
        }
        let swapped = || table_in(index_register).filter(|_| scale == 1);
        let Some((base, table)) = table_in(base).or_else(swapped) else {
            continue;
        };
        let adds = |instruction: &Instruction<S>| {
            iced_at(instruction).is_some_and(|iced| {
                let registers = [iced.op0_register(), iced.op1_register()];
                iced.mnemonic() == Mnemonic::Add
                    && registers.contains(&base)
                    && registers.contains(&load.op0_register())
            })
        };
        if load.memory_displacement64() == 0
            && body.instructions[index + 1..]
                .iter()
                .take(TABLE_WINDOW)
                .any(adds)
        {
            found.push(table);
        }
    }
    found
}

/// The text of each of the instructions; `name` names what operands point at.
pub fn text<S: Side>(
    code: Code<'_, S>,
    instructions: &[Instruction<S>],
    name: &dyn Fn(Rva<S>, ReferenceKind) -> Option<String>,
) -> Vec<String> {
    instructions
        .iter()
        .map(|instruction| text_of(code, instruction, name))
        .collect()
}

fn text_of<S: Side>(
    code: Code<'_, S>,
    instruction: &Instruction<S>,
    name: &dyn Fn(Rva<S>, ReferenceKind) -> Option<String>,
) -> String {
    let start = instruction.offset as usize;
    let bytes = code
        .bytes
        .get(start..start + usize::from(instruction.length))
        .unwrap_or_default();
    if let (false, Some(reference)) = (instruction.valid, instruction.reference) {
        let target = name(reference.target, reference.kind);
        return format!(
            "dd {}",
            target.unwrap_or_else(|| reference.target.to_string())
        );
    }
    if !instruction.valid {
        return bytes.iter().map(|byte| format!("db {byte:02x}h")).collect();
    }
    let symbol = instruction
        .reference
        .and_then(|reference| name(reference.target, reference.kind));
    let resolver = Operand { symbol };
    let mut formatter = MasmFormatter::with_options(Some(Box::new(resolver)), None);
    let options = formatter.options_mut();
    options.set_hex_prefix("0x");
    options.set_hex_suffix("");
    options.set_space_after_operand_separator(true);
    options.set_rip_relative_addresses(false);
    options.set_show_symbol_address(false);
    let ip = u64::from(code.rva.get()) + u64::from(instruction.offset);
    let iced = Decoder::with_ip(64, bytes, ip, DecoderOptions::NONE).decode();
    let mut text = String::new();
    formatter.format(&iced, &mut text);
    text
}

/// Names the one operand that points somewhere.
struct Operand {
    symbol: Option<String>,
}

impl SymbolResolver for Operand {
    fn symbol(
        &mut self,
        iced: &Iced,
        _operand: u32,
        instruction_operand: Option<u32>,
        address: u64,
        size: u32,
    ) -> Option<SymbolResult<'_>> {
        // Plain numbers pass here too; only an operand that points somewhere has a name.
        let operand = instruction_operand?;
        let points = match iced.op_kind(operand) {
            OpKind::NearBranch64 | OpKind::Memory | OpKind::Immediate64 => true,
            _ => size == 8 && iced.is_ip_rel_memory_operand(),
        };
        let symbol = self.symbol.as_deref().filter(|_| points)?;
        Some(SymbolResult::with_str(address, symbol))
    }
}

#[cfg(test)]
mod tests {
    use hpbuild_metadata::Base;

    use super::*;

    fn references(bytes: &[u8], rva: u32) -> Vec<(u32, Reference<Base>)> {
        let mut body = Body::default();
        let code = Code {
            bytes,
            rva: Rva::new(rva),
            image_base: 0x1_8000_0000,
            relocated: &[],
        };
        decode(code, &mut body);
        let covered: u32 = body.instructions.iter().map(|i| u32::from(i.length)).sum();
        assert_eq!(covered as usize, bytes.len(), "no gaps");
        body.instructions
            .iter()
            .filter_map(|i| Some((i.offset, i.reference?)))
            .collect()
    }

    #[test]
    fn relative_operands() {
        // call +0x10; lea rax,[rip+0x100]; mov eax,[rip-4]; jne +2; jmp [rip+0]
        let code = [
            0xe8, 0x10, 0, 0, 0, //
            0x48, 0x8d, 0x05, 0, 1, 0, 0, //
            0x8b, 0x05, 0xfc, 0xff, 0xff, 0xff, //
            0x75, 0x02, //
            0xff, 0x25, 0, 0, 0, 0,
        ];
        let found = references(&code, 0x1000);
        let expected = [
            (0, 0x1015, ReferenceKind::Call, 1, 4),
            (5, 0x110c, ReferenceKind::Address, 3, 4),
            (12, 0x100e, ReferenceKind::Memory(4), 2, 4),
            (18, 0x1016, ReferenceKind::ConditionalJump, 1, 1),
            (20, 0x101a, ReferenceKind::Memory(8), 2, 4),
        ];
        let expected: Vec<_> = expected
            .into_iter()
            .map(|(offset, target, kind, at, size)| {
                let field = Field::Relative { at, size };
                (
                    offset,
                    Reference {
                        target: Rva::new(target),
                        kind,
                        field,
                    },
                )
            })
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn relative_tables_by_entries_and_by_bytes() {
        let tables = |load: [u8; 4]| {
            // lea rbx,[rip+0x100]; load; add rdx,rbx
            let mut code = vec![0x48, 0x8d, 0x1d, 0, 1, 0, 0];
            code.extend(load);
            code.extend([0x48, 0x01, 0xda]);
            let code = Code::<Base> {
                bytes: &code,
                rva: Rva::new(0x1000),
                image_base: 0,
                relocated: &[],
            };
            let mut body = Body::default();
            decode(code, &mut body);
            relative_tables(code, &body)
        };
        let found = [Rva::new(0x1107)];
        // movsxd rdx, dword ptr [rbx+rdi*4], [rdi+rbx] and [rbx+rdi]
        assert_eq!(tables([0x48, 0x63, 0x14, 0xbb]), found);
        assert_eq!(tables([0x48, 0x63, 0x14, 0x1f]), found);
        assert_eq!(tables([0x48, 0x63, 0x14, 0x3b]), found);
        // [rdi+rbx*4] multiplies the address, and [rsi+rdi] has nothing to do with it.
        assert_eq!(tables([0x48, 0x63, 0x14, 0x9f]), []);
        assert_eq!(tables([0x48, 0x63, 0x14, 0x3e]), []);
    }

    /// A displacement before an immediate: the field is not at the end of the instruction.
    #[test]
    fn displacement_before_an_immediate() {
        // mov dword [rip+0x10], 7
        let code = [0xc7, 0x05, 0x10, 0, 0, 0, 7, 0, 0, 0];
        let found = references(&code, 0x2000);
        assert_eq!(found[0].1.target, Rva::new(0x201a));
        assert_eq!(found[0].1.field, Field::Relative { at: 2, size: 4 });
    }

    /// MSVC's switch: the table's address is a displacement on the register with the image base.
    #[test]
    fn image_relative_displacement() {
        // lea rdx,[rip-0x1007] (= 0); mov ecx,[rdx+rax*4+0x2340]; mov ecx,[rbx+0x2340]
        let code = [
            0x48, 0x8d, 0x15, 0xf9, 0xef, 0xff, 0xff, //
            0x8b, 0x8c, 0x82, 0x40, 0x23, 0, 0, //
            0x8b, 0x8b, 0x40, 0x23, 0, 0,
        ];
        let found = references(&code, 0x1000);
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!(found[0].1.target, Rva::new(0));
        assert_eq!(found[1].1.target, Rva::new(0x2340));
        assert_eq!(found[1].1.field, Field::ImageRelative { at: 3 });
    }

    #[test]
    fn absolute_immediate_under_a_base_relocation() {
        // mov rax, 0x180003000
        let code = [0x48, 0xb8, 0, 0x30, 0, 0x80, 1, 0, 0, 0];
        let mut body = Body::<Base>::default();
        let relocated = [Rva::new(0x1002)];
        let rva = Rva::new(0x1000);
        decode(
            Code {
                bytes: &code,
                rva,
                image_base: 0x1_8000_0000,
                relocated: &relocated,
            },
            &mut body,
        );
        let reference = body.instructions[0].reference.unwrap();
        assert_eq!(reference.target, Rva::new(0x3000));
        assert_eq!(reference.field, Field::Absolute { at: 2 });
    }

    #[test]
    fn bad_bytes_hide_only_themselves() {
        // An invalid opcode in 64-bit mode, then ret.
        let mut body = Body::<Base>::default();
        let code = [0x06, 0xc3];
        decode(
            Code {
                bytes: &code,
                rva: Rva::new(0),
                image_base: 0,
                relocated: &[],
            },
            &mut body,
        );
        let valid: Vec<_> = body
            .instructions
            .iter()
            .map(|i| (i.length, i.valid))
            .collect();
        assert_eq!(valid, [(1, false), (1, true)]);
    }
}
