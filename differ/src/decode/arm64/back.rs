//! Code that reaches what lies before an address that it takes.

use rustc_hash::FxHashSet;

use super::effects::{self, Flow, Registers};
use super::listing::words_from;
use crate::decode::Back;

/// How many instructions behind an address its registers are followed, counted anew where others of
/// them hold it.
const WINDOW: usize = 128;

/// `x0` to `x7`: the arguments of a callee.
const ARGUMENTS: Registers = 0xff;

/// See [`crate::decode::reaches_back`].
pub(in crate::decode) fn reaches_back(bytes: &[u8], offset: u32) -> Option<Back> {
    let word_at = |at: u32| words_from(bytes, at).next();
    // The registers that hold the address.
    let held = effects::register(word_at(offset)?, 0);
    let mut open = vec![(offset.checked_add(4)?, held)];
    let mut seen = FxHashSet::default();
    let mut found = None;
    while let Some((at, mut held)) = open.pop() {
        if held == 0 || seen.len() == WINDOW || !seen.insert((at, held)) {
            continue;
        }
        let Some(word) = word_at(at) else { continue };
        if steps_back(word) && effects::register(word, 5) & held != 0 {
            return Some(Back::Itself);
        }
        let effects = effects::of(word);
        let target = target(word, at).filter(|target| (*target as usize) < bytes.len());
        let leaves = effects.flow == Flow::Branch { conditional: false } && target.is_none();
        if effects.flow == Flow::Call || leaves {
            if held & ARGUMENTS != 0 {
                found = Some(Back::Callee);
            }
            held &= !effects::VOLATILE;
        }
        // mov xd, xm
        let is_copy = word & 0xffe0_ffe0 == 0xaa00_03e0;
        let is_copied = is_copy && effects::register(word, 16) & held != 0;
        held &= !effects.writes;
        if is_copied {
            held |= effects::register(word, 0);
        }
        if let Flow::Branch { .. } = effects.flow {
            open.extend(target.map(|target| (target, held)));
        }
        let goes_on = matches!(
            effects.flow,
            Flow::Next | Flow::Call | Flow::Branch { conditional: true }
        );
        if goes_on {
            open.push((at.saturating_add(4), held));
        }
    }
    found
}

/// Loads and stores of one register or of two with a signed offset, and subtraction, all from the
/// register at bit 5.
fn steps_back(word: u32) -> bool {
    let one = word & 0x3b20_0000 == 0x3800_0000 && word & 1 << 20 != 0;
    let two = word & 0x3a00_0000 == 0x2800_0000 && word & 1 << 21 != 0;
    let less = word & 0x7f80_0000 == 0x5100_0000;
    one || two || less
}

/// Where a jump at offset `at` leads: `b`, `b.cond`, `cbz` and `cbnz`, `tbz` and `tbnz`.
fn target(word: u32, at: u32) -> Option<u32> {
    let distance =
        |low: u32, bits: u32| ((word << (32 - bits - low)).cast_signed() >> (32 - bits)) * 4;
    let distance = match word >> 24 {
        0x14..=0x17 => distance(0, 26),
        0x54 | 0x34 | 0x35 | 0xb4 | 0xb5 => distance(5, 19),
        0x36 | 0x37 | 0xb6 | 0xb7 => distance(5, 14),
        _ => return None,
    };
    at.checked_add_signed(distance)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn walks_from_the_end() {
        let walks = |uses: &[u32]| {
            // add x1, x1, #256
            let words = std::iter::once(0x9104_0021).chain(uses.iter().copied());
            reaches_back(&words.flat_map(u32::to_le_bytes).collect::<Vec<_>>(), 0)
        };
        // ldr w9, [x1, #-4]!; ldur w9, [x1, #-4]; ldp w9, w10, [x1, #-8]; sub x9, x1, #4
        for uses in [0xb85f_cc29, 0xb85f_c029, 0x297f_2829, 0xd100_1029] {
            assert_eq!(walks(&[uses]), Some(Back::Itself));
        }
        // mov x19, x1; bl; ldur w9, [x19, #-4]
        let kept = [0xaa01_03f3, 0x9400_0000, 0xb85f_c269];
        assert_eq!(walks(&kept), Some(Back::Itself));
        // bl; b out of the function: an argument. ret; mov x1, x2 and bl: none.
        assert_eq!(walks(&[0x9400_0000]), Some(Back::Callee));
        assert_eq!(walks(&[0x1400_0100]), Some(Back::Callee));
        assert_eq!(walks(&[0xd65f_03c0]), None);
        assert_eq!(walks(&[0xaa02_03e1, 0x9400_0000]), None);
        // b +8; ret; ldur: behind a jump. cbz x0, +8; ret; ldur. br x9: a table of the function's own.
        assert_eq!(
            walks(&[0x1400_0002, 0xd65f_03c0, 0xb85f_c029]),
            Some(Back::Itself)
        );
        assert_eq!(
            walks(&[0xb400_0040, 0xd65f_03c0, 0xb85f_c029]),
            Some(Back::Itself)
        );
        assert_eq!(walks(&[0xd61f_0120]), None);
        // ldr w9, [x1, #4]; ldr w9, [x1], #4; ldur w9, [x7, #-4]
        for uses in [0xb940_0429, 0xb840_4429, 0xb85f_c0e9] {
            assert_eq!(walks(&[uses]), None);
        }
    }
}
