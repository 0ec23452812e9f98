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
    /// Functions whose numbers mean nothing on the other side; empty for the base.
    pub(super) namesakes: &'a Namesakes,
    /// Functions that another one stands for, which has the same body after linking; by names as
    /// they are told without this. Empty where it is the objects that count.
    pub(super) folded: &'a Renamed,
}

/// Names, with their objects, that several functions of one side have in common.
pub(super) type Namesakes = BTreeSet<(String, Option<String>)>;

impl Names<'_> {
    pub(super) fn function(&self, name: &FunctionName) -> FunctionName {
        let known = self.unfolded(name);
        self.folded.get(&known).cloned().unwrap_or(known)
    }

    fn unfolded(&self, name: &FunctionName) -> FunctionName {
        let mut plain = self.functions.plain(name);
        if let Some(known) = self.renamed.get(&plain) {
            return known.clone();
        }
        if is_namesake(self.namesakes, name) {
            // Whichever of the base it is, that is not known.
            plain.instance = usize::MAX - plain.instance;
        }
        plain
    }

    pub(super) fn variable(&self, name: &FunctionName) -> FunctionName {
        self.variables.plain(name)
    }
}

/// What both sides have, and what only one has.
pub(super) struct Pairs<'a, T> {
    /// Name and value in the base and in the fixed side.
    pub(super) both: Vec<(&'a FunctionName, &'a T, &'a FunctionName, &'a T)>,
    /// Of the fixed side alone.
    pub(super) added: Vec<(&'a FunctionName, &'a T)>,
    /// Of the base alone.
    pub(super) removed: Vec<(&'a FunctionName, &'a T)>,
    /// What cannot be told by its name: among the added and the removed.
    pub(super) namesakes: Namesakes,
}

impl<'a, T> Pairs<'a, T> {
    /// Moves two that were thought to be of one side alone to `both`.
    pub(super) fn join(
        &mut self,
        base: (&'a FunctionName, &'a T),
        fixed: (&'a FunctionName, &'a T),
    ) {
        self.removed.retain(|it| it.0 != base.0);
        self.added.retain(|it| it.0 != fixed.0);
        self.both.push((base.0, base.1, fixed.0, fixed.1));
    }
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
            instance: name.instance,
        }
    }

    /// Brings two sides together, but for functions that have namesakes: their numbers mean nothing.
    pub(super) fn pairs<'a, T>(
        &self,
        base: &'a BTreeMap<FunctionName, T>,
        fixed: &'a BTreeMap<FunctionName, T>,
    ) -> Pairs<'a, T> {
        let all = base.keys().chain(fixed.keys());
        let namesakes: Namesakes = all
            .filter(|name| name.instance > 0)
            .map(|name| (name.name.clone(), name.object.clone()))
            .collect();
        let mut left: BTreeMap<FunctionName, (&FunctionName, &T)> = fixed
            .iter()
            .map(|(name, value)| (self.plain(name), (name, value)))
            .collect();
        let mut pairs = Pairs {
            both: Vec::new(),
            added: Vec::new(),
            removed: Vec::new(),
            namesakes: Namesakes::new(),
        };
        for (name, value) in base {
            let known = !is_namesake(&namesakes, name);
            match known.then(|| left.remove(&self.plain(name))).flatten() {
                Some((in_fixed, other)) => pairs.both.push((name, value, in_fixed, other)),
                None => pairs.removed.push((name, value)),
            }
        }
        pairs.added = left.into_values().collect();
        pairs.namesakes = namesakes;
        pairs
    }
}

/// Whether another function of its side has the same name.
pub(super) fn is_namesake(namesakes: &Namesakes, name: &FunctionName) -> bool {
    !namesakes.is_empty() && namesakes.contains(&(name.name.clone(), name.object.clone()))
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
