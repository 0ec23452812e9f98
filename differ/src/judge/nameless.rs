//! Initial values of writable data that no symbol names.
//!
//! Objects without debug information name nothing that is static. What of such an object no name
//! covers is compared as it lies there: the writable parts of one object, in order. Without a PDB
//! nothing tells all that an object gave, and sections take the place of objects.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use hpbuild_metadata::{Base, Fixed, Rva, Side};

use super::{Case, Refusal, data};
use crate::image::Image;
use crate::meaning::fresh::{Fresh, is_data, is_thread_local};

/// Where GNU ld puts what it makes for the loader, which that writes to.
const IMPORTS: &str = ".idata";

/// What one object gave to one kind of section, as far as it has bytes without a name.
type Parts<'a, S> = BTreeMap<(&'a str, u32), Vec<Part<'a, S>>>;

/// A stretch without a name, without the zeros around it: names beside it may come and go.
struct Part<'a, S: Side> {
    image: &'a Image<S>,
    start: Rva<S>,
    bytes: &'a [u8],
}

pub(super) fn judge(case: &Case<'_>, refusals: &mut Vec<Refusal>) {
    let (base, fixed) = (case.comparer.base, case.comparer.fixed);
    let (before, after) = match base.symbols.pdb().is_some() && fixed.symbols.pdb().is_some() {
        true => (parts(base), parts(fixed)),
        false => (parts_of_sections(base), parts_of_sections(fixed)),
    };
    let keys: BTreeSet<_> = before.keys().chain(after.keys()).collect();
    let fresh = OnceCell::new();
    for key in keys {
        let b = before.get(key).map_or(&[][..], Vec::as_slice);
        let f = after.get(key).map_or(&[][..], Vec::as_slice);
        let evidence = if b.len() == f.len() {
            b.iter().zip(f).find_map(|(b, f)| differ(case, b, f))
        } else {
            Some(format!("{} parts before, {} after", b.len(), f.len()))
        };
        let fresh = || fresh.get_or_init(|| Fresh::new(case.comparer));
        if let Some(evidence) = evidence {
            let name = format!("nameless data of {}", key.0);
            let message = match b.first() {
                // Who uses it has it from the patch.
                None if fresh().is_new(key.0) => continue,
                None => format!(
                    "{name} has initial values where the base has none: it may be new, or a variable of \
                     the base that the compiler has merged with others or taken apart"
                ),
                Some(_) => format!("the initial value of {name} changed"),
            };
            refusals.push(Refusal::new("HP030", name, message, evidence));
        }
    }
}

/// The parts of an image that hold more than zeros.
fn parts<S: Side>(image: &Image<S>) -> Parts<'_, S> {
    let mut found = Parts::new();
    for contribution in &image.contributions {
        let section = image.pe.section_at(contribution.rva);
        if !section.is_some_and(is_data) || is_thread_local(image, contribution.rva) {
            continue;
        }
        let Some(compiland) = image.compilands.get(contribution.compiland.index()) else {
            continue;
        };
        let span = (contribution.rva, contribution.size);
        let parts = nameless(image, span).into_iter();
        let mut parts = parts.filter_map(|range| Part::new(image, range)).peekable();
        if parts.peek().is_some() {
            let key = (&*compiland.place, contribution.characteristics);
            found.entry(key).or_default().extend(parts);
        }
    }
    found
}

/// The same by sections.
fn parts_of_sections<S: Side>(image: &Image<S>) -> Parts<'_, S> {
    let mut found = Parts::new();
    for section in &image.pe.sections {
        let is_imports = &*section.name == IMPORTS;
        if !is_data(section) || is_imports || is_thread_local(image, section.rva) {
            continue;
        }
        let parts = nameless(image, (section.rva, section.size)).into_iter();
        let parts = parts.filter_map(|range| Part::new(image, range));
        let key = (&*section.name, section.characteristics);
        found.entry(key).or_default().extend(parts);
    }
    found
}

/// The addresses that no symbol and no slot of the import table covers in these many bytes.
pub(super) fn nameless<S: Side>(image: &Image<S>, (rva, size): (Rva<S>, u32)) -> Vec<Range<u32>> {
    let (start, end) = (rva.get(), rva.get().saturating_add(size));
    let first = image
        .data
        .partition_point(|symbol| symbol.rva.get() < start);
    let named = image.data[first..]
        .iter()
        .take_while(|it| it.rva.get() < end);
    let named = named.map(|it| (it.rva.get(), it.size));
    let first = image.pe.imports.partition_point(|it| it.slot.get() < start);
    let slots = image.pe.imports[first..]
        .iter()
        .take_while(|it| it.slot.get() < end);
    let mut covered: Vec<(u32, u32)> = named.chain(slots.map(|it| (it.slot.get(), 8))).collect();
    covered.extend(type_descriptors(image, (rva, size)));
    covered.sort_unstable();
    let mut left = Vec::new();
    let mut at = start;
    for (from, size) in covered {
        if from > at {
            left.push(at..from);
        }
        at = at.max(from.saturating_add(size));
    }
    if at < end {
        left.push(at..end);
    }
    left
}

/// Where type descriptors lie, and how many bytes each has. They are known by the names in them: see
/// the rule about initial values. One that is new goes into the patch.
fn type_descriptors<S: Side>(
    image: &Image<S>,
    (rva, size): (Rva<S>, u32),
) -> impl Iterator<Item = (u32, u32)> {
    let places = image.pe.relocations_in(rva, size).iter();
    places.filter_map(|place| {
        // A pointer to a table, one that the runtime sets, and a name.
        let bytes = image.pe.bytes_from(*place);
        let name = bytes.get(16..).filter(|name| name.starts_with(b".?A"))?;
        let is_unset = bytes.get(8..16)?.iter().all(|byte| *byte == 0);
        let length = name.iter().position(|byte| *byte == 0)?;
        let size = u32::try_from(16 + length + 1).ok()?;
        is_unset.then_some((place.get(), size))
    })
}

impl<'a, S: Side> Part<'a, S> {
    /// What of a range is more than zeros; what is not in the file is zero, too.
    fn new(image: &'a Image<S>, range: Range<u32>) -> Option<Self> {
        let stored = image.pe.bytes_from(Rva::new(range.start));
        let bytes = &stored[..stored.len().min(range.len())];
        let first = bytes.iter().position(|byte| *byte != 0)?;
        let last = bytes.iter().rposition(|byte| *byte != 0)?;
        // The lowest byte of a pointer may be zero.
        let first = first - ((range.start as usize + first) & 7).min(first);
        Some(Self {
            image,
            start: Rva::new(range.start.checked_add(u32::try_from(first).ok()?)?),
            bytes: &bytes[first..=last],
        })
    }

    /// Where pointers begin, and where they lead.
    fn pointers(&self) -> Vec<(usize, Option<Rva<S>>)> {
        let size = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        let places = self.image.pe.relocations_in(self.start, size);
        let pointer = |place: &Rva<S>| {
            let word = self
                .image
                .pe
                .bytes(*place, 8)
                .and_then(|it| it.first_chunk());
            let target = word.and_then(|it| self.image.pe.rva_of(u64::from_le_bytes(*it)));
            Some((place.checked_sub(self.start)? as usize, target))
        };
        places.iter().filter_map(pointer).collect()
    }
}

/// How two parts differ.
fn differ(case: &Case<'_>, b: &Part<'_, Base>, f: &Part<'_, Fixed>) -> Option<String> {
    let (before, after) = (b.pointers(), f.pointers());
    let places = |it: (&(usize, _), &(usize, _))| it.0.0 == it.1.0;
    if before.len() != after.len() || !before.iter().zip(&after).all(places) {
        return Some(format!("other pointers behind rva {} of the base", b.start));
    }
    for ((at, before), (_, after)) in before.iter().zip(&after) {
        let same = match (before, after) {
            (Some(before), Some(after)) => data::leads_to_same(case, *before, *after),
            (before, after) => before.is_some() == after.is_some(),
        };
        if !same {
            let start = b.start;
            return Some(format!(
                "the pointer at byte {at:#x} of rva {start} leads elsewhere"
            ));
        }
    }
    let in_pointer = |at: usize| {
        let next = before.partition_point(|(place, _)| *place <= at);
        let last = next.checked_sub(1).map(|index| before[index].0);
        last.is_some_and(|place| at - place < 8)
    };
    let byte = |bytes: &[u8], at: usize| bytes.get(at).copied().unwrap_or(0);
    let mut all = 0..b.bytes.len().max(f.bytes.len());
    let at = all.find(|at| byte(b.bytes, *at) != byte(f.bytes, *at) && !in_pointer(*at))?;
    let (before, after) = (byte(b.bytes, at), byte(f.bytes, at));
    Some(format!(
        "byte {at:#x} of rva {}: {before:#04x} before, {after:#04x} after",
        b.start
    ))
}
