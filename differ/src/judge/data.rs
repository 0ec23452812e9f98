//! Rules about data: initial values, vtables, tables behind writable pointers, type layouts.

use hpbuild_metadata::{Base, DataId, Fixed, Rva, Side};
use rayon::prelude::*;

use super::{Case, Refusal};
use crate::decode::ReferenceKind;
use crate::image::{DataSymbol, Image};
use crate::meaning::{Meaning, is_read_only};
use crate::pe::ExportTarget;

pub(super) fn judge(case: &Case<'_>) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    initial_values(case, &mut refusals);
    changed_tables(case, &mut refusals);
    type_layouts(case, &mut refusals);
    refusals
}

/// Paired writable variables whose initial values differ, pointers compared by meaning.
fn initial_values(case: &Case<'_>, refusals: &mut Vec<Refusal>) {
    let (base, fixed) = (case.comparer.base, case.comparer.fixed);
    for (index, symbol) in base.data.iter().enumerate() {
        let Some(partner) = case.comparer.pairing.fixed_data(DataId::new(index)) else {
            continue;
        };
        let partner = fixed.data_symbol(partner);
        let is_import = base.pe.import_at(symbol.rva).is_some();
        let linkage = symbol.decorated.as_deref().unwrap_or(&symbol.name);
        let is_set =
            crate::names::is_set_at_start(&symbol.name) || crate::names::is_linker_made(linkage);
        if is_import || is_set || is_read_only(base, symbol.rva) {
            continue;
        }
        if let Some(evidence) = initial_value_differs(case, symbol, partner) {
            let name = symbol.name.to_string();
            let message = format!("the initial value of {name} changed");
            refusals.push(Refusal::new("HP030", name, message, evidence));
        }
    }
}

/// The initialised bytes of a variable and the offsets of the pointers in it.
struct Value<'a, S: Side> {
    image: &'a Image<S>,
    bytes: &'a [u8],
    pointers: Vec<usize>,
}

impl<'a, S: Side> Value<'a, S> {
    fn new(image: &'a Image<S>, symbol: &DataSymbol<S>, size: u32) -> Self {
        let bytes = image.pe.bytes_from(symbol.rva);
        let places = image.pe.relocations_in(symbol.rva, size);
        Self {
            image,
            bytes: &bytes[..bytes.len().min(size as usize)],
            pointers: places
                .iter()
                .map(|p| (p.get() - symbol.rva.get()) as usize)
                .collect(),
        }
    }

    /// What is not in the file is zero.
    fn byte(&self, at: usize) -> u8 {
        self.bytes.get(at).copied().unwrap_or(0)
    }

    fn pointer(&self, at: usize) -> Option<Rva<S>> {
        let word = self.bytes.get(at..)?.first_chunk()?;
        self.image.pe.rva_of(u64::from_le_bytes(*word))
    }
}

fn initial_value_differs(
    case: &Case<'_>,
    base: &DataSymbol<Base>,
    fixed: &DataSymbol<Fixed>,
) -> Option<String> {
    if base.sized_by_type && fixed.sized_by_type && base.size != fixed.size {
        return Some(format!("{} bytes before, {} after", base.size, fixed.size));
    }
    let size = base.size.min(fixed.size);
    let b = Value::new(case.comparer.base, base, size);
    let f = Value::new(case.comparer.fixed, fixed, size);
    if b.pointers != f.pointers {
        return Some(format!(
            "{} pointers before, {} after",
            b.pointers.len(),
            f.pointers.len()
        ));
    }
    let mut pointers = b.pointers.iter().copied().peekable();
    let mut at = 0;
    while at < b.bytes.len().max(f.bytes.len()) {
        if pointers.next_if_eq(&at).is_some() {
            let leads_elsewhere = match (b.pointer(at), f.pointer(at)) {
                (Some(before), Some(after)) => {
                    let meaning = case.comparer.compare(before, after, ReferenceKind::Address);
                    meaning != Meaning::Same
                }
                (before, after) => before.is_some() != after.is_some(),
            };
            if leads_elsewhere {
                return Some(format!("the pointer at byte {at:#x} leads elsewhere"));
            }
            at += 8;
        } else {
            let (before, after) = (b.byte(at), f.byte(at));
            if before != after {
                return Some(format!(
                    "byte {at:#x}: {before:#04x} before, {after:#04x} after"
                ));
            }
            at += 1;
        }
    }
    None
}

/// Changed read-only data that unchanged code can still reach: vtables, and what writable
/// pointers or exports lead to.
fn changed_tables(case: &Case<'_>, refusals: &mut Vec<Refusal>) {
    let image = case.comparer.base;
    for change in &case.comparison.data {
        let symbol = image.data_symbol(change.base);
        let name = symbol.name.to_string();
        let evidence = format!("rva {} of the base", symbol.rva);
        let linkage = symbol.decorated.as_deref().unwrap_or(&symbol.name);
        if linkage.starts_with("??_7") || linkage.starts_with("_ZTV") {
            let message = format!("the vtable {name} changed");
            refusals.push(Refusal::new("HP027", name, message, evidence));
            continue;
        }
        if let Some(holder) = writable_pointer_to(image, symbol) {
            let message = format!("{name} changed, and {holder} points at the base's");
            refusals.push(Refusal::new(
                "HP033",
                name.clone(),
                message,
                evidence.clone(),
            ));
        }
        let exported = image.pe.exports.iter().any(
            |export| matches!(&export.target, ExportTarget::Rva(rva) if is_inside(symbol, *rva)),
        );
        if exported {
            let message = format!("{name} changed, and other modules import it");
            refusals.push(Refusal::new("HP033", name, message, evidence));
        }
    }
}

fn is_inside<S: Side>(symbol: &DataSymbol<S>, rva: Rva<S>) -> bool {
    rva.checked_sub(symbol.rva)
        .is_some_and(|offset| offset < symbol.size)
}

/// The writable variable that holds a pointer into `symbol`, by name or address.
fn writable_pointer_to(image: &Image<Base>, symbol: &DataSymbol<Base>) -> Option<String> {
    let place = image.pe.base_relocations.iter().find(|place| {
        let address = image
            .pe
            .bytes(**place, 8)
            .and_then(|bytes| bytes.first_chunk());
        let target = address.and_then(|word| image.pe.rva_of(u64::from_le_bytes(*word)));
        target.is_some_and(|target| is_inside(symbol, target)) && !is_read_only(image, **place)
    })?;
    let named = image
        .data_at(*place)
        .map(|id| image.data_symbol(id).name.to_string());
    Some(named.unwrap_or_else(|| format!("the pointer at rva {place}")))
}

/// Structures and unions of the same name whose layouts differ.
fn type_layouts(case: &Case<'_>, refusals: &mut Vec<Refusal>) {
    let (base, fixed) = (&case.comparer.base.types, &case.comparer.fixed.types);
    if case.redirected.is_empty() {
        return;
    }
    let differs = |&(name, index): &(&[u8], u32)| {
        let partner = fixed.definition(name)?;
        (base.layout_hash(index) != fixed.layout_hash(partner)).then_some((index, partner))
    };
    let definitions = base.definitions();
    let found: Vec<_> = definitions.par_iter().map(differs).collect();
    for ((name, _), found) in definitions.iter().zip(found) {
        let Some((index, partner)) = found else {
            continue;
        };
        let name = String::from_utf8_lossy(name).into_owned();
        let size = |size: Option<u32>| size.map_or("?".into(), |size| size.to_string());
        let before = size(base.size(index));
        let evidence = format!("{before} bytes before, {} after", size(fixed.size(partner)));
        let message = format!("the layout of {name} changed");
        refusals.push(Refusal::new("HP031", name, message, evidence));
    }
}
