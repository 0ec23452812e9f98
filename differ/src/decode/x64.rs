//! x64 instructions, decoded by `iced-x86`.
//!
//! Three kinds of operand point somewhere: a displacement relative to the next instruction, an
//! eight-byte immediate under a base relocation, and a four-byte displacement that MSVC adds to a
//! register holding the image base (`mov ecx, [rdx+rax*4+table]` behind `lea rdx, __ImageBase`).
//! The last one is told from a plain displacement by its register: see `image_base`, which also
//! finds the tables that stand between instructions. In code that no known way leads to, only
//! operands based on a register that held the image base somewhere in the function count.

mod access;
mod aligned;
mod back;
mod escapes;
mod follow;
mod image_base;
mod operands;
mod registers;
mod relative_tables;
mod slots;
mod tables;
mod text;
mod uses;

#[cfg(test)]
mod tests;

use hpbuild_metadata::{Rva, Side};
use iced_x86::{Code as Opcode, Decoder, DecoderOptions, Instruction as Iced};

use super::{Body, Code, Field, Instruction};
use operands::{absolute, image_relative, is_relative, relative};
use registers::{RegisterSet, note_image_base};
use tables::{Tables, literals};

pub(super) use access::access;
pub(super) use aligned::{alignment_at, alignment_by_register};
pub(super) use back::reaches_back;
pub(super) use escapes::{escape, is_only_compared};
pub(super) use relative_tables::relative_tables;
pub(super) use text::prepare_text;
pub use text::text;
pub(super) use uses::{constants_differing, flow, index_scale, is_compared, runs_on};

pub(super) fn decode<S: Side>(code: Code<'_, S>, body: &mut Body<S>) {
    let mut tables = Tables::default();
    let bases = walk(code, body, RegisterSet::default(), &tables);
    let literals = literals(code, body);
    if bases.is_empty() && literals.is_empty() {
        return;
    }
    body.is_movable = false;
    // The image base is in play, or there are constants between the instructions: walk again, now
    // knowing where it is and what is no code.
    body.instructions.clear();
    tables.found = image_base::follow(code);
    body.jump_tables = tables.found.jump_tables(code);
    tables.add_literals(code, &literals);
    tables.set_apart(code, &body.jump_tables);
    walk(code, body, bases, &tables);
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
    // An absolute address is not all that its field tells: the loader knows where it is one.
    body.is_movable = code.relocated.is_empty();
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
        // What leads nowhere here might lead somewhere from elsewhere.
        body.is_movable &= reference.is_some() || !is_relative(&iced);
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

/// See [`super::points_at`].
pub(super) fn points_at<S: Side>(
    code: Code<'_, S>,
    (offset, length): (u32, u8),
    field: Field,
) -> Option<Rva<S>> {
    let Field::Relative { at, size } = field else {
        return None;
    };
    let start = offset as usize;
    let bytes = code.bytes.get(start..start + usize::from(length))?;
    let field = bytes.get(usize::from(at)..)?;
    let distance = match size {
        1 => i64::from(i8::from_le_bytes(*field.first_chunk()?)),
        4 => i64::from(i32::from_le_bytes(*field.first_chunk()?)),
        _ => return None,
    };
    let end = i64::from(code.rva.get()) + i64::from(offset) + i64::from(length);
    u32::try_from(end + distance).ok().map(Rva::new)
}
