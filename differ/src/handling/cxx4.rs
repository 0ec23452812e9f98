//! The data of `__CxxFrameHandler4`: the same facts as those of `__CxxFrameHandler3`, packed.
//!
//! A header byte says which fields follow; counts, states and distances are numbers of one to five
//! bytes ([`Reader::packed`](super::Reader::packed)), addresses are RVAs (`ehdata4_export.h` of the
//! C++ runtime's published headers). Code is counted in bytes from the start of the function.

use hpbuild_metadata::Side;

use super::{Facts, NotUnderstood, Reader, What};

/// Bits of the header.
mod header {
    pub(super) const IS_CATCH: u8 = 1;
    pub(super) const IS_SEPARATED: u8 = 2;
    pub(super) const HAS_FLAGS: u8 = 4;
    pub(super) const HAS_UNWIND_MAP: u8 = 8;
    pub(super) const HAS_TRY_MAP: u8 = 0x10;
}

/// Bits of the header of a `catch`.
mod catch {
    pub(super) const HAS_ADJECTIVES: u8 = 1;
    pub(super) const HAS_TYPE: u8 = 2;
    pub(super) const HAS_OBJECT: u8 = 4;
    pub(super) const CONTINUES_AT_RVA: u8 = 8;
}

pub(super) fn facts<S: Side>(facts: &mut Facts<'_, S>, info: u32) -> Result<(), NotUnderstood> {
    let mut reader = facts.reader(info);
    let bits = reader.u8()?;
    if bits & 0x80 != 0 {
        return Err(NotUnderstood);
    }
    facts.number(What::Unwind, bits);
    if bits & header::HAS_FLAGS != 0 {
        facts.number(What::Unwind, reader.packed()?);
    }
    let mut map = |present| if present { reader.u32() } else { Ok(0) };
    let unwind_map = map(bits & header::HAS_UNWIND_MAP != 0)?;
    let try_map = map(bits & header::HAS_TRY_MAP != 0)?;
    let place_map = map(true)?;
    if bits & header::IS_CATCH != 0 {
        facts.number(What::CatchBody, reader.packed()?);
    }
    if unwind_map != 0 {
        cleanups(facts, unwind_map)?;
    }
    if try_map != 0 {
        try_blocks(facts, try_map)?;
    }
    if bits & header::IS_SEPARATED == 0 {
        return places(facts, place_map);
    }
    // Code that was parted has a map for each part.
    let mut parts = facts.reader(place_map);
    let count = entries(facts, &mut parts)?;
    facts.number(What::Range, count);
    for _ in 0..count {
        let (start, map) = (parts.u32()?, parts.u32()?);
        facts.code(What::Range, start);
        places(facts, map)?;
    }
    Ok(())
}

fn entries<S: Side>(
    facts: &mut Facts<'_, S>,
    reader: &mut Reader<'_>,
) -> Result<u32, NotUnderstood> {
    let count = reader.packed()?;
    facts.spend(count)?;
    Ok(count)
}

/// The unwind map: for each state where it goes next, in bytes back, and what is done.
fn cleanups<S: Side>(facts: &mut Facts<'_, S>, map: u32) -> Result<(), NotUnderstood> {
    let mut map = facts.reader(map);
    let count = entries(facts, &mut map)?;
    facts.number(What::Cleanup, count);
    for _ in 0..count {
        let next = map.packed()?;
        facts.number(What::Cleanup, next);
        match next & 3 {
            0 => {}
            // A destructor, and where its object or the pointer to it is in the frame.
            1 | 2 => {
                facts.place(What::Cleanup, map.u32()?);
                facts.number(What::Cleanup, map.packed()?);
            }
            _ => facts.place(What::Cleanup, map.u32()?),
        }
    }
    Ok(())
}

fn try_blocks<S: Side>(facts: &mut Facts<'_, S>, map: u32) -> Result<(), NotUnderstood> {
    let mut map = facts.reader(map);
    let count = entries(facts, &mut map)?;
    facts.number(What::Catch, count);
    for _ in 0..count {
        for _ in 0..3 {
            facts.number(What::Catch, map.packed()?);
        }
        catches(facts, map.u32()?)?;
    }
    Ok(())
}

fn catches<S: Side>(facts: &mut Facts<'_, S>, list: u32) -> Result<(), NotUnderstood> {
    let mut list = facts.reader(list);
    let count = entries(facts, &mut list)?;
    facts.number(What::Catch, count);
    for _ in 0..count {
        let bits = list.u8()?;
        facts.number(What::Catch, bits);
        if bits & catch::HAS_ADJECTIVES != 0 {
            facts.number(What::Catch, list.packed()?);
        }
        if bits & catch::HAS_TYPE != 0 {
            facts.place(What::Catch, list.u32()?);
        }
        if bits & catch::HAS_OBJECT != 0 {
            facts.number(What::Catch, list.packed()?);
        }
        facts.place(What::CatchBody, list.u32()?);
        for _ in 0..(bits >> 4) & 3 {
            if bits & catch::CONTINUES_AT_RVA != 0 {
                facts.code(What::CatchBody, list.u32()?);
            } else {
                facts.number(What::CatchBody, list.packed()?);
            }
        }
    }
    Ok(())
}

/// From which distance on the code is in which state.
fn places<S: Side>(facts: &mut Facts<'_, S>, map: u32) -> Result<(), NotUnderstood> {
    let mut map = facts.reader(map);
    let count = entries(facts, &mut map)?;
    facts.number(What::Range, count);
    for _ in 0..count {
        facts.number(What::Range, map.packed()?);
        facts.number(What::Range, map.packed()?);
    }
    Ok(())
}
