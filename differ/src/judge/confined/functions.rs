//! Which functions have types that others than the function itself may work on.

use std::collections::BTreeSet;

use hpbuild_metadata::{FunctionId, Side};
use rustc_hash::{FxHashMap, FxHashSet};

use super::names::{Names, is_hash, is_static_local};
use crate::image::{FunctionKind, Image, Mention};
use crate::judge::local::Variable;
use crate::judge::types::parent;
use crate::meaning::{Target, resolve};
use crate::names::Functions;
use crate::records::SymbolRecords;
use crate::types::Marks;

/// How the variables begin that a coroutine of C++ has of its own (LLVM's `SemaCoroutine.cpp`,
/// `Coroutines`).
const OF_COROUTINES: [&str; 2] = ["__promise", "__coro"];

/// Records behind that of a variable that say where it is (`cvinfo.h`): `S_DEFRANGE_REGISTER` to
/// `S_DEFRANGE_REGISTER_REL`.
const IS_SOMEWHERE: std::ops::RangeInclusive<u16> = 0x1141..=0x1145;

/// Those of `names`, by their index, of whose types anything but their own bodies, `ids`, has
/// something; `None` where the records do not tell.
pub(super) fn spread<S: Side>(
    image: &Image<S>,
    names: &[String],
    ids: &[FunctionId<S>],
) -> Option<BTreeSet<u32>> {
    let functions = Functions::new(names);
    let mut marks = image.types.marks(&functions)?;
    if marks.is_opaque {
        return None;
    }
    let mut spread = std::mem::take(&mut marks.spread);
    let known = Names {
        functions: &functions,
        marks: &marks,
    };
    in_functions(image, names, ids, &known, &mut spread)?;
    in_data(image, names, &known, &mut spread)?;
    in_type_descriptors(image, &functions, &mut spread);
    let mut receivers = FxHashSet::default();
    for (function, id) in (0..).zip(ids) {
        let stays =
            is_own(image, *id, &marks, &mut receivers) && has_bodies(image, *id, &marks, function);
        if !stays {
            spread.insert(function);
        }
    }
    spread.extend(marks.pointed_to(&receivers));
    Some(spread)
}

/// Every function but the one itself, and parts of it.
fn in_functions<S: Side>(
    image: &Image<S>,
    names: &[String],
    ids: &[FunctionId<S>],
    known: &Names<'_>,
    spread: &mut BTreeSet<u32>,
) -> Option<()> {
    let own: FxHashMap<FunctionId<S>, u32> = ids.iter().copied().zip(0..).collect();
    let mut found = Vec::new();
    for id in image.function_ids() {
        let owner = image.owner_of(id).unwrap_or(id);
        for procedure in image.procedures_of(id) {
            let block_of = parent(&procedure.name);
            let block_of = block_of.and_then(|it| names.binary_search_by(|n| (**n).cmp(it)).ok());
            let part_of = own.get(&owner).copied();
            let part_of = part_of.or_else(|| u32::try_from(block_of?).ok());
            let decorated = procedure.decorated.as_deref();
            // Neither has it a record, then.
            if is_hash(&procedure.name) {
                return None;
            }
            known.functions.add_mentioned(&procedure.name, &mut found);
            if let Some(decorated) = decorated {
                known.functions.add_mentioned(decorated, &mut found);
            }
            known.add_of_arguments(&procedure.name, decorated, &mut found);
            let mentions = image.mentions_of(procedure);
            found.extend(mentions.filter_map(|it| known.marks.of_mention(*it)));
            let of_type = known.marks.of_type(procedure.type_index);
            found.retain(|it| Some(*it) != part_of);
            // What a function takes or returns outlives a call.
            spread.extend(found.drain(..).chain(of_type));
        }
    }
    Some(())
}

/// Variables and constants of such types, what has them in its name, and tables that are made for
/// them. A variable that the function declares itself has its name, and may be of any other type.
fn in_data<S: Side>(
    image: &Image<S>,
    names: &[String],
    known: &Names<'_>,
    spread: &mut BTreeSet<u32>,
) -> Option<()> {
    let mut found = Vec::new();
    for symbol in &image.data {
        spread.extend(known.marks.of_type(symbol.type_index));
        if is_hash(&symbol.name) {
            return None;
        }
        let decorated = symbol.decorated.as_deref();
        let all = [Some(&*symbol.name), decorated];
        for name in all.into_iter().flatten() {
            known.functions.add_mentioned(name, &mut found);
            let is_variable = |index: &u32| {
                symbol.type_index != 0 && is_static_local(name, &names[*index as usize])
            };
            spread.extend(found.drain(..).filter(|it| !is_variable(it)));
        }
        known.add_of_arguments(&symbol.name, decorated, spread);
    }
    Some(())
}

/// The names in the type descriptors of the Microsoft ABI, by which exceptions and casts know a type.
/// Where nobody else can name the type, linkers know no name of the descriptor.
fn in_type_descriptors<S: Side>(
    image: &Image<S>,
    functions: &Functions<'_>,
    spread: &mut BTreeSet<u32>,
) {
    const START: &[u8] = b".?A";
    let mut found = Vec::new();
    for section in image.pe.sections.iter().filter(|it| !it.is_code()) {
        let mut bytes = image.pe.bytes_from(section.rva);
        while let Some(at) = bytes.windows(START.len()).position(|it| it == START) {
            let name = &bytes[at..];
            let end = name.iter().position(|byte| *byte == 0);
            let (name, rest) = name.split_at(end.unwrap_or(name.len()));
            functions.add_mentioned(&String::from_utf8_lossy(name), &mut found);
            bytes = rest;
        }
    }
    spread.extend(found);
}

/// Whether a function's own records tell of no object of its types that is not its own: none that it
/// allocates, none that a variable leads to, and none among arguments of any type. Adds the types of the
/// pointers by which methods that are inlined into it get theirs: where such a pointer is in a register
/// or in memory, it may come from anywhere, as that to an object of the function's own need not be
/// anywhere. A function that takes the address of code without a name may be a coroutine, whose other
/// parts have none.
fn is_own<S: Side>(
    image: &Image<S>,
    id: FunctionId<S>,
    marks: &Marks,
    receivers: &mut FxHashSet<u32>,
) -> bool {
    let reaches_nameless = image.references_of(id).iter().any(|placed| {
        match resolve(image, placed.reference.target) {
            Target::Function { id: other, .. } => {
                image.function(other).kind == FunctionKind::Unnamed
            }
            _ => false,
        }
    });
    let mut has_records = false;
    let mut is_own = !reaches_nameless;
    for procedure in image.procedures_of(id) {
        is_own &= !image.types.is_variadic(procedure.type_index);
        let bytes = image.records_of(procedure);
        let mut records = SymbolRecords::new(&bytes);
        let mut is_receiver = false;
        for record in records.by_ref() {
            has_records = true;
            is_own &= !(is_receiver && IS_SOMEWHERE.contains(&record.kind.0));
            let Some(variable) = Variable::of(record.kind.0, record.data) else {
                continue;
            };
            is_receiver = false;
            let name = String::from_utf8_lossy(variable.name);
            is_own &= !OF_COROUTINES.iter().any(|it| name.starts_with(it));
            let mention = Mention {
                index: variable.ty,
                is_item: false,
            };
            if marks.of_mention(mention).is_none() {
                continue;
            }
            let is_pointer = image.types.is_pointer(variable.ty);
            if name == "this" {
                receivers.insert(variable.ty);
                is_receiver = marks.is_of_c(variable.ty);
            } else if is_pointer && !variable.is_parameter {
                is_own &= !marks.is_of_c(variable.ty);
            }
            is_own &= !variable.is_allocated;
        }
        is_own &= records.rest().is_empty();
    }
    is_own && has_records
}

/// Whether the code of all lambdas and closures of a function is inlined into it. Whose is nowhere
/// may have gone elsewhere with what the function handed out, and left no record there.
fn has_bodies<S: Side>(image: &Image<S>, id: FunctionId<S>, marks: &Marks, function: u32) -> bool {
    let own = marks.bodies.get(&function).into_iter().flatten();
    let mut missing: BTreeSet<&str> = own.map(String::as_str).collect();
    for procedure in image.procedures_of(id) {
        for item in image.inlined_into(procedure) {
            let name = image.types.item_name(item).unwrap_or_default();
            let name = name
                .split_once("closure$")
                .map_or(&*name, |_| name.split('<').next().unwrap_or(&name));
            missing.remove(name);
        }
    }
    missing.is_empty()
}
