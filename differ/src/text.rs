//! Instructions as text with symbolic operands, the same for both machines.

use hpbuild_metadata::{FunctionId, Machine, Rva, Side};

use crate::decode::{Instruction, ReferenceKind, arm64, x64};
use crate::explain::{name_at, quote, whole_text};
use crate::image::Image;
use crate::meaning::{anonymous_extent, is_read_only};
use crate::read::code_at;

/// Bytes that are shown of a constant which is no text.
const BYTES: usize = 8;

/// The text of each of these instructions of a function. What an operand points at is named, and a
/// branch inside the function leads to `+offset`.
pub fn instructions<S: Side>(
    image: &Image<S>,
    id: FunctionId<S>,
    instructions: &[Instruction<S>],
) -> Vec<String> {
    let function = image.function(id);
    let code = code_at(&image.pe, &[], function);
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

/// The text of so many bytes without a name of the program's, where they are one.
pub(crate) fn whole<S: Side>(image: &Image<S>, rva: Rva<S>, size: u32) -> Option<String> {
    let bytes = image.pe.bytes(rva, size)?;
    whole_text(bytes).map(|text| quote(&text, 0))
}

/// What has no name. Of a constant its value where instructions read it as a whole, the text that it is
/// where it is convincingly one, and otherwise the bytes that it begins with.
pub(crate) fn constant<S: Side>(image: &Image<S>, rva: Rva<S>, width: u16) -> Option<String> {
    // What it starts with is not what it holds.
    if !is_read_only(image, rva) {
        return Some("<nameless data>".into());
    }
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
    let extent = anonymous_extent(image, rva, ReferenceKind::Address);
    let size = extent.map_or(bytes.len(), |extent| extent.size as usize);
    let bytes = &bytes[..bytes.len().min(size)];
    bytes.first()?;
    if image.relative_tables.binary_search(&rva).is_ok() {
        return Some("<relative table>".into());
    }
    // Addresses as numbers mean nothing.
    let shown = &bytes[..bytes.len().min(BYTES)];
    let shown_size = u32::try_from(shown.len()).ok()?;
    if !image.pointers_in(rva, shown_size).is_empty() {
        return Some("<constant>".into());
    }
    if let Some(text) = whole_text(bytes) {
        return Some(quote(&text, 0));
    }
    let digits: String = shown.iter().map(|byte| format!(" {byte:02x}")).collect();
    let more = if bytes.len() > BYTES { " ..." } else { "" };
    Some(format!("<constant{digits}{more}>"))
}
