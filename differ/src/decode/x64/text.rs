//! Instructions as text.

use hpbuild_metadata::{Rva, Side};
use iced_x86::{
    Decoder, DecoderOptions, Formatter, Instruction as Iced, MasmFormatter, OpKind, SymbolResolver,
    SymbolResult,
};

use super::super::{Code, Instruction, ReferenceKind};

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

/// The first formatter builds the tables of all mnemonics.
pub(in super::super) fn prepare_text() {
    drop(MasmFormatter::new());
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
