//! Pairs of bodies to verdicts.
//!
//! Two bodies are the same when they have the same bytes outside the fields of their references,
//! and every reference means the same. Only bodies that fail this are decoded again, to be
//! aligned instruction by instruction and explained: see `explain`.

pub(crate) mod location;
mod owner;
mod seen;

use std::borrow::Cow;

use hpbuild_metadata::{Base, DataId, Fixed, FunctionId, Rva, Side};
use rayon::prelude::*;
use serde::Serialize;

use crate::explain::{self, Explanation};
use crate::handling;
use crate::image::Image;
use crate::meaning::{Comparer, DataChange, Difference, Meaning, Operand};
use crate::pair::{Pairing, Tier, stable_name};

use location::{PairLines, kind_of_reference};
use seen::Seen;

/// Why a function counts as changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Other instructions.
    Code,
    /// The same instructions with another immediate or displacement.
    Immediate,
    /// A string with other contents.
    String,
    /// A constant with another value.
    Literal,
    /// Calls or takes the address of another function.
    CallTarget,
    /// Reaches other data.
    DataTarget,
    /// Reaches read-only data whose contents changed.
    DataContent,
    /// A jump table with other entries.
    JumpTable,
    /// Only numbers of source lines changed.
    LineNumber,
    /// How the function is left by an exception: unwind data, clean-ups, what is caught.
    ExceptionData,
}

/// A changed body.
#[derive(Clone, Debug)]
pub struct Changed {
    /// The body in the base.
    pub base: FunctionId<Base>,
    /// The body in the fixed image.
    pub fixed: FunctionId<Fixed>,
    /// How sure the pair is.
    pub tier: Tier,
    /// Why it counts as changed; sorted, not empty.
    pub kinds: Vec<Kind>,
    /// What exactly changed.
    pub explanation: Explanation,
    /// Cold parts and funclets of the function that changed; each is in the list, too.
    pub parts: Vec<FunctionId<Base>>,
    /// Whether this is a cold part or a funclet whose function is replaced as a whole, because
    /// nobody enters a function by such a part. Then the function is in the list, too.
    pub in_owner: bool,
}

impl Changed {
    /// Whether nothing but numbers of source lines changed.
    pub fn is_line_number_only(&self) -> bool {
        self.kinds == [Kind::LineNumber]
    }
}

/// A reference that could not be explained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unknown {
    /// The body in the base.
    pub base: FunctionId<Base>,
    /// The body in the fixed image.
    pub fixed: FunctionId<Fixed>,
    /// Bytes from the function's start to the instruction.
    pub offset: u32,
    /// What is not known.
    pub doubt: Doubt,
}

/// What is not known of a reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// What it leads to.
    Meaning,
    /// How far the constants without a name reach that it leads to. What stands beside them differs.
    Extent(Rva<Base>),
    /// Whether an index that is added to it counts into these data, which stand behind it and differ.
    Index(DataId<Base>),
}

/// What comparing two images found. Every list is in address order of the base, or of the fixed
/// image for what the base does not have.
#[derive(Debug)]
pub struct Comparison {
    /// Pairs of bodies that mean the same.
    pub same: u32,
    /// How many of them stand at another address.
    pub moved: u32,
    /// Bodies that changed.
    pub changed: Vec<Changed>,
    /// Fixed bodies that no base body matches.
    pub added: Vec<FunctionId<Fixed>>,
    /// Base bodies that no fixed body matches.
    pub removed: Vec<FunctionId<Base>>,
    /// Base bodies that have namesakes in the fixed image and could not be told apart.
    pub unmatched_base: Vec<FunctionId<Base>>,
    /// Fixed bodies that have namesakes in the base and could not be told apart.
    pub unmatched_fixed: Vec<FunctionId<Fixed>>,
    /// Named read-only data whose contents differ.
    pub data: Vec<DataChange>,
    /// References that could not be explained.
    pub unknown: Vec<Unknown>,
}

/// What looking at one pair found.
enum Verdict {
    Same,
    Changed(Box<Changed>),
}

/// Compares all pairs of bodies in parallel.
pub fn compare(comparer: &Comparer<'_>) -> Comparison {
    let pairing = comparer.pairing;
    let results: Vec<(Verdict, Vec<Unknown>)> = pairing
        .bodies()
        .par_iter()
        .with_min_len(32)
        .map_init(Seen::default, |seen, &(base, fixed, tier)| {
            compare_pair(comparer, seen, (base, fixed), tier)
        })
        .collect();
    let (mut changed, mut unknown) = (Vec::new(), Vec::new());
    let (mut same, mut moved) = (0, 0);
    for ((verdict, doubts), &(base, fixed, _)) in results.into_iter().zip(pairing.bodies()) {
        unknown.extend(doubts);
        match verdict {
            Verdict::Same => {
                same += 1;
                let here = comparer.base.function(base).rva.get();
                moved += u32::from(here != comparer.fixed.function(fixed).rva.get());
            }
            Verdict::Changed(change) => changed.push(*change),
        }
    }
    same -= owner::replace_owners(comparer, &mut changed);
    let leftover = Leftover::new(comparer.base, comparer.fixed, pairing);
    Comparison {
        same,
        moved,
        changed,
        added: leftover.added,
        removed: leftover.removed,
        unmatched_base: leftover.unmatched_base,
        unmatched_fixed: leftover.unmatched_fixed,
        data: changed_data(comparer),
        unknown,
    }
}

fn compare_pair(
    comparer: &Comparer<'_>,
    seen: &mut Seen,
    (base, fixed): (FunctionId<Base>, FunctionId<Fixed>),
    tier: Tier,
) -> (Verdict, Vec<Unknown>) {
    let mut unknown = Vec::new();
    let mut kinds = references_differ(comparer, seen, (base, fixed), &mut unknown);
    let mut handling = Vec::new();
    // Unwind data follows the code: where that changed, so did this, and nobody needs to be told.
    if let Some(kinds) = &mut kinds {
        let differences = handling::differences(comparer, base, fixed);
        if !differences.understood {
            unknown.push(Unknown {
                base,
                fixed,
                offset: 0,
                doubt: Doubt::Meaning,
            });
        }
        handling = differences.found;
        kinds.extend((!handling.is_empty()).then_some(Kind::ExceptionData));
        if kinds.is_empty() {
            return (Verdict::Same, unknown);
        }
    }
    let mut explanation = explain::explain(comparer, base, fixed);
    explanation.add_handling(comparer, &handling);
    let mut kinds = kinds.unwrap_or_else(|| explanation.kinds.clone());
    if kinds.is_empty() {
        // The bodies differ, and alignment found nothing: say so rather than nothing.
        kinds.push(Kind::Code);
    }
    kinds.sort_unstable();
    kinds.dedup();
    // A function that changed goes into the patch with all that it may reach, whatever ends where.
    if kinds.iter().any(|kind| *kind != Kind::LineNumber) {
        unknown.retain(|it| !matches!(it.doubt, Doubt::Extent(_)));
    }
    (
        Verdict::Changed(Box::new(Changed {
            base,
            fixed,
            tier,
            kinds,
            explanation,
            parts: Vec::new(),
            in_owner: false,
        })),
        unknown,
    )
}

/// The ways in which references of two otherwise equal bodies differ, or `None` where the bodies
/// are not otherwise equal.
fn references_differ(
    comparer: &Comparer<'_>,
    seen: &mut Seen,
    (base, fixed): (FunctionId<Base>, FunctionId<Fixed>),
    unknown: &mut Vec<Unknown>,
) -> Option<Vec<Kind>> {
    let (b_code, f_code) = (comparer.base.code_of(base), comparer.fixed.code_of(fixed));
    let (b_refs, f_refs) = (
        comparer.base.references_of(base),
        comparer.fixed.references_of(fixed),
    );
    if b_code.len() != f_code.len() || b_refs.len() != f_refs.len() {
        return None;
    }
    let mut at = 0;
    for (b, f) in b_refs.iter().zip(f_refs) {
        let same_shape = (b.offset, b.length, b.reference.field, b.reference.kind)
            == (f.offset, f.length, f.reference.field, f.reference.kind);
        let start = b.offset as usize;
        let end = start + usize::from(b.length);
        if !same_shape || b_code.get(at..start)? != f_code.get(at..start)? {
            return None;
        }
        let mut b_instruction = [0; 16];
        let mut f_instruction = [0; 16];
        let length = usize::from(b.length);
        b_instruction[..length].copy_from_slice(b_code.get(start..end)?);
        f_instruction[..length].copy_from_slice(f_code.get(start..end)?);
        b.reference.field.clear(&mut b_instruction[..length]);
        f.reference.field.clear(&mut f_instruction[..length]);
        if b_instruction != f_instruction {
            return None;
        }
        at = end;
    }
    if b_code.get(at..)? != f_code.get(at..)? {
        return None;
    }
    let mut kinds = Vec::new();
    let lines = PairLines::new(comparer, base, fixed);
    for (b, f) in b_refs.iter().zip(f_refs) {
        if b.completed_elsewhere && f.completed_elsewhere {
            continue;
        }
        let places = (b.reference.target, f.reference.target);
        let operands = (Operand::new(base, b), Operand::new(fixed, f));
        let meaning = seen.compare(comparer, places, b.reference.kind);
        let meaning = comparer.compare_operands(&operands.0, &operands.1, meaning);
        // What has other contents counts, whether or not an array ends where it starts: which of
        // the two is meant nobody knows. Where other things follow the array, it is its end.
        let other_neighbour = matches!(
            meaning,
            Meaning::Different(Difference::Data | Difference::Call) | Meaning::Unknown
        );
        match meaning {
            Meaning::Same if comparer.may_end_changed(base, b) => kinds.push(Kind::DataContent),
            Meaning::Same => {}
            _ if other_neighbour && comparer.both_end((base, b), (fixed, f)) => {}
            _ if comparer.both_made_of_start((base, b), (fixed, f)) => {}
            Meaning::Different(difference) => {
                let (base, fixed) = (&operands.0, &operands.1);
                let kind = kind_of_reference(comparer, &lines, difference, base, fixed);
                kinds.push(kind);
            }
            Meaning::Unknown => unknown.push(Unknown {
                base,
                fixed,
                offset: b.offset,
                doubt: doubt(comparer, &operands),
            }),
        }
    }
    Some(kinds)
}

/// Whether two bodies, paired or not, are certain to do the same: cleanups and handlers of exceptions
/// aside.
pub(crate) fn are_alike(
    comparer: &Comparer<'_>,
    base: FunctionId<Base>,
    fixed: FunctionId<Fixed>,
) -> bool {
    let mut unknown = Vec::new();
    let kinds = references_differ(comparer, &mut Seen::default(), (base, fixed), &mut unknown);
    kinds.is_some_and(|kinds| kinds.is_empty()) && unknown.is_empty()
}

/// Why it is not known whether two operands mean the same.
fn doubt(comparer: &Comparer<'_>, operands: &(Operand<Base>, Operand<Fixed>)) -> Doubt {
    let (base, fixed) = operands;
    if comparer.has_open_ends(base, fixed) || comparer.changed_before(base, fixed).is_some() {
        return Doubt::Extent(base.reference.target);
    }
    match comparer.changed_behind(base, fixed) {
        Some(data) => Doubt::Index(data),
        None => Doubt::Meaning,
    }
}

/// The kind of change that a difference between references makes.
fn kind_of(difference: Difference) -> Kind {
    match difference {
        Difference::Call => Kind::CallTarget,
        Difference::Data => Kind::DataTarget,
        Difference::DataContent => Kind::DataContent,
        Difference::String => Kind::String,
        Difference::Literal => Kind::Literal,
        Difference::JumpTable => Kind::JumpTable,
    }
}

fn changed_data(comparer: &Comparer<'_>) -> Vec<DataChange> {
    let change = |index: usize| {
        let base = DataId::new(index);
        let fixed = comparer.pairing.fixed_data(base)?;
        // MSVC records jump tables as data without a name. They belong to those who reach them.
        let is_named = !comparer.base.data_symbol(base).name.is_empty();
        (is_named && !comparer.data_same(base)).then_some(DataChange { base, fixed })
    };
    (0..comparer.base.data.len()).filter_map(change).collect()
}

/// Bodies without a partner.
struct Leftover {
    added: Vec<FunctionId<Fixed>>,
    removed: Vec<FunctionId<Base>>,
    unmatched_base: Vec<FunctionId<Base>>,
    unmatched_fixed: Vec<FunctionId<Fixed>>,
}

impl Leftover {
    /// A body without a partner is new or gone when nothing of its name is left over on the other
    /// side; otherwise the two sides could not be told apart.
    fn new(base: &Image<Base>, fixed: &Image<Fixed>, pairing: &Pairing) -> Self {
        use rustc_hash::FxHashSet;
        let lonely_base: Vec<_> = base
            .function_ids()
            .filter(|id| pairing.fixed_functions(*id).next().is_none())
            // They mean what they lead to.
            .filter(|id| base.behind_trampoline(*id) == *id)
            .collect();
        let lonely_fixed: Vec<_> = fixed
            .function_ids()
            .filter(|id| pairing.base_functions(*id).next().is_none())
            .filter(|id| fixed.behind_trampoline(*id) == *id)
            .collect();
        let base_names: FxHashSet<_> = lonely_base
            .iter()
            .flat_map(|id| telling_names(base, *id))
            .collect();
        let fixed_names: FxHashSet<_> = lonely_fixed
            .iter()
            .flat_map(|id| telling_names(fixed, *id))
            .collect();
        let (unmatched_base, removed) = lonely_base
            .into_iter()
            .partition(|id| telling_names(base, *id).any(|name| fixed_names.contains(&name)));
        let (unmatched_fixed, added) = lonely_fixed
            .into_iter()
            .partition(|id| telling_names(fixed, *id).any(|name| base_names.contains(&name)));
        Self {
            added,
            removed,
            unmatched_base,
            unmatched_fixed,
        }
    }
}

/// A name without the parts that another build would number otherwise, and where the rest of such a
/// name says little by itself, the compiland.
type TellingName<'a> = (Cow<'a, str>, Option<&'a str>);

/// What the names of a function tell of which one it is. The same number for another part says
/// nothing, and which of several funclets of one name this was matters to nobody but their functions,
/// which changed.
fn telling_names<S: Side>(
    image: &Image<S>,
    id: FunctionId<S>,
) -> impl Iterator<Item = TellingName<'_>> {
    let compiland = image.function(id).compiland;
    let compiland = compiland.and_then(|it| image.compilands.get(it.index()));
    let names = image.procedures_of(id).iter().map(|it| &*it.name);
    names
        .filter(|name| {
            !crate::names::is_only_numbered(name) && !crate::pair::funclet::is_funclet(name)
        })
        .map(move |name| match stable_name(name) {
            Cow::Owned(stable) => (Cow::Owned(stable), compiland.map(|it| &*it.short_name)),
            whole => (whole, None),
        })
}
