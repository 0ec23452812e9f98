//! Guards of static locals that are made when they are first reached.
//!
//! The Microsoft C++ ABI numbers them within their function: the first such variable has `$TSS0`, the
//! next one `$TSS1`, and without thread-safe statics each has a bit of one word. A variable more
//! in front of the others takes the guard of the first one, and so on. Guards pair by their numbers
//! all the same, so that patched code would find the new variable made already, and make an old one
//! again. Where compilers give guards no name at all, their order is all there is.
//!
//! So the variables of such a function have to be the same ones in the same order; more may come
//! behind them. In the Itanium ABI a guard is named after its variable, and nothing of this applies.

use std::collections::{BTreeMap, BTreeSet};

use hpbuild_metadata::{DataId, FunctionId, Rva, Side};

use super::{Case, Refusal};
use crate::image::{DataSymbol, Image};
use crate::meaning::{Target, is_read_only, resolve};

/// `CV_CFL_CXX`.
const CXX: u8 = 1;

/// Static locals that may have guards, and guards with names, by the function that declares them.
struct Statics<S: Side> {
    /// In address order, which is that of their declarations.
    variables: BTreeMap<String, Vec<DataId<S>>>,
    guarded: BTreeSet<String>,
}

impl<S: Side> Statics<S> {
    fn new(image: &Image<S>, home: impl Fn(DataId<S>) -> Option<String>) -> Self {
        let mut found = Statics {
            variables: BTreeMap::new(),
            guarded: BTreeSet::new(),
        };
        for (index, symbol) in image.data.iter().enumerate() {
            let id = DataId::new(index);
            if !is_guard(symbol) && !may_have_guard(image, symbol) {
                continue;
            }
            let Some(function) = home(id) else { continue };
            if is_guard(symbol) {
                found.guarded.insert(function);
            } else {
                found.variables.entry(function).or_default().push(id);
            }
        }
        found
    }
}

pub(super) fn judge(case: &Case<'_>, refusals: &mut Vec<Refusal>) {
    let (base, fixed) = (case.comparer.base, case.comparer.fixed);
    let pairing = case.comparer.pairing;
    let base_home = |id| home(base, id, pairing.base_home(id));
    let fixed_home = |id| home(fixed, id, pairing.fixed_home(id));
    // Whose variables patched code reaches, and whether it reaches something without a name as well.
    let mut asked = BTreeMap::new();
    for (before, after) in &case.redirected {
        ask(base, *before, base_home, &mut asked);
        ask(fixed, *after, fixed_home, &mut asked);
    }
    for after in &case.comparison.added {
        ask(fixed, *after, fixed_home, &mut asked);
    }
    if asked.is_empty() {
        return;
    }
    let (b, f) = (
        Statics::new(base, base_home),
        Statics::new(fixed, fixed_home),
    );
    for (function, is_nameless) in asked {
        if !is_nameless && !b.guarded.contains(&function) {
            continue;
        }
        let before = b.variables.get(&function).map_or(&[][..], Vec::as_slice);
        let after = f.variables.get(&function).map_or(&[][..], Vec::as_slice);
        let moved = (0..before.len()).find(|at| {
            let partner = pairing.fixed_data(before[*at]);
            partner != after.get(*at).copied()
        });
        if let Some(at) = moved {
            let symbol = base.data_symbol(before[at]);
            let shown = symbol.display();
            let message = format!(
                "the guard of {shown} is known by its number, and in the fixed image that is \
                 another variable's"
            );
            let evidence = format!(
                "rva {} of the base, the {} of {} static variables there, {} in the fixed image",
                symbol.rva,
                ordinal(at + 1),
                before.len(),
                after.len()
            );
            refusals.push(Refusal::new("HP028", &*symbol.name, message, evidence));
        }
    }
}

fn ordinal(number: usize) -> String {
    let ending = match (number % 10, number % 100) {
        (_, 11..=13) => "th",
        (1, _) => "st",
        (2, _) => "nd",
        (3, _) => "rd",
        _ => "th",
    };
    format!("{number}{ending}")
}

/// Adds the functions whose static locals or guards a body reaches.
fn ask<S: Side>(
    image: &Image<S>,
    body: FunctionId<S>,
    home: impl Fn(DataId<S>) -> Option<String>,
    asked: &mut BTreeMap<String, bool>,
) {
    let mut functions = BTreeSet::new();
    let mut is_nameless = false;
    let placed = image.references_of(body).iter();
    // A page alone is nothing of these, though something may stand at its start.
    for placed in placed.filter(|it| !it.completed_elsewhere) {
        match resolve(image, placed.reference.target) {
            Target::Data { id, .. } => functions.extend(home(id)),
            Target::Anonymous(rva) => is_nameless |= is_writable(image, rva),
            _ => {}
        }
    }
    for function in functions {
        *asked.entry(function).or_default() |= is_nameless;
    }
}

/// The function that declares a variable or guard of C++, as both images know it.
fn home<S: Side>(image: &Image<S>, id: DataId<S>, declared_in: Option<&str>) -> Option<String> {
    let symbol = image.data_symbol(id);
    let compiland = symbol.compiland;
    let compiland = compiland.and_then(|it| image.compilands.get(it.index()));
    let tool = compiland.and_then(|it| it.tool.as_ref());
    if tool.is_some_and(|tool| tool.language != CXX) {
        return None;
    }
    let linkage = symbol.decorated.as_deref().and_then(function_in);
    if let Some(function) = linkage {
        return Some(function.to_owned());
    }
    let place = compiland.map_or("", |it| &*it.place);
    declared_in.map(|function| format!("{place}\0{function}"))
}

/// The function in the linkage name of what it declares: `?h@S@@SAHH@Z` of
/// `?c@?1??h@S@@SAHH@Z@4HA`, and of `??_B?1??h@S@@SAHH@Z@51`.
fn function_in(linkage: &str) -> Option<&str> {
    let scope = match linkage.strip_prefix("??_B") {
        Some(rest) => rest,
        None => linkage.split_once("@?")?.1,
    };
    let function = &scope[scope.find("??")? + 1..];
    let end = function.rfind("@4").max(function.rfind("@5"))?;
    Some(&function[..end])
}

/// Whether this is a guard, or a word of them.
pub(super) fn is_guard<S: Side>(symbol: &DataSymbol<S>) -> bool {
    let linkage = symbol.decorated.as_deref().unwrap_or(&symbol.name);
    let linkage = linkage.strip_prefix('?').unwrap_or(linkage);
    let numbered = ["$TSS", "$S"]
        .iter()
        .find_map(|it| linkage.strip_prefix(it));
    linkage.starts_with("?_B")
        || numbered.is_some_and(|it| it.starts_with(|c: char| c.is_ascii_digit()))
}

/// Whether a variable may be made when it is first reached: before that it holds zeros.
fn may_have_guard<S: Side>(image: &Image<S>, symbol: &DataSymbol<S>) -> bool {
    let bytes = image.pe.bytes_from(symbol.rva);
    let value = &bytes[..bytes.len().min(symbol.size as usize)];
    let is_zero = value.iter().all(|byte| *byte == 0);
    !symbol.thread_local && is_writable(image, symbol.rva) && is_zero
}

fn is_writable<S: Side>(image: &Image<S>, rva: Rva<S>) -> bool {
    image.pe.section_at(rva).is_some() && !is_read_only(image, rva)
}

#[cfg(test)]
mod tests {
    use super::function_in;

    #[test]
    fn functions_in_linkage_names() {
        for (linkage, function) in [
            ("?c@?1??h@S@@SAHH@Z@4HA", Some("?h@S@@SAHH@Z")),
            ("?$TSS1@?1??h@S@@SAHH@Z@4HA", Some("?h@S@@SAHH@Z")),
            ("??_B?1??h@S@@SAHH@Z@51", Some("?h@S@@SAHH@Z")),
            ("?a@?1??f@@9@4HA", Some("?f@@9")),
            ("?limit@@3HA", None),
            ("??_7S@@6B@", None),
        ] {
            assert_eq!(function_in(linkage), function, "{linkage}");
        }
    }
}
