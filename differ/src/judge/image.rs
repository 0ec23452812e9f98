//! Rules about whole images: identity, thread-local storage, tools.

use std::collections::BTreeSet;

use hpbuild_metadata::Side;

use super::{Case, Refusal, headers, outside, resources};
use crate::image::Image;

/// `IMAGE_FILE_RELOCS_STRIPPED` (`winnt.h`).
const RELOCS_STRIPPED: u16 = 1;

pub(super) fn judge(case: &Case<'_>) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    let base = &case.comparer.base.pe;
    outside::exports(case, &mut refusals);
    outside::imports(case, &mut refusals);
    tls(case, &mut refusals);
    resources::judge(case, &mut refusals);
    relocations(case, &mut refusals);
    headers::judge(case, &mut refusals);
    if case.redirected.is_empty() {
        return refusals;
    }
    if base.identity.checksum == 0 {
        let message = "the base has no checksum to be recognised by";
        refusals.push(Refusal::new(
            "HP008",
            "",
            message,
            base.identity.to_string(),
        ));
    }
    tools(case, &mut refusals);
    refusals
}

/// Images whose base relocations are gone, and with them what tells addresses from numbers.
fn relocations(case: &Case<'_>, refusals: &mut Vec<Refusal>) {
    let (base, fixed) = (&case.comparer.base.pe, &case.comparer.fixed.pe);
    for (side, characteristics) in [
        ("base", base.characteristics),
        ("fixed image", fixed.characteristics),
    ] {
        if characteristics & RELOCS_STRIPPED != 0 {
            let message = format!("the {side} has no base relocations");
            let evidence = format!("Characteristics {characteristics:#06x}");
            refusals.push(Refusal::new("HP009", "", message, evidence));
        }
    }
}

/// Thread-local variables that differ, and then the changed functions that use any: where the block
/// of a thread is the same, code of the fixed image can work on that of the base.
fn tls(case: &Case<'_>, refusals: &mut Vec<Refusal>) {
    let fixed = case.comparer.fixed;
    let changes = case.comparer.thread_local_changes();
    if changes.is_empty() {
        return;
    }
    for change in changes {
        let (name, message) = match &*change.name {
            "" => (
                "thread-local storage",
                "thread-local storage changed".to_owned(),
            ),
            name => {
                let shown = crate::names::display_data(name);
                (name, format!("the thread-local variable {shown} changed"))
            }
        };
        refusals.push(Refusal::new("HP025", name, message, change.evidence));
    }
    let Some(index) = fixed.pe.tls.as_ref().and_then(|tls| tls.index) else {
        return;
    };
    let added = case.comparison.added.iter().copied();
    for id in case.redirected.iter().map(|(_, fixed)| *fixed).chain(added) {
        let user = fixed
            .references_of(id)
            .iter()
            .find(|r| r.reference.target == index);
        if let Some(placed) = user {
            let name = fixed.display_name(id);
            let message = format!("{name} uses thread-local storage");
            let evidence = format!("{name}+{:#x} reads _tls_index", placed.offset);
            refusals.push(Refusal::new("HP025", name, message, evidence));
        }
    }
}

/// Changed functions compiled by different tools on the two sides.
fn tools(case: &Case<'_>, refusals: &mut Vec<Refusal>) {
    fn version<S: Side>(image: &Image<S>, id: hpbuild_metadata::FunctionId<S>) -> Option<&str> {
        let compiland = image
            .compilands
            .get(image.function(id).compiland?.index())?;
        Some(&compiland.tool.as_ref()?.version)
    }
    let mut found = BTreeSet::new();
    for (b, f) in &case.redirected {
        let before = version(case.comparer.base, *b);
        let after = version(case.comparer.fixed, *f);
        if let (Some(before), Some(after)) = (before, after)
            && before != after
        {
            found.insert((before, after));
        }
    }
    for (before, after) in found {
        let evidence = format!("{before} before, {after} after");
        let message = "the compiler differs between the sides";
        refusals.push(Refusal::new("HP040", "", message, evidence));
    }
}
