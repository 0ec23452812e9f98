//! Functions that are reached elsewhere than at their entry, which is all that is redirected.
//!
//! Code may enter a function in the middle (a second name of assembly, labels whose addresses are
//! taken), and may read constants that stand behind the last instruction of a function that has no
//! record of its size. Whoever does so and did not change himself goes on with what the base has.

use std::collections::BTreeMap;

use hpbuild_metadata::{Base, DataId, FunctionId, Rva};
use rayon::prelude::*;

use super::{Case, Refusal, lists};
use crate::decode::ReferenceKind;
use crate::image::{FunctionKind, Image, PlacedReference};
use crate::meaning::is_read_only;
use crate::pair::funclet;
use crate::pe::ExportTarget;

/// The largest constant, in bytes, that compilers join with the address of the function behind.
const FOLDED: u32 = 8;

/// The bodies that would be redirected; sorted.
struct Redirected<'a> {
    image: &'a Image<Base>,
    bodies: Vec<FunctionId<Base>>,
    /// Their entries: every operand of the image is held against them.
    entries: Vec<Rva<Base>>,
}

/// A place that reaches into a body: how far behind its entry, and what it is.
type Reached = (FunctionId<Base>, u32, String);

/// How code that is not their own uses the entries of bodies.
#[derive(Clone, Copy, Default)]
struct Uses {
    entered: bool,
    taken: bool,
}

pub(super) fn judge(case: &Case<'_>, refusals: &mut Vec<Refusal>) {
    let image = case.comparer.base;
    let mut bodies: Vec<_> = case.redirected.iter().map(|(base, _)| *base).collect();
    bodies.sort_unstable();
    bodies.dedup();
    if bodies.is_empty() {
        return;
    }
    let redirected = Redirected {
        image,
        entries: bodies.iter().map(|id| image.function(*id).rva).collect(),
        bodies,
    };
    let mut found = redirected.by_code();
    found.extend(redirected.by_pointers());
    found.extend(redirected.by_exports());
    let mut first: BTreeMap<FunctionId<Base>, (u32, String, usize)> = BTreeMap::new();
    for (id, offset, who) in found {
        first.entry(id).or_insert((offset, who, 0)).2 += 1;
    }
    for (id, (offset, who, count)) in first {
        let name = image.display_name(id);
        let message =
            format!("{name} is reached beside its entry, which is all that is redirected");
        let more = match count {
            1 => String::new(),
            _ => format!(", and {} more", count - 1),
        };
        let evidence = format!("{who} reaches {name}+{offset:#x}{more}");
        refusals.push(Refusal::new("HP037", name, message, evidence));
    }
    for id in redirected.maybe_data() {
        let name = image.display_name(id);
        let message =
            format!("{name} may be data: no record says that it is code, and nothing calls it");
        let evidence = format!("rva {} of the base", image.function(id).rva);
        refusals.push(Refusal::new("HP037", name, message, evidence));
    }
}

impl Redirected<'_> {
    /// The body around an address, and how far behind its entry that is.
    fn around(&self, rva: Rva<Base>) -> Option<(FunctionId<Base>, u32)> {
        let before = self.entries.partition_point(|entry| *entry <= rva);
        let id = *self.bodies.get(before.checked_sub(1)?)?;
        let function = self.image.function(id);
        let offset = rva.checked_sub(function.rva)?;
        (offset < function.size).then_some((id, offset))
    }

    fn contains(&self, id: FunctionId<Base>) -> bool {
        self.bodies.binary_search(&id).is_ok()
    }

    /// Whether the code of a function body stays as it is and is not a part of a redirected one that
    /// goes with it.
    fn is_other(&self, id: FunctionId<Base>) -> bool {
        let names = self.image.procedures_of(id);
        let owner = self.image.owner_of(id);
        !self.contains(id)
            && owner.is_none_or(|owner| !self.contains(owner))
            && !names.iter().any(|name| funclet::is_funclet(&name.name))
    }

    /// Code that stays as it is and reaches into a body.
    fn by_code(&self) -> Vec<Reached> {
        let of = |id: FunctionId<Base>| {
            let references = self.image.references_of(id).iter();
            references.filter_map(move |placed| {
                let (body, offset) = self.around(placed.reference.target)?;
                // Few get here, so who it is is asked last.
                (self.is_beside(placed, offset) && self.is_other(id)).then(|| {
                    let name = self.image.display_name(id);
                    (body, offset, format!("{name}+{:#x}", placed.offset))
                })
            })
        };
        let all = (0..self.image.functions.len()).into_par_iter();
        all.map(FunctionId::new).flat_map_iter(of).collect()
    }

    /// Whether a reference into a body is none to its entry as such.
    fn is_beside(&self, placed: &PlacedReference<Base>, offset: u32) -> bool {
        match placed.reference.kind {
            ReferenceKind::Page => false,
            ReferenceKind::Memory(_) => true,
            // A number may be joined with the address of the function that follows.
            ReferenceKind::Address => offset != 0 && !self.is_before_function(placed),
            ReferenceKind::Call | ReferenceKind::Jump | ReferenceKind::ConditionalJump => {
                offset != 0
            }
        }
    }

    fn is_before_function(&self, placed: &PlacedReference<Base>) -> bool {
        let target = placed.reference.target;
        let functions = &self.image.functions;
        let next = functions.partition_point(|function| function.rva <= target);
        let distance = functions
            .get(next)
            .and_then(|function| function.rva.checked_sub(target));
        distance.is_some_and(|distance| distance <= FOLDED)
    }

    /// Pointers in data that lead into a body, jump tables of its own left out.
    fn by_pointers(&self) -> Vec<Reached> {
        let pe = &self.image.pe;
        let mut own: BTreeMap<(FunctionId<Base>, DataId<Base>), bool> = BTreeMap::new();
        let reached = |place: &Rva<Base>| {
            pe.section_at(*place).filter(|section| !section.is_code())?;
            let word = pe.bytes(*place, 8)?.first_chunk()?;
            let (body, offset) = self.around(pe.rva_of(u64::from_le_bytes(*word))?)?;
            if offset == 0 || self.is_own_table(body, *place) {
                return None;
            }
            let holder = self.image.data_at(*place);
            let mut is_own = |id| {
                let known = own.entry((body, id));
                *known.or_insert_with(|| self.is_its_own(body, id))
            };
            if holder.is_some_and(&mut is_own) {
                return None;
            }
            let holder = holder.map(|id| self.image.data_symbol(id).display());
            let holder = holder.unwrap_or_else(|| format!("the pointer at rva {place}"));
            Some((body, offset, holder))
        };
        pe.base_relocations.iter().filter_map(reached).collect()
    }

    /// Whether a place lies in a jump table through which the body itself jumps.
    fn is_own_table(&self, body: FunctionId<Base>, place: Rva<Base>) -> bool {
        let tables = &self.image.switch_tables;
        let before = tables.partition_point(|table| table.table <= place);
        let Some(table) = before.checked_sub(1).map(|index| &tables[index]) else {
            return false;
        };
        let size = u64::from(table.entry.size) * u64::from(table.count);
        let inside = u64::from(place.get() - table.table.get()) < size;
        inside && self.image.function_at(table.branch) == Some(body)
    }

    /// Whether constants with addresses in a body are its own, as a table of its labels is: nothing
    /// else reaches them. Then the patch has a copy.
    fn is_its_own(&self, body: FunctionId<Base>, id: DataId<Base>) -> bool {
        let image = self.image;
        let symbol = image.data_symbol(id);
        let holds = |rva: Rva<Base>| {
            let at = rva.checked_sub(symbol.rva);
            at.is_some_and(|at| at < symbol.size)
        };
        if !is_read_only(image, symbol.rva) {
            return false;
        }
        let is_reached_by = |id: FunctionId<Base>| {
            let mut references = image.references_of(id).iter();
            references.any(|placed| {
                placed.reference.kind != ReferenceKind::Page && holds(placed.reference.target)
            })
        };
        let by_others = (0..image.functions.len())
            .into_par_iter()
            .map(FunctionId::new)
            .any(|id| id != body && is_reached_by(id));
        let by_pointers = image.pe.base_relocations.iter().any(|place| {
            let word = image.pe.bytes(*place, 8).and_then(|it| it.first_chunk());
            let target = word.and_then(|it| image.pe.rva_of(u64::from_le_bytes(*it)));
            target.is_some_and(holds)
        });
        let by_distances = lists::by_distances(image).any(holds);
        is_reached_by(body) && !by_others && !by_pointers && !by_distances
    }

    fn by_exports(&self) -> Vec<Reached> {
        let reached = |export: &crate::pe::Export<Base>| {
            let ExportTarget::Rva(rva) = export.target else {
                return None;
            };
            let (body, offset) = self.around(rva).filter(|(_, offset)| *offset != 0)?;
            let name = match &export.name {
                Some(name) => format!("the export {name}"),
                None => format!("the export #{}", export.ordinal),
            };
            Some((body, offset, name))
        };
        self.image.pe.exports.iter().filter_map(reached).collect()
    }

    /// Bodies that a name alone tells of, that nothing calls and whose address code takes: labels
    /// of constants among the code look so, too.
    fn maybe_data(&self) -> Vec<FunctionId<Base>> {
        let pe = &self.image.pe;
        let exported = |rva: Rva<Base>| {
            let mut exports = pe.exports.iter();
            exports.any(|export| matches!(export.target, ExportTarget::Rva(it) if it == rva))
        };
        let is_open = |id: &FunctionId<Base>| {
            let function = self.image.function(*id);
            let has_entry = pe
                .runtime_function_at(function.rva)
                .is_some_and(|entry| entry.begin == function.rva);
            let is_told = matches!(
                function.kind,
                FunctionKind::Procedure | FunctionKind::Thunk | FunctionKind::Separated
            );
            !is_told && !has_entry && !exported(function.rva)
        };
        let open: Vec<_> = self.bodies.iter().copied().filter(is_open).collect();
        if open.is_empty() {
            return Vec::new();
        }
        let mut uses: BTreeMap<FunctionId<Base>, Uses> = BTreeMap::new();
        for id in self.image.function_ids() {
            for placed in self.image.references_of(id) {
                let Some((body, 0)) = self.around(placed.reference.target) else {
                    continue;
                };
                let uses = uses.entry(body).or_default();
                match placed.reference.kind {
                    ReferenceKind::Address => uses.taken = true,
                    ReferenceKind::Memory(_) | ReferenceKind::Page => {}
                    _ => uses.entered = true,
                }
            }
        }
        let is_data = |id: &FunctionId<Base>| {
            let uses = uses.get(id).copied().unwrap_or_default();
            uses.taken && !uses.entered
        };
        open.into_iter().filter(is_data).collect()
    }
}
