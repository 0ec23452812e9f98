//! Rules about what an image shows to others and takes from them: exports and imports.

use std::collections::BTreeMap;

use hpbuild_metadata::{Base, Fixed, Side};

use super::{Case, Refusal, data};
use crate::image::Image;
use crate::meaning::{Target, resolve};
use crate::pe::{Export, ExportTarget, Import};

/// What an export is known by: its name, or its ordinal where it has none.
type Key<'a> = (Option<&'a str>, Option<u32>);

fn key<S: Side>(export: &Export<S>) -> Key<'_> {
    match &export.name {
        Some(name) => (Some(name), None),
        None => (None, Some(export.ordinal)),
    }
}

fn by_key<S: Side>(exports: &[Export<S>]) -> BTreeMap<Key<'_>, &Export<S>> {
    let mut found = BTreeMap::new();
    for export in exports {
        found.entry(key(export)).or_insert(export);
    }
    found
}

pub(super) fn exports(case: &Case<'_>, refusals: &mut Vec<Refusal>) {
    let (base, fixed) = (case.comparer.base, case.comparer.fixed);
    let (before, after) = (by_key(&base.pe.exports), by_key(&fixed.pe.exports));
    let mut renumbered = Vec::new();
    let mut refuse = |name: &str, message: String, evidence: String| {
        refusals.push(Refusal::new("HP022", name, message, evidence));
    };
    for export in &base.pe.exports {
        let name = export_name(export);
        let Some(partner) = after.get(&key(export)) else {
            let evidence = format!("ordinal {} of the base", export.ordinal);
            refuse(&name, format!("export {name} is gone"), evidence);
            continue;
        };
        let (before, after) = (export.ordinal, partner.ordinal);
        if !leads_to_same(case, &export.target, &partner.target) {
            let before = described(base, &export.target);
            let after = described(fixed, &partner.target);
            let evidence = format!("{before} before, {after} after");
            refuse(&name, format!("export {name} leads elsewhere"), evidence);
        }
        if before != after {
            renumbered.push(format!("{name}: {before} before, {after} after"));
        }
    }
    // One new export gives most of the others another number: one finding says so.
    if let Some(first) = renumbered.first() {
        let count = renumbered.len();
        let exports = if count == 1 {
            "export has"
        } else {
            "exports have"
        };
        let message = format!("{count} {exports} another ordinal");
        refuse("ordinals", message, first.clone());
    }
    for export in &fixed.pe.exports {
        if !before.contains_key(&key(export)) {
            let name = export_name(export);
            let evidence = format!("ordinal {} of the fixed image", export.ordinal);
            refuse(&name, format!("export {name} is new"), evidence);
        }
    }
}

fn leads_to_same(case: &Case<'_>, base: &ExportTarget<Base>, fixed: &ExportTarget<Fixed>) -> bool {
    match (base, fixed) {
        (ExportTarget::Forward(b), ExportTarget::Forward(f)) => b == f,
        // Data that changed behind its export is a matter for the rules about data.
        (ExportTarget::Rva(b), ExportTarget::Rva(f)) => data::leads_to_same(case, *b, *f),
        _ => false,
    }
}

/// What an export leads to, for a reader.
fn described<S: Side>(image: &Image<S>, target: &ExportTarget<S>) -> String {
    let rva = match target {
        ExportTarget::Forward(name) => return format!("the forward {name}"),
        ExportTarget::Rva(rva) => *rva,
    };
    let (name, offset) = match resolve(image, rva) {
        Target::Function { id, offset } => (image.display_name(id), offset),
        Target::Data { id, offset } => (image.data_symbol(id).display(), offset),
        _ => return format!("rva {rva}"),
    };
    match offset {
        0 => name,
        _ => format!("{name}+{offset:#x}"),
    }
}

fn export_name<S: Side>(export: &Export<S>) -> String {
    export
        .name
        .as_ref()
        .map_or_else(|| format!("#{}", export.ordinal), ToString::to_string)
}

/// Imports by DLL and symbol, as reports name them.
fn by_symbol<S: Side>(imports: &[Import<S>]) -> BTreeMap<String, &Import<S>> {
    let mut found = BTreeMap::new();
    // Of one that is imported both ways, the way that counts at the start.
    let (delayed, bound): (Vec<_>, Vec<_>) = imports.iter().partition(|it| it.delayed);
    for import in bound.into_iter().chain(delayed) {
        let name = format!("{}!{}", import.dll.to_ascii_lowercase(), import.symbol);
        found.entry(name).or_insert(import);
    }
    found
}

/// An import as a person reads it.
fn shown<S: Side>(import: &Import<S>) -> String {
    let symbol = crate::names::display_data(&import.symbol.to_string());
    format!("{}!{symbol}", import.dll.to_ascii_lowercase())
}

pub(super) fn imports(case: &Case<'_>, refusals: &mut Vec<Refusal>) {
    let (base, fixed) = (&case.comparer.base.pe, &case.comparer.fixed.pe);
    changed_imports(&base.imports, &fixed.imports, refusals);
}

fn changed_imports(base: &[Import<Base>], fixed: &[Import<Fixed>], refusals: &mut Vec<Refusal>) {
    let (before, after) = (by_symbol(base), by_symbol(fixed));
    for (name, import) in &after {
        if before.contains_key(name) {
            continue;
        }
        let mut known = base.iter();
        let has_dll = known.any(|other| other.dll.eq_ignore_ascii_case(&import.dll));
        let kind = match (has_dll, import.delayed) {
            (true, false) => "",
            (true, true) => ", delay-loaded",
            (false, false) => ", of a new DLL",
            (false, true) => ", delay-loaded, of a new DLL",
        };
        let message = format!("import {} is new", shown(import));
        let evidence = format!("slot at rva {} of the fixed image{kind}", import.slot);
        refusals.push(Refusal::new("HP023", &**name, message, evidence));
    }
    for (name, import) in &before {
        let slot = format!("slot at rva {} of the base", import.slot);
        let Some(partner) = after.get(name) else {
            let message = format!("import {} is gone", shown(import));
            refusals.push(Refusal::new("HP024", &**name, message, slot));
            continue;
        };
        if import.delayed != partner.delayed {
            let how = match partner.delayed {
                true => "is delay-loaded now",
                false => "is no longer delay-loaded",
            };
            let message = format!("import {} {how}", shown(import));
            let evidence = format!("{slot}, at rva {} of the fixed image", partner.slot);
            refusals.push(Refusal::new("HP024", &**name, message, evidence));
        }
    }
}

#[cfg(test)]
mod tests {
    use hpbuild_metadata::Rva;

    use super::*;
    use crate::pe::ImportSymbol;

    fn import<S: Side>(slot: u32, symbol: &str, delayed: bool) -> Import<S> {
        Import {
            slot: Rva::new(slot),
            dll: "A.dll".into(),
            symbol: ImportSymbol::Name(symbol.into()),
            delayed,
        }
    }

    #[test]
    fn imports_that_are_bound_at_another_time() {
        let base = [
            import(8, "f", false),
            import(16, "g", true),
            import(24, "stays", true),
            import(32, "both", false),
        ];
        let fixed = [
            import(48, "f", true),
            import(56, "g", false),
            import(64, "stays", true),
            import(72, "both", true),
            import(80, "both", false),
        ];
        let mut found = Vec::new();
        changed_imports(&base, &fixed, &mut found);
        let found: Vec<_> = found
            .iter()
            .map(|it| {
                (
                    it.code,
                    &*it.name,
                    &*it.message,
                    &*it.evidence,
                    it.refuses(),
                )
            })
            .collect();
        let expected = [
            (
                "HP024",
                "a.dll!f",
                "import a.dll!f is delay-loaded now",
                "slot at rva 0x8 of the base, at rva 0x30 of the fixed image",
                false,
            ),
            (
                "HP024",
                "a.dll!g",
                "import a.dll!g is no longer delay-loaded",
                "slot at rva 0x10 of the base, at rva 0x38 of the fixed image",
                false,
            ),
        ];
        assert_eq!(found, expected);
    }
}
