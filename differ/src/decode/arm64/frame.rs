//! Slots of the stack frame in which registers are kept for a while.
//!
//! ```text
//!     adrp x8, page of counter
//!     str  x8, [sp, #0x10]        ; a slot
//!     blr  x9                     ; x8 is lost
//!     ldr  x8, [sp, #0x10]
//!     ldr  w0, [x8, offset of counter]
//! ```
//!
//! Compilers keep a page in the frame where they do not optimise. What it costs to believe too
//! much: an offset that is taken for that of a page is compared by what it leads to, and no more by
//! its bits, so that a changed offset could pass for an unchanged one. So a slot is followed only
//! where nothing but the moves that are followed can have to do with its eight bytes:
//!
//! * Where the stack pointer stands is known at each of its uses, from the entry of the function
//!   on and on all ways alike; what makes it unknown ends the search, for the whole function.
//! * Addresses in the frame are followed through registers. Every access by one of them is then at
//!   a known place. All accesses that touch a slot, on whatever way, are loads and stores of whole
//!   64-bit registers at its start.
//! * An address that is no longer followed (stored, passed to a call, counted on, indexed, different
//!   on two ways) has *leaked*: whoever has it may write from there on upwards. Slots that end
//!   above the lowest leaked address are not followed. Compilers lay the slots of registers below
//!   the variables whose address is taken, so that this costs little.
//! * It lies below where the stack pointer stood at the entry, and control leaves the stretch only
//!   with the stack pointer there again: no other part of the function uses it.
//!
//! What is left open is a write from outside the function below every address it was given, which
//! no compiler lays its slots out for. A value that was followed wrongly through all that would
//! have to be used as a page at its next use, or the page counts as not understood.
//!
//! Calls keep slots. They may write where their arguments on the stack stand; a compiler that
//! kept a register there would lose it.

pub(super) mod form;
mod slots;

use hpbuild_metadata::Side;

use super::blocks::{Block, word_at};
use super::effects::{self, ALL, Flow, Registers, VOLATILE, bits};
use crate::decode::{Body, Code};
use form::{Access, Form, SP};
pub(super) use slots::{MAX_SLOTS, Slots};

/// Rounds over the blocks; each loop that changes what is known costs one.
const MAX_ROUNDS: usize = 64;

/// `x0` to `x8`, in which a caller hands over arguments. A callee does not know what the others
/// hold: unoptimised code leaves there by what it stored the arguments on the stack.
const ARGUMENTS: Registers = 0x1ff;

/// `x15`, in which the size of a large frame goes to the function that probes it.
const SIZE: Registers = 1 << 15;

/// What a register holds. Places count from the stack pointer at the entry.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Value {
    Unknown,
    Place(i32),
    Constant(u64),
}

/// What is known at one place of the code.
#[derive(Clone)]
struct State {
    /// The general registers and the stack pointer.
    values: [Value; 32],
    /// Whether something was called before.
    called: bool,
}

/// One load or store of the frame.
struct Touch {
    instruction: u32,
    access: Access,
    place: i32,
}

/// What all instructions of a function do with its frame.
pub(super) struct Frame {
    touches: Vec<Touch>,
    /// The lowest leaked address.
    leaked: i32,
}

/// The frame cannot be followed: no more is known of it than that.
struct Lost;

/// One function under way.
struct Following<'a, S: Side> {
    code: Code<'a, S>,
    body: &'a Body<S>,
    leaked: i32,
    /// Whether there are blocks that no direct way leads to.
    has_orphans: bool,
    /// What holds behind calls and where control goes on by a register: there, and nowhere else,
    /// may a block be entered that no direct way leads to.
    elsewhere: Option<State>,
    /// Whether that changed since it was last passed on.
    to_spread: bool,
    /// The loads and stores, once what holds at every place is known.
    touches: Option<Vec<Touch>>,
}

/// Whether this is a store of the whole of this register, to a slot perhaps.
pub(super) fn is_spill(word: u32, register: u32) -> bool {
    let Form::Access(access) = form::of(word) else {
        return false;
    };
    let moved = |(first, second)| first == register || second == Some(register);
    access.is_store && access.base != register && access.whole.is_some_and(moved)
}

impl Frame {
    /// What the `blocks` of `code` do with the frame; `None` where that is not known.
    pub(super) fn of<S: Side>(
        code: Code<'_, S>,
        body: &Body<S>,
        blocks: &[Block],
    ) -> Option<Frame> {
        let mut following = Following {
            code,
            body,
            leaked: i32::MAX,
            has_orphans: blocks.iter().any(|block| block.orphan),
            elsewhere: None,
            to_spread: false,
            touches: None,
        };
        let entries = following.settle(blocks).ok()?;
        following.touches = Some(Vec::new());
        for (block, entry) in blocks.iter().zip(entries) {
            // Where no way leads, control comes in a way that is not seen.
            let mut state = entry?;
            following.run(block, &mut state).ok()?;
            if block.branches_out() && state.values[SP as usize] != Value::Place(0) {
                return None;
            }
        }
        Some(Frame {
            touches: following.touches?,
            leaked: following.leaked,
        })
    }
}

impl<S: Side> Following<'_, S> {
    /// What holds at the start of each block.
    fn settle(&mut self, blocks: &[Block]) -> Result<Vec<Option<State>>, Lost> {
        let mut entries = vec![None; blocks.len()];
        let mut changed = vec![false; blocks.len()];
        let mut values = [Value::Unknown; 32];
        values[SP as usize] = Value::Place(0);
        entries[0] = Some(State {
            values,
            called: false,
        });
        changed[0] = true;
        for _ in 0..MAX_ROUNDS {
            let mut settled = true;
            for (index, block) in blocks.iter().enumerate() {
                if !std::mem::take(&mut changed[index]) {
                    continue;
                }
                settled = false;
                let Some(mut state) = entries[index].clone() else {
                    continue;
                };
                self.run(block, &mut state)?;
                let next = block.goes_on().then_some(index + 1);
                let cases = block.cases.iter().copied();
                for to in next.into_iter().chain(block.target).chain(cases) {
                    if let Some(entry) = entries.get_mut(to) {
                        changed[to] |= join(entry, &state, &mut self.leaked);
                    }
                }
            }
            if std::mem::take(&mut self.to_spread) {
                let state = self.elsewhere.clone().ok_or(Lost)?;
                for index in (0..blocks.len()).filter(|index| blocks[*index].orphan) {
                    changed[index] |= join(&mut entries[index], &state, &mut self.leaked);
                }
            } else if settled {
                return Ok(entries);
            }
        }
        Err(Lost)
    }

    fn run(&mut self, block: &Block, state: &mut State) -> Result<(), Lost> {
        for index in block.start..block.end {
            let word = word_at(self.code, self.body, index);
            let effects = effects::of(word);
            match form::of(word) {
                Form::Access(access) => self.access(index, word, access, state)?,
                Form::Address { to, from, offset } => {
                    let value = match state.values[from as usize] {
                        Value::Place(place) => place.checked_add(offset).map(Value::Place),
                        _ => None,
                    };
                    state.set(to, value.unwrap_or(Value::Unknown))?;
                }
                Form::Lower { by, shift } => {
                    let place = match (state.values[by as usize], state.values[SP as usize]) {
                        (Value::Constant(count), Value::Place(place)) => u32::try_from(count)
                            .ok()
                            .and_then(|count| i32::try_from(u64::from(count) << shift).ok())
                            .and_then(|bytes| place.checked_sub(bytes)),
                        _ => None,
                    };
                    state.values[SP as usize] = Value::Place(place.ok_or(Lost)?);
                }
                Form::Constant {
                    to,
                    value,
                    field,
                    keep,
                } => {
                    let held = &mut state.values[to as usize];
                    *held = match *held {
                        _ if !keep => Value::Constant(value),
                        Value::Constant(before) => Value::Constant(before & !field | value),
                        _ => Value::Unknown,
                    };
                }
                Form::Other {
                    reads_sp,
                    writes_sp,
                } => {
                    if writes_sp {
                        return Err(Lost);
                    }
                    let sp = u32::from(reads_sp) << SP;
                    self.leak(state, effects.reads | sp)?;
                    state.forget(effects.writes);
                }
            }
            match effects.flow {
                Flow::Call => {
                    self.leak(state, ARGUMENTS)?;
                    // What probes a large frame keeps the register with its size.
                    state.forget((VOLATILE | 1 << 30) & !SIZE);
                    state.called = true;
                    self.go_elsewhere(state);
                }
                Flow::Indirect => {
                    self.leak(state, ALL & !(1 << 29 | 1 << 30))?;
                    self.go_elsewhere(state);
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn access(
        &mut self,
        instruction: u32,
        word: u32,
        access: Access,
        state: &mut State,
    ) -> Result<(), Lost> {
        let effects = effects::of(word);
        let base = state.values[access.base as usize];
        // The base alone does not leak, unless it is also what is stored.
        let stored = match access.is_store {
            true if word & 31 == access.base => effects.reads,
            true => effects.reads & !(1 << access.base),
            false => 0,
        };
        self.leak(state, stored & ALL)?;
        state.forget(effects.writes);
        let Value::Place(base) = base else {
            return if access.base == SP { Err(Lost) } else { Ok(()) };
        };
        let place = base.checked_add(access.offset).ok_or(Lost)?;
        if let Some(touches) = &mut self.touches {
            touches.push(Touch {
                instruction,
                access,
                place,
            });
        }
        if access.back != 0 {
            let back = base.checked_add(access.back).ok_or(Lost)?;
            state.set(access.base, Value::Place(back))?;
        }
        Ok(())
    }

    /// Addresses in these registers, bit 31 being the stack pointer, are known to others from now
    /// on.
    fn leak(&mut self, state: &State, registers: u32) -> Result<(), Lost> {
        for register in bits(registers.into()) {
            match state.values[register] {
                Value::Place(place) => self.leaked = self.leaked.min(place),
                _ if register == SP as usize => return Err(Lost),
                _ => {}
            }
        }
        Ok(())
    }

    fn go_elsewhere(&mut self, state: &State) {
        if !self.has_orphans {
            return;
        }
        self.to_spread |= join(&mut self.elsewhere, state, &mut self.leaked);
    }
}

impl State {
    /// Puts a value into a register. A function completes its frame before it calls. Where it
    /// lowers the stack pointer once more behind a call, the call was part of making the frame,
    /// and may have lowered it, too: one that pushes a cookie does.
    fn set(&mut self, register: u32, value: Value) -> Result<(), Lost> {
        if register == SP {
            match (self.values[SP as usize], value) {
                (Value::Place(from), Value::Place(to)) if to >= from || !self.called => {}
                (Value::Unknown, Value::Place(_)) => {}
                _ => return Err(Lost),
            }
        }
        self.values[register as usize] = value;
        Ok(())
    }

    fn forget(&mut self, registers: Registers) {
        for register in bits(registers.into()) {
            self.values[register] = Value::Unknown;
        }
    }
}

/// Brings `state` to a place; whether that changed what is known there. Addresses on which the
/// ways do not agree are no longer followed.
fn join(place: &mut Option<State>, state: &State, leaked: &mut i32) -> bool {
    let Some(known) = place else {
        *place = Some(state.clone());
        return true;
    };
    let mut changed = known.called != (known.called | state.called);
    known.called |= state.called;
    for (register, (known, new)) in known.values.iter_mut().zip(&state.values).enumerate() {
        if known == new {
            continue;
        }
        for value in [&*known, new] {
            if let (Value::Place(place), true) = (value, register != SP as usize) {
                *leaked = (*leaked).min(*place);
            }
        }
        changed |= *known != Value::Unknown;
        *known = Value::Unknown;
    }
    changed
}
