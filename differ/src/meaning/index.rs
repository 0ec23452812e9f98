//! Tables that an index counts into from another number than zero.
//!
//! MSVC takes what is subtracted from an index off the RVA of the table:
//!
//! ```text
//!     lea   rdx, [__ImageBase]
//!     mov   eax, [rdx+rax*4+digits-0C0h]     ; digits[c - '0']
//! ```
//!
//! At that RVA stands something else, as a rule the middle of what lies before the table. Whether an
//! index starts at zero nobody tells, so both may be meant.

use hpbuild_metadata::{Base, DataId, Fixed, FunctionId, Rva, Side};

use super::cut::Operand;
use super::{Comparer, Target, resolve};
use crate::decode::{Field, Reference, ReferenceKind, index_scale};
use crate::image::Image;

/// How far before a table such an RVA is expected, in bytes.
const REACH: u32 = 4096;

/// The data into which an index may count that an operand of `function` adds to an RVA, other than
/// what stands at that RVA; `offset` is that of the instruction in the function. Nothing where the
/// operand adds none, and where what stands at the RVA is certainly meant: its start, or a place in the
/// first entry of an array.
pub fn counted_from<S: Side>(
    image: &Image<S>,
    function: FunctionId<S>,
    offset: u32,
    reference: Reference<S>,
) -> impl Iterator<Item = DataId<S>> + '_ {
    let rva = reference.target;
    let is_relative = matches!(reference.field, Field::ImageRelative { .. });
    let scale = (is_relative && reference.kind == ReferenceKind::Address)
        .then(|| index_scale(image.pe.machine, image.code_of(function), offset))
        .flatten()
        .filter(|_| !is_meant(image, function, rva));
    let distance = move |of: Rva<S>| of.get() - rva.get();
    scale.into_iter().flat_map(move |scale| {
        let first = image.data.partition_point(|symbol| symbol.rva <= rva);
        let behind = image.data[first..].iter().enumerate();
        let near = behind.take_while(move |(_, it)| distance(it.rva) <= REACH);
        let tables = near.filter(move |(_, it)| distance(it.rva).is_multiple_of(scale));
        tables.map(move |(index, _)| DataId::new(first + index))
    })
}

/// Whether an index that is added to `rva` certainly counts into what stands there.
fn is_meant<S: Side>(image: &Image<S>, function: FunctionId<S>, rva: Rva<S>) -> bool {
    match resolve(image, rva) {
        Target::Data { id, offset } => {
            let symbol = image.data_symbol(id);
            let entry = || image.types.entry_size(symbol.type_index);
            offset == 0 || entry().is_some_and(|entry| offset < entry)
        }
        // Tables of the function itself.
        Target::Function { id, .. } => id == function,
        Target::Anonymous(_) | Target::Outside => false,
        Target::ImageBase(offset) => offset == 0,
        Target::Import(_) | Target::JumpTable(_) => true,
    }
}

impl Comparer<'_> {
    /// Data that changed into which two operands may count from somewhere else.
    pub(crate) fn changed_behind(
        &self,
        base: &Operand<Base>,
        fixed: &Operand<Fixed>,
    ) -> Option<DataId<Base>> {
        let (b, f) = (base.reference.target, fixed.reference.target);
        let mut tables = counted_from(self.base, base.function, base.offset, base.reference);
        tables.find(|id| {
            let distance = self.base.data_symbol(*id).rva.get() - b.get();
            let Some(place) = f.checked_add(distance) else {
                return false;
            };
            match self.pairing.fixed_data(*id) {
                Some(partner) => {
                    self.fixed.data_symbol(partner).rva == place && !self.data_same(*id)
                }
                None => self
                    .fixed
                    .data
                    .binary_search_by_key(&place, |it| it.rva)
                    .is_ok(),
            }
        })
    }
}
