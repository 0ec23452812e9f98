//! Slots of the frame that hold an address, as unoptimised code keeps its variables in.

use super::effects::{self, Registers};

/// How many slots of one address are followed.
const MOST: usize = 4;

/// `x29`, and 31 for the stack pointer.
const FRAME: [u32; 2] = [29, 31];

/// A slot by the register that it is reached through and the distance from there. What leads to it
/// in another way is not known to.
type Slot = (u32, i32);

/// The slots that hold an address.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(super) struct Kept([Option<Slot>; MOST]);

impl Kept {
    /// Whether an instruction puts what one of them holds into a register.
    pub(super) fn is_loaded(self, word: u32) -> bool {
        access(word).is_some_and(|(slot, is_load)| is_load && self.0.contains(&Some(slot)))
    }

    /// Notes what an instruction stores, where these registers hold the address.
    pub(super) fn store(&mut self, word: u32, held: Registers) {
        let Some((slot, false)) = access(word) else {
            return;
        };
        for known in &mut self.0 {
            known.take_if(|known| *known == slot);
        }
        let is_kept = effects::register(word, 0) & held != 0;
        if let Some(free) = self.0.iter_mut().find(|known| known.is_none() && is_kept) {
            *free = Some(slot);
        }
    }

    /// Forgets the slots that are reached through a register which gets another value, as far as an
    /// addition, or an access of the stack, says so.
    pub(super) fn lose(&mut self, word: u32) {
        let base = word >> 5 & 31;
        let is_moved = match word {
            // add, sub; loads and stores that move their base, of one register and of two.
            _ if word & 0xbf80_0000 == 0x9100_0000 => word & 31 == 31,
            _ if word & 0xbfe0_0000 == 0x8b20_0000 => word & 31 == 31,
            _ if word & 0x3b20_0400 == 0x3800_0400 => base == 31,
            _ if word & 0x3a80_0000 == 0x2880_0000 => base == 31,
            _ => false,
        };
        let is_lost = |known: u32| match known {
            31 => is_moved,
            _ => effects::of(word).writes & 1 << known != 0,
        };
        for known in &mut self.0 {
            known.take_if(|known| is_lost(known.0));
        }
    }
}

/// The slot that a load or a store of a whole register reaches, and whether it is a load.
fn access(word: u32) -> Option<(Slot, bool)> {
    let offset = match word & 0xffc0_0000 {
        0xf900_0000 | 0xf940_0000 => (word >> 10 & 0xfff).cast_signed() * 8,
        0xf800_0000 | 0xf840_0000 if word & 0x0020_0c00 == 0 => (word << 11).cast_signed() >> 23,
        _ => return None,
    };
    let base = word >> 5 & 31;
    let is_load = word & 1 << 22 != 0;
    FRAME.contains(&base).then_some(((base, offset), is_load))
}
