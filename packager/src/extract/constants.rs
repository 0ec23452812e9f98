//! Constants without a name: what a function reaches is copied in pieces that keep together what may
//! be one thing.
//!
//! Code may hold several addresses in one constant (its start, its end, an entry), and nothing tells
//! where such a constant ends. So whatever a function reaches that overlaps or touches goes into one
//! piece, in which everything stays as far apart as it was.

use hpbuild_differ::decode::{Body, ReferenceKind, is_compared};
use hpbuild_differ::meaning::whole_constants;
use hpbuild_metadata::{Fixed, FunctionId, Rva};

use super::code::Operand;
use super::function::FunctionWalk;
use super::{Extraction, Source};
use crate::piece::{How, Piece, PieceId, Place, Target};
use crate::refusal::Code;

/// The strictest alignment that vector instructions ask for.
const MAX_ALIGN: u32 = 64;
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

fn alignment(rva: Rva<Fixed>) -> u32 {
    1 << rva.get().trailing_zeros().min(MAX_ALIGN.trailing_zeros())
}

impl Extraction<'_> {
    /// The constants without a name whose addresses a function takes; sorted, apart from each other.
    pub(super) fn spans(&self, id: FunctionId<Fixed>, body: &Body<Fixed>) -> Vec<Span> {
        let span = |instruction: &hpbuild_differ::decode::Instruction<Fixed>| {
            let reference = instruction.reference?;
            if reference.kind != ReferenceKind::Address || !self.is_in_data(reference.target) {
                return None;
            }
            let offset = instruction.offset;
            let whole = self.comparer.constants_reached(id, offset, reference)?;
            let align = alignment(reference.target).max(alignment(whole.rva));
            Some(Span::new(whole.rva, whole.size, align))
        };
        let mut spans: Vec<Span> = body.instructions.iter().filter_map(span).collect();
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
        let ends = |span: &&Span| u64::from(rva.get()) == span.end();
        if let Some(span) = walk.spans.iter().find(holds).copied() {
            return Some(self.place_in_span(span, rva));
        }
        let span = *walk.spans.iter().find(ends)?;
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
        self.check_hidden(span.start, span.size);
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
        let align = alignment(rva).max(alignment(whole.rva));
        self.place_in_span(Span::new(whole.rva, whole.size, align), rva)
    }

    /// Makes the piece of constants.
    pub(super) fn constants(&mut self, span: Span, piece: PieceId) -> Piece {
        let mut made = self.data(span.start, span.size, piece);
        let lead = span.lead();
        made.align = made.align.max(span.align);
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
