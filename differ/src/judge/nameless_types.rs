//! Structures and unions without a name that changed functions use. No name tells which one of the
//! base is which one of the fixed image, so what a function uses is compared as a whole.

use std::collections::{BTreeMap, BTreeSet};

use hpbuild_metadata::{FunctionId, Side};

use super::types::{self, telling};
use super::{Case, Refusal};
use crate::image::Image;
use crate::types::Types;

/// Types of one function or source by their layouts: how many there are, and the first one.
type Layouts = BTreeMap<u64, (usize, u32)>;

pub(super) fn judge(case: &Case<'_>, refusals: &mut Vec<Refusal>) {
    if case.redirected.is_empty() {
        return;
    }
    let (base, fixed) = (case.comparer.base, case.comparer.fixed);
    let mut add = |user: &str, before: &Layouts, after: &Layouts| {
        let sides = ((&base.types, before), (&fixed.types, after));
        if let Some(evidence) = changed(sides) {
            let message = format!(
                "the layout of a structure or union without a name changed, which {user} uses"
            );
            refusals.push(Refusal::new("HP031", user, message, evidence));
        }
    };
    for (b, f) in &case.redirected {
        let (before, after) = (used(base, *b), used(fixed, *f));
        let name = base.display_name(*b);
        add(&name, &before, &after);
    }
    let (of_base, of_fixed) = (sources(base), sources(fixed));
    for (source, before) in &of_base {
        if let Some(after) = of_fixed.get(source) {
            add(source, before, after);
        }
    }
}

/// What shows that one of them is laid out otherwise: each side has one more that looks so.
fn changed(
    ((base, before), (fixed, after)): ((&Types, &Layouts), (&Types, &Layouts)),
) -> Option<String> {
    let only = |these: &Layouts, others: &Layouts| {
        let count = |layout| others.get(layout).map_or(0, |(count, _)| *count);
        let own = these.iter().filter(|(layout, it)| it.0 > count(*layout));
        own.map(|(_, (_, index))| *index).min()
    };
    let (b, f) = (only(before, after)?, only(after, before)?);
    let found = types::findings((base, b), (fixed, f)).into_iter().next();
    found.map(|(_, _, evidence)| evidence)
}

/// Those that the records of a function mention.
fn used<S: Side>(image: &Image<S>, id: FunctionId<S>) -> Layouts {
    let mut mentioned = BTreeSet::new();
    for procedure in telling(image, id).unwrap_or_default() {
        image.types.named_in(procedure.type_index, &mut mentioned);
        image.add_mentioned(procedure, &mut mentioned);
    }
    mentioned.retain(|index| image.types.is_nameless(*index));
    layouts(&image.types, mentioned)
}

/// The same of whole sources, where records of types do not tell which function uses which; without
/// those of variables, which are compared with these.
fn sources<S: Side>(image: &Image<S>) -> BTreeMap<String, Layouts> {
    let types = &image.types;
    let nameless = types.nameless();
    let mut found: BTreeMap<String, BTreeSet<u32>> = BTreeMap::new();
    if nameless.is_empty() {
        return BTreeMap::new();
    }
    let of_data = image.data.iter();
    let of_data: BTreeSet<u32> = of_data
        .filter_map(|it| types.nameless_in(it.type_index))
        .collect();
    for (source, index) in nameless.into_iter().filter(|it| !of_data.contains(&it.1)) {
        found.entry(source).or_default().insert(index);
    }
    let found = found.into_iter();
    found
        .map(|(source, all)| (source, layouts(types, all)))
        .collect()
}

fn layouts(types: &Types, all: BTreeSet<u32>) -> Layouts {
    let mut found = Layouts::new();
    for index in all {
        let known = found.entry(types.layout_hash(index)).or_insert((0, index));
        known.0 += 1;
    }
    found
}
