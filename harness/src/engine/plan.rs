//! Applying a whole patch, and taking it back: from bytes and a table to lists of writes.

use hpbuild_metadata::table::{Chunk, HotPatchTable};
use hpbuild_metadata::{Base, Machine, Patch, Rva, Sequence, Side};

use super::redirect::{Redirects, Request, redirect, restore};
use super::{Mapped, Piece, Refusal, Status, Write};
use crate::image::PAGE;

/// What is redirected in the base, and by which patch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Active {
    /// The patch applied last; `None` where the base runs as it is.
    pub(crate) sequence: Option<Sequence>,
    pub(crate) redirects: Redirects<Base>,
}

/// The writes of one application, and the state after it.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Into the patch: its calls, slots and imports are made to reach the base.
    pub(crate) reverse: Vec<Write<Patch>>,
    /// Into the base: its functions are made to reach the patch.
    pub(crate) forward: Vec<Write<Base>>,
    pub(crate) active: Active,
    pub(crate) in_patch: Redirects<Patch>,
}

/// Plans the application of `table`, the hotpatch table of `patch`, to `base`.
///
/// Functions that an earlier patch redirected and this one does not mention are restored.
///
/// # Errors
/// The first rule that is broken; nothing has been written.
pub(crate) fn apply(
    base: &Mapped<'_, Base>,
    patch: &Mapped<'_, Patch>,
    table: &HotPatchTable,
    active: &Active,
    in_patch: &Redirects<Patch>,
) -> Result<Plan, Refusal> {
    let chunks = check_table(base, patch, table)?;
    let mut plan = Plan {
        reverse: Vec::new(),
        forward: Vec::new(),
        active: Active {
            sequence: Some(table.sequence),
            redirects: active.redirects.clone(),
        },
        in_patch: in_patch.clone(),
    };
    for chunk in chunks {
        plan_reverse(base, patch, table, chunk, &mut plan)?;
    }
    plan_forgotten(base, chunks, active, &mut plan)?;
    for chunk in chunks {
        let Chunk::ForwardFunction(records) = chunk else {
            continue;
        };
        for record in records {
            let request = Request {
                entry: record.base,
                target: patch.address_of(record.patch),
                original: (table.extra_patch_size > 0).then_some(record.original),
            };
            redirect(
                base,
                &mut plan.active.redirects,
                &request,
                &mut plan.forward,
            )?;
        }
    }
    Ok(plan)
}

/// Plans the restoration of every redirected function of the base.
///
/// # Errors
/// Where an entry is no longer as this engine left it.
pub(crate) fn revert(
    base: &Mapped<'_, Base>,
    active: &Active,
) -> Result<Vec<Write<Base>>, Refusal> {
    let mut writes = Vec::new();
    for (&entry, known) in &active.redirects.by_entry {
        restore(base, entry, known, &mut writes)?;
    }
    Ok(writes)
}

/// Checks the table against the two images and returns its chunks.
pub(crate) fn check_table<'t>(
    base: &Mapped<'_, Base>,
    patch: &Mapped<'_, Patch>,
    table: &'t HotPatchTable,
) -> Result<&'t [Chunk], Refusal> {
    let machine = patch.image.machine;
    if base.image.machine != machine {
        return Err(Refusal::new::<Patch>(
            Status::InvalidImageFormat,
            "machine",
            base.image.machine.name(),
            machine.name(),
        ));
    }
    table
        .validate(machine, patch.image.size, base.image.size)
        .map_err(|error| {
            let place = format!("hotpatch table: {}", error.what);
            Refusal::new::<Patch>(
                Status::InvalidImageFormat,
                place,
                error.expected,
                error.found,
            )
        })?;
    // `validate` has made sure that there is exactly one.
    let target = &table.bases[0];
    if target.identity != base.image.identity {
        return Err(Refusal::new::<Base>(
            Status::RevisionMismatch,
            "identity",
            target.identity.to_string(),
            base.image.identity.to_string(),
        ));
    }
    Ok(&target.chunks)
}

/// The functions that only an earlier patch redirected go back to the original.
fn plan_forgotten(
    base: &Mapped<'_, Base>,
    chunks: &[Chunk],
    active: &Active,
    plan: &mut Plan,
) -> Result<(), Refusal> {
    let mut kept: Vec<Rva<Base>> = Vec::new();
    for chunk in chunks {
        if let Chunk::ForwardFunction(records) = chunk {
            kept.extend(records.iter().map(|record| record.base));
        }
    }
    kept.sort_unstable();
    for (entry, known) in &active.redirects.by_entry {
        if kept.binary_search(entry).is_err() {
            restore(base, *entry, known, &mut plan.forward)?;
            plan.active.redirects.by_entry.remove(entry);
        }
    }
    Ok(())
}

fn plan_reverse(
    base: &Mapped<'_, Base>,
    patch: &Mapped<'_, Patch>,
    table: &HotPatchTable,
    chunk: &Chunk,
    plan: &mut Plan,
) -> Result<(), Refusal> {
    let unsupported = |why: &str| {
        let place = format!("{} chunk", chunk.name());
        let expected = "FUNCTION, ABSOLUTE, INDIRECT or CALL_TARGET";
        Err(Refusal::new::<Patch>(
            Status::InvalidImageFormat,
            place,
            expected,
            why,
        ))
    };
    match chunk {
        // Call targets prepare control-flow guard for the patch and write nothing.
        Chunk::ForwardFunction(_) | Chunk::CallTarget(_) | Chunk::NoCallTarget(_) => Ok(()),
        Chunk::ReverseFunction(records) => records.iter().try_for_each(|record| {
            let request = Request {
                entry: record.patch,
                target: base.address_of(record.base),
                original: (table.extra_patch_size > 0).then_some(record.original),
            };
            redirect(patch, &mut plan.in_patch, &request, &mut plan.reverse)
        }),
        Chunk::ReverseAbsolute(records) => records.iter().try_for_each(|record| {
            plan_slot(patch, record.patch, base.address_of(record.base), plan)
        }),
        Chunk::ReverseIndirect(records) => records.iter().try_for_each(|record| {
            let value = base
                .bytes(record.base)
                .ok_or_else(|| outside(record.base))?;
            plan_slot(patch, record.patch, u64::from_le_bytes(value), plan)
        }),
        Chunk::ReverseRel32(_) => unsupported("one that kernels ignore"),
        Chunk::DynamicValue(_) => unsupported("one for the kernel's own images"),
    }
}

fn plan_slot(
    patch: &Mapped<'_, Patch>,
    at: Rva<Patch>,
    value: u64,
    plan: &mut Plan,
) -> Result<(), Refusal> {
    let before = patch.bytes::<8>(at).ok_or_else(|| outside(at))?;
    // Kernels make the slot's page writable for the moment; code pages are never written by it.
    let code = patch
        .image
        .section_at(at)
        .is_some_and(|section| section.executable);
    if code || at.get() < PAGE {
        let place = format!("slot at rva {at}");
        let found = if code {
            "a section of code"
        } else {
            "the headers"
        };
        return Err(Refusal::new::<Patch>(
            Status::InvalidImageFormat,
            place,
            "a section of data",
            found,
        ));
    }
    plan.reverse.push(Write {
        at,
        before: Piece::new(before),
        after: Piece::new(value.to_le_bytes()),
        code: false,
    });
    Ok(())
}

fn outside<S: Side>(at: Rva<S>) -> Refusal {
    let place = format!("8 bytes at rva {at}");
    Refusal::new::<S>(
        Status::InvalidImageFormat,
        place,
        "inside the image",
        "outside",
    )
}

/// Whether an instruction pointer at `rva` would be in the middle of what `writes` change.
///
/// The whole of an x64 redirect counts, from six bytes before the entry to two behind it.
pub(crate) fn is_in_way<S: Side>(machine: Machine, writes: &[Write<S>], rva: Rva<S>) -> bool {
    let before = match machine {
        Machine::X64 => 1,
        Machine::Arm64 => 0,
    };
    writes.iter().any(|write| {
        let start = write.at.get().saturating_sub(before);
        let end = write.at.get() + write.after.as_slice().len() as u32;
        write.code && (start..end).contains(&rva.get())
    })
}
