//! Who uses which page, and which pages go where they are not followed.

use hpbuild_metadata::{Rva, Side};

use super::state::{EVERY, Level, Places, Set, Sets, State};
use crate::decode::arm64::blocks::{Block, word_at};
use crate::decode::arm64::effects::{ALL, Effects, Flow, Registers, bits};
use crate::decode::arm64::field::{self, AddressField};
use crate::decode::arm64::frame::is_spill;
use crate::decode::{Body, Code, PageLink, Reference};

/// `x19` to `x28`: what a function keeps for its caller.
const KEPT: Registers = 0x1ff8_0000;

/// What was found once everything is settled.
pub(super) struct Found {
    users: Vec<User>,
    sets: Sets,
    /// By instruction: an `adrp` whose page is used in ways that are not understood.
    escaped: Vec<bool>,
    all_escaped: bool,
    /// Instructions that store a page to where the stack may be.
    pub(super) stored: Vec<u32>,
}

/// An instruction with a page offset and the `adrp`s whose page it is.
struct User {
    index: u32,
    field: AddressField,
    set: Set,
}

impl Found {
    pub(super) fn new(instructions: usize) -> Self {
        Self {
            users: Vec::new(),
            sets: Sets::new(),
            escaped: vec![false; instructions],
            all_escaped: false,
            stored: Vec::new(),
        }
    }

    /// An instruction that reads at least one register with pages, and is no move.
    pub(super) fn look(
        &mut self,
        index: u32,
        word: u32,
        effects: Effects,
        state: &State,
        sets: &Sets,
    ) {
        let offset = page_offset(word);
        let base = ((word >> 5) & 31) as usize;
        for register in bits(Places::from(effects.reads) & state.live) {
            let (level, set) = state.value(register);
            let as_base = register == base && reads_only_as_base(word, effects);
            match offset {
                Some(field) if as_base && level == Level::Pages => {
                    self.users.push(User { index, field, set });
                }
                Some(_) if as_base => self.escape(set, sets),
                _ if level == Level::Stale => {}
                _ => {
                    if is_spill(word, register as u32) {
                        self.stored.push(index);
                    }
                    self.escape(set, sets);
                }
            }
        }
    }

    /// Pages that go with a jump out of the stretch into what may be another part of the function.
    /// A tail call takes none along in the registers that it must keep; a conditional jump is
    /// hardly ever a tail call, and takes along what it will. Slots are none of its business: where
    /// they are followed, control leaves without a frame.
    pub(super) fn leave(&mut self, block: &Block, state: &State, sets: &Sets) {
        let taken = match block.flow {
            _ if !block.branches_out() => return,
            Flow::Branch { conditional: true } => ALL,
            _ => KEPT,
        };
        for register in bits(state.live & Places::from(taken)) {
            let (level, set) = state.value(register);
            if level != Level::Stale {
                self.escape(set, sets);
            }
        }
    }

    fn escape(&mut self, set: Set, sets: &Sets) {
        if set == EVERY {
            self.all_escaped = true;
        }
        for instruction in sets.members(set) {
            self.escaped[*instruction as usize] = true;
        }
    }

    /// Drops the users of pages that escape. A user ties its pages together: where one of them is
    /// not understood, neither are the others, which is found by going on until nothing more
    /// escapes.
    pub(super) fn settle(&mut self, sets: Sets) {
        if self.all_escaped {
            self.users.clear();
        }
        loop {
            let users = std::mem::take(&mut self.users);
            let before = users.len();
            let (kept, lost): (Vec<User>, Vec<User>) = users.into_iter().partition(|user| {
                let pages = sets.members(user.set);
                pages.iter().all(|page| !self.escaped[*page as usize])
            });
            lost.iter().for_each(|user| self.escape(user.set, &sets));
            self.users = kept;
            if self.users.len() == before {
                break;
            }
        }
        self.sets = sets;
    }

    /// Writes the users down.
    pub(super) fn report<S: Side>(&self, code: Code<'_, S>, body: &mut Body<S>) {
        for user in &self.users {
            self.note(user, code, body);
        }
        body.page_links.sort_unstable();
    }

    fn note<S: Side>(&self, user: &User, code: Code<'_, S>, body: &mut Body<S>) {
        let page = self.sets.page(user.set).map(Rva::new);
        let word = word_at(code, body, user.index);
        let Some(target) = page.and_then(|page| user.field.target(word, page)) else {
            return;
        };
        let pages = self.sets.members(user.set);
        body.instructions[user.index as usize].reference = Some(Reference {
            target,
            kind: field::kind(word, user.field),
            field: user.field.field(),
        });
        body.page_links.extend(pages.iter().map(|page| PageLink {
            user: user.index,
            page: *page,
        }));
    }
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
