//! Functions that run once, before anything can be patched: static initialisers and the callbacks
//! of the loader.

use std::collections::{BTreeMap, BTreeSet};

use hpbuild_metadata::{Base, Fixed, FunctionId, Rva, Side};

use super::order::{INITIALISERS, Origin, origin, swapped};
use super::{Case, Refusal, Severity, once};
use crate::image::Image;

/// The first and the last symbol of each list of functions that the start of the C runtime calls, and
/// whether it does so for each thread again: the linker puts the sections `.CRT$XIA` to `.CRT$XIZ` and
/// so on between them.
const LISTS: [(&str, &str, bool); 4] = [
    ("__xi_a", "__xi_z", false),
    ("__xc_a", "__xc_z", false),
    ("__xl_a", "__xl_z", true),
    ("__xd_a", "__xd_z", true),
];

/// The object sections of such lists that are called for each thread.
const OF_THREADS: [&str; 2] = [".CRT$XD", ".CRT$XL"];

pub(super) fn judge(case: &Case<'_>, refusals: &mut Vec<Refusal>) {
    let (base, fixed) = (case.comparer.base, case.comparer.fixed);
    let pairing = case.comparer.pairing;
    let (lists, fixed_lists) = (lists(base), lists(fixed));
    let (before, after) = (members(&lists), members(&fixed_lists));
    let finding = |name: String, what: &str, evidence: String| {
        let message = format!("{name} {what}");
        Refusal::new("HP026", name, message, evidence)
    };
    let mut last = None;
    for (id, _) in &case.redirected {
        let is_again = last.replace(*id) == Some(*id);
        if !is_again && (before.contains(id) || is_named_so(base, *id)) {
            let evidence = format!("rva {} of the base", base.function(*id).rva);
            let what = "is a static initialiser, which has run";
            let mut finding = finding(base.display_name(*id), what, evidence);
            // Of a runtime that is linked in, each version starts in its own way.
            if once::is_of_runtime(base, *id) {
                finding.severity = Severity::Warn;
            }
            refusals.push(finding);
        }
    }
    for id in fixed.function_ids() {
        let was = pairing
            .base_functions(id)
            .any(|base| before.contains(&base));
        let is_added = case.comparison.added.binary_search(&id).is_ok();
        let is_new = after.contains(&id) && !was || is_added && is_named_so(fixed, id);
        if is_new {
            let evidence = format!("rva {} of the fixed image", fixed.function(id).rva);
            let what = "is a new static initialiser, which would not run";
            refusals.push(finding(fixed.display_name(id), what, evidence));
        }
    }
    for id in &before {
        let stays = pairing
            .fixed_functions(*id)
            .any(|fixed| after.contains(&fixed));
        if !stays {
            let evidence = format!("rva {} of the base", base.function(*id).rva);
            let what = "is a static initialiser no more, and has run";
            refusals.push(finding(base.display_name(*id), what, evidence));
        }
    }
    order(case, &lists, &fixed_lists, refusals);
}

/// Whether a compiler's name for initialisers stands for the function.
pub(super) fn is_named_so<S: Side>(image: &Image<S>, id: FunctionId<S>) -> bool {
    image.procedures_of(id).iter().any(|procedure| {
        let name = procedure.decorated.as_deref().unwrap_or(&procedure.name);
        name.starts_with("??__E")
            || name.contains("dynamic initializer for")
            || name.starts_with("_GLOBAL__sub_I_")
    })
}

/// A list of functions in the order in which they are called, with where its entries came from.
pub(super) type List<'a, S> = Vec<(FunctionId<S>, Origin<'a>)>;

/// Where a list stands.
#[derive(Clone, Copy)]
pub(super) struct Stretch<S: Side> {
    pub(super) start: Rva<S>,
    pub(super) size: u32,
    /// Whether its functions run for each thread again.
    pub(super) is_of_threads: bool,
}

/// The lists between symbols, as many for each image.
fn between<S: Side>(image: &Image<S>) -> impl Iterator<Item = Option<Stretch<S>>> {
    let place = |name: &str| {
        let is_it = |symbol: &&crate::image::DataSymbol<S>| {
            &*symbol.name == name || symbol.decorated.as_deref() == Some(name)
        };
        image.data.iter().find(is_it).map(|symbol| symbol.rva)
    };
    LISTS.iter().map(move |(first, last, is_of_threads)| {
        let (start, last) = (place(first)?, place(last)?);
        Some(Stretch {
            start,
            size: last.checked_sub(start).unwrap_or(0),
            is_of_threads: *is_of_threads,
        })
    })
}

/// The parts of the lists that are gathered from object sections of these names.
fn grouped<S: Side>(image: &Image<S>, list: &str) -> impl Iterator<Item = Stretch<S>> {
    let groups = image
        .groups
        .iter()
        .filter(move |it| it.name.starts_with(list));
    groups.map(move |it| Stretch {
        start: it.rva,
        size: it.size,
        is_of_threads: OF_THREADS.contains(&list),
    })
}

/// The list of MinGW's runtime.
fn constructors<S: Side>(image: &Image<S>) -> Option<Stretch<S>> {
    let (start, size) = image.runtime.constructors?;
    Some(Stretch {
        start,
        size,
        is_of_threads: false,
    })
}

/// Where the lists of an image stand.
pub(super) fn stretches<S: Side>(image: &Image<S>) -> Vec<Stretch<S>> {
    let grouped = INITIALISERS.iter().flat_map(|list| grouped(image, list));
    let constructors = constructors(image);
    between(image)
        .flatten()
        .chain(grouped)
        .chain(constructors)
        .collect()
}

/// The lists of an image, as many for each.
fn lists<S: Side>(image: &Image<S>) -> Vec<List<'_, S>> {
    let listed = |it: Stretch<S>| functions(image, it.start, it.size);
    let between = between(image).map(|it| it.map_or_else(Vec::new, listed));
    let of_groups = |list| grouped(image, list).flat_map(listed).collect();
    let grouped = INITIALISERS.iter().copied().map(of_groups);
    let callbacks = image.pe.tls.iter().flat_map(|tls| &tls.callbacks);
    let callbacks = callbacks.filter_map(|rva| {
        let id = image.function_at(*rva)?;
        Some((id, origin(image, *rva)))
    });
    let callbacks = callbacks.collect();
    let mut constructors = constructors(image).map_or_else(Vec::new, listed);
    // They are called from the last to the first.
    constructors.reverse();
    between
        .chain(grouped)
        .chain([callbacks, constructors])
        .collect()
}

/// The functions that the pointers in a stretch of data lead to.
pub(super) fn functions<S: Side>(image: &Image<S>, start: Rva<S>, size: u32) -> List<'_, S> {
    let pointers = image.pe.relocations_in(start, size).iter();
    let target = |pointer: &Rva<S>| {
        let word = image.pe.bytes(*pointer, 8)?.first_chunk()?;
        let target = image.pe.rva_of(u64::from_le_bytes(*word))?;
        Some((image.function_at(target)?, origin(image, *pointer)))
    };
    pointers.filter_map(target).collect()
}

fn members<S: Side>(lists: &[List<'_, S>]) -> BTreeSet<FunctionId<S>> {
    lists.iter().flatten().map(|(id, _)| *id).collect()
}

/// Functions that run in another order than they have run.
fn order(
    case: &Case<'_>,
    lists: &[List<'_, Base>],
    fixed_lists: &[List<'_, Fixed>],
    refusals: &mut Vec<Refusal>,
) {
    let (base, pairing) = (case.comparer.base, case.comparer.pairing);
    let mut told = BTreeSet::new();
    for (before, after) in lists.iter().zip(fixed_lists) {
        let places = (after.iter().enumerate()).rev();
        let places: BTreeMap<FunctionId<Fixed>, usize> =
            places.map(|(place, (id, _))| (*id, place)).collect();
        let place = |id: FunctionId<Base>| {
            let partners = pairing.fixed_functions(id);
            partners.filter_map(|id| places.get(&id).copied()).min()
        };
        let stays: Vec<_> = (before.iter())
            .filter_map(|(id, origin)| Some((*id, (place(*id)?, *origin))))
            .collect();
        let order: Vec<_> = stays.iter().map(|(_, place)| *place).collect();
        let Some((first, second)) = swapped(&order) else {
            continue;
        };
        let (first, second) = (stays[first].0, stays[second].0);
        // The same list is known by its symbols, by its groups, and to the loader.
        if told.insert((first, second)) {
            let (first, second) = (base.display_name(first), base.display_name(second));
            let message = format!("{second} would run before {first}, and has run behind it");
            let evidence = "the order of static initialisers or of callbacks changed";
            refusals.push(Refusal::new("HP026", second, message, evidence));
        }
    }
}
