//! Any bytes as Arm64 code.
#![no_main]

use hpbuild_differ::decode::{Body, Code, ReferenceKind, decode};
use hpbuild_metadata::{Base, Machine, Rva};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut body = Body::<Base>::default();
    let code = Code {
        bytes,
        rva: Rva::new(0x10_0000),
        image_base: 0x1_8000_0000,
        relocated: &[],
        jumps: &[],
    };
    decode(Machine::Arm64, code, &mut body);
    let mut end = 0;
    for instruction in &body.instructions {
        assert_eq!(instruction.offset, end);
        end += u32::from(instruction.length);
    }
    assert_eq!(end as usize, bytes.len());
    for link in &body.page_links {
        let of = |index: u32| {
            body.instructions[index as usize]
                .reference
                .expect("a reference")
        };
        assert_eq!(of(link.page).kind, ReferenceKind::Page);
        let distance = of(link.user).target.checked_sub(of(link.page).target);
        assert!(distance.is_some_and(|distance| distance < 0x1000));
    }
});
