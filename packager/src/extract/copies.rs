//! One address for what is copied: copies that overlap become one piece.
//!
//! Whoever leads to data asks for what may be reached from there: a variable by its name, a constant up
//! to where it may end, or several that lie side by side. What two of them ask for may have bytes in
//! common. Programs compare addresses, so none of these bytes may have two; and only when everything is
//! asked for is it known what overlaps.
//!
//! ```text
//! asked for      a b      by a function that takes both addresses
//!                  b c    by another one
//!                  b      by a pointer in what is copied
//! in the patch   a b c
//! ```
//!
//! Everything stays as far apart as it was, so whatever leads to a piece leads to the same byte of the
//! one that takes its place.

use std::cmp::Reverse;

use hpbuild_metadata::Rva;

use crate::piece::{How, Origin, Parts, Piece, PieceId, Place, Reference, Room, Target, UnwindOf};
use crate::refusal::{Code, Refusal};

/// Pieces that overlap: by address, then by size, the largest first.
type Group = Vec<PieceId>;

/// The same parts with every byte that is copied in one piece.
///
/// # Errors
/// Copies that overlap and cannot be one.
pub(super) fn joined(mut parts: Parts) -> Result<Parts, Vec<Refusal>> {
    let groups = overlapping(&parts.pieces);
    if groups.is_empty() {
        return Ok(parts);
    }
    let moves = moves(&parts.pieces, &groups);
    aim(&mut parts, &moves);
    let mut refusals = Vec::new();
    for group in &groups {
        let members: Vec<&Piece> = group.iter().map(|id| parts.piece(*id)).collect();
        match join(&members) {
            Ok(piece) => parts.pieces[first_id(group).index()] = piece,
            Err(message) => refusals.push(Refusal {
                rule: Code::Neighbour,
                name: members[0].name.clone(),
                offset: None,
                message,
            }),
        }
    }
    if !refusals.is_empty() {
        refusals.sort();
        return Err(refusals);
    }
    let absorbed = absorbed(parts.pieces.len(), &groups);
    let mut is_absorbed = absorbed.into_iter();
    parts
        .pieces
        .retain(|_| !is_absorbed.next().unwrap_or_default());
    Ok(parts)
}

/// The same parts without those of the copies `may_go` to which nothing leads.
pub(super) fn without_unreached(mut parts: Parts, may_go: &[bool]) -> Parts {
    let mut goes = may_go.to_vec();
    for reference in parts.pieces.iter().flat_map(|piece| &piece.references) {
        if let Target::Piece(place) = reference.target {
            goes[place.piece.index()] = false;
        }
    }
    let mut next = 0;
    let numbers = goes.iter().map(|goes| {
        let place = Place::start(PieceId(next));
        next += u32::from(!goes);
        place
    });
    let moves: Vec<Place> = numbers.collect();
    aim(&mut parts, &moves);
    let mut goes = goes.into_iter();
    parts.pieces.retain(|_| !goes.next().unwrap_or_default());
    parts
}

/// The copy of an image's data that a piece is: first byte and size.
fn copied(piece: &Piece) -> Option<(u32, u32)> {
    let origin = piece.origin?;
    let size = piece.size().saturating_sub(origin.lead);
    (size > 0).then_some((origin.rva.get(), size))
}

/// The groups of two pieces and more.
fn overlapping(pieces: &[Piece]) -> Vec<Group> {
    let all = (0..).map(PieceId).zip(pieces);
    let mut copies: Vec<(u32, Reverse<u32>, PieceId)> = all
        .filter_map(|(id, piece)| {
            let (start, size) = copied(piece)?;
            Some((start, Reverse(size), id))
        })
        .collect();
    copies.sort_unstable();
    let mut groups: Vec<Group> = Vec::new();
    let mut end = 0;
    for (start, Reverse(size), id) in copies {
        match groups.last_mut() {
            Some(group) if u64::from(start) < end => group.push(id),
            _ => groups.push(vec![id]),
        }
        end = end.max(u64::from(start) + u64::from(size));
    }
    groups.retain(|group| group.len() > 1);
    groups
}

/// The piece that a group becomes, as the pieces are numbered before.
fn first_id(group: &Group) -> PieceId {
    *group.iter().min().expect("a group has members")
}

/// Which pieces become part of another one.
fn absorbed(count: usize, groups: &[Group]) -> Vec<bool> {
    let mut absorbed = vec![false; count];
    for group in groups {
        let first = first_id(group);
        for id in group.iter().filter(|id| **id != first) {
            absorbed[id.index()] = true;
        }
    }
    absorbed
}

/// Where the start of each piece goes.
fn moves(pieces: &[Piece], groups: &[Group]) -> Vec<Place> {
    let mut next = 0;
    let numbers = absorbed(pieces.len(), groups).into_iter().map(|absorbed| {
        let place = Place::start(PieceId(next));
        next += u32::from(!absorbed);
        place
    });
    let mut moves: Vec<Place> = numbers.collect();
    for group in groups {
        let members: Vec<&Piece> = group.iter().map(|id| &pieces[id.index()]).collect();
        let whole = Whole::of(&members);
        let piece = moves[first_id(group).index()].piece;
        for (id, member) in group.iter().zip(members) {
            moves[id.index()] = Place::new(piece, whole.offset_of(member));
        }
    }
    moves
}

/// Makes everything that leads to a piece lead to where it went.
fn aim(parts: &mut Parts, moves: &[Place]) {
    let moved = |place: Place| {
        let start = moves[place.piece.index()];
        Place::new(start.piece, start.offset.saturating_add(place.offset))
    };
    let renumbered = |id: PieceId| moves[id.index()].piece;
    let pieces = parts.pieces.iter_mut();
    for reference in pieces.flat_map(|piece| &mut piece.references) {
        if let Target::Piece(place) = &mut reference.target {
            *place = moved(*place);
        }
        if let How::Difference { from, .. } = &mut reference.how {
            *from = moved(*from);
        }
    }
    for entry in &mut parts.runtime {
        entry.code = renumbered(entry.code);
        if let UnwindOf::Info(piece) = &mut entry.unwind {
            *piece = renumbered(*piece);
        }
    }
    for place in &mut parts.continuations {
        *place = moved(*place);
    }
    for code in &mut parts.code {
        *code = renumbered(*code);
    }
    for redirect in &mut parts.redirects {
        redirect.piece = renumbered(redirect.piece);
    }
}

/// What a group of pieces becomes.
struct Whole {
    origin: Origin,
    align: u32,
    /// Bytes, the lead included.
    size: u32,
}

impl Whole {
    /// Where in it `member` starts, its lead included.
    fn offset_of(&self, member: &Piece) -> i64 {
        let origin = member.origin.unwrap_or(self.origin);
        let distance = i64::from(origin.rva.get()) - i64::from(self.origin.rva.get());
        i64::from(self.origin.lead) + distance - i64::from(origin.lead)
    }

    fn of(members: &[&Piece]) -> Self {
        let align = members.iter().map(|piece| piece.align).max().unwrap_or(1);
        let copies = || members.iter().filter_map(|piece| copied(piece));
        let start = copies().map(|(start, _)| start).min().unwrap_or(0);
        let ends = copies().map(|(start, size)| u64::from(start) + u64::from(size));
        let end = ends.max().unwrap_or(0);
        let lead = start % align.max(1);
        let size = end - u64::from(start) + u64::from(lead);
        Self {
            origin: Origin {
                rva: Rva::new(start),
                lead,
            },
            align,
            size: u32::try_from(size).unwrap_or(u32::MAX),
        }
    }
}

/// One piece of several whose references lead where they should already.
fn join(members: &[&Piece]) -> Result<Piece, String> {
    let whole = Whole::of(members);
    let room = members[0].room;
    if members.iter().any(|piece| piece.room != room) {
        return Err("copies of it overlap that are not the same kind of data".into());
    }
    let mut bytes = Vec::new();
    let mut references = Vec::new();
    for member in members {
        let at = whole.offset_of(member);
        let offset = |offset: u32| u32::try_from(at + i64::from(offset));
        let too_large = |_| "copies of it overlap that are too large together".to_string();
        let lead = member.origin.map_or(0, |origin| origin.lead);
        let stored = member.bytes.get(lead as usize..).unwrap_or_default();
        let start = offset(lead).map_err(too_large)? as usize;
        let known = bytes.len().max(start);
        let end = start + stored.len();
        bytes.resize(known.max(end), 0);
        let overlap = known.min(end) - start;
        if bytes[start..start + overlap] != stored[..overlap] {
            return Err("copies of it overlap that do not hold the same".into());
        }
        bytes[start..end].copy_from_slice(stored);
        for reference in &member.references {
            references.push(Reference {
                offset: offset(reference.offset).map_err(too_large)?,
                ..*reference
            });
        }
    }
    references.sort_by_key(|reference| reference.offset);
    references.dedup();
    check_fields(&references)?;
    if room == Room::Writable && references.is_empty() && bytes.iter().all(|byte| *byte == 0) {
        bytes.clear();
    }
    Ok(Piece {
        name: members[0].name.clone(),
        origin: Some(whole.origin),
        room,
        align: whole.align,
        zeros: whole.size.saturating_sub(bytes.len() as u32),
        bytes,
        references,
        page_links: Vec::new(),
    })
}

/// Two may not understand the same bytes in two ways, and the base fills aligned pointers alone.
fn check_fields(references: &[Reference]) -> Result<(), String> {
    let size = |reference: &Reference| match reference.how {
        How::Instruction { length, .. } => u32::from(length),
        How::Pointer => 8,
        How::ImageRelative => 4,
        How::Difference { size, .. } => size.into(),
    };
    let overlap = |pair: &&[Reference]| pair[0].offset + size(&pair[0]) > pair[1].offset;
    if references.windows(2).find(overlap).is_some() {
        return Err("copies of it overlap whose addresses are read in different ways".into());
    }
    let is_odd = |it: &Reference| it.how == How::Pointer && !it.offset.is_multiple_of(8);
    match references.iter().any(is_odd) {
        true => Err("copies of it overlap that hold a pointer which is not aligned".into()),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests;
