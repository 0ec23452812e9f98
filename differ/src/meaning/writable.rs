//! Writable data without a name: the guards of variables that are made when they are first reached,
//! type descriptors of classes that one object keeps to itself.

use std::borrow::Cow;
use std::ops::Range;

use hpbuild_metadata::{Base, DataId, Fixed, Rva, Side};

use super::{Comparer, Difference, Meaning, Target};
use crate::image::{Contribution, Image};

/// More contributions of one compiland beside each other are not looked at.
const MAX_NEIGHBOURS: usize = 1 << 12;

impl Comparer<'_> {
    /// Writable data without a name is known by the name of the type that it describes, by what
    /// stands around it, by its place in the contribution of its compiland while that keeps its
    /// size, or because there is no other among the same names.
    pub(super) fn compare_unnamed_writable(
        &self,
        base: Rva<Base>,
        b: Target<Base>,
        fixed: Rva<Fixed>,
        f: Target<Fixed>,
    ) -> Meaning {
        let (Target::Anonymous(_), Target::Anonymous(_)) = (b, f) else {
            return Meaning::Different(Difference::Data);
        };
        self.compare_places(base, fixed, true)
    }

    /// Whether writable data without a name are where they were. Where all code that reaches them
    /// changed, the only one among some names may be another one.
    pub fn stays_unnamed(&self, base: Rva<Base>, fixed: Rva<Fixed>) -> bool {
        self.compare_places(base, fixed, false) == Meaning::Same
    }

    fn compare_places(&self, base: Rva<Base>, fixed: Rva<Fixed>, may_move: bool) -> Meaning {
        // The runtime writes into it, and knows it by the name of its type.
        let types = (type_name(self.base, base), type_name(self.fixed, fixed));
        if let (Some(b), Some(f)) = types {
            if b == f {
                return Meaning::Same;
            }
            // Another hash of the source: of several such types nothing tells which is meant.
            if without_hashes(b) != without_hashes(f) {
                return Meaning::Different(Difference::Data);
            }
        }
        let beside = (Beside::new(self.base, base), Beside::new(self.fixed, fixed));
        if let (Some(b), Some(f)) = beside
            && self.paired_data(b.named, f.named).is_some()
            && (b.distance, b.gap) == (f.distance, f.gap)
        {
            return Meaning::Same;
        }
        if let Some(meaning) = self.compare_between(base, fixed) {
            return meaning;
        }
        let (Some(b), Some(f)) = (
            self.base.contribution_at(base),
            self.fixed.contribution_at(fixed),
        ) else {
            return Meaning::Unknown;
        };
        let name =
            |name: Option<&crate::image::Compiland>| name.map(|compiland| compiland.place.clone());
        let same_compiland = name(self.base.compilands.get(b.compiland.index()))
            == name(self.fixed.compilands.get(f.compiland.index()));
        if !same_compiland || b.characteristics != f.characteristics {
            return Meaning::Unknown;
        }
        let is_only = || {
            let only = (only_nameless(self.base, b), only_nameless(self.fixed, f));
            only == (Some(base), Some(fixed)) && self.have_same_names(b, f)
        };
        if may_move && is_only() {
            return Meaning::Same;
        }
        if b.size != f.size {
            return Meaning::Unknown;
        }
        // With a section for each variable it is the section that tells which one it is.
        let (b_place, f_place) = (nameless_place(self.base, b), nameless_place(self.fixed, f));
        let (Some((b_place, b_count)), Some((f_place, f_count))) = (b_place, f_place) else {
            return Meaning::Unknown;
        };
        if b_count != f_count {
            return Meaning::Unknown;
        }
        if b_place == f_place && base.get() - b.rva.get() == fixed.get() - f.rva.get() {
            Meaning::Same
        } else {
            Meaning::Different(Difference::Data)
        }
    }
}

impl Comparer<'_> {
    /// Whether nothing else that code reaches without a name, and of which it is not known what it is,
    /// lies between the same names or in a section of its kind as writable data without one, on either
    /// side: where several do, another order of them or others of the same sizes look alike.
    pub fn is_only_unnamed(
        &self,
        (base, is_known_base): (Rva<Base>, impl Fn(Rva<Base>) -> bool),
        (fixed, is_known_fixed): (Rva<Fixed>, impl Fn(Rva<Fixed>) -> bool),
    ) -> bool {
        let is_type = type_name(self.base, base).is_some();
        is_type
            || is_left(self.base, base, is_known_base) && is_left(self.fixed, fixed, is_known_fixed)
    }

    /// Whether the named data of two contributions are the same.
    fn have_same_names(&self, base: &Contribution<Base>, fixed: &Contribution<Fixed>) -> bool {
        let before = names_in(self.base, base);
        let after = names_in(self.fixed, fixed);
        let is_there = |id: usize| {
            let partner = self.pairing.fixed_data(DataId::new(id));
            partner.is_some_and(|partner| after.contains(&partner.index()))
        };
        before.len() == after.len() && before.into_iter().all(is_there)
    }

    /// Compares places that lie between the same two names of a section, which are as far apart as
    /// before, where nothing tells which object gave what. Where something else is known to start in
    /// between in one image alone, variables may have come and gone.
    fn compare_between(&self, base: Rva<Base>, fixed: Rva<Fixed>) -> Option<Meaning> {
        let (b, f) = (
            Between::new(self.base, base)?,
            Between::new(self.fixed, fixed)?,
        );
        self.paired_data(b.before, f.before)?;
        self.paired_data(b.behind, f.behind)?;
        if b.gap != f.gap {
            return None;
        }
        if b.distance != f.distance {
            return Some(Meaning::Different(Difference::Data));
        }
        (b.starts == f.starts).then_some(Meaning::Same)
    }
}

/// The data symbols that begin in a contribution.
fn names_in<S: Side>(image: &Image<S>, contribution: &Contribution<S>) -> Range<usize> {
    let start = contribution.rva;
    let first = image.data.partition_point(|symbol| symbol.rva < start);
    let end = start.checked_add(contribution.size);
    let behind = |end| image.data.partition_point(|symbol| symbol.rva < end);
    first..end.map_or(image.data.len(), behind)
}

/// The place in a contribution that code reaches and that no name covers, where there is one alone, and
/// names beside it.
fn only_nameless<S: Side>(image: &Image<S>, contribution: &Contribution<S>) -> Option<Rva<S>> {
    let end = contribution.rva.checked_add(contribution.size)?;
    let named = |rva: Rva<S>| {
        let behind = image.data.partition_point(|symbol| symbol.rva <= rva);
        let symbol = image.data.get(behind.checked_sub(1)?)?;
        rva.checked_sub(symbol.rva)
            .filter(|at| *at < symbol.size.max(1))
    };
    let first = image
        .boundaries
        .partition_point(|it| *it < contribution.rva);
    let inside = image.boundaries.get(first..)?.iter();
    let inside = inside.take_while(|it| **it < end);
    let mut only = None;
    for rva in inside.take(MAX_NEIGHBOURS) {
        match named(*rva) {
            Some(_) => {}
            None if only.is_some() => return None,
            None => only = Some(*rva),
        }
    }
    only.filter(|_| !names_in(image, contribution).is_empty())
}

/// Whether all others are known.
fn is_left<S: Side>(image: &Image<S>, rva: Rva<S>, is_known: impl Fn(Rva<S>) -> bool) -> bool {
    let behind = image.data.partition_point(|symbol| symbol.rva <= rva);
    let end_of = |index: usize| {
        let symbol = image.data.get(index)?;
        symbol.rva.checked_add(symbol.size)
    };
    let mut start = behind.checked_sub(1).and_then(end_of);
    let mut end = image.data.get(behind).map(|symbol| symbol.rva);
    if let Some(contribution) = image.contribution_at(rva) {
        if start.is_none_or(|start| start <= contribution.rva) {
            let others = nameless_beside(image, contribution);
            let are_known = |others: &Vec<&Contribution<S>>| {
                let mut others = others.iter();
                others.all(|it| is_known_whole(image, it, &is_known))
            };
            if !others.as_ref().is_some_and(are_known) {
                return false;
            }
            start = Some(contribution.rva);
        }
        let last = contribution.rva.checked_add(contribution.size);
        end = end.into_iter().chain(last).min();
    }
    let from = start.map_or(0, |start| {
        image.boundaries.partition_point(|it| *it < start)
    });
    let reached = image.boundaries[from..].iter();
    let mut within = reached.take_while(|it| end.is_none_or(|end| **it < end));
    within.all(|it| *it == rva || is_known(*it))
}

/// Whether code reaches a contribution without names, and all that it reaches there is known.
fn is_known_whole<S: Side>(
    image: &Image<S>,
    contribution: &Contribution<S>,
    is_known: impl Fn(Rva<S>) -> bool,
) -> bool {
    let first = image
        .boundaries
        .partition_point(|it| *it < contribution.rva);
    let reached = image.boundaries[first..].iter();
    let mut inside = reached
        .take_while(|it| (**it).checked_sub(contribution.rva) < Some(contribution.size))
        .peekable();
    inside.peek().is_some() && inside.all(|it| is_known(*it))
}

/// Where a place without a name lies between two names of one section that no contribution covers.
struct Between<S: Side> {
    before: DataId<S>,
    behind: DataId<S>,
    /// Bytes from where the first one starts.
    distance: u32,
    /// Bytes from there to the second one.
    gap: u32,
    /// What is known to start in between, as bytes from there.
    starts: Vec<u32>,
}

impl<S: Side> Between<S> {
    fn new(image: &Image<S>, rva: Rva<S>) -> Option<Self> {
        if image.contribution_at(rva).is_some() {
            return None;
        }
        let section = image.pe.section_at(rva)?;
        let behind = image.data.partition_point(|symbol| symbol.rva <= rva);
        let start = image.data.get(behind.checked_sub(1)?)?.rva;
        let end = image.data.get(behind)?.rva;
        if start < section.rva || end.checked_sub(section.rva)? >= section.size {
            return None;
        }
        // Of several names of one address the first one stands for all.
        let first = |index| image.data_aliases(DataId::new(index)).next();
        let from = image.boundaries.partition_point(|it| *it <= start);
        let to = image.boundaries.partition_point(|it| *it < end);
        let starts = image.boundaries.get(from..to)?.iter();
        Some(Between {
            before: first(behind - 1)?,
            behind: first(behind)?,
            distance: rva.checked_sub(start)?,
            gap: end.checked_sub(start)?,
            starts: starts.filter_map(|it| it.checked_sub(start)).collect(),
        })
    }
}

/// Among the contributions of its kind that its compiland gave beside each other, and that have no
/// named data, the how manieth one this is, and how many there are. `None` where there are too many.
fn nameless_place<S: Side>(
    image: &Image<S>,
    contribution: &Contribution<S>,
) -> Option<(usize, usize)> {
    let others = nameless_beside(image, contribution)?;
    let place = others.partition_point(|it| it.rva < contribution.rva);
    Some((place, others.len() + 1))
}

/// The other contributions of its kind that its compiland gave beside one, and that have no named data,
/// by their places. `None` where there are too many.
fn nameless_beside<'a, S: Side>(
    image: &'a Image<S>,
    contribution: &Contribution<S>,
) -> Option<Vec<&'a Contribution<S>>> {
    let all = &image.contributions;
    let at = all.partition_point(|it| it.rva < contribution.rva);
    let is_neighbour = |it: &&Contribution<S>| it.compiland == contribution.compiland;
    let before = all.get(..at)?.iter().rev().take_while(is_neighbour);
    let behind = all.get(at + 1..)?.iter().take_while(is_neighbour);
    let mut others: Vec<_> = before.take(MAX_NEIGHBOURS).collect();
    others.reverse();
    let count = others.len();
    others.extend(behind.take(MAX_NEIGHBOURS));
    if count.max(others.len() - count) == MAX_NEIGHBOURS {
        return None;
    }
    others.retain(|it| {
        let next = image.data.partition_point(|symbol| symbol.rva < it.rva);
        let named = image.data.get(next);
        let named = named.and_then(|symbol| symbol.rva.checked_sub(it.rva));
        it.characteristics == contribution.characteristics && named.is_none_or(|at| at >= it.size)
    });
    Some(others)
}

/// Where a place without a name lies between named data of one contribution: with as much room
/// there as before, nothing came between.
struct Beside<S: Side> {
    /// The data before it.
    named: DataId<S>,
    /// Bytes from where that starts.
    distance: u32,
    /// Bytes from there to what comes next, or to the end.
    gap: u32,
}

impl<S: Side> Beside<S> {
    fn new(image: &Image<S>, rva: Rva<S>) -> Option<Self> {
        let contribution = image.contribution_at(rva)?;
        let end = contribution.rva.checked_add(contribution.size)?;
        let behind = image.data.partition_point(|symbol| symbol.rva <= rva);
        let before = behind.checked_sub(1)?;
        let start = image.data[before].rva;
        if start < contribution.rva {
            return None;
        }
        let next = image
            .data
            .get(behind)
            .map_or(end, |symbol| symbol.rva.min(end));
        // Of several names of one address the first one stands for all.
        let named = image.data_aliases(DataId::new(before)).next()?;
        Some(Beside {
            named,
            distance: rva.checked_sub(start)?,
            gap: next.checked_sub(start)?,
        })
    }
}

/// The name in a type descriptor of the Microsoft C++ ABI: a pointer to the table of its class, a
/// word that the runtime sets, and the name, decorated and with a dot in front.
fn type_name<S: Side>(image: &Image<S>, rva: Rva<S>) -> Option<&str> {
    let has_table = image.pe.relocations_in(rva, 16) == [rva];
    let (word, name) = image
        .pe
        .bytes_from(rva)
        .get(8..)?
        .split_first_chunk::<8>()?;
    let end = name.iter().position(|byte| *byte == 0)?;
    let name = std::str::from_utf8(&name[..end]).ok()?;
    (has_table && *word == [0; 8] && name.starts_with('.')).then_some(name)
}

/// The name without the hash of the source in it.
fn without_hashes(name: &str) -> Cow<'_, str> {
    crate::names::without_generated_parts(name).map_or(name.into(), Cow::Owned)
}
