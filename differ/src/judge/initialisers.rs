//! Functions that run once, before anything can be patched: static initialisers and the callbacks
//! of the loader.

use std::collections::BTreeSet;

use hpbuild_metadata::{FunctionId, Rva, Side};

use super::{Case, Refusal};
use crate::image::Image;

/// The first and the last symbol of each list of functions that the start of the C runtime calls:
/// the linker puts the sections `.CRT$XIA` to `.CRT$XIZ` and so on between them. Last the list of
/// GNU's runtime.
const LISTS: [(&str, &str); 5] = [
    ("__xi_a", "__xi_z"),
    ("__xc_a", "__xc_z"),
    ("__xl_a", "__xl_z"),
    ("__xd_a", "__xd_z"),
    ("__CTOR_LIST__", "__DTOR_LIST__"),
];

pub(super) fn judge(case: &Case<'_>, refusals: &mut Vec<Refusal>) {
    let (base, fixed) = (case.comparer.base, case.comparer.fixed);
    let pairing = case.comparer.pairing;
    let (before, after) = (listed(base), listed(fixed));
    let mut refuse = |name: String, what: &str, evidence: String| {
        let message = format!("{name} {what}");
        refusals.push(Refusal::new("HP026", name, message, evidence));
    };
    let mut last = None;
    for (id, _) in &case.redirected {
        let is_again = last.replace(*id) == Some(*id);
        if !is_again && (before.contains(id) || is_named_so(base, *id)) {
            let evidence = format!("rva {} of the base", base.function(*id).rva);
            let what = "is a static initialiser, which has run";
            refuse(base.display_name(*id), what, evidence);
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
            refuse(fixed.display_name(id), what, evidence);
        }
    }
    for id in &before {
        let stays = pairing
            .fixed_functions(*id)
            .any(|fixed| after.contains(&fixed));
        if !stays {
            let evidence = format!("rva {} of the base", base.function(*id).rva);
            let what = "is a static initialiser no more, and has run";
            refuse(base.display_name(*id), what, evidence);
        }
    }
}

/// Whether a compiler's name for initialisers stands for the function.
fn is_named_so<S: Side>(image: &Image<S>, id: FunctionId<S>) -> bool {
    image.procedures_of(id).iter().any(|procedure| {
        let name = procedure.decorated.as_deref().unwrap_or(&procedure.name);
        name.starts_with("??__E")
            || name.contains("dynamic initializer for")
            || name.starts_with("_GLOBAL__sub_I_")
    })
}

/// The functions in the lists of an image.
fn listed<S: Side>(image: &Image<S>) -> BTreeSet<FunctionId<S>> {
    let place = |name: &str| {
        let is_it = |symbol: &&crate::image::DataSymbol<S>| {
            &*symbol.name == name || symbol.decorated.as_deref() == Some(name)
        };
        image.data.iter().find(is_it).map(|symbol| symbol.rva)
    };
    let callbacks = image
        .pe
        .tls
        .iter()
        .flat_map(|tls| tls.callbacks.iter().copied());
    let mut found: BTreeSet<_> = callbacks.filter_map(|rva| image.function_at(rva)).collect();
    for (first, last) in LISTS {
        let (Some(first), Some(last)) = (place(first), place(last)) else {
            continue;
        };
        let size = last.checked_sub(first).unwrap_or(0);
        for pointer in image.pe.relocations_in(first, size) {
            let word = image
                .pe
                .bytes(*pointer, 8)
                .and_then(|bytes| bytes.first_chunk());
            let target: Option<Rva<S>> =
                word.and_then(|word| image.pe.rva_of(u64::from_le_bytes(*word)));
            found.extend(target.and_then(|target| image.function_at(target)));
        }
    }
    found
}
