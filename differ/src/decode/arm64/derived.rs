//! Addresses made from addresses.
//!
//! ```text
//!     adrp x8, page of one
//!     add  x1, x8, offset of one
//!     add  x2, x1, #0x10          ; another variable of the same compiland
//! ```
//!
//! Compilers know how far apart the variables of a compiland are, and reach one through another.
//! Nothing in the second `add` is an address, and yet it means that other variable. So what
//! registers hold is followed through the control flow of one stretch of code, and through slots of
//! its frame (see `frame`), as far as all ways agree on it. What is found here only adds operands:
//! their bits are compared as well, so that a wrong one can make a change but hide none.

use hpbuild_metadata::{Rva, Side};

use super::blocks::blocks;
use super::effects::{self, Flow, VOLATILE, bits};
use super::field::{self, AddressField};
use super::frame::{Frame, Slots, is_spill};
use crate::decode::{Body, Code, Derived, ReferenceKind};

/// Instructions gone over before giving up, as a multiple of those there are.
const MAX_ROUNDS: usize = 24;

/// RVAs at one place of the code.
#[derive(Clone)]
struct State {
    registers: [Option<u32>; 31],
    /// In slots of the frame, as many as are followed.
    slots: Vec<Option<u32>>,
}

/// What instructions reach through addresses that earlier ones made, in code order.
pub(in crate::decode) fn find<S: Side>(code: Code<'_, S>, body: &Body<S>) -> Vec<Derived<S>> {
    let words = super::words(code);
    let mut following = Following {
        code,
        body,
        words: &words,
        slots: Slots::default(),
    };
    if !following.is_of_use() {
        return Vec::new();
    }
    let mut frame = None;
    // Each further round follows at least one slot more.
    loop {
        let Some((states, stored)) = following.settle() else {
            return Vec::new();
        };
        let more = !stored.is_empty() && {
            let frame = frame.get_or_insert_with(|| {
                let blocks = blocks(code, body)?;
                Frame::of(code, body, &blocks)
            });
            let frame = frame.as_ref();
            frame.is_some_and(|frame| following.slots.extend(frame, &stored))
        };
        if !more {
            return following.uses(&states);
        }
    }
}

/// One function under way.
struct Following<'a, S: Side> {
    code: Code<'a, S>,
    body: &'a Body<S>,
    words: &'a [u32],
    slots: Slots,
}

impl<S: Side> Following<'_, S> {
    /// The address that an instruction makes from nothing but itself and a page.
    fn made(&self, index: usize) -> Option<u32> {
        let reference = self.body.instructions[index].reference?;
        (reference.kind == ReferenceKind::Address).then_some(reference.target.get())
    }

    /// Whether any register that ever holds an address is used with an offset, or spilled.
    fn is_of_use(&self) -> bool {
        let mut holders = 0_u32;
        let mut spilled = false;
        for (index, word) in self.words.iter().enumerate() {
            let stored = [word & 31, (word >> 10) & 31];
            spilled = spilled
                || stored
                    .iter()
                    .any(|it| holders & (1 << it) != 0 && is_spill(*word, *it));
            holders |= self.made(index).map_or(0, |_| 1 << (word & 31));
        }
        let is_use = |index: usize| {
            let offset = offset_of(self.words[index]);
            offset.is_some_and(|(base, _)| spilled || holders & (1 << base) != 0)
                && self.body.instructions[index].reference.is_none()
        };
        holders != 0 && (0..self.words.len()).any(is_use)
    }

    /// What holds in front of each instruction that a way leads to, and the instructions that
    /// store an address to where the stack may be; `None` where it takes too long.
    fn settle(&self) -> Option<(Vec<Option<State>>, Vec<u32>)> {
        let mut states: Vec<Option<State>> = vec![None; self.words.len()];
        let mut stored = Vec::new();
        let mut open = vec![0];
        *states.first_mut()? = Some(State {
            registers: [None; 31],
            slots: vec![None; self.slots.count()],
        });
        let mut steps = MAX_ROUNDS * self.words.len();
        while let Some(at) = open.pop() {
            steps = steps.checked_sub(1)?;
            let Some(mut state) = states[at].clone() else {
                continue;
            };
            if !self.body.instructions[at].valid {
                continue;
            }
            self.step(at, &mut state, &mut stored);
            let mut enter = |next: usize| {
                if let Some(place) = states.get_mut(next)
                    && join(place, &state)
                {
                    open.push(next);
                }
            };
            match effects::of(self.words[at]).flow {
                Flow::Next | Flow::Call => enter(at + 1),
                Flow::Branch { conditional } => {
                    let target = self.body.instructions[at].reference.map(|it| it.target);
                    let offset = target.and_then(|target| target.checked_sub(self.code.rva));
                    if let Some(offset) = offset.filter(|offset| offset % 4 == 0) {
                        enter(offset as usize / 4);
                    }
                    if conditional {
                        enter(at + 1);
                    }
                }
                // What stands behind is reached in ways that are not followed, with what is not
                // known.
                Flow::Indirect | Flow::Stop => {}
            }
        }
        Some((states, stored))
    }

    /// What an instruction does to what is known.
    fn step(&self, at: usize, state: &mut State, stored: &mut Vec<u32>) {
        let word = self.words[at];
        let effects = effects::of(word);
        let copy = copied(word, state);
        let moves = self.slots.moves(at as u32, at as u32 + 1);
        for it in moves.iter().filter(|it| it.is_store) {
            state.slots[it.slot] = state.held(it.register);
        }
        let holds = |register: &u32| state.held(*register).is_some();
        let data = [word & 31, (word >> 10) & 31];
        if moves.is_empty() && data.iter().any(|it| holds(it) && is_spill(word, *it)) {
            stored.push(at as u32);
        }
        let lost = match effects.flow {
            Flow::Call => effects.writes | VOLATILE | 1 << 30,
            _ => effects.writes,
        };
        for register in bits(lost.into()) {
            state.registers[register] = None;
        }
        for it in moves.iter().filter(|it| !it.is_store) {
            state.set(it.register, state.slots[it.slot]);
        }
        if let Some(address) = self.made(at) {
            state.set(word & 31, Some(address));
        } else if let Some((to, value)) = copy {
            state.set(to, value);
        }
    }

    fn uses(&self, states: &[Option<State>]) -> Vec<Derived<S>> {
        let of = |index: usize| {
            let (base, offset) = offset_of(self.words[index])?;
            let address = states[index].as_ref()?.held(base)?;
            let target = Rva::new(address).checked_offset(offset)?;
            let kind = match AddressField::of(self.words[index]) {
                Some(found @ AddressField::Offset12 { .. }) => {
                    field::kind(self.words[index], found)
                }
                _ => ReferenceKind::Address,
            };
            let derived = Derived {
                instruction: index as u32,
                from: Rva::new(address),
                target,
                kind,
            };
            (target.get() != 0).then_some(derived)
        };
        let without = |index: &usize| self.body.instructions[*index].reference.is_none();
        (0..self.words.len())
            .filter(without)
            .filter_map(of)
            .collect()
    }
}

impl State {
    /// What a register holds; 31 is none.
    fn held(&self, register: u32) -> Option<u32> {
        self.registers.get(register as usize).copied().flatten()
    }

    fn set(&mut self, register: u32, value: Option<u32>) {
        if let Some(held) = self.registers.get_mut(register as usize) {
            *held = value;
        }
    }
}

/// Brings `state` to a place; whether that changed what is known there.
fn join(place: &mut Option<State>, state: &State) -> bool {
    let Some(known) = place else {
        *place = Some(state.clone());
        return true;
    };
    let mut changed = false;
    let known = known.registers.iter_mut().chain(&mut known.slots);
    for (known, new) in known.zip(state.registers.iter().chain(&state.slots)) {
        if known.is_some() && known != new {
            *known = None;
            changed = true;
        }
    }
    changed
}

/// `mov xd, xs` and `add xd, xs, #n`: the destination and what it holds then.
fn copied(word: u32, state: &State) -> Option<(u32, Option<u32>)> {
    if word & 0xffe0_ffe0 == 0xaa00_03e0 {
        return Some((word & 31, state.held((word >> 16) & 31)));
    }
    let (base, offset) = offset_of(word).filter(|_| word >> 24 == 0x91)?;
    let address = state
        .held(base)
        .and_then(|held| u32::try_from(i64::from(held) + offset).ok());
    Some((word & 31, address))
}

/// The base register and the offset, not 0, of an `add`, a load or a store.
fn offset_of(word: u32) -> Option<(u32, i64)> {
    let base = (word >> 5) & 31;
    let offset = match AddressField::of(word) {
        Some(field @ (AddressField::Add12 | AddressField::Offset12 { .. })) => field.value(word),
        // With the offset shifted by twelve.
        _ if word & 0xffc0_0000 == 0x9140_0000 => i64::from((word >> 10) & 0xfff) << 12,
        _ => return None,
    };
    (base < 31 && offset != 0).then_some((base, offset))
}

#[cfg(test)]
mod tests {
    use hpbuild_metadata::{Base, Machine};

    use super::*;
    use crate::decode::decode;

    fn derived(words: &[u32]) -> Vec<(u32, u32)> {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let code = Code {
            bytes: &bytes,
            rva: Rva::<Base>::new(0x1000),
            image_base: 0x1_8000_0000,
            relocated: &[],
            jumps: &[],
        };
        let mut body = Body::default();
        decode(Machine::Arm64, code, &mut body);
        find(code, &body)
            .iter()
            .map(|derived| (derived.instruction, derived.target.get()))
            .collect()
    }

    /// `adrp x8, 3000h; add x1, x8, #0x20`
    const ADDRESS: [u32; 2] = [0xd000_0008, 0x9100_8101];

    #[test]
    fn neighbours() {
        let [page, low] = ADDRESS;
        // add x2, x1, #0x10; ldr w3, [x1, #8]; ret
        let found = derived(&[page, low, 0x9100_4022, 0xb940_0823, 0xd65f_03c0]);
        assert_eq!(found, [(2, 0x3030), (3, 0x3028)]);
    }

    #[test]
    fn what_is_overwritten_leads_nowhere() {
        let [page, low] = ADDRESS;
        // mov x1, x5; add x2, x1, #0x10; ret
        assert_eq!(
            derived(&[page, low, 0xaa05_03e1, 0x9100_4022, 0xd65f_03c0]),
            []
        );
        // bl .; add x2, x1, #0x10: the callee may have changed x1.
        assert_eq!(
            derived(&[page, low, 0x9400_0000, 0x9100_4022, 0xd65f_03c0]),
            []
        );
    }
}
