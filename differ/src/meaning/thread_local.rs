//! Thread-local variables of two images: whether an offset into a thread's block means the same.
//!
//! Code reaches such a variable by an offset from the start of its thread's block, and nothing in
//! an image says which of its numbers are such offsets. So the offsets mean the same where the whole
//! layout does: every variable at its offset, in blocks of the same size that start alike.

use std::collections::BTreeSet;

use hpbuild_metadata::{Rva, Side};

use super::{Comparer, Meaning};
use crate::decode::ReferenceKind;
use crate::image::Image;

/// A difference between the thread-local variables of two images.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ThreadLocalChange {
    /// The variable; empty where it is the block as a whole.
    pub name: String,
    /// What differs.
    pub evidence: String,
}

/// What lies in a thread's block.
struct Block<S: Side> {
    start: Rva<S>,
    /// Initialised bytes, and zeros behind.
    size: u32,
    zeros: u32,
    /// Offset and name of every variable.
    variables: BTreeSet<(u32, String)>,
    /// Offset, size and compiland of every stretch.
    stretches: BTreeSet<(u32, u32, String)>,
}

impl<S: Side> Block<S> {
    fn new(image: &Image<S>) -> Option<Self> {
        let tls = image.pe.tls.as_ref()?;
        let (start, size) = tls.template?;
        let within = |rva: Rva<S>| rva.checked_sub(start).filter(|at| *at < size.max(1));
        let first = image.data.partition_point(|symbol| symbol.rva < start);
        let variables = image.data[first..].iter().map_while(|symbol| {
            let at = within(symbol.rva)?;
            Some((at, symbol.name.to_string()))
        });
        let first = image
            .contributions
            .partition_point(|contribution| contribution.rva < start);
        let stretches = image.contributions[first..].iter().map_while(|stretch| {
            let at = within(stretch.rva)?;
            let compiland = image.compilands.get(stretch.compiland.index());
            let name = compiland.map_or("", |compiland| &compiland.short_name);
            Some((at, stretch.size, name.to_owned()))
        });
        Some(Self {
            start,
            size,
            zeros: tls.zero_fill,
            variables: variables.collect(),
            stretches: stretches.collect(),
        })
    }

    fn offset_of(&self, name: &str) -> Option<u32> {
        let mut variables = self.variables.iter();
        variables
            .find(|(_, other)| other == name)
            .map(|(at, _)| *at)
    }
}

impl Comparer<'_> {
    /// Everything in which the thread-local variables of the fixed image differ from those of the
    /// base; nothing where code of the fixed image can work on a block of the base. An image
    /// without any differs from none.
    pub fn thread_local_changes(&self) -> Vec<ThreadLocalChange> {
        let Some(after) = Block::new(self.fixed) else {
            return Vec::new();
        };
        let whole = |evidence: String| ThreadLocalChange {
            name: String::new(),
            evidence,
        };
        let Some(before) = Block::new(self.base) else {
            let evidence = format!("block: none before, {} bytes after", after.size);
            return vec![whole(evidence)];
        };
        let mut changes = Vec::new();
        for (at, name) in after.variables.difference(&before.variables) {
            let evidence = match before.offset_of(name) {
                Some(old) => format!("offset {old:#x} before, {at:#x} after"),
                None => format!("new, at offset {at:#x}"),
            };
            let name = name.clone();
            changes.push(ThreadLocalChange { name, evidence });
        }
        for (at, name) in before.variables.difference(&after.variables) {
            if after.offset_of(name).is_none() {
                let evidence = format!("gone from offset {at:#x}");
                let name = name.clone();
                changes.push(ThreadLocalChange { name, evidence });
            }
        }
        let sizes = (before.size, before.zeros) != (after.size, after.zeros);
        if sizes || before.stretches != after.stretches {
            let evidence = format!(
                "block: {} bytes and {} zeros before, {} bytes and {} zeros after",
                before.size, before.zeros, after.size, after.zeros
            );
            changes.push(whole(evidence));
        } else if let Some(at) = self.initial_block_differs(&before, &after) {
            changes.push(whole(format!(
                "block: another initial value at offset {at:#x}"
            )));
        }
        changes
    }

    /// The first offset at which threads start with another value. Both blocks have one size.
    fn initial_block_differs(
        &self,
        before: &Block<hpbuild_metadata::Base>,
        after: &Block<hpbuild_metadata::Fixed>,
    ) -> Option<u32> {
        let stored = |bytes: &[u8], at: u32| bytes.get(at as usize).copied().unwrap_or(0);
        let (b, f) = (
            self.base.pe.bytes_from(before.start),
            self.fixed.pe.bytes_from(after.start),
        );
        let pointers = |places: Vec<u32>| -> BTreeSet<u32> { places.into_iter().collect() };
        let b_places = self.base.pe.relocations_in(before.start, before.size);
        let f_places = self.fixed.pe.relocations_in(after.start, after.size);
        let b_pointers = pointers(
            b_places
                .iter()
                .map(|p| p.get() - before.start.get())
                .collect(),
        );
        let f_pointers = pointers(
            f_places
                .iter()
                .map(|p| p.get() - after.start.get())
                .collect(),
        );
        if let Some(at) = b_pointers.symmetric_difference(&f_pointers).next() {
            return Some(*at);
        }
        let word = |bytes: &[u8], at: u32| -> Option<u64> {
            let word = bytes.get(at as usize..)?.first_chunk()?;
            Some(u64::from_le_bytes(*word))
        };
        let differs = |at: &u32| {
            let targets = (
                word(b, *at).and_then(|value| self.base.pe.rva_of(value)),
                word(f, *at).and_then(|value| self.fixed.pe.rva_of(value)),
            );
            match targets {
                (Some(b), Some(f)) => self.compare(b, f, ReferenceKind::Address) != Meaning::Same,
                _ => true,
            }
        };
        if let Some(at) = b_pointers.iter().find(|at| differs(at)) {
            return Some(*at);
        }
        let in_pointer = |at: u32| b_pointers.range(at.saturating_sub(7)..=at).next().is_some();
        // What lies behind the stored bytes of the section is zero on both sides.
        let most = u32::try_from(b.len().max(f.len())).unwrap_or(u32::MAX);
        (0..before.size.min(most)).find(|at| !in_pointer(*at) && stored(b, *at) != stored(f, *at))
    }
}
