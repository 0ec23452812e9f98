//! Addresses at which an array ends and something else may begin: which of the two is meant.

use std::ops::Range;

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
        if self.is_own_jump_table(walk.id, rva) {
            return self.place(walk, operand);
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
            None if self.is_all_that_leads_to(rva) => Ok(other),
            None => Err(end_of_array(&symbol.name, "what stands behind it")),
        }
    }

    /// Whether the only operand of a function that leads to `rva` is that of its jump table: code reads
    /// distances from there, and the first one leads into the function.
    fn is_own_jump_table(&self, id: FunctionId<Fixed>, rva: Rva<Fixed>) -> bool {
        let image = &self.diff.fixed;
        if image.relative_tables.binary_search(&rva).is_err() {
            return false;
        }
        let entry = image.pe.bytes(rva, 4).and_then(|it| it.first_chunk());
        let target = entry.and_then(|it| rva.get().checked_add_signed(i32::from_le_bytes(*it)));
        let own = target.and_then(|target| image.function_at(Rva::new(target)));
        let operands = image.references_of(id).iter();
        let here = operands.filter(|it| it.reference.target == rva && !it.completed_elsewhere);
        own == Some(id) && here.count() == 1
    }

    /// What a pointer in copied data should hold that leads to where an array ends; `None` where what
    /// stands there is meant. The end may be meant where the data lead into the array, too, as
    /// `leads_into` says: then both must be the same place of the patch or the base.
    pub(super) fn pointer_to_end(
        &mut self,
        rva: Rva<Fixed>,
        leads_into: impl Fn(Range<Rva<Fixed>>) -> bool,
    ) -> Option<Found> {
        let image = &self.diff.fixed;
        let array = data_before(image, rva)?;
        let symbol = image.data_symbol(array);
        if !image.types.is_array(symbol.type_index) || holds_text(image, rva) {
            return None;
        }
        let behind = match resolve(image, rva) {
            Meaning::Data { id, offset: 0 } => Some(id),
            Meaning::Anonymous(_) if is_read_only(image, rva) => None,
            Meaning::Outside => None,
            _ => return None,
        };
        if let Some(found) = self.array_with_what_follows(array, rva) {
            return Some(found);
        }
        if !leads_into(symbol.rva..rva) || behind.is_some_and(|id| self.is_for_one_pointer(id)) {
            return None;
        }
        let name_behind = match behind {
            Some(id) => image.data_symbol(id).display(),
            None => "the constant behind it".into(),
        };
        let end = match self.data_target(array, 0, ReferenceKind::Address, false) {
            Ok(Target::Base(start)) => match place_in_base(start, symbol.size) {
                Ok(Target::Base(end)) => end,
                other => return Some(other),
            },
            // Nothing but its end can be meant.
            Ok(Target::Piece(start)) if resolve(image, rva) == Meaning::Outside => {
                let offset = start.offset.saturating_add(symbol.size.into());
                return Some(Ok(Target::Piece(Place::new(start.piece, offset))));
            }
            Ok(_) => return Some(Err(end_of_array(&symbol.name, &name_behind))),
            Err(refused) => return Some(Err(refused)),
        };
        let is_there = match resolve(image, rva) {
            Meaning::Data { id, .. } => {
                let found = self.data_target(id, 0, ReferenceKind::Address, false);
                found == Ok(Target::Base(end))
            }
            Meaning::Anonymous(_) => self.stands_there(rva, end),
            _ => true,
        };
        Some(match is_there {
            true => Ok(Target::Base(end)),
            false => Err(end_of_array(&symbol.name, &name_behind)),
        })
    }

    /// Whether the data that begin at `rva`, in a section of their own, are led to from one place alone.
    /// No compiler makes a section to which nothing leads, and linkers drop it, so that the place means them.
    fn is_all_that_leads_to(&self, rva: Rva<Fixed>) -> bool {
        let image = &self.diff.fixed;
        let Meaning::Data { id, offset: 0 } = resolve(image, rva) else {
            return false;
        };
        let contribution = image.contribution_at(rva);
        contribution.is_some_and(|it| it.rva == rva) && self.is_for_one_pointer(id)
    }

    /// Whether data that only their source can name are reached once in the whole image. No compiler
    /// keeps what nothing leads to, so that one pointer is meant to lead there.
    fn is_for_one_pointer(&self, id: DataId<Fixed>) -> bool {
        let image = &self.diff.fixed;
        let reached = self.reached.get_or_init(|| {
            let functions = (0..image.functions.len()).map(FunctionId::new);
            let by_code = functions.flat_map(|id| image.references_of(id));
            let by_code = by_code.map(|placed| placed.reference.target);
            let pointers = image.pe.base_relocations.iter();
            let by_data = pointers.filter_map(|place| {
                let word = image.pe.bytes(*place, 8)?.first_chunk()?;
                image.pe.rva_of(u64::from_le_bytes(*word))
            });
            let mut reached: Vec<_> = by_code.chain(by_data).collect();
            reached.sort_unstable();
            reached
        });
        let symbol = image.data_symbol(id);
        let Some(end) = symbol.rva.checked_add(symbol.size.max(1)) else {
            return false;
        };
        let first = reached.partition_point(|rva| *rva < symbol.rva);
        let count = reached.partition_point(|rva| *rva < end) - first;
        !symbol.global && count == 1
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
        if has_pointers {
            let meaning = self.comparer.compare(place, rva, ReferenceKind::Address);
            return meaning == hpbuild_differ::meaning::Meaning::Same;
        }
        let bytes = fixed.pe.bytes(rva, extent.size);
        bytes.is_some() && bytes == base.pe.bytes(place, extent.size)
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
