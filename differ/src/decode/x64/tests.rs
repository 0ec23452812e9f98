use hpbuild_metadata::Base;

use hpbuild_metadata::Rva;

use super::super::{Field, Reference, ReferenceKind};
use super::*;

fn references(bytes: &[u8], rva: u32) -> Vec<(u32, Reference<Base>)> {
    let mut body = Body::default();
    let code = Code {
        bytes,
        rva: Rva::new(rva),
        image_base: 0x1_8000_0000,
        relocated: &[],
    };
    decode(code, &mut body);
    let covered: u32 = body.instructions.iter().map(|i| u32::from(i.length)).sum();
    assert_eq!(covered as usize, bytes.len(), "no gaps");
    body.instructions
        .iter()
        .filter_map(|i| Some((i.offset, i.reference?)))
        .collect()
}

#[test]
fn relative_operands() {
    // call +0x10; lea rax,[rip+0x100]; mov eax,[rip-4]; jne +2; jmp [rip+0]
    let code = [
        0xe8, 0x10, 0, 0, 0, //
        0x48, 0x8d, 0x05, 0, 1, 0, 0, //
        0x8b, 0x05, 0xfc, 0xff, 0xff, 0xff, //
        0x75, 0x02, //
        0xff, 0x25, 0, 0, 0, 0,
    ];
    let found = references(&code, 0x1000);
    let expected = [
        (0, 0x1015, ReferenceKind::Call, 1, 4),
        (5, 0x110c, ReferenceKind::Address, 3, 4),
        (12, 0x100e, ReferenceKind::Memory(4), 2, 4),
        (18, 0x1016, ReferenceKind::ConditionalJump, 1, 1),
        (20, 0x101a, ReferenceKind::Memory(8), 2, 4),
    ];
    let expected: Vec<_> = expected
        .into_iter()
        .map(|(offset, target, kind, at, size)| {
            let field = Field::Relative { at, size };
            (
                offset,
                Reference {
                    target: Rva::new(target),
                    kind,
                    field,
                },
            )
        })
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn relative_tables_by_entries_and_by_bytes() {
    let tables = |load: [u8; 4]| {
        // lea rbx,[rip+0x100]; load; add rdx,rbx
        let mut code = vec![0x48, 0x8d, 0x1d, 0, 1, 0, 0];
        code.extend(load);
        code.extend([0x48, 0x01, 0xda]);
        let code = Code::<Base> {
            bytes: &code,
            rva: Rva::new(0x1000),
            image_base: 0,
            relocated: &[],
        };
        let mut body = Body::default();
        decode(code, &mut body);
        relative_tables(code, &body)
    };
    let found = [Rva::new(0x1107)];
    // movsxd rdx, dword ptr [rbx+rdi*4], [rdi+rbx] and [rbx+rdi]
    assert_eq!(tables([0x48, 0x63, 0x14, 0xbb]), found);
    assert_eq!(tables([0x48, 0x63, 0x14, 0x1f]), found);
    assert_eq!(tables([0x48, 0x63, 0x14, 0x3b]), found);
    // [rdi+rbx*4] multiplies the address, and [rsi+rdi] has nothing to do with it.
    assert_eq!(tables([0x48, 0x63, 0x14, 0x9f]), []);
    assert_eq!(tables([0x48, 0x63, 0x14, 0x3e]), []);
}

/// A displacement before an immediate: the field is not at the end of the instruction.
#[test]
fn displacement_before_an_immediate() {
    // mov dword [rip+0x10], 7
    let code = [0xc7, 0x05, 0x10, 0, 0, 0, 7, 0, 0, 0];
    let found = references(&code, 0x2000);
    assert_eq!(found[0].1.target, Rva::new(0x201a));
    assert_eq!(found[0].1.field, Field::Relative { at: 2, size: 4 });
}

/// MSVC's switch: the table's address is a displacement on the register with the image base.
#[test]
fn image_relative_displacement() {
    // lea rdx,[rip-0x1007] (= 0); mov ecx,[rdx+rax*4+0x2340]; mov ecx,[rbx+0x2340]
    let code = [
        0x48, 0x8d, 0x15, 0xf9, 0xef, 0xff, 0xff, //
        0x8b, 0x8c, 0x82, 0x40, 0x23, 0, 0, //
        0x8b, 0x8b, 0x40, 0x23, 0, 0,
    ];
    let found = references(&code, 0x1000);
    assert_eq!(found.len(), 2, "{found:?}");
    assert_eq!(found[0].1.target, Rva::new(0));
    assert_eq!(found[1].1.target, Rva::new(0x2340));
    assert_eq!(found[1].1.field, Field::ImageRelative { at: 3 });
}

#[test]
fn absolute_immediate_under_a_base_relocation() {
    // mov rax, 0x180003000
    let code = [0x48, 0xb8, 0, 0x30, 0, 0x80, 1, 0, 0, 0];
    let mut body = Body::<Base>::default();
    let relocated = [Rva::new(0x1002)];
    let rva = Rva::new(0x1000);
    decode(
        Code {
            bytes: &code,
            rva,
            image_base: 0x1_8000_0000,
            relocated: &relocated,
        },
        &mut body,
    );
    let reference = body.instructions[0].reference.unwrap();
    assert_eq!(reference.target, Rva::new(0x3000));
    assert_eq!(reference.field, Field::Absolute { at: 2 });
}

#[test]
fn bad_bytes_hide_only_themselves() {
    // An invalid opcode in 64-bit mode, then ret.
    let mut body = Body::<Base>::default();
    let code = [0x06, 0xc3];
    decode(
        Code {
            bytes: &code,
            rva: Rva::new(0),
            image_base: 0,
            relocated: &[],
        },
        &mut body,
    );
    let valid: Vec<_> = body
        .instructions
        .iter()
        .map(|i| (i.length, i.valid))
        .collect();
    assert_eq!(valid, [(1, false), (1, true)]);
}
