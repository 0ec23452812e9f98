//! Functions by where they are: the one name that objects, debug information and
//! reports agree on.
//!
//! The oracle speaks of symbols in objects, a report of procedure records in an image, and neither
//! can be made of the other: a lambda is called one thing by the compiler's mangling and another
//! one by its debug information. The linker's map says at which address it put which symbol.

use std::collections::BTreeSet;

use hpbuild_tests::oracle::{Comparison, LinkerMap, Missing, Program, in_images};

use super::report::{Found, Names, Reported};
use super::totals::Fate;

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
    /// Functions of the objects that the linker left out of an image.
    pub(super) dropped: Fate,
    /// Functions that the linker made one body of with others.
    pub(super) folded: Fate,
    /// Bodies of which the oracle says two things.
    pub(super) contradictions: Vec<String>,
    /// How many the oracle cannot tell from their namesakes.
    pub(super) ambiguous: usize,
    /// Their places.
    pub(super) base: BTreeSet<u64>,
    pub(super) fixed: BTreeSet<u64>,
}

impl Fate {
    fn of(missing: &[Missing]) -> Fate {
        Fate {
            functions: missing.len(),
            unseen: missing.iter().filter(|it| it.unseen).count(),
        }
    }
}

impl Places {
    pub(super) const fn new(base: LinkerMap, fixed: LinkerMap) -> Places {
        Places { base, fixed }
    }

    /// What differs between the images: of what differs between the objects, that which the linker
    /// kept, and what it kept in one of them alone. With `explain` it says what the linker did.
    pub(super) fn truth(
        &self,
        base: &Program,
        fixed: &Program,
        all: &Comparison,
        explain: bool,
    ) -> Truth {
        let images = in_images(all, (base, &self.base), (fixed, &self.fixed));
        let both = |at: &(u64, u64)| self.both(at.0, at.1);
        let mut truth = Truth {
            names: Names {
                changed: images.changed.keys().map(both).collect(),
                added: images
                    .added
                    .keys()
                    .map(|at| name(&self.fixed, *at))
                    .collect(),
                removed: images
                    .removed
                    .keys()
                    .map(|at| name(&self.base, *at))
                    .collect(),
            },
            same: images.same.len(),
            dropped: Fate::of(&images.dropped),
            folded: Fate::of(&images.folded),
            ..Truth::default()
        };
        let contradictions = images.changed.keys().filter(|at| images.same.contains(at));
        truth.contradictions = contradictions.map(both).collect();
        if explain {
            for (what, list) in [("dropped", &images.dropped), ("folded", &images.folded)] {
                for it in list {
                    let change = if it.unseen {
                        ", and changed unseen"
                    } else {
                        ""
                    };
                    println!("{what}{change}: {}", it.function.name);
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

/// Whether a place has no other names. One of several may be a weak one, which some object uses and
/// none defines.
fn is_named(map: &LinkerMap, rva: u64, names: &BTreeSet<String>) -> bool {
    let here = map.names(rva);
    !here.is_empty() && here.iter().all(|name| names.contains(name))
}
