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

use hpbuild_metadata::{Rva, Side};
use rustc_hash::FxHashMap;

use super::effects::{self, ALL, Effects, Flow, Registers, VOLATILE};
use super::field::{self, AddressField};
use crate::decode::{Body, Code, PageLink, Reference, ReferenceKind};

/// More blocks than any function has that a person wrote; each costs a state of the registers.
const MAX_BLOCKS: usize = 1 << 16;
/// Rounds over the blocks; each loop that carries a page round costs one.
const MAX_ROUNDS: usize = 64;
/// Pages told apart in one register before all pages of the function count as mixed up.
const MAX_SET: usize = 64;

/// Registers in which a callee may hand back results.
const RESULTS: Registers = 0xff;

/// A set of `adrp`s, by index in [`Sets::sets`].
type Set = u32;
/// Every `adrp` of the function.
const EVERY: Set = 0;

/// How much is known of a register with pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Stale,
    Pages,
    Mixed,
}

/// What the registers hold at one place.
#[derive(Clone, PartialEq, Eq)]
struct State {
    /// Registers with a value in `values`.
    live: Registers,
    /// Registers that hold nothing; the rest hold something that is no page.
    nothing: Registers,
    values: [(Level, Set); 31],
}

impl State {
    const fn all(nothing: Registers) -> Self {
        Self {
            live: 0,
            nothing,
            values: [(Level::Stale, EVERY); 31],
        }
    }

    fn get(&self, register: usize) -> Option<(Level, Set)> {
        (self.live & (1 << register) != 0).then(|| self.values[register])
    }

    fn set(&mut self, register: usize, value: Option<(Level, Set)>, nothing: bool) {
        let bit = 1 << register;
        self.live &= !bit;
        self.nothing &= !bit;
        match value {
            Some(value) => {
                self.live |= bit;
                self.values[register] = value;
            }
            None if nothing => self.nothing |= bit,
            None => {}
        }
    }

    fn kill(&mut self, registers: Registers) {
        self.live &= !registers;
        self.nothing &= !registers;
    }

    /// What is left after a call.
    fn call(&mut self) {
        self.kill(RESULTS | 1 << 30);
        let lost = VOLATILE & !RESULTS;
        self.nothing |= lost & !self.live;
        for register in bits(lost & self.live) {
            self.values[register].0 = Level::Stale;
        }
    }

    /// The same, with everything as weak as it can be: for ways that may not exist.
    fn weakened(&self) -> Self {
        let mut state = self.clone();
        state.nothing = ALL & !state.live;
        for register in bits(state.live) {
            state.values[register].0 = Level::Stale;
        }
        state
    }
}

fn bits(mut set: Registers) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let bit = set.trailing_zeros();
        set &= set.wrapping_sub(1);
        (bit < 32).then_some(bit as usize)
    })
}

/// Sets of `adrp`s, each kept once.
#[derive(Default)]
struct Sets {
    /// Indexes of instructions, sorted. The first set stands for all.
    sets: Vec<Vec<u32>>,
    singles: FxHashMap<u32, Set>,
    unions: FxHashMap<(Set, Set), Set>,
    ids: FxHashMap<Vec<u32>, Set>,
}

impl Sets {
    fn single(&mut self, instruction: u32) -> Set {
        let sets = &mut self.sets;
        *self.singles.entry(instruction).or_insert_with(|| {
            sets.push(vec![instruction]);
            self.ids.insert(vec![instruction], sets.len() as Set - 1);
            sets.len() as Set - 1
        })
    }

    fn union(&mut self, left: Set, right: Set) -> Set {
        if left == right {
            return left;
        }
        if left == EVERY || right == EVERY {
            return EVERY;
        }
        let key = (left.min(right), left.max(right));
        if let Some(set) = self.unions.get(&key) {
            return *set;
        }
        let mut members = [&*self.sets[left as usize], &*self.sets[right as usize]].concat();
        members.sort_unstable();
        members.dedup();
        let set = if members.len() > MAX_SET {
            EVERY
        } else if let Some(set) = self.ids.get(&members) {
            *set
        } else {
            self.sets.push(members.clone());
            let set = self.sets.len() as Set - 1;
            self.ids.insert(members, set);
            set
        };
        self.unions.insert(key, set);
        set
    }
}

/// One function under way.
struct Flowing<'a, S: Side> {
    code: Code<'a, S>,
    body: &'a mut Body<S>,
    sets: Sets,
    /// First instruction of each block, sorted.
    blocks: Vec<u32>,
    /// What holds at the start of each block.
    entries: Vec<Option<State>>,
    /// Blocks that no direct way leads to, for which an indirect jump or the system must be the way.
    orphans: Vec<usize>,
    /// Whether each block is one of the orphans.
    is_orphan: Vec<bool>,
    /// What holds where control goes on by a register: whole, for the orphans.
    indirect: Option<State>,
    /// The same as weak as can be, for every other block.
    indirect_weak: State,
    /// What holds at the end of any block, as weak as can be, for the orphans.
    anywhere: State,
    /// By instruction: an `adrp` whose page is used in ways that are not understood.
    escaped: Vec<bool>,
    all_escaped: bool,
}

/// Fills in `page_links` and the references of the users. `body` holds the instructions of `code`,
/// with at least one [`ReferenceKind::Page`] among them.
pub(super) fn link<S: Side>(code: Code<'_, S>, body: &mut Body<S>) {
    let blocks = blocks(code, body);
    if blocks.len() > MAX_BLOCKS {
        return;
    }
    let count = body.instructions.len();
    let mut flow = Flowing {
        code,
        sets: Sets {
            sets: vec![Vec::new()],
            ..Sets::default()
        },
        entries: vec![None; blocks.len()],
        orphans: Vec::new(),
        is_orphan: vec![false; blocks.len()],
        indirect: None,
        indirect_weak: State::all(ALL),
        anywhere: State::all(ALL),
        escaped: vec![false; count],
        all_escaped: false,
        blocks,
        body,
    };
    flow.find_orphans();
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

/// The index of the instruction that a branch leads to, where it is one of `code`.
fn inside<S: Side>(code: Code<'_, S>, body: &Body<S>, index: u32) -> Option<u32> {
    let target = body.instructions[index as usize].reference?.target;
    let offset = target.checked_sub(code.rva)?;
    (offset % 4 == 0 && (offset as usize) < code.bytes.len()).then_some(offset / 4)
}

/// First instructions of blocks: targets of branches and what stands behind them.
fn blocks<S: Side>(code: Code<'_, S>, body: &Body<S>) -> Vec<u32> {
    let mut starts = vec![0];
    for index in 0..body.instructions.len() as u32 {
        let word = word_at(code, body, index);
        if !may_end_block(word) {
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

/// Whether `word` lies in the groups of branches or of undefined instructions.
fn may_end_block(word: u32) -> bool {
    matches!((word >> 25) & 0xf, 0b1010 | 0b1011 | 0)
}

impl<S: Side> Flowing<'_, S> {
    /// First and behind-last instruction of a block.
    fn extent(&self, block: usize) -> (u32, u32) {
        let end = self.blocks.get(block + 1).copied();
        let count = self.body.instructions.len() as u32;
        (self.blocks[block], end.unwrap_or(count))
    }

    fn block_of(&self, instruction: u32) -> Option<usize> {
        self.blocks.binary_search(&instruction).ok()
    }

    /// How control leaves a block: the last instruction's flow, and its target if it has one here.
    fn exit(&self, block: usize) -> (Flow, Option<usize>) {
        let last = self.extent(block).1 - 1;
        let flow = effects::of(word_at(self.code, self.body, last)).flow;
        let target = match flow {
            Flow::Branch { .. } => inside(self.code, self.body, last),
            _ => None,
        };
        (flow, target.and_then(|target| self.block_of(target)))
    }

    fn find_orphans(&mut self) {
        let mut reached = vec![false; self.blocks.len()];
        reached[0] = true;
        for block in 0..self.blocks.len() {
            let (flow, target) = self.exit(block);
            if let Some(target) = target {
                reached[target] = true;
            }
            let goes_on = matches!(
                flow,
                Flow::Next | Flow::Call | Flow::Branch { conditional: true }
            );
            if goes_on && block + 1 < reached.len() {
                reached[block + 1] = true;
            }
        }
        self.orphans = (0..reached.len())
            .filter(|block| !reached[*block])
            .collect();
        for orphan in &self.orphans {
            self.is_orphan[*orphan] = true;
        }
    }

    /// Goes over the blocks until nothing changes; false where that takes too long.
    fn settle(&mut self) -> bool {
        self.entries[0] = Some(State::all(0));
        for orphan in self.orphans.clone() {
            self.entries[orphan] = Some(State::all(ALL));
        }
        for _ in 0..MAX_ROUNDS {
            let mut changed = false;
            for block in 0..self.blocks.len() {
                let Some(mut state) = self.entries[block].clone() else {
                    continue;
                };
                self.run(block, &mut state, None);
                changed |= self.leave(block, &state);
            }
            if !changed {
                return true;
            }
            self.spread();
        }
        false
    }

    /// Passes the state at the end of a block on to where control may go.
    fn leave(&mut self, block: usize, state: &State) -> bool {
        let (flow, target) = self.exit(block);
        let mut changed = false;
        if let Some(target) = target {
            changed |= self.meet(target, state);
        }
        match flow {
            Flow::Next | Flow::Call | Flow::Branch { conditional: true } => {
                let next = block + 1;
                changed |= next < self.blocks.len() && self.meet(next, state);
            }
            Flow::Indirect => {
                let (merged, new) = join(&mut self.sets, self.body, self.indirect.as_ref(), state);
                self.indirect = Some(merged);
                let (weak, more) = self.weakly(&self.indirect_weak.clone(), state);
                self.indirect_weak = weak;
                changed |= new | more;
            }
            _ => {}
        }
        if !self.orphans.is_empty() && state.live != 0 {
            let (anywhere, new) = self.weakly(&self.anywhere.clone(), state);
            self.anywhere = anywhere;
            changed |= new;
        }
        changed
    }

    fn weakly(&mut self, into: &State, state: &State) -> (State, bool) {
        join(&mut self.sets, self.body, Some(into), &state.weakened())
    }

    /// Takes what is not tied to one way to every block that it may reach: an indirect jump leads
    /// to the orphans for sure and perhaps to any other block, and the system may lead to an
    /// orphan from anywhere, the handler of an exception.
    fn spread(&mut self) {
        let (indirect, weak) = (self.indirect.clone(), self.indirect_weak.clone());
        let anywhere = self.anywhere.clone();
        for block in 0..self.blocks.len() {
            if self.is_orphan[block] {
                self.meet(block, &anywhere);
                if let Some(indirect) = &indirect {
                    self.meet(block, indirect);
                }
            } else if weak.live != 0 && self.entries[block].is_some() {
                self.meet(block, &weak);
            }
        }
    }

    fn meet(&mut self, block: usize, state: &State) -> bool {
        let entry = self.entries[block].take();
        let (merged, changed) = join(&mut self.sets, self.body, entry.as_ref(), state);
        self.entries[block] = Some(merged);
        changed
    }

    /// Runs a block over `state`. With `users`, notes users of pages and pages that escape.
    fn run(&mut self, block: usize, state: &mut State, mut users: Option<&mut Vec<User>>) {
        let (start, end) = self.extent(block);
        for index in start..end {
            let word = word_at(self.code, self.body, index);
            if word & 0x9f00_0000 == 0x9000_0000 {
                let register = (word & 31) as usize;
                let valid = self.body.instructions[index as usize].reference.is_some();
                if register < 31 {
                    let set = valid.then(|| (Level::Pages, self.sets.single(index)));
                    state.set(register, set, false);
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
            let nothing = state.nothing & (1 << from) != 0;
            state.set(to, state.get(from), nothing);
            return;
        }
        if let Some(users) = users {
            let offset = page_offset(word);
            let base = ((word >> 5) & 31) as usize;
            for register in bits(effects.reads & state.live) {
                let (level, set) = state.values[register];
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

    fn escape(&mut self, set: Set) {
        if set == EVERY {
            self.all_escaped = true;
        }
        for instruction in &self.sets.sets[set as usize] {
            self.escaped[*instruction as usize] = true;
        }
    }

    /// With the states settled, writes down the users.
    fn report(&mut self) {
        let mut users = Vec::new();
        for block in 0..self.blocks.len() {
            if let Some(mut state) = self.entries[block].clone() {
                self.run(block, &mut state, Some(&mut users));
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
                let set = &self.sets.sets[user.set as usize];
                set.iter().all(|page| !self.escaped[*page as usize])
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
        let pages = &self.sets.sets[user.set as usize];
        let page = pages.first().and_then(|page| page_of(self.body, *page));
        let word = word_at(self.code, self.body, user.index);
        let Some(target) = page.and_then(|page| user.field.target(word, page)) else {
            return;
        };
        self.body.instructions[user.index as usize].reference = Some(Reference {
            target,
            kind: field::kind(word, user.field),
            field: user.field.field(),
        });
        self.body
            .page_links
            .extend(pages.iter().map(|page| PageLink {
                user: user.index,
                page: *page,
            }));
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

/// What holds where a state comes together with `entry`, and whether that is more than `entry`.
fn join<S: Side>(
    sets: &mut Sets,
    body: &Body<S>,
    entry: Option<&State>,
    state: &State,
) -> (State, bool) {
    let Some(entry) = entry else {
        return (state.clone(), true);
    };
    let mut merged = entry.clone();
    merged.nothing = entry.nothing & state.nothing;
    for register in bits((entry.live | state.live) & ALL) {
        let bit = 1 << register;
        let value = match (entry.get(register), state.get(register)) {
            (Some(left), Some(right)) => Some(unite(sets, body, left, right)),
            (Some(known), None) => meet_other(known, state.nothing & bit != 0),
            (None, Some(known)) => meet_other(known, entry.nothing & bit != 0),
            (None, None) => None,
        };
        let nothing = merged.nothing & bit != 0;
        merged.set(register, value, nothing);
    }
    // Compared by what is held: values behind a clear bit of `live` are left over.
    let same = merged.live == entry.live
        && merged.nothing == entry.nothing
        && bits(merged.live).all(|register| merged.values[register] == entry.values[register]);
    (merged, !same)
}

/// Pages on one way; on the other nothing, or something that is no page.
fn meet_other(known: (Level, Set), nothing: bool) -> Option<(Level, Set)> {
    match known.0 {
        _ if nothing => Some(known),
        Level::Stale => None,
        Level::Pages | Level::Mixed => Some((Level::Mixed, known.1)),
    }
}

fn unite<S: Side>(
    sets: &mut Sets,
    body: &Body<S>,
    left: (Level, Set),
    right: (Level, Set),
) -> (Level, Set) {
    if left.0 != right.0 {
        let (weak, strong) = if left.0 < right.0 {
            (left, right)
        } else {
            (right, left)
        };
        return match weak.0 {
            Level::Stale => strong,
            _ => (Level::Mixed, sets.union(weak.1, strong.1)),
        };
    }
    let set = sets.union(left.1, right.1);
    let first = |set: Set| {
        sets.sets[set as usize]
            .first()
            .and_then(|page| page_of(body, *page))
    };
    let level = match left.0 {
        Level::Pages if set == EVERY || first(left.1) != first(right.1) => Level::Mixed,
        level => level,
    };
    (level, set)
}
