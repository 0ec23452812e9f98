//! Rules about data; here those about initial values.

use hpbuild_metadata::{Base, DataId, Fixed, Rva, Side};

use super::{
    Case, Refusal, destructors, enumerators, guards, held, lists, nameless, nameless_types,
    renamed_types, rights, state, tables, types, unknown_types, variables,
};
use crate::decode::ReferenceKind;
use crate::image::{DataSymbol, Image};
use crate::meaning::{Difference, Meaning, Target, is_read_only, resolve};

pub(super) fn judge(case: &Case<'_>) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    initial_values(case, &mut refusals);
    nameless::judge(case, &mut refusals);
    lists::judge(case, &mut refusals);
    destructors::judge(case, &mut refusals);
    tables::judge(case, &mut refusals);
    held::judge(case, &mut refusals);
    state::judge(case, &mut refusals);
    rights::judge(case, &mut refusals);
    guards::judge(case, &mut refusals);
    types::judge(case, &mut refusals);
    nameless_types::judge(case, &mut refusals);
    renamed_types::judge(case, &mut refusals);
    unknown_types::judge(case, &mut refusals);
    enumerators::judge(case, &mut refusals);
    variables::judge(case, &mut refusals);
    refusals
}

/// Paired writable variables whose initial values differ, pointers compared by meaning.
fn initial_values(case: &Case<'_>, refusals: &mut Vec<Refusal>) {
    let (base, fixed) = (case.comparer.base, case.comparer.fixed);
    let mut last = None;
    for (index, symbol) in base.data.iter().enumerate() {
        // Of several names of one address the first one with something to say stands for all, and
        // names of sections say nothing.
        let id = DataId::new(index);
        if last == Some(symbol.rva) || !base.telling_names(id).any(|name| name == id) {
            continue;
        }
        let Some(partner) = case.comparer.pairing.fixed_data(id) else {
            continue;
        };
        let partner = fixed.data_symbol(partner);
        // What each thread starts with is compared as a whole, with the rest of its block.
        if symbol.thread_local || is_read_only(base, symbol.rva) {
            continue;
        }
        let found = size_differs(case, symbol, partner).or_else(|| {
            let evidence = initial_value_differs(case, symbol, partner)?;
            let message = format!("the initial value of {} changed", symbol.display());
            Some((message, evidence))
        });
        // Few get here: what names tell is asked last, as none of them is in any cache.
        if let Some((message, evidence)) = found
            && !is_set_elsewhere(base, symbol)
            && !same_type_descriptor(case, symbol, partner)
        {
            last = Some(symbol.rva);
            let name = symbol.name.to_string();
            refusals.push(Refusal::new("HP030", name, message, evidence));
        }
    }
}

/// Whether the loader or the linker gives a variable its value, or the start of the C runtime.
fn is_set_elsewhere(base: &Image<Base>, symbol: &DataSymbol<Base>) -> bool {
    let linkage = symbol.decorated.as_deref().unwrap_or(&symbol.name);
    base.pe.import_at(symbol.rva).is_some()
        || crate::names::is_set_at_start(&symbol.name)
        || crate::names::is_linker_made(linkage, symbol.type_index != 0)
}

/// Whether both are type descriptors of one type (`??_R0`: two pointers, the second of which the
/// runtime sets, and the name of the type), whose name holds a hash of the source.
fn same_type_descriptor(
    case: &Case<'_>,
    base: &DataSymbol<Base>,
    fixed: &DataSymbol<Fixed>,
) -> bool {
    fn name<S: Side>(image: &Image<S>, symbol: &DataSymbol<S>) -> Option<String> {
        let linkage = symbol.decorated.as_deref().unwrap_or_default();
        let is_descriptor =
            linkage.starts_with("??_R0") || symbol.name.ends_with("`RTTI Type Descriptor'");
        is_descriptor.then_some(())?;
        let name = image.pe.bytes_from(symbol.rva).get(16..)?;
        let name = &name[..name.iter().position(|byte| *byte == 0)?];
        crate::names::without_generated_parts(std::str::from_utf8(name).ok()?)
    }
    let names = (
        name(case.comparer.base, base),
        name(case.comparer.fixed, fixed),
    );
    names.0.is_some() && names.0 == names.1
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

/// What to say of a variable that has another size, and what shows it.
fn size_differs(
    case: &Case<'_>,
    base: &DataSymbol<Base>,
    fixed: &DataSymbol<Fixed>,
) -> Option<(String, String)> {
    let (before, after) = (base.size, fixed.size);
    let is_typed = base.sized_by_type && fixed.sized_by_type;
    // Without a type there is as much room as the object gave.
    let is_given = base.compiland.is_some() && fixed.compiland.is_some();
    let is_untyped = !base.sized_by_type && !fixed.sized_by_type;
    let differs = is_typed && before != after || is_given && is_untyped && after > before;
    if !differs {
        return None;
    }
    let types = (&case.comparer.base.types, &case.comparer.fixed.types);
    let indexes = (base.type_index, fixed.type_index);
    let are_arrays = types.0.is_array(indexes.0) && types.1.is_array(indexes.1);
    let what = match (is_typed, are_arrays) {
        (true, true) => "the array",
        (true, false) => "the variable",
        (false, _) => "the room of",
    };
    let verb = if after > before { "grew" } else { "shrank" };
    let message = format!(
        "{what} {} {verb} from {before} to {after} bytes",
        base.display()
    );
    let entry = |size: Option<u32>| size.filter(|size| are_arrays && *size > 0);
    let entries = (
        entry(types.0.entry_size(indexes.0)),
        entry(types.1.entry_size(indexes.1)),
    );
    let evidence = match entries {
        (Some(b), Some(f)) if b == f => {
            format!("{} entries before, {} after", before / b, after / f)
        }
        (Some(b), Some(f)) => format!("entries of {b} bytes before, of {f} after"),
        _ => format!(
            "rva {} of the base, {} of the fixed image",
            base.rva, fixed.rva
        ),
    };
    Some((message, evidence))
}

fn initial_value_differs(
    case: &Case<'_>,
    base: &DataSymbol<Base>,
    fixed: &DataSymbol<Fixed>,
) -> Option<String> {
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
                (Some(before), Some(after)) => !leads_to_same(case, before, after),
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

/// Whether two pointers lead to the same place. That the named data behind them has other contents is
/// a finding of its own.
pub(super) fn leads_to_same(case: &Case<'_>, before: Rva<Base>, after: Rva<Fixed>) -> bool {
    match case.comparer.compare(before, after, ReferenceKind::Address) {
        Meaning::Same => true,
        Meaning::Different(Difference::DataContent) => are_partners(case, before, after),
        _ => false,
    }
}

/// Whether two addresses are the same place of what is the same data by its name.
fn are_partners(case: &Case<'_>, before: Rva<Base>, after: Rva<Fixed>) -> bool {
    let (base, fixed) = (case.comparer.base, case.comparer.fixed);
    match (resolve(base, before), resolve(fixed, after)) {
        (Target::Data { id: b, offset: at }, Target::Data { id: f, offset: of }) => {
            let partner = case.comparer.base_data_of(f);
            let is_it = |it: DataId<Base>| base.data_symbol(it).rva == base.data_symbol(b).rva;
            at == of && partner.is_some_and(is_it)
        }
        _ => false,
    }
}
