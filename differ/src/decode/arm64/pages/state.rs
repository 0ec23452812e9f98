//! What registers and slots may hold at one place, and how that comes together where ways meet.

use rustc_hash::FxHashMap;

use crate::decode::arm64::effects::{Registers, VOLATILE, bits};
use crate::decode::arm64::frame::MAX_SLOTS;

/// Registers, bits 0 to 30, and slots of the frame, from bit [`SLOTS`] on.
pub(super) type Places = u64;

/// The first place that is a slot.
pub(super) const SLOTS: usize = 31;
const _: () = assert!(SLOTS + MAX_SLOTS <= 64);

/// Every place.
pub(super) const EVERYWHERE: Places = !0;

/// Pages told apart in one register before all pages of the function count as mixed up.
const MAX_SET: usize = 64;

/// Sets told apart in one function, and unions remembered, before all count as mixed up.
const MAX_SETS: usize = 1 << 16;

/// Registers in which a callee may hand back results.
const RESULTS: Registers = 0xff;

/// What a call writes for sure, as far as the caller may know.
pub(super) const ANSWERED: Registers = RESULTS | 1 << 30;
/// What a call may leave behind with nothing of use in it.
pub(super) const LOST: Registers = VOLATILE & !RESULTS;

/// A set of `adrp`s, by index in [`Sets`].
pub(super) type Set = u32;
/// Every `adrp` of the function.
pub(super) const EVERY: Set = 0;

/// How much is known of a place with pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    Stale,
    Pages,
    Mixed,
}

/// What registers and slots hold at one place of the code.
#[derive(Clone)]
pub(super) struct State {
    /// Places with a value in `values` or `slots`.
    pub(super) live: Places,
    /// Places that hold nothing; the rest hold something that is no page.
    pub(super) nothing: Places,
    values: [(Level, Set); SLOTS],
    /// As many as are followed, mostly none.
    slots: Vec<(Level, Set)>,
}

impl State {
    /// No pages anywhere, and so many slots.
    pub(super) fn without_pages(nothing: Places, slots: usize) -> Self {
        Self {
            live: 0,
            nothing,
            values: [(Level::Stale, EVERY); SLOTS],
            slots: vec![(Level::Stale, EVERY); slots],
        }
    }

    /// The pages of a place that is live.
    pub(super) fn value(&self, place: usize) -> (Level, Set) {
        match self.values.get(place) {
            Some(value) => *value,
            None => self.slots[place - SLOTS],
        }
    }

    fn value_mut(&mut self, place: usize) -> &mut (Level, Set) {
        match self.values.get_mut(place) {
            Some(value) => value,
            None => &mut self.slots[place - SLOTS],
        }
    }

    fn get(&self, place: usize) -> Option<(Level, Set)> {
        (self.live & (1 << place) != 0).then(|| self.value(place))
    }

    pub(super) fn set(&mut self, place: usize, value: Option<(Level, Set)>) {
        self.kill(1 << place);
        if let Some(value) = value {
            self.live |= 1 << place;
            *self.value_mut(place) = value;
        }
    }

    /// Copies what one place holds to another. What is copied is something, even where nothing is
    /// known of it.
    pub(super) fn copy(&mut self, to: usize, from: usize) {
        self.set(to, self.get(from));
    }

    pub(super) fn kill(&mut self, places: Places) {
        self.live &= !places;
        self.nothing &= !places;
    }

    /// What is left after a call.
    pub(super) fn call(&mut self) {
        let lost = Places::from(LOST);
        self.kill(ANSWERED.into());
        self.nothing |= lost & !self.live;
        self.weaken(lost & self.live);
    }

    /// Makes live places stale.
    pub(super) fn weaken(&mut self, places: Places) {
        for place in bits(places) {
            self.value_mut(place).0 = Level::Stale;
        }
    }

    /// The same, with everything as weak as it can be: for ways that may not exist.
    pub(super) fn weakened(&self) -> Self {
        let mut state = self.clone();
        state.nothing = EVERYWHERE & !state.live;
        state.weaken(state.live);
        state
    }

    /// Brings in what holds on another way; whether that changed anything.
    pub(super) fn join(&mut self, other: &State, sets: &mut Sets) -> bool {
        let (live, nothing) = (self.live, self.nothing);
        let mut changed = false;
        for place in bits(live | other.live) {
            let bit = 1 << place;
            let value = match (self.get(place), other.get(place)) {
                (Some(left), Some(right)) => Some(sets.unite(left, right)),
                (Some(known), None) => beside_other(known, other.nothing & bit != 0),
                (None, Some(known)) => beside_other(known, nothing & bit != 0),
                (None, None) => None,
            };
            changed |= value != self.get(place);
            match value {
                Some(value) => {
                    self.live |= bit;
                    *self.value_mut(place) = value;
                }
                None => self.live &= !bit,
            }
        }
        // A place that is live on one way has its bit clear there.
        self.nothing = nothing & other.nothing;
        changed | (self.nothing != nothing)
    }
}

/// Pages on one way; on the other nothing, or something that is no page.
fn beside_other(known: (Level, Set), nothing: bool) -> Option<(Level, Set)> {
    match known.0 {
        _ if nothing => Some(known),
        Level::Stale => None,
        Level::Pages | Level::Mixed => Some((Level::Mixed, known.1)),
    }
}

/// Sets of `adrp`s, each kept once.
pub(super) struct Sets {
    /// Indexes of instructions, sorted, and the page if it is that of all of them. The first set
    /// stands for every `adrp` there is.
    sets: Vec<(Vec<u32>, Option<u32>)>,
    singles: FxHashMap<u32, Set>,
    unions: FxHashMap<(Set, Set), Set>,
    ids: FxHashMap<Vec<u32>, Set>,
}

impl Sets {
    pub(super) fn new() -> Self {
        Self {
            sets: vec![(Vec::new(), None)],
            singles: FxHashMap::default(),
            unions: FxHashMap::default(),
            ids: FxHashMap::default(),
        }
    }

    /// The instructions in a set; empty for [`EVERY`].
    pub(super) fn members(&self, set: Set) -> &[u32] {
        &self.sets[set as usize].0
    }

    /// The page that all instructions of a set make.
    pub(super) fn page(&self, set: Set) -> Option<u32> {
        self.sets[set as usize].1
    }

    /// The set of one `adrp` and the address of its page.
    pub(super) fn single(&mut self, instruction: u32, page: u32) -> Set {
        if let Some(set) = self.singles.get(&instruction) {
            return *set;
        }
        let set = self.add(vec![instruction], Some(page));
        self.singles.insert(instruction, set);
        set
    }

    fn add(&mut self, members: Vec<u32>, page: Option<u32>) -> Set {
        // At most as many as there are instructions, and `MAX_SETS` more.
        let set = self.sets.len() as Set;
        self.sets.push((members, page));
        set
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
        let mut members = [self.members(left), self.members(right)].concat();
        members.sort_unstable();
        members.dedup();
        let page = self
            .page(left)
            .filter(|page| self.page(right) == Some(*page));
        let set = match (members.len(), self.ids.get(&members)) {
            (0..=MAX_SET, Some(set)) => *set,
            (0..=MAX_SET, None) if self.ids.len() < MAX_SETS => {
                let set = self.add(members.clone(), page);
                self.ids.insert(members, set);
                set
            }
            _ => EVERY,
        };
        if self.unions.len() < MAX_SETS {
            self.unions.insert(key, set);
        }
        set
    }

    /// Pages on both ways: the stronger wins and equals are united.
    fn unite(&mut self, left: (Level, Set), right: (Level, Set)) -> (Level, Set) {
        if left == right {
            return left;
        }
        let (weak, strong) = if left.0 < right.0 {
            (left, right)
        } else {
            (right, left)
        };
        if weak.0 == Level::Stale && strong.0 != Level::Stale {
            return strong;
        }
        let set = self.union(left.1, right.1);
        match strong.0 {
            Level::Pages if self.page(set).is_none() => (Level::Mixed, set),
            level => (level, set),
        }
    }
}
