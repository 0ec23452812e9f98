//! Two programs, function by function.

use super::meaning::{Meaning, Reader};
use super::names::Lone;
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
    let functions = Lone::new(base.functions.keys(), fixed.functions.keys());
    let (ours, theirs) = (base.writable(), fixed.writable());
    let variables = Lone::new(ours.keys(), theirs.keys());
    let mut in_base = Reader::new(base, &functions, &variables);
    let mut in_fixed = Reader::new(fixed, &functions, &variables);
    let pairs = functions.pairs(&base.functions, &fixed.functions);
    for (name, &id, &other) in pairs.both {
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
    comparison.added = pairs.added;
    comparison.removed = pairs.removed;
    let pairs = variables.pairs(&ours, &theirs);
    comparison.data = pairs.added;
    comparison.data.extend(pairs.removed);
    for (name, &datum, &other) in pairs.both {
        if in_base.datum(datum) != in_fixed.datum(other) {
            comparison.data.push(name.clone());
        }
    }
    comparison.data.sort();
    comparison
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
