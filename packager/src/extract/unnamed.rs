//! Writable data without a name: where unchanged code reaches it in the base.
//!
//! Compilers split variables and leave the parts without symbols. A function that means the same
//! in both images, or differs in numbers alone, reaches the same data at the same place of its
//! body, so each such place says
//! which address of the base belongs to which address of the fixed image. Where they disagree,
//! nothing is known.

use hpbuild_differ::Diff;
use hpbuild_differ::compare::Kind;
use hpbuild_differ::meaning::{Comparer, Target, is_read_only};
use hpbuild_metadata::{Base, Fixed, FunctionId, Rva};
use rustc_hash::{FxHashMap, FxHashSet};

/// For each address of unnamed writable data in the fixed image that unchanged code reaches its
/// address in the base; `None` where two functions disagree.
pub(super) type Unnamed = FxHashMap<Rva<Fixed>, Option<Rva<Base>>>;

/// Looks at every pair of functions of the same shape that reach the same data.
pub(super) fn unnamed(diff: &Diff, comparer: &Comparer<'_>) -> Unnamed {
    let changed: FxHashSet<(FunctionId<Base>, FunctionId<Fixed>)> = diff
        .comparison
        .changed
        .iter()
        .filter(|change| {
            let moved = [Kind::Code, Kind::DataTarget];
            change.kinds.iter().any(|kind| moved.contains(kind))
        })
        .map(|change| (change.base, change.fixed))
        .collect();
    let mut found = Unnamed::default();
    for &(base, fixed, _) in diff.pairing.bodies() {
        if changed.contains(&(base, fixed)) {
            continue;
        }
        let (b, f) = (
            diff.base.references_of(base),
            diff.fixed.references_of(fixed),
        );
        let same_shape = b.len() == f.len()
            && b.iter().zip(f).all(|(b, f)| {
                (b.offset, b.length, b.reference.kind, b.reference.field)
                    == (f.offset, f.length, f.reference.kind, f.reference.field)
            });
        if !same_shape {
            continue;
        }
        for (b, f) in b.iter().zip(f) {
            let (b, f) = (b.reference.target, f.reference.target);
            let is_unnamed = !is_read_only(&diff.fixed, f)
                && !is_read_only(&diff.base, b)
                && matches!(comparer.in_fixed(f), Target::Anonymous(_))
                && matches!(comparer.in_base(b), Target::Anonymous(_));
            if is_unnamed {
                found
                    .entry(f)
                    .and_modify(|known| *known = known.filter(|known| *known == b))
                    .or_insert(Some(b));
            }
        }
    }
    found
}
