//! What only the patch brings and somebody may hold the address of: new functions, copies of data.
//!
//! A newer patch redirects functions of the base. What an older one brought has no counterpart there:
//! the older image stays where it is, since threads may be in it, and whoever holds an address in it
//! goes on with what stands there. So each patch says what it brought, and what came before it did, and
//! the next one is held against that.

mod digest;
mod types;

pub(super) use digest::is_type;

use std::collections::{BTreeMap, BTreeSet};

use hpbuild_differ::Diff;
use hpbuild_differ::decode::{Escape, ReferenceKind, escape};
use hpbuild_differ::judge::{Refusal, Severity};
use hpbuild_differ::meaning::{Target as Meaning, resolve};
use hpbuild_metadata::{DataId, Fixed};

use super::Previous;
use crate::piece::{Brought, How, Lasting, Parts, Piece, PieceId, Place, Reference, Room, Target};

/// What data without a name is called.
const NAMELESS: &str = "a constant without a name";

/// The rule about what only an older patch has.
const CODE: &str = "HP043";

/// Something that the base has nothing for.
struct Own {
    brought: Brought,
    /// Whether its address is known to go somewhere.
    is_held: bool,
    /// Whether code compares its address with others.
    is_compared: bool,
}

/// What the patch brings, with what the older one says that it and those before it did.
pub(super) fn brought(diff: &Diff, parts: &Parts, previous: Option<&Previous>) -> Vec<Brought> {
    let own = own(diff, parts).into_iter();
    let held = own.filter(|own| own.is_held).map(|own| own.brought);
    let older = previous.map_or(&[][..], |previous| &previous.brought);
    let all = held.chain(types::used(diff)).chain(older.iter().cloned());
    let all: BTreeSet<Brought> = all.collect();
    all.into_iter().collect()
}

/// The findings about what only the older patches brought.
pub(crate) fn findings(diff: &Diff, parts: &Parts, previous: &Previous) -> Vec<Refusal> {
    if previous.brought.is_empty() {
        return Vec::new();
    }
    let own = own(diff, parts);
    let mut named: BTreeMap<&str, Vec<&Own>> = BTreeMap::new();
    let mut alike: BTreeMap<[u8; 32], Vec<&Own>> = BTreeMap::new();
    for own in &own {
        named.entry(&own.brought.name).or_default().push(own);
        alike.entry(own.brought.digest).or_default().push(own);
    }
    let finding = |older: &Brought| {
        let named = named.get(&*older.name).filter(|_| &*older.name != NAMELESS);
        let same = match named {
            Some(named) => named.iter().find(|own| own.brought.digest == older.digest),
            None => alike.get(&older.digest).and_then(|alike| alike.first()),
        };
        let stored = older.way == Escape::Stored;
        let (severity, what) = match (same, named) {
            (Some(own), _) if own.is_compared => (
                Severity::Warn,
                "has another address in this patch, whose code compares it: what holds the older \
                 patch's is not equal to it",
            ),
            (Some(_), _) if older.has_state => (
                Severity::Warn,
                "lives in the older patch or uses variables that do: what holds its address goes on \
                 with those, and this patch has its own",
            ),
            (Some(_), _) => return None,
            (None, Some(_)) if stored => (
                Severity::Refuse,
                "changed, and code of the older patch stores its address: what holds it goes on with \
                 the older patch's",
            ),
            (None, Some(_)) => (
                Severity::Warn,
                "changed, and code of the older patch hands its address on: whoever keeps it goes on \
                 with the older patch's",
            ),
            (None, None) => (
                Severity::Warn,
                "is not in this patch: whoever keeps its address goes on with the older patch's",
            ),
        };
        let shown = hpbuild_differ::display_data(&older.name);
        let message = format!("{shown}, which an older patch brought, {what}");
        let evidence = format!("older patch of sequence {}", previous.sequence);
        let mut finding = Refusal::new(CODE, &*older.name, message, evidence);
        finding.severity = severity;
        Some(finding)
    };
    let older = previous.brought.iter();
    let addresses = older.filter(|it| it.lasting == Lasting::Address);
    let mut found: Vec<Refusal> = addresses.filter_map(finding).collect();
    found.extend(types::findings(diff, previous));
    found.dedup();
    found
}

/// The units that the base has nothing for: functions that take no base function's place, and data.
fn own(diff: &Diff, parts: &Parts) -> Vec<Own> {
    let redirected: BTreeSet<PieceId> = parts.redirects.iter().map(|it| it.piece).collect();
    let units = Units::new(diff, parts);
    let ways = ways(parts, &units);
    let digests = digest::digests(parts, &units);
    let mut all = Vec::new();
    for ((unit, (way, is_compared)), (digest, has_state)) in units.0.iter().zip(ways).zip(digests) {
        let piece = parts.piece(unit.piece);
        let is_own = match piece.room {
            Room::Code => !redirected.contains(&unit.piece),
            Room::ReadOnly | Room::Writable => is_data(diff, piece),
            Room::Unwind => false,
        };
        if !is_own {
            continue;
        }
        // Numbers and texts that somebody got are old ones at worst, and those without a name are
        // compared by nobody.
        let is_held = match way {
            None => false,
            Some(_) if piece.room == Room::Code || has_parts(diff, piece, unit) => true,
            Some(Escape::Handed) => false,
            Some(_) => unit.symbol.is_some(),
        };
        all.push(Own {
            brought: Brought {
                lasting: Lasting::Address,
                name: shortened(name(diff, piece, unit)),
                digest,
                way: way.unwrap_or(Escape::Handed),
                has_state,
            },
            is_held,
            is_compared,
        });
    }
    all
}

/// A piece, or what one name of several stands for in a piece of data.
struct Unit {
    piece: PieceId,
    /// First byte and first byte behind, in the piece.
    start: u32,
    end: u32,
    symbol: Option<DataId<Fixed>>,
}

/// All units, by piece and start. Every byte of a piece is in one.
struct Units(Vec<Unit>);

impl Units {
    fn new(diff: &Diff, parts: &Parts) -> Self {
        let mut all = Vec::new();
        for (index, piece) in parts.pieces.iter().enumerate() {
            let id = PieceId(index as u32);
            let cuts = cuts(diff, piece).into_iter().collect::<Vec<_>>();
            for (at, (start, symbol)) in cuts.iter().enumerate() {
                let next = cuts.get(at + 1).map(|next| next.0);
                all.push(Unit {
                    piece: id,
                    start: *start,
                    end: next.unwrap_or(piece.size()),
                    symbol: *symbol,
                });
            }
        }
        Self(all)
    }

    /// The unit at a place, or the nearest of the piece.
    fn at(&self, place: Place) -> usize {
        let is_before =
            |unit: &Unit| (unit.piece, i64::from(unit.start)) <= (place.piece, place.offset.max(0));
        self.0.partition_point(is_before).saturating_sub(1)
    }
}

/// Where the units of a piece start, and what they are called.
fn cuts(diff: &Diff, piece: &Piece) -> BTreeMap<u32, Option<DataId<Fixed>>> {
    let mut cuts = BTreeMap::from([(0, None)]);
    let Some(origin) = piece.origin.filter(|_| piece.room != Room::Code) else {
        return cuts;
    };
    let image = &diff.fixed;
    let size = piece.size().saturating_sub(origin.lead);
    let first = image.data.partition_point(|symbol| symbol.rva < origin.rva);
    for (index, symbol) in image.data.iter().enumerate().skip(first) {
        let Some(at) = symbol.rva.checked_sub(origin.rva).filter(|at| *at < size) else {
            break;
        };
        if symbol.size == 0 {
            continue;
        }
        // The lead belongs to what comes first.
        let start = if at == 0 { 0 } else { origin.lead + at };
        cuts.insert(start, Some(DataId::new(index)));
        let end = at.saturating_add(symbol.size);
        if end < size {
            cuts.entry(origin.lead + end).or_insert(None);
        }
    }
    cuts
}

/// The most that anything does with the address of each unit, and whether anything compares it.
fn ways(parts: &Parts, units: &Units) -> Vec<(Option<Escape>, bool)> {
    let mut ways = vec![(None, false); units.0.len()];
    for (index, piece) in parts.pieces.iter().enumerate() {
        for reference in &piece.references {
            let Target::Piece(place) = reference.target else {
                continue;
            };
            let is_code = parts.piece(place.piece).room == Room::Code;
            if place.piece.index() == index || is_code && place.offset != 0 {
                continue;
            }
            let way = way(parts, piece, reference);
            let (most, is_compared) = &mut ways[units.at(place)];
            *most = way.max(*most);
            *is_compared |= way == Some(Escape::Compared);
        }
    }
    ways
}

/// What becomes of an address that a field of a piece holds.
fn way(parts: &Parts, piece: &Piece, reference: &Reference) -> Option<Escape> {
    match (reference.how, piece.room) {
        (
            How::Instruction {
                kind: ReferenceKind::Address,
                ..
            },
            _,
        ) => match escape(parts.machine, &piece.bytes, reference.offset) {
            // Wherever it goes, somebody may keep it.
            Some(Escape::Lost | Escape::Returned) => Some(Escape::Handed),
            way => way,
        },
        (How::Instruction { .. }, _) | (_, Room::Code | Room::Unwind) => None,
        // Whoever reads the data may keep what stands in them.
        _ => Some(Escape::Handed),
    }
}

/// Whether a piece is data that programs see: no jump table, and no type of C++, whose names the runtime
/// compares.
fn is_data(diff: &Diff, piece: &Piece) -> bool {
    let Some(origin) = piece.origin else {
        return false;
    };
    let is_jump_table = matches!(resolve(&diff.fixed, origin.rva), Meaning::JumpTable(_));
    !is_jump_table && !is_type(piece)
}

/// Whether data are variables or structures, or hold addresses, as tables of functions do.
fn has_parts(diff: &Diff, piece: &Piece, unit: &Unit) -> bool {
    let mut references = piece.references.iter();
    if piece.room == Room::Writable
        || references.any(|it| (unit.start..unit.end).contains(&it.offset))
    {
        return true;
    }
    let image = &diff.fixed;
    let mut types = BTreeSet::new();
    if let Some(symbol) = unit.symbol {
        let index = image.data_symbol(symbol).type_index;
        image.types.named_in(index, &mut types);
    }
    !types.is_empty()
}

fn name<'a>(diff: &'a Diff, piece: &'a Piece, unit: &Unit) -> &'a str {
    match (unit.symbol, piece.room) {
        (Some(symbol), _) => &diff.fixed.data_symbol(symbol).name,
        (None, Room::Code) => &piece.name,
        (None, _) => NAMELESS,
    }
}

/// A name as far as the list holds it.
fn shortened(name: &str) -> Box<str> {
    let mut end = name.len().min(Brought::LONGEST);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name[..end].into()
}
