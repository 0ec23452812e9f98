//! One function: its bytes, verbatim, and what each pointing operand should reach.

use hpbuild_differ::decode::{
    Body, Code as Stretch, Derived, Field, ReferenceKind, decode, derived, is_compared,
    is_kept_or_indexed,
};
use hpbuild_differ::image::{FunctionKind, Image};
use hpbuild_differ::jumps_in;
use hpbuild_differ::meaning::{Target as Meaning, is_read_only, resolve};
use hpbuild_differ::pe::Pe;
use hpbuild_metadata::{Base, Fixed, FunctionId, Machine, Rva, Side};

use super::code::Operand;
use super::constants::Span;
use super::{Extraction, Source};
use crate::piece::{How, Piece, PieceId, Place, Reference, Room, Target};
use crate::refusal::Code;

/// `winnt.h`.
const IMAGE_GUARD_CF_FUNCTION_TABLE_PRESENT: u32 = 0x400;

/// Code starts at multiples of this, as compilers align it.
const CODE_ALIGN: u32 = 16;

/// The bytes of a function and of what its unwind entries cover behind them.
pub(super) struct Extent {
    pub(super) rva: Rva<Fixed>,
    pub(super) size: u32,
}

impl Extent {
    /// Bytes from the start of the function, where `rva` lies in it.
    pub(super) fn offset_of(&self, rva: Rva<Fixed>) -> Option<u32> {
        rva.checked_sub(self.rva)
            .filter(|offset| *offset < self.size)
    }
}

/// The extent of a function: as far as its record or its unwind entries say, and not into the
/// next function.
pub(super) fn extent(image: &Image<Fixed>, id: FunctionId<Fixed>) -> Extent {
    let function = image.function(id);
    let next = image
        .functions
        .get(id.index() + 1)
        .map_or(u32::MAX, |next| next.rva.get());
    let end = function.rva.get().saturating_add(function.size);
    let covered = image
        .pe
        .runtime_function_at(function.rva)
        .filter(|entry| entry.begin == function.rva && entry.end.get() <= next)
        .map_or(end, |entry| entry.end.get().max(end));
    Extent {
        rva: function.rva,
        size: covered - function.rva.get(),
    }
}

impl Extraction<'_> {
    /// Makes the piece of a function.
    pub(super) fn function(&mut self, id: FunctionId<Fixed>, piece: PieceId) -> Piece {
        let image = &self.diff.fixed;
        let name = match self.replaced.get(&id) {
            Some(base) => {
                let sides = ((&self.diff.base, *base), (image, id));
                self.diff.pairing.shown_names(sides.0, sides.1).1
            }
            None => image.display_name(id),
        };
        let extent = extent(image, id);
        let bytes = image.pe.bytes(extent.rva, extent.size).unwrap_or_default();
        if bytes.is_empty() {
            self.refuse(
                Code::NotUnderstood,
                &name,
                None,
                "its bytes are not in the file",
            );
        }
        if let Some(place) = image.runtime.rewritten_in(extent.rva, extent.size) {
            let message = "the C runtime fills in an address at the start (a runtime pseudo \
                           relocation), and would not fill in a copy";
            let offset = place.checked_sub(extent.rva);
            self.refuse(Code::NotUnderstood, &name, offset, message);
        }
        let relocated = match image.pe.machine {
            Machine::X64 => image.pe.relocations_in(extent.rva, extent.size),
            Machine::Arm64 => &[],
        };
        let mut body = Body::default();
        let code = Stretch {
            bytes,
            rva: extent.rva,
            image_base: image.pe.image_base,
            relocated,
            jumps: jumps_in(&image.table_jumps, extent.rva, extent.size),
        };
        decode(image.pe.machine, code, &mut body);
        let mut walk = FunctionWalk {
            id,
            piece,
            name: &name,
            extent: &extent,
            spans: self.spans(id, &body),
            references: Vec::new(),
            index_of: vec![None; body.instructions.len()],
        };
        self.check_relocations(&walk, &body);
        if let Some(end) = image.references_of(id).last().filter(|it| it.length == 0) {
            let message = "it runs on into the function behind it";
            self.refuse(Code::NotUnderstood, &name, Some(end.offset), message);
        }
        let image_base = self.image_base_target(&walk, &body);
        if image_base == Target::PatchImageBase {
            self.check_image_base_uses(&walk, &body, bytes);
        }
        for derived in derived(image.pe.machine, code, &body) {
            self.check_derived(&walk, &derived);
        }
        for (index, instruction) in body.instructions.iter().enumerate() {
            let Some(reference) = instruction.reference else {
                continue;
            };
            let operand = Operand {
                offset: instruction.offset,
                length: instruction.length,
                reference,
                image_base,
            };
            if let Some(target) = self.operand(&walk, &operand) {
                walk.index_of[index] = Some(walk.references.len() as u32);
                walk.references.push(Reference {
                    offset: instruction.offset,
                    how: How::Instruction {
                        length: instruction.length,
                        kind: reference.kind,
                        field: reference.field,
                    },
                    target,
                });
            }
        }
        let page_links: Vec<_> = body
            .page_links
            .iter()
            .filter_map(|link| {
                let at = |index: u32| walk.index_of.get(index as usize).copied().flatten();
                Some((at(link.user)?, at(link.page)?))
            })
            .collect();
        let mut references = walk.references;
        self.tables_within(id, &extent, &mut references);
        references.sort_by_key(|reference| reference.offset);
        debug_assert!(page_links_hold(&references, &page_links));
        self.unwind_of(id, piece, &extent);
        Piece {
            name: name.into(),
            origin: None,
            room: Room::Code,
            align: CODE_ALIGN,
            bytes: bytes.to_vec(),
            zeros: 0,
            references,
            page_links,
        }
    }

    /// Every virtual address in the code must be an operand that was understood.
    fn check_relocations(&mut self, walk: &FunctionWalk<'_>, body: &Body<Fixed>) {
        let image = &self.diff.fixed;
        for place in image.pe.relocations_in(walk.extent.rva, walk.extent.size) {
            let offset = place.get() - walk.extent.rva.get();
            let known = body.instructions.iter().any(|instruction| {
                matches!(instruction.reference.map(|reference| reference.field),
                    Some(Field::Absolute { at }) if instruction.offset + u32::from(at) == offset)
            });
            let in_table = image.switch_tables.iter().any(|table| {
                let end = u64::from(table.table.get())
                    + u64::from(table.entry.size) * u64::from(table.count);
                table.entry.absolute && table.table <= *place && u64::from(place.get()) < end
            });
            if !known && !in_table {
                self.refuse(
                    Code::NotUnderstood,
                    walk.name,
                    Some(offset),
                    "a virtual address in code that is no operand",
                );
            }
        }
    }

    /// What is reached through the address of something else must lie as far from it in the patch.
    /// Writable data stays in the base, where `check_neighbours` looks at it; constants are copied
    /// one by one. An address right behind an array is its end, wherever the array is; but MSVC may mean
    /// the constant that stands there, unless the address is only compared (`meaning/ends.rs`).
    fn check_derived(&mut self, walk: &FunctionWalk<'_>, derived: &Derived<Fixed>) {
        let image = &self.diff.fixed;
        let (from, target) = (resolve(image, derived.from), resolve(image, derived.target));
        let is_one = match (from, target) {
            (Meaning::Data { id: from, .. }, Meaning::Data { id: target, .. })
                if from == target =>
            {
                true
            }
            (Meaning::Data { id, .. }, _) if derived.kind == ReferenceKind::Address => {
                let symbol = image.data_symbol(id);
                let end = symbol.rva.checked_add(symbol.size);
                let code = image.code_of(walk.id);
                let is_end = symbol.sized_by_type && end == Some(derived.target);
                let (machine, at) = (image.pe.machine, 4 * derived.instruction);
                let is_walked =
                    || !image.may_be_of_msvc(walk.id) && is_kept_or_indexed(machine, code, at);
                is_end && (is_compared(machine, code, at) || is_walked())
            }
            (Meaning::Function { id: from, .. }, Meaning::Function { id: target, .. }) => {
                from == target
            }
            _ => false,
        };
        let is_one = is_one || walk.are_together(derived.from, derived.target);
        if !is_one && is_read_only(image, derived.from) {
            let offset = Some(4 * derived.instruction);
            let message = "a constant reached through the address of its neighbour";
            self.refuse(Code::Neighbour, walk.name, offset, message);
        }
    }

    /// Jump tables that stand between the instructions of the function.
    fn tables_within(
        &mut self,
        id: FunctionId<Fixed>,
        extent: &Extent,
        references: &mut Vec<Reference>,
    ) {
        let image = &self.diff.fixed;
        for (index, table) in image.switch_tables.iter().enumerate() {
            let Some(start) = extent.offset_of(table.table) else {
                continue;
            };
            let own = |rva: Rva<Fixed>| extent.offset_of(rva);
            // Distances within the function stay as they are.
            if !table.entry.absolute && own(table.base).is_some() {
                continue;
            }
            if let Some(entries) = self.table_entries(index, &image.display_name(id)) {
                references.extend(entries.into_iter().map(|entry| Reference {
                    offset: start + entry.offset,
                    ..entry
                }));
            }
        }
    }
}

/// A function being walked.
pub(super) struct FunctionWalk<'a> {
    pub(super) id: FunctionId<Fixed>,
    pub(super) piece: PieceId,
    pub(super) name: &'a str,
    pub(super) extent: &'a Extent,
    /// Constants without a name whose addresses it takes.
    pub(super) spans: Vec<Span>,
    references: Vec<Reference>,
    index_of: Vec<Option<u32>>,
}

impl FunctionWalk<'_> {
    /// Whether two places lie in the same copy of constants.
    fn are_together(&self, one: Rva<Fixed>, other: Rva<Fixed>) -> bool {
        let mut spans = self.spans.iter();
        spans.any(|span| span.holds(one) && span.holds(other))
    }
}

/// Sorting did not move what page links count: references come in address order already, and
/// tables have no page links (x64 has none at all).
fn page_links_hold(references: &[Reference], links: &[(u32, u32)]) -> bool {
    links.iter().all(|(user, page)| {
        references.get(*user as usize).is_some()
            && references
                .get(*page as usize)
                .is_some_and(|page| page.target == Target::OfUsers)
    })
}

impl Extraction<'_> {
    /// Where a call, branch or pointer to a function goes.
    ///
    /// `kind` tells a transfer of control, for which the patch's own copy is best, from a pointer,
    /// which must be the base's so that it compares equal to the base's own.
    pub(super) fn function_target(
        &mut self,
        id: FunctionId<Fixed>,
        offset: u32,
        kind: ReferenceKind,
    ) -> Result<Target, (Code, String)> {
        let image = &self.diff.fixed;
        let id = match offset {
            0 => image.behind_trampoline(id),
            _ => id,
        };
        let function = image.function(id);
        let piece = |this: &mut Self| {
            let piece = this.piece_of(Source::Function(id));
            Ok(Target::Piece(Place::new(piece, offset.into())))
        };
        // A cold part belongs to one function; that of the base would jump back into the base.
        if function.kind == FunctionKind::Separated || offset != 0 {
            return piece(self);
        }
        let is_transfer = matches!(
            kind,
            ReferenceKind::Call | ReferenceKind::Jump | ReferenceKind::ConditionalJump
        );
        if is_transfer && self.replaced.contains_key(&id) {
            return piece(self);
        }
        if let Some(base) = self.diff.pairing.base_function(id) {
            return Ok(Target::Base(self.diff.base.function(base).rva));
        }
        if self.diff.comparison.added.contains(&id) {
            return piece(self);
        }
        Err((
            Code::NotInBase,
            format!("{} has no counterpart in the base", image.display_name(id)),
        ))
    }

    /// As [`Self::function_target`], where the address may be called through a pointer: where the base
    /// checks such calls, it must allow this one.
    pub(super) fn pointer_to_function(
        &mut self,
        id: FunctionId<Fixed>,
        offset: u32,
    ) -> Result<Target, (Code, String)> {
        let found = self.function_target(id, offset, ReferenceKind::Address)?;
        let image = &self.diff.fixed;
        let is_new = |place: Rva<Base>| {
            is_guarded(&image.pe, image.function(id).rva) == Some(true)
                && is_guarded(&self.diff.base.pe, place) == Some(false)
        };
        match found {
            Target::Base(place) if is_new(place) => {
                let name = image.display_name(id);
                let message = format!("{name} is in no guard table of the base");
                Err((Code::GuardTarget, message))
            }
            _ => Ok(found),
        }
    }
}

/// Whether an image's guard table allows calls to `rva` through pointers; `None` where it has no table.
fn is_guarded<S: Side>(pe: &Pe<S>, rva: Rva<S>) -> Option<bool> {
    let config = pe.load_config.as_ref()?;
    let has_table = config.guard_flags & IMAGE_GUARD_CF_FUNCTION_TABLE_PRESENT != 0;
    has_table.then(|| config.guard_functions.binary_search(&rva).is_ok())
}
