//! Two programs, function by function.

use std::collections::BTreeMap;

use super::meaning::{Meaning, Reader};
use super::program::{FunctionName, Program};

/// What the objects of two compiles differ in. Every list is sorted by name.
#[derive(Clone, Debug, Default)]
pub struct Comparison {
    /// Functions with the same meaning on both sides.
    pub same: Vec<FunctionName>,
    /// Functions with another meaning, each with the first thing that differs.
    pub changed: Vec<Difference>,
    /// Functions of the fixed side alone.
    pub added: Vec<FunctionName>,
    /// Functions of the base alone.
    pub removed: Vec<FunctionName>,
    /// Writable data with another initial value or size, or on one side only.
    pub data: Vec<FunctionName>,
}

/// A changed function.
#[derive(Clone, Debug)]
pub struct Difference {
    /// The function.
    pub function: FunctionName,
    /// The first thing that differs, for people.
    pub first: String,
}

/// Compares two sides.
pub fn compare(base: &Program, fixed: &Program) -> Comparison {
    let mut comparison = Comparison::default();
    let (mut in_base, mut in_fixed) = (Reader::new(base), Reader::new(fixed));
    for (name, &id) in &base.functions {
        let Some(&other) = fixed.functions.get(name) else {
            comparison.removed.push(name.clone());
            continue;
        };
        let (one, other) = (in_base.function(id), in_fixed.function(other));
        if one == other {
            comparison.same.push(name.clone());
        } else {
            comparison.changed.push(Difference {
                function: name.clone(),
                first: first_difference(&one, &other),
            });
        }
    }
    let new = fixed
        .functions
        .keys()
        .filter(|name| !base.functions.contains_key(*name));
    comparison.added = new.cloned().collect();
    comparison.data = data(base, fixed, &mut in_base, &mut in_fixed);
    comparison
}

fn data(
    base: &Program,
    fixed: &Program,
    in_base: &mut Reader<'_>,
    in_fixed: &mut Reader<'_>,
) -> Vec<FunctionName> {
    let ours: BTreeMap<_, _> = base.writable();
    let theirs = fixed.writable();
    let mut differ: Vec<FunctionName> = theirs
        .keys()
        .filter(|name| !ours.contains_key(*name))
        .cloned()
        .collect();
    for (name, &datum) in &ours {
        let same = theirs
            .get(name)
            .is_some_and(|&other| in_base.datum(datum) == in_fixed.datum(other));
        if !same {
            differ.push(name.clone());
        }
    }
    differ.sort();
    differ
}

fn first_difference(base: &Meaning, fixed: &Meaning) -> String {
    for (one, other) in base.references.iter().zip(&fixed.references) {
        if one != other && one.0 == other.0 {
            return format!("+{:#x}: {} became {}", one.0, one.1, other.1);
        }
    }
    let same = base
        .bytes
        .iter()
        .zip(&fixed.bytes)
        .take_while(|(one, other)| one == other)
        .count();
    format!(
        "+{same:#x}: the bytes differ, of {} and {}",
        base.bytes.len(),
        fixed.bytes.len()
    )
}
