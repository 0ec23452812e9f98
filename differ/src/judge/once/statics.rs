//! Code that makes static locals.
//!
//! ```text
//!     if (guard > epoch) {                    ; somebody made it
//!         _Init_thread_header(&guard);        ; or waits for who makes it
//!         if (guard == -1) {
//!             l = compute();                  ; runs once in a process
//!             _Init_thread_footer(&guard);
//!         }
//!     }
//! ```
//!
//! GNU's and LLVM's `__cxa_guard_acquire` and `__cxa_guard_release` do the same. Which of the two ways
//! behind the call is the one of who makes the variable tells the second call: that way leads to it,
//! and the other does not before the first call comes again. What nothing but that way leads to is
//! the code in question, wherever in the function it stands.
//!
//! Guards without such calls (`-fno-threadsafe-statics`, `/Zc:threadSafeInit-`) and flags that programs
//! test on their own are not known: what else may clear them nobody says.

use std::collections::BTreeMap;

use hpbuild_metadata::{FunctionId, Rva, Side};

use super::ways::{Exit, Place, Tables, Ways};
use crate::image::Image;
use crate::pe::ImportSymbol;

/// What is called before a static local is made, and behind that.
const OPENERS: [&str; 2] = ["_Init_thread_header", "__cxa_guard_acquire"];
const CLOSERS: [&str; 2] = ["_Init_thread_footer", "__cxa_guard_release"];

/// More static locals than one function has.
const MAX_STATICS: usize = 256;

/// Instructions between the call and the test of what it found.
const WINDOW: usize = 16;

/// The instructions that make static locals, by function: offsets, sorted.
pub(super) struct Makers<S: Side> {
    offsets: BTreeMap<FunctionId<S>, Vec<u32>>,
}

impl<S: Side> Makers<S> {
    pub(super) fn new(image: &Image<S>) -> Self {
        let (openers, closers) = (called(image, &OPENERS), called(image, &CLOSERS));
        let mut offsets: BTreeMap<FunctionId<S>, Vec<u32>> = BTreeMap::new();
        if openers.is_empty() || closers.is_empty() {
            return Self { offsets };
        }
        let opens = |id: &FunctionId<S>| {
            let mut references = image.references_of(*id).iter();
            references.any(|it| openers.binary_search(&it.reference.target).is_ok())
        };
        let tables = Tables::new(image);
        for id in image.function_ids().filter(opens) {
            let Some(ways) = Ways::new(image, &tables, id) else {
                continue;
            };
            for place in once(&ways, &openers, &closers) {
                let (id, offset) = ways.offset(place);
                offsets.entry(id).or_default().push(offset);
            }
        }
        for offsets in offsets.values_mut() {
            offsets.sort_unstable();
            offsets.dedup();
        }
        Self { offsets }
    }

    /// Whether no function is known to make one.
    pub(super) fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    /// Those of a function.
    pub(super) fn of(&self, id: FunctionId<S>) -> &[u32] {
        self.offsets.get(&id).map_or(&[], Vec::as_slice)
    }
}

/// Where functions of these names are, and the slots they are imported through; sorted.
fn called<S: Side>(image: &Image<S>, names: &[&str]) -> Vec<Rva<S>> {
    let is_named = |id: &FunctionId<S>| {
        let mut procedures = image.procedures_of(*id).iter();
        procedures.any(|it| names.contains(&&*it.name))
    };
    let functions = image.function_ids().filter(is_named);
    let functions = functions.map(|id| image.function(id).rva);
    let imports = image.pe.imports.iter().filter(|it| match &it.symbol {
        ImportSymbol::Name(name) => names.contains(&&**name),
        ImportSymbol::Ordinal(_) => false,
    });
    let mut called: Vec<_> = functions.chain(imports.map(|it| it.slot)).collect();
    called.sort_unstable();
    called
}

/// The instructions that nothing but making static locals leads to.
fn once<S: Side>(ways: &Ways<'_, S>, openers: &[Rva<S>], closers: &[Rva<S>]) -> Vec<Place> {
    let leads_to = |place: Place, to: &[Rva<S>]| {
        let target = ways.target(place);
        target.is_some_and(|it| to.binary_search(&it).is_ok())
    };
    let places = || ways.places().filter(|it| ways.is_code(*it));
    // Where a jump may lead anywhere it may lead there.
    if places().any(|it| ways.step(it).exit == Some(Exit::Unknown)) {
        return Vec::new();
    }
    let opens = |place: Place| leads_to(place, openers) && ways.step(place).is_call;
    let closes = |from: Place| {
        let reached = ways.reached([from], |place, _| opens(place));
        ways.places().any(|it| reached[it] && leads_to(it, closers))
    };
    let entrances: Vec<(Place, Place)> = places()
        .filter(|place| opens(*place))
        .take(MAX_STATICS)
        .filter_map(|place| {
            let (test, [one, other]) = test_behind(ways, place)?;
            match (closes(one), closes(other)) {
                (true, false) => Some((test, one)),
                (false, true) => Some((test, other)),
                _ => None,
            }
        })
        .collect();
    if entrances.is_empty() {
        return Vec::new();
    }
    let is_entrance = |from: Place, to: Place| entrances.contains(&(from, to));
    let otherwise = ways.reached(ways.strays().into_iter().chain([0]), is_entrance);
    let made = ways.reached(entrances.iter().map(|(_, to)| *to), |_, _| false);
    places().filter(|it| made[*it] && !otherwise[*it]).collect()
}

/// The conditional jump soon behind a call, and the two ways behind it.
fn test_behind<S: Side>(ways: &Ways<'_, S>, call: Place) -> Option<(Place, [Place; 2])> {
    let mut at = ways.step(call).to().next()?;
    for _ in 0..WINDOW {
        let step = ways.step(at);
        let mut to = step.to();
        match (to.next(), to.next(), to.next()) {
            (Some(one), Some(other), None) if one != other && step.exit.is_none() => {
                return Some((at, [one, other]));
            }
            (Some(one), None, None) if !step.is_call && step.exit.is_none() => at = one,
            _ => return None,
        }
    }
    None
}
