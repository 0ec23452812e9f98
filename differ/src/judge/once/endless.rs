//! Functions that never return: the loops of threads.
//!
//! A thread that is in one stays in the base's code, whatever is patched. Only what has no way out at
//! all counts, in the code and in what handles exceptions there. One that may end its process or its
//! thread in the middle is left out: nobody knows whether the loop in front of such a call is one
//! that ends.

use std::collections::BTreeMap;

use hpbuild_metadata::{Base, FunctionId};

use super::ways::{Exit, Place, Tables, Ways};
use crate::image::{FunctionKind, Image};
use crate::meaning::{Target, resolve};
use crate::pe::ImportSymbol;

/// Functions that do not come back, where their code does not say so.
const ENDS: [&str; 26] = [
    "abort",
    "exit",
    "_exit",
    "_Exit",
    "quick_exit",
    "longjmp",
    "terminate",
    "_endthread",
    "_endthreadex",
    "pthread_exit",
    "thrd_exit",
    "ExitProcess",
    "ExitThread",
    "FreeLibraryAndExitThread",
    "RtlExitUserThread",
    "RtlExitUserProcess",
    "RtlFailFast",
    "__fastfail",
    "_CxxThrowException",
    "__cxa_throw",
    "__cxa_rethrow",
    "_Unwind_Resume",
    "_assert",
    "_wassert",
    "_invoke_watson",
    "_invalid_parameter_noinfo_noreturn",
];

/// How deep callees are asked whether they come back.
const DEPTH: usize = 4;

/// What is known of functions that come back, or do not.
pub(super) struct Endless<'a> {
    image: &'a Image<Base>,
    tables: Tables<Base>,
    comes_back: BTreeMap<FunctionId<Base>, bool>,
}

impl<'a> Endless<'a> {
    pub(super) fn new(image: &'a Image<Base>) -> Self {
        Self {
            image,
            tables: Tables::new(image),
            comes_back: BTreeMap::new(),
        }
    }

    /// Whether who enters a function stays in it.
    pub(super) fn is(&mut self, id: FunctionId<Base>) -> bool {
        let Some(ways) = Ways::new(self.image, &self.tables, id) else {
            return false;
        };
        let reached = ways.reached([0], |_, _| false);
        // What the system enters, as it does where an exception is caught, may lead out as well.
        let is_way_out = |place: Place| {
            let exit = ways.step(place).exit;
            exit.is_some_and(|exit| reached[place] || exit != Exit::End)
        };
        let mut places = ways.places().filter(|it| ways.is_code(*it));
        let mut inside = ways.places().filter(|it| reached[*it]);
        !places.any(is_way_out)
            && inside.all(|it| ways.is_code(it) && self.goes_on(&ways, it, DEPTH))
    }

    /// Whether control goes on behind an instruction, as it does behind all but calls.
    fn goes_on(&mut self, ways: &Ways<'_, Base>, place: Place, depth: usize) -> bool {
        let target = ways.target(place).filter(|_| ways.step(place).is_call);
        match target.map(|it| resolve(self.image, it)) {
            Some(Target::Import(index)) => !is_end(self.image, index),
            Some(Target::Function { id, offset: 0 }) => self.comes_back(id, depth),
            _ => true,
        }
    }

    fn comes_back(&mut self, id: FunctionId<Base>, depth: usize) -> bool {
        let image = self.image;
        let mut names = image.procedures_of(id).iter();
        if names.any(|it| ENDS.contains(&&*it.name)) {
            return false;
        }
        if image.function(id).kind == FunctionKind::Thunk || depth == 0 {
            let mut slots = image.references_of(id).iter();
            return !slots.any(|it| match resolve(image, it.reference.target) {
                Target::Import(index) => is_end(image, index),
                _ => false,
            });
        }
        if let Some(known) = self.comes_back.get(&id) {
            return *known;
        }
        // Those that call each other are taken to come back.
        self.comes_back.insert(id, true);
        let Some(ways) = Ways::new(image, &self.tables, id) else {
            return true;
        };
        let goes_on = |place| self.goes_on(&ways, place, depth - 1);
        let goes_on: Vec<bool> = ways.places().map(goes_on).collect();
        let reached = ways.reached([0], |from, _| !goes_on[from]);
        let mut inside = ways.places().filter(|it| reached[*it] && goes_on[*it]);
        let found = inside.any(|it| {
            let exit = ways.step(it).exit;
            exit.is_some_and(|exit| exit != Exit::End)
        });
        self.comes_back.insert(id, found);
        found
    }
}

fn is_end(image: &Image<Base>, import: usize) -> bool {
    match image.pe.imports.get(import).map(|it| &it.symbol) {
        Some(ImportSymbol::Name(name)) => ENDS.contains(&&**name),
        _ => false,
    }
}
