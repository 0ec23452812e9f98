//! Constants without a name that stay where the base has them.
//!
//! Objects of the running program hold addresses of constants, and programs compare them: a slot that
//! is `NULL`, some data, or the one constant that says "none". What has a name is the base's for that
//! reason, where it did not change. What has none is first copied. When all copies are known, each is
//! held against the place of the base that the same operand of the same function reaches ([`super::places`]).
//!
//! ```text
//! use in the base     lea rcx, [zero]    zero: 00 00 00 00
//! use in the patch    lea rax, [copy]    copy: 00 00 00 00, all that code may reach
//! becomes             lea rax, [zero]    as in the base
//! ```
//!
//! A copy goes as a whole or not at all, so that each of its bytes has one address in the patch: all
//! places of it that anything leads to are known in the base, as far apart as in the copy, all its bytes
//! are the same there, and each pointer in it leads where the base's leads. Code that reads a constant
//! in place and does not take its address goes on to read a copy, which takes no detour.

use hpbuild_differ::Diff;
use hpbuild_differ::decode::{Field, ReferenceKind, alignment_at, alignment_by_register};
use hpbuild_differ::image::Contribution;
use hpbuild_differ::meaning::{Comparer, is_read_only};
use hpbuild_metadata::{Base, Fixed, Machine, Rva};

use super::copies;
use super::places::{Places, demanded_of, led_to};
use crate::piece::{How, Parts, Piece, PieceId, Place, Reference, Room, Target};

/// The same parts, with addresses of the base in place of copies that the base has as they are.
pub(super) fn kept(diff: &Diff, comparer: &Comparer<'_>, mut parts: Parts) -> Parts {
    let homes = homes(diff, comparer, &parts);
    if homes.iter().all(Option::is_none) {
        return parts;
    }
    for piece in &mut parts.pieces {
        for reference in &mut piece.references {
            if let Target::Piece(place) = reference.target
                && takes_address(reference)
                && let Some(base) = home_of(&homes, place)
            {
                reference.target = Target::Base(base);
            }
        }
    }
    let is_kept: Vec<bool> = homes.iter().map(Option::is_some).collect();
    copies::without_unreached(parts, &is_kept)
}

/// Where the base has the start of each piece, the lead included, if it stays there.
type Homes = Vec<Option<i64>>;

/// The place of the base that a place in a piece stands for.
fn home_of(homes: &Homes, place: Place) -> Option<Rva<Base>> {
    let start = homes.get(place.piece.index()).copied().flatten()?;
    let rva = start.checked_add(place.offset)?;
    u32::try_from(rva).ok().map(Rva::new)
}

fn takes_address(reference: &Reference) -> bool {
    match reference.how {
        How::Pointer => true,
        How::Instruction { kind, .. } => kind == ReferenceKind::Address,
        How::ImageRelative | How::Difference { .. } => false,
    }
}

/// The copies that may stay in the base, and where.
fn homes(diff: &Diff, comparer: &Comparer<'_>, parts: &Parts) -> Homes {
    let reached = reached(parts);
    let mut places = Places::new(diff, comparer, demanded_of(parts, &reached));
    follow_pointers(diff, comparer, parts, &reached, &mut places);
    let mut homes: Homes = (0..)
        .map(PieceId)
        .zip(&parts.pieces)
        .map(|(id, piece)| {
            let start = start_in_base(&places, piece, &reached[id.index()])?;
            is_same(diff, piece, start).then_some(start)
        })
        .collect();
    // Two constants that are equal do not become one.
    part_overlapping(parts, &mut homes);
    loop {
        let stays = |(id, piece): (PieceId, &Piece)| {
            let start = homes[id.index()]?;
            let all_lead_there = piece
                .references
                .iter()
                .all(|reference| leads_as_in_base(diff, &homes, start, reference));
            all_lead_there.then_some(start)
        };
        let mut left: Homes = (0..).map(PieceId).zip(&parts.pieces).map(stays).collect();
        for piece in &parts.pieces {
            part_unfit(diff, parts, piece, &mut left);
        }
        if left == homes {
            return homes;
        }
        homes = left;
    }
}

/// Notes where the pointers lead that copies hold which are known in the base, and so on.
fn follow_pointers(
    diff: &Diff,
    comparer: &Comparer<'_>,
    parts: &Parts,
    reached: &Reached,
    places: &mut Places,
) {
    let mut followed = vec![false; parts.pieces.len()];
    loop {
        let mut is_done = true;
        for (index, piece) in parts.pieces.iter().enumerate() {
            if followed[index] || piece.references.is_empty() {
                continue;
            }
            let Some(start) = start_in_base(places, piece, &reached[index]) else {
                continue;
            };
            (followed[index], is_done) = (true, false);
            for reference in &piece.references {
                let Target::Piece(place) = reference.target else {
                    continue;
                };
                let fixed = place_in_image(parts.piece(place.piece), place.offset);
                let base = pointer_in_base(diff, start, reference);
                if let (Some(base), Some(fixed)) = (base, fixed) {
                    places.note_pointer(comparer, base, fixed);
                }
            }
        }
        if is_done {
            return;
        }
    }
}

/// Where the base's pointer leads that stands in the place of a field of a copy.
fn pointer_in_base(diff: &Diff, start: i64, reference: &Reference) -> Option<Rva<Base>> {
    let place = start.checked_add(reference.offset.into())?;
    let place = Rva::new(u32::try_from(place).ok()?);
    let is_pointer = diff.base.pe.relocations_in(place, 8).first() == Some(&place);
    is_pointer.then(|| led_to(&diff.base, place)).flatten()
}

/// For each piece the places in it whose addresses something else takes. `None` where something leads to it
/// that only a copy can be for.
pub(super) type Reached = Vec<Option<Vec<i64>>>;

fn reached(parts: &Parts) -> Reached {
    let mut reached: Reached = parts.pieces.iter().map(|_| Some(Vec::new())).collect();
    for (id, piece) in (0..).map(PieceId).zip(&parts.pieces) {
        for reference in &piece.references {
            if let How::Difference { from, .. } = reference.how {
                reached[from.piece.index()] = None;
            }
            let Target::Piece(place) = reference.target else {
                continue;
            };
            let places = &mut reached[place.piece.index()];
            match reference.how {
                How::Pointer
                | How::Instruction {
                    kind: ReferenceKind::Address,
                    field: Field::Relative { .. } | Field::Absolute { .. } | Field::Word { .. },
                    ..
                } => {
                    // Its pointers into itself are held against the base's.
                    if let Some(places) = places.as_mut().filter(|_| place.piece != id) {
                        places.push(place.offset);
                    }
                }
                How::Instruction {
                    kind: ReferenceKind::Memory(_),
                    ..
                } => {}
                _ => *places = None,
            }
        }
    }
    reached
}

/// Where the base has the start of a piece: by every place of it that something leads to. At its end
/// something else begins, which says nothing where it is not known.
fn start_in_base(places: &Places, piece: &Piece, reached: &Option<Vec<i64>>) -> Option<i64> {
    let origin = piece.origin.filter(|_| piece.room == Room::ReadOnly)?;
    let mut start = None;
    for offset in reached.as_ref()? {
        let base = match places.in_base(place_in_image(piece, *offset)?) {
            Some(base) => base,
            None if *offset == i64::from(piece.size()) => continue,
            None => return None,
        };
        let found = i64::from(base.get()) - offset;
        if start.is_some_and(|start| start != found) {
            return None;
        }
        start = Some(found);
    }
    start.filter(|start| start + i64::from(origin.lead) > 0)
}

/// The address that a place in a copy has in the fixed image.
pub(super) fn place_in_image(piece: &Piece, offset: i64) -> Option<Rva<Fixed>> {
    let origin = piece.origin?;
    origin
        .rva
        .checked_offset(offset.checked_sub(origin.lead.into())?)
}

/// Whether a piece has the same bytes in the base, and pointers in the same places.
fn is_same(diff: &Diff, piece: &Piece, start: i64) -> bool {
    let Some(origin) = piece.origin else {
        return false;
    };
    let lead = i64::from(origin.lead);
    let Ok(rva) = u32::try_from(start + lead).map(Rva::new) else {
        return false;
    };
    let (base, fixed) = (&diff.base, &diff.fixed);
    let size = piece.size().saturating_sub(origin.lead);
    let (Some(before), Some(after)) = (base.pe.bytes(rva, size), fixed.pe.bytes(origin.rva, size))
    else {
        return false;
    };
    let is_constant = is_read_only(base, rva) && is_read_only(fixed, origin.rva);
    let is_data = base.pe.section_at(rva).is_some_and(|it| !it.is_code());
    let offsets = piece.references.iter();
    let offsets = offsets.map(|it| it.offset.saturating_sub(origin.lead));
    let in_base = base.pe.relocations_in(rva, size);
    let in_base = in_base.iter().map(|place| place.get() - rva.get());
    let are_pointers = piece.references.iter().all(|it| it.how == How::Pointer);
    if !is_constant || !is_data || !are_pointers || !offsets.clone().eq(in_base) {
        return false;
    }
    let mut at = 0;
    for offset in offsets.chain([size]) {
        let range = at as usize..offset as usize;
        if range.start > range.end || before.get(range.clone()) != after.get(range) {
            return false;
        }
        at = offset.saturating_add(8);
    }
    true
}

/// Parts no two copies in the base: where they would overlap there, neither stays.
fn part_overlapping(parts: &Parts, homes: &mut Homes) {
    let mut all: Vec<(i64, i64, usize)> = Vec::new();
    for (index, (home, piece)) in homes.iter().zip(&parts.pieces).enumerate() {
        if let (Some(start), Some(origin)) = (home, piece.origin) {
            all.push((
                start + i64::from(origin.lead),
                start + i64::from(piece.size()),
                index,
            ));
        }
    }
    all.sort_unstable();
    let mut last: Option<(i64, usize)> = None;
    for (start, end, index) in all {
        if let Some((furthest, other)) = last
            && start < furthest
        {
            homes[index] = None;
            homes[other] = None;
        }
        if last.is_none_or(|(furthest, _)| end > furthest) {
            last = Some((end, index));
        }
    }
}

/// Whether a pointer of a copy leads in the patch where it leads in the base.
fn leads_as_in_base(diff: &Diff, homes: &Homes, start: i64, reference: &Reference) -> bool {
    let led_to = pointer_in_base(diff, start, reference);
    let meant = match reference.target {
        Target::Base(base) => Some(base),
        Target::Piece(place) => home_of(homes, place),
        _ => None,
    };
    led_to.is_some() && led_to == meant
}

/// Lets no copy stay in the base that code could not reach there: it relies on an alignment that the
/// base does not have, or reaches what lies on one page of the fixed image by one instruction.
fn part_unfit(diff: &Diff, parts: &Parts, piece: &Piece, homes: &mut Homes) {
    if piece.room != Room::Code {
        return;
    }
    let machine = parts.machine;
    for (index, reference) in piece.references.iter().enumerate() {
        let Target::Piece(place) = reference.target else {
            continue;
        };
        let Some(base) = home_of(homes, place).filter(|_| takes_address(reference)) else {
            continue;
        };
        let is_fit = is_aligned(diff, parts, (piece, reference), (place, base))
            && (machine != Machine::Arm64 || is_alone_on_page(homes, piece, index, base));
        if !is_fit {
            homes[place.piece.index()] = None;
        }
    }
}

fn is_aligned(
    diff: &Diff,
    parts: &Parts,
    (code, reference): (&Piece, &Reference),
    (place, base): (Place, Rva<Base>),
) -> bool {
    let machine = parts.machine;
    let Some(fixed) = place_in_image(parts.piece(place.piece), place.offset) else {
        return false;
    };
    let at = alignment_at(machine, &code.bytes, reference.offset);
    let most = at.max(alignment_by_register(machine, &code.bytes));
    // Code relies on what the section asks for, and not on where the datum happens to lie.
    let contribution = diff.fixed.contribution_at(fixed);
    let section = contribution.and_then(Contribution::alignment);
    let most = section.map_or(most, |asked| most.min(asked));
    !fixed.get().is_multiple_of(most) || base.get().is_multiple_of(most)
}

/// Whether all that shares an instruction that forms a page with a reference stays on one page of the
/// base as well.
fn is_alone_on_page(homes: &Homes, piece: &Piece, index: usize, base: Rva<Base>) -> bool {
    let links = &piece.page_links;
    let pages_of = |user: usize| {
        let own = links.iter().filter(move |link| link.0 as usize == user);
        own.map(|link| link.1)
    };
    let mut pages = pages_of(index);
    let Some(page) = pages.next() else {
        return true;
    };
    let mut users = links.iter().filter(|link| link.1 == page);
    pages.next().is_none()
        && users.all(|&(user, _)| {
            let reference = piece.references.get(user as usize);
            let there = reference.and_then(|reference| match reference.target {
                Target::Base(base) => Some(base),
                Target::Piece(place) => home_of(homes, place).filter(|_| takes_address(reference)),
                _ => None,
            });
            there.is_some_and(|there| there.page() == base.page())
                && pages_of(user as usize).count() == 1
        })
}
