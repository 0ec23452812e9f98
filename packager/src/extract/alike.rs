//! Functions that reach the same things at the same places of their bodies.

use std::collections::BTreeSet;

use hpbuild_differ::Diff;
use hpbuild_differ::compare::Kind;
use hpbuild_metadata::{Base, Fixed, FunctionId};

/// A function in both images.
pub(super) type Pair = (FunctionId<Base>, FunctionId<Fixed>);

/// The pairs whose code changed or reaches other data, so that places of one say nothing of the other.
pub(super) fn reshaped(diff: &Diff) -> BTreeSet<Pair> {
    let is_reshaped = |kind: &Kind| [Kind::Code, Kind::DataTarget].contains(kind);
    let changed = diff.comparison.changed.iter();
    let changed = changed.filter(|change| change.kinds.iter().any(is_reshaped));
    changed.map(|change| (change.base, change.fixed)).collect()
}

/// Whether both functions have operands of the same kinds at the same places.
pub(super) fn have_same_shape(diff: &Diff, (base, fixed): Pair) -> bool {
    let (b, f) = (
        diff.base.references_of(base),
        diff.fixed.references_of(fixed),
    );
    b.len() == f.len()
        && b.iter().zip(f).all(|(b, f)| {
            (b.offset, b.length, b.reference.kind, b.reference.field)
                == (f.offset, f.length, f.reference.kind, f.reference.field)
        })
}
