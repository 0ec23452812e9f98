//! What a unit is and does, as a number: two patches that bring the same function or constant have the
//! same number for it, wherever it lies.
//!
//! A unit does what its own bytes say and what those do that it leads to. These lead to each other
//! in circles, so that pieces which lead to each other count together: the number of such a group is made
//! of the bytes of its members and of the numbers of those that the group leads to, which are known before.

use sha2::{Digest as _, Sha256};

use super::{Unit, Units};
use crate::piece::{How, Parts, Piece, Place, Room, Target, UnwindOf};

type Digest = [u8; 32];

/// The number of each unit, and whether it is or leads to a variable that the patch brings.
pub(super) fn digests(parts: &Parts, units: &Units) -> Vec<(Digest, bool)> {
    let graph = Graph::new(parts, units);
    let mut found = vec![([0; 32], false); units.0.len()];
    let mut is_known = vec![false; units.0.len()];
    for group in graph.groups() {
        // Within a group others are told by what is in them alone.
        let inside = |found: &[(Digest, bool)], id: usize| match is_known[id] {
            true => found[id].0,
            false => graph.local[id],
        };
        let outward = group.iter().map(|id| {
            let mut hash = Sha256::new();
            hash.update(graph.local[*id]);
            for to in &graph.edges[*id] {
                hash.update(inside(&found, *to));
            }
            <Digest>::from(hash.finalize())
        });
        let outward: Vec<Digest> = outward.collect();
        let mut sorted = outward.clone();
        sorted.sort_unstable();
        let whole: Digest = sorted
            .iter()
            .fold(Sha256::new(), |hash, it| hash.chain_update(it))
            .finalize()
            .into();
        let leads = group.iter().flat_map(|id| &graph.edges[*id]);
        let has_state = leads.clone().any(|to| found[*to].1)
            || group
                .iter()
                .any(|id| is_variable(parts.piece(units.0[*id].piece)));
        for (id, own) in group.iter().zip(&outward) {
            let hash = Sha256::new().chain_update(whole).chain_update(own);
            found[*id] = (hash.finalize().into(), has_state);
        }
        for id in group {
            is_known[id] = true;
        }
    }
    found
}

/// Whether a piece describes a type of C++, which the runtime compares by its name and writes to.
pub(in crate::extract) fn is_type(piece: &Piece) -> bool {
    piece.name.starts_with("??_R0") || piece.name.starts_with("type descriptor at ")
}

fn is_variable(piece: &Piece) -> bool {
    piece.room == Room::Writable && !is_type(piece)
}

/// Which units lead to which.
struct Graph {
    /// Of each unit alone: its bytes, where its fields are, and what they lead to in the base.
    local: Vec<Digest>,
    /// In the order of the fields.
    edges: Vec<Vec<usize>>,
}

impl Graph {
    fn new(parts: &Parts, units: &Units) -> Self {
        let mut hashes: Vec<Sha256> = Vec::new();
        let mut edges: Vec<Vec<usize>> = Vec::new();
        for unit in &units.0 {
            let mut to = Vec::new();
            hashes.push(local(parts, units, unit, &mut to));
            edges.push(to);
        }
        // What happens when an exception leaves a function is a part of it.
        for entry in &parts.runtime {
            let code = units.at(Place::start(entry.code));
            let hash = &mut hashes[code];
            hash.update(entry.begin.to_le_bytes());
            hash.update(entry.end.to_le_bytes());
            match entry.unwind {
                UnwindOf::Info(id) => edges[code].push(units.at(Place::start(id))),
                UnwindOf::Packed(word) => hash.update(word.to_le_bytes()),
            }
        }
        let local = hashes.into_iter().map(|hash| hash.finalize().into());
        Self {
            local: local.collect(),
            edges,
        }
    }

    /// Units that lead to each other, each group behind those that it leads to (Tarjan's strongly
    /// connected components, without recursion).
    fn groups(&self) -> Vec<Vec<usize>> {
        const NEW: usize = usize::MAX;
        let count = self.edges.len();
        let (mut number, mut lowest) = (vec![NEW; count], vec![NEW; count]);
        let mut is_open = vec![false; count];
        let (mut open, mut groups) = (Vec::new(), Vec::new());
        let mut next = 0;
        for root in 0..count {
            let mut way: Vec<(usize, usize)> = Vec::new();
            if number[root] == NEW {
                way.push((root, 0));
            }
            while let Some((at, edge)) = way.pop() {
                if edge == 0 {
                    (number[at], lowest[at]) = (next, next);
                    next += 1;
                    open.push(at);
                    is_open[at] = true;
                }
                if let Some(&to) = self.edges[at].get(edge) {
                    way.push((at, edge + 1));
                    if number[to] == NEW {
                        way.push((to, 0));
                    } else if is_open[to] {
                        lowest[at] = lowest[at].min(number[to]);
                    }
                    continue;
                }
                if let Some((from, _)) = way.last() {
                    lowest[*from] = lowest[*from].min(lowest[at]);
                }
                if lowest[at] == number[at] {
                    let start = open.iter().rposition(|it| *it == at).unwrap_or(0);
                    let group = open.split_off(start);
                    for id in &group {
                        is_open[*id] = false;
                    }
                    groups.push(group);
                }
            }
        }
        groups
    }
}

/// Begins the number of a unit alone; adds to `to` what it leads to.
fn local(parts: &Parts, units: &Units, unit: &Unit, to: &mut Vec<usize>) -> Sha256 {
    let mut hash = Sha256::new();
    let piece = parts.piece(unit.piece);
    let first = piece
        .references
        .partition_point(|reference| reference.offset < unit.start);
    let inside = piece.references[first..].iter();
    let inside = inside.take_while(|reference| reference.offset < unit.end);
    let stored = piece.bytes.len();
    let (start, end) = (unit.start as usize, unit.end as usize);
    let mut bytes = piece.bytes[start.min(stored)..end.min(stored)].to_vec();
    for reference in inside.clone() {
        clear(&mut bytes, reference.offset - unit.start, reference.how);
    }
    // How many zeros are stored says nothing.
    let zeros = bytes.iter().rev().take_while(|byte| **byte == 0).count();
    bytes.truncate(bytes.len() - zeros);
    hash.update([piece.room as u8]);
    hash.update((unit.end - unit.start).to_le_bytes());
    hash.update((bytes.len() as u64).to_le_bytes());
    hash.update(&bytes);
    let mut place = |hash: &mut Sha256, place: Place| {
        let target = units.at(place);
        let offset = place.offset.saturating_sub(units.0[target].start.into());
        hash.update(offset.to_le_bytes());
        to.push(target);
    };
    for reference in inside {
        hash.update((reference.offset - unit.start).to_le_bytes());
        match reference.how {
            // What it does with the address is in its bytes.
            How::Instruction { length, .. } => hash.update([0, length]),
            How::Pointer => hash.update([1]),
            How::ImageRelative => hash.update([2]),
            How::Difference {
                size,
                signed,
                shift,
                from,
            } => {
                hash.update([3, size, u8::from(signed), shift]);
                place(&mut hash, from);
            }
        }
        match reference.target {
            Target::Piece(target) => {
                hash.update([0]);
                place(&mut hash, target);
            }
            Target::Base(rva) => {
                hash.update([1]);
                hash.update(rva.get().to_le_bytes());
            }
            Target::BaseValue(rva) => {
                hash.update([2]);
                hash.update(rva.get().to_le_bytes());
            }
            Target::Import(index) => {
                let slot = parts.imports.get(index as usize).map(|import| import.slot);
                hash.update([3]);
                hash.update(slot.map_or(0, |slot| slot.get()).to_le_bytes());
            }
            Target::PatchImageBase => hash.update([4]),
            Target::OfUsers => hash.update([5]),
        }
    }
    for (user, page) in &piece.page_links {
        hash.update(user.to_le_bytes());
        hash.update(page.to_le_bytes());
    }
    hash
}

/// Clears a field, in which anything may stand.
fn clear(bytes: &mut [u8], offset: u32, how: How) {
    let at = offset as usize;
    let size = match how {
        How::Instruction { length, .. } => length.into(),
        How::Pointer => 8,
        How::ImageRelative => 4,
        How::Difference { size, .. } => size.into(),
    };
    let end = at.saturating_add(size).min(bytes.len());
    let Some(field) = bytes.get_mut(at..end) else {
        return;
    };
    match how {
        How::Instruction { field: bits, .. } => bits.clear(field),
        _ => field.fill(0),
    }
}

#[cfg(test)]
mod tests;
