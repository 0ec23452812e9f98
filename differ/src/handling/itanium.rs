//! The language-specific data area of the Itanium C++ ABI, which follows the unwind record in
//! images that MinGW and Rust's `-gnu` targets make: call sites, actions and types (LSB Core,
//! `gcc_except_table`).

use std::collections::BTreeSet;

use hpbuild_metadata::{Rva, Side};

use super::{Facts, NotUnderstood, Reader, What};

/// `DW_EH_PE_*`.
const OMITTED: u8 = 0xff;
const ULEB128: u8 = 0x01;
const UDATA4: u8 = 0x03;
const SDATA4: u8 = 0x0b;
const RELATIVE: u8 = 0x10;
const INDIRECT: u8 = 0x80;

pub(super) fn facts<S: Side>(facts: &mut Facts<'_, S>, at: u32) -> Result<(), NotUnderstood> {
    let image = facts.image;
    let mut reader = Reader::new(image.pe.bytes_from(Rva::new(at)));
    let length = reader.left();
    // Landing pads are counted from the start of the function; nobody says otherwise.
    if reader.u8()? != OMITTED {
        return Err(NotUnderstood);
    }
    let types = reader.u8()?;
    facts.number(What::Catch, types);
    let type_base = match types {
        OMITTED => None,
        _ => {
            let distance = usize::try_from(reader.uleb()?).map_err(|_| NotUnderstood)?;
            Some(
                (length - reader.left())
                    .checked_add(distance)
                    .ok_or(NotUnderstood)?,
            )
        }
    };
    let encoding = reader.u8()?;
    let size = usize::try_from(reader.uleb()?).map_err(|_| NotUnderstood)?;
    let sites = reader.take(size)?;
    facts.number(What::Range, encoding);
    facts.bytes(What::Range, sites);
    let mut actions = Actions::default();
    let mut sites = Reader::new(sites);
    while sites.left() > 0 {
        facts.spend(1)?;
        for _ in 0..3 {
            match encoding {
                ULEB128 => _ = sites.uleb()?,
                UDATA4 | SDATA4 => _ = sites.u32()?,
                _ => return Err(NotUnderstood),
            }
        }
        actions.follow(facts, reader, sites.uleb()?)?;
    }
    facts.bytes(What::Catch, reader.take(actions.size)?);
    let Some(base) = type_base else { return Ok(()) };
    // Exception specifications: lists of types by their numbers, to a zero each.
    let mut specified = Reader::new(image.pe.bytes_from(Rva::new(at)));
    specified.take(base)?;
    let mut size = 0;
    for start in &actions.specified {
        let mut list = specified;
        list.take(start.checked_sub(1).ok_or(NotUnderstood)?)?;
        loop {
            facts.spend(1)?;
            let index = usize::try_from(list.uleb()?).map_err(|_| NotUnderstood)?;
            if index == 0 {
                break;
            }
            actions.types = actions.types.max(index);
        }
        size = size.max(specified.left() - list.left());
    }
    facts.spend(u32::try_from(actions.types).map_err(|_| NotUnderstood)?)?;
    for index in 1..=actions.types {
        type_entry(facts, at, base, types, index)?;
    }
    facts.bytes(What::Catch, specified.take(size)?);
    Ok(())
}

/// The chains of actions that call sites start.
#[derive(Default)]
struct Actions {
    /// Bytes of the table that are in use.
    size: usize,
    /// The highest type that is asked for.
    types: usize,
    /// Where specifications begin, counted in bytes from 1.
    specified: BTreeSet<usize>,
}

impl Actions {
    /// Follows the chain that begins at `first`, counted from 1; 0 is none.
    fn follow<S: Side>(
        &mut self,
        facts: &mut Facts<'_, S>,
        table: Reader<'_>,
        first: u64,
    ) -> Result<(), NotUnderstood> {
        let Some(start) = first.checked_sub(1) else {
            return Ok(());
        };
        let mut at = usize::try_from(start).map_err(|_| NotUnderstood)?;
        loop {
            // Ends those that go round in circles, too.
            facts.spend(1)?;
            let mut entry = table;
            entry.take(at)?;
            let filter = entry.sleb()?;
            let next_at = table.left() - entry.left();
            let next = entry.sleb()?;
            self.size = self.size.max(table.left() - entry.left());
            let index = usize::try_from(filter.unsigned_abs()).map_err(|_| NotUnderstood)?;
            match filter {
                1.. => self.types = self.types.max(index),
                // A clean-up.
                0 => {}
                _ => _ = self.specified.insert(index),
            }
            if next == 0 {
                return Ok(());
            }
            let target = i64::try_from(next_at)
                .ok()
                .and_then(|at| at.checked_add(next));
            at = target
                .and_then(|at| usize::try_from(at).ok())
                .ok_or(NotUnderstood)?;
        }
    }
}

/// Type `index`, counted backwards from `base`.
fn type_entry<S: Side>(
    facts: &mut Facts<'_, S>,
    at: u32,
    base: usize,
    encoding: u8,
    index: usize,
) -> Result<(), NotUnderstood> {
    let wide = encoding == 0;
    let size = if wide { 8 } else { 4 };
    let back = index.checked_mul(size).ok_or(NotUnderstood)?;
    let from = base.checked_sub(back).ok_or(NotUnderstood)?;
    let place = u32::try_from(from)
        .ok()
        .and_then(|from| at.checked_add(from));
    let place = place.ok_or(NotUnderstood)?;
    let mut entry = facts.reader(place);
    if wide {
        let address = entry.u64()?;
        let rva = facts.image.pe.rva_of(address).map_or(0, Rva::get);
        facts.place(What::Catch, rva);
        return Ok(());
    }
    let distance = entry.u32()?;
    match encoding & !INDIRECT {
        // 0 is any exception, relative or not.
        _ if distance == 0 => facts.number(What::Catch, 0_u8),
        value if value == RELATIVE | SDATA4 => {
            let target = place.wrapping_add(distance);
            // A pointer that is filled in before anything runs and that few linkers give a name.
            let pointed = (encoding & INDIRECT != 0)
                .then(|| facts.reader(target).u64().ok())
                .flatten()
                .and_then(|address| facts.image.pe.rva_of(address))
                .filter(|rva| facts.image.pe.section_at(*rva).is_some());
            facts.place(What::Catch, pointed.map_or(target, Rva::get));
        }
        _ => return Err(NotUnderstood),
    }
    Ok(())
}
