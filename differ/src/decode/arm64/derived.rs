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
//! registers hold is followed through the control flow of one stretch of code, as far as all ways
//! agree on it.

use hpbuild_metadata::{Rva, Side};

use super::effects::{self, Flow, VOLATILE};
use super::field::{self, AddressField};
use crate::decode::{Body, Code, Derived, ReferenceKind};

/// Instructions gone over before giving up, as a multiple of those there are.
const MAX_ROUNDS: usize = 24;

/// RVAs in registers.
type State = [Option<u32>; 31];

/// What instructions reach through addresses that earlier ones made, in code order.
pub(in crate::decode) fn find<S: Side>(code: Code<'_, S>, body: &Body<S>) -> Vec<Derived<S>> {
    let makes_address = |index: usize| {
        let reference = body.instructions[index].reference?;
        (reference.kind == ReferenceKind::Address).then_some(reference.target.get())
    };
    let words: Vec<u32> = code
        .bytes
        .chunks_exact(4)
        .filter_map(|word| word.first_chunk())
        .map(|word| u32::from_le_bytes(*word))
        .collect();
    // Registers that ever hold an address, and whether one of them is used with an offset.
    let holders = (0..words.len()).fold(0_u32, |set, index| {
        set | makes_address(index).map_or(0, |_| 1 << (words[index] & 31))
    });
    let is_use = |index: usize| {
        let offset = offset_of(words[index]);
        offset.is_some_and(|(base, _)| holders & (1 << base) != 0)
            && body.instructions[index].reference.is_none()
    };
    if holders == 0 || !(0..words.len()).any(is_use) {
        return Vec::new();
    }
    let mut states: Vec<Option<State>> = vec![None; words.len()];
    let mut open = vec![0];
    states[0] = Some([None; 31]);
    let mut steps = MAX_ROUNDS * words.len();
    while let Some(at) = open.pop() {
        let Some(left) = steps.checked_sub(1) else {
            return Vec::new();
        };
        steps = left;
        let Some(mut state) = states[at] else {
            continue;
        };
        if !body.instructions[at].valid {
            continue;
        }
        let word = words[at];
        let effects = effects::of(word);
        let copy = copied(word, &state);
        for (register, held) in state.iter_mut().enumerate() {
            if effects.writes & (1 << register) != 0 {
                *held = None;
            }
            if effects.flow == Flow::Call && (VOLATILE | 1 << 30) & (1 << register) != 0 {
                *held = None;
            }
        }
        if let Some(address) = makes_address(at) {
            set(&mut state, word & 31, Some(address));
        } else if let Some((to, value)) = copy {
            set(&mut state, to, value);
        }
        let mut enter = |next: usize| {
            let Some(place) = states.get_mut(next) else {
                return;
            };
            if join(place, &state) {
                open.push(next);
            }
        };
        match effects.flow {
            Flow::Next | Flow::Call => enter(at + 1),
            Flow::Branch { conditional } => {
                let target = body.instructions[at].reference.map(|it| it.target);
                let offset = target.and_then(|target| target.checked_sub(code.rva));
                if let Some(offset) = offset.filter(|offset| offset % 4 == 0) {
                    enter(offset as usize / 4);
                }
                if conditional {
                    enter(at + 1);
                }
            }
            // What stands behind is reached in ways that are not followed, with what is not known.
            Flow::Indirect | Flow::Stop => {}
        }
    }
    let derived = (0..words.len())
        .filter(|index| is_use(*index))
        .filter_map(|index| {
            let (base, offset) = offset_of(words[index])?;
            let address = states[index]?[base as usize]?;
            let target = Rva::new(address).checked_offset(offset)?;
            let kind = match AddressField::of(words[index]) {
                Some(found @ AddressField::Offset12 { .. }) => field::kind(words[index], found),
                _ => ReferenceKind::Address,
            };
            Some(Derived {
                instruction: index as u32,
                from: Rva::new(address),
                target,
                kind,
            })
        });
    derived.filter(|it| it.target.get() != 0).collect()
}

fn set(state: &mut State, register: u32, value: Option<u32>) {
    if let Some(held) = state.get_mut(register as usize) {
        *held = value;
    }
}

/// Brings `state` to a place; whether that changed what is known there.
fn join(place: &mut Option<State>, state: &State) -> bool {
    let Some(known) = place else {
        *place = Some(*state);
        return true;
    };
    let mut changed = false;
    for (known, new) in known.iter_mut().zip(state) {
        if known.is_some() && known != new {
            *known = None;
            changed = true;
        }
    }
    changed
}

/// `mov xd, xs` and `add xd, xs, #n`: the destination and what it holds then.
fn copied(word: u32, state: &State) -> Option<(u32, Option<u32>)> {
    let held = |register: u32| state.get(register as usize).copied().flatten();
    if word & 0xffe0_ffe0 == 0xaa00_03e0 {
        return Some((word & 31, held((word >> 16) & 31)));
    }
    let (base, offset) = offset_of(word).filter(|_| word >> 24 == 0x91)?;
    let address = held(base).and_then(|held| u32::try_from(i64::from(held) + offset).ok());
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
