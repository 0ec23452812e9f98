//! Capstone as the oracle: it knows the instructions from tables made by others.

use capstone::arch::arm64::{ArchMode, Arm64OperandType};
use capstone::arch::{ArchDetail, BuildsCapstone, DetailsArchInsn};
use capstone::{Capstone, RegId};
use hpbuild_metadata::{Base, Rva};

use super::super::effects::{self, Registers};
use super::super::field::AddressField;
use super::super::frame::form::{self, Form, SP};
use super::Numbers;

const PC: u32 = 0x4000_0000;

fn capstone() -> Capstone {
    let builder = Capstone::new().arm64().mode(ArchMode::Arm).detail(true);
    builder.build().expect("capstone with arm64")
}

/// Bits of the general registers by capstone's numbers, found by name.
fn registers(capstone: &Capstone) -> Vec<Registers> {
    let bit = |id: u16| -> Registers {
        let name = capstone.reg_name(RegId(id)).unwrap_or_default();
        match name.as_str() {
            "fp" => 1 << 29,
            "lr" => 1 << 30,
            _ => name
                .strip_prefix(['x', 'w'])
                .and_then(|number| number.parse::<u32>().ok())
                .filter(|number| *number < 31)
                .map_or(0, |number| 1 << number),
        }
    };
    (0..700).map(bit).collect()
}

/// Random words, and words with few bits changed from one that is an instruction, which reach into
/// the small groups.
fn words() -> Vec<u32> {
    let mut numbers = Numbers(1);
    let mut words: Vec<u32> = (0..400_000).map(|_| numbers.next()).collect();
    // Every combination of the bits above 21 and of 15 to 10, with random registers.
    for high in 0..1u32 << 11 {
        for low in 0..1u32 << 6 {
            words.push(high << 21 | low << 10 | numbers.next() & 0x001f_03ff);
        }
    }
    // System instructions and hints.
    words.extend((0..1 << 12).map(|bits| 0xd503_201f | bits << 5));
    words.extend((0..100_000).map(|_| 0xd500_0000 | numbers.next() & 0x003f_ffff));
    words
}

/// Takes back what this version of capstone gets wrong, each by the architecture's manual.
fn corrected(
    word: u32,
    mnemonic: &str,
    reads: Registers,
    writes: Registers,
) -> (Registers, Registers) {
    let [rd, rn, rm] = [0, 5, 16].map(|low| (1u32 << ((word >> low) & 31)) & effects::ALL);
    match mnemonic {
        // Aliases without a destination: the first source is taken for one.
        "cmp" | "cmn" | "tst" => (reads | rn, writes & !rn),
        // The destination of one form is taken for a source.
        "adds" => (rn | if (word >> 24) & 0x7f == 0x31 { 0 } else { rm }, rd),
        // The destination is also taken for a source.
        _ if rd != rn && word & 0x1f80_0000 == 0x1300_0000 && word & (3 << 29) != 1 << 29 => {
            (reads & !rd, writes)
        }
        "pacga" if rd != rn && rd != rm => (reads & !rd, writes),
        "sysl" => (reads & !rd, writes),
        // What is added to the base is also taken for a destination.
        _ if word & 0xbf80_0000 == 0x0d80_0000 => (reads, writes & !rm | rn),
        _ => (reads, writes),
    }
}

#[test]
fn no_write_and_no_read_is_left_out() {
    let capstone = capstone();
    let registers = registers(&capstone);
    let mut known = 0;
    let mut wrong = Vec::new();
    for word in words() {
        let bytes = word.to_le_bytes();
        let Ok(instructions) = capstone.disasm_count(&bytes, PC.into(), 1) else {
            continue;
        };
        let Some(instruction) = instructions.iter().next() else {
            continue;
        };
        let detail = capstone.insn_detail(instruction).expect("details");
        let set = |ids: &[RegId]| ids.iter().fold(0, |set, id| set | registers[id.0 as usize]);
        let (reads, writes) = (set(detail.regs_read()), set(detail.regs_write()));
        known += 1;
        let ours = effects::of(word);
        let (reads, writes) = corrected(
            word,
            instruction.mnemonic().unwrap_or_default(),
            reads,
            writes,
        );
        if writes & !ours.writes != 0 || reads & !ours.reads != 0 {
            let text = (instruction.mnemonic(), instruction.op_str());
            wrong.push(format!(
                "{word:#010x} {text:?} reads {reads:#x} writes {writes:#x} {ours:x?}"
            ));
        }
    }
    assert!(known > 200_000, "only {known} words are instructions");
    wrong.truncate(20);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Every distance that capstone prints is the one we read, and it prints none where we see none.
#[test]
fn distances_agree() {
    let capstone = capstone();
    let mut numbers = Numbers(2);
    let mut words = words();
    for class in [
        0x1400_0000,
        0x9400_0000,
        0x5400_0000,
        0x3400_0000,
        0xb500_0000,
        0x3600_0000,
        0xb700_0000,
        0x1000_0000,
        0x9000_0000,
        0x1800_0000,
        0x5800_0000,
        0x9800_0000,
        0xd800_0000,
        0x1c00_0000,
        0x5c00_0000,
        0x9c00_0000u32,
    ] {
        words.extend((0..5000).map(|_| class | numbers.next() & 0x00ff_ffff));
    }
    let mut compared = 0;
    for word in words {
        let bytes = word.to_le_bytes();
        let Ok(instructions) = capstone.disasm_count(&bytes, PC.into(), 1) else {
            continue;
        };
        let Some(instruction) = instructions.iter().next() else {
            continue;
        };
        let field = AddressField::of(word).filter(|field| !field.is_page_offset());
        let mnemonic = instruction.mnemonic().unwrap_or_default();
        let operands = instruction.op_str().unwrap_or_default();
        let names = ["b", "bl", "cbz", "cbnz", "tbz", "tbnz", "adr", "adrp"];
        let loads = ["ldr", "ldrsw", "prfm"];
        // With brackets the operand is formed from registers.
        let named = mnemonic.starts_with("b.")
            || mnemonic.starts_with("bc.")
            || (names.contains(&mnemonic) || loads.contains(&mnemonic)) && !operands.contains('[');
        assert_eq!(field.is_some(), named, "{word:#010x} {mnemonic} {operands}");
        let Some(field) = field else { continue };
        let detail = capstone.insn_detail(instruction).expect("details");
        let ArchDetail::Arm64Detail(detail) = detail.arch_detail();
        let immediate = detail
            .operands()
            .filter_map(|operand| match operand.op_type {
                Arm64OperandType::Imm(value) => Some(value),
                _ => None,
            });
        let target = field
            .target(word, Rva::<Base>::new(PC))
            .map(|rva| i64::from(rva.get()));
        let expected = immediate.last().expect("a distance");
        let expected = u32::try_from(expected).ok().map(i64::from);
        assert_eq!(target, expected, "{word:#010x} {mnemonic} {operands}");
        compared += 1;
    }
    assert!(compared > 80_000, "only {compared} distances");
}

/// Every look at the stack pointer that capstone prints is one that is seen, and where it prints a
/// distance, that is the place.
#[test]
fn no_look_at_the_stack_pointer_is_left_out() {
    let capstone = capstone();
    let (mut looks, mut accesses) = (0, 0);
    let mut wrong = Vec::new();
    for word in words()
        .into_iter()
        .flat_map(|word| [word | 31 << 5, word | 31])
    {
        let bytes = word.to_le_bytes();
        let Ok(instructions) = capstone.disasm_count(&bytes, PC.into(), 1) else {
            continue;
        };
        let Some(instruction) = instructions.iter().next() else {
            continue;
        };
        let mnemonic = instruction.mnemonic().unwrap_or_default();
        let operands = instruction.op_str().unwrap_or_default();
        let on_stack = operands.contains("[sp");
        let behind = operands.split_once("[sp").map_or("", |it| it.1);
        let first = operands.split(',').next().unwrap_or_default();
        let compares = matches!(
            mnemonic,
            "cmp" | "cmn" | "tst" | "cmpp" | "gmi" | "msr" | "subps"
        );
        // What is authenticated with the stack pointer tells nobody where it stands.
        let signs = mnemonic.starts_with("pac")
            || mnemonic.starts_with("aut")
            || mnemonic.ends_with("aa")
            || mnemonic.ends_with("ab");
        // Registers of the system have names with the same letters.
        let of_system = matches!(mnemonic, "msr" | "mrs");
        let reads = operands.contains("sp") && !of_system && (on_stack || !signs);
        let writes =
            matches!(first, "sp" | "wsp") && !compares && !on_stack && !mnemonic.starts_with("st")
                || on_stack && (operands.contains("]!") || behind.contains("], "))
                || first.contains("[sp]!");
        if !reads {
            continue;
        }
        looks += 1;
        let seen = match form::of(word) {
            Form::Address { to, from, .. } => (from == SP || to == SP) && (to == SP) == writes,
            Form::Lower { .. } => writes,
            Form::Constant { .. } => false,
            Form::Access(access) => {
                accesses += 1;
                let before = behind.split(']').next().unwrap_or_default();
                let shown = before.rsplit('#').next().unwrap_or_default();
                let shown = number(shown).unwrap_or(0);
                access.base == SP
                    && on_stack
                    && i64::from(access.offset) == shown
                    && (writes || access.back == 0)
                    && (!behind.ends_with('!') || access.back == access.offset)
            }
            Form::Other {
                reads_sp,
                writes_sp,
            } => writes_sp || reads_sp && !writes,
        };
        if !seen {
            wrong.push(format!(
                "{word:#010x} {mnemonic} {operands} {:?}",
                form::of(word)
            ));
        }
    }
    assert!(
        looks > 50_000 && accesses > 5_000,
        "{looks} looks, {accesses} accesses"
    );
    wrong.truncate(30);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A number as capstone prints it.
fn number(text: &str) -> Option<i64> {
    let (sign, digits) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
    let value = match digits.strip_prefix("0x") {
        Some(digits) => i64::from_str_radix(digits, 16),
        None => digits.parse(),
    };
    value.ok().map(|value| sign * value)
}
