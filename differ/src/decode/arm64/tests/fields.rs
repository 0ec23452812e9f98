//! Reading and setting the fields, over all their values.

use hpbuild_metadata::{Base, Rva};

use super::super::field::{AddressField, FieldError};
use super::Numbers;

/// In the middle, so that every distance but those between pages stays inside.
const PC: u32 = 0x4000_0120;

/// One word of each encoding with a field, the field's bits clear.
const CLASSES: &[(u32, AddressField)] = &[
    (0x1400_0000, AddressField::Branch26),
    (0x9400_0000, AddressField::Branch26),
    (0x5400_0000, AddressField::Branch19),
    (0x5400_001d, AddressField::Branch19),
    (0x3400_0003, AddressField::Branch19),
    (0xb500_0003, AddressField::Branch19),
    (0x3608_0003, AddressField::Branch14),
    (0xb7f8_0003, AddressField::Branch14),
    (0x1000_0003, AddressField::Address21),
    (0x9000_0003, AddressField::Page21),
    (0x1800_0003, AddressField::Literal19),
    (0x5800_0003, AddressField::Literal19),
    (0x9800_0003, AddressField::Literal19),
    (0xd800_0003, AddressField::Literal19),
    (0x1c00_0003, AddressField::Literal19),
    (0x5c00_0003, AddressField::Literal19),
    (0x9c00_0003, AddressField::Literal19),
    (0x9100_0063, AddressField::Add12),
    (0x3940_0063, AddressField::Offset12 { scale: 0 }),
    (0x7900_0063, AddressField::Offset12 { scale: 1 }),
    (0xb980_0063, AddressField::Offset12 { scale: 2 }),
    (0xf940_0063, AddressField::Offset12 { scale: 3 }),
    (0xf980_0063, AddressField::Offset12 { scale: 3 }),
    (0x3d40_0063, AddressField::Offset12 { scale: 0 }),
    (0x7d40_0063, AddressField::Offset12 { scale: 1 }),
    (0xbd40_0063, AddressField::Offset12 { scale: 2 }),
    (0xfd40_0063, AddressField::Offset12 { scale: 3 }),
    (0x3dc0_0063, AddressField::Offset12 { scale: 4 }),
];

/// Deposits the low bits of `value` into the set bits of `mask`.
fn deposit(mut value: u32, mask: u32) -> u32 {
    let mut word = 0;
    for bit in 0..32 {
        if mask & (1 << bit) != 0 {
            word |= (value & 1) << bit;
            value >>= 1;
        }
    }
    word
}

fn round_trip(class: u32, field: AddressField, value: u32) {
    let word = class | deposit(value, field.mask());
    assert_eq!(AddressField::of(word), Some(field), "{word:#010x}");
    // Distances between pages reach as far as RVAs, one way or the other.
    let pc = Rva::<Base>::new(match field {
        AddressField::Page21 if field.value(word) < 0 => 0xffff_f120,
        AddressField::Page21 => 0x120,
        _ => PC,
    });
    let base = if field.is_page_offset() {
        Rva::new(0)
    } else {
        pc
    };
    let Some(target) = field.target(word, base) else {
        // The one page that is 4 GiB away.
        assert_eq!((field, value), (AddressField::Page21, PAGES_FARTHEST));
        return;
    };
    if field.is_page_offset() && target.get() > 0xfff {
        return; // more than the rest of an address can be
    }
    assert_eq!(field.set(class, pc, target), Ok(word), "{word:#010x}");
    // Whatever stood in the field before is gone.
    assert_eq!(field.set(class | field.mask(), pc, target), Ok(word));
}

/// The value of an `adrp`'s field, its bits gathered, for the lowest distance.
const PAGES_FARTHEST: u32 = 1 << 18;

/// Every value of every field of up to 21 bits, and every value near the ends and many between of
/// the longest.
#[test]
fn setting_what_was_read_changes_nothing() {
    for (class, field) in CLASSES {
        let bits = field.mask().count_ones();
        if bits <= 21 {
            // The numbers of one bit pattern differ in the places, so all of them are walked.
            (0..1 << bits).for_each(|value| round_trip(*class, *field, value));
        } else {
            let mut numbers = Numbers(u64::from(*class));
            for value in 0..0x1_0000 {
                round_trip(*class, *field, value);
                round_trip(*class, *field, 0x03ff_ffff - value);
                round_trip(*class, *field, 0x01ff_ffff - value);
                round_trip(*class, *field, 0x0200_0000 + value);
                round_trip(*class, *field, numbers.next() & 0x03ff_ffff);
            }
        }
    }
}

#[test]
fn reach() {
    let set = |field: AddressField, distance: i64| {
        let pc = Rva::<Base>::new(PC);
        field.set(0, pc, pc.checked_offset(distance).expect("inside"))
    };
    for (field, least, most) in [
        (AddressField::Branch26, -0x800_0000, 0x7ff_fffc),
        (AddressField::Branch19, -0x10_0000, 0xf_fffc),
        (AddressField::Literal19, -0x10_0000, 0xf_fffc),
        (AddressField::Branch14, -0x8000, 0x7ffc),
        (AddressField::Address21, -0x10_0000, 0xf_ffff),
    ] {
        assert!(
            set(field, least).is_ok() && set(field, most).is_ok(),
            "{field:?}"
        );
        let unit = if field == AddressField::Address21 {
            1
        } else {
            4
        };
        for distance in [least - unit, most + unit] {
            let error = FieldError::OutOfRange { field, distance };
            assert_eq!(set(field, distance), Err(error));
        }
    }
    let misaligned = |field, value, unit| Err(FieldError::Misaligned { field, value, unit });
    let field = AddressField::Branch19;
    assert_eq!(set(field, 2), misaligned(field, 2, 4));
}

#[test]
fn pages_and_offsets() {
    let pc = Rva::<Base>::new(0x1ffc);
    let page = AddressField::Page21;
    // The distance is that between pages, wherever in them the two ends lie.
    let word = page
        .set(0x9000_0008, pc, Rva::new(0x5fff))
        .expect("in reach");
    assert_eq!(word, 0x9000_0028);
    assert_eq!(page.target(word, pc), Some(Rva::new(0x5000)));
    assert_eq!(page.target(0x90ff_ffe8, pc), None, "before the image");

    let quad = AddressField::Offset12 { scale: 4 };
    assert_eq!(quad.set(0x3dc0_0108, pc, Rva::new(0x5ff0)), Ok(0x3dc3_fd08));
    let error = FieldError::Misaligned {
        field: quad,
        value: 0xff8,
        unit: 16,
    };
    assert_eq!(quad.set(0x3dc0_0108, pc, Rva::new(0x5ff8)), Err(error));
    assert_eq!(
        quad.target(0x3dc3_fd08, Rva::<Base>::new(0x5000)),
        Some(Rva::new(0x5ff0))
    );
}

/// Words one bit away from a field that have none.
#[test]
fn near_misses() {
    for word in [
        0x9140_0108u32, // add with the offset shifted by 12
        0x1100_0108,    // add of 32 bits
        0xb100_0108,    // adds
        0xd100_0108,    // sub
        0xb9c0_0108,    // unallocated: signed word into a word
        0xf9c0_0108,    // unallocated
        0x7dc0_0108,    // unallocated vector size
        0xdc00_0000,    // unallocated literal
        0xf840_8108,    // ldur
        0xa940_2108,    // ldp
    ] {
        assert_eq!(AddressField::of(word), None, "{word:#010x}");
    }
}
