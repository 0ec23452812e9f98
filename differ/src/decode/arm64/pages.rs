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
//! fixed point. What a register may hold is one of four, each stronger than the one before:
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

mod state;

use hpbuild_metadata::{Rva, Side};

use super::effects::{self, ALL, Effects, Flow, Registers};
use super::field::{self, AddressField};
use crate::decode::{Body, Code, PageLink, Reference, ReferenceKind};
use state::{ANSWERED, EVERY, LOST, Level, Set, Sets, State, bits};

/// More blocks than any function has that a person wrote; each costs a state of the registers.
const MAX_BLOCKS: usize = 1 << 16;
/// Rounds over the blocks; each loop that carries a page round costs one.
const MAX_ROUNDS: usize = 64;

/// `x19` to `x28`: what a function keeps for its caller.
const KEPT: Registers = 0x1ff8_0000;

/// A run of instructions that is entered at its start and left at its end.
struct Block {
    start: u32,
    end: u32,
    /// How control leaves it.
    flow: Flow,
    /// The block that its last instruction branches to.
    target: Option<usize>,
    effect: BlockEffect,
}

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
    body: &'a mut Body<S>,
    sets: Sets,
    blocks: Vec<Block>,
    /// What holds at the start of each block.
    entries: Vec<Option<State>>,
    /// Blocks whose entry has changed since they were last gone over.
    changed: Vec<bool>,
    /// Whether a block is one that no direct way leads to, so that an indirect jump or the system
    /// must be the way.
    orphan: Vec<bool>,
    /// What holds where control goes on by a register: whole, for the orphans.
    indirect: Option<State>,
    /// The same as weak as can be, for every other block.
    indirect_weak: State,
    /// What holds at the end of any block, as weak as can be, for the orphans.
    anywhere: State,
    /// Whether one of the three before has changed since it was last passed on.
    to_spread: bool,
    /// By instruction: an `adrp` whose page is used in ways that are not understood.
    escaped: Vec<bool>,
    all_escaped: bool,
}

/// Fills in `page_links` and the references of the users. `body` holds the instructions of `code`,
/// with at least one [`ReferenceKind::Page`] among them.
pub(super) fn link<S: Side>(code: Code<'_, S>, body: &mut Body<S>) {
    let starts = starts(code, body);
    if starts.len() > MAX_BLOCKS {
        return;
    }
    let blocks = blocks(code, body, &starts);
    let count = body.instructions.len();
    let mut flow = Flowing {
        code,
        sets: Sets::new(),
        entries: vec![None; blocks.len()],
        changed: vec![false; blocks.len()],
        orphan: orphans(&blocks),
        indirect: None,
        indirect_weak: State::without_pages(ALL),
        anywhere: State::without_pages(ALL),
        to_spread: false,
        escaped: vec![false; count],
        all_escaped: false,
        blocks,
        body,
    };
    if flow.settle() {
        flow.report();
    }
}

/// The word of an instruction; for what is none 0, which is undefined and stops.
fn word_at<S: Side>(code: Code<'_, S>, body: &Body<S>, index: u32) -> u32 {
    let start = index as usize * 4;
    match code.bytes.get(start..start + 4).map(TryInto::try_into) {
        Some(Ok(word)) if body.instructions[index as usize].valid => u32::from_le_bytes(word),
        _ => 0,
    }
}

fn is_adrp(word: u32) -> bool {
    word & 0x9f00_0000 == 0x9000_0000
}

/// The index of the instruction that a branch leads to, where it is one of `code`.
fn inside<S: Side>(code: Code<'_, S>, body: &Body<S>, index: u32) -> Option<u32> {
    let target = body.instructions[index as usize].reference?.target;
    let offset = target.checked_sub(code.rva)?;
    (offset % 4 == 0 && (offset as usize) < code.bytes.len()).then_some(offset / 4)
}

/// First instructions of blocks: targets of branches and what stands behind them.
fn starts<S: Side>(code: Code<'_, S>, body: &Body<S>) -> Vec<u32> {
    let mut starts = vec![0];
    for index in 0..body.instructions.len() as u32 {
        let word = word_at(code, body, index);
        // Only the groups of branches and of undefined instructions end a block.
        if !matches!((word >> 25) & 0xf, 0b1010 | 0b1011 | 0) {
            continue;
        }
        match effects::of(word).flow {
            Flow::Next | Flow::Call => continue,
            Flow::Branch { .. } => starts.extend(inside(code, body, index)),
            Flow::Indirect | Flow::Stop => {}
        }
        if index as usize + 1 < body.instructions.len() {
            starts.push(index + 1);
        }
    }
    starts.sort_unstable();
    starts.dedup();
    starts
}

fn blocks<S: Side>(code: Code<'_, S>, body: &Body<S>, starts: &[u32]) -> Vec<Block> {
    let count = body.instructions.len() as u32;
    let ends = starts.iter().skip(1).copied().chain([count]);
    let block = |(start, end): (u32, u32)| {
        let mut effect = BlockEffect::default();
        let mut flow = Flow::Next;
        for index in start..end {
            let word = word_at(code, body, index);
            let effects = effects::of(word);
            flow = effects.flow;
            effect.makes_pages |= is_adrp(word);
            effect.reads |= effects.reads;
            effect.kills |= effects.writes;
            effect.nothing &= !effects.writes;
            if flow == Flow::Call {
                effect.calls = true;
                effect.kills |= ANSWERED;
                effect.nothing = effect.nothing & !ANSWERED | LOST;
            }
        }
        let target = match flow {
            Flow::Branch { .. } => inside(code, body, end - 1),
            _ => None,
        };
        Block {
            start,
            end,
            flow,
            target: target.and_then(|target| starts.binary_search(&target).ok()),
            effect,
        }
    };
    starts.iter().copied().zip(ends).map(block).collect()
}

/// Which blocks no direct way leads to.
fn orphans(blocks: &[Block]) -> Vec<bool> {
    let mut orphan = vec![true; blocks.len()];
    orphan[0] = false;
    for (index, block) in blocks.iter().enumerate() {
        if let Some(target) = block.target {
            orphan[target] = false;
        }
        if block.goes_on()
            && let Some(next) = orphan.get_mut(index + 1)
        {
            *next = false;
        }
    }
    orphan
}

impl Block {
    /// Whether control may go on to the next block.
    fn goes_on(&self) -> bool {
        matches!(
            self.flow,
            Flow::Next | Flow::Call | Flow::Branch { conditional: true }
        )
    }
}

impl<S: Side> Flowing<'_, S> {
    /// Goes over the blocks until nothing changes; false where that takes too long.
    fn settle(&mut self) -> bool {
        self.enter(0, &State::without_pages(0));
        for block in 0..self.blocks.len() {
            if self.orphan[block] {
                self.enter(block, &State::without_pages(ALL));
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
        if flow == Flow::Indirect {
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

    /// Takes what is not tied to one way to every block that it may reach: an indirect jump leads
    /// to the orphans for sure and perhaps to any other block, and the system may lead to an
    /// orphan from anywhere, the handler of an exception.
    fn spread(&mut self) {
        let (indirect, weak) = (self.indirect.clone(), self.indirect_weak.clone());
        let anywhere = self.anywhere.clone();
        for block in 0..self.blocks.len() {
            if self.orphan[block] {
                self.enter(block, &anywhere);
                if let Some(indirect) = &indirect {
                    self.enter(block, indirect);
                }
            } else if weak.live != 0 && self.entries[block].is_some() {
                self.enter(block, &weak);
            }
        }
    }

    /// Runs a block over `state`. With `users`, notes users of pages and pages that escape.
    fn run(&mut self, block: usize, state: &mut State, mut users: Option<&mut Vec<User>>) {
        let Block {
            start, end, effect, ..
        } = self.blocks[block];
        if !effect.makes_pages && effect.reads & state.live == 0 {
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
            if effects.reads & state.live != 0 {
                self.look(index, word, effects, state, users.as_deref_mut());
            } else {
                state.kill(effects.writes);
            }
            if effects.flow == Flow::Call {
                state.call();
            }
        }
    }

    /// An instruction that reads at least one register with pages.
    fn look(
        &mut self,
        index: u32,
        word: u32,
        effects: Effects,
        state: &mut State,
        users: Option<&mut Vec<User>>,
    ) {
        if let Some((to, from)) = copy_of(word) {
            state.set(to, Some(state.value(from)));
            return;
        }
        if let Some(users) = users {
            let offset = page_offset(word);
            let base = ((word >> 5) & 31) as usize;
            for register in bits(effects.reads & state.live) {
                let (level, set) = state.value(register);
                let as_base = register == base && reads_only_as_base(word, effects);
                match offset {
                    Some(field) if as_base && level == Level::Pages => {
                        users.push(User { index, field, set });
                    }
                    Some(_) if as_base => self.escape(set),
                    _ if level == Level::Stale => {}
                    _ => self.escape(set),
                }
            }
        }
        state.kill(effects.writes);
    }

    /// Pages that go with a jump out of the stretch into what may be another part of the function.
    /// A tail call takes none along in the registers that it must keep; a conditional jump is
    /// hardly ever a tail call, and takes along what it will.
    fn escape_by_exit(&mut self, block: usize, state: &State) {
        let Block { flow, target, .. } = self.blocks[block];
        let taken = match flow {
            Flow::Branch { conditional } if target.is_none() => {
                if conditional {
                    ALL
                } else {
                    KEPT
                }
            }
            _ => return,
        };
        for register in bits(state.live & taken) {
            let (level, set) = state.value(register);
            if level != Level::Stale {
                self.escape(set);
            }
        }
    }

    fn escape(&mut self, set: Set) {
        if set == EVERY {
            self.all_escaped = true;
        }
        for instruction in self.sets.members(set) {
            self.escaped[*instruction as usize] = true;
        }
    }

    /// With the states settled, writes down the users.
    fn report(&mut self) {
        let mut users = Vec::new();
        for block in 0..self.blocks.len() {
            if let Some(mut state) = self.entries[block].clone() {
                self.run(block, &mut state, Some(&mut users));
                self.escape_by_exit(block, &state);
            }
        }
        if self.all_escaped {
            return;
        }
        // A user ties its pages together: where one of them is not understood, neither are the
        // others, which is found by going on until nothing more escapes.
        loop {
            let before = users.len();
            let (kept, lost): (Vec<User>, Vec<User>) = users.into_iter().partition(|user| {
                let pages = self.sets.members(user.set);
                pages.iter().all(|page| !self.escaped[*page as usize])
            });
            lost.iter().for_each(|user| self.escape(user.set));
            users = kept;
            if users.len() == before {
                break;
            }
        }
        for user in users {
            self.note(user);
        }
        self.body.page_links.sort_unstable();
    }

    fn note(&mut self, user: User) {
        let page = self.sets.page(user.set).map(Rva::new);
        let word = word_at(self.code, self.body, user.index);
        let Some(target) = page.and_then(|page| user.field.target(word, page)) else {
            return;
        };
        self.body.instructions[user.index as usize].reference = Some(Reference {
            target,
            kind: field::kind(word, user.field),
            field: user.field.field(),
        });
        let pages = self.sets.members(user.set);
        self.body
            .page_links
            .extend(pages.iter().map(|page| PageLink {
                user: user.index,
                page: *page,
            }));
    }
}

impl BlockEffect {
    /// What running the block would do to `state`, of which it reads no page.
    fn apply(self, state: &mut State) {
        let kept = state.live & !self.kills;
        state.nothing = (state.nothing & !self.kills | self.nothing) & !kept;
        state.live = kept;
        if self.calls {
            state.weaken(kept & LOST);
        }
    }
}

/// An instruction with a page offset and the `adrp`s whose page it is.
struct User {
    index: u32,
    field: AddressField,
    set: Set,
}

fn page_of<S: Side>(body: &Body<S>, instruction: u32) -> Option<Rva<S>> {
    let reference = body.instructions.get(instruction as usize)?.reference?;
    (reference.kind == ReferenceKind::Page).then_some(reference.target)
}

/// The field of `word` where it may be an offset within a page.
fn page_offset(word: u32) -> Option<AddressField> {
    let field = AddressField::of(word)?;
    // A larger offset leaves the page, which no linker writes; and the stack pointer is never
    // made from a page.
    let to_stack = field == AddressField::Add12 && word & 31 == 31;
    (field.is_page_offset() && field.value(word) < 0x1000 && !to_stack).then_some(field)
}

/// Whether the base register of `word`, a load or store, is not also what it stores.
fn reads_only_as_base(word: u32, effects: Effects) -> bool {
    let (rt, rn) = (word & 31, (word >> 5) & 31);
    let vector = word & (1 << 26) != 0;
    rt != rn || vector || effects.writes & (1 << rt) != 0
}

/// Destination and source of `mov xD, xS`.
fn copy_of(word: u32) -> Option<(usize, usize)> {
    let (to, from) = ((word & 31) as usize, ((word >> 16) & 31) as usize);
    (word & 0xffe0_ffe0 == 0xaa00_03e0 && to < 31 && from < 31).then_some((to, from))
}
