//! Functions of the corpus by where they are: the one name that objects, debug information and
//! reports agree on.
//!
//! The oracle speaks of symbols in objects, a report of procedure records in an image, and neither
//! can be made of the other: a lambda is called one thing by the compiler's mangling and another
//! one by its debug information. The linker's map says at which address it put which symbol.

use std::collections::BTreeSet;

use hpbuild_tests::oracle::{Comparison, LinkerMap, Program};

use super::report::{Found, Names, Reported};

/// One pair: both sides of it as the linker left them.
pub(super) struct Places {
    base: LinkerMap,
    fixed: LinkerMap,
}

/// What the oracle says of the images of a pair.
#[derive(Default)]
pub(super) struct Truth {
    /// Functions that differ, by their places.
    pub(super) names: Names,
    /// How many are the same.
    pub(super) same: usize,
    /// How many functions of the objects the linker left out of both images.
    pub(super) dropped: usize,
    /// How many the oracle cannot tell from their namesakes.
    pub(super) ambiguous: usize,
    /// Their places.
    base: BTreeSet<u64>,
    fixed: BTreeSet<u64>,
}

impl Places {
    pub(super) const fn new(base: LinkerMap, fixed: LinkerMap) -> Places {
        Places { base, fixed }
    }

    /// What differs between the images: of what differs between the objects, that which the linker
    /// kept, and what it kept in one of them alone.
    pub(super) fn truth(&self, base: &Program, fixed: &Program, all: &Comparison) -> Truth {
        let mut truth = Truth::default();
        let mut same = BTreeSet::new();
        let (mut in_base, mut in_fixed) = (BTreeSet::new(), BTreeSet::new());
        let pairs = all.same.iter().map(|(one, other)| (one, other, false));
        let changed = all
            .changed
            .iter()
            .map(|it| (&it.function, &it.in_fixed, true));
        for (one, other, is_changed) in pairs.chain(changed) {
            let places = (base.place(one, &self.base), fixed.place(other, &self.fixed));
            in_base.extend(places.0);
            in_fixed.extend(places.1);
            match places {
                (Some(one), Some(other)) if is_changed => {
                    truth.names.changed.insert(self.both(one, other));
                }
                (Some(one), Some(other)) => {
                    same.insert((one, other));
                }
                (Some(one), None) => {
                    truth.names.removed.insert(name(&self.base, one));
                }
                (None, Some(other)) => {
                    truth.names.added.insert(name(&self.fixed, other));
                }
                (None, None) => truth.dropped += 1,
            }
        }
        truth.same = same.len();
        let (removed, added) = (&mut truth.names.removed, &mut truth.names.added);
        for (list, program, map, to, paired) in [
            (&all.removed, base, &self.base, removed, in_base),
            (&all.added, fixed, &self.fixed, added, in_fixed),
        ] {
            for function in list {
                match program.place(function, map) {
                    // One name more for a function of the other side is no function more.
                    Some(rva) if paired.contains(&rva) => {}
                    Some(rva) => {
                        to.insert(name(map, rva));
                    }
                    None => truth.dropped += 1,
                }
            }
        }
        for (list, program, map, to) in [
            (&all.ambiguous.0, base, &self.base, &mut truth.base),
            (&all.ambiguous.1, fixed, &self.fixed, &mut truth.fixed),
        ] {
            to.extend(list.iter().filter_map(|it| program.place(it, map)));
            truth.ambiguous += to.len();
        }
        truth
    }

    /// The same of a report. Left out are what `elsewhere` names, which is in no object of the
    /// program, and what the oracle does not speak of.
    pub(super) fn found(
        &self,
        found: &Found,
        truth: &Truth,
        elsewhere: &BTreeSet<String>,
    ) -> Names {
        let in_base = |it: &&Reported| {
            let rva = it.base.unwrap_or_default();
            !truth.base.contains(&rva) && !is_named(&self.base, rva, elsewhere)
        };
        let in_fixed = |it: &&Reported| {
            let rva = it.fixed.unwrap_or_default();
            !truth.fixed.contains(&rva) && !is_named(&self.fixed, rva, elsewhere)
        };
        let changed = found.changed.iter().filter(in_base).filter(in_fixed);
        let added = found.added.iter().filter(in_fixed);
        let removed = found.removed.iter().filter(in_base);
        Names {
            changed: changed
                .map(|it| self.both(it.base.unwrap_or_default(), it.fixed.unwrap_or_default()))
                .collect(),
            added: added
                .map(|it| name(&self.fixed, it.fixed.unwrap_or_default()))
                .collect(),
            removed: removed
                .map(|it| name(&self.base, it.base.unwrap_or_default()))
                .collect(),
        }
    }

    fn both(&self, base: u64, fixed: u64) -> String {
        format!("{}, {fixed:#x}", name(&self.base, base))
    }
}

/// A place, with the names of what is there for people.
fn name(map: &LinkerMap, rva: u64) -> String {
    format!("{} at {rva:#x}", map.names(rva).join(" = "))
}

fn is_named(map: &LinkerMap, rva: u64, names: &BTreeSet<String>) -> bool {
    map.names(rva).iter().any(|name| names.contains(name))
}
