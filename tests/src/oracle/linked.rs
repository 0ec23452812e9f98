//! What of a comparison of objects is left in the images that were linked from them.
//!
//! The linker drops functions that nothing leads to, and makes one of several that are alike. What
//! it dropped is in no image and can be in no report; of what it folded, the body counts: a
//! function that changed must be reported by the body it has on both sides, unless the folding
//! itself takes the difference away. Where the linker put what, its own map file says, so that
//! nothing here depends on who reads the image.

use std::collections::{BTreeMap, BTreeSet};

use super::compare::Comparison;
use super::linker_map::LinkerMap;
use super::meaning::Reader;
use super::names::{Lone, Names, Namesakes, Renamed};
use super::program::{FunctionName, Program};

/// What two linked images differ in, by addresses: those of the base first. With each the functions
/// that are there.
#[derive(Clone, Debug, Default)]
pub struct InImages {
    /// Bodies of functions that changed.
    pub changed: BTreeMap<(u64, u64), Vec<FunctionName>>,
    /// Bodies of the fixed image alone.
    pub added: BTreeMap<u64, Vec<FunctionName>>,
    /// Bodies of the base alone.
    pub removed: BTreeMap<u64, Vec<FunctionName>>,
    /// Bodies on both sides that mean the same.
    pub same: BTreeSet<(u64, u64)>,
    /// What the linker dropped from a side that has it in its objects.
    pub dropped: Vec<Missing>,
    /// Functions that share their body with others, on one side at least, and those that changed in
    /// nothing but which of several such they mean.
    pub folded: Vec<Missing>,
}

/// A function that the linker did something to.
#[derive(Clone, Debug)]
pub struct Missing {
    /// The function.
    pub function: FunctionName,
    /// Whether it changed, and no image shows it.
    pub unseen: bool,
}

/// Judges by the images what `comparison` found in the objects of both sides.
pub fn in_images(
    comparison: &Comparison,
    (base, in_base): (&Program, &LinkerMap),
    (fixed, in_fixed): (&Program, &LinkerMap),
) -> InImages {
    let mut found = InImages::default();
    let unseen = folded_away(comparison, (base, in_base), (fixed, in_fixed));
    let shared = [base.shared(in_base), fixed.shared(in_fixed)];
    let mut paired = [BTreeSet::new(), BTreeSet::new()];
    for pair in pairs(comparison) {
        let at = (
            base.place(pair.base, in_base),
            fixed.place(pair.fixed, in_fixed),
        );
        let note = |list: &mut Vec<Missing>, unseen| {
            list.push(Missing {
                function: pair.base.clone(),
                unseen,
            });
        };
        match at {
            (Some(one), Some(other)) => {
                paired[0].insert(one);
                paired[1].insert(other);
                let is_folded = shared[0].contains(&one) || shared[1].contains(&other);
                let hidden = !pair.same && unseen.contains(pair.base);
                if is_folded || hidden {
                    note(&mut found.folded, hidden);
                }
                if pair.same || hidden {
                    found.same.insert((one, other));
                } else {
                    let names = found.changed.entry((one, other)).or_default();
                    names.push(pair.base.clone());
                }
            }
            // To the images the function is one of the other side alone.
            (one, other) => {
                note(
                    &mut found.dropped,
                    !pair.same && one.is_none() && other.is_none(),
                );
                if let Some(one) = one {
                    let names = found.removed.entry(one).or_default();
                    names.push(pair.base.clone());
                }
                if let Some(other) = other {
                    found
                        .added
                        .entry(other)
                        .or_default()
                        .push(pair.fixed.clone());
                }
            }
        }
    }
    for (lone, program, linked, list) in [
        (&comparison.removed, base, in_base, &mut found.removed),
        (&comparison.added, fixed, in_fixed, &mut found.added),
    ] {
        for function in lone {
            match program.place(function, linked) {
                Some(at) => list.entry(at).or_default().push(function.clone()),
                None => found.dropped.push(Missing {
                    function: function.clone(),
                    unseen: true,
                }),
            }
        }
    }
    // A body that other functions have on both sides neither comes nor goes.
    found.removed.retain(|at, _| !paired[0].contains(at));
    found.added.retain(|at, _| !paired[1].contains(at));
    found
}

/// A function that both sides have.
#[derive(Clone, Copy)]
struct Paired<'a> {
    base: &'a FunctionName,
    fixed: &'a FunctionName,
    same: bool,
}

fn pairs(comparison: &Comparison) -> impl Iterator<Item = Paired<'_>> {
    let same = comparison.same.iter().map(|(base, fixed)| Paired {
        base,
        fixed,
        same: true,
    });
    let changed = comparison.changed.iter().map(|it| Paired {
        base: &it.function,
        fixed: &it.in_fixed,
        same: false,
    });
    same.chain(changed)
}

/// The changed functions that mean the same once each stands for all that share its body, on one
/// side or the other: which of them was meant, no image says.
fn folded_away(
    comparison: &Comparison,
    (base, in_base): (&Program, &LinkerMap),
    (fixed, in_fixed): (&Program, &LinkerMap),
) -> BTreeSet<FunctionName> {
    let functions = Lone::new(base.functions.keys(), fixed.functions.keys());
    let (ours, theirs) = (base.writable(), fixed.writable());
    let variables = Lone::new(ours.keys(), theirs.keys());
    let mut renamed = Renamed::new();
    for (one, other) in &comparison.renamed {
        renamed.insert(functions.plain(other), functions.plain(one));
    }
    let (none, nobody) = (Renamed::new(), Namesakes::new());
    let names = Names {
        functions: &functions,
        variables: &variables,
        renamed: &none,
        namesakes: &nobody,
        folded: &none,
    };
    let mut classes = Classes::default();
    for (program, linked, renamed) in [(base, in_base, &none), (fixed, in_fixed, &renamed)] {
        let names = Names { renamed, ..names };
        let mut first = BTreeMap::<u64, FunctionName>::new();
        for function in program.functions.keys() {
            if let Some(at) = program.place(function, linked) {
                let name = names.function(function);
                let one = first.entry(at).or_insert_with(|| name.clone());
                classes.unite(one, &name);
            }
        }
    }
    let folded = classes.representatives();
    if folded.is_empty() {
        return BTreeSet::new();
    }
    let mut of_base = Reader::new(
        base,
        Names {
            folded: &folded,
            ..names
        },
    );
    let namesakes = functions.pairs(&base.functions, &fixed.functions).namesakes;
    let mut of_fixed = Reader::new(
        fixed,
        Names {
            folded: &folded,
            namesakes: &namesakes,
            renamed: &renamed,
            ..names
        },
    );
    let changed = pairs(comparison).filter(|pair| !pair.same);
    let alike = changed.filter(|pair| {
        let ids = (
            base.functions.get(pair.base),
            fixed.functions.get(pair.fixed),
        );
        let (Some(one), Some(other)) = ids else {
            return false;
        };
        of_base.function(*one) == of_fixed.function(*other)
    });
    alike.map(|pair| pair.base.clone()).collect()
}

/// Names that stand for one another.
#[derive(Default)]
struct Classes(BTreeMap<FunctionName, FunctionName>);

impl Classes {
    fn root(&self, name: &FunctionName) -> FunctionName {
        let mut at = name;
        while let Some(next) = self.0.get(at) {
            at = next;
        }
        at.clone()
    }

    fn unite(&mut self, one: &FunctionName, other: &FunctionName) {
        let (one, other) = (self.root(one), self.root(other));
        if one != other {
            // The least stands for all, so that no circle comes about.
            self.0
                .insert(one.clone().max(other.clone()), one.min(other));
        }
    }

    /// Every name that another one stands for, and that other one.
    fn representatives(&self) -> Renamed {
        self.0
            .keys()
            .map(|name| (name.clone(), self.root(name)))
            .collect()
    }
}
