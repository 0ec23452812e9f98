//! Instructions as text.

use hpbuild_metadata::{Rva, Side};

use super::Text;
use super::effects::{self, Flow};
use crate::decode::{Body, Code, Constants, Instruction, ReferenceKind};

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
/// Constants are told for the groups that hold numbers of the source: moves of wide immediates,
/// additions and comparisons, and offsets of loads and stores.
pub(in crate::decode) fn constants_differing(base: &[u8], fixed: &[u8]) -> Option<Constants> {
    let word = |bytes: &[u8]| bytes.first_chunk().map(|word| u32::from_le_bytes(*word));
    let (base, fixed) = (word(base)?, word(fixed)?);
    // Group mask and value, then the field's lowest bit and its width.
    const GROUPS: [(u32, u32, u32, u32); 4] = [
        (0x1f80_0000, 0x1280_0000, 5, 16),
        (0x1f80_0000, 0x1100_0000, 10, 12),
        (0x3b00_0000, 0x3900_0000, 10, 12),
        (0x1f80_0000, 0x1200_0000, 10, 13),
    ];
    let group = GROUPS
        .iter()
        .find(|(mask, value, ..)| base & mask == *value)?;
    let field = ((1 << group.3) - 1) << group.2;
    if base & !field != fixed & !field {
        return None;
    }
    let value = |word: u32| u64::from((word & field) >> group.2);
    Some(Constants {
        base: value(base),
        fixed: value(fixed),
        // `movz` of the low half word.
        is_moved: base & 0x7fe0_0000 == 0x5280_0000,
    })
}

/// The instructions from `offset` on.
fn words_from(bytes: &[u8], offset: u32) -> impl Iterator<Item = u32> {
    let words = bytes.get(offset as usize..).unwrap_or_default();
    words
        .chunks_exact(4)
        .filter_map(|word| word.first_chunk())
        .map(|word| u32::from_le_bytes(*word))
}

/// See [`crate::decode::reaches_back`].
pub(in crate::decode) fn reaches_back(bytes: &[u8], offset: u32) -> bool {
    let mut words = words_from(bytes, offset);
    let Some(register) = words.next().map(|word| word & 31) else {
        return false;
    };
    for word in words.take(USE_WINDOW) {
        // Loads and stores of one register or of two with a signed offset, and subtraction.
        let one = word & 0x3b20_0000 == 0x3800_0000 && word & 1 << 20 != 0;
        let two = word & 0x3a00_0000 == 0x2800_0000 && word & 1 << 21 != 0;
        let less = word & 0x7f80_0000 == 0x5100_0000;
        if (one || two || less) && word >> 5 & 31 == register {
            return true;
        }
        let effects = effects::of(word);
        let is_lost = effects.writes & (1 << register) != 0
            || effects.flow == Flow::Call && effects::VOLATILE & (1 << register) != 0;
        if is_lost || effects.flow == Flow::Stop {
            return false;
        }
    }
    false
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

/// How many instructions behind an address its register is looked for.
const USE_WINDOW: usize = 64;

/// See [`crate::decode::is_compared`].
pub(in crate::decode) fn is_compared(bytes: &[u8], offset: u32) -> bool {
    let mut words = words_from(bytes, offset);
    let Some(register) = words.next().map(|word| word & 31) else {
        return false;
    };
    for word in words.take(USE_WINDOW) {
        let effects = effects::of(word);
        if (effects.reads | effects.writes) & (1 << register) != 0 {
            // cmp xn, xm
            let operands = [(word >> 5) & 31, (word >> 16) & 31];
            return word & 0xffe0_fc1f == 0xeb00_001f && operands.contains(&register);
        }
        // The comparison may stand at the end of a loop, behind calls; never behind the function.
        match effects.flow {
            Flow::Stop => return false,
            Flow::Call if effects::VOLATILE & (1 << register) != 0 => return false,
            _ => {}
        }
    }
    false
}

/// How many instructions behind a load from a relative table the address is added at the latest.
const TABLE_WINDOW: usize = 12;

/// Finds the address of a table in `t`, then `ldrsw x, [t, i, lsl #2]`, then `add` of the two, in
/// this order; other instructions may stand between.
pub(in crate::decode) fn relative_tables<S: Side>(
    code: Code<'_, S>,
    body: &Body<S>,
) -> Vec<Rva<S>> {
    let mut found = Vec::new();
    // The address each register received last.
    let mut tables: [Option<Rva<S>>; 32] = [None; 32];
    let word_at = |index: usize| {
        let instruction = body.instructions.get(index)?;
        let bytes = code
            .bytes
            .get(instruction.offset as usize..)?
            .first_chunk()?;
        Some(u32::from_le_bytes(*bytes))
    };
    for (index, instruction) in body.instructions.iter().enumerate() {
        let Some(word) = word_at(index) else { break };
        let register = |low: u32| ((word >> low) & 31) as usize;
        if let Some(reference) = instruction.reference {
            if reference.kind == ReferenceKind::Address {
                tables[register(0)] = Some(reference.target);
            }
            continue;
        }
        // ldrsw xt, [xn, xm or wm, extended]: what is added may be counted in entries or in bytes.
        if word & 0xffe0_0c00 != 0xb8a0_0800 {
            continue;
        }
        let loaded = register(0);
        // Two whole registers may change places.
        let swapped = (word & 0xf000 == 0x6000).then(|| register(16));
        let base = [Some(register(5)), swapped];
        let mut bases = base.into_iter().flatten();
        let Some(base) = bases.find(|base| tables[*base].is_some()) else {
            continue;
        };
        let Some(table) = tables[base] else { continue };
        let adds = |word: u32| {
            // add xd, xn, xm
            let sources = [((word >> 5) & 31) as usize, ((word >> 16) & 31) as usize];
            word & 0xffe0_fc00 == 0x8b00_0000
                && sources.contains(&loaded)
                && sources.contains(&base)
        };
        if (index + 1..)
            .take(TABLE_WINDOW)
            .filter_map(word_at)
            .any(adds)
        {
            found.push(table);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use hpbuild_metadata::Base;

    use super::*;
    use crate::decode::{Machine, decode};

    #[test]
    fn relative_tables_by_entries_and_by_bytes() {
        let tables = |load: u32| {
            // adr x22, #+0x100; load; add x0, x22, x8
            let words = [0x1000_0816, load, 0x8b08_02c0_u32];
            let bytes: Vec<u8> = words.into_iter().flat_map(u32::to_le_bytes).collect();
            let code = Code::<Base> {
                bytes: &bytes,
                rva: Rva::new(0x1000),
                image_base: 0,
                relocated: &[],
            };
            let mut body = Body::default();
            decode(Machine::Arm64, code, &mut body);
            relative_tables(code, &body)
        };
        let found = [Rva::new(0x1100)];
        // ldrsw x8, [x22, w21, uxtw #2], [x22, x21] and [x21, x22]
        assert_eq!(tables(0xb8b5_5ac8), found);
        assert_eq!(tables(0xb8b5_6ac8), found);
        assert_eq!(tables(0xb8b6_6aa8), found);
        // ldrsw x8, [x21, x22, lsl #2] multiplies the address.
        assert_eq!(tables(0xb8b6_7aa8), []);
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
        let walks = |uses: u32| {
            // add x8, x8, #256
            let code = [0x9104_0108_u32, uses].map(u32::to_le_bytes).concat();
            reaches_back(&code, 0)
        };
        // ldr w9, [x8, #-4]!; ldur w9, [x8, #-4]; ldp w9, w10, [x8, #-8]; sub x9, x8, #4
        let back = [0xb85f_cd09, 0xb85f_c109, 0x297f_2909, 0xd100_1109];
        assert!(back.into_iter().all(walks));
        // ldr w9, [x8, #4]; ldr w9, [x8], #4; ldur w9, [x7, #-4]
        let other = [0xb940_0509, 0xb840_4509, 0xb85f_c0e9];
        assert!(!other.into_iter().any(walks));
        // add x0, x1, x2 holds no constant.
        assert_eq!(differing(0x8b02_0020, 0x8b03_0020), None);
    }
}
