//! Constants without a name: what a function reaches is copied in pieces that keep together what may
//! be one thing.
//!
//! Code may hold several addresses in one constant (its start, its end, an entry), and nothing tells
//! where such a constant ends. So whatever a function reaches that overlaps or touches goes into one
//! piece, in which everything stays as far apart as it was. Arrays with names go in as well where the
//! address behind one is that of what follows, and both are copied anyway: in one piece it is right
//! whichever is meant. What need not be copied stays in the base, for programs compare addresses.

use hpbuild_differ::decode::{Body, ReferenceKind, is_compared};
use hpbuild_differ::image::{Contribution, Image};
use hpbuild_differ::meaning::{Target as Meaning, ends_at, is_read_only, resolve, whole_constants};
use hpbuild_metadata::{DataId, Fixed, FunctionId, Rva};

use super::code::Operand;
use super::function::FunctionWalk;
use super::{Extraction, Source};
use crate::piece::{How, Origin, Piece, PieceId, Place, Target};
use crate::refusal::Code;

/// More bytes than constants have of which a function takes an address.
const MAX_SPAN: u32 = 1 << 24;

/// Constants that lie side by side, and how they must be aligned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Span {
    start: Rva<Fixed>,
    /// Bytes.
    size: u32,
    /// A power of two. The place in the piece of what is aligned in the image is aligned as well.
    align: u32,
}

impl Span {
    fn new(start: Rva<Fixed>, size: u32, align: u32) -> Self {
        Self { start, size, align }
    }

    fn end(&self) -> u64 {
        u64::from(self.start.get()) + u64::from(self.size)
    }

    pub(super) fn ends_at(&self, rva: Rva<Fixed>) -> bool {
        u64::from(rva.get()) == self.end()
    }

    pub(super) fn holds(&self, rva: Rva<Fixed>) -> bool {
        self.start <= rva && u64::from(rva.get()) < self.end()
    }

    /// Zeros in front of the constants, which keep them aligned.
    fn lead(&self) -> u32 {
        self.start.get() % self.align
    }

    /// Where in the piece a place is that lies in the span or right behind it.
    fn offset_of(&self, rva: Rva<Fixed>) -> Option<i64> {
        let at = rva.checked_sub(self.start)?;
        (at <= self.size).then(|| i64::from(self.lead()) + i64::from(at))
    }
}

/// How data at `rva` must be aligned in a copy: as much as it happens to be, up to what its section asked
/// for, or what vector instructions ask for where that is not known. Sections of a patch begin at pages.
pub(super) fn alignment(image: &Image<Fixed>, rva: Rva<Fixed>) -> u32 {
    const VECTOR: u32 = 64;
    const PAGE: u32 = 4096;
    let contribution = image.contribution_at(rva);
    let section = contribution.and_then(Contribution::alignment);
    let most = section.unwrap_or(VECTOR).min(PAGE);
    1 << rva.get().trailing_zeros().min(most.trailing_zeros())
}

impl Extraction<'_> {
    /// The constants without a name whose addresses a function takes, and arrays beside them or beside
    /// each other; sorted, apart from each other.
    pub(super) fn spans(&self, id: FunctionId<Fixed>, body: &Body<Fixed>) -> Vec<Span> {
        let mut spans: Vec<Span> = Vec::new();
        for instruction in &body.instructions {
            let Some(reference) = instruction.reference else {
                continue;
            };
            let rva = reference.target;
            if reference.kind != ReferenceKind::Address || !self.is_in_data(rva) {
                continue;
            }
            let offset = instruction.offset;
            let whole = self.comparer.constants_reached(id, offset, reference);
            if let Some(whole) = whole {
                let image = &self.diff.fixed;
                let align = alignment(image, rva).max(alignment(image, whole.rva));
                spans.push(Span::new(whole.rva, whole.size, align));
            }
            spans.extend(self.arrays_that_meet(id, rva, whole.is_some()));
        }
        spans.sort_by_key(|span| span.start);
        let mut joined: Vec<Span> = Vec::new();
        for span in spans {
            match joined.last_mut() {
                Some(last) if u64::from(span.start.get()) <= last.end() => {
                    let end = last.end().max(span.end());
                    let size = end - u64::from(last.start.get());
                    last.size = u32::try_from(size).unwrap_or(u32::MAX);
                    last.align = last.align.max(span.align);
                }
                _ => joined.push(span),
            }
        }
        joined
    }

    /// Whether data are new or not what the base has, so that constants are copied.
    pub(super) fn is_changed(&self, id: DataId<Fixed>) -> bool {
        let base = self.comparer.base_data_of(id);
        base.is_none_or(|base| !self.comparer.data_same(base))
    }

    /// Whether data are a variable that the base does not have, and that all have in one place.
    fn is_new_variable(&self, id: DataId<Fixed>) -> bool {
        let is_of_threads = self.diff.fixed.data_symbol(id).thread_local;
        !is_of_threads && self.comparer.base_data_of(id).is_none()
    }

    /// An array of constants that is copied, and the constants which begin where it ends, in one piece,
    /// where these are copied as well: what an address between the two means.
    pub(super) fn array_with_what_follows(
        &mut self,
        array: DataId<Fixed>,
        end: Rva<Fixed>,
    ) -> Option<Result<Target, (Code, String)>> {
        let image = &self.diff.fixed;
        let (behind, size) = match resolve(image, end) {
            Meaning::Data { id, offset: 0 } if self.is_changed(id) => {
                let symbol = image.data_symbol(id);
                (symbol.rva, symbol.size)
            }
            Meaning::Anonymous(_) => {
                let whole = whole_constants(image, end)?;
                (whole.rva, whole.size)
            }
            _ => return None,
        };
        let start = image.data_symbol(array).rva;
        let are_copied = self.is_changed(array)
            && is_read_only(image, start)
            && is_read_only(image, end)
            && behind >= end
            && self.is_in_data(end);
        let size = behind.checked_add(size)?.checked_sub(start)?;
        let align = alignment(image, start).max(alignment(image, behind));
        are_copied.then(|| self.place_in_span(Span::new(start, size, align), end))
    }

    /// The array that ends at `rva` and is reached by the function, too, and what has a name and starts
    /// there, where both are copied, as new variables are: each for itself they would be parted.
    fn arrays_that_meet(
        &self,
        id: FunctionId<Fixed>,
        rva: Rva<Fixed>,
        is_copied_behind: bool,
    ) -> Vec<Span> {
        let image = &self.diff.fixed;
        let span = |id: DataId<Fixed>| {
            let symbol = image.data_symbol(id);
            let is_whole = symbol.sized_by_type && symbol.type_index != 0;
            is_whole.then(|| Span::new(symbol.rva, symbol.size, alignment(image, symbol.rva)))
        };
        let is_copied = |id: DataId<Fixed>| match is_read_only(image, image.data_symbol(id).rva) {
            true => self.is_changed(id),
            false => self.is_new_variable(id),
        };
        let Some(array) = ends_at(image, id, rva) else {
            return Vec::new();
        };
        let spans = match resolve(image, rva) {
            Meaning::Anonymous(_) if is_copied_behind && is_copied(array) => vec![span(array)],
            Meaning::Data { id, offset: 0 } if is_copied(array) && is_copied(id) => {
                vec![span(array), span(id)]
            }
            _ => Vec::new(),
        };
        // Where one has no certain size, neither is moved.
        spans.into_iter().collect::<Option<_>>().unwrap_or_default()
    }

    /// The place of an address in the copies, where that is known to lie inside what is copied in one
    /// piece: then it does not matter what is meant by it.
    pub(super) fn place_inside_span(
        &mut self,
        walk: &FunctionWalk<'_>,
        rva: Rva<Fixed>,
    ) -> Option<Result<Target, (Code, String)>> {
        let mut spans = walk.spans.iter();
        let span = *spans.find(|span| span.start < rva && span.holds(rva))?;
        Some(self.place_in_span(span, rva))
    }

    /// The place of an address in the copies of the constants that the function reaches. An address
    /// that is only compared, right behind such constants, is their end.
    pub(super) fn place_in_spans(
        &mut self,
        walk: &FunctionWalk<'_>,
        operand: &Operand,
    ) -> Option<Result<Target, (Code, String)>> {
        let rva = operand.reference.target;
        if operand.reference.kind != ReferenceKind::Address {
            return None;
        }
        let holds = |span: &&Span| span.holds(rva);
        let ending = walk.spans.iter().find(|span| span.ends_at(rva)).copied();
        if self.comparer.ends_constants(walk.id, operand.reference) {
            return ending.map(|span| self.place_in_span(span, rva));
        }
        if let Some(span) = walk.spans.iter().find(holds).copied() {
            return Some(self.place_in_span(span, rva));
        }
        let span = ending?;
        let image = &self.diff.fixed;
        let code = image.code_of(walk.id);
        if !is_compared(image.pe.machine, code, operand.offset) {
            return None;
        }
        let mut others = image.references_of(walk.id).iter();
        let is_used = others.any(|it| it.reference.target == rva && it.offset != operand.offset);
        if is_used {
            let message =
                "the end of a constant or what stands behind it, which lie apart in the patch";
            return Some(Err((Code::Neighbour, message.to_string())));
        }
        Some(self.place_in_span(span, rva))
    }

    fn place_in_span(&mut self, span: Span, rva: Rva<Fixed>) -> Result<Target, (Code, String)> {
        let offset = span.offset_of(rva).filter(|_| span.size <= MAX_SPAN);
        let offset = offset.ok_or_else(|| {
            let message = format!("constants of {:#x} bytes", span.size);
            (Code::DataNotUnderstood, message)
        })?;
        if is_read_only(&self.diff.fixed, span.start) {
            self.check_hidden(span.start, span.size);
        }
        let piece = self.piece_of(Source::Constants(span));
        Ok(Target::Piece(Place::new(piece, offset)))
    }

    /// The constants at `rva`, which something else than code leads to.
    pub(super) fn constants_at(&mut self, rva: Rva<Fixed>) -> Result<Target, (Code, String)> {
        let whole = whole_constants(&self.diff.fixed, rva);
        let whole = whole.filter(|_| self.is_in_data(rva));
        let whole = whole.ok_or_else(|| {
            let message = "a constant of unknown extent".to_string();
            (Code::NotUnderstood, message)
        })?;
        let image = &self.diff.fixed;
        let align = alignment(image, rva).max(alignment(image, whole.rva));
        self.place_in_span(Span::new(whole.rva, whole.size, align), rva)
    }

    /// Makes the piece of constants.
    pub(super) fn constants(&mut self, span: Span, piece: PieceId) -> Piece {
        let lead = span.lead();
        let mut made = self.data(span.start, span.size, lead, piece);
        made.align = made.align.max(span.align);
        made.origin = made.origin.map(|origin| Origin { lead, ..origin });
        if lead > 0 {
            made.bytes
                .splice(0..0, std::iter::repeat_n(0, lead as usize));
            for reference in &mut made.references {
                reference.offset += lead;
                if let How::Difference { from, .. } = &mut reference.how
                    && from.piece == piece
                {
                    from.offset += i64::from(lead);
                }
            }
        }
        made
    }

    fn is_in_data(&self, rva: Rva<Fixed>) -> bool {
        let section = self.diff.fixed.pe.section_at(rva);
        section.is_some_and(|section| !section.is_code())
    }
}
