//! Addresses that code keeps, compares or hands on.

use std::ops::ControlFlow;

use super::effects::{self, Flow, Registers};
use super::follow::{Through, follow, is_copy};
use crate::decode::{Escape, Seen};

/// `x29` points into the frame, and 31 is the stack pointer as a base.
const FRAME: [u32; 2] = [29, 31];

/// See [`crate::decode::escape`].
pub(in crate::decode) fn escape(bytes: &[u8], offset: u32) -> Option<Escape> {
    let mut seen = Seen::default();
    let stored = follow(bytes, offset, Through::Registers, passes_on, |step| {
        let (word, held) = (step.word, step.held);
        let is_held = |low: u32| effects::register(word, low) & held != 0;
        let returns = word == 0xd65f_03c0 && held & 1 != 0;
        seen.is_handed |= step.hands;
        seen.is_returned |= returns;
        let effects = effects::of(word);
        if is_access(word) {
            let is_indexed = word & 0x3b20_0c00 == 0x3820_0800;
            seen.is_read |= is_held(5) || is_indexed && is_held(16);
            if !stores(word, held, effects.reads) {
                return ControlFlow::Continue(());
            }
            if !FRAME.contains(&(word >> 5 & 31)) {
                return ControlFlow::Break(Escape::Stored);
            }
            seen.is_lost = true;
        } else if is_comparison(word) {
            seen.is_compared |= is_held(5) || is_held(16);
        } else if is_vector(word) {
            seen.is_lost |= effects.reads & held != 0 && effects.flow == Flow::Next;
        }
        ControlFlow::Continue(())
    });
    stored.or_else(|| seen.escape())
}

/// Loads and stores.
const fn is_access(word: u32) -> bool {
    word & 0x0a00_0000 == 0x0800_0000
}

/// Data processing of vectors.
const fn is_vector(word: u32) -> bool {
    word & 0x0e00_0000 == 0x0e00_0000
}

/// `cmp` of two registers of 64 bits, shifted or extended.
const fn is_comparison(word: u32) -> bool {
    word & 0xff00_001f == 0xeb00_001f
}

/// Whether a load or store puts a register of these into memory.
fn stores(word: u32, held: Registers, reads: Registers) -> bool {
    let is_held = |low: u32| effects::register(word, low) & held & reads != 0;
    let is_pair = word & 0x3a00_0000 == 0x2800_0000;
    let is_single = word & 0x3a00_0000 == 0x3800_0000;
    let is_vector = word & 1 << 26 != 0;
    if is_vector {
        return false;
    }
    if is_pair {
        return word & 1 << 22 == 0 && (is_held(0) || is_held(10));
    }
    if is_single {
        let is_atomic = word & 0x3b20_0c00 == 0x3820_0000;
        let is_store = word & 3 << 22 == 0 && !is_atomic;
        return is_store && is_held(0) || is_atomic && is_held(16);
    }
    // Exclusive and ordered ones: what is no load, and what compares and swaps.
    let is_exclusive = word & 0x3f00_0000 == 0x0800_0000;
    let is_load = word & 1 << 22 != 0 && word & 1 << 21 == 0;
    is_exclusive && !is_load && (is_held(0) || is_held(10))
}

/// Whether an instruction makes an address within the same data of an address: copies, additions, and
/// selections.
fn passes_on(word: u32, held: Registers) -> bool {
    let is_held = |low: u32| effects::register(word, low) & held != 0;
    let adds_immediate = word & 0xff80_0000 == 0x9100_0000;
    let adds = word & 0xff00_0000 == 0x8b00_0000;
    let selects = word & 0xffe0_0c00 == 0x9a80_0000;
    is_copy(word, held)
        || adds_immediate && is_held(5)
        || (adds || selects) && (is_held(5) || is_held(16))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_of_an_address() {
        let way = |uses: &[u32]| {
            // add x1, x1, #256
            let words = std::iter::once(0x9104_0021).chain(uses.iter().copied());
            escape(&words.flat_map(u32::to_le_bytes).collect::<Vec<_>>(), 0)
        };
        // str x1, [x0, #8]; stp x1, x2, [x0]; stp x2, x1, [x0]; stlr x1, [x0]; swp x1, x3, [x0]
        for word in [
            0xf900_0401,
            0xa900_0801,
            0xa900_0402,
            0xc89f_fc01,
            0xf821_8003,
        ] {
            assert_eq!(way(&[word]), Some(Escape::Stored), "{word:#x}");
        }
        // mov x2, x1 and str x2, [x0]; add x2, x1, x3 and str x2, [x0]
        assert_eq!(way(&[0xaa01_03e2, 0xf900_0002]), Some(Escape::Stored));
        assert_eq!(way(&[0x8b03_0022, 0xf900_0002]), Some(Escape::Stored));
        // str x1, [sp, #8]; fmov d0, x1
        for word in [0xf900_07e1, 0x9e67_0020] {
            assert_eq!(way(&[word]), Some(Escape::Lost), "{word:#x}");
        }
        // bl; and mov x0, x1 and ret
        assert_eq!(way(&[0x9400_0000]), Some(Escape::Handed));
        assert_eq!(way(&[0xaa01_03e0, 0xd65f_03c0]), Some(Escape::Returned));
        // cmp x2, x1; and behind ldr w3, [x1]
        assert_eq!(way(&[0xeb01_005f]), Some(Escape::Compared));
        assert_eq!(way(&[0xb940_0023, 0xeb01_005f]), None);
        // ldr w3, [x1, x2, lsl #2]; ldr x1, [x1] and str x1, [x0]; cbz x1; ldar x3, [x1]
        for uses in [
            &[0xb862_7823][..],
            &[0xf940_0021, 0xf900_0001],
            &[0xb400_0041],
            &[0xc8df_fc23],
        ] {
            assert_eq!(way(uses), None, "{uses:x?}");
        }
    }
}
