//! Types that the base does not have, or not so: what a patch lays out in memory that the next one over
//! the same base may lay out otherwise. Held against the base, both are new, and neither is a finding.

use rustc_hash::FxHashSet;

use super::types::{names, touched};
use super::{Case, Comparison};
use crate::meaning::Comparer;
use crate::names::holds_nameless_type;

/// A layout or a value of the fixed image that the base's type of this name does not have.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NewType {
    /// The type's name, as findings about it give it.
    pub name: String,
    /// What is new of it.
    pub part: NewPart,
    /// Whether a changed or new function is known to use it, or nothing tells which ones do.
    pub is_used: bool,
}

/// What is new of a type.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NewPart {
    /// A hash of its layout, which types of two PDBs share that are laid out alike.
    Layout(u64),
    /// An enumerator, and its value as the records store it.
    Value(String, Vec<u8>),
}

/// All of them, sorted.
pub fn new_types(comparer: &Comparer<'_>, comparison: &Comparison) -> Vec<NewType> {
    let (base, fixed) = (&comparer.base.types, &comparer.fixed.types);
    let (before, after) = rayon::join(|| base.definitions(), || fixed.definitions());
    let mut found = Vec::new();
    for group in after.chunk_by(|a, b| a.0 == b.0) {
        let Some((name, first)) = group.first().filter(|it| !holds_nameless_type(&it.0)) else {
            continue;
        };
        let start = before.partition_point(|(other, _)| other < name);
        let olds = before[start..].iter().take_while(|it| it.0 == *name);
        let olds: Vec<u32> = olds.map(|it| it.1).collect();
        let layouts: FxHashSet<u64> = olds.iter().map(|it| base.layout_hash(*it)).collect();
        let values = olds.iter().flat_map(|it| base.enumerators(*it));
        let values: FxHashSet<_> = values.collect();
        let mut add = |part| found.push((name, *first, part));
        for (_, index) in group {
            let layout = fixed.layout_hash(*index);
            if !layouts.contains(&layout) {
                add(NewPart::Layout(layout));
            }
            for value in fixed.enumerators(*index) {
                if !values.contains(&value) {
                    add(NewPart::Value(value.0, value.1));
                }
            }
        }
    }
    if found.is_empty() {
        return Vec::new();
    }
    let touched = touched(&Case::new(comparer, comparison));
    let found = found.into_iter().map(|(name, index, part)| NewType {
        name: names(fixed, name, index).0,
        part,
        is_used: touched.as_ref().is_none_or(|(_, it)| it.contains(name)),
    });
    let mut found: Vec<_> = found.collect();
    found.sort_unstable();
    found.dedup();
    found
}
