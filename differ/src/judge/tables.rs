//! Changed constants that unchanged code and objects of the running process still lead to: vtables,
//! what writable pointers and exports lead to, and what code keeps the address of.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use hpbuild_metadata::{Base, FunctionId, Rva, Side};

use super::{Case, Refusal, Severity};
use crate::decode::{Escape, ReferenceKind, escape};
use crate::image::{DataSymbol, Image};
use crate::meaning::is_read_only;
use crate::names::is_vtable;
use crate::pe::ExportTarget;

pub(super) fn judge(case: &Case<'_>, refusals: &mut Vec<Refusal>) {
    if case.comparison.data.is_empty() {
        return;
    }
    let image = case.comparer.base;
    let leads = Leads::new(case);
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
        let holder = leads.holder(symbol, |place| !is_read_only(image, place));
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
        if holder.is_none() && !is_exported && !leads.stays(symbol) {
            refusals.extend(held(&leads, symbol));
        }
    }
}

fn is_inside<S: Side>(symbol: &DataSymbol<S>, rva: Rva<S>) -> bool {
    rva.checked_sub(symbol.rva)
        .is_some_and(|offset| offset < symbol.size)
}

/// What leads into constants of the base, in the order of where it leads.
struct Leads<'a> {
    image: &'a Image<Base>,
    /// Pointers in data: where one leads, and its place.
    pointers: Vec<(Rva<Base>, Rva<Base>)>,
    /// Operands that take an address: that, the function, and the offset in it. Only of functions that
    /// changed or are gone: what reads a constant that changed is one of them.
    operands: Vec<(Rva<Base>, FunctionId<Base>, u32)>,
    /// Where operands of functions lead in which nothing but numbers of lines changed; sorted.
    by_lines: Vec<Rva<Base>>,
    /// Where those of all other functions lead that changed or are gone; sorted.
    by_others: Vec<Rva<Base>>,
}

impl<'a> Leads<'a> {
    fn new(case: &Case<'a>) -> Self {
        let image = case.comparer.base;
        let places = image.pe.base_relocations.iter();
        let pointers = places.filter_map(|place| {
            let word = image.pe.bytes(*place, 8)?.first_chunk()?;
            Some((image.pe.rva_of(u64::from_le_bytes(*word))?, *place))
        });
        let mut pointers: Vec<_> = pointers.collect();
        pointers.sort_unstable();
        let changed = case.comparison.changed.iter().map(|change| change.base);
        let functions = changed.chain(case.comparison.removed.iter().copied());
        let operands = functions.flat_map(|id| {
            let references = image.references_of(id).iter();
            let taken = references.filter(|it| it.reference.kind == ReferenceKind::Address);
            taken.map(move |it| (it.reference.target, id, it.offset))
        });
        let mut operands: Vec<_> = operands.collect();
        operands.sort_unstable();
        let led_to = |functions: &mut dyn Iterator<Item = FunctionId<Base>>| {
            let references = functions.flat_map(|id| image.references_of(id));
            let mut targets: Vec<_> = references.map(|it| it.reference.target).collect();
            targets.sort_unstable();
            targets
        };
        let changed = case.comparison.changed.iter();
        let (lines, others): (Vec<_>, Vec<_>) = changed.partition(|it| it.is_line_number_only());
        let removed = case.comparison.removed.iter().copied();
        Self {
            image,
            pointers,
            operands,
            by_lines: led_to(&mut lines.iter().map(|it| it.base)),
            by_others: led_to(&mut others.iter().map(|it| it.base).chain(removed)),
        }
    }

    /// Whether nothing leads to `symbol` but functions in which nothing but numbers of lines changed. Those
    /// go on in the base, with its constants.
    fn stays(&self, symbol: &DataSymbol<Base>) -> bool {
        let is_among = |targets: &[Rva<Base>]| {
            let first = targets.partition_point(|it| *it < symbol.rva);
            targets.get(first).is_some_and(|it| is_inside(symbol, *it))
        };
        is_among(&self.by_lines)
            && !is_among(&self.by_others)
            && self
                .holder(symbol, |place| !is_inside(symbol, place))
                .is_none()
    }

    /// What holds a pointer into `symbol` at such a place, by name or address; of several the one at the
    /// lowest.
    fn holder(
        &self,
        symbol: &DataSymbol<Base>,
        is_wanted: impl Fn(Rva<Base>) -> bool,
    ) -> Option<String> {
        let first = self.pointers.partition_point(|it| it.0 < symbol.rva);
        let inside = self.pointers[first..].iter();
        let inside = inside.take_while(|it| is_inside(symbol, it.0));
        let places = inside.map(|it| it.1).filter(|place| is_wanted(*place));
        let place = places.min()?;
        let named = self.image.data_at(place);
        let named = named.map(|id| self.image.data_symbol(id).display());
        Some(named.unwrap_or_else(|| format!("the pointer at rva {place}")))
    }

    /// What code does with an address in `symbol`, and a function that does; of several that do the same
    /// the first.
    fn escape(&self, symbol: &DataSymbol<Base>) -> Option<(Escape, FunctionId<Base>)> {
        let first = self.operands.partition_point(|it| it.0 < symbol.rva);
        let inside = self.operands[first..].iter();
        let inside = inside.take_while(|it| is_inside(symbol, it.0));
        let ways = inside.filter_map(|(_, id, offset)| {
            let code = self.image.code_of(*id);
            Some((escape(self.image.pe.machine, code, *offset)?, *id))
        });
        ways.max_by_key(|(way, id)| (*way, Reverse(*id)))
    }
}

/// What code of the base does with the address of a constant that changed: objects of the running
/// process that keep it go on with the base's, and no comparison finds the copy in the patch equal to it;
/// that they keep it is sure only where code stores it. What others get may be kept by them; where it is
/// numbers or a text, that is the old ones at worst.
fn held(leads: &Leads<'_>, symbol: &DataSymbol<Base>) -> Option<Refusal> {
    let image = leads.image;
    let found = leads.escape(symbol);
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
        Some((Escape::Lost | Escape::Handed | Escape::Returned, id)) => {
            let what = "hands its address on: whoever keeps it goes on with the base's";
            let message = format!("{shown} changed, and {} {what}", function(id));
            return Some(warning(name, message, evidence));
        }
        None => {
            let holder = leads.holder(symbol, |place| !is_inside(symbol, place))?;
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
