//! Writable data without a name that is certain to be new.
//!
//! Optimisers leave variables without names: they make a byte of a flag, and take structures apart. What
//! the fixed image has so may be something that the base has, under a name or without one, and a copy of
//! that would lose what the process holds. It is new where nothing of the base is left that it could be:
//!
//! * Code of the base reaches nothing without a name in what the object gave, and no pointer leads there.
//! * In no object code reaches fewer places without a name than in the base.
//! * Every writable variable of the base has a partner, and those of the object are whole in both images:
//!   as large as their types say, which those are not of which the rest lies elsewhere.
//! * A compiler made the object, and told the names of what is static.

use std::collections::{BTreeMap, BTreeSet};

use hpbuild_metadata::{DataId, Fixed, Rva, Side};

use super::{Comparer, Target, is_read_only, resolve};
use crate::image::{DataSymbol, Image};
use crate::pe::Section;

/// `CV_CFL_MASM`.
const ASSEMBLER: u8 = 3;

/// What is known of each object by where it comes from ([`crate::image::Compiland::place`]).
pub struct Fresh<'a> {
    fixed: &'a Image<Fixed>,
    /// Whether no variable of the base can be what has no name in the fixed image, the objects set aside
    /// that are named below.
    is_settled: bool,
    /// Objects of which something may be in doubt.
    doubtful: BTreeSet<&'a str>,
}

impl<'a> Fresh<'a> {
    /// Looks at all variables of both images.
    pub fn new(comparer: &Comparer<'a>) -> Self {
        let (base, fixed) = (comparer.base, comparer.fixed);
        let (before, after) = (counts(base), counts(fixed));
        let is_lost = |(place, count): (&&str, &usize)| after.get(place).unwrap_or(&0) < count;
        let is_gone = |id: usize| {
            let symbol = base.data_symbol(DataId::new(id));
            is_variable(base, symbol.rva) && comparer.fixed_data_of(DataId::new(id)).is_none()
        };
        let has_pdbs = base.symbols.pdb().is_some() && fixed.symbols.pdb().is_some();
        let is_settled =
            has_pdbs && !before.iter().any(is_lost) && !(0..base.data.len()).any(is_gone);
        let mut doubtful: BTreeSet<&str> = before.into_keys().collect();
        doubtful.extend(pointed_at(base));
        doubtful.extend(untold(base).chain(untold(fixed)));
        let pairs = (0..fixed.data.len()).map(DataId::new);
        let pairs = pairs.filter_map(|id| Some((comparer.base_data_of(id)?, id)));
        for (b, f) in pairs {
            let (b, f) = (base.data_symbol(b), fixed.data_symbol(f));
            let is_here = is_variable(fixed, f.rva);
            if is_here && !(is_whole(base, b) && is_whole(fixed, f)) {
                doubtful.extend(object(fixed, f.rva));
            }
        }
        Self {
            fixed,
            is_settled,
            doubtful,
        }
    }

    /// Whether what an object gave without a name is new.
    pub fn is_new(&self, place: &str) -> bool {
        self.is_settled && !self.doubtful.contains(place)
    }

    /// The data without a name around a place that is certain to be new: first byte and size.
    pub fn stretch(&self, rva: Rva<Fixed>) -> Option<(Rva<Fixed>, u32)> {
        let image = self.fixed;
        if !is_variable(image, rva) || !self.is_new(object(image, rva)?) {
            return None;
        }
        let contribution = image.contribution_at(rva)?;
        let next = image.data.partition_point(|symbol| symbol.rva <= rva);
        let before = next.checked_sub(1).map(|index| &image.data[index]);
        let start = before.and_then(|symbol| symbol.rva.checked_add(symbol.size));
        let start = start.unwrap_or(contribution.rva).max(contribution.rva);
        let end = contribution.rva.checked_add(contribution.size)?;
        let end = image.data.get(next).map_or(end, |it| it.rva.min(end));
        (start <= rva).then_some((start, end.checked_sub(start)?))
    }
}

/// Whether the program's variables may be here once it runs.
pub(crate) fn is_data<S: Side>(section: &Section<S>) -> bool {
    section.is_writable() && !section.is_code()
}

/// Whether this is a part of what each thread starts with, which is compared as a whole.
pub(crate) fn is_thread_local<S: Side>(image: &Image<S>, rva: Rva<S>) -> bool {
    let template = image.pe.tls.as_ref().and_then(|tls| tls.template);
    template.is_some_and(|(start, size)| rva.checked_sub(start).is_some_and(|at| at < size))
}

/// How many places without a name code reaches in what each object gave to writable sections.
pub(crate) fn counts<S: Side>(image: &Image<S>) -> BTreeMap<&str, usize> {
    let functions = image.function_ids();
    let targets = functions.flat_map(|id| image.references_of(id));
    let places: BTreeSet<_> = targets.map(|placed| placed.reference.target).collect();
    let mut found = BTreeMap::new();
    for rva in places {
        if let Some(place) = object(image, rva).filter(|_| is_nameless(image, rva)) {
            *found.entry(place).or_default() += 1;
        }
    }
    found
}

/// The objects of which pointers in data lead to what has no name.
fn pointed_at<S: Side>(image: &Image<S>) -> impl Iterator<Item = &str> {
    let places = image.pe.base_relocations.iter();
    let targets = places.filter_map(|place| {
        let word = image.pe.bytes(*place, 8)?.first_chunk()?;
        image.pe.rva_of(u64::from_le_bytes(*word))
    });
    let targets = targets.filter(|rva| is_nameless(image, *rva));
    targets.filter_map(|rva| object(image, rva))
}

/// The objects of which nothing tells that static variables have names.
fn untold<S: Side>(image: &Image<S>) -> impl Iterator<Item = &str> {
    let is_told = |tool: &crate::image::Tool| tool.language != ASSEMBLER;
    let all = image.compilands.iter();
    let untold = all.filter(move |it| !it.tool.as_ref().is_some_and(is_told));
    untold.map(|it| &*it.place)
}

/// The object that gave what is here.
fn object<S: Side>(image: &Image<S>, rva: Rva<S>) -> Option<&str> {
    let contribution = image.contribution_at(rva)?;
    let compiland = image.compilands.get(contribution.compiland.index())?;
    Some(&compiland.place)
}

fn is_variable<S: Side>(image: &Image<S>, rva: Rva<S>) -> bool {
    image.pe.section_at(rva).is_some_and(is_data)
        && !is_read_only(image, rva)
        && !is_thread_local(image, rva)
}

fn is_nameless<S: Side>(image: &Image<S>, rva: Rva<S>) -> bool {
    let is_here = image.pe.section_at(rva).is_some_and(is_data) && !is_thread_local(image, rva);
    is_here && matches!(resolve(image, rva), Target::Anonymous(_))
}

/// Whether a variable has all the bytes that its type says.
fn is_whole<S: Side>(image: &Image<S>, symbol: &DataSymbol<S>) -> bool {
    let size = image.types.size(symbol.type_index);
    let end = symbol.rva.checked_add(symbol.size);
    let Some(end) = end.filter(|_| symbol.sized_by_type && size == Some(symbol.size)) else {
        return false;
    };
    let next = image.data.partition_point(|it| it.rva <= symbol.rva);
    let is_apart = image.data.get(next).is_none_or(|it| it.rva >= end);
    let given = image.contribution_at(symbol.rva);
    let given = given.and_then(|it| it.rva.checked_add(it.size));
    is_apart && given.is_some_and(|given| end <= given)
}
