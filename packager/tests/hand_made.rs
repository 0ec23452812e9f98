//! Link, attach, write and verify on parts made by hand, one instruction form each.
//!
//! Oracles: the verifier, which shares no code with the linker; `goblin`; and LLVM's tools where
//! they are installed (in CI they must be).

mod assembled;
mod tools;

use assembled::{Assembled, base_facts, import, parts};
use hpbuild_differ::decode::ReferenceKind::{Address, Call, Jump, Memory};
use hpbuild_metadata::{Machine, Rva};
use hpbuild_packager::extract::Previous;
use hpbuild_packager::link::link;
use hpbuild_packager::piece::{
    How, Origin, Parts, Piece, PieceId, Place, Redirect, Reference, Room, RuntimeEntry, Target,
    UnwindOf,
};
use hpbuild_packager::refusal::Code;
use hpbuild_packager::verify::verify;
use hpbuild_packager::{attach::attach, write::write};

fn built(parts: &Parts) -> Vec<u8> {
    let linked = link(parts).unwrap_or_else(|refusals| panic!("{refusals:#?}"));
    let table = attach(parts, &linked);
    write(&linked, &table)
}

fn verified(parts: &Parts) -> Vec<u8> {
    let file = built(parts);
    verify(&file, parts).unwrap_or_else(|faults| panic!("{faults:#?}"));
    file
}

/// The code as text, without addresses of the instructions' bytes.
fn disassembly(file: &[u8]) -> Option<String> {
    let text = tools::run(
        "llvm-objdump-22",
        &["-d", "--no-show-raw-insn", "--x86-asm-syntax=intel"],
        file,
    )?;
    let lines: Vec<_> = text
        .lines()
        .filter(|line| {
            !line.trim().is_empty()
                && !line.contains("file format")
                && !line.ends_with("int3")
                && !line.contains("brk")
        })
        .map(str::trim_end)
        .collect();
    Some(lines.join("\n") + "\n")
}

const DATA: Target = Target::Base(Rva::new(0x5010));
const CALLEE: Target = Target::Base(Rva::new(0x1200));

/// Every form of operand that x64 code has.
fn x64_code() -> Piece {
    let mut code = Assembled::default();
    code.plain(&[0x48, 0x83, 0xec, 0x28]);
    code.relative(&[0xe8], &[], Call, CALLEE);
    code.relative(&[0x48, 0x8d, 0x05], &[], Address, DATA); // lea rax, [g]
    code.relative(&[0x8d, 0x0d], &[], Address, DATA); // lea ecx, [g]
    code.relative(&[0x8b, 0x15], &[], Memory(4), DATA); // mov edx, [g]
    code.relative(&[0x0f, 0xb6, 0x05], &[], Memory(1), DATA); // movzx eax, byte [g]
    code.relative(&[0x83, 0x3d], &[5], Memory(4), DATA); // cmp dword [g], 5
    code.plain(&[0x75, 0x00]); // jne next
    code.relative(&[0xf0, 0xff, 0x05], &[], Memory(4), DATA); // lock inc dword [g]
    code.relative(&[0x48, 0xc7, 0x05], &[1, 0, 0, 0], Memory(8), DATA); // mov qword [g], 1
    code.relative(&[0x88, 0x25], &[], Memory(1), DATA); // mov [g], ah
    code.relative(&[0xf3, 0x0f, 0x7e, 0x05], &[], Memory(8), DATA); // movq xmm0, [g]
    code.relative(&[0xff, 0x15], &[], Memory(8), DATA); // call [g]
    code.relative(&[0xff, 0x15], &[], Memory(8), Target::Import(0));
    code.relative(&[0x48, 0x8b, 0x0d], &[], Memory(8), Target::Import(1)); // mov rcx, [__imp]
    code.relative(
        &[0xff, 0x15],
        &[],
        Memory(8),
        Target::BaseValue(Rva::new(0x3000)),
    );
    code.relative(&[0x0f, 0x28, 0x05], &[], Memory(16), piece_target(2)); // movaps xmm0, const
    code.relative(&[0x48, 0x8d, 0x0d], &[], Address, piece_target(4)); // lea rcx, new function
    code.absolute(&[0x49, 0xbb], DATA); // mov r11, imm64
    code.plain(&[0x48, 0x83, 0xc4, 0x28, 0xc3]);
    code.piece("forms")
}

/// The start of a piece.
fn piece_target(id: u32) -> Target {
    Target::Piece(Place::start(PieceId(id)))
}

/// A piece of data whose references are of one kind.
fn data(
    name: &str,
    (room, align): (Room, u32),
    bytes: Vec<u8>,
    how: How,
    references: &[(u32, Target)],
) -> Piece {
    let reference = |(offset, target): &(u32, Target)| Reference {
        offset: *offset,
        how,
        target: *target,
    };
    Piece {
        name: name.into(),
        origin: None,
        room,
        align,
        bytes,
        zeros: 0,
        references: references.iter().map(reference).collect(),
        page_links: vec![],
    }
}

/// `sub rsp, 28h`, every form of access to the base, `add rsp, 28h; ret`, with unwind info.
fn x64_forms() -> Parts {
    // UNW_FLAG_UHANDLER, prologue of 4, ALLOC_SMALL 28h, then the handler and its data.
    let unwind = vec![0x11, 4, 1, 0, 4, 0x42, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0];
    let handler = [(8, CALLEE)];
    let unwind = data(
        "unwind",
        (Room::Unwind, 4),
        unwind,
        How::ImageRelative,
        &handler,
    );
    let bytes = (0..16).collect();
    let constant = data("constant", (Room::ReadOnly, 16), bytes, How::Pointer, &[]);
    let pointers = [(0, CALLEE), (8, piece_target(5))];
    let table = data(
        "table",
        (Room::ReadOnly, 8),
        vec![0; 16],
        How::Pointer,
        &pointers,
    );
    let mut other = Assembled::default();
    other.relative(&[0x48, 0x8d, 0x05], &[], Address, piece_target(3)); // lea rax, table
    other.relative(&[0xe9], &[], Jump, CALLEE);
    let mut global = data("new global", (Room::Writable, 8), vec![], How::Pointer, &[]);
    global.zeros = 0x2000;
    let pieces = vec![
        x64_code(),
        unwind,
        constant,
        table,
        other.piece("new"),
        global,
    ];
    let size = pieces[0].size();
    let mut parts = parts(Machine::X64, pieces);
    parts.runtime.push(RuntimeEntry {
        code: PieceId(0),
        begin: 0,
        end: size,
        unwind: UnwindOf::Info(PieceId(1)),
    });
    parts.imports = vec![
        import(0x3010, "KERNEL32.dll", "Sleep"),
        import(0x3018, "api.dll", "Other"),
    ];
    parts
}

#[test]
fn x64_image_verifies_and_parses() {
    let file = verified(&x64_forms());
    let pe = goblin::pe::PE::parse(&file).expect("goblin reads the image");
    assert!(pe.is_64 && pe.is_lib && pe.entry == 0);
    let imports: Vec<_> = pe
        .imports
        .iter()
        .map(|import| (import.dll, import.name.to_string()))
        .collect();
    assert_eq!(
        imports,
        [
            ("KERNEL32.dll", "Sleep".into()),
            ("api.dll", "Other".into())
        ]
    );
    let config = pe.load_config_data.expect("a load config");
    assert_eq!(config.directory.size, 0x140);
    tools::readobj(&file);
}

#[test]
fn x64_code_reads_as_expected() {
    let file = verified(&x64_forms());
    let Some(text) = disassembly(&file) else {
        return;
    };
    assert_expected(&text, "x64_forms");
}

/// Holds `text` against `tests/expected/NAME.txt`; with `HPBUILD_BLESS=1` in the environment writes it.
fn assert_expected(text: &str, name: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/expected")
        .join(format!("{name}.txt"));
    if std::env::var_os("HPBUILD_BLESS").is_some() {
        std::fs::write(&path, text).expect("a written file");
    }
    let expected = std::fs::read_to_string(&path).expect("an expected text");
    assert_eq!(text, expected, "\n{text}");
}

#[test]
fn same_input_same_bytes() {
    assert_eq!(built(&x64_forms()), built(&x64_forms()));
    assert_eq!(built(&arm64_forms()), built(&arm64_forms()));
}

/// Any changed byte of code or slot table is noticed.
#[test]
fn verifier_notices_damage() {
    for parts in [x64_forms(), arm64_forms()] {
        let file = built(&parts);
        let pe = goblin::pe::PE::parse(&file).expect("goblin reads the image");
        let text = &pe.sections[0];
        let start = text.pointer_to_raw_data as usize;
        let padding: &[u8] = if parts.machine == Machine::X64 {
            &[0xcc]
        } else {
            &[0x00, 0x3e, 0xd4]
        };
        for at in start..start + text.virtual_size as usize {
            if padding.contains(&file[at]) {
                continue;
            }
            let mut damaged = file.clone();
            damaged[at] ^= 0x10;
            fix_checksum(&mut damaged);
            assert!(
                verify(&damaged, &parts).is_err(),
                "{:?} byte {:#x}",
                parts.machine,
                at - start
            );
        }
    }
}

#[test]
fn verifier_notices_what_was_copied_twice() {
    let origin = |rva| {
        Some(Origin {
            rva: Rva::new(rva),
            lead: 0,
        })
    };
    let mut parts = x64_forms();
    parts.pieces[2].origin = origin(0x2000);
    parts.pieces[3].origin = origin(0x2010);
    let file = verified(&parts);
    parts.pieces[3].origin = origin(0x200f);
    let faults = verify(&file, &parts).expect_err("a byte at two places");
    let [fault] = faults.as_slice() else {
        panic!("{faults:?}");
    };
    let text = fault.to_string();
    assert!(text.starts_with("patch: table: expected rva 0x"), "{text}");
    assert!(
        text.contains(", where constant has it, found rva 0x"),
        "{text}"
    );
}

/// Corrects the checksum, so that only the damage itself can be noticed.
fn fix_checksum(file: &mut [u8]) {
    let at = 0x98;
    file[at..at + 4].fill(0);
    let sum = file
        .chunks(2)
        .map(|pair| u64::from(u16::from_le_bytes([pair[0], pair[1]])))
        .sum::<u64>();
    let folded = if sum % 0xffff == 0 {
        0xffff
    } else {
        sum % 0xffff
    };
    let sum = (folded + file.len() as u64) as u32;
    file[at..at + 4].copy_from_slice(&sum.to_le_bytes());
}

/// `bl`, `adrp`+`add`, `adrp`+`ldr`, an import, `adr`, `b`.
fn arm64_forms() -> Parts {
    let mut code = Assembled::default();
    code.word(0xa9bf_7bfd); // stp x29, x30, [sp, #-16]!
    code.aimed(0x9400_0000, 0x03ff_ffff, Call, CALLEE);
    code.page(0x9000_0008); // adrp x8
    let page = code.last();
    code.user(0x9100_0100, Address, DATA, page); // add x0, x8, #lo12
    code.user(0xb940_0109, Memory(4), Target::Base(Rva::new(0x5014)), page); // ldr w9, [x8, #lo12]
    code.page(0x9000_000a); // adrp x10
    let page = code.last();
    code.user(0xf940_014a, Memory(8), Target::Import(0), page); // ldr x10, [x10, #lo12]
    code.page(0x9000_000b); // adrp x11
    let page = code.last();
    code.user(
        0x3dc0_0160,
        Memory(16),
        Target::Piece(Place::start(PieceId(1))),
        page,
    ); // ldr q0, [x11, #lo12]
    code.aimed(0x1000_0001, 0x60ff_ffe0, Address, DATA); // adr x1
    code.word(0xa8c1_7bfd); // ldp x29, x30, [sp], #16
    code.aimed(0x1400_0000, 0x03ff_ffff, Jump, CALLEE);
    let constant = Piece {
        name: "constant".into(),
        origin: None,
        room: Room::ReadOnly,
        align: 16,
        bytes: (0..16).collect(),
        zeros: 0,
        references: vec![],
        page_links: vec![],
    };
    let pieces = vec![code.piece("forms"), constant];
    let size = pieces[0].size();
    let mut parts = parts(Machine::Arm64, pieces);
    // Packed: flag 1, length in words, RegF 0, RegI 0, H 0, CR 3 (frame), frame size 1.
    let packed = 1 | (size / 4) << 2 | 3 << 21 | 1 << 23;
    parts.runtime.push(RuntimeEntry {
        code: PieceId(0),
        begin: 0,
        end: size,
        unwind: UnwindOf::Packed(packed),
    });
    parts.imports = vec![import(0x3010, "KERNEL32.dll", "Sleep")];
    parts
}

#[test]
fn arm64_image_verifies_and_reads_as_expected() {
    let file = verified(&arm64_forms());
    goblin::pe::PE::parse(&file).expect("goblin reads the image");
    tools::readobj(&file);
    let Some(text) = disassembly(&file) else {
        return;
    };
    assert_expected(&text, "arm64_forms");
}

/// `push rbx; [cmp dword [g], 0]; sub rsp, 20h; [cmp dword [g], 0]; add; pop; ret`, and a leaf.
#[test]
fn stubs_unwind_as_the_place_they_stand_for() {
    let mut code = Assembled::default();
    code.plain(&[0x53]);
    code.relative(&[0x83, 0x3d], &[0], Memory(4), DATA);
    code.plain(&[0x48, 0x83, 0xec, 0x20]);
    code.relative(&[0x83, 0x3d], &[0], Memory(4), DATA);
    code.plain(&[0x48, 0x83, 0xc4, 0x20, 0x5b, 0xc3]);
    let mut leaf = Assembled::default();
    leaf.relative(&[0x83, 0x3d], &[0], Memory(4), DATA);
    leaf.plain(&[0xc3]);
    let unwind = Piece {
        name: "unwind".into(),
        origin: None,
        room: Room::Unwind,
        align: 4,
        // Prologue of 12 bytes: ALLOC_SMALL 20h at 12, PUSH_NONVOL rbx at 1.
        bytes: vec![0x01, 12, 2, 0, 12, 0x32, 1, 0x30],
        zeros: 0,
        references: vec![],
        page_links: vec![],
    };
    let pieces = vec![code.piece("framed"), unwind, leaf.piece("leaf")];
    let size = pieces[0].size();
    let mut parts = parts(Machine::X64, pieces);
    parts.runtime.push(RuntimeEntry {
        code: PieceId(0),
        begin: 0,
        end: size,
        unwind: UnwindOf::Info(PieceId(1)),
    });
    let mut second = parts.redirects[0].clone();
    second.base = Rva::new(0x1800);
    second.piece = PieceId(2);
    second.original = [0x83, 0x3d, 0, 0];
    parts.redirects.push(second);
    let file = verified(&parts);
    if let Some(text) = tools::run("llvm-readobj-22", &["--unwind"], &file) {
        assert_expected(&text, "stub_unwind");
    }
}

fn refused(parts: &Parts) -> Vec<Code> {
    match link(parts) {
        Ok(_) => panic!("linked"),
        Err(refusals) => refusals.iter().map(|refusal| refusal.rule).collect(),
    }
}

fn one(code: Assembled) -> Parts {
    parts(Machine::X64, vec![code.piece("one")])
}

#[test]
fn what_is_not_understood_is_refused() {
    let cases: [(&[u8], &[u8], Code); 5] = [
        (&[0xff, 0x35], &[], Code::InstructionForm), // push [g]
        (&[0x8f, 0x05], &[], Code::InstructionForm), // pop [g]
        (&[0x48, 0x89, 0x25], &[], Code::StackOperand), // mov [g], rsp
        (&[0x65, 0x8b, 0x05], &[], Code::InstructionForm), // mov eax, gs:[g]
        (&[0xff, 0x2d], &[], Code::InstructionForm), // jmp far [g]
    ];
    for (before, behind, rule) in cases {
        let mut code = Assembled::default();
        code.relative(before, behind, Memory(8), DATA);
        code.plain(&[0xc3]);
        assert_eq!(refused(&one(code)), [rule], "{before:x?}");
    }
    let mut short = Assembled::default();
    short.short(0xeb, Jump, CALLEE);
    assert_eq!(refused(&one(short)), [Code::ShortBranch]);
}

#[test]
fn stack_operand_takes_a_free_register() {
    let mut code = Assembled::default();
    code.relative(&[0x48, 0x89, 0x25], &[], Memory(8), DATA); // mov [g], rsp
    code.plain(&[0x31, 0xc0, 0xc3]); // xor eax, eax; ret
    verified(&one(code));
}

#[test]
fn arm64_page_shared_by_two_pages_is_refused() {
    let mut code = Assembled::default();
    code.page(0x9000_0008);
    let page = code.last();
    code.user(0x9100_0100, Address, DATA, page);
    code.user(0x9100_0101, Address, Target::Base(Rva::new(0x6010)), page);
    code.word(0xd65f_03c0);
    assert_eq!(
        refused(&parts(Machine::Arm64, vec![code.piece("two")])),
        [Code::PageSplit]
    );
    let mut code = Assembled::default();
    code.page(0x9000_0008);
    let page = code.last();
    code.user(0xf940_0100, Memory(8), Target::Base(Rva::new(0x5014)), page);
    assert_eq!(
        refused(&parts(Machine::Arm64, vec![code.piece("off")])),
        [Code::Alignment]
    );
}

#[test]
fn redirect_keeps_the_bytes_it_is_checked_by() {
    let parts = x64_forms();
    let Redirect { original, .. } = &parts.redirects[0];
    assert_eq!(original, &[0x48, 0x83, 0xec, 0x28]);
    let linked = link(&parts).expect("links");
    let table = attach(&parts, &linked);
    assert!(base_facts().identity == table.bases[0].identity);
    let text = format!("{:?}", table.bases[0].chunks);
    assert!(text.contains("original: 33608"), "{text}"); // 0x8348
}

proptest::proptest! {
    /// Damage anywhere, headers included, is a fault or harmless, and never a panic or a hang.
    #[test]
    fn damaged_images_do_not_panic(
        places in proptest::collection::vec((0..0x2000_usize, 0..=255_u8), 1..20),
        cut in 0..0x4000_usize,
    ) {
        for parts in [x64_forms(), arm64_forms()] {
            let mut file = built(&parts);
            for (place, value) in &places {
                if let Some(byte) = file.get_mut(*place) {
                    *byte = *value;
                }
            }
            let _ = verify(&file, &parts);
            let _ = Previous::read(&file[..cut.min(file.len())]);
        }
    }
}
