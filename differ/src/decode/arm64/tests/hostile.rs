//! Any words at all.

use hpbuild_metadata::{Base, Machine, Rva};
use proptest::prelude::*;

use crate::decode::{Body, Code, ReferenceKind, decode};

fn run(words: &[u32], tail: usize) -> Body<Base> {
    let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    bytes.extend_from_slice(&[0xaa; 3][..tail]);
    let mut body = Body::default();
    let code = Code {
        bytes: &bytes,
        rva: Rva::new(0x10_0000),
        image_base: 0x1_8000_0000,
        relocated: &[],
        jumps: &[],
    };
    decode(Machine::Arm64, code, &mut body);
    assert_eq!(
        body.instructions.len(),
        words.len() + usize::from(tail != 0)
    );
    let mut end = 0;
    for instruction in &body.instructions {
        assert_eq!(instruction.offset, end);
        end += u32::from(instruction.length);
    }
    assert_eq!(end as usize, bytes.len());
    assert!(body.page_links.is_sorted());
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
    body
}

/// Words that touch few registers and branch near, so that they have to do with each other.
fn dense() -> impl Strategy<Value = u32> {
    prop_oneof![
        any::<u32>(),
        // adrp, add, ldr, str, mov among x8 to x11.
        (0u32..4, 0u32..2).prop_map(|(r, p)| 0x9000_0008 | r | p << 5),
        (0u32..4, 0u32..4, 0u32..8).prop_map(|(d, n, i)| 0x9100_0108 | d | n << 5 | i << 10),
        (0u32..4, 0u32..4, 0u32..8).prop_map(|(d, n, i)| 0xf940_0108 | d | n << 5 | i << 10),
        (0u32..4, 0u32..4).prop_map(|(d, n)| 0xf900_0108 | d | n << 5),
        (0u32..4, 0u32..4).prop_map(|(d, m)| 0xaa08_03e8 | d | m << 16),
        // b, b.eq, cbz, bl, br, ret.
        (-9i32..9).prop_map(|to| 0x1400_0000 | (to as u32 & 0x03ff_ffff)),
        (-9i32..9).prop_map(|to| 0x5400_0000 | (to as u32 & 0x7_ffff) << 5),
        (-9i32..9).prop_map(|to| 0xb400_0008 | (to as u32 & 0x7_ffff) << 5),
        Just(0x9400_4000),
        Just(0xd61f_0100),
        Just(0xd65f_03c0),
    ]
}

proptest! {
    #[test]
    fn random_words(words in proptest::collection::vec(any::<u32>(), 0..200), tail in 0usize..4) {
        run(&words, tail);
    }

    #[test]
    fn random_functions(words in proptest::collection::vec(dense(), 1..120)) {
        run(&words, 0);
    }
}

/// Many blocks, each an indirect jump, and as many pages.
#[test]
fn large_tangles_end() {
    for words in [
        [0x9000_0008, 0xd61f_0100, 0xf900_0109].repeat(5000),
        [0x9000_0008, 0x54ff_ff00, 0xf900_0109, 0xb400_0048].repeat(5000),
        [0xb000_0008, 0x5480_0000, 0x9000_0008, 0xf900_0109].repeat(30_000),
        [0xd61f_0100].repeat(200_000),
    ] {
        run(&words, 0);
    }
}
