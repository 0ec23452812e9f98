//! The destructors of MinGW's runtime, which are still to run. One that changed runs as the patch has it;
//! the running base keeps the list itself.

use std::collections::{BTreeMap, BTreeSet};

use hpbuild_metadata::{Base, Fixed, FunctionId, Side};

use super::initialisers::{List, functions};
use super::order::swapped;
use super::{Case, Refusal};
use crate::image::Image;

pub(super) fn judge(case: &Case<'_>, refusals: &mut Vec<Refusal>) {
    let (base, fixed) = (case.comparer.base, case.comparer.fixed);
    let pairing = case.comparer.pairing;
    let (before, after) = (listed(base), listed(fixed));
    let known: BTreeSet<FunctionId<Base>> = before.iter().map(|(id, _)| *id).collect();
    // Of several entries of one function the first counts.
    let places = after.iter().enumerate().rev();
    let places: BTreeMap<FunctionId<Fixed>, usize> =
        places.map(|(at, (id, _))| (*id, at)).collect();
    let place = |id: FunctionId<Base>| {
        let mut partners = pairing.fixed_functions(id);
        partners.find_map(|partner| places.get(&partner).copied())
    };
    let is_old = |id: FunctionId<Fixed>| {
        let mut partners = pairing.base_functions(id);
        partners.any(|partner| known.contains(&partner))
    };
    for (id, _) in before.iter().filter(|it| place(it.0).is_none()) {
        refusals.push(finding(base, *id, "is a destructor no more", "the base"));
    }
    for (id, _) in after.iter().filter(|it| !is_old(it.0)) {
        refusals.push(finding(
            fixed,
            *id,
            "is a new destructor",
            "the fixed image",
        ));
    }
    let stays = before
        .iter()
        .filter_map(|(id, origin)| Some((*id, (place(*id)?, *origin))));
    let (stays, order): (Vec<_>, Vec<_>) = stays.unzip();
    if let Some((_, second)) = swapped(&order) {
        let what = "is a destructor that runs in another order";
        refusals.push(finding(base, stays[second], what, "the base"));
    }
}

fn listed<S: Side>(image: &Image<S>) -> List<'_, S> {
    let list = image.runtime.destructors;
    list.map_or_else(Vec::new, |(start, size)| functions(image, start, size))
}

fn finding<S: Side>(image: &Image<S>, id: FunctionId<S>, what: &str, side: &str) -> Refusal {
    let name = image.display_name(id);
    let message = format!("{name} {what}, and the base keeps its list");
    let evidence = format!("rva {} of {side}", image.function(id).rva);
    Refusal::new("HP038", name, message, evidence)
}
