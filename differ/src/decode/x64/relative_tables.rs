//! Tables of distances from their own start, by the code that reads them.

use hpbuild_metadata::{Rva, Side};
use iced_x86::{Decoder, DecoderOptions, Mnemonic, Register};

use super::super::{Body, Code, Instruction, ReferenceKind};

/// How many instructions behind a load from a relative table the address is added at the latest.
const TABLE_WINDOW: usize = 12;

/// Finds `lea t, [table]`, then `movsxd x, [t+i*4]` or `[i+t]`, then `add` of the two, in this order; other
/// instructions may stand between.
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
