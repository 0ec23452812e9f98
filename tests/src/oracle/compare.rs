//! Two programs, function by function.

use std::collections::{BTreeMap, BTreeSet};

use super::meaning::{Meaning, Reader, digest};
use super::names::{Lone, Names, Pairs, Renamed};
use super::program::{FunctionName, Program, SectionId};

/// What the objects of two compiles differ in. Every list is sorted by name.
#[derive(Clone, Debug, Default)]
pub struct Comparison {
    /// Functions with the same meaning on both sides.
    pub same: Vec<FunctionName>,
    /// Functions with another meaning, each with the first thing that differs.
    pub changed: Vec<Difference>,
    /// The functions of both lists, with their names on both sides.
    pub pairs: Vec<Paired>,
    /// Functions with the same meaning under another name, or in another of several objects that
    /// have one of the name: in the base and in the fixed side. They are among `same`.
    pub renamed: Vec<(FunctionName, FunctionName)>,
    /// Functions of the fixed side alone.
    pub added: Vec<FunctionName>,
    /// Functions of the base alone.
    pub removed: Vec<FunctionName>,
    /// What objects name and no object of the side defines.
    pub elsewhere: BTreeSet<String>,
    /// Writable data with another initial value or size, or on one side only.
    pub data: Vec<FunctionName>,
}

/// A function that both sides have.
#[derive(Clone, Debug)]
pub struct Paired {
    /// Its name in the base.
    pub base: FunctionName,
    /// Its name in the fixed side, which may have it in another object.
    pub fixed: FunctionName,
    /// Whether it means the same.
    pub same: bool,
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
    let mut pairs = functions.pairs(&base.functions, &fixed.functions);
    let mut renamed = Renamed::new();
    let none = Renamed::new();
    let names = Names {
        functions: &functions,
        variables: &variables,
        renamed: &none,
        folded: &none,
    };
    // Each function that is recognised may let another one be.
    loop {
        let mut in_base = Reader::new(base, names);
        let renames = Names {
            renamed: &renamed,
            ..names
        };
        let mut in_fixed = Reader::new(fixed, renames);
        let found = recognise(&mut pairs, &mut in_base, &mut in_fixed);
        if found.is_empty() {
            break;
        }
        for (one, other) in found {
            renamed.insert(functions.plain(other), functions.plain(one));
            comparison.renamed.push((one.clone(), other.clone()));
        }
    }
    let mut in_base = Reader::new(base, names);
    let renames = Names {
        renamed: &renamed,
        ..names
    };
    let mut in_fixed = Reader::new(fixed, renames);
    for ([name, namesake], &id, &other) in pairs.both {
        let (one, other) = (in_base.function(id), in_fixed.function(other));
        comparison.pairs.push(Paired {
            base: name.clone(),
            fixed: namesake.clone(),
            same: one == other,
        });
        if one == other {
            comparison.same.push(name.clone());
        } else {
            comparison.changed.push(Difference {
                function: name.clone(),
                first: first_difference(&one, &other),
            });
        }
    }
    let owned = |list: Vec<(&FunctionName, _)>| list.into_iter().map(|it| it.0.clone()).collect();
    comparison.added = owned(pairs.added);
    comparison.removed = owned(pairs.removed);
    comparison.elsewhere = base.elsewhere();
    comparison.elsewhere.extend(fixed.elsewhere());
    let pairs = variables.pairs(&ours, &theirs);
    let lonely = pairs.added.into_iter().chain(pairs.removed);
    comparison.data = lonely.map(|(name, _)| name.clone()).collect();
    for ([name, _], &datum, &other) in pairs.both {
        if in_base.datum(datum) != in_fixed.datum(other) {
            comparison.data.push(name.clone());
        }
    }
    comparison.data.sort();
    comparison
}

/// Finds functions that only have another name or another object: among the functions of one side
/// alone those that mean the same as exactly one of the other side, first under the same name and
/// then under any. Moves them to `both` and gives their names.
fn recognise<'a>(
    pairs: &mut Pairs<'a, SectionId>,
    in_base: &mut Reader<'_>,
    in_fixed: &mut Reader<'_>,
) -> Vec<(&'a FunctionName, &'a FunctionName)> {
    let mut found = Vec::new();
    for by_name in [true, false] {
        let mut alike = BTreeMap::<(String, String), [Vec<(&FunctionName, &SectionId)>; 2]>::new();
        let label = |name: &FunctionName| {
            let name = by_name.then(|| name.name.clone());
            name.unwrap_or_default()
        };
        for &(name, id) in &pairs.removed {
            let key = (label(name), digest(&in_base.function(*id)));
            alike.entry(key).or_default()[0].push((name, id));
        }
        for &(name, id) in &pairs.added {
            let key = (label(name), digest(&in_fixed.function(*id)));
            alike.entry(key).or_default()[1].push((name, id));
        }
        for [ours, theirs] in alike.into_values() {
            if let ([(one, id)], [(other, in_fixed)]) = (&ours[..], &theirs[..]) {
                pairs.removed.retain(|(name, _)| name != one);
                pairs.added.retain(|(name, _)| name != other);
                pairs.both.push(([one, other], id, in_fixed));
                found.push((*one, *other));
            }
        }
    }
    found
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
