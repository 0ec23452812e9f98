//! Constants without a name that changed and that the process holds the address of: what `&CONFIG` is
//! in Rust, compound literals of C, constants of objects without records.
//!
//! ```text
//! lea rax, [rip+0x1f3a]     ->  {read_any, close}, which is {read_checked, close} in the fixed image
//! mov [rcx], rax            objects that exist keep the address of the first
//! ```
//!
//! Nothing says which constant of the fixed image takes the place of one of the base. So a function is
//! asked on both sides for those that it keeps; where one of the base is equal to none of the fixed
//! image's, and one of those to none of the base's, it changed, or another came in its place.
//!
//! What is only handed on is not judged, but for tables of functions: that is how texts are printed,
//! panics name their sources, and lists are passed. Texts are old ones at worst, wherever they go. Nor is
//! what is only compared: code compares the ends of what it walks through. What goes
//! into the frame counts for nothing: vtables do with every object that lives there.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use hpbuild_metadata::{Base, Fixed, FunctionId, Rva, Side};
use rayon::prelude::*;

use super::{Case, Refusal, Severity};
use crate::decode::{Escape, ReferenceKind, escape};
use crate::image::{Image, PlacedReference};
use crate::meaning::{
    Comparer, Meaning, Target, anonymous_extent, is_read_only, is_text_alone, resolve,
};

/// So often operands of one function are compared with those of the other, at most: some times for each
/// one that changed.
const MAX_COMPARED: usize = 1 << 16;
/// A table of functions has one among so many of its pointers.
const MAX_POINTERS: usize = 1 << 8;

pub(super) fn judge(case: &Case<'_>, refusals: &mut Vec<Refusal>) {
    let (base, comparer) = (case.comparer.base, case.comparer);
    let found = case.redirected.par_iter().with_min_len(16);
    let found: Vec<Vec<Held<'_, Base>>> = found
        .map(|(base, fixed)| replaced(comparer, *base, *fixed))
        .collect();
    let mut held: BTreeMap<Rva<Base>, (Escape, Reverse<FunctionId<Base>>)> = BTreeMap::new();
    for ((id, _), found) in case.redirected.iter().zip(found) {
        for it in found {
            let way = (it.way, Reverse(*id));
            let most = held.entry(it.placed.reference.target).or_insert(way);
            *most = way.max(*most);
        }
    }
    for (rva, (way, Reverse(id))) in held {
        let name = base.display_name(id);
        let (severity, what) = match way {
            Escape::Stored => (
                Severity::Refuse,
                "stores its address: what holds it goes on",
            ),
            Escape::Returned => (
                Severity::Warn,
                "returns its address: whoever keeps it goes on",
            ),
            _ => (
                Severity::Warn,
                "hands its address on: whoever keeps it goes on",
            ),
        };
        let message =
            format!("a constant without a name changed, and {name} {what} with the base's");
        let evidence = format!("rva {rva} of the base");
        let mut refusal = Refusal::new("HP033", name, message, evidence);
        refusal.severity = severity;
        refusals.push(refusal);
    }
}

/// An operand by which a function takes an address that somebody may keep.
struct Held<'a, S: Side> {
    placed: &'a PlacedReference<S>,
    way: Escape,
}

/// What a function of the base keeps and the fixed one does not, where that keeps something else.
fn replaced<'a>(
    comparer: &Comparer<'a>,
    base: FunctionId<Base>,
    fixed: FunctionId<Fixed>,
) -> Vec<Held<'a, Base>> {
    let mut before = held(comparer.base, base);
    if before.is_empty() {
        return before;
    }
    let mut after = held(comparer.fixed, fixed);
    let (all_before, all_after) = (taken(comparer.base, base), taken(comparer.fixed, fixed));
    if after.is_empty() {
        return Vec::new();
    }
    // Where it is not known whether two are the same, that is a finding of its own.
    let may_be_same = |b: &PlacedReference<Base>, f: &PlacedReference<Fixed>| {
        let meaning = comparer.compare_placed((base, b), (fixed, f));
        !matches!(meaning, Meaning::Different(_))
    };
    retain_other(&mut before, &all_after, may_be_same);
    if before.is_empty() {
        return before;
    }
    retain_other(&mut after, &all_before, |f, b| may_be_same(b, f));
    let most = after.iter().map(|it| it.way).max();
    before.retain(|it| most >= Some(it.way));
    before
}

/// Keeps those that are none of the other function's. Most stand in one order on both sides, so that
/// each is looked for behind the last one that was found.
fn retain_other<S: Side, O: Side>(
    held: &mut Vec<Held<'_, S>>,
    others: &[&PlacedReference<O>],
    may_be_same: impl Fn(&PlacedReference<S>, &PlacedReference<O>) -> bool,
) {
    let (mut next, mut compared) = (0, 0);
    held.retain(|it| {
        let (before, behind) = others.split_at(next);
        let mut all = behind.iter().chain(before).take(MAX_COMPARED - compared);
        let found = all.position(|other| may_be_same(it.placed, other));
        compared += found.map_or(others.len(), |at| at + 1);
        compared = compared.min(MAX_COMPARED);
        match found {
            Some(at) => next = (next + at + 1) % others.len(),
            None => return compared < MAX_COMPARED,
        }
        false
    });
}

/// The operands by which a function takes addresses of what nothing can write to.
fn taken<S: Side>(image: &Image<S>, id: FunctionId<S>) -> Vec<&PlacedReference<S>> {
    let all = image.references_of(id).iter();
    let taken = all.filter(|it| {
        it.reference.kind == ReferenceKind::Address
            && !it.completed_elsewhere
            && is_read_only(image, it.reference.target)
    });
    taken.collect()
}

/// Those of them whose address somebody may keep.
fn held<S: Side>(image: &Image<S>, id: FunctionId<S>) -> Vec<Held<'_, S>> {
    let code = image.code_of(id);
    let machine = image.pe.machine;
    let held = taken(image, id).into_iter().filter_map(|placed| {
        let size = size(image, placed.reference.target)?;
        let way = escape(machine, code, placed.offset)?;
        let counts = match way {
            Escape::Stored | Escape::Returned => true,
            Escape::Handed => leads_to_code(image, placed.reference.target, size),
            Escape::Lost | Escape::Compared => false,
        };
        counts.then_some(Held { placed, way })
    });
    held.collect()
}

/// The bytes of the constant without a name at an address: no text, no place in a source, and no table of distances,
/// to which code adds what it finds there.
fn size<S: Side>(image: &Image<S>, rva: Rva<S>) -> Option<u32> {
    let is_code = image.pe.section_at(rva)?.is_code();
    let is_nameless = matches!(resolve(image, rva), Target::Anonymous(_));
    if is_code
        || !is_nameless
        || image.relative_tables.binary_search(&rva).is_ok()
        || image.source_places.binary_search(&rva).is_ok()
    {
        return None;
    }
    let size = anonymous_extent(image, rva, ReferenceKind::Address)?.size;
    let bytes = image.pe.bytes_from(rva);
    let bytes = &bytes[..bytes.len().min(size as usize)];
    (!is_text_alone(bytes)).then_some(size)
}

fn leads_to_code<S: Side>(image: &Image<S>, rva: Rva<S>, size: u32) -> bool {
    let places = image.pe.relocations_in(rva, size).iter();
    places.take(MAX_POINTERS).any(|place| {
        let word = image.pe.bytes(*place, 8).and_then(|it| it.first_chunk());
        let target = word.and_then(|it| image.pe.rva_of(u64::from_le_bytes(*it)));
        let section = target.and_then(|target| image.pe.section_at(target));
        section.is_some_and(crate::pe::Section::is_code)
    })
}
