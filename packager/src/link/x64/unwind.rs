//! Unwind entries of stubs.
//!
//! Behind the prologue of its function a stub is a part of that function with, at most, one more
//! push, and a chained UNWIND_INFO says exactly that. Inside the prologue the state is what the
//! codes executed so far have made, so those are copied. In a function without unwind info a stub
//! needs an entry only if it pushes.

use super::super::lower::{Lowering, new_piece};
use super::Site;
use crate::piece::{How, Parts, PieceId, Place, Reference, Room, RuntimeEntry, Target, UnwindOf};
use crate::refusal::Code;

/// `push register` at the start of a stub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Push {
    /// Bytes of the instruction.
    pub(super) length: u8,
    /// Its number, 0 to 15.
    pub(super) register: u8,
}

const CHAINED: u8 = 4;
const HANDLERS: u8 = 3;

/// The head of an UNWIND_INFO.
struct Head {
    version: u8,
    flags: u8,
    prologue: u8,
    codes: u8,
    frame: u8,
}

fn head(bytes: &[u8]) -> Option<Head> {
    let &[first, prologue, codes, frame, ..] = bytes else {
        return None;
    };
    Some(Head {
        version: first & 7,
        flags: first >> 3,
        prologue,
        codes,
        frame,
    })
}

/// Whether an exception in the code of `entry` calls a handler. Unreadable info counts as one.
pub(super) fn has_handler(parts: &Parts, entry: &RuntimeEntry) -> bool {
    let mut entry = *entry;
    for _ in 0..32 {
        let UnwindOf::Info(info) = entry.unwind else {
            return true;
        };
        let Some(head) = head(&parts.piece(info).bytes) else {
            return true;
        };
        if head.flags & CHAINED == 0 {
            return head.flags & HANDLERS != 0;
        }
        let Some(parent) = chain_parent(parts, info) else {
            return true;
        };
        entry = parent;
    }
    true
}

/// The entry that a chained UNWIND_INFO continues.
fn chain_parent(parts: &Parts, info: PieceId) -> Option<RuntimeEntry> {
    let piece = parts.piece(info);
    let trailer = 4 + 2 * ((u32::from(head(&piece.bytes)?.codes) + 1) & !1);
    let target = |offset| {
        let at = piece
            .references
            .iter()
            .find(|reference| reference.offset == offset)?;
        match at.target {
            Target::Piece(place) => Some(place),
            _ => None,
        }
    };
    let (code, unwind) = (target(trailer)?, target(trailer + 8)?);
    let begin = u32::try_from(code.offset).ok()?;
    Some(RuntimeEntry {
        code: code.piece,
        begin,
        end: begin,
        unwind: UnwindOf::Info(unwind.piece),
    })
}

/// Adds the exception directory entry of a stub, where it needs one.
pub(super) fn describe_stub(
    lowering: &mut Lowering<'_>,
    site: &Site,
    entry: Option<&RuntimeEntry>,
    stub: PieceId,
    push: Option<Push>,
) -> Option<()> {
    let built = match entry {
        None if push.is_none() => return Some(()),
        None => Some(assemble(&[], 0, push, Vec::new())),
        Some(entry) => continue_entry(lowering.parts, site, entry, push),
    };
    let Some((bytes, references)) = built else {
        let message = "unwind info that a stub cannot continue".into();
        lowering.refuse(Code::UnwindInfo, site.id, site.offset, message);
        return None;
    };
    let name = lowering.pieces[stub.index()].name.clone();
    let end = lowering.pieces[stub.index()].size();
    let info = lowering.add(new_piece(&name, Room::Unwind, 4, bytes, references));
    lowering.runtime.push(RuntimeEntry {
        code: stub,
        begin: 0,
        end,
        unwind: UnwindOf::Info(info),
    });
    Some(())
}

type Info = (Vec<u8>, Vec<Reference>);

fn continue_entry(
    parts: &Parts,
    site: &Site,
    entry: &RuntimeEntry,
    push: Option<Push>,
) -> Option<Info> {
    let UnwindOf::Info(info) = entry.unwind else {
        return None;
    };
    let piece = parts.piece(info);
    let head = head(&piece.bytes)?;
    let done = site.offset.checked_sub(entry.begin)?;
    if done >= u32::from(head.prologue) {
        let link = [
            (0, Place::new(entry.code, entry.begin.into())),
            (4, Place::new(entry.code, entry.end.into())),
            (8, Place::start(info)),
        ];
        return Some(assemble(&[], head.frame, push, link.to_vec()));
    }
    let codes = piece.bytes.get(4..4 + 2 * usize::from(head.codes))?;
    let executed = executed_codes(&head, codes, done)?;
    let mut link = Vec::new();
    if head.flags & CHAINED != 0 {
        let parent = chain_parent(parts, info)?;
        let end = 4 + 2 * ((u32::from(head.codes) + 1) & !1) + 4;
        let end = piece
            .references
            .iter()
            .find(|reference| reference.offset == end)?;
        let Target::Piece(end) = end.target else {
            return None;
        };
        let UnwindOf::Info(next) = parent.unwind else {
            return None;
        };
        link.push((0, Place::new(parent.code, parent.begin.into())));
        link.push((4, end));
        link.push((8, Place::start(next)));
    }
    // Before the frame register is set, nothing may be computed from it.
    let frame_set = executed.chunks_exact(2).any(|code| code == [0, 3]);
    Some(assemble(
        &executed,
        if frame_set { head.frame } else { 0 },
        push,
        link,
    ))
}

/// The codes of the prologue instructions that end at or before `done`, as done from the start.
fn executed_codes(head: &Head, codes: &[u8], done: u32) -> Option<Vec<u8>> {
    if head.version != 1 {
        return None;
    }
    let mut executed = Vec::new();
    let mut at = 0;
    while at < codes.len() {
        let (&end, &operation) = (codes.get(at)?, codes.get(at + 1)?);
        let words = match (operation & 15, operation >> 4) {
            (0 | 2 | 3 | 10, _) => 1,
            (1, 0) | (4 | 8, _) => 2,
            (1, 1) | (5 | 9, _) => 3,
            _ => return None,
        };
        let code = codes.get(at..at + 2 * words)?;
        if u32::from(end) <= done {
            executed.push(0);
            executed.extend_from_slice(&code[1..]);
        }
        at += 2 * words;
    }
    Some(executed)
}

/// An UNWIND_INFO: the push, the codes behind it, and the chain.
fn assemble(codes: &[u8], frame: u8, push: Option<Push>, link: Vec<(u32, Place)>) -> Info {
    let flags = if link.is_empty() { 0 } else { CHAINED };
    let prologue = push.map_or(0, |push| push.length);
    let mut all = Vec::new();
    if let Some(push) = push {
        all.extend([push.length, push.register << 4]);
    }
    all.extend_from_slice(codes);
    let mut bytes = vec![1 | flags << 3, prologue, (all.len() / 2) as u8, frame];
    bytes.extend(all);
    if bytes.len() % 4 != 0 {
        bytes.extend([0; 2]);
    }
    let start = bytes.len() as u32;
    let references = link
        .into_iter()
        .map(|(offset, place)| Reference {
            offset: start + offset,
            how: How::ImageRelative,
            target: Target::Piece(place),
        })
        .collect::<Vec<_>>();
    bytes.resize(bytes.len() + 4 * references.len(), 0);
    (bytes, references)
}
