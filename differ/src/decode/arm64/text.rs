//! Instructions as text, by capstone.

use capstone::arch::BuildsCapstone;
use capstone::arch::arm64::ArchMode;
use capstone::{Capstone, Error};

/// A disassembler to be used again and again; making one is slow.
#[derive(Debug)]
pub struct Text {
    capstone: Capstone,
}

impl Text {
    /// A disassembler for A64.
    ///
    /// # Errors
    /// Where capstone was built without it or has no memory.
    pub fn new() -> Result<Self, Error> {
        let capstone = Capstone::new().arm64().mode(ArchMode::Arm).build()?;
        Ok(Self { capstone })
    }

    /// The instruction `word` at the virtual address `address`: mnemonic and operands, separated
    /// by a space.
    ///
    /// `name` is asked for the operand that holds an address or a part of one, as capstone writes
    /// it without its `#`; what it answers takes the operand's place. Words that are no
    /// instruction are written as `.word`.
    pub fn line(
        &self,
        word: u32,
        address: u64,
        name: impl FnOnce(&str) -> Option<String>,
    ) -> String {
        let bytes = word.to_le_bytes();
        let Ok(instructions) = self.capstone.disasm_count(&bytes, address, 1) else {
            return format!(".word {word:#010x}");
        };
        let Some(instruction) = instructions.iter().next() else {
            return format!(".word {word:#010x}");
        };
        let mnemonic = instruction.mnemonic().unwrap_or_default();
        let operands = instruction.op_str().unwrap_or_default();
        if operands.is_empty() {
            return mnemonic.to_owned();
        }
        format!("{mnemonic} {}", named(operands, name))
    }
}

/// `operands` with the last number in them replaced by a name: in every instruction that holds an
/// address, that is the one.
fn named(operands: &str, name: impl FnOnce(&str) -> Option<String>) -> String {
    let Some(start) = operands.rfind('#') else {
        return operands.to_owned();
    };
    let number = &operands[start + 1..];
    let length = number
        .find(|c: char| !c.is_ascii_alphanumeric() && c != '-')
        .unwrap_or(number.len());
    let (number, rest) = number.split_at(length);
    match name(number) {
        Some(name) => format!("{}{name}{rest}", &operands[..start]),
        None => operands.to_owned(),
    }
}
