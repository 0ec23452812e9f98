//! Small functions and the links found in them.

use hpbuild_metadata::{Base, Machine, Rva};

use crate::decode::{Body, Code, PageLink, ReferenceKind, TableJump, decode};

/// Where every function here starts.
pub(super) const START: u32 = 0x1000;
pub(super) const RET: u32 = 0xd65f_03c0;
pub(super) const CALL: u32 = 0x9400_4000;
const FASTFAIL: u32 = brk(0xf003);

const fn brk(number: u32) -> u32 {
    0xd420_0000 | number << 5
}

pub(super) fn adrp(register: u32, pages: u32) -> u32 {
    0x9000_0000 | register | (pages & 3) << 29 | pages >> 2 << 5
}

pub(super) fn add(to: u32, from: u32, offset: u32) -> u32 {
    0x9100_0000 | to | from << 5 | offset << 10
}

/// `ldr xT, [xN, offset * 8]`
pub(super) fn ldr(to: u32, base: u32, offset: u32) -> u32 {
    0xf940_0000 | to | base << 5 | offset << 10
}

/// `str wT, [xN, offset * 4]`
pub(super) fn str(from: u32, base: u32, offset: u32) -> u32 {
    0xb900_0000 | from | base << 5 | offset << 10
}

pub(super) fn mov(to: u32, from: u32) -> u32 {
    0xaa00_03e0 | to | from << 16
}

/// `mov xD, #value`
pub(super) fn movz(to: u32, value: u32) -> u32 {
    0xd280_0000 | to | value << 5
}

pub(super) fn cbz(words: i32) -> u32 {
    0xb400_0000 | (words as u32 & 0x7_ffff) << 5
}

pub(super) fn b(words: i32) -> u32 {
    0x1400_0000 | words as u32 & 0x03ff_ffff
}

pub(super) fn br(register: u32) -> u32 {
    0xd61f_0000 | register << 5
}

pub(super) fn body(words: &[u32]) -> Body<Base> {
    body_with(words, &[])
}

/// The same where records tell of tables.
pub(super) fn body_with(words: &[u32], jumps: &[TableJump<Base>]) -> Body<Base> {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let mut body = Body::default();
    let code = Code {
        bytes: &bytes,
        rva: Rva::new(START),
        image_base: 0x1_8000_0000,
        relocated: &[],
        jumps,
    };
    decode(Machine::Arm64, code, &mut body);
    body
}

/// Users and their pages, as indexes.
pub(super) fn links(words: &[u32]) -> Vec<(u32, u32)> {
    let link = |link: &PageLink| (link.user, link.page);
    body(words).page_links.iter().map(link).collect()
}

#[test]
fn a_user_points_where_page_and_offset_do() {
    let body = body(&[adrp(8, 4), add(9, 8, 0x123), ldr(8, 8, 3), RET]);
    let of = |index: usize| {
        let reference = body.instructions[index].reference.expect("a reference");
        (reference.target.get(), reference.kind)
    };
    assert_eq!(of(0), (0x5000, ReferenceKind::Page));
    assert_eq!(of(1), (0x5123, ReferenceKind::Address));
    assert_eq!(of(2), (0x5018, ReferenceKind::Memory(8)));
    assert_eq!(body.page_links.len(), 2);
}

/// A vector register has the same number and is another one.
#[test]
fn vectors_are_loaded_and_stored() {
    let (load, store) = (0xfd40_0508, 0x3d80_0508); // ldr d8, [x8, #8]; str q8, [x8, #16]
    assert_eq!(links(&[adrp(8, 4), load, store, RET]), [(1, 0), (2, 0)]);
}

/// Once the address is whole, offsets are those of the program.
#[test]
fn a_whole_address_has_no_more_users() {
    let words = [adrp(8, 4), add(8, 8, 0x10), ldr(9, 8, 2), ldr(8, 8, 0), RET];
    assert_eq!(links(&words), [(1, 0)]);
}

#[test]
fn copies_carry_the_page() {
    assert_eq!(
        links(&[adrp(8, 4), mov(19, 8), movz(8, 0), ldr(0, 19, 1), RET]),
        [(3, 0)]
    );
}

#[test]
fn what_a_call_must_keep_is_kept() {
    assert_eq!(links(&[adrp(19, 4), CALL, ldr(0, 19, 1), RET]), [(2, 0)]);
}

/// Behind a call x8 holds nothing, so that a use of it is not understood.
#[test]
fn what_a_call_may_change_is_not_trusted() {
    let words = [adrp(8, 4), ldr(0, 8, 1), CALL, ldr(0, 8, 2), RET];
    assert_eq!(links(&words), []);
    assert_eq!(body(&words).instructions[1].reference, None);
}

#[test]
fn ways_with_one_page_meet() {
    let words = [cbz(3), adrp(8, 4), b(2), adrp(8, 4), str(0, 8, 1), RET];
    assert_eq!(links(&words), [(4, 1), (4, 3)]);
}

#[test]
fn ways_with_two_pages_do_not_meet() {
    let words = [
        cbz(4),
        adrp(8, 4),
        ldr(9, 8, 1),
        b(3),
        adrp(8, 5),
        ldr(9, 8, 1),
        str(0, 8, 1),
        RET,
    ];
    assert_eq!(links(&words), []);
}

/// The page is one way's; the other has something else in the register.
#[test]
fn a_page_on_one_way_only_is_not_trusted() {
    assert_eq!(
        links(&[cbz(3), adrp(8, 4), b(2), movz(8, 7), str(0, 8, 1), RET]),
        []
    );
}

/// The call does not come back, which the code does not show.
#[test]
fn a_call_that_does_not_return_does_no_harm() {
    let words = [adrp(8, 4), cbz(3), movz(8, 1), CALL, str(0, 8, 1), RET];
    assert_eq!(links(&words), [(4, 0)]);
    let words = [adrp(8, 4), cbz(3), movz(8, 1), FASTFAIL, str(0, 8, 1), RET];
    assert_eq!(links(&words), [(4, 0)]);
}

/// A clean-up behind the trap that ends a function saves what the function kept: no use of its page.
/// Behind what a debugger answers the code goes on.
#[test]
fn traps_end_the_code() {
    let save = 0xf900_0bf3; // str x19, [sp, #16]
    let with = |end: u32| links(&[adrp(19, 4), ldr(0, 19, 1), CALL, end, save, RET]);
    for trap in [1, 0x5500, 0xf003, 0xf004] {
        assert_eq!(with(brk(trap)), [(1, 0)], "{trap:#x}");
    }
    for service in [0, 2, 0x5600, 0xf000, 0xf001, 0xf002] {
        assert_eq!(with(brk(service)), [], "{service:#x}");
    }
}

/// A breakpoint keeps the registers that a call does not.
#[test]
fn breakpoints_change_nothing() {
    let with = |stop: u32| links(&[adrp(8, 4), brk(stop), ldr(0, 8, 1), RET]);
    for stop in [0, 0xf000, 0xf001] {
        assert_eq!(with(stop), [(2, 0)], "{stop:#x}");
    }
    for service in [2, 0xf002] {
        assert_eq!(with(service), [], "{service:#x}");
    }
}

#[test]
fn loops_carry_the_page() {
    // The page is made in front of the loop, and again at its end in another register.
    let words = [
        adrp(8, 4),
        adrp(9, 5),
        ldr(0, 8, 1),
        ldr(1, 9, 1),
        cbz(-2),
        RET,
    ];
    assert_eq!(links(&words), [(2, 0), (3, 1)]);
    // At its end the loop takes the page away.
    let words = [adrp(8, 4), ldr(0, 8, 1), movz(8, 0), cbz(-2), RET];
    assert_eq!(links(&words), []);
}

/// A page that is stored, compared or computed with goes where it is not followed.
#[test]
fn other_looks_at_a_page_are_not_understood() {
    for look in [
        0xf900_03e8,                           // str x8, [sp]
        0xf900_0108,                           // str x8, [x8]
        0x8b08_0108,                           // add x8, x8, x8
        0x9140_0509,                           // add x9, x8, #1, lsl #12
        0x2a08_03e9,                           // mov w9, w8
        0xf81f_8108,                           // stur x8, [x8, #-8]
        0xa940_2509,                           // ldp x9, x9, [x8]
        0xf840_8509,                           // ldr x9, [x8], #8
        0xf868_6809,                           // ldr x9, [x0, x8]
        0xc85f_7d09,                           // ldxr x9, [x8]
        0xd340_fd09,                           // ubfm
        0x9e67_0100,                           // fmov d0, x8
        0xb940_0109 | 0x3f << 10 | 0x3c << 16, // ldr w9, [x8, beyond the page]
    ] {
        let words = [adrp(8, 4), ldr(0, 8, 1), look, RET];
        assert_eq!(links(&words), [], "{look:#010x}");
    }
}

/// Registers that have the number of the page's in a field that is no register.
#[test]
fn looks_that_are_none() {
    for other in [
        0xd280_0100 | 0x8 << 5, // mov x0, #0x48
        0x1e68_2908,            // fadd d8, d8, d8
        0x4e28_1d08,            // and v8.16b, v8.16b, v8.16b
        0xfa40_0008,            // ccmp x0, x0, #8
        0x3d80_03e8,            // str q8, [sp]
        0xd503_3bbf,            // dmb ish
    ] {
        let words = [adrp(8, 4), ldr(0, 8, 1), other, ldr(1, 8, 2), RET];
        assert_eq!(links(&words), [(1, 0), (3, 0)], "{other:#010x}");
    }
}

/// Cases of a switch are reached by the indirect jump alone.
#[test]
fn pages_pass_through_a_jump_table() {
    let words = [
        adrp(19, 4),
        br(9),
        ldr(0, 19, 1), // a case
        RET,
        ldr(0, 19, 2), // another
        RET,
    ];
    assert_eq!(links(&words), [(2, 0), (4, 0)]);
}

/// Where no way leads, the pages of the function may have come along.
#[test]
fn handlers_are_not_trusted() {
    let words = [adrp(19, 4), ldr(0, 19, 1), CALL, RET, ldr(0, 19, 2), RET];
    assert_eq!(links(&words), []);
    // But a page of their own is.
    let words = [adrp(8, 4), ldr(0, 8, 1), RET, adrp(8, 5), ldr(0, 8, 2), RET];
    assert_eq!(links(&words), [(1, 0), (4, 3)]);
}

/// One page that is not understood takes the others of its users with it.
#[test]
fn pages_that_share_a_user_share_its_fate() {
    let words = [
        cbz(4),
        adrp(8, 4),
        0xf900_03e8, // str x8, [sp]
        b(2),
        adrp(8, 4),
        str(0, 8, 1),
        RET,
    ];
    assert_eq!(links(&words), []);
}

/// Registers are kept or changed by the calls that only pretend to come back; what is read behind
/// them is not the page.
#[test]
fn stale_pages_may_be_looked_at() {
    let words = [adrp(8, 4), ldr(0, 8, 1), CALL, 0x5100_0508, RET]; // sub w8, w8, #1
    assert_eq!(links(&words), [(1, 0)]);
}

/// `bfm` keeps bits of its destination and `ubfm` does not.
#[test]
fn bit_fields() {
    let words = |bits| links(&[adrp(8, 4), ldr(0, 8, 1), bits, RET]);
    assert_eq!(words(0xd340_7e68), [(1, 0)]); // ubfx x8, x19, #0, #32
    assert_eq!(words(0xb340_7e68), []); // bfxil x8, x19, #0, #32
}

/// Constants between functions look like instructions that do anything.
#[test]
fn constants_are_not_code() {
    let words = [
        adrp(8, 4),
        ldr(0, 8, 1),
        0x1800_0041, // ldr w1, constant
        RET,
        0x1800_0023, // the constant, which looks like a load of the next word
        0xf900_03e8, // no constant: str x8, [sp]
    ];
    let body = body(&words);
    assert!(!body.instructions[4].valid && body.instructions[4].reference.is_none());
    assert!(body.instructions[5].valid);
}

/// A part of the function that stands elsewhere may use the page.
#[test]
fn jumps_out_of_the_stretch() {
    let out = 0x1400_4000; // b, far away
    // A tail call: what is left in x8 is of no use to anyone.
    assert_eq!(links(&[adrp(8, 4), ldr(0, 8, 1), out]), [(1, 0)]);
    assert_eq!(links(&[adrp(19, 4), ldr(0, 19, 1), out]), []);
    let out = 0xb408_0000; // cbz x0, far away
    assert_eq!(links(&[adrp(8, 4), ldr(0, 8, 1), out, RET]), []);
}

#[test]
fn a_page_before_the_image_is_no_reference() {
    let words = [0x90ff_ffe8, ldr(0, 8, 1), RET];
    assert_eq!(body(&words).instructions[0].reference, None);
    assert_eq!(links(&words), []);
}
