//! Which function declares a static local variable.
//!
//! `static int last;` may stand in any number of functions of one source, so that its name alone
//! tells nothing. DWARF says which function it is. CodeView does so where the function has a body of
//! its own; where it is inlined, its variable stands among the records of whoever it is inlined
//! into, beside those of all others that are:
//!
//! ```text
//! S_GPROC32 both, S_LDATA32 last, S_LDATA32 last, S_INLINESITE f, S_INLINESITE g
//! ```
//!
//! The function that declares it is then one of those that all functions with such a record have in
//! common, and it is inlined where the code reaches the variable. What that leaves open has no home.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use hpbuild_metadata::{FunctionId, Side};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::image::{DataSymbol, Image};
use crate::inline::Sites;

/// Of more functions than this the rest is not asked who declares a variable.
const MAX_PARENTS: usize = 64;

/// The function that declares a static local.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Home {
    /// Its name, with its scope.
    pub(super) name: Box<str>,
    /// An index of [`Image::procedures`], where it has a body of its own.
    pub(super) procedure: Option<u32>,
}

/// The homes of the static locals of one image.
pub(super) struct Homes<'a, S: Side> {
    image: &'a Image<S>,
    owners: &'a [FunctionId<S>],
    /// By the index of the variable.
    of: FxHashMap<u32, Home>,
    /// The names of all functions, inlined ones included.
    functions: OnceLock<FxHashSet<Box<str>>>,
}

impl<'a, S: Side> Homes<'a, S> {
    /// Finds the homes of these variables, given by their indexes.
    pub(super) fn new(
        image: &'a Image<S>,
        owners: &'a [FunctionId<S>],
        variables: impl Iterator<Item = u32>,
    ) -> Self {
        let mut homes = Self {
            image,
            owners,
            of: FxHashMap::default(),
            functions: OnceLock::new(),
        };
        let mut sites = FxHashMap::default();
        for index in variables {
            let symbol = &image.data[index as usize];
            if let Some(name) = homes.name(symbol, &mut sites) {
                let mut own = symbol.parents.iter().copied();
                let procedure = own.find(|it| *image.procedures[*it as usize].name == *name);
                homes.of.insert(index, Home { name, procedure });
            }
        }
        homes
    }

    /// The home of a variable; `None` where it is no static local, or nothing tells.
    pub(super) fn of(&self, index: u32) -> Option<&Home> {
        self.of.get(&index)
    }

    /// The names of homes by the index of the variable.
    pub(super) fn into_names(self) -> FxHashMap<u32, Box<str>> {
        let of = self.of.into_iter();
        of.map(|(index, home)| (index, home.name)).collect()
    }

    /// Whether the image has a function of this name, be it inlined wherever it is used.
    pub(super) fn has_function(&self, name: &str) -> bool {
        let all = self.functions.get_or_init(|| {
            let image = self.image;
            let bodies = image.procedures.iter().map(|it| it.name.clone());
            let items = image.mentions.iter().filter(|it| it.is_item);
            let items: BTreeSet<u32> = items.map(|it| it.index).collect();
            let inlined = items.into_iter().filter_map(|it| image.types.item_name(it));
            let bodies = bodies.chain(image.bodiless.iter().cloned());
            bodies.chain(inlined.map(Into::into)).collect()
        });
        all.contains(name)
    }

    fn name(&self, symbol: &DataSymbol<S>, sites: &mut FxHashMap<u32, Sites>) -> Option<Box<str>> {
        if let Some(name) = &symbol.declared_in {
            return Some(name.clone());
        }
        let parents = &symbol.parents[..symbol.parents.len().min(MAX_PARENTS)];
        let mut common: Option<BTreeSet<Box<str>>> = None;
        for parent in parents {
            let own = self.candidates(*parent);
            common = Some(match common {
                Some(common) => common.intersection(&own).cloned().collect(),
                None => own,
            });
        }
        let mut common = common?;
        if common.len() > 1 {
            for parent in parents {
                self.narrow(symbol, *parent, sites, &mut common);
            }
        }
        // What is left is one function, or too many.
        let only = common.pop_first();
        only.filter(|_| common.is_empty())
    }

    /// The functions that may declare what stands among the records of a procedure.
    fn candidates(&self, parent: u32) -> BTreeSet<Box<str>> {
        let procedure = &self.image.procedures[parent as usize];
        let items = self.image.inlined_into(procedure);
        let inlined = items.filter_map(|item| self.image.types.item_name(item));
        let mut found: BTreeSet<Box<str>> = inlined.map(Into::into).collect();
        found.insert(procedure.name.clone());
        found
    }

    /// Leaves those of the candidates that are inlined wherever a body reaches the variable; where
    /// nothing that is inlined does, the body's own function.
    fn narrow(
        &self,
        symbol: &DataSymbol<S>,
        parent: u32,
        sites: &mut FxHashMap<u32, Sites>,
        common: &mut BTreeSet<Box<str>>,
    ) {
        let image = self.image;
        let body = self.owners[parent as usize];
        let sites = sites
            .entry(parent)
            .or_insert_with(|| Sites::of(image, body));
        for placed in image.references_of(body) {
            let at = placed.reference.target.checked_sub(symbol.rva);
            let is_it = at.is_some_and(|at| at < symbol.size.max(1));
            if !is_it || placed.completed_elsewhere {
                continue;
            }
            let chain = sites.around(placed.offset);
            let chain = chain.filter_map(|item| image.types.item_name(item));
            // An instruction of no line belongs to no site, wherever it came from.
            let chain: BTreeSet<Box<str>> = chain.map(Into::into).collect();
            if common.iter().any(|it| chain.contains(it)) {
                common.retain(|it| chain.contains(it));
            }
        }
        // Reached by its own code alone, while all that is inlined stays away from it.
        let name = &image.procedures[parent as usize].name;
        let is_own = common.contains(name) && !self.is_reached_inlined(symbol, body, sites);
        if is_own {
            common.retain(|it| it == name);
        }
    }

    /// Whether code that was inlined into a body reaches a variable.
    fn is_reached_inlined(
        &self,
        symbol: &DataSymbol<S>,
        body: FunctionId<S>,
        sites: &Sites,
    ) -> bool {
        self.image.references_of(body).iter().any(|placed| {
            let at = placed.reference.target.checked_sub(symbol.rva);
            let is_it = at.is_some_and(|at| at < symbol.size.max(1));
            is_it && !placed.completed_elsewhere && sites.around(placed.offset).next().is_some()
        })
    }
}
