//! Finds, for each instruction with a page offset, the `adrp` that made the page.
//!
//! ```text
//!     adrp x8, page of counter         ; def
//!     cbz  x0, skip
//!     ldr  w9, [x8, offset of counter] ; user of def
//! skip:
//!     str  w1, [x8, offset of counter] ; user of def, by two ways
//! ```
//!
//! The pages in the registers are followed through the control flow of one stretch of code to a
//! fixed point. A jump through a table that is understood leads to the table's entries (see
//! `switches`), any other indirect jump to all blocks that no branch leads to. What a register may
//! hold is one of four, each stronger than the one before:
//!
//! 1. nothing: what a call leaves behind in registers that it need not keep;
//! 2. *stale* pages: they were there before such a call, or belong to a way that may not exist;
//! 3. pages, all of the same address;
//! 4. something else, or different things on different ways; the pages among them are *mixed*.
//!
//! Where ways meet, the stronger wins and equals are united. That a call leaves nothing rather
//! than something else matters for calls that do not come back: what stands behind them in the
//! code is reached from elsewhere, and the page set there must not be lost.
//!
//! A register with pages, used with a page offset, is a user of them. Every other look at pages or
//! mixed pages, and a use of mixed or stale ones with a page offset, means that the code does
//! something with the page that is not understood here. Then none of the links of these pages are
//! reported, so that they stand out as pages without users. Other looks at stale pages are common,
//! since behind a call that does not come back, and where other code jumps in, the register holds
//! something else by then.
//!
//! Storing a page is such a look, unless it goes to a slot of the frame that can be followed (see
//! `frame`). Then the function is gone over again, with that slot beside the registers.

mod state;
mod users;

use hpbuild_metadata::{Rva, Side};

use super::blocks::{Block, blocks, word_at};
use super::effects::{self, Effects, Flow, Registers};
use super::frame::{Frame, Slots};
use crate::decode::{Body, Code, ReferenceKind};
use state::{ANSWERED, EVERYWHERE, LOST, Level, Places, SLOTS, Sets, State};
use users::Found;

/// Rounds over the blocks; each loop that carries a page round costs one.
const MAX_ROUNDS: usize = 64;

/// What a block does to registers that it does not read.
#[derive(Clone, Copy, Default)]
struct BlockEffect {
    /// Whether it makes pages.
    makes_pages: bool,
    /// Whether it calls.
    calls: bool,
    reads: Registers,
    /// Registers that lose what they held.
    kills: Registers,
    /// Registers that hold nothing at the end, whatever they held before.
    nothing: Registers,
}

/// One function under way.
struct Flowing<'a, S: Side> {
    code: Code<'a, S>,
    body: &'a Body<S>,
    blocks: &'a [Block],
    /// By block.
    effects: &'a [BlockEffect],
    slots: &'a Slots,
    sets: Sets,
    /// What holds at the start of each block.
    entries: Vec<Option<State>>,
    /// Blocks whose entry has changed since they were last gone over.
    changed: Vec<bool>,
    /// What holds where control goes on by a register, nobody knows where: whole, for the orphans.
    indirect: Option<State>,
    /// The same as weak as can be, for every other block.
    indirect_weak: State,
    /// What holds at the end of any block, as weak as can be, for the orphans.
    anywhere: State,
    /// Whether one of the three before has changed since it was last passed on.
    to_spread: bool,
}

/// Fills in `page_links` and the references of the users. `body` holds the instructions of `code`,
/// with at least one [`ReferenceKind::Page`] among them.
pub(super) fn link<S: Side>(code: Code<'_, S>, body: &mut Body<S>) {
    let Some(blocks) = blocks(code, body) else {
        return;
    };
    let effects: Vec<BlockEffect> = blocks
        .iter()
        .map(|block| BlockEffect::of(code, body, block))
        .collect();
    let mut slots = Slots::default();
    let mut frame = None;
    // Each further round follows at least one slot more.
    let found = loop {
        let Some(found) = Flowing::new(code, body, (&blocks, &effects), &slots).find() else {
            return;
        };
        if found.stored.is_empty() {
            break found;
        }
        let frame = frame.get_or_insert_with(|| Frame::of(code, body, &blocks));
        let more = frame.as_ref();
        if !more.is_some_and(|frame| slots.extend(frame, &found.stored)) {
            break found;
        }
    };
    found.report(code, body);
}

impl<'a, S: Side> Flowing<'a, S> {
    fn new(
        code: Code<'a, S>,
        body: &'a Body<S>,
        (blocks, effects): (&'a [Block], &'a [BlockEffect]),
        slots: &'a Slots,
    ) -> Self {
        let nowhere = State::without_pages(EVERYWHERE, slots.count());
        Flowing {
            code,
            body,
            blocks,
            effects,
            slots,
            sets: Sets::new(),
            entries: vec![None; blocks.len()],
            changed: vec![false; blocks.len()],
            indirect: None,
            indirect_weak: nowhere.clone(),
            anywhere: nowhere,
            to_spread: false,
        }
    }

    /// Goes over the blocks until nothing changes; false where that takes too long.
    fn settle(&mut self) -> bool {
        let slots = self.slots.count();
        self.enter(0, &State::without_pages(0, slots));
        let nowhere = State::without_pages(EVERYWHERE, slots);
        for block in 0..self.blocks.len() {
            if self.blocks[block].orphan {
                self.enter(block, &nowhere);
            }
        }
        for _ in 0..MAX_ROUNDS {
            let mut settled = true;
            for block in 0..self.blocks.len() {
                if !std::mem::take(&mut self.changed[block]) {
                    continue;
                }
                settled = false;
                if let Some(mut state) = self.entries[block].clone() {
                    self.run(block, &mut state, None);
                    self.leave(block, &state);
                }
            }
            if std::mem::take(&mut self.to_spread) {
                self.spread();
            } else if settled {
                return true;
            }
        }
        false
    }

    /// Brings `state` to the start of a block.
    fn enter(&mut self, block: usize, state: &State) {
        self.changed[block] |= match &mut self.entries[block] {
            Some(entry) => entry.join(state, &mut self.sets),
            entry => {
                *entry = Some(state.clone());
                true
            }
        };
    }

    /// Passes the state at the end of a block on to where control may go.
    fn leave(&mut self, block: usize, state: &State) {
        let (flow, target) = (self.blocks[block].flow, self.blocks[block].target);
        if let Some(target) = target {
            self.enter(target, state);
        }
        if self.blocks[block].goes_on() && block + 1 < self.blocks.len() {
            self.enter(block + 1, state);
        }
        for case in 0..self.blocks[block].cases.len() {
            self.enter(self.blocks[block].cases[case], state);
        }
        if flow == Flow::Indirect && self.blocks[block].cases.is_empty() {
            self.to_spread |= match &mut self.indirect {
                Some(indirect) => indirect.join(state, &mut self.sets),
                indirect => {
                    *indirect = Some(state.clone());
                    true
                }
            };
            self.to_spread |= self.indirect_weak.join(&state.weakened(), &mut self.sets);
        }
        if state.live != 0 {
            self.to_spread |= self.anywhere.join(&state.weakened(), &mut self.sets);
        }
    }

    /// Takes what is not tied to one way to every block that it may reach: an indirect jump of which
    /// nobody knows where it leads goes to the orphans for sure and perhaps to any other block, and
    /// the system may lead to an orphan from anywhere, the handler of an exception.
    fn spread(&mut self) {
        let (indirect, weak) = (self.indirect.clone(), self.indirect_weak.clone());
        let anywhere = self.anywhere.clone();
        for block in 0..self.blocks.len() {
            if self.blocks[block].orphan {
                self.enter(block, &anywhere);
                if let Some(indirect) = &indirect {
                    self.enter(block, indirect);
                }
            } else if weak.live != 0 && self.entries[block].is_some() {
                self.enter(block, &weak);
            }
        }
    }

    /// Runs a block over `state`. With `found`, notes users of pages and pages that escape.
    fn run(&mut self, block: usize, state: &mut State, mut found: Option<&mut Found>) {
        let Block { start, end, .. } = self.blocks[block];
        let effect = self.effects[block];
        let moves = self.slots.moves(start, end);
        let reads = Places::from(effect.reads);
        if !effect.makes_pages && reads & state.live == 0 && moves.is_empty() {
            return effect.apply(state);
        }
        for index in start..end {
            let word = word_at(self.code, self.body, index);
            if is_adrp(word) {
                let register = (word & 31) as usize;
                if register < 31 {
                    let page = page_of(self.body, index).map(Rva::get);
                    let set = page.map(|page| (Level::Pages, self.sets.single(index, page)));
                    state.set(register, set);
                }
                continue;
            }
            let effects = effects::of(word);
            if !moves.is_empty() && self.moves(index, effects, state) {
                continue;
            }
            if Places::from(effects.reads) & state.live != 0 {
                self.look(index, word, effects, state, found.as_deref_mut());
            } else {
                state.kill(effects.writes.into());
            }
            if effects.flow == Flow::Call {
                state.call();
            }
        }
    }

    /// Whether the instruction moves registers to or from slots, which is then done.
    fn moves(&self, index: u32, effects: Effects, state: &mut State) -> bool {
        let moves = self.slots.moves(index, index + 1);
        if moves.is_empty() {
            return false;
        }
        for it in moves.iter().filter(|it| it.is_store) {
            match it.register {
                31 => state.kill(1 << (SLOTS + it.slot)),
                register => state.copy(SLOTS + it.slot, register as usize),
            }
        }
        // The base is an address of the frame, and no page.
        state.kill(effects.writes.into());
        for it in moves.iter().filter(|it| !it.is_store && it.register < 31) {
            state.copy(it.register as usize, SLOTS + it.slot);
        }
        true
    }

    /// An instruction that reads at least one register with pages.
    fn look(
        &mut self,
        index: u32,
        word: u32,
        effects: Effects,
        state: &mut State,
        found: Option<&mut Found>,
    ) {
        if let Some((to, from)) = copy_of(word) {
            state.copy(to, from);
            return;
        }
        if let Some(found) = found {
            found.look(index, word, effects, state, &self.sets);
        }
        state.kill(effects.writes.into());
    }

    /// Goes over everything and gathers the users; `None` where that takes too long.
    fn find(mut self) -> Option<Found> {
        if !self.settle() {
            return None;
        }
        let mut found = Found::new(self.body.instructions.len());
        for block in 0..self.blocks.len() {
            if let Some(mut state) = self.entries[block].clone() {
                self.run(block, &mut state, Some(&mut found));
                found.leave(&self.blocks[block], &state, &self.sets);
            }
        }
        found.settle(self.sets);
        Some(found)
    }
}

impl BlockEffect {
    fn of<S: Side>(code: Code<'_, S>, body: &Body<S>, block: &Block) -> Self {
        let mut effect = Self::default();
        for index in block.start..block.end {
            let word = word_at(code, body, index);
            let effects = effects::of(word);
            effect.makes_pages |= is_adrp(word);
            effect.reads |= effects.reads;
            effect.kills |= effects.writes;
            effect.nothing &= !effects.writes;
            if effects.flow == Flow::Call {
                effect.calls = true;
                effect.kills |= ANSWERED;
                effect.nothing = effect.nothing & !ANSWERED | LOST;
            }
        }
        effect
    }

    /// What running the block would do to `state`, of which it reads no page.
    fn apply(self, state: &mut State) {
        let kills = Places::from(self.kills);
        let kept = state.live & !kills;
        state.nothing = (state.nothing & !kills | Places::from(self.nothing)) & !kept;
        state.live = kept;
        if self.calls {
            state.weaken(kept & Places::from(LOST));
        }
    }
}

fn is_adrp(word: u32) -> bool {
    word & 0x9f00_0000 == 0x9000_0000
}

fn page_of<S: Side>(body: &Body<S>, instruction: u32) -> Option<Rva<S>> {
    let reference = body.instructions.get(instruction as usize)?.reference?;
    (reference.kind == ReferenceKind::Page).then_some(reference.target)
}

/// Destination and source of `mov xD, xS`.
fn copy_of(word: u32) -> Option<(usize, usize)> {
    let (to, from) = ((word & 31) as usize, ((word >> 16) & 31) as usize);
    (word & 0xffe0_ffe0 == 0xaa00_03e0 && to < 31 && from < 31).then_some((to, from))
}
