//! The linker's own record of which bytes hold an address, and whose.
//!
//! `link /DEBUGTYPE:CV,FIXUP` or `/PROFILE` leaves it in a stream of the PDB: one entry for every
//! relocation that was applied, the best evidence there is. It corrects what was read from the
//! code, and it is an oracle for how well that works where there is no such stream.

use std::path::Path;

use hpbuild_metadata::{Machine, Rva, Side};

use super::scan::{code_at, uncorrected};
use crate::decode::{Body, Field, Instruction, Reference, ReferenceKind};
use crate::error::Error;
use crate::image::{Fixup, FixupKind, Function, Image};
use crate::pe::Pe;

/// Bytes of an entry: type, extra, place, target (`XFIXUP_DATA` of the published PDB sources).
const ENTRY: usize = 12;

/// The entries of a fixup stream, sorted by place; those outside of every section are left out.
///
/// # Errors
/// The stream ends in the middle of an entry.
pub(super) fn parse<S: Side>(
    path: &Path,
    pe: &Pe<S>,
    bytes: &[u8],
) -> Result<Vec<Fixup<S>>, Error> {
    if !bytes.len().is_multiple_of(ENTRY) {
        let expected = format!("entries of {ENTRY} bytes");
        let found = format!("{:#x} bytes", bytes.len());
        return Err(Error::format(path, "pdb fixup stream", expected, found));
    }
    let word = |entry: &[u8], at: usize| {
        let bytes = entry.get(at..).and_then(|rest| rest.first_chunk());
        bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes))
    };
    let fixup = |entry: &[u8]| Fixup {
        place: Rva::new(word(entry, 4)),
        target: Rva::new(word(entry, 8)),
        kind: kind(pe.machine, (word(entry, 0) & 0xffff) as u16),
    };
    let mut fixups: Vec<Fixup<S>> = bytes.chunks_exact(ENTRY).map(fixup).collect();
    fixups.retain(|fixup| pe.section_at(fixup.place).is_some());
    fixups.sort_unstable_by_key(|fixup| (fixup.place, fixup.target));
    fixups.dedup();
    Ok(fixups)
}

/// COFF relocation types (Microsoft's PE format, "Type indicators").
fn kind(machine: Machine, value: u16) -> FixupKind {
    match (machine, value) {
        (Machine::X64, 1) | (Machine::Arm64, 14) => FixupKind::Address,
        (Machine::X64, 3) | (Machine::Arm64, 2) => FixupKind::ImageRelative,
        (Machine::X64, 4..=9) => FixupKind::Relative,
        (Machine::Arm64, 3..=7 | 15 | 16) => FixupKind::Relative,
        _ => FixupKind::Other,
    }
}

/// The fixups whose place lies in a function.
fn within<'a, S: Side>(fixups: &'a [Fixup<S>], function: &Function<S>) -> &'a [Fixup<S>] {
    let start = fixups.partition_point(|fixup| fixup.place < function.rva);
    let end = u64::from(function.rva.get()) + u64::from(function.size);
    let count = fixups[start..].partition_point(|fixup| u64::from(fixup.place.get()) < end);
    &fixups[start..start + count]
}

/// Where in an instruction its reference is stored in whole bytes, from the function's start.
fn place_of<S: Side>(instruction: &Instruction<S>) -> Option<u32> {
    match instruction.reference?.field {
        Field::Relative { at, .. } | Field::ImageRelative { at } | Field::Absolute { at } => {
            Some(instruction.offset + u32::from(at))
        }
        // The bits of a word, which a fixup names by the word. Those that hold none have no fixup.
        Field::Word { mask } => (mask != 0).then_some(instruction.offset),
    }
}

/// Corrects the image-relative references of a function, which the code alone does not show for
/// certain, by what the linker says.
pub(super) fn correct<S: Side>(fixups: &[Fixup<S>], function: &Function<S>, body: &mut Body<S>) {
    if fixups.is_empty() {
        return;
    }
    let places: Vec<(u32, Rva<S>)> = within(fixups, function)
        .iter()
        .filter(|fixup| fixup.kind == FixupKind::ImageRelative)
        .map(|fixup| (fixup.place.get() - function.rva.get(), fixup.target))
        .collect();
    for instruction in &mut body.instructions {
        let is_relative = matches!(
            instruction.reference.map(|reference| reference.field),
            Some(Field::ImageRelative { .. })
        );
        let end = instruction.offset + u32::from(instruction.length);
        let first = places.partition_point(|(place, _)| *place < instruction.offset);
        let named = places
            .get(first)
            .filter(|(place, _)| place.saturating_add(4) <= end);
        match named {
            None if is_relative => instruction.reference = None,
            Some((place, target)) if instruction.reference.is_none() => {
                instruction.reference = Some(Reference {
                    target: *target,
                    kind: ReferenceKind::Address,
                    field: Field::ImageRelative {
                        at: (place - instruction.offset) as u8,
                    },
                });
            }
            _ => {}
        }
    }
}

/// How what was read from the code compares with the linker's record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FixupCheck {
    /// Fixups in functions.
    pub fixups: usize,
    /// How many of them are references that the code shows.
    pub found: usize,
    /// RVAs of those that it does not show.
    pub missed: Vec<u32>,
    /// RVAs of image-relative and absolute references, which no code has without a fixup, that the
    /// linker knows nothing of.
    pub imagined: Vec<u32>,
}

impl<S: Side> Image<S> {
    /// Holds what decoding alone finds against the fixups of the PDB; `None` where it has none.
    pub fn check_fixups(&self) -> Option<FixupCheck> {
        if self.fixups.is_empty() {
            return None;
        }
        let mut check = FixupCheck::default();
        let mut body = Body::default();
        for function in &self.functions {
            let code = code_at(&self.pe, &self.table_jumps, function);
            uncorrected(self.pe.machine, code, &mut body);
            let start = function.rva.get();
            let mut places: Vec<(u32, Field)> = body
                .instructions
                .iter()
                .filter_map(|it| Some((start + place_of(it)?, it.reference?.field)))
                .collect();
            places.sort_unstable_by_key(|place| place.0);
            let fixups = within(&self.fixups, function);
            for fixup in fixups {
                // Offsets within a section are no addresses: thread-local variables have them.
                if fixup.kind == FixupKind::Other {
                    continue;
                }
                check.fixups += 1;
                match places.binary_search_by_key(&fixup.place.get(), |place| place.0) {
                    Ok(_) => check.found += 1,
                    Err(_) => check.missed.push(fixup.place.get()),
                }
            }
            check
                .imagined
                .extend(places.iter().filter_map(|(place, field)| {
                    let needs_one =
                        matches!(field, Field::ImageRelative { .. } | Field::Absolute { .. });
                    let known = fixups.iter().any(|fixup| fixup.place.get() == *place);
                    (needs_one && !known).then_some(*place)
                }));
        }
        Some(check)
    }
}

#[cfg(test)]
mod tests {
    use hpbuild_metadata::Base;

    use super::*;
    use crate::decode::{Code, decode};
    use crate::image::FunctionKind;

    /// `lea rdx, [__ImageBase]; mov ecx, [rdx+rax*4+2000h]; mov r8d, [rdx+3000h]; ret` at 1000h.
    const CODE: [u8; 22] = [
        0x48, 0x8d, 0x15, 0xf9, 0xef, 0xff, 0xff, 0x8b, 0x8c, 0x82, 0x00, 0x20, 0x00, 0x00, 0x44,
        0x8b, 0x82, 0x00, 0x30, 0x00, 0x00, 0xc3,
    ];

    fn fixup(place: u32, target: u32, kind: FixupKind) -> Fixup<Base> {
        Fixup {
            place: Rva::new(place),
            target: Rva::new(target),
            kind,
        }
    }

    fn image_relative(fixups: &[Fixup<Base>]) -> Vec<(u32, u32)> {
        let function = Function {
            rva: Rva::new(0x1000),
            size: CODE.len() as u32,
            compiland: None,
            procedures: 0..0,
            kind: FunctionKind::Procedure,
        };
        let mut body = Body::default();
        let code = Code {
            bytes: &CODE,
            rva: function.rva,
            image_base: 0x1_8000_0000,
            relocated: &[],
            jumps: &[],
        };
        decode(Machine::X64, code, &mut body);
        correct(fixups, &function, &mut body);
        body.instructions
            .iter()
            .filter_map(|it| Some((it.offset, it.reference?)))
            .filter(|(_, it)| matches!(it.field, Field::ImageRelative { .. }))
            .map(|(offset, it)| (offset, it.target.get()))
            .collect()
    }

    #[test]
    fn the_linker_knows_best() {
        // Without a record both displacements are taken for RVAs.
        assert_eq!(image_relative(&[]), [(7, 0x2000), (14, 0x3000)]);
        // The second is a distance within something that the base points at.
        let table = fixup(0x100a, 0x2000, FixupKind::ImageRelative);
        let lea = fixup(0x1003, 0, FixupKind::Relative);
        assert_eq!(image_relative(&[lea, table]), [(7, 0x2000)]);
    }

    #[test]
    fn entries_are_whole() {
        assert_eq!(kind(Machine::X64, 3), FixupKind::ImageRelative);
        assert_eq!(kind(Machine::X64, 0xb), FixupKind::Other);
        assert_eq!(kind(Machine::Arm64, 2), FixupKind::ImageRelative);
    }
}
