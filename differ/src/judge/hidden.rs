//! New static variables that the base may have without a name: optimisers make one variable of
//! several, or several of one, and name the first or none. A patch would give the new name room of its
//! own, and what the process holds would be lost to it.

use std::collections::{BTreeMap, BTreeSet};

use hpbuild_metadata::{Base, DataId, Fixed, Machine};

use super::nameless::nameless;
use super::{Case, Refusal};
use crate::image::{Contribution, DataSymbol};
use crate::meaning::fresh::{counts, is_data, is_thread_local};

/// What tells of variables without a name.
pub(super) struct Hidden<'a> {
    case: &'a Case<'a>,
    rooms: Rooms<'a>,
    /// How many places without a name code reaches in what each object gave.
    before: BTreeMap<&'a str, usize>,
    after: BTreeMap<&'a str, usize>,
    /// Variables of which the base has parts.
    pieces: BTreeSet<&'a str>,
}

/// Before the distance in the name of a part of a variable.
const PIECE: &str = "+0x";

/// Sections of the base in which a name has no partner, by their object, size in bytes and
/// characteristics: the most bytes without a name that one of them has in one piece.
type Rooms<'a> = BTreeMap<(&'a str, u32, u32), u32>;

impl<'a> Hidden<'a> {
    pub(super) fn new(case: &'a Case<'a>) -> Self {
        let names = case.comparer.base.data.iter();
        let pieces = names.filter_map(|it| Some(it.name.split_once(PIECE)?.0));
        Self {
            case,
            rooms: rooms(case),
            before: counts(case.comparer.base),
            after: counts(case.comparer.fixed),
            pieces: pieces.collect(),
        }
    }

    /// The finding about a variable without a partner, where the base may have it without a name.
    pub(super) fn finding(&self, new: DataId<Fixed>) -> Option<Refusal> {
        let fixed = self.case.comparer.fixed;
        let symbol = fixed.data_symbol(new);
        if self.has_in_other_parts(&symbol.name) {
            let shown = symbol.display();
            let message = format!(
                "{shown} is what the base has in other parts: an optimiser took the variable apart"
            );
            let evidence = format!("rva {} of the fixed image", symbol.rva);
            return Some(Refusal::new("HP028", &*symbol.name, message, evidence));
        }
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

    /// Whether the base has a variable as a whole of which the fixed image has parts, or the other way
    /// round, by names with distances as DWARF's reader makes them.
    fn has_in_other_parts(&self, name: &str) -> bool {
        let base = &self.case.comparer.base.data;
        match name.split_once(PIECE) {
            Some((whole, _)) => base.iter().any(|it| *it.name == *whole),
            None => self.pieces.contains(name),
        }
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
        // On x64 code reaches each by its own address. Arm64 compilers put several behind one.
        let base = self.case.comparer.base;
        if base.pe.machine == Machine::X64 && !self.before.contains_key(object) {
            return false;
        }
        let after = self.case.comparer.fixed.contribution_at(new.rva);
        let room = after.and_then(|it| self.rooms.get(&(object, it.size, it.characteristics)));
        room.is_some_and(|room| *room >= new.size.max(1))
    }
}

fn rooms<'a>(case: &Case<'a>) -> Rooms<'a> {
    let base = case.comparer.base;
    let mut found = Rooms::new();
    for contribution in &base.contributions {
        let section = base.pe.section_at(contribution.rva);
        let compiland = base.compilands.get(contribution.compiland.index());
        let Some(compiland) = compiland.filter(|_| section.is_some_and(is_data)) else {
            continue;
        };
        if is_thread_local(base, contribution.rva) || !has_lost_name(case, contribution) {
            continue;
        }
        let ranges = nameless(base, (contribution.rva, contribution.size));
        let most = ranges
            .into_iter()
            .map(|range| range.end - range.start)
            .max();
        let (size, kind) = (contribution.size, contribution.characteristics);
        let room = found.entry((&*compiland.place, size, kind)).or_default();
        *room = most.unwrap_or(0).max(*room);
    }
    found
}

/// Whether a name of a section of the base has no partner.
fn has_lost_name(case: &Case<'_>, contribution: &Contribution<Base>) -> bool {
    let data = &case.comparer.base.data;
    let behind = u64::from(contribution.rva.get()) + u64::from(contribution.size);
    let first = data.partition_point(|it| it.rva < contribution.rva);
    let last = data.partition_point(|it| u64::from(it.rva.get()) < behind);
    let mut names = (first..last).map(DataId::new);
    names.any(|id| case.comparer.fixed_data_of(id).is_none())
}
