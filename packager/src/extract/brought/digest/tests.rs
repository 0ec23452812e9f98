//! The same whatever lies around it, another one for whatever it leads to.

use hpbuild_metadata::{BaseIdentity, Machine, Rva, Sequence};

use super::*;
use crate::piece::{BaseFacts, PieceId, Reference};

fn parts(pieces: Vec<Piece>) -> Parts {
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
        code: Vec::new(),
        runtime: Vec::new(),
        continuations: Vec::new(),
        redirects: Vec::new(),
        imports: Vec::new(),
        brought: Vec::new(),
    }
}

/// Data that hold a byte and lead to these pieces.
fn piece(byte: u8, room: Room, leads: &[u32]) -> Piece {
    let pointer = |(index, to): (usize, &u32)| Reference {
        offset: 8 * index as u32,
        how: How::Pointer,
        target: Target::Piece(Place::start(PieceId(*to))),
    };
    let mut bytes = vec![0xee; 8 * leads.len()];
    bytes.push(byte);
    Piece {
        room,
        bytes,
        references: leads.iter().enumerate().map(pointer).collect(),
        ..Piece::placeholder("piece", room)
    }
}

fn of(pieces: Vec<Piece>) -> Vec<(Digest, bool)> {
    let unit = |(index, piece): (usize, &Piece)| Unit {
        piece: PieceId(index as u32),
        start: 0,
        end: piece.size(),
        symbol: None,
    };
    let units = Units(pieces.iter().enumerate().map(unit).collect());
    digests(&parts(pieces), &units)
}

#[test]
fn what_a_piece_leads_to_counts_however_far() {
    let constant = |byte, leads: &[u32]| piece(byte, Room::ReadOnly, leads);
    // 0 -> 1 -> 2 -> 1, and 3 by itself
    let before = of(vec![
        constant(1, &[1]),
        constant(2, &[2]),
        constant(3, &[1]),
        constant(4, &[]),
    ]);
    let after = of(vec![
        constant(4, &[]),
        constant(3, &[2]),
        constant(2, &[1]),
        constant(1, &[2]),
    ]);
    assert_eq!(before, after.into_iter().rev().collect::<Vec<_>>());
    let other = of(vec![
        constant(1, &[1]),
        constant(2, &[2]),
        constant(5, &[1]),
        constant(4, &[]),
    ]);
    let same: Vec<bool> = before.iter().zip(&other).map(|(a, b)| a == b).collect();
    assert_eq!(same, [false, false, false, true]);
}

#[test]
fn variables_are_told_of_whoever_reaches_them() {
    let all = of(vec![
        piece(1, Room::ReadOnly, &[1]),
        piece(1, Room::ReadOnly, &[0, 2]),
        piece(1, Room::Writable, &[]),
        piece(1, Room::ReadOnly, &[]),
    ]);
    let state: Vec<bool> = all.iter().map(|(_, state)| *state).collect();
    assert_eq!(state, [true, true, true, false]);
}

#[test]
fn what_the_base_has_counts_by_its_place() {
    let leads = |rva| {
        let mut piece = piece(1, Room::ReadOnly, &[]);
        piece.bytes.resize(8, 0);
        piece.references.push(Reference {
            offset: 0,
            how: How::Pointer,
            target: Target::Base(Rva::new(rva)),
        });
        of(vec![piece])
    };
    assert_eq!(leads(0x1000), leads(0x1000));
    assert_ne!(leads(0x1000), leads(0x2000));
}
