//! The slots of a frame that can be followed, and the moves to and from them.

use super::{Frame, Touch};

/// Slots that are followed in one function.
pub(in crate::decode::arm64) const MAX_SLOTS: usize = 33;

/// Bytes of a slot.
const SLOT: i32 = 8;

/// A register that is moved to or from a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::decode::arm64) struct Move {
    pub(in crate::decode::arm64) instruction: u32,
    /// 31 for zero.
    pub(in crate::decode::arm64) register: u32,
    /// Its number among the slots.
    pub(in crate::decode::arm64) slot: usize,
    pub(in crate::decode::arm64) is_store: bool,
}

/// Slots, and all moves to and from them in code order.
#[derive(Default)]
pub(in crate::decode::arm64) struct Slots {
    places: Vec<i32>,
    moves: Vec<Move>,
}

impl Slots {
    /// Takes in the slots that the instructions `spills`, by index, store registers to; whether any
    /// is new.
    pub(in crate::decode::arm64) fn extend(&mut self, frame: &Frame, spills: &[u32]) -> bool {
        let before = self.places.len();
        for touch in &frame.touches {
            if !touch.access.is_store || !spills.contains(&touch.instruction) {
                continue;
            }
            for (place, _) in touch.moves() {
                let full = self.places.len() == MAX_SLOTS;
                if !full && !self.places.contains(&place) && frame.can_follow(place) {
                    self.places.push(place);
                }
            }
        }
        if self.places.len() == before {
            return false;
        }
        let moves = frame.touches.iter().flat_map(|touch| {
            touch.moves().filter_map(|(place, register)| {
                Some(Move {
                    instruction: touch.instruction,
                    register,
                    slot: self.places.iter().position(|slot| *slot == place)?,
                    is_store: touch.access.is_store,
                })
            })
        });
        let mut moves: Vec<Move> = moves.collect();
        moves.sort_by_key(|it| it.instruction);
        self.moves = moves;
        true
    }

    pub(in crate::decode::arm64) fn count(&self) -> usize {
        self.places.len()
    }

    /// The moves of the instructions from `start` to before `end`.
    pub(in crate::decode::arm64) fn moves(&self, start: u32, end: u32) -> &[Move] {
        let at = |index: u32| self.moves.partition_point(|it| it.instruction < index);
        &self.moves[at(start)..at(end)]
    }
}

impl Touch {
    /// The places and registers of whole registers.
    fn moves(&self) -> impl Iterator<Item = (i32, u32)> {
        let (first, second) = match self.access.whole {
            Some((first, second)) => (Some(first), second),
            None => (None, None),
        };
        let behind = self.place.saturating_add(SLOT);
        let first = first.map(|register| (self.place, register));
        first
            .into_iter()
            .chain(second.map(|register| (behind, register)))
    }
}

impl Frame {
    /// Whether nothing but moves of whole registers can touch the slot at this place.
    fn can_follow(&self, slot: i32) -> bool {
        let Some(end) = slot.checked_add(SLOT) else {
            return false;
        };
        let apart = |place: i32, bytes: i32| {
            let behind = place.checked_add(bytes);
            place >= end || behind.is_some_and(|behind| behind <= slot)
        };
        let harmless = |touch: &Touch| match touch.access.whole {
            Some(_) => touch
                .moves()
                .all(|(place, _)| place == slot || apart(place, SLOT)),
            None => apart(touch.place, touch.access.bytes),
        };
        end <= 0 && end <= self.leaked && self.touches.iter().all(harmless)
    }
}
