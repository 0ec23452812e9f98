//! Addresses at which an array ends and something else may begin: which of the two is meant.

use hpbuild_differ::decode::{Back, ReferenceKind, reaches_back};
use hpbuild_differ::meaning::{
    Target as Meaning, anonymous_extent, data_before, ends_at, holds_text, is_read_only, resolve,
    starts_with_text,
};
use hpbuild_metadata::{Base, DataId, Fixed, FunctionId, Rva};

use super::Extraction;
use super::code::{Found, Operand};
use super::function::FunctionWalk;
use crate::piece::{Place, Target};
use crate::refusal::Code;

impl Extraction<'_> {
    /// An address that is taken. Where it may be meant as the end of an array, both what stands
    /// there and that end must be the same place of the patch or the base.
    pub(super) fn address(&mut self, walk: &FunctionWalk<'_>, operand: &Operand) -> Found {
        let rva = operand.reference.target;
        let kind = ReferenceKind::Address;
        if let Some(found) = self.place_inside_span(walk, rva) {
            return found;
        }
        let image = &self.diff.fixed;
        let is_own = walk.spans.iter().any(|span| span.ends_at(rva));
        if is_own && self.comparer.ends_constants(walk.id, operand.reference) {
            return self.place(walk, operand);
        }
        let is_start = match resolve(image, rva) {
            Meaning::Data { id, offset: 0 } => {
                self.check_before(walk, operand, id)?;
                true
            }
            Meaning::Anonymous(_) | Meaning::Outside => false,
            _ => return self.place(walk, operand),
        };
        let array = match ends_at(image, walk.id, rva) {
            Some(array) => array,
            None => match self.array_reached_by_end(walk, operand, is_start)? {
                Some(array) => array,
                None => return self.place(walk, operand),
            },
        };
        let symbol = image.data_symbol(array);
        let start = self.target(symbol.rva, kind, operand)?;
        let end = match start {
            Target::Base(start) => place_in_base(start, symbol.size)?,
            Target::Piece(start) => {
                let offset = start.offset + i64::from(symbol.size);
                Target::Piece(Place::new(start.piece, offset))
            }
            _ => return self.target(rva, kind, operand),
        };
        if let Target::Base(place) = end
            && !is_start
            && self.stands_there(rva, place)
        {
            return Ok(end);
        }
        if !is_start && is_read_only(image, rva) {
            return Err(end_of_array(&symbol.name, "the constant behind it"));
        }
        let other = self.place(walk, operand)?;
        if other == end {
            return Ok(end);
        }
        // The base's own code shows which it is, where the two are apart there.
        match self.meant_in_base(walk.id, array, rva) {
            Some(true) => Ok(end),
            Some(false) => Ok(other),
            None => Err(end_of_array(&symbol.name, "what stands behind it")),
        }
    }

    /// Refuses where code reaches back, from the address that data have, to constants without a name which
    /// do not stand before them in the base, or do not stay there.
    fn check_before(
        &self,
        walk: &FunctionWalk<'_>,
        operand: &Operand,
        id: DataId<Fixed>,
    ) -> Result<(), (Code, String)> {
        let base = self.comparer.base_data_of(id);
        let kept = base.filter(|base| self.comparer.data_same(*base));
        // What is copied has nothing before it.
        let place = kept.map_or(Rva::new(0), |base| self.diff.base.data_symbol(base).rva);
        let (offset, reference) = (operand.offset, operand.reference);
        match self.comparer.same_before(walk.id, offset, reference, place) {
            true => Ok(()),
            false => {
                let name = &self.diff.fixed.data_symbol(id).name;
                Err(end_of_array("a constant without a name", name))
            }
        }
    }

    /// The array of constants that a function may reach from its end alone: it, or whom it hands the
    /// address to, may reach back from there.
    fn array_reached_by_end(
        &self,
        walk: &FunctionWalk<'_>,
        operand: &Operand,
        is_start: bool,
    ) -> Result<Option<DataId<Fixed>>, (Code, String)> {
        let image = &self.diff.fixed;
        let rva = operand.reference.target;
        let code = image.code_of(walk.id);
        let back = reaches_back(image.pe.machine, code, operand.offset);
        let changed = self.changed_array_before(rva).filter(|_| is_start);
        // What has a name is handed to others more often than the end of what lies before it, unless
        // that is the only way to there, and so are texts.
        match (back, changed) {
            (None, _) => return Ok(None),
            (Some(Back::Callee), _) if holds_text(image, rva) => return Ok(None),
            (Some(Back::Callee), Some(base)) if self.comparer.is_reached(base) => return Ok(None),
            (Some(_), Some(base)) => {
                let name = &self.diff.base.data_symbol(base).name;
                return Err(end_of_array(name, "what stands behind it"));
            }
            (Some(_), None) => {}
        }
        let is_reached = |id: &DataId<Fixed>| {
            let base = self.comparer.base_data_of(*id);
            base.is_none_or(|base| self.comparer.is_reached(base))
        };
        let is_text = back == Some(Back::Callee) && starts_with_text(image.pe.bytes_from(rva));
        let array = self.constants_before(rva);
        Ok(array.filter(|id| !is_text || !is_reached(id)))
    }

    /// The array of constants that ends at `rva`.
    fn constants_before(&self, rva: Rva<Fixed>) -> Option<DataId<Fixed>> {
        let image = &self.diff.fixed;
        data_before(image, rva).filter(|id| {
            let symbol = image.data_symbol(*id);
            image.types.is_array(symbol.type_index) && is_read_only(image, symbol.rva)
        })
    }

    /// The base's array of constants of which another one ends at `rva`. Code may walk it from its end.
    fn changed_array_before(&self, rva: Rva<Fixed>) -> Option<DataId<Base>> {
        let base = self.comparer.base_data_of(self.constants_before(rva)?)?;
        (!self.comparer.data_same(base)).then_some(base)
    }

    /// Whether what the fixed image has at `rva` without a name stands in the base at `place`.
    fn stands_there(&self, rva: Rva<Fixed>, place: Rva<Base>) -> bool {
        let (fixed, base) = (&self.diff.fixed, &self.diff.base);
        if !is_read_only(fixed, rva) || !is_read_only(base, place) {
            return false;
        }
        let Some(extent) = anonymous_extent(fixed, rva, ReferenceKind::Address) else {
            return false;
        };
        let has_pointers = !fixed.pe.relocations_in(rva, extent.size).is_empty()
            || !base.pe.relocations_in(place, extent.size).is_empty();
        let bytes = fixed.pe.bytes(rva, extent.size);
        !has_pointers && bytes.is_some() && bytes == base.pe.bytes(place, extent.size)
    }

    /// Whether the base's version of a function takes the address of the end of an array (`true`) or
    /// of the data that begins at `rva` in the fixed image (`false`), where it takes one of the two.
    fn meant_in_base(
        &self,
        function: FunctionId<Fixed>,
        array: DataId<Fixed>,
        rva: Rva<Fixed>,
    ) -> Option<bool> {
        let base = &self.diff.base;
        let function = self.diff.pairing.base_function(function)?;
        let array = base.data_symbol(self.comparer.base_data_of(array)?);
        let end = array.rva.checked_add(array.size)?;
        let next = self.diff.fixed.data_at(rva);
        let next = next.and_then(|next| self.comparer.base_data_of(next));
        let next = next.map(|next| base.data_symbol(next).rva);
        let takes = |place: Rva<Base>| {
            let mut references = base.references_of(function).iter();
            references.any(|it| {
                it.reference.target == place && it.reference.kind == ReferenceKind::Address
            })
        };
        match (takes(end), next.is_some_and(takes)) {
            (true, false) => Some(true),
            (false, true) => Some(false),
            _ => None,
        }
    }
}

fn end_of_array(name: &str, other: &str) -> (Code, String) {
    let name = hpbuild_differ::display_data(name);
    let message = format!("the end of {name} or {other}, which lie apart in the patch or the base");
    (Code::Neighbour, message)
}

pub(super) fn place_in_base(start: Rva<Base>, offset: u32) -> Found {
    let place = start.checked_add(offset);
    place
        .map(Target::Base)
        .ok_or_else(|| (Code::NotUnderstood, "an address outside the base".into()))
}
