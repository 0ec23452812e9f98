//! Instructions as text.

use hpbuild_metadata::{Rva, Side};

use super::Text;
use super::effects::{self, Flow};
use crate::decode::{self, Code, Constants, Instruction, ReferenceKind};

/// The text of each of the instructions; `name` names what operands point at. Where the
/// disassembler cannot be had, instructions are written as numbers.
pub fn text<S: Side>(
    code: Code<'_, S>,
    instructions: &[Instruction<S>],
    name: &dyn Fn(Rva<S>, ReferenceKind) -> Option<String>,
) -> Vec<String> {
    let disassembler = Text::new().ok();
    let line = |instruction: &Instruction<S>| {
        let bytes = code
            .bytes
            .get(instruction.offset as usize..)
            .unwrap_or_default();
        let Some(word) = bytes.first_chunk().map(|word| u32::from_le_bytes(*word)) else {
            return ".byte".to_owned();
        };
        let address = u64::from(code.rva.get()) + u64::from(instruction.offset);
        let symbol = |_: &str| {
            let reference = instruction.reference?;
            // A page is named by the instructions that complete it.
            match reference.kind {
                ReferenceKind::Page => Some("page".to_owned()),
                kind => name(reference.target, kind),
            }
        };
        match &disassembler {
            Some(disassembler) => disassembler.line(word, address, symbol),
            None => format!(".word {word:#010x}"),
        }
    };
    instructions.iter().map(line).collect()
}

/// If two instruction words differ in nothing but a constant, its two values.
///
/// Constants are told for the groups that hold numbers of the source: moves of immediates, to vector
/// and floating-point registers too, additions and comparisons, and offsets of loads and stores.
pub(in crate::decode) fn constants_differing(base: &[u8], fixed: &[u8]) -> Option<Constants> {
    let word = |bytes: &[u8]| bytes.first_chunk().map(|word| u32::from_le_bytes(*word));
    let (base, fixed) = (word(base)?, word(fixed)?);
    // Mask and value of the group, then the bits of the field, which need not lie together.
    const GROUPS: [(u32, u32, u32); 9] = [
        // movz, movn, movk; add, sub; ldr, str; and, orr, eor.
        (0x1f80_0000, 0x1280_0000, 0x001f_ffe0),
        (0x1f80_0000, 0x1100_0000, 0x003f_fc00),
        (0x3b00_0000, 0x3900_0000, 0x003f_fc00),
        (0x1f80_0000, 0x1200_0000, 0x007f_fc00),
        // ldr, str with an offset in bytes; ldp, stp; ccmp.
        (0x3b20_0000, 0x3800_0000, 0x001f_f000),
        (0x3a00_0000, 0x2800_0000, 0x003f_8000),
        (0x3fe0_0810, 0x3a40_0800, 0x001f_0000),
        // fmov of one number; movi, mvni, fmov of several.
        (0xff20_1fe0, 0x1e20_1000, 0x001f_e000),
        (0x9ff8_0400, 0x0f00_0400, 0x0007_03e0),
    ];
    let is_in = |(mask, value, _): &&(u32, u32, u32)| base & mask == *value;
    let (.., field) = *GROUPS.iter().find(is_in)?;
    if base & !field != fixed & !field {
        return None;
    }
    let value = |word: u32| u64::from((word & field) >> field.trailing_zeros());
    Some(Constants {
        base: value(base),
        fixed: value(fixed),
        // `movz` of the low half word.
        is_moved: base & 0x7fe0_0000 == 0x5280_0000,
    })
}

/// The instructions from `offset` on.
pub(super) fn words_from(bytes: &[u8], offset: u32) -> impl Iterator<Item = u32> {
    let words = bytes.get(offset as usize..).unwrap_or_default();
    words
        .chunks_exact(4)
        .filter_map(|word| word.first_chunk())
        .map(|word| u32::from_le_bytes(*word))
}

/// See [`crate::decode::runs_on`].
pub(in crate::decode) fn runs_on(instruction: &[u8]) -> Option<bool> {
    const NOP: u32 = 0xd503_201f;
    let word = instruction
        .first_chunk()
        .map(|word| u32::from_le_bytes(*word))
        .filter(|word| *word != NOP)?;
    let flow = effects::of(word).flow;
    Some(matches!(
        flow,
        Flow::Next | Flow::Branch { conditional: true }
    ))
}

/// See [`crate::decode::flow`].
pub(in crate::decode) fn flow(instruction: &[u8]) -> decode::Flow {
    let Some(word) = instruction.first_chunk().map(|it| u32::from_le_bytes(*it)) else {
        return decode::Flow::Trap;
    };
    // A breakpoint with the number that Windows gives to debuggers goes on; compilers end what must
    // not be reached with others.
    if word & 0xffe0_001f == 0xd420_0000 {
        return match (word >> 5) & 0xffff {
            0xf000 => decode::Flow::Next,
            _ => decode::Flow::Trap,
        };
    }
    // Newer forms of compare and branch.
    if matches!(word >> 24, 0x74 | 0x75 | 0xf4 | 0xf5) {
        return decode::Flow::Indirect;
    }
    match effects::of(word).flow {
        Flow::Next => decode::Flow::Next,
        Flow::Call => decode::Flow::Call,
        Flow::Branch { conditional: true } => decode::Flow::ConditionalJump,
        Flow::Branch { conditional: false } => decode::Flow::Jump,
        Flow::Indirect => decode::Flow::Indirect,
        // What is undefined.
        Flow::Stop if word >> 16 == 0 => decode::Flow::Trap,
        Flow::Stop => decode::Flow::Return,
    }
}

/// How many instructions behind an address its register is looked for.
const USE_WINDOW: usize = 64;

/// See [`crate::decode::is_compared`].
pub(in crate::decode) fn is_compared(bytes: &[u8], offset: u32) -> bool {
    // cmp xn, xm
    let is_comparison = |word: u32, register: u32| {
        let operands = [(word >> 5) & 31, (word >> 16) & 31];
        word & 0xffe0_fc1f == 0xeb00_001f && operands.contains(&register)
    };
    next_use(bytes, offset).is_some_and(|(word, register)| is_comparison(word, register))
}

/// Whether the register into which the instruction at `offset` puts an address is next kept in the
/// frame, or what is read or written is counted from it by an index.
pub(in crate::decode) fn is_kept_or_indexed(bytes: &[u8], offset: u32) -> bool {
    let frame = |word: u32| matches!((word >> 5) & 31, 29 | 31);
    next_use(bytes, offset).is_some_and(|(word, register)| {
        let is_stored = word & 31 == register && frame(word);
        // str xt, [sp, #offset], also unscaled; ldr or str of any size, [xn, xm]
        let is_kept = word & 0xffc0_0000 == 0xf900_0000 || word & 0xffe0_0c00 == 0xf800_0000;
        let is_indexed = word & 0x3b20_0c00 == 0x3820_0800 && (word >> 5) & 31 == register;
        is_kept && is_stored || is_indexed
    })
}

/// The next instruction that reads or writes the register into which the instruction at `offset`
/// puts an address, and the register.
fn next_use(bytes: &[u8], offset: u32) -> Option<(u32, u32)> {
    let mut words = words_from(bytes, offset);
    let register = words.next()? & 31;
    for word in words.take(USE_WINDOW) {
        let effects = effects::of(word);
        if (effects.reads | effects.writes) & (1 << register) != 0 {
            return Some((word, register));
        }
        // The use may stand at the end of a loop, behind calls; never behind the function.
        match effects.flow {
            Flow::Stop => return None,
            Flow::Call if effects::VOLATILE & (1 << register) != 0 => return None,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_control_goes() {
        use crate::decode::Flow;
        for (word, expected) in [
            (0xd503_201f_u32, Flow::Next),
            (0x9400_0001, Flow::Call),
            (0xd63f_0100, Flow::Call),
            (0x1400_0001, Flow::Jump),
            (0x5400_0020, Flow::ConditionalJump),
            (0x3400_0020, Flow::ConditionalJump),
            (0x3600_0020, Flow::ConditionalJump),
            (0xd61f_0100, Flow::Indirect),
            (0xd65f_03c0, Flow::Return),
            (0xd65f_0bff, Flow::Return),
            // brk #0xf000, brk #1, brk #0xf003, udf
            (0xd43e_0000, Flow::Next),
            (0xd420_0020, Flow::Trap),
            (0xd43e_0060, Flow::Trap),
            (0, Flow::Trap),
        ] {
            assert_eq!(flow(&word.to_le_bytes()), expected, "{word:#x}");
        }
    }

    #[test]
    fn constants() {
        let differing = |base: u32, fixed: u32| {
            constants_differing(&base.to_le_bytes(), &fixed.to_le_bytes())
                .map(|it| (it.base, it.fixed, it.is_moved))
        };
        // mov w1, #123 and #124; then to another register.
        assert_eq!(differing(0x5280_0f61, 0x5280_0f81), Some((123, 124, true)));
        assert_eq!(differing(0x5280_0f61, 0x5280_0f82), None);
        // cmp w0, #6 and #5.
        assert_eq!(differing(0x7100_181f, 0x7100_141f), Some((6, 5, false)));
        // ldr x0, [x1, #8] and [x1, #16]: the field counts words of the access.
        assert_eq!(differing(0xf940_0420, 0xf940_0820), Some((1, 2, false)));
        // fmov d0, #1.0 and #2.0, and s0; fmov d0, x1 and d0, d1 hold no constant.
        assert_eq!(differing(0x1e6e_1000, 0x1e60_1000), Some((0x70, 0, false)));
        assert_eq!(differing(0x1e6e_1000, 0x1e20_1000), None);
        assert_eq!(differing(0x9e67_0020, 0x9e67_0040), None);
        assert_eq!(differing(0x1e60_4020, 0x1e60_4040), None);
        // fmov v0.2d, #1.0 and #2.0; movi v0.4s, #1 and #3; to another register.
        assert!(differing(0x6f03_f600, 0x6f00_f400).is_some());
        assert!(differing(0x4f00_0420, 0x4f00_0460).is_some());
        assert_eq!(differing(0x4f00_0420, 0x4f00_0421), None);
        // ccmp w0, #1, #0, eq and #2; ldp x0, x1, [sp, #16] and #32; ldur x0, [x1, #-8] and #-16.
        assert_eq!(differing(0x7a41_0800, 0x7a42_0800), Some((1, 2, false)));
        assert_eq!(differing(0xa941_07e0, 0xa942_07e0), Some((2, 4, false)));
        assert!(differing(0xf85f_8020, 0xf85f_0020).is_some());
        // add x0, x1, x2 holds no constant.
        assert_eq!(differing(0x8b02_0020, 0x8b03_0020), None);
    }
}
