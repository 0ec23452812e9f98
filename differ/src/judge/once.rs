//! Functions that have run for the last time when a patch is applied: those that nothing but static
//! initialisers call, `main`, and what leads to it; what makes static locals; and the loops of
//! threads.
//!
//! What such a function does has been done by the base, and is not done again. A patch of it is
//! applied without a fault and mends nothing. The entry point of a DLL and callbacks of the loader
//! run again, for threads and at the end, so that a patch of what they call may mend a part; that is
//! a warning.
//!
//! What makes a static local runs when its function is first entered (`statics`). Whether a process has
//! come that far nobody knows, so that a patch of it may mend everything or nothing; that, too, is a
//! warning. So is a change of what never returns (`endless`): whoever is in it stays there, and
//! whoever enters it later finds the patch.
//!
//! A function whose address anything holds, or that is an export, may run at any time, and so may
//! what it calls.

mod endless;
mod graph;
mod statics;
mod ways;

use std::cell::LazyCell;
use std::collections::BTreeSet;

use hpbuild_metadata::{Base, FunctionId};

use super::initialisers::{self, Stretch};
use super::{Case, Refusal, Severity};
use crate::explain::Tag;
use crate::image::Image;
use endless::Endless;
use graph::{Graph, Held, Reached};
use statics::Makers;

/// `IMAGE_FILE_DLL` (`winnt.h`).
const DLL: u16 = 0x2000;

/// Names of the function that the runtime of an EXE calls once it is set up.
const MAINS: [&str; 4] = ["main", "wmain", "WinMain", "wWinMain"];

/// Callers that a message shows, at either end of a chain.
const SHOWN: usize = 4;

/// Folders in which the runtimes themselves are built, as records name their objects. Who links one
/// statically gets another version of it with another compiler.
const RUNTIMES: [&str; 4] = [
    "\\intermediate\\vctools\\",
    "\\dd\\vctools\\crt\\",
    "minkernel\\crts\\",
    "mingw-w64-crt/",
];

pub(super) fn judge(case: &Case<'_>, refusals: &mut Vec<Refusal>) {
    if case.redirected.is_empty() {
        return;
    }
    let base = case.comparer.base;
    let roots = Roots::new(base);
    let makers = Makers::new(base);
    // Few images have nothing that runs once, and few functions never return.
    let once = LazyCell::new(|| Once::new(case, &roots, &makers));
    let any_once = !roots.is_empty() || !makers.is_empty();
    let mut endless = Endless::new(base);
    let mut last = None;
    for (id, _) in &case.redirected {
        // Initialisers themselves are refused as such.
        let is_again = last.replace(*id) == Some(*id);
        if is_again || roots.initialisers.contains(id) || roots.callbacks.contains(id) {
            continue;
        }
        let finding = any_once.then(|| once.finding(case, &roots, *id));
        if let Some(finding) = finding.flatten() {
            refusals.push(finding);
        } else if endless.is(*id) && once.later.has(*id) {
            let what = "never returns; a thread that is in it stays in the base's code";
            refusals.push(warning(base, *id, what, &[*id]));
        }
    }
    if !makers.is_empty() {
        makers_alone(case, &once, &makers, refusals);
    }
}

/// Functions that changed nowhere but where they make static locals.
fn makers_alone(case: &Case<'_>, once: &Once, makers: &Makers<Base>, refusals: &mut Vec<Refusal>) {
    let changed = case.comparison.changed.iter();
    let changed = changed.filter(|it| !it.in_owner && !it.is_line_number_only());
    let changed = changed.filter(|it| once.later.has(it.base));
    let mut changed = changed
        .filter(|it| !makers.of(it.base).is_empty())
        .peekable();
    if changed.peek().is_none() {
        return;
    }
    let fixed_makers = Makers::new(case.comparer.fixed);
    for change in changed {
        let (before, after) = (makers.of(change.base), fixed_makers.of(change.fixed));
        let is_in = |offset: Option<u32>, makers: &[u32]| {
            offset.is_some_and(|it| makers.binary_search(&it).is_ok())
        };
        let lines = change.explanation.lines.iter();
        let inside: Vec<bool> = (lines.filter_map(|line| match line.tag {
            Tag::Same | Tag::Gap => None,
            Tag::Removed => Some(is_in(line.base_offset, before)),
            Tag::Added => Some(is_in(line.fixed_offset, after)),
        }))
        .collect();
        let is_alone = !inside.is_empty() && !inside.contains(&false);
        if is_alone && change.parts.is_empty() {
            let what = "changed only where it makes a static local, which a process does once";
            let base = case.comparer.base;
            refusals.push(warning(base, change.base, what, &[change.base]));
        }
    }
}

fn warning(
    base: &Image<Base>,
    id: FunctionId<Base>,
    what: &str,
    chain: &[FunctionId<Base>],
) -> Refusal {
    let name = base.display_name(id);
    let message = format!("{name} {what}");
    let mut finding = Refusal::new("HP026", name, message, evidence(base, id, chain));
    finding.severity = Severity::Warn;
    finding
}

/// Whether a function is of the C runtime's own.
pub(super) fn is_of_runtime(image: &Image<Base>, id: FunctionId<Base>) -> bool {
    let compiland = image.function(id).compiland;
    let compiland = compiland.and_then(|it| image.compilands.get(it.index()));
    compiland.is_some_and(|it| {
        let name = it.name.to_ascii_lowercase();
        RUNTIMES.iter().any(|folder| name.contains(folder))
    })
}

/// Where what runs once begins.
struct Roots {
    /// What the start of the runtime calls.
    initialisers: BTreeSet<FunctionId<Base>>,
    /// What runs for each thread as well.
    callbacks: BTreeSet<FunctionId<Base>>,
    lists: Vec<Stretch<Base>>,
    entry: Option<FunctionId<Base>>,
    is_dll: bool,
}

impl Roots {
    fn new(base: &Image<Base>) -> Self {
        let lists = initialisers::stretches(base);
        let (mut initialisers, mut callbacks) = (BTreeSet::new(), BTreeSet::new());
        for list in &lists {
            let functions = initialisers::functions(base, list.start, list.size);
            let found = match list.is_of_threads {
                true => &mut callbacks,
                false => &mut initialisers,
            };
            found.extend(functions.into_iter().map(|(id, _)| id));
        }
        let loaders = base.pe.tls.iter().flat_map(|tls| &tls.callbacks);
        callbacks.extend(loaders.filter_map(|rva| base.function_at(*rva)));
        let named = base.function_ids();
        initialisers.extend(named.filter(|id| initialisers::is_named_so(base, *id)));
        Self {
            initialisers,
            callbacks,
            lists,
            entry: base.pe.entry_point.and_then(|rva| base.function_at(rva)),
            is_dll: base.pe.characteristics & DLL != 0,
        }
    }

    fn is_empty(&self) -> bool {
        self.initialisers.is_empty() && self.callbacks.is_empty() && self.entry.is_none()
    }
}

/// What is reached from where.
struct Once {
    /// From what may run at any time.
    later: Reached,
    initialisers: Reached,
    callbacks: Reached,
    /// From where what may run at any time, or `main`, makes static locals.
    made: Reached,
    /// From the entry point; in an EXE as far as `main`.
    entry: Reached,
    /// In an EXE the functions from the entry point to `main` or what serves as such, the last of
    /// them first. Each has been entered, and is not entered again.
    spine: Vec<FunctionId<Base>>,
}

impl Once {
    fn new(case: &Case<'_>, roots: &Roots, makers: &Makers<Base>) -> Self {
        let base = case.comparer.base;
        let lists: Vec<_> = roots.lists.iter().map(|it| (it.start, it.size)).collect();
        let graph = Graph::new(case, &lists, makers);
        let is_root = |id: &FunctionId<Base>| {
            roots.entry == Some(*id)
                || roots.initialisers.contains(id)
                || roots.callbacks.contains(id)
        };
        let main = (!roots.is_dll).then(|| main(base, &graph, roots)).flatten();
        let spine = main.map_or_else(Vec::new, |main| spine(base, &graph, roots, main));
        let is_free = |id: &FunctionId<Base>| match graph.held(*id) {
            Held::Freely => true,
            Held::By(_) => spine.first() != Some(id),
            Held::No => graph.is_lonely(base, *id) && !is_root(id),
        };
        let main_calls = |main: &FunctionId<Base>| {
            let callees = graph.callees(*main).iter().copied();
            let again = callees.filter(|it| !graph.makes_with(*main, *it));
            again.collect()
        };
        let body: Vec<_> = spine.first().map_or_else(Vec::new, main_calls);
        let free = base.function_ids().filter(is_free);
        let later = graph.reached_again(free.chain(body));
        let made = graph.made_by(|by| later.has(by) || spine.first() == Some(&by));
        let entry = roots.entry.filter(|_| roots.is_dll || main.is_some());
        Self {
            later,
            initialisers: graph.reached(roots.initialisers.iter().copied(), None),
            callbacks: graph.reached(roots.callbacks.iter().copied(), None),
            made,
            entry: graph.reached(entry, main),
            spine,
        }
    }

    fn finding(&self, case: &Case<'_>, roots: &Roots, id: FunctionId<Base>) -> Option<Refusal> {
        let base = case.comparer.base;
        let is_runtime = is_of_runtime(base, id);
        let (what, chain, warns) = if self.spine.first() == Some(&id) {
            let what = "has been entered when the process started, and is not entered again";
            (what, self.spine.clone(), is_runtime)
        } else if let Some(at) = self.spine.iter().position(|it| *it == id) {
            let what = "runs once, before the process can be patched";
            (what, self.spine[at..].to_vec(), is_runtime)
        } else if self.later.has(id) {
            return None;
        } else if self.made.has(id) {
            let what = "is called to make a static local alone, which a process does once";
            (what, self.made.chain(id), true)
        } else if roots.is_dll && roots.entry == Some(id) {
            let what = "is the entry point, which has run for the start of the process";
            (what, vec![id], true)
        } else if self.entry.has(id) {
            let what = match roots.is_dll {
                true => {
                    "is called by the entry point of the DLL alone, which has run for the start of the process"
                }
                false => "is called by the start of the process alone, before main or behind it",
            };
            (what, self.entry.chain(id), true)
        } else if self.callbacks.has(id) {
            let what = "is called by callbacks of the loader alone, which have run for the threads there are";
            (what, self.callbacks.chain(id), true)
        } else if self.initialisers.has(id) {
            let what = "is called by static initialisers alone, which have run";
            (what, self.initialisers.chain(id), is_runtime)
        } else {
            return None;
        };
        let mut finding = warning(base, id, what, &chain);
        if !warns {
            finding.severity = Severity::Refuse;
        }
        Some(finding)
    }
}

/// The place of a function and who calls it.
fn evidence(base: &Image<Base>, id: FunctionId<Base>, chain: &[FunctionId<Base>]) -> String {
    let place = format!("rva {} of the base", base.function(id).rva);
    let callers = chain.get(1..).unwrap_or_default();
    let mut names: Vec<_> = callers.iter().map(|it| base.display_name(*it)).collect();
    if let Some(more) = names.len().checked_sub(2 * SHOWN).filter(|more| *more > 0) {
        names.splice(SHOWN..names.len() - SHOWN, [format!("{more} more")]);
    }
    let callers = names.iter().map(|name| format!(", called by {name}"));
    callers.fold(place, |text, caller| text + &caller)
}

/// What runs for as long as the process of an EXE: `main`, or the entry point itself where that
/// calls none. `None` where something else calls it again.
fn main(base: &Image<Base>, graph: &Graph, roots: &Roots) -> Option<FunctionId<Base>> {
    let entry = roots.entry?;
    let is_main = |id: &FunctionId<Base>| {
        let mut names = base.procedures_of(*id).iter();
        names.any(|it| MAINS.contains(&&*it.name))
    };
    let named = base.function_ids().find(is_main);
    let started = graph.reached([entry], named);
    let main = named.filter(|main| started.has(*main)).unwrap_or(entry);
    let inside = graph.reached([main], None);
    let mut callers = graph.callers(base, main);
    let is_once = callers.all(|it| started.has(it) && !inside.has(it));
    (is_once && graph.held(main) == Held::No).then_some(main)
}

/// From `main` up to the entry point, and below it what Rust's `main` hands to its runtime.
fn spine(
    base: &Image<Base>,
    graph: &Graph,
    roots: &Roots,
    main: FunctionId<Base>,
) -> Vec<FunctionId<Base>> {
    let started = graph.reached(roots.entry, Some(main));
    let is_handed = |id: &FunctionId<Base>| {
        let mut names = base.procedures_of(*id).iter();
        graph.held(*id) == Held::By(main)
            && !graph.is_called(*id)
            && names.any(|it| it.name.ends_with("::main"))
    };
    let handed = base.function_ids().find(is_handed);
    handed.into_iter().chain(started.chain(main)).collect()
}
