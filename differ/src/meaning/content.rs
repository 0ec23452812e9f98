//! Read-only data by what it contains: bytes, and what its pointers mean.
//!
//! Tables lead to tables, in circles too. Two circles are equal when nothing in them differs, so
//! every comparison assumes the pairs it is in the middle of to be equal and looks for a
//! difference. For named data this is done once for the whole image: each pair is looked at by
//! itself, noting which other pairs it leads to, and differences are then carried back along
//! those edges until nothing changes any more.

use hpbuild_metadata::{Base, DataId, Fixed, Rva, Side};
use rayon::prelude::*;
use rustc_hash::FxHashSet;

use super::extent::{SHORT_TEXT, anonymous_extent, is_text, open_size};
use super::table::relative_entries;
use super::unwind_labels::UnwindRecords;
use super::vtables::{locator, reached_back};
use super::{Comparer, Difference, Extent, Meaning, Target, is_read_only, resolve};
use crate::decode::ReferenceKind;
use crate::image::{Contribution, Image};

/// Unnamed data that leads to unnamed data is followed this far; deeper is not understood.
const MAX_DEPTH: u32 = 32;

/// The largest vector's alignment.
const MOST_ALIGNED: u32 = 64;

/// How the linkage names of vtables begin.
const VTABLE: &str = "??_7";

/// A comparison under way.
pub(super) struct Visit {
    /// Pairs of unnamed places being compared, assumed equal.
    assumed: FxHashSet<(Rva<Base>, Rva<Fixed>)>,
    depth: u32,
    /// Whether what is being compared may go on behind a cut. What RVAs in data lead to, the tables of
    /// exceptions and of run-time type information, does not.
    is_open: bool,
    /// Named pairs met, where these are collected rather than looked up.
    collect: Option<Vec<DataId<Base>>>,
}

impl Visit {
    pub(super) fn new() -> Self {
        Self {
            assumed: FxHashSet::default(),
            depth: 0,
            is_open: true,
            collect: None,
        }
    }
}

/// A pair of data symbols whose contents differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataChange {
    /// The base symbol.
    pub base: DataId<Base>,
    /// Its partner.
    pub fixed: DataId<Fixed>,
}

/// For each base symbol whether its contents and all they lead to are the same in its partner.
pub(super) fn compare_symbols(comparer: &Comparer<'_>) -> Vec<bool> {
    let count = comparer.base.data.len();
    let records = UnwindRecords::new(comparer.base);
    let looked: Vec<(bool, Vec<DataId<Base>>)> = (0..count)
        .into_par_iter()
        .with_min_len(64)
        .map(|index| {
            let id = DataId::new(index);
            // Unwind data is compared with the function that it belongs to.
            if records.has_label(comparer.base, id) {
                return (true, Vec::new());
            }
            compare_symbol(comparer, id)
        })
        .collect();
    let mut same: Vec<bool> = looked.iter().map(|(same, _)| *same).collect();
    // Carry differences back along the edges.
    let mut readers = vec![Vec::new(); count];
    for (index, (_, edges)) in looked.iter().enumerate() {
        for edge in edges {
            readers[edge.index()].push(index);
        }
    }
    let mut changed: Vec<usize> = (0..count).filter(|index| !same[*index]).collect();
    while let Some(index) = changed.pop() {
        for reader in std::mem::take(&mut readers[index]) {
            if std::mem::replace(&mut same[reader], false) {
                changed.push(reader);
            }
        }
    }
    same
}

/// Compares one symbol's own contents; returns the symbols its pointers lead to.
fn compare_symbol(comparer: &Comparer<'_>, id: DataId<Base>) -> (bool, Vec<DataId<Base>>) {
    let base = comparer.base.data_symbol(id);
    let Some(partner) = comparer.pairing.fixed_data(id) else {
        return (true, Vec::new());
    };
    let fixed = comparer.fixed.data_symbol(partner);
    let constant = (
        is_read_only(comparer.base, base.rva),
        is_read_only(comparer.fixed, fixed.rva),
    );
    if constant == (false, false) {
        return (true, Vec::new());
    }
    let is_slot = comparer.base.pe.import_at(base.rva).is_some()
        && comparer.fixed.pe.import_at(fixed.rva).is_some();
    let linkage = base.decorated.as_deref().unwrap_or(&base.name);
    if is_slot || crate::names::is_linker_made(linkage, base.type_index != 0) {
        return (true, Vec::new());
    }
    if constant != (true, true) {
        return (false, Vec::new());
    }
    // Compilers name jump tables, too.
    if let (Target::JumpTable(b), Target::JumpTable(f)) = (
        jump_table(comparer.base, base.rva),
        jump_table(comparer.fixed, fixed.rva),
    ) {
        return (comparer.same_table(b, f), Vec::new());
    }
    let mut visit = Visit::new();
    visit.collect = Some(Vec::new());
    let exact = base.sized_by_type && fixed.sized_by_type;
    let meaning = comparer.compare_table_or_extents(
        Extent {
            rva: base.rva,
            size: base.size,
            exact,
        },
        Extent {
            rva: fixed.rva,
            size: fixed.size,
            exact,
        },
        &mut visit,
    );
    let same =
        meaning == Meaning::Same && comparer.same_locator(base.rva, fixed.rva, id, &mut visit);
    (same, visit.collect.unwrap_or_default())
}

/// Filler that may end a stretch of data has fewer bytes than this: what comes next is aligned to as
/// many, and nothing in a section to more than the section.
fn most_filler<S: Side>(image: &Image<S>, extent: Extent<S>) -> usize {
    let end = extent.rva.get().saturating_add(extent.size);
    let contribution = image.contribution_at(extent.rva);
    let section = contribution.and_then(Contribution::alignment);
    let next = 1 << end.trailing_zeros().min(MOST_ALIGNED.trailing_zeros());
    section.unwrap_or(MOST_ALIGNED).min(next) as usize
}

impl Comparer<'_> {
    /// As [`Comparer::data_same`], or, while symbols are first compared, an edge to be followed
    /// later.
    pub(super) fn data_same_in(&self, id: DataId<Base>, visit: &mut Visit) -> bool {
        match &mut visit.collect {
            Some(edges) => {
                edges.push(id);
                true
            }
            None => self.data_same(id),
        }
    }

    /// Compares read-only data without a common name.
    pub(super) fn compare_contents(
        &self,
        base: Rva<Base>,
        fixed: Rva<Fixed>,
        kind: ReferenceKind,
        visit: &mut Visit,
    ) -> Meaning {
        if !visit.assumed.insert((base, fixed)) {
            return Meaning::Same;
        }
        if visit.depth >= MAX_DEPTH {
            return Meaning::Unknown;
        }
        let is_address = kind == ReferenceKind::Address;
        let (b, f) = (self.extent(base, kind), self.extent_fixed(fixed, kind));
        let (Some(mut b), Some(mut f)) = (b, f) else {
            return Meaning::Unknown;
        };
        // From the middle of what has a section of its own code reaches back, too, and from where
        // the functions of a vtable begin to what stands in front of them.
        if is_address
            && let (Some(whole), Some(other)) = (
                reached_back(self.base, base),
                reached_back(self.fixed, fixed),
            )
        {
            if base.get() - whole.rva.get() != fixed.get() - other.rva.get() {
                return Meaning::Different(Difference::Data);
            }
            (b, f) = (whole, other);
        }
        visit.depth += 1;
        let mut meaning = self.compare_open(b, f, visit);
        if meaning == Meaning::Same && is_address && !self.same_locators(base, fixed, visit) {
            meaning = Meaning::Different(Difference::DataContent);
        }
        visit.depth -= 1;
        match meaning {
            Meaning::Different(_) => Meaning::Different(self.describe(b, kind)),
            other => other,
        }
    }

    /// The read-only data at an address of the base, as far as it is compared where it has no partner.
    pub(crate) fn extent(&self, rva: Rva<Base>, kind: ReferenceKind) -> Option<Extent<Base>> {
        match resolve(self.base, rva) {
            Target::Data { id, offset } => {
                let symbol = self.base.data_symbol(id);
                Some(Extent {
                    rva,
                    // Of the names of one address the first may be the smaller one.
                    size: symbol.size.checked_sub(offset)?,
                    exact: symbol.sized_by_type,
                })
            }
            _ => anonymous_extent(self.base, rva, kind),
        }
    }

    /// As [`Comparer::extent`], of the fixed image.
    pub(crate) fn extent_fixed(
        &self,
        rva: Rva<Fixed>,
        kind: ReferenceKind,
    ) -> Option<Extent<Fixed>> {
        match resolve(self.fixed, rva) {
            Target::Data { id, offset } => {
                let symbol = self.fixed.data_symbol(id);
                Some(Extent {
                    rva,
                    // Of the names of one address the first may be the smaller one.
                    size: symbol.size.checked_sub(offset)?,
                    exact: symbol.sized_by_type,
                })
            }
            _ => anonymous_extent(self.fixed, rva, kind),
        }
    }

    /// Compares data that may go on behind the end that is taken for its own.
    ///
    /// Code and pointers reach into the middle of things, too, and what has no name is cut there.
    /// What stands behind such a cut may be the rest, or something else that changed for its own
    /// readers: nobody can tell.
    fn compare_open(&self, base: Extent<Base>, fixed: Extent<Fixed>, visit: &mut Visit) -> Meaning {
        let is_open = visit.is_open;
        let meaning = self.compare_table_or_extents(base, fixed, visit);
        if !is_open {
            return meaning;
        }
        let open = (open_size(self.base, base), open_size(self.fixed, fixed));
        let mut whole = || {
            let base = Extent {
                size: open.0.unwrap_or(base.size),
                ..base
            };
            let fixed = Extent {
                size: open.1.unwrap_or(fixed.size),
                ..fixed
            };
            self.same_whole(base, fixed, visit)
        };
        match (meaning, open) {
            (Meaning::Same, (Some(_), Some(_))) if !whole() => Meaning::Unknown,
            // Cut in one of the two images alone.
            (Meaning::Different(_), (Some(_), _) | (_, Some(_)))
                if base.size != fixed.size && whole() =>
            {
                match self.may_lead_elsewhere(base, fixed, visit) {
                    true => Meaning::Unknown,
                    false => Meaning::Same,
                }
            }
            _ => meaning,
        }
    }

    /// Whether two stretches that end where something is certain to start are the same. Many
    /// references lead into one such stretch, and each goes on to its end: what one found out is
    /// remembered for the others.
    pub(super) fn same_whole(
        &self,
        base: Extent<Base>,
        fixed: Extent<Fixed>,
        visit: &mut Visit,
    ) -> bool {
        let is_first = visit.depth <= 1 && visit.collect.is_none() && base.size == fixed.size;
        let known = is_first
            .then(|| self.stretches.known(base, fixed))
            .flatten();
        if let Some(known) = known {
            return known;
        }
        let same = self.compare_extents(base, fixed, visit) == Meaning::Same;
        if is_first {
            let until = match same {
                true => Some(base.rva),
                false => self.first_plain_difference(base, fixed),
            };
            if let Some(until) = until {
                self.stretches.remember(base, fixed, same, until);
            }
        }
        same
    }

    /// The first place at which bytes differ that belong to no pointer.
    fn first_plain_difference(
        &self,
        base: Extent<Base>,
        fixed: Extent<Fixed>,
    ) -> Option<Rva<Base>> {
        let b = self.base.pe.bytes_from(base.rva);
        let f = self.fixed.pe.bytes_from(fixed.rva);
        let both = b.iter().zip(f).take(base.size as usize);
        let mut differing = both.enumerate().filter(|(_, (b, f))| b != f);
        differing.find_map(|(at, _)| {
            let at = u32::try_from(at).ok()?;
            let before = at.saturating_sub(7);
            let b = base.rva.checked_add(before)?;
            let f = fixed.rva.checked_add(before)?;
            let size = at - before + 1;
            let is_plain = self.base.pointers_in(b, size).is_empty()
                && self.fixed.pointers_in(f, size).is_empty();
            is_plain.then(|| base.rva.checked_add(at)).flatten()
        })
    }

    /// Compares data as the code that reads it takes it: as a table of distances, or as it stands.
    pub(super) fn compare_table_or_extents(
        &self,
        base: Extent<Base>,
        fixed: Extent<Fixed>,
        visit: &mut Visit,
    ) -> Meaning {
        let is_relative = self.base.relative_tables.binary_search(&base.rva).is_ok()
            && self.fixed.relative_tables.binary_search(&fixed.rva).is_ok();
        if is_relative {
            return match self.compare_relative(base.rva, fixed.rva, visit) {
                Meaning::Same => self.compare_behind_entries(base, fixed, visit),
                meaning => meaning,
            };
        }
        let meaning = self.compare_extents(base, fixed, visit);
        match meaning {
            Meaning::Same if self.may_lead_elsewhere(base, fixed, visit) => Meaning::Unknown,
            _ => meaning,
        }
    }

    /// Compares what data hold behind the distances that they begin with, as a pool of texts does: the
    /// entries that lead there say no more than that it belongs to the same data.
    fn compare_behind_entries(
        &self,
        base: Extent<Base>,
        fixed: Extent<Fixed>,
        visit: &mut Visit,
    ) -> Meaning {
        let rest = (
            behind_entries(self.base, base),
            behind_entries(self.fixed, fixed),
        );
        match rest {
            (Some(b), Some(f)) => self.compare_extents(b, f, visit),
            (None, None) => Meaning::Same,
            _ => Meaning::Different(Difference::DataContent),
        }
    }

    /// Whether equal contents may be distances that lead to different things. Code may read such a
    /// table in ways that are not known. Where it reads numbers, what they would lead to may differ all
    /// the same: nobody can tell.
    fn may_lead_elsewhere(
        &self,
        base: Extent<Base>,
        fixed: Extent<Fixed>,
        visit: &mut Visit,
    ) -> bool {
        may_be_relative(self.base, base)
            && may_be_relative(self.fixed, fixed)
            && self.compare_relative(base.rva, fixed.rva, visit) != Meaning::Same
    }

    /// Compares stretches byte by byte, and their pointers by what they lead to.
    fn compare_extents(
        &self,
        base: Extent<Base>,
        fixed: Extent<Fixed>,
        visit: &mut Visit,
    ) -> Meaning {
        let different = Meaning::Different(Difference::DataContent);
        if base.exact && fixed.exact && base.size != fixed.size {
            return different;
        }
        // Beyond the initialised part of a section are zeros, or nothing at all.
        let b = self.base.pe.bytes_from(base.rva);
        let f = self.fixed.pe.bytes_from(fixed.rva);
        let (b, f) = (
            &b[..b.len().min(base.size as usize)],
            &f[..f.len().min(fixed.size as usize)],
        );
        let common = b.len().min(f.len());
        let rest = if b.len() > common {
            &b[common..]
        } else {
            &f[common..]
        };
        let filler = match b.len() > common {
            true => most_filler(self.base, base),
            false => most_filler(self.fixed, fixed),
        };
        let is_filler = base.size == fixed.size || rest.len() < filler;
        if !is_filler || rest.iter().any(|byte| *byte != 0) {
            return different;
        }
        let b_pointers = self.base.pointers_in(base.rva, base.size);
        let f_pointers = self.fixed.pointers_in(fixed.rva, fixed.size);
        if b_pointers.len() != f_pointers.len() {
            return different;
        }
        let mut at = 0;
        let mut worst = Meaning::Same;
        for ((b_place, absolute), (f_place, f_absolute)) in b_pointers.into_iter().zip(f_pointers) {
            let offset = (b_place.get() - base.rva.get()) as usize;
            let f_offset = (f_place.get() - fixed.rva.get()) as usize;
            if offset != f_offset || absolute != f_absolute || offset < at {
                return different;
            }
            if b[at..offset.min(common)] != f[at..offset.min(common)] {
                return different;
            }
            let places = (
                pointer_at(self.base, b_place, absolute),
                pointer_at(self.fixed, f_place, absolute),
            );
            let is_open = std::mem::replace(&mut visit.is_open, absolute);
            let meaning = match places {
                (Some(b), Some(f)) => self.compare_in(b, f, ReferenceKind::Address, visit),
                _ => Meaning::Unknown,
            };
            visit.is_open = is_open;
            match meaning {
                Meaning::Different(_) => return different,
                other => worst = worst.max(other),
            }
            at = offset + if absolute { 8 } else { 4 };
        }
        if at < common && b[at..common] != f[at..common] {
            return different;
        }
        worst
    }

    /// Compares tables of distances by what their entries lead to.
    fn compare_relative(&self, base: Rva<Base>, fixed: Rva<Fixed>, visit: &mut Visit) -> Meaning {
        let (Some(b), Some(f)) = (
            relative_entries(&self.base.pe, &self.base.boundaries, base),
            relative_entries(&self.fixed.pe, &self.fixed.boundaries, fixed),
        ) else {
            return Meaning::Unknown;
        };
        if b.len() != f.len() {
            return Meaning::Different(Difference::DataContent);
        }
        let mut worst = Meaning::Same;
        for (b, f) in b.into_iter().zip(f) {
            match self.compare_in(b, f, ReferenceKind::Address, visit) {
                Meaning::Different(_) => return Meaning::Different(Difference::DataContent),
                other => worst = worst.max(other),
            }
        }
        worst
    }

    /// Whether two vtables say the same of the object. In the Microsoft C++ ABI the pointer before
    /// a vtable leads to the run-time type information, where there is any.
    fn same_locator(
        &self,
        base: Rva<Base>,
        fixed: Rva<Fixed>,
        vtable: DataId<Base>,
        visit: &mut Visit,
    ) -> bool {
        let symbol = self.base.data_symbol(vtable);
        let linkage = symbol.decorated.as_deref().unwrap_or(&symbol.name);
        !linkage.starts_with(VTABLE) || self.same_locators(base, fixed, visit)
    }

    /// Whether what stands before two vtables leads to the same; where nothing does, they are none,
    /// or have no run-time type information. It is in the same place in both C++ ABIs.
    fn same_locators(&self, base: Rva<Base>, fixed: Rva<Fixed>, visit: &mut Visit) -> bool {
        match (locator(self.base, base), locator(self.fixed, fixed)) {
            (None, None) => true,
            (Some(base), Some(fixed)) => {
                self.compare_in(base, fixed, ReferenceKind::Address, visit) == Meaning::Same
            }
            _ => false,
        }
    }

    /// The word for a difference in unnamed data.
    fn describe(&self, base: Extent<Base>, kind: ReferenceKind) -> Difference {
        if matches!(kind, ReferenceKind::Memory(_)) {
            return Difference::Literal;
        }
        // Small distances can look like letters.
        if self.base.relative_tables.binary_search(&base.rva).is_ok() {
            return Difference::DataContent;
        }
        let bytes = self.base.pe.bytes_from(base.rva);
        let text = bytes.iter().take_while(|byte| is_text(**byte)).count();
        let size = base.size as usize;
        let is_whole = base.exact && text >= size;
        // A small number looks like a short text in something larger.
        let is_long = text >= SHORT_TEXT || text > 0 && size <= text + 1;
        if is_whole || is_long && bytes.get(text) == Some(&0) {
            Difference::String
        } else {
            Difference::DataContent
        }
    }
}

/// Whether data without a known type holds nothing but distances from its start to where other things
/// start.
fn may_be_relative<S: Side>(image: &Image<S>, extent: Extent<S>) -> bool {
    if extent.exact || !extent.size.is_multiple_of(4) || extent.size < 8 {
        return false;
    }
    let starts = |target: &Rva<S>| {
        let is_function = || {
            image
                .functions
                .binary_search_by_key(target, |it| it.rva)
                .is_ok()
        };
        *target != extent.rva && (image.boundaries.binary_search(target).is_ok() || is_function())
    };
    // One look tells nearly all others.
    let first = image
        .pe
        .bytes(extent.rva, 4)
        .and_then(|it| it.first_chunk());
    let first = first.and_then(|word| extent.rva.checked_offset(i32::from_le_bytes(*word).into()));
    if !first.is_some_and(|first| starts(&first)) {
        return false;
    }
    let entries = relative_entries(&image.pe, &image.boundaries, extent.rva);
    entries.is_some_and(|entries| entries.len() > 1 && entries.iter().all(starts))
}

/// What is left of an extent behind the distances that it begins with.
fn behind_entries<S: Side>(image: &Image<S>, extent: Extent<S>) -> Option<Extent<S>> {
    let entries = relative_entries(&image.pe, &image.boundaries, extent.rva)?;
    let size = u32::try_from(entries.len()).ok()?.checked_mul(4)?;
    Some(Extent {
        rva: extent.rva.checked_add(size)?,
        size: extent.size.checked_sub(size).filter(|left| *left > 0)?,
        ..extent
    })
}

/// The jump table at an address, whatever else may have it.
fn jump_table<S: Side>(image: &Image<S>, rva: Rva<S>) -> Target<S> {
    let tables = &image.switch_tables;
    match tables.binary_search_by_key(&rva, |table| table.table) {
        Ok(index) => Target::JumpTable(index),
        Err(_) => Target::Anonymous(rva),
    }
}

/// What the pointer at a place leads to: a virtual address, or else an RVA.
pub(crate) fn pointer_at<S: Side>(
    image: &Image<S>,
    place: Rva<S>,
    absolute: bool,
) -> Option<Rva<S>> {
    if absolute {
        let bytes = image.pe.bytes(place, 8)?.first_chunk()?;
        return image.pe.rva_of(u64::from_le_bytes(*bytes));
    }
    let bytes = image.pe.bytes(place, 4)?.first_chunk()?;
    Some(Rva::new(u32::from_le_bytes(*bytes)))
}
