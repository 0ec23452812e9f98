//! Rules about types: layouts, values of enumerations, and virtual functions.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use hpbuild_metadata::{FunctionId, Rva, Side};
use rayon::prelude::*;
use rustc_hash::FxHashSet;

use super::confined::{self, Changed};
use super::unknown_types::reads_nameless_pointer;
use super::{Case, Refusal, Severity};
use crate::image::{FunctionKind, Image, Procedure};
use crate::meaning::{Target, is_read_only, pointer_at, resolve};
use crate::names::{display_data, holds_nameless_type};
use crate::types::{Part, Sources, Types, VirtualFunction, difference};

/// A name of a type, and its index.
type Named = (String, u32);

/// Types, and which of them are definitions with names, in the order of these.
type Defined<'a> = (&'a Types, &'a [Named]);

/// What differs in a type: a rule, what to say, and what shows it.
pub(super) type Finding = (&'static str, &'static str, String);

/// What differs where members do.
const LAYOUT: &str = "the layout";

/// Types of the same name that differ: refused where a changed function uses the type, a warning
/// where none is known to. A use by a cast alone leaves no trace.
pub(super) fn judge(case: &Case<'_>, refusals: &mut Vec<Refusal>) {
    let (base, fixed) = (&case.comparer.base.types, &case.comparer.fixed.types);
    if case.redirected.is_empty() {
        return;
    }
    let (before, after) = rayon::join(|| base.definitions(), || fixed.definitions());
    let groups: Vec<_> = before.chunk_by(|a, b| a.0 == b.0).collect();
    let sources = OnceLock::new();
    let sources = || {
        sources.get_or_init(|| {
            let (base, fixed) = (case.comparer.base, case.comparer.fixed);
            (
                base.types.sources(&base.source_names),
                fixed.types.sources(&fixed.source_names),
            )
        })
    };
    let differs = |before: &&[(String, u32)]| {
        let name = &before.first()?.0;
        // Not a name, and so not the same type on both sides: see `nameless_types`.
        if holds_nameless_type(name) {
            return None;
        }
        let start = after.partition_point(|(other, _)| other < name);
        let end = after.partition_point(|(other, _)| other <= name);
        let after = &after[start..end];
        let found = match before.len() > 1 || after.len() > 1 {
            true => by_source((base, before), (fixed, after), sources())?,
            false => disagreement((base, before), (fixed, after))?,
        };
        Some((name.clone(), before.first()?.1, found))
    };
    let found: Vec<_> = groups.par_iter().filter_map(differs).collect();
    let lost = only_in(&before, &after);
    let gained = only_in(&after, &before);
    if found.is_empty() && lost.is_empty() && gained.is_empty() {
        return;
    }
    let touched = touched(case);
    let sides = ((base, &before[..]), (fixed, &after[..]));
    match &touched {
        Some((of_base, of_fixed)) => {
            one_sided((base, &before), &lost, of_fixed, "base", refusals);
            one_sided((fixed, &after), &gained, of_base, "fixed image", refusals);
            let lost = lost.iter().filter(|it| of_base.contains(**it));
            let gained = gained.iter().filter(|it| of_fixed.contains(**it));
            replaced(sides, lost.copied(), gained.copied(), refusals);
        }
        // What functions use is not known, and all types are looked at, where these are few.
        None if lost.len().saturating_mul(gained.len()) <= MOST_PAIRS => {
            replaced(
                sides,
                lost.iter().copied(),
                gained.iter().copied(),
                refusals,
            );
        }
        None => {}
    }
    let local = local((&before, &after), &found, touched.as_ref());
    let local = confined::judge(case, &local);
    for (name, index, found) in found {
        let is_touched = touched
            .as_ref()
            .is_none_or(|(before, after)| before.contains(&name) || after.contains(&name));
        let function = local.get(&name);
        for (code, what, evidence) in found {
            let (name, shown) = names(base, &name, index);
            let message = match (is_touched, function) {
                (true, None) => format!("{what} of {shown} changed"),
                (true, Some(function)) => format!(
                    "{what} of {shown} changed; only calls of {function} are known to have such \
                     objects, and bytes of them that it copied elsewhere have the old layout"
                ),
                (false, _) => {
                    format!("{what} of {shown} changed; no changed function is known to use it")
                }
            };
            let mut refusal = Refusal::new(code, name, message, evidence);
            if !is_touched || function.is_some() {
                refusal.severity = Severity::Warn;
            }
            refusals.push(refusal);
        }
    }
}

/// Of the types that differ those that would be refused for their layout alone, with all definitions.
fn local<'a>(
    (before, after): (&[Named], &[Named]),
    found: &'a [(String, u32, Vec<Finding>)],
    touched: Option<&(FxHashSet<String>, FxHashSet<String>)>,
) -> Vec<Changed<'a>> {
    let Some((of_base, of_fixed)) = touched else {
        return Vec::new();
    };
    let all = |list: &[Named], name: &str| -> Vec<u32> {
        let start = list.partition_point(|(other, _)| other.as_str() < name);
        let own = list[start..].iter().take_while(|(other, _)| other == name);
        own.map(|(_, index)| *index).collect()
    };
    let is_layout = |found: &[Finding]| matches!(found, [(_, what, _)] if *what == LAYOUT);
    let used = |name: &String| of_base.contains(name) || of_fixed.contains(name);
    let found = found.iter().filter(|it| is_layout(&it.2) && used(&it.0));
    let found = found.map(|(name, ..)| Changed {
        name,
        before: all(before, name),
        after: all(after, name),
    });
    found.collect()
}

/// The names that only the first of two lists of definitions has.
fn only_in<'a>(these: &'a [(String, u32)], others: &[(String, u32)]) -> Vec<&'a str> {
    let has = |name: &str| {
        let at = others.binary_search_by(|(other, _)| other.as_str().cmp(name));
        at.is_ok()
    };
    let groups = these.chunk_by(|a, b| a.0 == b.0);
    let names = groups.filter_map(|group| Some(&*group.first()?.0));
    names
        .filter(|name| !holds_nameless_type(name) && !has(name))
        .collect()
}

/// Types that one side defines and that functions of the other use by their name alone: compilers
/// leave out the definition where no code of theirs makes such an object. Whether the layout is the
/// same nobody can tell.
fn one_sided(
    (types, definitions): Defined<'_>,
    lost: &[&str],
    used_by_other: &FxHashSet<String>,
    side: &str,
    refusals: &mut Vec<Refusal>,
) {
    for name in lost.iter().filter(|name| used_by_other.contains(**name)) {
        let Some(index) = index_of(definitions, name) else {
            continue;
        };
        let (name, shown) = names(types, name, index);
        let message = format!("the layout of {shown} is known on one side only");
        let evidence = format!("defined in the symbols of the {side} alone");
        let mut refusal = Refusal::new("HP031", name, message, evidence);
        refusal.severity = Severity::Warn;
        refusals.push(refusal);
    }
}

/// The index of a type, in a list in the order of names.
fn index_of(definitions: &[Named], name: &str) -> Option<u32> {
    let at = definitions.binary_search_by(|(other, _)| other.as_str().cmp(name));
    at.ok().map(|at| definitions[at].1)
}

/// What a policy calls a type, and what people do. Unique names in the Itanium C++ ABI are codes.
pub(super) fn names(types: &Types, name: &str, index: u32) -> (String, String) {
    if name.starts_with("_ZTS") {
        let words = types.words(index);
        return (words.clone(), words);
    }
    (name.to_owned(), display_data(name))
}

/// Types that changed functions of the base use and that only the base has, where those of the fixed
/// image use another one instead: made by the same template, of the same name in another namespace, or
/// with most of the same members. Objects that exist have the layout of the former.
fn replaced<'a>(
    ((base, before), (fixed, after)): (Defined<'_>, Defined<'_>),
    lost: impl Iterator<Item = &'a str>,
    gained: impl Iterator<Item = &'a str>,
    refusals: &mut Vec<Refusal>,
) {
    let of = |types: &Types, definitions: &[Named], name: &'a str| {
        let index = index_of(definitions, name)?;
        Some(Candidate::new(types, name, index))
    };
    let gained: Vec<_> = gained.filter_map(|it| of(fixed, after, it)).collect();
    let lost = lost.filter_map(|it| of(base, before, it));
    let mut known = BTreeSet::new();
    for old in lost {
        // One of them says it for all.
        if known.contains(&old.family) {
            continue;
        }
        let found = gained.iter().filter(|new| old.is_like(new));
        let found = found.map(|new| {
            let parts = difference(&old.parts, &new.parts);
            let (b, f) = (base.size(old.index), fixed.size(new.index));
            let sizes = || format!("{} bytes before, {} after", b.unwrap_or(0), f.unwrap_or(0));
            (new, parts.or_else(|| (b != f).then(sizes)))
        });
        let found: Vec<_> = found.collect();
        // Where one of them is laid out alike it may well be that.
        if found.iter().any(|(_, evidence)| evidence.is_none()) {
            continue;
        }
        let Some((new, Some(evidence))) = found.into_iter().next() else {
            continue;
        };
        // Members that have the same names may be those of any list or buffer.
        let perhaps = match old.family == new.family {
            true => "",
            false => ", perhaps",
        };
        let message = format!(
            "changed code uses {}{perhaps} in place of {}: objects that exist have the old layout",
            new.shown, old.shown
        );
        let mut refusal = Refusal::new("HP031", old.policy_name, message, evidence);
        refusal.severity = Severity::Warn;
        refusals.push(refusal);
        known.insert(old.family);
    }
}

/// Pairs of types, each of one image alone, that are held against each other.
const MOST_PAIRS: usize = 1 << 14;

/// Members of a structure that are compared by name with those of all others.
const MOST_MEMBERS: usize = 64;

/// A type that one image has alone.
struct Candidate {
    index: u32,
    /// What a policy calls it, and what people do.
    policy_name: String,
    shown: String,
    /// The template that made it, or else its name without scopes.
    family: String,
    is_of_template: bool,
    parts: Vec<Part>,
}

impl Candidate {
    fn new(types: &Types, name: &str, index: u32) -> Self {
        let (policy_name, shown) = names(types, name, index);
        let template = made_by(&shown).map(str::to_owned);
        // What stands in an instance of a template has no name of its own.
        let own = || match shown.contains('<') {
            true => shown.clone(),
            false => shown.rsplit("::").next().unwrap_or(&shown).to_owned(),
        };
        Self {
            index,
            is_of_template: template.is_some(),
            family: template.unwrap_or_else(own),
            policy_name,
            shown,
            parts: types.parts(index),
        }
    }

    /// Whether a type of the fixed image may be what became of this one.
    fn is_like(&self, new: &Self) -> bool {
        if self.is_of_template || new.is_of_template {
            return self.is_of_template == new.is_of_template && self.family == new.family;
        }
        if self.family == new.family {
            return true;
        }
        let counted = 2..=MOST_MEMBERS;
        let are_plain = !self.shown.contains('<') && !new.shown.contains('<');
        if !are_plain || !counted.contains(&self.parts.len()) || !counted.contains(&new.parts.len())
        {
            return false;
        }
        let shared = self.parts.iter();
        let shared = shared.filter(|old| new.parts.iter().any(|it| it.name == old.name));
        shared.count() * 2 > self.parts.len()
    }
}

/// The template that made a type; `None` where none did, and for what is declared in such a type.
/// Enumerations of Rust stand in a template of the debug information's own.
fn made_by(shown: &str) -> Option<&str> {
    let own = shown.strip_prefix("enum2$<");
    let own = own.and_then(|it| it.strip_suffix('>')).unwrap_or(shown);
    let (template, _) = own.trim_end().strip_suffix('>')?.split_once('<')?;
    Some(template)
}

/// The function whose variables a catch, finally or cleanup block works on, by the name that MSVC
/// gives to the block: "`function'::`1'::dtor$0".
pub(super) fn parent(name: &str) -> Option<&str> {
    const BLOCKS: [&str; 4] = ["catch$", "dtor$", "filt$", "fin$"];
    let (parent, rest) = name.strip_prefix('`')?.rsplit_once("'::`")?;
    let (_, block) = rest.split_once("'::")?;
    BLOCKS
        .iter()
        .any(|kind| block.starts_with(kind))
        .then_some(parent)
}

/// The procedures whose records tell what a function works on: its own ones, and for a block those of
/// the function whose variables it has. `None` where they do not.
pub(super) fn telling<S: Side>(image: &Image<S>, id: FunctionId<S>) -> Option<Vec<&Procedure>> {
    // Only procedure records have records of variables inside.
    if !matches!(
        image.function(id).kind,
        FunctionKind::Procedure | FunctionKind::Thunk
    ) {
        return None;
    }
    let mut found = Vec::new();
    for procedure in image.procedures_of(id) {
        let Some(name) = parent(&procedure.name) else {
            found.push(procedure);
            continue;
        };
        let parents = image.procedures.iter().filter(|it| *it.name == *name);
        let before = found.len();
        found.extend(parents);
        if found.len() == before {
            return None;
        }
    }
    Some(found)
}

/// The function that a constant pointer leads to.
fn constant_pointer<S: Side>(image: &Image<S>, rva: Rva<S>) -> Option<FunctionId<S>> {
    let is_pointer = is_read_only(image, rva) && !image.pe.relocations_in(rva, 1).is_empty();
    let target = pointer_at(image, rva, true).filter(|_| is_pointer)?;
    let id = image.function_at(target)?;
    Some(image.behind_trampoline(id))
}

/// Whether this is where the number of the image's thread-local variables stands. Code adds distances to
/// it, which do not tell which variable is meant.
fn is_thread_index<S: Side>(image: &Image<S>, rva: Rva<S>) -> bool {
    image.pe.tls.as_ref().and_then(|it| it.index) == Some(rva)
}

/// The names of all types that changed and new functions lead to: by their parameters and results,
/// their variables, what is inlined into them, what they call, the data that they reach, and by
/// the members of all these: those of the base, and those of the fixed image. `None` where the
/// records of one of these functions do not tell.
pub(super) fn touched(case: &Case<'_>) -> Option<(FxHashSet<String>, FxHashSet<String>)> {
    fn of<S: Side>(
        image: &Image<S>,
        functions: impl Iterator<Item = FunctionId<S>>,
    ) -> Option<FxHashSet<String>> {
        let mut start = BTreeSet::new();
        for id in functions {
            if reads_nameless_pointer(image, id) {
                return None;
            }
            for procedure in telling(image, id)? {
                image.types.named_in(procedure.type_index, &mut start);
                image.add_mentioned(procedure, &mut start);
            }
            for placed in image.references_of(id) {
                if is_thread_index(image, placed.reference.target) {
                    let variables = image.data.iter().filter(|it| it.thread_local);
                    variables.for_each(|it| image.types.named_in(it.type_index, &mut start));
                }
                match resolve(image, placed.reference.target) {
                    Target::Data { id, .. } => {
                        let symbol = image.data_symbol(id);
                        image.types.named_in(symbol.type_index, &mut start);
                    }
                    // What a call returns needs no variable.
                    Target::Function { id: callee, .. } if callee != id => {
                        for procedure in image.procedures_of(image.behind_trampoline(callee)) {
                            image.types.named_in(procedure.type_index, &mut start);
                        }
                    }
                    _ => {}
                }
                // A pointer that only the linker knows of leads to a function of the image's own.
                let behind = constant_pointer(image, placed.reference.target);
                for procedure in behind.map_or(&[][..], |it| image.procedures_of(it)) {
                    image.types.named_in(procedure.type_index, &mut start);
                }
            }
        }
        image.types.reach(start)
    }
    let added = case.comparison.added.iter().copied();
    let before = case.redirected.iter().map(|(b, _)| *b);
    let after = case.redirected.iter().map(|(_, f)| *f).chain(added);
    let (before, after) = rayon::join(
        || of(case.comparer.base, before),
        || of(case.comparer.fixed, after),
    );
    Some((before?, after?))
}

/// The same for a name that stands for several types: those of one source are held against each other,
/// and what has no source that both sides have, against all that the other side has.
fn by_source(
    (base, before): (&Types, &[Named]),
    (fixed, after): (&Types, &[Named]),
    (of_base, of_fixed): &(Sources, Sources),
) -> Option<Vec<Finding>> {
    let files = |sources: &Sources, list: &[Named]| -> BTreeSet<String> {
        let all = list.iter().filter_map(|(_, index)| sources.get(index));
        all.flatten().cloned().collect()
    };
    let (b, f) = (files(of_base, before), files(of_fixed, after));
    let of_file = |sources: &Sources, list: &[Named], file: &String| -> Vec<Named> {
        let has = |index: &u32| sources.get(index).is_some_and(|files| files.contains(file));
        let own = list.iter().filter(|(_, index)| has(index));
        own.cloned().collect()
    };
    let shared: Vec<&String> = b.intersection(&f).collect();
    if shared.is_empty() {
        return disagreement((base, before), (fixed, after));
    }
    for file in &shared {
        let b = of_file(of_base, before, file);
        let f = of_file(of_fixed, after, file);
        if let Some(found) = disagreement((base, &b), (fixed, &f)) {
            return Some(found);
        }
    }
    let is_left = |sources: &Sources, index: &u32| {
        let files = sources.get(index);
        files.is_none_or(|files| shared.iter().all(|file| !files.contains(*file)))
    };
    let differ = |b: u32, f: u32| !findings((base, b), (fixed, f)).is_empty();
    let mut gone = before.iter().filter(|(_, b)| is_left(of_base, b));
    let gone = gone.find(|(_, b)| after.iter().all(|(_, f)| differ(*b, *f)))?;
    let mut new = after.iter().filter(|(_, f)| is_left(of_fixed, f));
    let new = new.find(|(_, f)| before.iter().all(|(_, b)| differ(*b, *f)))?;
    Some(findings((base, gone.1), (fixed, new.1)))
}

/// How the definitions of one name differ. What compilands of one image disagree on, and what counts
/// lambdas or closures, is changed only where each image has a definition more than the other that is
/// laid out so: one of the former is one of the latter now.
fn disagreement(
    (base, before): (&Types, &[(String, u32)]),
    (fixed, after): (&Types, &[(String, u32)]),
) -> Option<Vec<Finding>> {
    let mut left: Vec<(u32, u64)> = after
        .iter()
        .map(|(_, index)| (*index, fixed.layout_hash(*index)))
        .collect();
    let mut gone = Vec::new();
    for (_, index) in before {
        let layout = base.layout_hash(*index);
        let is_same = |(other, hash): &(u32, u64)| {
            *hash == layout && findings((base, *index), (fixed, *other)).is_empty()
        };
        match left.iter().position(is_same) {
            Some(at) => {
                left.swap_remove(at);
            }
            None => gone.push(*index),
        }
    }
    left.sort_unstable();
    let (gone, (new, _)) = (*gone.first()?, *left.first()?);
    Some(findings((base, gone), (fixed, new)))
}

/// How two definitions differ.
pub(super) fn findings((base, b): (&Types, u32), (fixed, f): (&Types, u32)) -> Vec<Finding> {
    let mut found = Vec::new();
    if base.layout_hash(b) != fixed.layout_hash(f) {
        let size = |size: Option<u32>| size.map_or("?".into(), |size| size.to_string());
        let (before, after) = (size(base.size(b)), size(fixed.size(f)));
        let sizes = (before != after).then(|| format!("{before} bytes before, {after} after"));
        let part = difference(&base.parts(b), &fixed.parts(f));
        let evidence: Vec<String> = part.into_iter().chain(sizes).collect();
        found.push(("HP031", LAYOUT, evidence.join("; ")));
    }
    // A further value is none that unchanged code knows, and another name means nothing to it.
    let values = fixed.enumerators(f);
    let stays = |(name, value): &(String, Vec<u8>)| {
        let same = values.iter().find(|(other, _)| other == name);
        same.or_else(|| values.iter().find(|(_, other)| other == value))
            .is_some_and(|(_, other)| other == value)
    };
    let lost = base.enumerators(b).into_iter().find(|old| !stays(old));
    if let Some((name, _)) = lost {
        let what = match values.iter().any(|(other, _)| *other == name) {
            true => "has another value",
            false => "is gone",
        };
        found.push(("HP031", "the values", format!("{name} {what}")));
    }
    let (before, after) = (base.virtual_functions(b), fixed.virtual_functions(f));
    if let Some(evidence) = virtual_functions_differ(&before, &after) {
        found.push(("HP027", "the virtual functions", evidence));
    }
    found
}

/// The first virtual function that one side does not have in the same place of the table.
fn virtual_functions_differ(
    before: &[VirtualFunction],
    after: &[VirtualFunction],
) -> Option<String> {
    let place = |function: &VirtualFunction| match function.offset {
        Some(offset) => format!("at {offset:#x}"),
        None => "in place of an inherited one".to_owned(),
    };
    let of = |list: &[VirtualFunction], name: &str| {
        list.iter().find(|other| other.name == name).map(place)
    };
    let gone = before.iter().find(|function| !after.contains(function));
    let new = after.iter().find(|function| !before.contains(function));
    let name = &gone.or(new)?.name;
    let side = |place: Option<String>| place.unwrap_or_else(|| "none".to_owned());
    Some(format!(
        "{name}: {} before, {} after",
        side(of(before, name)),
        side(of(after, name))
    ))
}

#[cfg(test)]
mod tests {
    use super::{made_by, parent};

    #[test]
    fn templates_of_types() {
        assert_eq!(made_by("Buffer<16>"), Some("Buffer"));
        assert_eq!(made_by("Buffer<16>::Entry"), None);
        assert_eq!(made_by("Buffer"), None);
        let option = "enum2$<core::option::Option<ref$<u8> > >";
        assert_eq!(made_by(option), Some("core::option::Option"));
        assert_eq!(
            made_by("enum2$<core::option::Option<ref$<u8> > >::Some"),
            None
        );
        assert_eq!(made_by("enum2$<shop::State>"), None);
    }

    #[test]
    fn blocks_name_the_function_they_belong_to() {
        assert_eq!(parent("`f'::`1'::dtor$0"), Some("f"));
        let lambda = "`f'::`2'::<lambda_2>::operator()";
        assert_eq!(parent(lambda), None);
        assert_eq!(parent(&format!("`{lambda}'::`1'::catch$3")), Some(lambda));
        assert_eq!(parent("`anonymous namespace'::f"), None);
    }
}
