//! Changed functions whose types no record tells, or those of what a pointer without a name leads to:
//! nobody can say whether what they work on is laid out as before.

use hpbuild_metadata::{Base, Fixed, FunctionId, Side};
use rustc_hash::FxHashMap;

use super::{Case, Refusal, Severity};
use crate::decode::ReferenceKind;
use crate::image::{FunctionKind, Image, Procedure};
use crate::meaning::{Target, is_read_only, resolve};

/// Functions that a finding names.
const SHOWN: usize = 3;

/// `CV_CFL_MASM` (`cvconst.h`): assembly has no types.
const ASSEMBLY: u8 = 3;

/// One warning for all of them, as a build has types or has none, and one for pointers.
pub(super) fn judge(case: &Case<'_>, refusals: &mut Vec<Refusal>) {
    let (base, fixed) = (case.comparer.base, case.comparer.fixed);
    let mut told = (Told::default(), Told::default());
    let is_untyped = |(b, f): &(FunctionId<Base>, FunctionId<Fixed>)| {
        is_untyped(base, *b, &mut told.0) || is_untyped(fixed, *f, &mut told.1)
    };
    let (untyped, typed): (Vec<_>, Vec<_>) = case.redirected.iter().copied().partition(is_untyped);
    let mut add = |functions: &[(FunctionId<Base>, FunctionId<Fixed>)], message: &str| {
        let names: Vec<_> = functions.iter().map(|it| base.display_name(it.0)).collect();
        let Some(first) = names.first() else {
            return;
        };
        let shown = names.iter().take(SHOWN).cloned().collect::<Vec<_>>();
        let more = match names.len().saturating_sub(SHOWN) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let evidence = format!("{}{more}", shown.join(", "));
        let mut refusal = Refusal::new("HP031", first.clone(), message, evidence);
        refusal.severity = Severity::Warn;
        refusals.push(refusal);
    };
    let message = "the records of changed functions tell no types: whether layouts, parameters and \
                   virtual functions changed is not known";
    add(&untyped, message);
    let by_pointer = typed
        .into_iter()
        .filter(|(b, f)| reads_nameless_pointer(base, *b) && reads_nameless_pointer(fixed, *f));
    let message = "changed functions read pointers that no record names: whether what these lead to \
                   is laid out as before is not known";
    add(&by_pointer.collect::<Vec<_>>(), message);
}

/// Whether a function reads what may be a pointer from writable data without a name. Optimisers take
/// static structures apart and leave no record of the parts.
pub(super) fn reads_nameless_pointer<S: Side>(image: &Image<S>, id: FunctionId<S>) -> bool {
    const POINTER: ReferenceKind = ReferenceKind::Memory(8);
    image.references_of(id).iter().any(|placed| {
        let target = placed.reference.target;
        placed.reference.kind == POINTER
            && matches!(resolve(image, target), Target::Anonymous(_))
            && !is_read_only(image, target)
    })
}

/// Records of a variable within a function (`cvinfo.h`): S_REGISTER, S_BPREL32, S_REGREL32, S_LOCAL.
const VARIABLES: [u16; 4] = [0x1106, 0x110b, 0x1111, 0x113e];

/// The object files that tell of a variable of any function, as far as they were asked for.
type Told = FxHashMap<u32, bool>;

/// Whether an object file tells of a variable of any function.
fn tells<S: Side>(image: &Image<S>, compiland: u32, told: &mut Told) -> bool {
    let has_variables = || {
        let procedures = image.procedures.iter();
        let mut own = procedures.filter(|it| it.records.compiland == compiland);
        own.any(|it| has_variable(&image.records_of(it)))
    };
    *told.entry(compiland).or_insert_with(has_variables)
}

/// Whether symbol records, each behind its length and kind, are those of a variable.
fn has_variable(mut records: &[u8]) -> bool {
    while let Some((length, rest)) = records.split_first_chunk() {
        let length = usize::from(u16::from_le_bytes(*length));
        let kind = rest.first_chunk().map(|kind| u16::from_le_bytes(*kind));
        if kind.is_some_and(|kind| VARIABLES.contains(&kind)) {
            return true;
        }
        match rest.get(length..) {
            Some(next) => records = next,
            None => return false,
        }
    }
    false
}

fn is_untyped<S: Side>(image: &Image<S>, id: FunctionId<S>, told: &mut Told) -> bool {
    let function = image.function(id);
    let compiland = function
        .compiland
        .and_then(|id| image.compilands.get(id.index()));
    let tool = compiland.and_then(|it| it.tool.as_ref());
    let is_assembly = tool.is_some_and(|it| it.language == ASSEMBLY);
    if is_assembly || function.kind != FunctionKind::Procedure {
        return false;
    }
    // Tables of lines have functions with their types, and no parameters inside of them.
    let mut lacks_variables = |it: &Procedure| {
        let parts = image.types.parts(it.type_index);
        let has_parameters = parts.iter().any(|part| part.name.starts_with("parameter"));
        let has_records = !it.records.range.is_empty();
        has_parameters && has_records && !tells(image, it.records.compiland, told)
    };
    let procedures = image.procedures_of(id);
    procedures
        .iter()
        .all(|it| it.type_index == 0 || lacks_variables(it))
}
