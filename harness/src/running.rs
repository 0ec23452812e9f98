//! `load -> apply -> observe -> revert`: a base with its patches, in one space.
//!
//! This is the harness's loader and its bookkeeping; the rules of patching are in `engine`.

use std::ops::Range;

use hpbuild_metadata::table::{self, Chunk, HotPatchTable};
use hpbuild_metadata::{Base, Patch, Rva, Side};

use crate::engine::plan::{self, Active};
use crate::engine::redirect::{Redirect, Redirects, follow};
use crate::engine::{Mapped, Refusal, Status, hex, x64};
use crate::error::Error;
use crate::image::Image;
use crate::space::{MappingId, Space};

/// One mapped image.
#[derive(Debug)]
pub(crate) struct Loaded<S: Side> {
    pub(crate) image: Image<S>,
    pub(crate) mapping: MappingId,
}

/// A mapped patch, its table, and the functions of it that lead to the base.
#[derive(Debug)]
pub(crate) struct LoadedPatch {
    pub(crate) loaded: Loaded<Patch>,
    pub(crate) table: HotPatchTable,
    pub(crate) redirects: Redirects<Patch>,
}

/// A base that runs, or could run, and what has been done to it.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) space: Space,
    pub(crate) base: Loaded<Base>,
    pub(crate) patches: Vec<LoadedPatch>,
    pub(crate) active: Active,
}

/// A patch image and its table, read but not mapped.
#[derive(Clone, Debug)]
pub(crate) struct PatchFile {
    pub(crate) image: Image<Patch>,
    pub(crate) table: HotPatchTable,
}

impl PatchFile {
    /// Reads a patch image.
    ///
    /// # Errors
    /// Where it is no loadable image, or has no hotpatch table or a damaged one.
    pub(crate) fn parse(file: &[u8]) -> Result<Self, Error> {
        let image = Image::<Patch>::parse(file)?;
        let at = image.table.ok_or_else(|| {
            let expected = "a hotpatch table (HotPatchTableOffset)";
            Error::image::<Patch>("load config", expected, "none")
        })?;
        let table = table::decode(&image.memory[at.get() as usize..])?;
        Ok(Self { image, table })
    }
}

/// Maps the base and the patches, none of them applied.
pub(crate) fn load(
    mut space: Space,
    base: Image<Base>,
    patches: Vec<PatchFile>,
    hpat_blocks: u32,
) -> Result<Running, Error> {
    let mapping = space.map(&base, hpat_blocks)?;
    let base = Loaded {
        image: base,
        mapping,
    };
    let mut loaded = Vec::new();
    for patch in patches {
        let mapping = space.map(&patch.image, hpat_blocks)?;
        loaded.push(LoadedPatch {
            loaded: Loaded {
                image: patch.image,
                mapping,
            },
            table: patch.table,
            redirects: Redirects::default(),
        });
    }
    Ok(Running {
        space,
        base,
        patches: loaded,
        active: Active::default(),
    })
}

/// One function that an applied patch redirects, as followed through memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reached {
    pub(crate) entry: Rva<Base>,
    pub(crate) wanted: u64,
    pub(crate) found: Option<u64>,
}

impl Running {
    fn mapped<'a, S: Side>(&self, loaded: &'a Loaded<S>, memory: &'a [u8]) -> Mapped<'a, S> {
        Mapped {
            image: &loaded.image,
            address: self.space.address(loaded.mapping),
            memory,
        }
    }

    /// Compares the running base with what patch `index` was built against: the identity, and
    /// the bytes of every function that is about to be redirected. All differences are returned.
    pub(crate) fn match_base(&self, index: usize) -> Vec<Refusal> {
        let patch = &self.patches[index];
        let memory = self.space.snapshot(self.base.mapping);
        let patch_memory = self.space.snapshot(patch.loaded.mapping);
        let base = self.mapped(&self.base, &memory);
        let chunks = match plan::check_table(
            &base,
            &self.mapped(&patch.loaded, &patch_memory),
            &patch.table,
        ) {
            Ok(chunks) => chunks,
            Err(refusal) => return vec![refusal],
        };
        let pristine = self.base.image.relocated(base.address);
        let mut refusals = Vec::new();
        for chunk in chunks {
            if let Chunk::ForwardFunction(records) = chunk {
                let known = &self.active.redirects;
                let differing =
                    |r: &table::ForwardAttach| match_function(&base, &pristine, r.base, known);
                refusals.extend(records.iter().filter_map(differing));
            }
        }
        refusals
    }

    /// Applies patch `index`, over whatever is applied now: all of it or nothing.
    ///
    /// # Errors
    /// The first rule that is broken. Base and patch are as they were.
    pub(crate) fn apply(&mut self, index: usize) -> Result<(), Refusal> {
        if let Some(refusal) = self.match_base(index).into_iter().next() {
            return Err(refusal);
        }
        let patch = &self.patches[index];
        let base_memory = self.space.snapshot(self.base.mapping);
        let patch_memory = self.space.snapshot(patch.loaded.mapping);
        let plan = plan::apply(
            &self.mapped(&self.base, &base_memory),
            &self.mapped(&patch.loaded, &patch_memory),
            &patch.table,
            &self.active,
            &patch.redirects,
        )?;
        let mapping = patch.loaded.mapping;
        self.space.perform(mapping, &plan.reverse)?;
        let before_forward = self.callout(index, Reason::Reversed);
        let forward =
            before_forward.and_then(|()| self.space.perform(self.base.mapping, &plan.forward));
        if let Err(refusal) = forward {
            self.take_back(mapping, &plan.reverse);
            // The answer changes nothing any more: the patch is already out.
            let _ = self.callout(index, Reason::RolledBack);
            return Err(refusal);
        }
        self.active = plan.active;
        self.patches[index].redirects = plan.in_patch;
        self.callout(index, Reason::Applied)
    }

    /// Restores every function of the base.
    ///
    /// # Errors
    /// Where one is no longer as the engine left it; then none is restored.
    pub(crate) fn revert(&mut self) -> Result<(), Refusal> {
        let memory = self.space.snapshot(self.base.mapping);
        let writes = plan::revert(&self.mapped(&self.base, &memory), &self.active)?;
        self.space.perform(self.base.mapping, &writes)?;
        self.active = Active::default();
        Ok(())
    }

    /// Follows every forward record of patch `index` through the base's memory.
    pub(crate) fn reached(&self, index: usize) -> Vec<Reached> {
        let patch = &self.patches[index];
        let memory = self.space.snapshot(self.base.mapping);
        let base = self.mapped(&self.base, &memory);
        let start = self.space.address(patch.loaded.mapping);
        let mut reached = Vec::new();
        for chunk in patch.table.bases.iter().flat_map(|base| &base.chunks) {
            if let Chunk::ForwardFunction(records) = chunk {
                reached.extend(records.iter().map(|record| Reached {
                    entry: record.base,
                    wanted: start + u64::from(record.patch.get()),
                    found: follow(&base, record.base),
                }));
            }
        }
        reached
    }

    /// Bytes of the base that differ from `before`, outside writable sections and the address
    /// table: what a revert must have put back. At most `limit` places.
    pub(crate) fn differs(&self, before: &[u8], limit: usize) -> Vec<Rva<Base>> {
        let now = self.space.snapshot(self.base.mapping);
        let image = &self.base.image;
        let pairs = now.iter().zip(before).take(image.size as usize);
        let changed = pairs.enumerate().filter(|(_, (now, before))| now != before);
        let mut places = Vec::new();
        for (at, _) in changed {
            let rva = Rva::new(at as u32);
            let writable = image
                .section_at(rva)
                .is_some_and(|section| section.writable);
            if !writable {
                places.push(rva);
            }
            if places.len() == limit {
                break;
            }
        }
        places
    }

    /// The reverse phase undone, last write first. Nobody runs in the patch yet, so that cannot
    /// fail for a reason the engine could do anything about.
    fn take_back(&mut self, mapping: MappingId, writes: &[crate::engine::Write<Patch>]) {
        let undo: Vec<_> = writes
            .iter()
            .rev()
            .map(|write| crate::engine::Write {
                before: write.after,
                after: write.before,
                ..*write
            })
            .collect();
        let undone = self.space.perform(mapping, &undo);
        assert!(
            undone.is_ok(),
            "the patch changed while it was being rolled back"
        );
    }

    /// Asks the patch's own callout, where it has one and this space can run it.
    fn callout(&self, index: usize, reason: Reason) -> Result<(), Refusal> {
        let loaded = &self.patches[index].loaded;
        let Some(&callout) = loaded.image.exports.get(CALLOUT) else {
            return Ok(());
        };
        let status = match &self.space {
            Space::Model(_) => 0,
            #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
            Space::Native(native) => native.callout(loaded.mapping, callout.get(), reason as u32),
        };
        if status >= 0 {
            return Ok(());
        }
        Err(Refusal::new::<Patch>(
            Status::CalloutFailed,
            format!("{CALLOUT} at rva {callout}, reason {}", reason as u32),
            "a status of success",
            format!("{status:#010x}"),
        ))
    }
}

/// Export of a patch that is told about each phase (format reference, section 4.3).
const CALLOUT: &str = "__PatchMainCallout__";

/// Why the callout is called.
#[derive(Clone, Copy, Debug)]
enum Reason {
    Reversed = 0,
    Applied = 1,
    RolledBack = 2,
}

/// Bytes compared at the entry of a function whose extent is not known.
const UNKNOWN_EXTENT: u32 = 16;

/// More bytes than are written before or behind an entry.
const LONGEST_WRITE: u32 = 8;

/// The bytes of the base that the redirect of `entry` changed.
fn written_for(entry: Rva<Base>, known: &Redirect) -> Range<u32> {
    let (pad, jump) = (known.pad.as_slice().len(), known.entry.as_slice().len());
    entry.get().saturating_sub(pad as u32)..entry.get() + jump as u32
}

/// Compares one function's bytes in memory with the file's, as relocated to where it lies.
fn match_function(
    base: &Mapped<'_, Base>,
    pristine: &[u8],
    entry: Rva<Base>,
    known: &Redirects<Base>,
) -> Option<Refusal> {
    let start = entry.get().saturating_sub(x64::PAD);
    let end = match base.image.extent_at(entry) {
        Some(extent) if extent.start == entry.get() => extent.end,
        _ => entry
            .get()
            .saturating_add(UNKNOWN_EXTENT)
            .min(base.image.size),
    };
    // What this engine itself has written is checked against its own notes, in `redirect`. A function
    // whose extent is not known may be compared as far as into what stands before the next one.
    let near = Rva::new(start.saturating_sub(LONGEST_WRITE))
        ..Rva::new(end.max(start).saturating_add(LONGEST_WRITE));
    let written: Vec<_> = (known.by_entry.range(near))
        .map(|(entry, known)| written_for(*entry, known))
        .collect();
    let differs = |at: &u32| {
        !written.iter().any(|range| range.contains(at))
            && base.memory.get(*at as usize) != pristine.get(*at as usize)
    };
    let at = (start..end).find(differs)?;
    let bytes = |memory: &[u8]| {
        let from = at as usize;
        hex(memory
            .get(from..(from + 8).min(memory.len()))
            .unwrap_or_default())
    };
    Some(Refusal::new::<Base>(
        Status::ConflictingAddresses,
        format!("function at rva {entry}, byte at rva {at:#x}"),
        format!("the file's bytes {}", bytes(pristine)),
        bytes(base.memory),
    ))
}
