//! What Arm64 code in the image reaches, decoded anew by bit patterns of the Arm reference manual.

use hpbuild_metadata::{Base, Rva};

use super::Filled;
use super::pe::View;
use super::walk::{Check, Walk, differs, word};
use crate::piece::{Piece, Target};

/// The end of the code that an exception directory entry describes.
pub(super) fn code_end(view: &View<'_>, entry: u32) -> Option<u32> {
    let (begin, data) = (view.u32(entry)?, view.u32(entry + 4)?);
    let words = match data & 3 {
        0 => view.u32(data)? & 0x3_ffff,
        1 | 2 => data >> 2 & 0x7ff,
        _ => return None,
    };
    begin.checked_add(words * 4)
}

/// `value`'s low `bits` as a signed number.
fn signed(value: u32, bits: u32) -> i64 {
    i64::from((value << (32 - bits)) as i32 >> (32 - bits))
}

/// What an instruction says about an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Says {
    /// It is this one (branches, `adr`, literal loads).
    At(i64),
    /// It is on the page of this one (`adrp`).
    Page(i64),
    /// It is this many bytes into a page (`add`, scaled loads and stores).
    Offset(i64),
}

fn says(instruction: u32, pc: u32) -> Option<Says> {
    let pc = i64::from(pc);
    let split = signed(
        (instruction >> 5 & 0x7_ffff) << 2 | instruction >> 29 & 3,
        21,
    );
    let top = instruction >> 24;
    Some(match top {
        0x14..=0x17 | 0x94..=0x97 => Says::At(pc + 4 * signed(instruction, 26)),
        0x54 | 0x34 | 0x35 | 0xb4 | 0xb5 => Says::At(pc + 4 * signed(instruction >> 5, 19)),
        0x36 | 0x37 | 0xb6 | 0xb7 => Says::At(pc + 4 * signed(instruction >> 5, 14)),
        0x18 | 0x58 | 0x98 | 0xd8 | 0x1c | 0x5c | 0x9c => {
            Says::At(pc + 4 * signed(instruction >> 5, 19))
        }
        0x10 | 0x30 | 0x50 | 0x70 => Says::At(pc + split),
        0x90 | 0xb0 | 0xd0 | 0xf0 => Says::Page((pc & !0xfff) + (split << 12)),
        0x11 | 0x91 if instruction >> 22 & 1 == 0 => {
            Says::Offset(i64::from(instruction >> 10 & 0xfff))
        }
        0x39 | 0x79 | 0xb9 | 0xf9 | 0x3d | 0x7d | 0xbd | 0xfd => {
            let is_quad = top == 0x3d && instruction >> 23 & 1 == 1;
            let scale = if is_quad { 4 } else { instruction >> 30 };
            Says::Offset(i64::from(instruction >> 10 & 0xfff) << scale)
        }
        _ => return None,
    })
}

/// The slot that a 64-bit literal load reads, with its destination register.
fn literal_slot(instruction: u32, pc: u32) -> Option<(u32, u32)> {
    match says(instruction, pc) {
        Some(Says::At(at)) if instruction >> 24 == 0x58 => {
            Some((u32::try_from(at).ok()?, instruction & 31))
        }
        _ => None,
    }
}

/// `ldr x16, slot; br x16` at `rva`.
pub(super) fn expect_thunk(walk: &Walk<'_>, rva: i64, base: Rva<Base>) -> Check {
    let wanted = Filled::AddressOf(base);
    let rva = u32::try_from(rva).unwrap_or(u32::MAX);
    let in_code = walk
        .view
        .section_at(rva)
        .is_some_and(|section| section.is_code());
    let words = (walk.view.u32(rva), walk.view.u32(rva.saturating_add(4)));
    if let (true, (Some(load), Some(0xd61f_0200))) = (in_code, words)
        && let Some((slot, 16)) = literal_slot(load, rva)
        && walk.slots.get(&slot) == Some(&wanted)
    {
        return Ok(());
    }
    differs(
        format!("a thunk to {wanted:?}"),
        format!("{words:x?} at rva {rva:#x}"),
    )
}

/// Checks the reference at `index` of a piece at `rva`.
pub(super) fn check(
    walk: &mut Walk<'_>,
    piece: &Piece,
    rva: u32,
    bytes: &[u8],
    index: usize,
) -> Check {
    let reference = &piece.references[index];
    let at = reference.offset as usize;
    let pc = rva + reference.offset;
    let (Some(original), Some(written)) = (word(&piece.bytes, at), word(bytes, at)) else {
        return differs("an instruction", "the end");
    };
    match (reference.target, says(original, pc)) {
        // Checked with its users.
        (Target::OfUsers, Some(Says::Page(_))) => Ok(()),
        (target, Some(Says::Offset(_))) => {
            check_user(walk, piece, rva, bytes, index, target, original, written)
        }
        (Target::Piece(place), Some(Says::At(_))) => match says(written, pc) {
            Some(Says::At(found)) if same_but_distance(original, written) => {
                walk.found(place, found)
            }
            found => differs("the same instruction", format!("{found:x?}")),
        },
        (Target::Base(base), Some(Says::At(_))) => match says(written, pc) {
            Some(Says::At(found))
                if original >> 26 & 0x1f == 5 && original >> 26 == written >> 26 =>
            {
                expect_thunk(walk, found, base)
            }
            _ => expect_literal(walk, original, written, pc, base),
        },
        (target, says) => differs(format!("a way to {target:?}"), format!("{says:x?}")),
    }
}

/// A literal load of a slot into the register that the original formed the address in.
fn expect_literal(walk: &Walk<'_>, original: u32, written: u32, pc: u32, base: Rva<Base>) -> Check {
    let wanted = Filled::AddressOf(base);
    match literal_slot(written, pc) {
        Some((slot, register))
            if register == original & 31 && walk.slots.get(&slot) == Some(&wanted) =>
        {
            Ok(())
        }
        found => differs(
            format!("a load of {wanted:?}"),
            format!("{written:#010x} ({found:x?})"),
        ),
    }
}

/// An instruction that adds an offset to a page: page and offset together reach the target.
#[allow(clippy::too_many_arguments)]
fn check_user(
    walk: &mut Walk<'_>,
    piece: &Piece,
    rva: u32,
    bytes: &[u8],
    index: usize,
    target: Target,
    original: u32,
    written: u32,
) -> Check {
    let Some(Says::Offset(offset)) = says(written, 0) else {
        return differs("a page offset", format!("{written:#010x}"));
    };
    // Only a load of the whole pointer reads the patch's copy of it.
    let loads_pointer = original & 0xffc0_0000 == 0xf940_0000;
    let target = match target {
        Target::BaseValue(base) if !loads_pointer => Target::Base(base),
        Target::Import(import) if !loads_pointer => {
            Target::Base(walk.parts.imports[import as usize].slot)
        }
        other => other,
    };
    if original & !0x003f_fc00 != written & !0x003f_fc00 {
        return differs(
            format!("{original:#010x} with another offset"),
            format!("{written:#010x}"),
        );
    }
    let pages: Vec<u32> = piece
        .page_links
        .iter()
        .filter(|link| link.0 as usize == index)
        .map(|link| link.1)
        .collect();
    if pages.is_empty() {
        return differs("a page instruction", "none");
    }
    for page in pages {
        let former = &piece.references[page as usize];
        let pc = rva + former.offset;
        let words = (
            word(&piece.bytes, former.offset as usize),
            word(bytes, former.offset as usize),
        );
        let (Some(before), Some(now)) = words else {
            return differs("an instruction", "the end");
        };
        match (target, says(now, pc)) {
            (Target::Base(base), _) => {
                expect_literal(walk, before, now, pc, base.page())?;
                if offset != i64::from(base.get() & 0xfff) {
                    return differs(
                        format!("page offset {:#x}", base.get() & 0xfff),
                        format!("{offset:#x}"),
                    );
                }
            }
            (target, Some(Says::Page(start))) if before & 31 == now & 31 => {
                let found = start + offset;
                match target {
                    Target::Piece(place) => walk.found(place, found)?,
                    Target::BaseValue(base) => expect_mirror(walk, found, base)?,
                    Target::Import(import) => {
                        let base = walk.parts.imports[import as usize].slot;
                        expect_mirror(walk, found, base)?;
                    }
                    _ => return differs("a target", format!("{target:?}")),
                }
            }
            (target, found) => {
                return differs(format!("a page of {target:?}"), format!("{found:x?}"));
            }
        }
    }
    Ok(())
}

fn expect_mirror(walk: &Walk<'_>, rva: i64, base: Rva<Base>) -> Check {
    let wanted = Filled::ValueAt(base);
    let found = u32::try_from(rva).ok().and_then(|rva| walk.slots.get(&rva));
    if found == Some(&wanted) {
        Ok(())
    } else {
        differs(format!("{wanted:?}"), format!("{found:?} at {rva:#x}"))
    }
}

/// Whether only the distance changed.
fn same_but_distance(original: u32, written: u32) -> bool {
    let mask = match original >> 24 {
        0x14..=0x17 | 0x94..=0x97 => 0x03ff_ffff,
        0x36 | 0x37 | 0xb6 | 0xb7 => 0x0007_ffe0,
        0x10 | 0x30 | 0x50 | 0x70 => 0x60ff_ffe0,
        _ => 0x00ff_ffe0,
    };
    original & !mask == written & !mask
}
