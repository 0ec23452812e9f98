//! Symbols, publics and unwind entries to disjoint functions.
//!
//! The sources overlap and none is complete: procedure records miss assembly, publics miss
//! statics and have no size, unwind entries miss leaf functions. The surest source wins:
//! procedure, then thunk, then cold part, then public, then unwind entry.

use std::collections::BTreeSet;

use hpbuild_metadata::{Rva, SectionOffset, Side};
use rustc_hash::FxHashMap;

use super::filler::{is_filler, without_filler};
use super::symbols::{ModuleSymbols, RawPublic, RawSeparated};
use crate::decode::Code;
use crate::image::{Contribution, Function, FunctionKind, Mention, Procedure, RecordPlace};
use crate::pe::Pe;
use crate::types::Types;

/// A start of code that some source vouches for.
struct Start<S: Side> {
    rva: Rva<S>,
    /// Bytes, where the source says.
    size: Option<u32>,
    kind: FunctionKind,
    name: Option<Procedure>,
}

/// The functions of an image and their names.
pub(super) struct Carved<S: Side> {
    /// Sorted and disjoint.
    pub(super) functions: Vec<Function<S>>,
    pub(super) procedures: Vec<Procedure>,
    pub(super) mentions: Vec<Mention>,
}

/// The functions of an image, sorted and disjoint, with their names. Those names of procedures and
/// publics are taken that no data needs.
pub(super) fn carve<S: Side>(
    pe: &Pe<S>,
    modules: &mut [ModuleSymbols],
    publics: &mut [RawPublic],
    contributions: &[Contribution<S>],
    types: &Types,
) -> Carved<S> {
    let mentions: Vec<Mention> = modules
        .iter()
        .flat_map(|it| &it.mentions)
        .copied()
        .collect();
    let add_name = |all: &mut Vec<Procedure>, first: usize, name: Procedure| {
        let repeats = |known: &Procedure| is_repeated(known, &name, &mentions, types);
        if name.decorated.is_some() || !all[first..].iter().any(repeats) {
            add_name(all, first, name);
        }
    };
    // Growing step by step would hold this table, the largest of all, twice.
    let records = |module: &ModuleSymbols| {
        module.procedures.len() + module.thunks.len() + module.separated.len()
    };
    let count = publics.len() + modules.iter().map(records).sum::<usize>();
    let mut starts = Vec::with_capacity(count);
    add_procedure_starts(pe, modules, types, &mut starts);
    starts.extend(public_starts(pe, publics));
    let order = in_order(pe, &mut starts);

    let mut functions: Vec<Function<S>> = Vec::with_capacity(starts.len());
    let mut procedures = Vec::with_capacity(starts.len());
    let mut take = |(rva, _, index): &Place<S>| {
        let start = &mut starts[*index as usize];
        let name = start.name.take();
        Start {
            rva: *rva,
            size: start.size,
            kind: start.kind,
            name,
        }
    };
    let mut rest = order.iter().peekable();
    while let Some(first) = rest.next() {
        let first = take(first);
        let rva = first.rva;
        let (mut size, kind) = (first.size, first.kind);
        let first_name = procedures.len();
        procedures.extend(first.name.map(named));
        while let Some(other) = rest.next_if(|other| other.0 == rva) {
            let other = take(other);
            // A record of the same rank may be larger where bodies were folded; a lower rank
            // only adds its name.
            if other.kind == kind {
                size = size.max(other.size);
            }
            if let Some(name) = other.name {
                add_name(&mut procedures, first_name, name);
            }
        }
        if let Some(previous) = functions.last_mut() {
            let inside = rva
                .checked_sub(previous.rva)
                .is_some_and(|at| at < previous.size);
            if inside && kind != FunctionKind::Procedure {
                // A label inside a function: an offset into it is meaning enough.
                procedures.truncate(first_name);
                continue;
            }
            if inside {
                previous.size = rva.get() - previous.rva.get();
            }
        }
        let next = rest.peek().map(|next| next.0);
        let size = size.unwrap_or_else(|| guess_size(pe, contributions, rva, next));
        let available = pe.bytes_from(rva).len();
        let size = size.min(u32::try_from(available).unwrap_or(u32::MAX));
        if size == 0 {
            procedures.truncate(first_name);
            continue;
        }
        functions.push(Function {
            rva,
            size,
            compiland: find(contributions, rva).map(|contribution| contribution.compiland),
            procedures: id(first_name)..id(procedures.len()),
            kind,
        });
    }
    Carved {
        functions,
        procedures,
        mentions,
    }
}

/// Functions that nothing names and that have no unwind entry, but that others call or take the
/// address of, or that tables point at: what `unknown` lists, all in code outside of `functions`,
/// and what pointers in data lead to. Sorted, disjoint from `functions` and each other.
pub(super) fn called<S: Side>(
    pe: &Pe<S>,
    functions: &[Function<S>],
    unknown: &[Rva<S>],
    contributions: &[Contribution<S>],
) -> Vec<Function<S>> {
    let is_unknown = |rva: &Rva<S>| {
        let before = functions.partition_point(|function| function.rva <= *rva);
        let inside = before.checked_sub(1).is_some_and(|index| {
            let function = &functions[index];
            rva.get() - function.rva.get() < function.size
        });
        !inside && pe.section_at(*rva).is_some_and(|section| section.is_code())
    };
    let mut starts = unknown.to_vec();
    starts.sort_unstable();
    let by_code = starts.clone();
    starts.extend(pointers(pe).filter(is_unknown));
    starts.sort_unstable();
    starts.dedup();
    let mut found = Vec::new();
    for (index, rva) in starts.iter().copied().enumerate() {
        let behind = functions.partition_point(|function| function.rva <= rva);
        let known = functions.get(behind).map(|function| function.rva);
        let next = [known, starts.get(index + 1).copied()];
        let size = guess_size(pe, contributions, rva, next.into_iter().flatten().min());
        // Compilers list the room that they leave before entries, which no code leads to.
        let is_listed = || known == rva.checked_add(size) && by_code.binary_search(&rva).is_err();
        if size > 0 && !(is_listed() && is_filler(pe.machine, code_of(pe, rva, size))) {
            found.push(Function {
                rva,
                size,
                compiland: find(contributions, rva).map(|contribution| contribution.compiland),
                procedures: 0..0,
                kind: FunctionKind::Unnamed,
            });
        }
    }
    found
}

/// How MinGW's lists of constructors begin, which stand among the code: with the number -1. No
/// instruction of either machine has these bytes.
const NO_CODE: [u8; 4] = [0xff; 4];

/// Where the pointers in the data of an image lead.
fn pointers<S: Side>(pe: &Pe<S>) -> impl Iterator<Item = Rva<S>> {
    pe.base_relocations.iter().filter_map(|place| {
        pe.section_at(*place).filter(|section| !section.is_code())?;
        let value = u64::from_le_bytes(*pe.bytes_from(*place).first_chunk()?);
        let rva = Rva::new(u32::try_from(value.checked_sub(pe.image_base)?).ok()?);
        (!pe.bytes_from(rva).starts_with(&NO_CODE)).then_some(rva)
    })
}

fn id(index: usize) -> u32 {
    u32::try_from(index).expect("fewer than 2^32 names")
}

/// Lower is surer.
fn rank(kind: FunctionKind) -> u8 {
    match kind {
        FunctionKind::Procedure => 0,
        FunctionKind::Thunk => 1,
        FunctionKind::Separated => 2,
        FunctionKind::Public => 3,
        FunctionKind::Unnamed => 4,
    }
}

fn add_procedure_starts<S: Side>(
    pe: &Pe<S>,
    modules: &mut [ModuleSymbols],
    types: &Types,
    starts: &mut Vec<Start<S>>,
) {
    let mut before = 0;
    for (compiland, module) in modules.iter_mut().enumerate() {
        let all_stay = !module.separated.is_empty();
        let mut stay = vec![all_stay; module.procedures.len()];
        for parent in module.data.iter().filter_map(|data| data.parent) {
            if let Some(stay) = stay.get_mut(parent as usize) {
                *stay = true;
            }
        }
        for (procedure, stay) in module.procedures.iter_mut().zip(stay) {
            let Some(rva) = code_place(pe, procedure.place) else {
                continue;
            };
            let name = match stay {
                true => procedure.name.clone(),
                false => std::mem::take(&mut procedure.name),
            };
            starts.push(Start {
                rva,
                size: (procedure.size > 0).then_some(procedure.size),
                kind: if procedure.size > 0 {
                    FunctionKind::Procedure
                } else {
                    FunctionKind::Public
                },
                name: Some(Procedure {
                    name,
                    decorated: None,
                    global: procedure.global,
                    type_index: types.function_type(procedure.type_index, procedure.is_item),
                    mentions: before + procedure.mentions.start..before + procedure.mentions.end,
                    records: RecordPlace {
                        compiland: id(compiland),
                        range: procedure.records.clone(),
                    },
                }),
            });
        }
        for thunk in &module.thunks {
            let Some(rva) = code_place(pe, thunk.place) else {
                continue;
            };
            let name = (!thunk.name.is_empty()).then(|| unnamed_type(thunk.name.clone()));
            starts.push(Start {
                rva,
                size: Some(thunk.size),
                kind: FunctionKind::Thunk,
                name,
            });
        }
        let parents: FxHashMap<_, _> = match module.separated.is_empty() {
            true => FxHashMap::default(),
            false => module
                .procedures
                .iter()
                .map(|it| (it.place, &it.name))
                .collect(),
        };
        let mut counts: FxHashMap<_, u32> = FxHashMap::default();
        for part in &module.separated {
            let Some(rva) = code_place(pe, part.place) else {
                continue;
            };
            let name = parents.get(&part.parent).map(|parent| {
                let count = counts.entry(part.parent).or_default();
                *count += 1;
                let number = match *count {
                    1 => String::new(),
                    count => format!(" {count}"),
                };
                unnamed_type(format!("{parent} (cold part{number})").into())
            });
            starts.push(Start {
                rva,
                size: Some(part.size),
                kind: FunctionKind::Separated,
                name,
            });
        }
        before += id(module.mentions.len());
    }
}

/// For each cold part its start and the entry of the function that it belongs to; sorted.
pub(super) fn cold_parts<S: Side>(pe: &Pe<S>, modules: &[ModuleSymbols]) -> Vec<(Rva<S>, Rva<S>)> {
    let parts = modules.iter().flat_map(|module| &module.separated);
    let pair =
        |part: &RawSeparated| Some((pe.rva_of_place(part.place)?, pe.rva_of_place(part.parent)?));
    let mut found: Vec<_> = parts.filter_map(pair).collect();
    found.sort_unstable();
    found.dedup_by_key(|(cold, _)| *cold);
    found
}

fn unnamed_type(name: Box<str>) -> Procedure {
    Procedure {
        name,
        decorated: None,
        global: false,
        type_index: 0,
        mentions: 0..0,
        records: RecordPlace::default(),
    }
}

/// An address in code.
fn code_place<S: Side>(pe: &Pe<S>, place: SectionOffset) -> Option<Rva<S>> {
    let rva = pe.rva_of_place(place)?;
    pe.section_at(rva)
        .is_some_and(|section| section.is_code())
        .then_some(rva)
}

fn public_starts<S: Side>(pe: &Pe<S>, publics: &mut [RawPublic]) -> impl Iterator<Item = Start<S>> {
    let start = |public: &mut RawPublic| {
        // Publics of data are no starts.
        let rva = code_place(pe, public.place)?;
        Some(Start {
            rva,
            size: None,
            kind: FunctionKind::Public,
            name: Some(Procedure {
                // Most only add their linkage name to a procedure: see `named`.
                name: Box::default(),
                decorated: Some(std::mem::take(&mut public.name)),
                global: true,
                type_index: 0,
                mentions: 0..0,
                records: RecordPlace::default(),
            }),
        })
    };
    publics.iter_mut().filter_map(start)
}

/// Where a start comes in the order of addresses: its address, its rank, and its index.
type Place<S> = (Rva<S>, u8, u32);

/// The order of addresses, and of several starts of one address that of their rank. Unwind entries
/// whose code no other source knows are added to `starts`.
fn in_order<S: Side>(pe: &Pe<S>, starts: &mut Vec<Start<S>>) -> Vec<Place<S>> {
    let place = |(index, start): (u32, &Start<S>)| (start.rva, rank(start.kind), index);
    let mut order: Vec<Place<S>> = (0..).zip(&*starts).map(place).collect();
    order.sort_unstable();
    let known = starts.len();
    for function in &pe.runtime_functions {
        let behind = order.partition_point(|place| place.0 <= function.begin);
        let before = behind
            .checked_sub(1)
            .map(|at| &starts[order[at].2 as usize]);
        let is_known = before.is_some_and(|start| {
            let distance = function.begin.get() - start.rva.get();
            distance == 0 || start.size.is_some_and(|size| distance < size)
        });
        let section = pe.section_at(function.begin);
        if !is_known && section.is_some_and(|section| section.is_code()) {
            starts.push(Start {
                rva: function.begin,
                size: function.end.checked_sub(function.begin),
                kind: FunctionKind::Unnamed,
                name: None,
            });
        }
    }
    if starts.len() > known {
        let added = (0..).zip(&*starts).skip(known);
        order.extend(added.map(place));
        order.sort_unstable();
    }
    order
}

/// A name without a procedure record is called what the linker calls it.
fn named(mut name: Procedure) -> Procedure {
    if name.name.is_empty()
        && let Some(decorated) = &name.decorated
    {
        name.name.clone_from(decorated);
    }
    name
}

/// Whether a record without a linkage name says what another one said.
fn is_repeated(known: &Procedure, name: &Procedure, mentions: &[Mention], types: &Types) -> bool {
    let facts = |it: &Procedure| (it.global, it.type_index);
    let mentioned =
        |it: &Procedure| &mentions[it.mentions.start as usize..it.mentions.end as usize];
    let led_to = |it: &Procedure| {
        let mut found = BTreeSet::new();
        let mentioned = mentioned(it).iter();
        mentioned.for_each(|mention| types.add_mentioned(*mention, &mut found));
        found
    };
    facts(known) == facts(name)
        && (&known.name, &known.decorated) == (&name.name, &name.decorated)
        && (mentioned(known) == mentioned(name) || led_to(known) == led_to(name))
}

/// Joins a name with one of the body's that are already there, from `first` on: a public gives its
/// procedure the linkage name.
fn add_name(all: &mut Vec<Procedure>, first: usize, name: Procedure) {
    let names = &mut all[first..];
    let Some(decorated) = &name.decorated else {
        all.push(name);
        return;
    };
    let undecorated = names
        .iter()
        .filter(|known| known.decorated.is_none())
        .count();
    // The only record of an address has its mangled name, however that is written.
    let is_only = undecorated == 1 && crate::names::is_mangled(decorated);
    let matching = names.iter_mut().find(|known| {
        known.decorated.is_none() && (is_only || crate::names::matches(decorated, &known.name))
    });
    match matching {
        Some(known) => known.decorated = name.decorated,
        None => all.push(named(name)),
    }
}

/// The extent of code that has only a name: to the end of its unwind entry, or to whatever
/// follows, less padding.
fn guess_size<S: Side>(
    pe: &Pe<S>,
    contributions: &[Contribution<S>],
    rva: Rva<S>,
    next: Option<Rva<S>>,
) -> u32 {
    if let Some(entry) = pe
        .runtime_function_at(rva)
        .filter(|entry| entry.begin == rva)
    {
        return entry.end.checked_sub(entry.begin).unwrap_or(0);
    }
    let available = pe.bytes_from(rva);
    let mut size = u32::try_from(available.len()).unwrap_or(u32::MAX);
    if let Some(next) = next.and_then(|next| next.checked_sub(rva)) {
        size = size.min(next);
    }
    if let Some(contribution) = find(contributions, rva) {
        let end = contribution.rva.get().saturating_add(contribution.size);
        size = size.min(end - rva.get());
    }
    without_filler(pe.machine, code_of(pe, rva, size))
}

fn code_of<S: Side>(pe: &Pe<S>, rva: Rva<S>, size: u32) -> Code<'_, S> {
    Code {
        bytes: pe.bytes(rva, size).unwrap_or_default(),
        rva,
        image_base: pe.image_base,
        relocated: pe.relocations_in(rva, size),
        jumps: &[],
    }
}

/// The contribution that holds `rva`.
pub(super) fn find<S: Side>(
    contributions: &[Contribution<S>],
    rva: Rva<S>,
) -> Option<&Contribution<S>> {
    let index = contributions
        .partition_point(|c| c.rva <= rva)
        .checked_sub(1)?;
    let contribution = &contributions[index];
    (rva.checked_sub(contribution.rva)? < contribution.size).then_some(contribution)
}
