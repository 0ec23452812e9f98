//! Tables of distances from their own start, by the code that reads them.
//!
//! Encodings follow the Arm Architecture Reference Manual, chapter C4.1.

use hpbuild_metadata::{Rva, Side};

use super::effects::{self, Flow, Registers, VOLATILE, register};
use crate::decode::{Body, Code, Instruction, ReferenceKind};

/// How many instructions behind a load from a relative table the address is added at the latest.
const TABLE_WINDOW: usize = 64;

/// Finds the address of a table in `t`, then `ldrsw x, [t, i, lsl #2]` or a load of 32 bits, then the
/// sum of the two, by an `add` or in the address of an operand, in this order; other instructions may
/// stand between.
pub(in crate::decode) fn relative_tables<S: Side>(
    code: Code<'_, S>,
    body: &Body<S>,
) -> Vec<Rva<S>> {
    let mut found = Vec::new();
    // The address each register received last.
    let mut tables: [Option<Rva<S>>; 32] = [None; 32];
    let word_of = |instruction: &Instruction<S>| {
        let bytes = code.bytes.get(instruction.offset as usize..)?;
        Some(u32::from_le_bytes(*bytes.first_chunk()?))
    };
    let address_in = |instruction: &Instruction<S>| {
        let reference = instruction.reference?;
        (reference.kind == ReferenceKind::Address).then_some(reference.target)
    };
    for (index, instruction) in body.instructions.iter().enumerate() {
        let Some(word) = word_of(instruction) else {
            break;
        };
        let number = |low: u32| ((word >> low) & 31) as usize;
        if instruction.reference.is_some() {
            if let Some(table) = address_in(instruction) {
                tables[number(0)] = Some(table);
            }
            continue;
        }
        // ldrsw xt or ldr wt, [xn, xm or wm, extended]: what is added may be counted in entries or in
        // bytes.
        if !matches!(word & 0xffe0_0c00, 0xb8a0_0800 | 0xb860_0800) {
            continue;
        }
        // Two whole registers may change places.
        let swapped = (word & 0xf000 == 0x6000).then(|| number(16));
        let mut bases = [Some(number(5)), swapped].into_iter().flatten();
        let Some(table) = bases.find_map(|base| tables[base]) else {
            continue;
        };
        let loaded = register(word, 0);
        let holders = tables.iter().enumerate();
        let holders = holders.filter(|(_, held)| **held == Some(table));
        let address = holders.fold(0, |all, (number, _)| all | 1 << number);
        let held = Held {
            distance: loaded,
            address: address & !loaded,
        };
        let rest = body.instructions[index + 1..].iter();
        let rest = rest.take(TABLE_WINDOW).map_while(|instruction| {
            Some((
                word_of(instruction)?,
                address_in(instruction) == Some(table),
            ))
        });
        if held.meets(rest) {
            found.push(table);
        }
    }
    found
}

/// What registers hold of a table: a distance that was loaded from it, and its address.
struct Held {
    distance: Registers,
    address: Registers,
}

impl Held {
    /// Whether the two meet in a sum, before anything else is put into either. Each instruction comes
    /// with whether it takes the address again.
    fn meets(mut self, words: impl Iterator<Item = (u32, bool)>) -> bool {
        for (word, is_again) in words {
            if self.is_sum_of_both(word) {
                return true;
            }
            self.go_on(word);
            if is_again {
                self.address |= register(word, 0);
            }
            if self.distance == 0 {
                return false;
            }
        }
        false
    }

    fn is_sum_of_both(&self, word: u32) -> bool {
        let (first, second) = (register(word, 5), register(word, 16));
        let in_order = self.address & first != 0 && self.distance & second != 0;
        let swapped = self.distance & first != 0 && self.address & second != 0;
        // add xd, xn, xm; add xd, xn, wm, sxtw; and a load or store at [xn, xm] or [xn, wm, sxtw], of
        // general and of vector registers, with nothing shifted.
        let adds = word & 0xffe0_fc00 == 0x8b00_0000;
        let adds_extended = word & 0xffe0_fc00 == 0x8b20_c000;
        let is_access = word & 0x3b20_0c00 == 0x3820_0800;
        let reaches = is_access && word & 0xf000 == 0x6000;
        let reaches_extended = is_access && word & 0xf000 == 0xc000;
        (adds || reaches) && (in_order || swapped)
            || (adds_extended || reaches_extended) && in_order
    }

    /// Follows both through copies, and forgets what is overwritten.
    fn go_on(&mut self, word: u32) {
        let to = register(word, 0);
        let (first, second) = (register(word, 5), register(word, 16));
        // mov xd, xm; sxtw xd, wn.
        let source = match word {
            _ if word & 0xffe0_ffe0 == 0xaa00_03e0 => second,
            _ if word & 0xffff_fc00 == 0x9340_7c00 => first,
            _ => 0,
        };
        // csel xd, xn, xm, condition: which of the two it is nobody knows.
        let either = match word & 0x7fe0_0c00 == 0x1a80_0000 {
            true => first | second,
            false => source,
        };
        let effects = effects::of(word);
        let lost = match effects.flow {
            Flow::Call => effects.writes | VOLATILE,
            _ => effects.writes,
        };
        for held in [&mut self.distance, &mut self.address] {
            let is_copied = *held & either != 0;
            *held &= !lost;
            if is_copied {
                *held |= to;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use hpbuild_metadata::Base;

    use super::*;
    use crate::decode::{Machine, decode};

    fn tables(words: &[u32]) -> Vec<Rva<Base>> {
        // adr x22, #+0x100
        let words = [&[0x1000_0816], words].concat();
        let bytes: Vec<u8> = words.into_iter().flat_map(u32::to_le_bytes).collect();
        let code = Code::<Base> {
            bytes: &bytes,
            rva: Rva::new(0x1000),
            image_base: 0,
            relocated: &[],
            jumps: &[],
        };
        let mut body = Body::default();
        decode(Machine::Arm64, code, &mut body);
        relative_tables(code, &body)
    }

    const TABLE: [Rva<Base>; 1] = [Rva::new(0x1100)];

    #[test]
    fn by_entries_and_by_bytes() {
        // Then add x0, x22, x8.
        let tables = |load: u32| tables(&[load, 0x8b08_02c0]);
        // ldrsw x8, [x22, w21, uxtw #2], [x22, x21] and [x21, x22]
        assert_eq!(tables(0xb8b5_5ac8), TABLE);
        assert_eq!(tables(0xb8b5_6ac8), TABLE);
        assert_eq!(tables(0xb8b6_6aa8), TABLE);
        // ldrsw x8, [x21, x22, lsl #2] multiplies the address.
        assert_eq!(tables(0xb8b6_7aa8), []);
    }

    #[test]
    fn sums_of_all_kinds() {
        const LOAD: u32 = 0xb8b5_5ac8;
        // ldr w0, [x22, x8]; ldr w0, [x8, x22]; str q0, [x22, x8]; add x0, x22, w8, sxtw;
        // ldrb w0, [x22, w8, sxtw]
        for sum in [
            0xb868_6ac0,
            0xb876_6900,
            0x3ca8_6ac0,
            0x8b28_c2c0,
            0x3868_cac0,
        ] {
            assert_eq!(tables(&[LOAD, sum]), TABLE, "{sum:#x}");
        }
        // ldr w0, [x22, x8, lsl #2]; add w0, w22, w8; ldr w0, [x22, x9]
        for other in [0xb868_7ac0, 0x0b08_02c0, 0xb869_6ac0] {
            assert_eq!(tables(&[LOAD, other]), [], "{other:#x}");
        }
        // mov x9, x8 and csel x9, x8, x10, eq; then ldr w0, [x22, x9]
        for copy in [0xaa08_03e9, 0x9a8a_0109] {
            assert_eq!(tables(&[LOAD, copy, 0xb869_6ac0]), TABLE, "{copy:#x}");
        }
        // mov x8, x10 between
        assert_eq!(tables(&[LOAD, 0xaa0a_03e8, 0xb868_6ac0]), []);
        // ldr w8, [x22, w21, uxtw #2]; sxtw x8, w8; add x0, x22, x8
        assert_eq!(tables(&[0xb875_5ac8, 0x9340_7d08, 0x8b08_02c0]), TABLE);
        // x22 overwritten and its address taken again: mov x22, x1; adr x23, #+0xf4; add x0, x23, x8
        let again = [LOAD, 0xaa01_03f6, 0x1000_07b7, 0x8b08_02e0];
        assert_eq!(tables(&again[..2]), []);
        assert_eq!(tables(&[again[0], again[1], again[2], 0x8b08_02e0]), TABLE);
    }
}
