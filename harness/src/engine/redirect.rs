//! Redirecting one function, on either machine: the checks, and the writes.

use std::collections::BTreeMap;

use hpbuild_metadata::{Machine, Rva, Side};

use super::hpat::{Hpat, Slot};
use super::{Mapped, Piece, Refusal, Status, Write, arm64, hex, x64};

/// The functions of one image that are redirected, with what is needed to undo it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Redirects<S: Side> {
    pub(crate) by_entry: BTreeMap<Rva<S>, Redirect>,
}

// Written out because a derive would ask the same of `S`.
impl<S: Side> Default for Redirects<S> {
    fn default() -> Self {
        Self {
            by_entry: BTreeMap::new(),
        }
    }
}

/// One redirected function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Redirect {
    pub(crate) slot: Slot,
    /// What stood before the entry (x64 alone; empty on Arm64).
    pub(crate) pad: Piece,
    /// What stood at the entry.
    pub(crate) entry: Piece,
    /// Where it now leads.
    pub(crate) target: u64,
}

/// What a record asks for.
pub(crate) struct Request<S> {
    pub(crate) entry: Rva<S>,
    pub(crate) target: u64,
    /// The record's original bytes, where the table has room for them.
    pub(crate) original: Option<u32>,
}

/// Plans the redirection in `request`: writes go to `writes`, the undo entry to `redirects`.
///
/// A function that `redirects` knows keeps its table entry; only the pointer changes.
pub(crate) fn redirect<S: Side>(
    mapped: &Mapped<'_, S>,
    redirects: &mut Redirects<S>,
    request: &Request<S>,
    writes: &mut Vec<Write<S>>,
) -> Result<(), Refusal> {
    let hpat = Hpat::in_mapping(mapped.image, mapped.memory.len());
    check_section(mapped, request.entry)?;
    if let Some(known) = redirects.by_entry.get_mut(&request.entry) {
        check_known(mapped, hpat, request, known)?;
        let pointer = pointer_write(mapped, hpat, known.slot, request.target)?;
        writes.push(pointer);
        known.target = request.target;
        return Ok(());
    }
    check_untouched(mapped, hpat, request)?;
    let slot = free_slot(redirects, hpat).ok_or_else(|| {
        let expected = format!("room for one more than {} functions", hpat.capacity());
        Refusal::new::<S>(
            Status::PatchConflict,
            "hot patch address table",
            expected,
            "a full table",
        )
    })?;
    writes.push(pointer_write(mapped, hpat, slot, request.target)?);
    let code = match mapped.image.machine {
        Machine::X64 => x64::TABLE_CODE,
        Machine::Arm64 => arm64::TABLE_CODE,
    };
    writes.push(write(mapped, hpat.code(slot), code)?);
    let (pad, entry) = entry_writes(mapped, hpat, slot, request.entry)?;
    let redirect = Redirect {
        slot,
        pad: pad.map_or(Piece::new([]), |pad| pad.before),
        entry: entry.before,
        target: request.target,
    };
    writes.extend(pad);
    writes.push(entry);
    redirects.by_entry.insert(request.entry, redirect);
    Ok(())
}

/// Plans the way back: the entry first, so that nothing reaches the pad when it changes. The
/// table's entry stays as it is, for a thread may be on its way through it.
pub(crate) fn restore<S: Side>(
    mapped: &Mapped<'_, S>,
    entry: Rva<S>,
    redirect: &Redirect,
    writes: &mut Vec<Write<S>>,
) -> Result<(), Refusal> {
    let hpat = Hpat::in_mapping(mapped.image, mapped.memory.len());
    let (pad, jump) = entry_writes(mapped, hpat, redirect.slot, entry)?;
    let expected = |planned: &Write<S>| {
        if planned.before == planned.after {
            return Ok(());
        }
        let expected = format!("this engine's redirect ({})", hex(planned.after.as_slice()));
        Err(conflict::<S>(
            entry,
            expected,
            hex(planned.before.as_slice()),
        ))
    };
    expected(&jump)?;
    writes.push(Write {
        after: redirect.entry,
        ..jump
    });
    if let Some(pad) = pad {
        expected(&pad)?;
        writes.push(Write {
            after: redirect.pad,
            ..pad
        });
    }
    Ok(())
}

/// Where a call of `entry` ends up behind its redirect; `None` where there is none.
pub(crate) fn follow<S: Side>(mapped: &Mapped<'_, S>, entry: Rva<S>) -> Option<u64> {
    let hpat = Hpat::in_mapping(mapped.image, mapped.memory.len());
    match mapped.image.machine {
        Machine::X64 => x64::follow(mapped, hpat, entry),
        Machine::Arm64 => arm64::follow(mapped, hpat, entry),
    }
}

fn conflict<S: Side>(
    entry: Rva<S>,
    expected: impl Into<String>,
    found: impl Into<String>,
) -> Refusal {
    let place = format!("function at rva {entry}");
    Refusal::new::<S>(Status::ConflictingAddresses, place, expected, found)
}

fn check_section<S: Side>(mapped: &Mapped<'_, S>, entry: Rva<S>) -> Result<(), Refusal> {
    match mapped.image.section_at(entry) {
        Some(section) if section.executable => Ok(()),
        Some(section) => {
            let found = format!("section {}", section.name);
            Err(conflict::<S>(entry, "executable code", found))
        }
        None => Err(conflict::<S>(entry, "executable code", "no section")),
    }
}

/// A function this engine redirected must still be as it left it.
fn check_known<S: Side>(
    mapped: &Mapped<'_, S>,
    hpat: Hpat,
    request: &Request<S>,
    known: &Redirect,
) -> Result<(), Refusal> {
    let (pad, entry) = entry_writes(mapped, hpat, known.slot, request.entry)?;
    for planned in pad.iter().chain([&entry]) {
        if planned.before != planned.after {
            let expected = format!("this engine's redirect ({})", hex(planned.after.as_slice()));
            let found = hex(planned.before.as_slice());
            return Err(conflict::<S>(request.entry, expected, found));
        }
    }
    check_original(request, known.entry.as_slice())
}

/// A function that is not redirected must be as it was when the patch was built, and redirectable.
fn check_untouched<S: Side>(
    mapped: &Mapped<'_, S>,
    hpat: Hpat,
    request: &Request<S>,
) -> Result<(), Refusal> {
    let at = request.entry;
    let cut_off = || conflict::<S>(at, "an entry inside the image", "the end of the image");
    let bytes: [u8; 4] = mapped.bytes(at).ok_or_else(cut_off)?;
    let already = match mapped.image.machine {
        Machine::X64 => match x64::read_entry(mapped, hpat, at) {
            x64::Entry::Plain => None,
            x64::Entry::Redirected(_) => Some("a redirect that this engine did not make"),
            x64::Entry::Foreign => Some("a short jump into the bytes before it"),
        },
        Machine::Arm64 => arm64::redirected_to(mapped, hpat, at)
            .map(|_| "a redirect that this engine did not make"),
    };
    if let Some(already) = already {
        let found = format!("{already} ({})", hex(&bytes));
        return Err(conflict::<S>(at, "an unpatched entry", found));
    }
    // The kernel compares two bytes on x64; an Arm64 entry is one whole instruction.
    let compared = match mapped.image.machine {
        Machine::X64 => &bytes[..2],
        Machine::Arm64 => &bytes[..],
    };
    check_original(request, compared)?;
    match mapped.image.machine {
        Machine::X64 => {
            check_pad(mapped, at)?;
            let extent = mapped.image.extent_at(at);
            if let Some(found) = x64::entry_in_use(mapped.memory, at.get(), extent) {
                let expected = "a first instruction of 2 bytes or more that nothing jumps to";
                return Err(conflict::<S>(at, expected, found));
            }
        }
        Machine::Arm64 if !at.get().is_multiple_of(4) => {
            return Err(conflict::<S>(at, "a multiple of 4", at.to_string()));
        }
        Machine::Arm64 => {}
    }
    let landing_pad = match mapped.image.machine {
        Machine::X64 => x64::is_landing_pad(bytes),
        Machine::Arm64 => arm64::is_landing_pad(bytes),
    };
    if landing_pad {
        let expected = "an entry that may be overwritten";
        let found = format!("a landing pad for indirect branches ({})", hex(&bytes));
        return Err(conflict::<S>(at, expected, found));
    }
    Ok(())
}

/// Compares the bytes of an unpatched entry with as many of the record's.
fn check_original<S: Side>(request: &Request<S>, found: &[u8]) -> Result<(), Refusal> {
    let Some(original) = request.original else {
        return Ok(());
    };
    let original = original.to_le_bytes();
    let expected = &original[..found.len()];
    if expected == found {
        return Ok(());
    }
    let expected = format!("the original bytes {}", hex(expected));
    Err(conflict::<S>(request.entry, expected, hex(found)))
}

/// The six bytes before an x64 entry must be filler, and no other function's.
fn check_pad<S: Side>(mapped: &Mapped<'_, S>, entry: Rva<S>) -> Result<(), Refusal> {
    let wanted = format!("{} bytes of padding before it", x64::PAD);
    let start = entry
        .checked_offset(-i64::from(x64::PAD))
        .ok_or_else(|| conflict::<S>(entry, &*wanted, "the start of the image"))?;
    let owned = [start, Rva::new(entry.get() - 1)]
        .iter()
        .find_map(|&at| mapped.image.extent_at(at));
    if let Some(owner) = owned {
        let found = format!("the function at {:#x}..{:#x}", owner.start, owner.end);
        return Err(conflict::<S>(entry, wanted, found));
    }
    let from = entry.get().saturating_sub(x64::PAD + x64::LONGEST) as usize;
    let before = mapped
        .memory
        .get(from..entry.get() as usize)
        .unwrap_or_default();
    if x64::filler_before(before) < x64::PAD as usize {
        let pad = before.len().saturating_sub(x64::PAD as usize);
        return Err(conflict::<S>(entry, wanted, hex(&before[pad..])));
    }
    Ok(())
}

/// The lowest entry of the table that no redirect uses.
fn free_slot<S: Side>(redirects: &Redirects<S>, hpat: Hpat) -> Option<Slot> {
    let mut used: Vec<Slot> = redirects.by_entry.values().map(|r| r.slot).collect();
    used.sort_unstable();
    let free = (0u32..).zip(&used).find(|(index, slot)| *index != slot.0);
    let free = free.map_or(used.len() as u32, |(index, _)| index);
    (free < hpat.capacity()).then_some(Slot(free))
}

fn pointer_write<S: Side>(
    mapped: &Mapped<'_, S>,
    hpat: Hpat,
    slot: Slot,
    target: u64,
) -> Result<Write<S>, Refusal> {
    let mut pointer = write(mapped, hpat.pointer(slot), target.to_le_bytes())?;
    pointer.code = false;
    Ok(pointer)
}

/// The writes that make `entry` lead to `slot`: the jump before it (x64 alone), and the entry.
fn entry_writes<S: Side>(
    mapped: &Mapped<'_, S>,
    hpat: Hpat,
    slot: Slot,
    entry: Rva<S>,
) -> Result<(Option<Write<S>>, Write<S>), Refusal> {
    let code = hpat.code::<S>(slot);
    let too_far = || conflict::<S>(entry, "an address table within reach", code.to_string());
    match mapped.image.machine {
        Machine::X64 => {
            let before = entry
                .checked_offset(-i64::from(x64::JUMP))
                .ok_or_else(too_far)?;
            let jump = x64::jump(entry, code).ok_or_else(too_far)?;
            let pad = write(mapped, before, jump)?;
            Ok((Some(pad), write(mapped, entry, x64::ENTRY_JUMP)?))
        }
        Machine::Arm64 => {
            let branch = arm64::branch(entry, code).ok_or_else(too_far)?;
            Ok((None, write(mapped, entry, branch)?))
        }
    }
}

/// A write of `after` to code at `at`, with what stands there now.
fn write<S: Side, const N: usize>(
    mapped: &Mapped<'_, S>,
    at: Rva<S>,
    after: [u8; N],
) -> Result<Write<S>, Refusal> {
    let before = mapped.bytes::<N>(at).ok_or_else(|| {
        let place = format!("{N} bytes at rva {at}");
        Refusal::new::<S>(
            Status::InvalidImageFormat,
            place,
            "inside the mapping",
            "outside",
        )
    })?;
    Ok(Write {
        at,
        before: Piece::new(before),
        after: Piece::new(after),
        code: true,
    })
}
