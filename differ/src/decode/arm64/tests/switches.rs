//! Jumps through tables that records tell of.

use hpbuild_metadata::{Base, Rva};
use proptest::prelude::*;

use super::links::{RET, START, adrp, b, body_with, br, ldr, movz, str};
use crate::decode::{ReferenceKind, TableJump};

const LDRB: u32 = 0x386a_698d; // ldrb w13, [x12, x10]
const LDRH: u32 = 0x786a_798d; // ldrh w13, [x12, x10, lsl #1]
const SUM: u32 = 0x8b0d_096b; // add x11, x11, x13, lsl #2

/// `adr xD, words`
fn adr(to: u32, words: u32) -> u32 {
    0x1000_0000 | to | words << 5
}

fn jump(branch: u32, base: u32, size: u8, entries: &[u8]) -> TableJump<Base> {
    TableJump {
        branch: Rva::new(START + 4 * branch),
        base: Rva::new(START + 4 * base),
        size,
        entries: entries.into(),
    }
}

/// The page in x8 is used in a case of the first switch; in one of the second x8 is a number.
fn two_switches() -> Vec<u32> {
    vec![
        adrp(8, 4),
        adr(11, 3), // what the first table's entries are added to: instruction 4
        LDRB,
        SUM,
        br(11),
        ldr(0, 8, 1),
        RET,
        movz(8, 7), // another case
        adr(11, 4), // the second's: instruction 12
        LDRB,
        SUM,
        br(11),
        str(8, 0, 1), // a case of the second
        RET,
        str(8, 0, 2), // another
        RET,
    ]
}

fn links(words: &[u32], jumps: &[TableJump<Base>]) -> Vec<(u32, u32)> {
    let body = body_with(words, jumps);
    let links = body.page_links.iter();
    links.map(|link| (link.user, link.page)).collect()
}

fn known() -> [TableJump<Base>; 2] {
    [jump(4, 4, 1, &[1, 3, 1, 12]), jump(11, 12, 1, &[0, 2, 4])]
}

#[test]
fn a_jump_leads_to_its_own_cases() {
    let words = two_switches();
    assert_eq!(links(&words, &known()), [(5, 0)]);
    // Without a record each may lead to the cases of the other.
    assert_eq!(links(&words, &[]), []);
    assert_eq!(links(&words, &known()[1..]), []);
}

#[test]
fn a_page_that_both_hold_is_shared() {
    let mut words = two_switches();
    // The second case of the first switch keeps the page, and one of the second stores it.
    words[7] = movz(9, 7);
    assert_eq!(links(&words, &known()), []);
    words[12] = ldr(0, 8, 2);
    words[14] = ldr(0, 8, 3);
    assert_eq!(links(&words, &known()), [(5, 0), (12, 0), (14, 0)]);
    // A branch takes the page from a case of the first into one of the second.
    let jumps = [jump(5, 5, 1, &[1, 3, 1, 12]), jump(12, 13, 1, &[0, 2, 4])];
    words[14] = str(8, 0, 2);
    words[7] = movz(8, 7);
    words[6] = b(8);
    words.insert(0, movz(9, 1));
    assert_eq!(links(&words, &jumps), []);
}

#[test]
fn entries_lead_into_the_middle_of_a_block() {
    // One case runs into the next, which uses the page as well.
    let words = [
        adrp(8, 4),
        adr(11, 4),
        LDRB,
        SUM,
        br(11),
        movz(0, 1),
        ldr(1, 8, 1),
        RET,
    ];
    assert_eq!(links(&words, &[jump(4, 5, 1, &[0, 1])]), [(6, 0)]);
    // In the other, the register holds something else before.
    let words = [
        adrp(8, 4),
        adr(11, 4),
        LDRB,
        SUM,
        br(11),
        movz(8, 1),
        ldr(1, 8, 1),
        RET,
    ];
    assert_eq!(links(&words, &[jump(4, 5, 1, &[0, 1])]), []);
}

#[test]
fn records_that_the_code_does_not_bear_out() {
    let words = two_switches();
    for first in [
        jump(4, 5, 1, &[0, 2]),       // another base
        jump(4, 4, 2, &[1, 0, 3, 0]), // another size
        jump(4, 4, 4, &[1, 0, 0, 0]),
        jump(4, 4, 1, &[1, 13]), // out of the code
        jump(4, 4, 1, &[]),
        jump(3, 4, 1, &[1, 3]), // no jump
    ] {
        assert_eq!(
            links(&words, &[first.clone(), known()[1].clone()]),
            [],
            "{first:?}"
        );
    }
    // A way leads in between: by a branch, and by a table.
    let [one, other] = known();
    let mut words = two_switches();
    words[6] = b(-3);
    assert_eq!(links(&words, &[one, other.clone()]), []);
    let between = jump(4, 4, 1, &[1, 3, 6]);
    assert_eq!(links(&two_switches(), &[between, other]), []);
}

#[test]
fn entries_of_all_forms() {
    let all = |load: u32, sum: u32, size: u8, entries: &[u8]| {
        let mut words = two_switches();
        (words[2], words[3]) = (load, sum);
        links(&words, &[jump(4, 4, size, entries), known()[1].clone()])
    };
    let found = [(5, 0)];
    assert_eq!(all(LDRH, SUM, 2, &[1, 0, 3, 0]), found);
    // ldrsb x13 and ldrsh x13.
    assert_eq!(all(0x38aa_698d, SUM, 1, &[1, 3]), found);
    assert_eq!(all(0x78aa_798d, SUM, 2, &[1, 0, 3, 0]), found);
    // ldrsb w13, whose upper half is zero.
    assert_eq!(all(0x38ea_698d, SUM, 1, &[1, 3]), []);
    // add x11, x11, w13, sxtb #2; uxtb #2; uxtw #2; sxth #2, which is of another size.
    assert_eq!(all(LDRB, 0x8b2d_896b, 1, &[1, 3]), found);
    assert_eq!(all(LDRB, 0x8b2d_096b, 1, &[1, 3]), found);
    assert_eq!(all(LDRB, 0x8b2d_496b, 1, &[1, 3]), found);
    assert_eq!(all(LDRB, 0x8b2d_a96b, 1, &[1, 3]), []);
    // Nothing shifted.
    assert_eq!(all(LDRB, 0x8b0d_016b, 1, &[4, 12]), found);
    assert_eq!(all(LDRB, 0x8b0d_016b, 1, &[4, 13]), []);
    // Four bytes: ldrsw x13, [x12, x10, lsl #2].
    assert_eq!(all(0xb8aa_798d, SUM, 4, &[1, 0, 0, 0, 3, 0, 0, 0]), []);
    // By their signs: the base lies behind the case, at instruction 7.
    let mut words = two_switches();
    words[1] = adr(11, 6);
    words[2] = 0x38aa_698d;
    let first = jump(4, 7, 1, &[0xfe, 0]);
    assert_eq!(links(&words, &[first, known()[1].clone()]), found);
}

proptest! {
    /// Whatever records say, decoding ends, and each link's page is one.
    #[test]
    fn any_record(
        branch in 0u32..18,
        base in 0u32..18,
        size in 1u8..5,
        entries in proptest::collection::vec(any::<u8>(), 0..12),
        (at, word) in (0usize..16, any::<u32>()),
    ) {
        let mut words = two_switches();
        words[at] = word;
        let body = body_with(&words, &[jump(branch, base, size, &entries)]);
        for link in &body.page_links {
            let page = body.instructions[link.page as usize].reference;
            prop_assert_eq!(page.map(|it| it.kind), Some(ReferenceKind::Page));
        }
    }
}
