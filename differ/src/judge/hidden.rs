//! New static variables that the base may have without a name: optimisers make one variable of
//! several, or several of one, and name the first or none. A patch would give the new name room of its
//! own, and what the process holds would be lost to it.

use std::collections::{BTreeMap, BTreeSet};

use hpbuild_metadata::{Base, DataId, Fixed, Side};

use super::nameless::{is_data, is_thread_local, nameless};
use super::{Case, Refusal};
use crate::image::{Contribution, DataSymbol, Image};
use crate::meaning::{Target, resolve};

/// What tells of variables without a name.
pub(super) struct Hidden<'a> {
    case: &'a Case<'a>,
    /// What each object of the base gave to writable sections.
    base: Objects<'a, Base>,
    /// How many places without a name code reaches in what each object gave.
    before: BTreeMap<&'a str, usize>,
    after: BTreeMap<&'a str, usize>,
}

type Objects<'a, S> = BTreeMap<&'a str, Vec<&'a Contribution<S>>>;

impl<'a> Hidden<'a> {
    pub(super) fn new(case: &'a Case<'a>) -> Self {
        Self {
            case,
            base: objects(case.comparer.base),
            before: counts(case.comparer.base),
            after: counts(case.comparer.fixed),
        }
    }

    /// The finding about a variable without a partner, where the base may have it without a name.
    pub(super) fn finding(&self, new: DataId<Fixed>) -> Option<Refusal> {
        let fixed = self.case.comparer.fixed;
        let symbol = fixed.data_symbol(new);
        let compiland = fixed.compilands.get(symbol.compiland?.index())?;
        let place = &*compiland.place;
        if symbol.global || !(self.lost(place) || self.took_place(symbol, place)) {
            return None;
        }
        let shown = symbol.display();
        let message = format!(
            "{shown} may be what the base has without a name: a static variable that the compiler has \
             merged with others or taken apart"
        );
        let evidence = format!("rva {} of the fixed image, of {place}", symbol.rva);
        Some(Refusal::new("HP028", &*symbol.name, message, evidence))
    }

    /// Whether code of the base reaches more places without a name in an object than that of the fixed
    /// image: what became of one of them?
    fn lost(&self, object: &str) -> bool {
        let count = |all: &BTreeMap<&str, usize>| all.get(object).copied().unwrap_or(0);
        count(&self.before) > count(&self.after)
    }

    /// Whether a variable is in a section that is as large as one of the base, where another one is
    /// gone and has room without a name beside it.
    fn took_place(&self, new: &DataSymbol<Fixed>, object: &str) -> bool {
        let (base, fixed) = (self.case.comparer.base, self.case.comparer.fixed);
        let Some(after) = fixed.contribution_at(new.rva) else {
            return false;
        };
        let mut before = self.base.get(object).into_iter().flatten();
        before.any(|it| {
            let kind = (it.size, it.characteristics);
            let mut room = nameless(base, (it.rva, it.size)).into_iter();
            kind == (after.size, after.characteristics)
                && room.any(|range| range.end - range.start >= new.size.max(1))
                && self.has_lost_name(it)
        })
    }

    /// Whether a name of a section of the base has no partner.
    fn has_lost_name(&self, contribution: &Contribution<Base>) -> bool {
        let base = self.case.comparer.base;
        let first = base.data.partition_point(|it| it.rva < contribution.rva);
        let behind = contribution.rva.checked_add(contribution.size);
        let is_inside =
            |(_, it): &(usize, &DataSymbol<Base>)| behind.is_some_and(|end| it.rva < end);
        let mut names = base
            .data
            .iter()
            .enumerate()
            .skip(first)
            .take_while(is_inside);
        names.any(|(index, _)| {
            self.case
                .comparer
                .fixed_data_of(DataId::new(index))
                .is_none()
        })
    }
}

/// What each object gave to writable sections.
fn objects<S: Side>(image: &Image<S>) -> Objects<'_, S> {
    let mut found = Objects::new();
    for contribution in &image.contributions {
        let section = image.pe.section_at(contribution.rva);
        if !section.is_some_and(is_data) || is_thread_local(image, contribution.rva) {
            continue;
        }
        if let Some(compiland) = image.compilands.get(contribution.compiland.index()) {
            found
                .entry(&*compiland.place)
                .or_default()
                .push(contribution);
        }
    }
    found
}

/// How many places without a name code reaches in what each object gave to writable sections.
fn counts<S: Side>(image: &Image<S>) -> BTreeMap<&str, usize> {
    let functions = image.function_ids();
    let targets = functions.flat_map(|id| image.references_of(id));
    let places: BTreeSet<_> = targets.map(|placed| placed.reference.target).collect();
    let mut found = BTreeMap::new();
    for rva in places {
        let is_nameless = matches!(resolve(image, rva), Target::Anonymous(_));
        let is_variable = || image.pe.section_at(rva).is_some_and(is_data);
        if !is_nameless || !is_variable() || is_thread_local(image, rva) {
            continue;
        }
        let contribution = image.contribution_at(rva);
        let compiland = contribution.and_then(|it| image.compilands.get(it.compiland.index()));
        if let Some(compiland) = compiland {
            *found.entry(&*compiland.place).or_default() += 1;
        }
    }
    found
}
