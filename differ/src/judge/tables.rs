//! Changed constants that unchanged code and objects of the running process still lead to: vtables,
//! what writable pointers and exports lead to, and what code keeps the address of.

use std::collections::BTreeSet;

use hpbuild_metadata::{Base, FunctionId, Rva, Side};

use super::{Case, Refusal, Severity};
use crate::decode::{Escape, ReferenceKind, escape};
use crate::image::{DataSymbol, Image};
use crate::meaning::is_read_only;
use crate::names::is_vtable;
use crate::pe::ExportTarget;

pub(super) fn judge(case: &Case<'_>, refusals: &mut Vec<Refusal>) {
    let image = case.comparer.base;
    for change in &case.comparison.data {
        let symbol = image.data_symbol(change.base);
        let (name, shown) = (&*symbol.name, symbol.display());
        let evidence = format!("rva {} of the base", symbol.rva);
        let linkage = symbol.decorated.as_deref().unwrap_or(&symbol.name);
        if is_vtable(linkage) || is_vtable(name) {
            let message = format!("the vtable {shown} changed");
            refusals.push(Refusal::new("HP027", name, message, evidence));
            continue;
        }
        let holder = pointer_to(image, symbol, |place| !is_read_only(image, place));
        let is_exported = image.pe.exports.iter().any(
            |export| matches!(&export.target, ExportTarget::Rva(rva) if is_inside(symbol, *rva)),
        );
        if let Some(holder) = &holder {
            let message = format!("{shown} changed, and {holder} points at the base's");
            refusals.push(Refusal::new("HP033", name, message, evidence.clone()));
        }
        if is_exported {
            let message = format!("{shown} changed, and other modules import it");
            refusals.push(Refusal::new("HP033", name, message, evidence.clone()));
        }
        if holder.is_none() && !is_exported {
            refusals.extend(held(case, symbol));
        }
    }
}

fn is_inside<S: Side>(symbol: &DataSymbol<S>, rva: Rva<S>) -> bool {
    rva.checked_sub(symbol.rva)
        .is_some_and(|offset| offset < symbol.size)
}

/// What holds a pointer into `symbol` at such a place, by name or address.
fn pointer_to(
    image: &Image<Base>,
    symbol: &DataSymbol<Base>,
    is_wanted: impl Fn(Rva<Base>) -> bool,
) -> Option<String> {
    let place = image.pe.base_relocations.iter().find(|place| {
        let address = image
            .pe
            .bytes(**place, 8)
            .and_then(|bytes| bytes.first_chunk());
        let target = address.and_then(|word| image.pe.rva_of(u64::from_le_bytes(*word)));
        target.is_some_and(|target| is_inside(symbol, target)) && is_wanted(**place)
    })?;
    let named = image
        .data_at(*place)
        .map(|id| image.data_symbol(id).display());
    Some(named.unwrap_or_else(|| format!("the pointer at rva {place}")))
}

/// What code of the base does with the address of a constant that changed: objects of the running
/// process that keep it go on with the base's, and no comparison finds the copy in the patch equal to it;
/// that they keep it is sure only where code stores it. What others get may be kept by them; where it is
/// numbers or a text, that is the old ones at worst.
fn held(case: &Case<'_>, symbol: &DataSymbol<Base>) -> Option<Refusal> {
    let image = case.comparer.base;
    let end = symbol.rva.checked_add(symbol.size)?;
    let escapes = |function: FunctionId<Base>| {
        let references = image.references_of(function).iter();
        let addresses = references.filter(|it| {
            it.reference.kind == ReferenceKind::Address && is_inside(symbol, it.reference.target)
        });
        let code = image.code_of(function);
        let ways = addresses.filter_map(|it| escape(image.pe.machine, code, it.offset));
        ways.max().map(|way| (way, function))
    };
    let readers = case.comparer.readers_in(symbol.rva..end);
    // Of several functions that do the same the first stands for all.
    let found = readers.into_iter().rev().filter_map(escapes);
    let found = found.max_by_key(|(way, _)| *way);
    let evidence = format!("rva {} of the base", symbol.rva);
    let (name, shown) = (&*symbol.name, symbol.display());
    let function = |id| image.display_name(id);
    let message = match found {
        Some((Escape::Stored, id)) => {
            let what = "stores its address: what holds it goes on with the base's";
            format!("{shown} changed, and {} {what}", function(id))
        }
        Some((Escape::Compared, id)) => {
            let what = "compares its address, which is another one in the patch";
            let message = format!("{shown} changed, and {} {what}", function(id));
            return Some(warning(name, message, evidence));
        }
        _ if !has_parts(image, symbol) => return None,
        Some((Escape::Handed, id)) => {
            let what = "hands its address on: whoever keeps it goes on with the base's";
            let message = format!("{shown} changed, and {} {what}", function(id));
            return Some(warning(name, message, evidence));
        }
        None => {
            let holder = pointer_to(image, symbol, |place| !is_inside(symbol, place))?;
            let what = "leads to it: whoever keeps that address goes on with the base's";
            return Some(warning(
                name,
                format!("{shown} changed, and {holder} {what}"),
                evidence,
            ));
        }
    };
    Some(Refusal::new("HP033", name, message, evidence))
}

fn warning(name: &str, message: String, evidence: String) -> Refusal {
    let mut refusal = Refusal::new("HP033", name, message, evidence);
    refusal.severity = Severity::Warn;
    refusal
}

/// Whether data are structures or hold addresses, as tables of functions do.
fn has_parts(image: &Image<Base>, symbol: &DataSymbol<Base>) -> bool {
    let mut named = BTreeSet::new();
    image.types.named_in(symbol.type_index, &mut named);
    !named.is_empty() || !image.pe.relocations_in(symbol.rva, symbol.size).is_empty()
}
