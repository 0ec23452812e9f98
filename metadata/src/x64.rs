//! What x64 compilers and linkers put between functions: the one rule for what may be overwritten
//! there, which the judge asks when it promises a redirection and the engine when it makes one.

/// Bytes before an entry that must be free to redirect it; the jump uses the last five.
pub const PAD: u32 = 6;
/// Bytes of the longest no-operation.
pub const LONGEST: u32 = 15;

/// How many bytes at the end of `before` are filler: `int3`, or whole no-operations.
///
/// `before` ends at an entry, and should hold [`LONGEST`] bytes more than what is asked for, as a
/// no-operation may begin earlier. A byte 00 proves nothing: it may belong to a constant.
pub fn filler_before(before: &[u8]) -> usize {
    let is_filled = |start: &usize| {
        let mut rest = &before[*start..];
        while !rest.is_empty() {
            match filler(rest) {
                Some(length) => rest = &rest[length..],
                None => return false,
            }
        }
        true
    };
    let first = (0..before.len()).find(is_filled);
    first.map_or(0, |start| before.len() - start)
}

/// Length of the filler instruction at the start of `bytes`, which are not empty.
fn filler(bytes: &[u8]) -> Option<usize> {
    if bytes.first() == Some(&0xcc) {
        return Some(1);
    }
    let prefixes = bytes
        .iter()
        .take_while(|&&byte| matches!(byte, 0x66 | 0x2e))
        .count();
    let length = prefixes
        + match bytes.get(prefixes..)? {
            [0x90, ..] => 1,
            [0x0f, 0x1f, 0x00, ..] => 3,
            [0x0f, 0x1f, 0x40, ..] => 4,
            [0x0f, 0x1f, 0x44, ..] => 5,
            [0x0f, 0x1f, 0x80, ..] => 7,
            [0x0f, 0x1f, 0x84, ..] => 8,
            _ => return None,
        };
    (length <= LONGEST as usize && length <= bytes.len()).then_some(length)
}

#[cfg(test)]
mod tests {
    use super::filler_before;

    #[test]
    fn filler_is_told_from_instructions() {
        let int3 = [0xcc; 20];
        assert_eq!(filler_before(&int3), 20);
        // ret, then a no-operation of ten bytes that starts before the pad.
        let long = [0xc3, 0x66, 0x2e, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0];
        assert_eq!(filler_before(&long), 10);
        // The same bytes without their opcode are an operand of something else.
        assert_eq!(filler_before(&long[5..]), 0);
        assert_eq!(
            filler_before(&[0xc3, 0x90, 0x66, 0x90, 0x0f, 0x1f, 0x00]),
            6
        );
        assert_eq!(
            filler_before(&[0xc3, 0x0f, 0x1f, 0x00, 0x0f, 0x1f, 0x40]),
            0
        );
        // Zeros may be a constant, or the end of one.
        assert_eq!(filler_before(&[0; 16]), 0);
        assert_eq!(filler_before(&[0xcc, 0xcc, 0]), 0);
        assert_eq!(filler_before(&[]), 0);
        // The multi-byte no-operations of section 4.3 of Intel's manual, each behind int3.
        let longest: [&[u8]; 3] = [
            &[0x66, 0x0f, 0x1f, 0x44, 0, 0],
            &[0x0f, 0x1f, 0x80, 0, 0, 0, 0],
            &[
                0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x2e, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0,
            ],
        ];
        for nop in longest {
            let bytes = [&int3[..6], nop].concat();
            assert_eq!(filler_before(&bytes), bytes.len(), "{nop:x?}");
        }
    }
}
