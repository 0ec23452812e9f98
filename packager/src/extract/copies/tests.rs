//! Overlapping copies, made by hand: what they become, and which ones are refused.

use hpbuild_metadata::{BaseIdentity, Machine, Sequence};

use super::*;
use crate::piece::{BaseFacts, Redirect, RuntimeEntry};

/// A copy of what a fixed image has from `rva` on, in which each byte is the last one of its address.
fn copy(rva: u32, lead: u32, size: u32, references: &[(u32, How, Target)]) -> Piece {
    let mut bytes = vec![0; lead as usize];
    bytes.extend((rva..rva + size).map(|rva| rva as u8));
    let reference = |(offset, how, target): &(u32, How, Target)| Reference {
        offset: *offset,
        how: *how,
        target: *target,
    };
    Piece {
        name: format!("at {rva:#x}").into(),
        origin: Some(Origin {
            rva: Rva::new(rva),
            lead,
        }),
        room: Room::ReadOnly,
        align: 8,
        bytes,
        zeros: 0,
        references: references.iter().map(reference).collect(),
        page_links: Vec::new(),
    }
}

fn code(references: &[(u32, How, Target)]) -> Piece {
    Piece {
        origin: None,
        room: Room::Code,
        ..copy(0, 0, 64, references)
    }
}

fn at(piece: u32, offset: i64) -> Target {
    Target::Piece(Place::new(PieceId(piece), offset))
}

fn parts(pieces: Vec<Piece>) -> Parts {
    let last = PieceId(pieces.len() as u32 - 1);
    Parts {
        machine: Machine::X64,
        sequence: Sequence::FIRST,
        base: BaseFacts {
            stem: "base".into(),
            identity: BaseIdentity {
                time_date_stamp: 1,
                checksum: 1,
            },
            image_size: 0x9000,
            guard_cf: false,
            guard_eh: false,
            ex_characteristics: 0,
        },
        pieces,
        code: vec![last],
        runtime: vec![RuntimeEntry {
            code: last,
            begin: 0,
            end: 64,
            unwind: UnwindOf::Info(last),
        }],
        continuations: vec![Place::new(last, 4)],
        redirects: vec![Redirect {
            name: "code".into(),
            base: Rva::new(0x1000),
            original: [0; 4],
            piece: last,
        }],
        imports: Vec::new(),
        brought: Vec::new(),
    }
}

fn distance(from: u32, offset: i64) -> How {
    How::Difference {
        size: 4,
        signed: true,
        shift: 0,
        from: Place::new(PieceId(from), offset),
    }
}

#[test]
fn what_overlaps_becomes_one_and_what_touches_does_not() {
    let base = Target::Base(Rva::new(0x2000));
    let pieces = vec![
        copy(
            0x1010,
            0,
            16,
            &[(0, How::Pointer, at(1, 4)), (8, How::Pointer, base)],
        ),
        // Begins four bytes before, and four more keep it aligned.
        copy(
            0x100c,
            4,
            16,
            &[(8, How::Pointer, at(1, 4)), (4, distance(1, 4), at(3, 0))],
        ),
        // Touches the first one.
        copy(0x1020, 0, 8, &[]),
        code(&[
            (0, How::ImageRelative, at(0, 16)),
            (8, distance(0, 8), at(2, 8)),
        ]),
    ];
    let joined = joined(parts(pieces)).unwrap();
    let [whole, behind, code] = joined.pieces.as_slice() else {
        panic!("{:?}", joined.pieces);
    };
    assert_eq!(
        (&*whole.name, whole.align, whole.size()),
        ("at 0x100c", 8, 24)
    );
    let origin = Origin {
        rva: Rva::new(0x100c),
        lead: 4,
    };
    assert_eq!(whole.origin, Some(origin));
    let mut expected = vec![0; 4];
    expected.extend(0x0c..0x20);
    assert_eq!(whole.bytes, expected);
    let of = |piece: &Piece| -> Vec<_> {
        let references = piece.references.iter();
        references
            .map(|it| (it.offset, it.how, it.target))
            .collect()
    };
    let expected = [
        (4, distance(0, 4), at(2, 0)),
        (8, How::Pointer, at(0, 4)),
        (16, How::Pointer, base),
    ];
    assert_eq!(of(whole), expected);
    assert_eq!(&*behind.name, "at 0x1020");
    let expected = [
        (0, How::ImageRelative, at(0, 24)),
        (8, distance(0, 16), at(1, 8)),
    ];
    assert_eq!(of(code), expected);
    let id = PieceId(2);
    assert_eq!(joined.code, [id]);
    assert_eq!(
        (joined.runtime[0].code, joined.runtime[0].unwind),
        (id, UnwindOf::Info(id))
    );
    assert_eq!(joined.continuations, [Place::new(id, 4)]);
    assert_eq!(joined.redirects[0].piece, id);
}

#[test]
fn zeros_that_are_not_stored_stay_so() {
    let zeros = |rva: u32, stored: usize, zeros: u32| {
        let mut piece = copy(rva, 0, stored as u32, &[]);
        piece.bytes.fill(0);
        piece.room = Room::Writable;
        piece.zeros = zeros;
        piece
    };
    let joined = joined(parts(vec![
        zeros(0x1000, 4, 60),
        zeros(0x1008, 0, 100),
        code(&[]),
    ]))
    .unwrap();
    assert_eq!(joined.pieces.len(), 2);
    assert_eq!(
        (joined.pieces[0].bytes.len(), joined.pieces[0].zeros),
        (0, 108)
    );
}

#[test]
fn what_cannot_be_one_is_refused() {
    let refused = |one: Piece, other: Piece, why: &str| {
        let refusals = joined(parts(vec![one, other, code(&[])])).unwrap_err();
        let [refusal] = refusals.as_slice() else {
            panic!("{refusals:?}");
        };
        assert_eq!(refusal.rule, Code::Neighbour);
        assert!(refusal.message.ends_with(why), "{}", refusal.message);
    };
    let whole = || copy(0x1000, 0, 16, &[]);
    let mut writable = copy(0x1008, 0, 16, &[]);
    writable.room = Room::Writable;
    refused(whole(), writable, "not the same kind of data");
    let mut other = copy(0x1008, 0, 16, &[]);
    other.bytes[3] = 0xff;
    refused(whole(), other, "do not hold the same");
    let pointer = copy(0x1000, 0, 16, &[(8, How::Pointer, at(2, 0))]);
    let distance = copy(0x1008, 0, 16, &[(4, distance(1, 0), at(2, 0))]);
    refused(pointer.clone(), distance, "read in different ways");
    let elsewhere = copy(0x1008, 0, 16, &[(0, How::Pointer, at(2, 4))]);
    refused(pointer, elsewhere, "read in different ways");
    // Aligned in its own copy alone.
    let odd = copy(0x1004, 0, 8, &[(0, How::Pointer, at(2, 0))]);
    refused(whole(), odd, "a pointer which is not aligned");
}
