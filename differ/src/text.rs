//! Instructions as text with symbolic operands, the same for both machines.

use hpbuild_metadata::{FunctionId, Machine, Rva, Side};

use crate::decode::{Instruction, ReferenceKind, arm64, x64};
use crate::explain::name_at;
use crate::image::Image;
use crate::read::code_at;

/// Characters of a string constant that are shown.
const SHOWN: usize = 48;

/// The text of each of these instructions of a function. What an operand points at is named, and a
/// branch inside the function leads to `+offset`.
pub fn instructions<S: Side>(
    image: &Image<S>,
    id: FunctionId<S>,
    instructions: &[Instruction<S>],
) -> Vec<String> {
    let function = image.function(id);
    let code = code_at(&image.pe, function);
    let name = |target: Rva<S>, kind: ReferenceKind| {
        if let Some(offset) = target.checked_sub(function.rva)
            && offset < function.size
        {
            return Some(format!("+{offset:#x}"));
        }
        let width = match kind {
            ReferenceKind::Memory(width) => width,
            _ => 0,
        };
        name_at(image, target, width)
    };
    match image.pe.machine {
        Machine::X64 => x64::text(code, instructions, &name),
        Machine::Arm64 => arm64::text(code, instructions, &name),
    }
}

/// A constant without a name: its value, or the text that it is.
pub(crate) fn constant<S: Side>(image: &Image<S>, rva: Rva<S>, width: u16) -> Option<String> {
    let bytes = image.pe.bytes_from(rva);
    if width > 0 {
        let bytes = bytes.get(..width.into())?;
        let digits: String = bytes
            .iter()
            .rev()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        return Some(format!("<0x{digits}>"));
    }
    let length = bytes.iter().position(|byte| !(0x20..0x7f).contains(byte))?;
    if length == 0 || bytes[length] != 0 {
        return Some("<constant>".into());
    }
    let shown = String::from_utf8_lossy(&bytes[..length.min(SHOWN)]);
    let more = if length > SHOWN { "..." } else { "" };
    Some(format!("\"{shown}\"{more}"))
}
