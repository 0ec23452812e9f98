//! Ends of arrays. Code that walks an array may hold the address behind its last element, and
//! whatever comes next stands at that address: nothing in an image says which of the two is meant.

use hpbuild_metadata::{Base, DataId, Fixed, FunctionId, Rva, Side};

use super::Comparer;
use crate::decode::ReferenceKind;
use crate::image::Image;

/// The data that ends at `rva` where `function` reaches into it, too, so that `rva` may be meant as
/// its end. The size must be certain.
pub fn ends_at<S: Side>(
    image: &Image<S>,
    function: FunctionId<S>,
    rva: Rva<S>,
) -> Option<DataId<S>> {
    let last = image
        .data
        .partition_point(|symbol| symbol.rva < rva)
        .checked_sub(1)?;
    let start = image.data[last].rva;
    let ends_here = |id: &DataId<S>| {
        let symbol = image.data_symbol(*id);
        symbol.sized_by_type && symbol.rva.checked_add(symbol.size) == Some(rva)
    };
    let found = image.data_aliases(DataId::new(last)).find(ends_here)?;
    let is_inside = |target: Rva<S>| start <= target && target < rva;
    let mut references = image.references_of(function).iter();
    let is_reached = references.any(|placed| {
        placed.reference.kind != ReferenceKind::Page && is_inside(placed.reference.target)
    });
    is_reached.then_some(found)
}

impl Comparer<'_> {
    /// Whether both addresses may be meant as the end of the same array.
    pub(crate) fn both_end(
        &self,
        (base, from): (FunctionId<Base>, Rva<Base>),
        (fixed, to): (FunctionId<Fixed>, Rva<Fixed>),
    ) -> bool {
        let ends = (
            ends_at(self.base, base, from),
            ends_at(self.fixed, fixed, to),
        );
        matches!(ends, (Some(b), Some(f)) if self.paired_data(b, f).is_some())
    }
}
