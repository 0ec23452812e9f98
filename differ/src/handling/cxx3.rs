//! The data of `__CxxFrameHandler3`: `FuncInfo` and its tables, as `ehdata.h` and LLVM's
//! `WinException.cpp` (`emitCXXFrameHandler3Table`) have it. Fields are four bytes each.

use hpbuild_metadata::Side;

use super::{Facts, NotUnderstood, What};

/// The first version of the structure; later ones count up.
const MAGIC: u32 = 0x1993_0520;

pub(super) fn facts<S: Side>(facts: &mut Facts<'_, S>, info: u32) -> Result<(), NotUnderstood> {
    let mut words = [0; 10];
    let mut reader = facts.reader(info);
    for word in words.iter_mut().take(8) {
        *word = reader.u32()?;
    }
    let [
        magic,
        states,
        unwind_map,
        tries,
        try_map,
        places,
        place_map,
        help,
        ..,
    ] = words;
    // The upper three bits are flags.
    let version = (magic & 0x1fff_ffff).wrapping_sub(MAGIC);
    if version > 2 {
        return Err(NotUnderstood);
    }
    for count in [states, tries, places] {
        facts.spend(count)?;
    }
    if version >= 1 {
        words[8] = reader.u32()?;
    }
    if version >= 2 {
        words[9] = reader.u32()?;
    }
    // Counts come with the tables.
    facts.number(What::Unwind, magic);
    facts.number(What::Unwind, help);
    facts.number(What::Unwind, words[9]);
    facts.number(What::Cleanup, states);
    facts.number(What::Catch, tries);
    facts.number(What::Range, places);
    let mut map = facts.reader(unwind_map);
    for _ in 0..states {
        facts.number(What::Cleanup, map.u32()?);
        facts.place(What::Cleanup, map.u32()?);
    }
    for index in 0..tries {
        try_block(facts, try_map, index)?;
    }
    let mut map = facts.reader(place_map);
    for _ in 0..places {
        facts.code(What::Range, map.u32()?);
        facts.number(What::Range, map.u32()?);
    }
    exception_specification(facts, words[8])
}

/// `TryBlockMapEntry`: two states, the highest state of the handlers, and the handlers.
fn try_block<S: Side>(facts: &mut Facts<'_, S>, map: u32, index: u32) -> Result<(), NotUnderstood> {
    let mut entry = facts.reader(map);
    entry.take((index as usize).checked_mul(20).ok_or(NotUnderstood)?)?;
    let (low, high, highest) = (entry.u32()?, entry.u32()?, entry.u32()?);
    let (count, handlers) = (entry.u32()?, entry.u32()?);
    facts.spend(count)?;
    for number in [low, high, highest, count] {
        facts.number(What::Catch, number);
    }
    handler_types(facts, handlers, count, true)
}

/// `HandlerType`s: adjectives, type, place of the object, body, and distance of the frame. Those
/// of an exception specification have the first three alone in use.
fn handler_types<S: Side>(
    facts: &mut Facts<'_, S>,
    list: u32,
    count: u32,
    have_bodies: bool,
) -> Result<(), NotUnderstood> {
    let mut entry = facts.reader(list);
    for _ in 0..count {
        facts.number(What::Catch, entry.u32()?);
        facts.place(What::Catch, entry.u32()?);
        facts.number(What::Catch, entry.u32()?);
        let (body, frame) = (entry.u32()?, entry.u32()?);
        if have_bodies {
            facts.place(What::CatchBody, body);
            facts.number(What::CatchBody, frame);
        }
    }
    Ok(())
}

/// `ESTypeList`: types that `throw()` names; absent in all but old code.
fn exception_specification<S: Side>(
    facts: &mut Facts<'_, S>,
    list: u32,
) -> Result<(), NotUnderstood> {
    if list == 0 {
        facts.number(What::Catch, 0_u8);
        return Ok(());
    }
    let mut words = facts.reader(list);
    let (count, types) = (words.u32()?, words.u32()?);
    facts.spend(count)?;
    facts.number(What::Catch, count);
    handler_types(facts, types, count, false)
}
