//! Pages and addresses that are kept in the frame.

use super::links::{CALL, RET, add, adrp, b, body, br, cbz, ldr, links, mov, movz, str};
use crate::decode::arm64::derived;
use crate::decode::{Code, PageLink};
use hpbuild_metadata::{Base, Rva};

/// `blr x0`
const BLR: u32 = 0xd63f_0000;
const NOP: u32 = 0xd503_201f;
const SP: u32 = 31;
const FP: u32 = 29;
/// `x9`, a register that calls do not keep.
const X9: u32 = 9;

/// `sub sp, sp, #bytes`
const fn lower(bytes: u32) -> u32 {
    0xd100_03ff | bytes << 10
}

/// `add sp, sp, #bytes`
const fn raise(bytes: u32) -> u32 {
    0x9100_03ff | bytes << 10
}

/// `str xT, [xN, #bytes]`
const fn put(from: u32, base: u32, bytes: u32) -> u32 {
    0xf900_0000 | from | base << 5 | (bytes / 8) << 10
}

/// `ldr xT, [xN, #bytes]`
const fn get(to: u32, base: u32, bytes: u32) -> u32 {
    0xf940_0000 | to | base << 5 | (bytes / 8) << 10
}

/// `stp xT, xU, [xN, #bytes]`
const fn put_two(first: u32, second: u32, base: u32, bytes: u32) -> u32 {
    0xa900_0000 | first | second << 10 | base << 5 | (bytes / 8) << 15
}

/// `ldp xT, xU, [xN, #bytes]`
const fn get_two(first: u32, second: u32, base: u32, bytes: u32) -> u32 {
    0xa940_0000 | first | second << 10 | base << 5 | (bytes / 8) << 15
}

/// A page that is kept in a slot over a call: used in front of it and behind it, with `between`
/// in between and a frame of 64 bytes around. The page is instruction 1.
fn kept(between: &[u32]) -> Vec<u32> {
    let mut words = vec![lower(64), adrp(X9, 4), put(X9, SP, 16), ldr(0, X9, 1), CALL];
    words.extend(between);
    words.extend([get(8, SP, 16), ldr(1, 8, 2), raise(64), RET]);
    words
}

/// Whether both uses are found; neither is where the slot is not followed.
fn is_followed(words: &[u32]) -> bool {
    let last = words.len() as u32 - 3;
    match links(words)[..] {
        [] => false,
        [(3, 1), (user, 1)] => {
            assert_eq!(user, last);
            true
        }
        ref other => panic!("{other:?}"),
    }
}

#[test]
fn a_page_comes_back_from_its_slot() {
    assert!(is_followed(&kept(&[])));
    let body = body(&kept(&[]));
    let target = |index: usize| {
        body.instructions[index]
            .reference
            .expect("a reference")
            .target
    };
    assert_eq!((target(3), target(6)), (Rva::new(0x5008), Rva::new(0x5010)));
    // What happens to other slots is of no matter.
    for other in [put(0, SP, 8), put(0, SP, 24), str(0, SP, 3), 0x3d80_0be0] {
        assert!(is_followed(&kept(&[other])), "{other:#010x}"); // the last: str q0, [sp, #32]
    }
}

/// Whatever touches the eight bytes in another way than the moves do.
#[test]
fn a_slot_that_is_shared_is_not_followed() {
    for other in [
        str(0, SP, 4),        // half of it
        str(0, SP, 5),        // the other half
        0xb940_13e0,          // ldr w0, [sp, #16]: a page is not used by halves
        0xf801_43e0,          // stur x0, [sp, #20]: half of it and half of the next
        0x3c80_83e0,          // stur q0, [sp, #8]
        0xfd00_0be0,          // str d0, [sp, #16]
        0x2902_03e0,          // stp w0, w0, [sp, #16]
        0xf81f_0fe0,          // str x0, [sp, #-16]!: the stack pointer is elsewhere behind it
        put_two(0, 1, SP, 4), // no such offset: stp x0, x1, [sp]
    ] {
        let words = kept(&[other]);
        let same = other == put_two(0, 1, SP, 4);
        assert_eq!(is_followed(&words), same, "{other:#010x}");
    }
}

#[test]
fn what_is_overwritten_is_no_page() {
    // Whole, with something else: the use behind it is one of something else.
    let words = kept(&[put(0, SP, 16)]);
    assert_eq!(links(&words), [(3, 1)]);
    let words = kept(&[put(SP, SP, 16)]); // str xzr
    assert_eq!(links(&words), [(3, 1)]);
    // By way of another base.
    let words = kept(&[add(10, SP, 24), 0xf81f_8140]); // stur x0, [x10, #-8]
    assert_eq!(links(&words), [(3, 1)]);
    // On one of two ways: then it is not understood.
    assert!(!is_followed(&kept(&[cbz(2), put(0, SP, 16)])));
}

#[test]
fn pairs_are_two_slots() {
    let words = [
        lower(64),
        adrp(X9, 4),
        adrp(10, 5),
        put_two(X9, 10, SP, 16),
        CALL,
        get_two(11, 12, SP, 16),
        ldr(0, 11, 1),
        ldr(0, 12, 1),
        raise(64),
        RET,
    ];
    assert_eq!(links(&words), [(6, 1), (7, 2)]);
}

/// An address of the frame that goes where it is not followed may be written through, from there
/// on upwards.
#[test]
fn slots_above_a_leaked_address_are_not_followed() {
    for (leaking, harmful) in [
        (vec![add(0, SP, 16), CALL], true),
        (vec![add(0, SP, 8), CALL], true),
        (vec![add(0, SP, 23), CALL], true),
        (vec![add(0, SP, 24), CALL], false),
        // What stored the arguments on the stack, and is left over.
        (vec![add(10, SP, 0), put(0, 10, 0), CALL], false),
        (vec![add(8, SP, 0), put(0, 8, 0), CALL], true),
        // In a register that no callee looks at, until it is stored.
        (vec![add(20, SP, 8), CALL], false),
        (vec![add(20, SP, 8), put(20, 0, 0)], true),
        (vec![add(20, SP, 8), put(20, 20, 48)], true),
        (vec![add(20, SP, 8), put(0, 20, 0)], false),
        (vec![add(20, SP, 8), 0xf820_6a80], true), // str x0, [x20, x0]
        (vec![add(20, SP, 8), 0x8b00_0280], true), // add x0, x20, x0
        (vec![add(20, SP, 8), 0x3801_8e80], true), // strb w0, [x20, #24]!, then as below
        (vec![add(20, SP, 8), mov(0, 20), CALL], true),
        // Different on two ways.
        (vec![add(20, SP, 8), cbz(2), add(20, SP, 24)], true),
        (vec![0x8b20_63e0], true),       // add x0, sp, x0
        (vec![0x9100_03e0, CALL], true), // mov x0, sp
    ] {
        let words = kept(&leaking);
        let leak = if leaking.contains(&0x3801_8e80) {
            // A byte of the next slot is written at a known place.
            is_followed(&words)
        } else {
            is_followed(&words) != harmful
        };
        assert!(leak, "{leaking:x?}");
    }
}

/// The frame pointer is one more way to the same slots.
#[test]
fn slots_are_known_by_where_they_are() {
    let words = |between: &[u32]| {
        // stp x29, x30, [sp, #-16]!; mov x29, sp; sub sp, sp, #64
        let mut words = vec![0xa9bf_7bfd, add(FP, SP, 0), lower(64), adrp(X9, 4)];
        words.extend([put(X9, SP, 16), ldr(0, X9, 1), CALL]);
        words.extend(between);
        words.extend([get(8, SP, 16), ldr(1, 8, 2), raise(64), 0xa8c1_7bfd, RET]);
        words
    };
    let users = |between: &[u32]| links(&words(between)).len();
    assert_eq!(users(&[]), 2);
    assert_eq!(users(&[0xf81d_03a0]), 1); // stur x0, [x29, #-48]: the slot
    assert_eq!(users(&[0xb81d_03a0]), 0); // stur w0, [x29, #-48]
    assert_eq!(users(&[0xf81d_83a0]), 2); // stur x0, [x29, #-40]
    assert_eq!(users(&[0xd100_c3a0, CALL]), 0); // sub x0, x29, #48; call
    assert_eq!(users(&[0xd100_a3a0, CALL]), 2); // sub x0, x29, #40; call
}

/// Where the stack pointer stands is known, or nothing is.
#[test]
fn the_stack_pointer_must_be_known() {
    for other in [
        0xcb20_63ff,               // sub sp, sp, x0
        0x9240_ec1f | 0x1000_0000, // something else that ends in the stack pointer
        0x9100_001f,               // mov sp, x0
        lower(16),                 // behind a call
    ] {
        assert!(!is_followed(&kept(&[other])), "{other:#010x}");
    }
    // A large frame is lowered by as much as the register says that the probe was given.
    let large = |size: u32| {
        let mut words = kept(&[]);
        let lowering = [size, CALL, 0xcb2f_73ff]; // sub sp, sp, x15, lsl #4
        words.splice(0..0, lowering);
        words
    };
    let users = |words: &[u32]| links(words).len();
    assert_eq!(
        users(&large(movz(15, 0x200))),
        0,
        "one more lowering behind a call"
    );
    let mut words = large(movz(15, 0x200));
    words.remove(3);
    assert_eq!(users(&words), 2);
    words[0] = mov(15, 3);
    assert_eq!(users(&words), 0);
}

/// Below the entry's stack pointer nobody else has anything; above it the caller has.
#[test]
fn slots_of_others_are_not_followed() {
    let words = [
        adrp(X9, 4),
        put(X9, SP, 16),
        ldr(0, X9, 1),
        CALL,
        get(8, SP, 16),
        ldr(1, 8, 2),
        RET,
    ];
    assert_eq!(links(&words), []);
    // Another part of the function may use the slot.
    let out = 0x1400_4000; // b, far away
    let mut words = kept(&[]);
    let end = words.len();
    words[end - 1] = out;
    assert_eq!(links(&words).len(), 2, "a tail call");
    words.remove(end - 2);
    assert_eq!(links(&words), []);
    assert!(!is_followed(&kept(&[0xb408_0000]))); // cbz x0, far away
}

#[test]
fn slots_are_followed_on_all_ways() {
    // Stored in front of a loop, loaded in it and behind it.
    let words = [
        lower(64),
        adrp(X9, 4),
        put(X9, SP, 16),
        CALL,
        get(8, SP, 16),
        ldr(0, 8, 1),
        cbz(-3),
        get(10, SP, 16),
        ldr(0, 10, 2),
        raise(64),
        RET,
    ];
    assert_eq!(links(&words), [(5, 1), (8, 1)]);
    // Two ways, and a page of each: one of a kind, and two.
    let ways = |second: u32| {
        let words = [
            lower(64),
            cbz(4),
            adrp(X9, 4),
            put(X9, SP, 16),
            b(3),
            adrp(X9, second),
            put(X9, SP, 16),
            get(8, SP, 16),
            ldr(0, 8, 1),
            raise(64),
            RET,
        ];
        links(&words)
    };
    assert_eq!(ways(4), [(8, 2), (8, 5)]);
    assert_eq!(ways(5), []);
    // The cases of a switch.
    let words = [
        lower(64),
        adrp(X9, 4),
        put(X9, SP, 16),
        br(3),
        get(8, SP, 16),
        ldr(0, 8, 1),
        raise(64),
        RET,
    ];
    assert_eq!(links(&words), [(5, 1)]);
}

/// A chain of slots takes as many rounds as it has links.
#[test]
fn from_slot_to_slot() {
    let words = [
        lower(64),
        adrp(X9, 4),
        put(X9, SP, 16),
        get(8, SP, 16),
        put(8, SP, 24),
        get(10, SP, 24),
        ldr(0, 10, 1),
        raise(64),
        RET,
    ];
    assert_eq!(links(&words), [(6, 1)]);
}

/// More slots than are followed: the pages of the rest are not understood, and no harm is done.
#[test]
fn too_many_slots() {
    let mut words = vec![lower(4080)];
    for slot in 0..40 {
        words.extend([adrp(X9, 4), put(X9, SP, 8 * slot)]);
    }
    words.push(CALL);
    for slot in 0..40 {
        words.extend([get(8, SP, 8 * slot), ldr(0, 8, 1)]);
    }
    words.extend([raise(4080), RET]);
    assert_eq!(links(&words).len(), 33);
}

/// Whole addresses, and what is reached beside them.
#[test]
fn addresses_come_back_from_their_slots() {
    let derived = |words: &[u32]| {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let code = Code {
            bytes: &bytes,
            rva: Rva::<Base>::new(0x1000),
            image_base: 0x1_8000_0000,
            relocated: &[],
            jumps: &[],
        };
        let found = derived::find(code, &body(words));
        let of = |it: &crate::decode::Derived<Base>| (it.instruction, it.target.get());
        found.iter().map(of).collect::<Vec<_>>()
    };
    let words = |between: u32| {
        [
            lower(64),
            adrp(8, 4),
            add(8, 8, 0x20),
            put(8, SP, 16),
            CALL,
            between,
            get(9, SP, 16),
            ldr(0, 9, 2),
            add(1, 9, 0x40),
            raise(64),
            RET,
        ]
    };
    assert_eq!(derived(&words(NOP)), [(7, 0x5030), (8, 0x5060)]);
    assert_eq!(derived(&words(put(0, SP, 16))), []);
    assert_eq!(derived(&words(0xb900_13e0)), []); // str w0, [sp, #16]
}

/// The links of a page that is spilled hold the properties that all links do.
#[test]
fn links_are_sorted() {
    let body = body(&kept(&[]));
    assert!(body.page_links.is_sorted());
    assert_eq!(body.page_links[0], PageLink { user: 3, page: 1 });
}

/// As unoptimised code has it: one register for the page and for what is loaded by it.
#[test]
fn users_that_overwrite_their_page() {
    let words = [
        lower(48),
        adrp(X9, 4),
        put(X9, SP, 0),
        ldr(X9, X9, 1),
        BLR | X9 << 5,
        str(0, SP, 5),
        CALL,
        get(X9, SP, 0),
        ldr(X9, X9, 2),
        BLR | X9 << 5,
        raise(48),
        RET,
    ];
    assert_eq!(links(&words), [(3, 1), (8, 1)]);
}
