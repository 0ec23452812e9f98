//! Which name of one side is which of the other.

use std::collections::{BTreeMap, BTreeSet};

use super::program::FunctionName;

/// Names that only one object of each side defines. For them the object means nothing: a static
/// function that is moved to another source, or that becomes visible to all, is still the same.
pub(super) struct Lone(BTreeSet<String>);

/// Functions of the fixed side that have another name in the base, by their plain names.
pub(super) type Renamed = BTreeMap<FunctionName, FunctionName>;

/// Names as one side's meanings are told with them.
#[derive(Clone, Copy)]
pub(super) struct Names<'a> {
    pub(super) functions: &'a Lone,
    pub(super) variables: &'a Lone,
    /// Empty for the base.
    pub(super) renamed: &'a Renamed,
    /// Functions that another one stands for, which has the same body after linking; by names as
    /// they are told without this. Empty where it is the objects that count.
    pub(super) folded: &'a Renamed,
}

impl Names<'_> {
    pub(super) fn function(&self, name: &FunctionName) -> FunctionName {
        let plain = self.functions.plain(name);
        let known = self.renamed.get(&plain).cloned().unwrap_or(plain);
        self.folded.get(&known).cloned().unwrap_or(known)
    }

    pub(super) fn variable(&self, name: &FunctionName) -> FunctionName {
        self.variables.plain(name)
    }
}

/// What both sides have, and what only one has.
pub(super) struct Pairs<'a, T> {
    /// The names, and both values.
    pub(super) both: Vec<([&'a FunctionName; 2], &'a T, &'a T)>,
    /// Of the fixed side alone.
    pub(super) added: Vec<(&'a FunctionName, &'a T)>,
    /// Of the base alone.
    pub(super) removed: Vec<(&'a FunctionName, &'a T)>,
}

impl Lone {
    pub(super) fn new<'a>(
        base: impl Iterator<Item = &'a FunctionName>,
        fixed: impl Iterator<Item = &'a FunctionName>,
    ) -> Lone {
        let (base, fixed) = (once(base), once(fixed));
        let common = base.intersection(&fixed);
        Lone(common.map(|&name| name.to_owned()).collect())
    }

    /// The name as it is compared: without the object where that means nothing.
    pub(super) fn plain(&self, name: &FunctionName) -> FunctionName {
        let object = name.object.clone();
        FunctionName {
            name: name.name.clone(),
            object: object.filter(|_| !self.0.contains(&name.name)),
        }
    }

    /// Brings two sides together.
    pub(super) fn pairs<'a, T>(
        &self,
        base: &'a BTreeMap<FunctionName, T>,
        fixed: &'a BTreeMap<FunctionName, T>,
    ) -> Pairs<'a, T> {
        let mut left: BTreeMap<FunctionName, (&FunctionName, &T)> = fixed
            .iter()
            .map(|(name, value)| (self.plain(name), (name, value)))
            .collect();
        let mut pairs = Pairs {
            both: Vec::new(),
            added: Vec::new(),
            removed: Vec::new(),
        };
        for (name, value) in base {
            match left.remove(&self.plain(name)) {
                Some((namesake, other)) => pairs.both.push(([name, namesake], value, other)),
                None => pairs.removed.push((name, value)),
            }
        }
        pairs.added = left.into_values().collect();
        pairs
    }
}

/// The names that occur once.
fn once<'a>(names: impl Iterator<Item = &'a FunctionName>) -> BTreeSet<&'a str> {
    let mut seen = BTreeMap::<&str, usize>::new();
    for name in names {
        *seen.entry(&name.name).or_default() += 1;
    }
    seen.retain(|_, count| *count == 1);
    seen.into_keys().collect()
}
