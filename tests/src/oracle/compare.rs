//! Two programs, function by function.

use std::collections::{BTreeMap, BTreeSet};

use super::meaning::{Meaning, Reader, digest};
use super::names::{Lone, Names, Namesakes, Pairs, Renamed, is_namesake};
use super::program::{Datum, FunctionName, Program, SectionId};

/// What the objects of two compiles differ in. Every list is sorted by name.
#[derive(Clone, Debug, Default)]
pub struct Comparison {
    /// Functions with the same meaning on both sides, by their names in the base and in the fixed
    /// side.
    pub same: Vec<(FunctionName, FunctionName)>,
    /// Functions with another meaning, each with the first thing that differs.
    pub changed: Vec<Difference>,
    /// Functions with the same meaning under another name, or in another of several objects that
    /// have one of the name: in the base and in the fixed side. They are among `same`.
    pub renamed: Vec<(FunctionName, FunctionName)>,
    /// Functions of either side with namesakes of which some differ: which is which of the other
    /// side nothing tells. Those of the base, and those of the fixed side; they are in no other
    /// list.
    pub ambiguous: (Vec<FunctionName>, Vec<FunctionName>),
    /// Functions of the fixed side alone.
    pub added: Vec<FunctionName>,
    /// Functions of the base alone.
    pub removed: Vec<FunctionName>,
    /// What objects name and no object of the side defines.
    pub elsewhere: BTreeSet<String>,
    /// Writable data with another initial value or size, or on one side only.
    pub data: Vec<FunctionName>,
}

/// A changed function.
#[derive(Clone, Debug)]
pub struct Difference {
    /// The function, as the base has it.
    pub function: FunctionName,
    /// The same function in the fixed side.
    pub in_fixed: FunctionName,
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
    let (none, nobody) = (Renamed::new(), Namesakes::new());
    let namesakes = pairs.namesakes.clone();
    let names = Names {
        functions: &functions,
        variables: &variables,
        renamed: &none,
        namesakes: &nobody,
        folded: &none,
    };
    // Each function that is recognised may let another one be.
    loop {
        let mut in_base = Reader::new(base, names);
        let renames = Names {
            renamed: &renamed,
            namesakes: &namesakes,
            ..names
        };
        let mut in_fixed = Reader::new(fixed, renames);
        let mut found = recognise(&mut pairs, &mut in_base, &mut in_fixed);
        if found.is_empty() {
            found = last_of_a_name(&mut pairs);
        }
        if found.is_empty() {
            found = circular(&mut pairs, &mut in_base, |one, other, id| {
                let mut assumed = renamed.clone();
                assumed.insert(functions.plain(other), functions.plain(one));
                let names = Names {
                    renamed: &assumed,
                    ..renames
                };
                Reader::new(fixed, names).function(id)
            });
        }
        if found.is_empty() {
            break;
        }
        for (one, other) in found {
            renamed.insert(functions.plain(other), functions.plain(one));
            if one.name != other.name || one.object != other.object {
                comparison.renamed.push((one.clone(), other.clone()));
            }
        }
    }
    comparison.ambiguous = ambiguous(&mut pairs);
    let mut in_base = Reader::new(base, names);
    let renames = Names {
        renamed: &renamed,
        namesakes: &namesakes,
        ..names
    };
    let mut in_fixed = Reader::new(fixed, renames);
    for (name, &id, in_fixed_name, &other) in pairs.both {
        let (one, other) = (in_base.function(id), in_fixed.function(other));
        if one == other {
            comparison.same.push((name.clone(), in_fixed_name.clone()));
        } else {
            comparison.changed.push(Difference {
                function: name.clone(),
                in_fixed: in_fixed_name.clone(),
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
    for (name, &datum, _, &other) in pairs.both {
        // What follows on one side alone makes padding of zeros there, and must not on the other.
        let shared = datum.shared || other.shared;
        let (datum, other) = (Datum { shared, ..datum }, Datum { shared, ..other });
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
            let namesakes = ours.iter().chain(&theirs);
            let any = by_name
                && namesakes
                    .clone()
                    .any(|it| is_namesake(&pairs.namesakes, it.0));
            if any || ours.len() == 1 && theirs.len() == 1 {
                for ((one, id), (other, in_fixed)) in ours.into_iter().zip(theirs) {
                    pairs.join((one, id), (other, in_fixed));
                    found.push((one, other));
                }
            }
        }
    }
    found
}

/// Finds a function that only has another name and that what it refers to leads back to, so that
/// its own meaning holds its name: of those of one side alone one with the bytes of exactly one of
/// the other side, and the same meaning if the two are taken for one. That one proves the others
/// wrong or right, so it comes alone.
fn circular<'a>(
    pairs: &mut Pairs<'a, SectionId>,
    in_base: &mut Reader<'_>,
    in_fixed: impl Fn(&FunctionName, &FunctionName, SectionId) -> Meaning,
) -> Vec<(&'a FunctionName, &'a FunctionName)> {
    let mut alike = BTreeMap::<Vec<u8>, [Vec<(&FunctionName, &SectionId)>; 2]>::new();
    for &(name, id) in &pairs.removed {
        let bytes = in_base.function(*id).bytes;
        alike.entry(bytes).or_default()[0].push((name, id));
    }
    for &(name, id) in &pairs.added {
        let bytes = in_fixed(name, name, *id).bytes;
        alike.entry(bytes).or_default()[1].push((name, id));
    }
    for sides in alike.into_values() {
        let ([(one, id)], [(other, in_other)]) = (&sides[0][..], &sides[1][..]) else {
            continue;
        };
        if in_base.function(**id) == in_fixed(one, other, **in_other) {
            pairs.join((one, id), (other, in_other));
            return vec![(one, other)];
        }
    }
    Vec::new()
}

/// Brings together what is left of functions with namesakes, where that is one on both sides.
fn last_of_a_name<'a>(
    pairs: &mut Pairs<'a, SectionId>,
) -> Vec<(&'a FunctionName, &'a FunctionName)> {
    let mut found = Vec::new();
    for [ours, theirs] in left_of_names(pairs) {
        if let ([one], [other]) = (&ours[..], &theirs[..]) {
            pairs.join(*one, *other);
            found.push((one.0, other.0));
        }
    }
    found
}

/// Takes out functions with namesakes of which some are left on both sides.
fn ambiguous(pairs: &mut Pairs<'_, SectionId>) -> (Vec<FunctionName>, Vec<FunctionName>) {
    let (mut in_base, mut in_fixed) = (Vec::new(), Vec::new());
    for [ours, theirs] in left_of_names(pairs) {
        if !ours.is_empty() && !theirs.is_empty() {
            in_base.extend(ours.into_iter().map(|it| it.0.clone()));
            in_fixed.extend(theirs.into_iter().map(|it| it.0.clone()));
        }
    }
    pairs.removed.retain(|it| !in_base.contains(it.0));
    pairs.added.retain(|it| !in_fixed.contains(it.0));
    (in_base, in_fixed)
}

/// What is left of functions with namesakes, on both sides, name by name.
fn left_of_names<'a>(
    pairs: &Pairs<'a, SectionId>,
) -> Vec<[Vec<(&'a FunctionName, &'a SectionId)>; 2]> {
    let mut left = BTreeMap::<(&str, Option<&str>), [Vec<_>; 2]>::new();
    for (side, list) in [&pairs.removed, &pairs.added].into_iter().enumerate() {
        for &(name, id) in list {
            if is_namesake(&pairs.namesakes, name) {
                let key = (name.name.as_str(), name.object.as_deref());
                left.entry(key).or_default()[side].push((name, id));
            }
        }
    }
    left.into_values().collect()
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
