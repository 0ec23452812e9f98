//! The way of an address through registers, and through slots of the frame where that is asked for.

use std::ops::ControlFlow;

use rustc_hash::FxHashSet;

use super::effects::{self, Flow, Registers};
use super::kept::Kept;
use super::listing::words_from;

/// How many instructions behind an address its registers are followed, counted anew where others of
/// them hold it.
const WINDOW: usize = 128;

/// `x0` to `x7`: the arguments of a callee.
const ARGUMENTS: Registers = 0xff;

/// What is followed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Through {
    Registers,
    /// Slots of the frame as well, and the registers that these are loaded into.
    Frame,
}

/// What holds the address at one place of the code.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
struct Holders {
    held: Registers,
    loaded: Registers,
    slots: Kept,
}

/// An instruction on the way.
#[derive(Clone, Copy)]
pub(super) struct Step {
    pub(super) word: u32,
    /// The registers that hold the address before it, and did ever since it was taken.
    pub(super) held: Registers,
    /// The registers that it was loaded into from the frame.
    pub(super) loaded: Registers,
    /// Whether it calls or jumps to another function, with the address as an argument.
    pub(super) hands: bool,
}

/// Goes through the code behind the instruction at `offset`, which puts an address into a register, as
/// far as anything holds it. `passes_on` tells whether an instruction makes its destination hold it,
/// too.
pub(super) fn follow<T>(
    bytes: &[u8],
    offset: u32,
    through: Through,
    passes_on: impl Fn(u32, Registers) -> bool,
    mut see: impl FnMut(Step) -> ControlFlow<T>,
) -> Option<T> {
    let word_at = |at: u32| words_from(bytes, at).next();
    let first = Holders {
        held: effects::register(word_at(offset)?, 0),
        ..Holders::default()
    };
    let mut open = vec![(offset.checked_add(4)?, first)];
    let mut seen = FxHashSet::default();
    while let Some((at, mut holders)) = open.pop() {
        if holders == Holders::default() || seen.len() == WINDOW || !seen.insert((at, holders)) {
            continue;
        }
        let Some(word) = word_at(at) else { continue };
        let effects = effects::of(word);
        let target = target(word, at).filter(|target| (*target as usize) < bytes.len());
        let leaves = effects.flow == Flow::Call
            || effects.flow == Flow::Branch { conditional: false } && target.is_none();
        let step = Step {
            word,
            held: holders.held,
            loaded: holders.loaded,
            hands: leaves && holders.held & ARGUMENTS != 0,
        };
        if let ControlFlow::Break(found) = see(step) {
            return Some(found);
        }
        if leaves {
            holders.held &= !effects::VOLATILE;
            holders.loaded &= !effects::VOLATILE;
        }
        holders.step(word, through, &passes_on);
        if let Flow::Branch { .. } = effects.flow {
            open.extend(target.map(|target| (target, holders)));
        }
        let goes_on = matches!(
            effects.flow,
            Flow::Next | Flow::Call | Flow::Branch { conditional: true }
        );
        if goes_on {
            open.push((at.saturating_add(4), holders));
        }
    }
    None
}

impl Holders {
    /// What an instruction does to what holds the address.
    fn step(&mut self, word: u32, through: Through, passes_on: impl Fn(u32, Registers) -> bool) {
        let is_passed_on = passes_on(word, self.held);
        let is_loaded = passes_on(word, self.loaded) || self.slots.is_loaded(word);
        if through == Through::Frame {
            self.slots.store(word, self.held | self.loaded);
            self.slots.lose(word);
        }
        let writes = effects::of(word).writes;
        self.held &= !writes;
        self.loaded &= !writes;
        if is_passed_on {
            self.held |= effects::register(word, 0);
        } else if is_loaded {
            self.loaded |= effects::register(word, 0);
        }
    }
}

/// Whether an instruction copies an address from one register to another: `mov xd, xm`.
pub(super) fn is_copy(word: u32, held: Registers) -> bool {
    word & 0xffe0_ffe0 == 0xaa00_03e0 && effects::register(word, 16) & held != 0
}

/// Where a jump at offset `at` leads: `b`, `b.cond`, `cbz` and `cbnz`, `tbz` and `tbnz`.
fn target(word: u32, at: u32) -> Option<u32> {
    let distance =
        |low: u32, bits: u32| ((word << (32 - bits - low)).cast_signed() >> (32 - bits)) * 4;
    let distance = match word >> 24 {
        0x14..=0x17 => distance(0, 26),
        0x54 | 0x34 | 0x35 | 0xb4 | 0xb5 => distance(5, 19),
        0x36 | 0x37 | 0xb6 | 0xb7 => distance(5, 14),
        _ => return None,
    };
    at.checked_add_signed(distance)
}
