//! What kind of number an instruction reads.

use crate::decode::Access;

/// How many instructions behind an address the first access through it is looked for.
const WINDOW: usize = 16;

/// See [`crate::decode::access`].
pub(in crate::decode) fn access(bytes: &[u8], offset: u32) -> Option<Access> {
    let mut words = bytes
        .get(offset as usize..)?
        .chunks_exact(4)
        .map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
    let first = words.next()?;
    if let Some((access, _)) = load(first) {
        return Some(access);
    }
    let register = first & 0x1f;
    for word in words.take(WINDOW) {
        match load(word) {
            Some((access, base)) if base == register => return Some(access),
            Some(_) => {}
            // A branch, or what may write the register.
            None if word & 0x1c00_0000 == 0x1400_0000 || word & 0x1f == register => {
                return None;
            }
            None => {}
        }
    }
    None
}

/// A load or store of one register: with an unsigned offset, an offset in a register, or from a
/// place near it (Arm ARM, C4.1.94); and the register that holds the address.
fn load(word: u32) -> Option<(Access, u32)> {
    let (size, is_vector, opc) = (word >> 30, word & 1 << 26 != 0, word >> 22 & 3);
    if word & 0x3b00_0000 == 0x1800_0000 {
        let size = match (size, is_vector) {
            (0, _) | (2, false) => 4,
            (1, _) => 8,
            (2, true) => 16,
            _ => return None,
        };
        let float = is_vector && size < 16;
        let signed = word >> 30 == 2 && !is_vector;
        // No register holds the address.
        return Some((
            Access {
                size,
                signed,
                float,
            },
            32,
        ));
    }
    let is_offset = word & 0x3b00_0000 == 0x3900_0000;
    let is_indexed = word & 0x3b20_0c00 == 0x3820_0800;
    if !is_offset && !is_indexed {
        return None;
    }
    let access = if is_vector {
        let scale = (opc & 2) << 1 | size;
        let size = 1_u8.checked_shl(scale).filter(|size| *size <= 16)?;
        Access {
            size,
            signed: false,
            float: size == 4 || size == 8,
        }
    } else {
        // 3 with an `opc` of 2 is a prefetch.
        if size == 3 && opc >= 2 {
            return None;
        }
        Access {
            size: 1 << size,
            signed: opc >= 2,
            float: false,
        }
    };
    Some((access, word >> 5 & 0x1f))
}

/// See [`crate::decode::entry_shift`].
pub(in crate::decode) fn entry_shift(before: &[u8], branch: u32) -> Option<u8> {
    if branch & 0xffff_fc1f != 0xd61f_0000 {
        return None;
    }
    let register = branch >> 5 & 0x1f;
    let words = before.rchunks_exact(4).take(WINDOW);
    let mut words = words.map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
    let add = words.find(|word| word & 0x1f == register)?;
    // An addition of a shifted register (lsl) or of an extended one (Arm ARM, C4.1.95).
    match add {
        _ if add & 0xffe0_0000 == 0x8b00_0000 => u8::try_from(add >> 10 & 0x3f).ok(),
        _ if add & 0xffe0_0000 == 0x8b20_0000 => u8::try_from(add >> 10 & 7).ok(),
        _ => None,
    }
    .filter(|shift| *shift <= 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_entries_are_shifted() {
        let of = |add: u32| entry_shift(&add.to_le_bytes(), 0xd61f_0140);
        // add x10, x10, x11, lsl #2; add x10, x10, w11, uxtw #2; add x10, x10, x11; sub.
        assert_eq!(of(0x8b0b_094a), Some(2));
        assert_eq!(of(0x8b2b_494a), Some(2));
        assert_eq!(of(0x8b0b_014a), Some(0));
        assert_eq!(of(0xcb0b_014a), None);
        // Another register, and no jump.
        assert_eq!(of(0x8b0b_094b), None);
        assert_eq!(
            entry_shift(&0x8b0b_094a_u32.to_le_bytes(), 0x1400_0001),
            None
        );
    }

    #[test]
    fn what_loads_read() {
        let of = |words: &[u32]| {
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            access(&bytes, 0).map(|it| (it.size, it.signed, it.float))
        };
        // ldr d1, [x8, #16]; ldr s0, [x8]; ldrb w0, [x8]; ldrsh w0, [x8]; ldr q0, [x8].
        assert_eq!(of(&[0xfd40_0901]), Some((8, false, true)));
        assert_eq!(of(&[0xbd40_0100]), Some((4, false, true)));
        assert_eq!(of(&[0x3940_0100]), Some((1, false, false)));
        assert_eq!(of(&[0x79c0_0100]), Some((2, true, false)));
        assert_eq!(of(&[0x3dc0_0100]), Some((16, false, false)));
        // add x8, x8, #4; ldr w0, [x8, w9, uxtw #2].
        assert_eq!(of(&[0x9100_1108, 0xb869_5900]), Some((4, false, false)));
        // The register is written, and a branch is in the way.
        assert_eq!(of(&[0x9100_1108, 0x9100_1108, 0xb869_5900]), None);
        assert_eq!(of(&[0x9100_1108, 0x1400_0001, 0xb869_5900]), None);
    }
}
