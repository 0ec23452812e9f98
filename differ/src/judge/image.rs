//! Rules about whole images: identity, exports, imports, thread-local storage, resources, tools.

use std::collections::BTreeSet;

use hpbuild_metadata::Side;

use super::{Case, Refusal};
use crate::decode::ReferenceKind;
use crate::image::Image;
use crate::meaning::{Meaning, Target, resolve};
use crate::pe::{Export, ExportTarget, ImportSymbol};

pub(super) fn judge(case: &Case<'_>) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    let base = &case.comparer.base.pe;
    exports(case, &mut refusals);
    imports(case, &mut refusals);
    tls(case, &mut refusals);
    resources(case, &mut refusals);
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

fn exports(case: &Case<'_>, refusals: &mut Vec<Refusal>) {
    let (base, fixed) = (case.comparer.base, case.comparer.fixed);
    let same_target = |b: &ExportTarget<_>, f: &ExportTarget<_>| match (b, f) {
        (ExportTarget::Forward(b), ExportTarget::Forward(f)) => b == f,
        (ExportTarget::Rva(b), ExportTarget::Rva(f)) => {
            match case.comparer.compare(*b, *f, ReferenceKind::Address) {
                Meaning::Same => true,
                // Data that changed behind its export is a matter for the rules about data.
                Meaning::Different(_) => matches!(resolve(base, *b), Target::Data { .. }),
                Meaning::Unknown => false,
            }
        }
        _ => false,
    };
    for export in &base.pe.exports {
        let name = export_name(export);
        let partner = fixed
            .pe
            .exports
            .iter()
            .find(|other| same_export(export, other));
        match partner {
            None => refusals.push(Refusal::new(
                "HP022",
                name.clone(),
                format!("export {name} is gone"),
                format!("ordinal {} of the base", export.ordinal),
            )),
            Some(partner) if !same_target(&export.target, &partner.target) => {
                let (before, after) = (export.ordinal, partner.ordinal);
                refusals.push(Refusal::new(
                    "HP022",
                    name.clone(),
                    format!("export {name} leads elsewhere"),
                    format!("ordinal {before} of the base, {after} of the fixed image"),
                ));
            }
            Some(_) => {}
        }
    }
    for export in &fixed.pe.exports {
        if !base
            .pe
            .exports
            .iter()
            .any(|other| same_export(other, export))
        {
            let name = export_name(export);
            let message = format!("export {name} is new");
            let evidence = format!("ordinal {} of the fixed image", export.ordinal);
            refusals.push(Refusal::new("HP022", name, message, evidence));
        }
    }
}

/// Exports are known by name; those without one by ordinal.
fn same_export<A: Side, B: Side>(one: &Export<A>, other: &Export<B>) -> bool {
    one.name == other.name && (one.name.is_some() || one.ordinal == other.ordinal)
}

fn export_name<S: Side>(export: &Export<S>) -> String {
    export
        .name
        .as_ref()
        .map_or_else(|| format!("#{}", export.ordinal), ToString::to_string)
}

fn imports(case: &Case<'_>, refusals: &mut Vec<Refusal>) {
    let (base, fixed) = (&case.comparer.base.pe, &case.comparer.fixed.pe);
    let key = |dll: &str, symbol: &ImportSymbol| {
        let name = match symbol {
            ImportSymbol::Name(name) => name.to_string(),
            ImportSymbol::Ordinal(ordinal) => format!("#{ordinal}"),
        };
        format!("{}!{name}", dll.to_ascii_lowercase())
    };
    let known: BTreeSet<String> = base
        .imports
        .iter()
        .map(|import| key(&import.dll, &import.symbol))
        .collect();
    for import in &fixed.imports {
        let name = key(&import.dll, &import.symbol);
        if !known.contains(&name) {
            let message = format!("import {name} is new");
            let evidence = format!("slot at rva {} of the fixed image", import.slot);
            refusals.push(Refusal::new("HP023", name, message, evidence));
        }
    }
}

/// New or grown thread-local storage, and changed functions that use any.
fn tls(case: &Case<'_>, refusals: &mut Vec<Refusal>) {
    fn template<S: Side>(image: &Image<S>) -> Option<u32> {
        image
            .pe
            .tls
            .as_ref()
            .map(|tls| tls.template.map_or(0, |(_, size)| size))
    }
    let (base, fixed) = (case.comparer.base, case.comparer.fixed);
    let (before, after) = (template(base), template(fixed));
    if before != after && after.is_some() {
        let size = |size: Option<u32>| size.map_or("none".into(), |size| format!("{size} bytes"));
        let evidence = format!("template: {} before, {} after", size(before), size(after));
        refusals.push(Refusal::new(
            "HP025",
            "",
            "thread-local storage changed",
            evidence,
        ));
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

/// Resource data holds RVAs, so bytes are compared without the directory's own fields: by the
/// size of the whole, and where that is the same, byte by byte outside of moved addresses.
fn resources(case: &Case<'_>, refusals: &mut Vec<Refusal>) {
    fn bytes<S: Side>(image: &Image<S>) -> Option<(u32, &[u8])> {
        let (rva, size) = image.pe.resources?;
        Some((rva.get(), image.pe.bytes(rva, size)?))
    }
    let (before, after) = (bytes(case.comparer.base), bytes(case.comparer.fixed));
    let changed = match (before, after) {
        (None, None) => false,
        (Some((b_start, b)), Some((f_start, f))) => {
            let same_word = |(b, f): (&[u8], &[u8])| {
                let word = |w: &[u8]| w.first_chunk().map_or(0, |w| u32::from_le_bytes(*w));
                let (b, f) = (word(b), word(f));
                b == f || b.wrapping_sub(b_start) == f.wrapping_sub(f_start)
            };
            b.len() != f.len() || !b.chunks(4).zip(f.chunks(4)).all(same_word)
        }
        _ => true,
    };
    if changed {
        let size = |part: Option<(u32, &[u8])>| part.map_or(0, |(_, bytes)| bytes.len());
        let evidence = format!("{} bytes before, {} after", size(before), size(after));
        refusals.push(Refusal::new("HP034", "", "resources changed", evidence));
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
