//! Code that reaches what lies before an address that it takes.

use std::ops::ControlFlow;

use super::effects;
use super::follow::{Through, follow, is_copy};
use crate::decode::Back;

/// See [`crate::decode::reaches_back`].
pub(in crate::decode) fn reaches_back(bytes: &[u8], offset: u32) -> Option<Back> {
    let mut callee = None;
    let itself = follow(bytes, offset, Through::Frame, is_copy, |step| {
        let held = step.held | step.loaded;
        if steps_back(step.word) && effects::register(step.word, 5) & held != 0 {
            return ControlFlow::Break(Back::Itself);
        }
        if step.hands {
            callee = Some(Back::Callee);
        }
        ControlFlow::Continue(())
    });
    itself.or(callee)
}

/// Loads and stores of one register or of two with a signed offset, and subtraction, all from the
/// register at bit 5.
fn steps_back(word: u32) -> bool {
    let one = word & 0x3b20_0000 == 0x3800_0000 && word & 1 << 20 != 0;
    let two = word & 0x3a00_0000 == 0x2800_0000 && word & 1 << 21 != 0;
    let less = word & 0x5f80_0000 == 0x5100_0000;
    // Where nothing gets the difference it is a comparison.
    let is_compared = word & 1 << 29 != 0 && word & 31 == 31;
    one || two || less && !is_compared
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
        // str x1, [sp, #8]; ldr x9, [sp, #8]; subs x10, x9, #4: kept in the frame, at -O0.
        let kept = [0xf900_07e1, 0xf940_07e9, 0xf100_112a];
        assert_eq!(walks(&kept), Some(Back::Itself));
        // stur x1, [x29, #-8]; bl; ldur x9, [x29, #-8]; ldur w9, [x9, #-4]
        let kept = [0xf81f_83a1, 0x9400_0000, 0xf85f_83a9, 0xb85f_c129];
        assert_eq!(walks(&kept[..1]), None);
        assert_eq!(walks(&[kept[0], kept[2], kept[3]]), Some(Back::Itself));
        assert_eq!(walks(&kept), Some(Back::Itself));
        // Another slot: ldur x9, [x29, #-16]. Overwritten: stur x9, [x29, #-8]. Moved: mov x29, x9;
        // and from sp, sub sp, sp, #16. Compared: cmp x1, #4.
        assert_eq!(walks(&[kept[0], 0xaa1f_03e1, 0xf85f_03a9, kept[3]]), None);
        assert_eq!(walks(&[kept[0], 0xf81f_83a9, kept[2], kept[3]]), None);
        assert_eq!(walks(&[kept[0], 0xaa09_03fd, kept[2], kept[3]]), None);
        let moved = [0xf900_07e1, 0xd100_43ff, 0xf940_07e9, 0xf100_112a];
        assert_eq!(walks(&moved), None);
        assert_eq!(walks(&[0xf100_103f]), None);
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
