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
        jumps: &[],
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

/// The tables that are read behind `lea rbx,[rip+0x100]`.
fn tables(instructions: &[&[u8]]) -> Vec<Rva<Base>> {
    let mut code = vec![0x48, 0x8d, 0x1d, 0, 1, 0, 0];
    code.extend(instructions.concat());
    let code = Code::<Base> {
        bytes: &code,
        rva: Rva::new(0x1000),
        image_base: 0,
        relocated: &[],
        jumps: &[],
    };
    let mut body = Body::default();
    decode(code, &mut body);
    relative_tables(code, &body)
}

#[test]
fn relative_tables_by_entries_and_by_bytes() {
    // Then add rdx,rbx.
    let tables = |load: [u8; 4]| tables(&[&load, &[0x48, 0x01, 0xda]]);
    let found = [Rva::new(0x1107)];
    // movsxd rdx, dword ptr [rbx+rdi*4], [rdi+rbx] and [rbx+rdi]
    assert_eq!(tables([0x48, 0x63, 0x14, 0xbb]), found);
    assert_eq!(tables([0x48, 0x63, 0x14, 0x1f]), found);
    assert_eq!(tables([0x48, 0x63, 0x14, 0x3b]), found);
    // [rdi+rbx*4] multiplies the address, and [rsi+rdi] has nothing to do with it.
    assert_eq!(tables([0x48, 0x63, 0x14, 0x9f]), []);
    assert_eq!(tables([0x48, 0x63, 0x14, 0x3e]), []);
}

#[test]
fn relative_tables_by_sums_of_all_kinds() {
    // movsxd rdx, dword ptr [rbx+rdi*4]
    const LOAD: &[u8] = &[0x48, 0x63, 0x14, 0xbb];
    let found = [Rva::new(0x1107)];
    let sums: [&[u8]; 5] = [
        &[0x8b, 0x44, 0x13, 0x08],       // mov eax,[rbx+rdx+8]
        &[0x0f, 0x10, 0x04, 0x1a],       // movups xmm0,[rdx+rbx]
        &[0x83, 0x7c, 0x13, 0x08, 0x07], // cmp dword ptr [rbx+rdx+8],7
        &[0x48, 0x8d, 0x04, 0x13],       // lea rax,[rbx+rdx]
        &[0x48, 0x01, 0xd3],             // add rbx,rdx
    ];
    for sum in sums {
        assert_eq!(tables(&[LOAD, sum]), found, "{sum:x?}");
        // mov rcx,rdx and cmove rcx,rdx; then add rcx,rbx.
        for copy in [&[0x48, 0x89, 0xd1][..], &[0x48, 0x0f, 0x44, 0xca]] {
            assert_eq!(tables(&[LOAD, copy, &[0x48, 0x01, 0xd9]]), found);
        }
    }
    let others: [&[u8]; 4] = [
        &[0x8b, 0x04, 0x93],       // mov eax,[rbx+rdx*4]
        &[0x8b, 0x04, 0x11],       // mov eax,[rcx+rdx]
        &[0x48, 0x01, 0xca],       // add rdx,rcx
        &[0x48, 0x03, 0x14, 0x3b], // add rdx,[rbx+rdi]
    ];
    for other in others {
        assert_eq!(tables(&[LOAD, other]), [], "{other:x?}");
    }
    let add: &[u8] = &[0x48, 0x01, 0xda];
    // xor edx,edx, and a call, which may change rdx and keeps rbx.
    assert_eq!(tables(&[LOAD, &[0x31, 0xd2], add]), []);
    assert_eq!(tables(&[LOAD, &[0xe8, 0, 0, 0, 0], add]), []);
    // Many instructions between: lea r8,[r8+1].
    let between = [0x4d, 0x8d, 0x40, 0x01].repeat(40);
    assert_eq!(tables(&[LOAD, &between, add]), found);
    // The address is taken again: xor ebx,ebx; lea rcx,[the table]; add rdx,rcx.
    let again: [&[u8]; 3] = [
        &[0x31, 0xdb],
        &[0x48, 0x8d, 0x0d, 0xf3, 0, 0, 0],
        &[0x48, 0x01, 0xca],
    ];
    assert_eq!(tables(&[LOAD, again[0], add]), []);
    assert_eq!(tables(&[LOAD, again[0], again[1], again[2]]), found);
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
            jumps: &[],
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
            jumps: &[],
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
