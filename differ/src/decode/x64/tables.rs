//! What stands between the instructions and is none: jump tables, and constants that are read.

use hpbuild_metadata::Side;
use iced_x86::{Decoder, DecoderOptions};

use super::super::{Body, Code, Instruction, JumpTable, ReferenceKind};
use super::image_base;

/// No instruction has more bytes.
const LONGEST: usize = 15;

/// Where in the code instructions read constants: the offset of each such instruction, and the
/// offset and the size of what it reads. Constants that were taken for instructions may be among
/// the readers.
pub(super) fn literals<S: Side>(code: Code<'_, S>, body: &Body<S>) -> Vec<(u32, usize, usize)> {
    let literal = |instruction: &Instruction<S>| {
        let reference = instruction.reference?;
        let ReferenceKind::Memory(size @ 1..) = reference.kind else {
            return None;
        };
        let start = reference.target.get().checked_sub(code.rva.get())? as usize;
        let end = start.checked_add(size.into())?;
        (end <= code.bytes.len()).then_some((instruction.offset, start, end))
    };
    body.instructions.iter().filter_map(literal).collect()
}

/// What stands between the instructions and is none.
#[derive(Default)]
pub(super) struct Tables {
    pub(super) found: image_base::Found,
    /// Start and end of each table, and the bytes of an entry; sorted, disjoint.
    spans: Vec<(usize, usize, usize)>,
}

impl Tables {
    /// Sets apart what instructions read that some way leads to, where no way leads into it.
    pub(super) fn add_literals<S: Side>(
        &mut self,
        code: Code<'_, S>,
        literals: &[(u32, usize, usize)],
    ) {
        let reached = &self.found.reached;
        let is_reached = |at: &usize| u32::try_from(*at).is_ok_and(|at| reached.contains(&at));
        let length = |at: usize| {
            let bytes = code.bytes.get(at..).unwrap_or_default();
            Decoder::new(64, bytes, DecoderOptions::NONE).decode().len()
        };
        let is_code = |start: usize, end: usize| {
            let before = start.saturating_sub(LONGEST)..start;
            (start..end).any(|at| is_reached(&at))
                || before.filter(is_reached).any(|at| at + length(at) > start)
        };
        let read = literals
            .iter()
            .filter(|(reader, start, end)| reached.contains(reader) && !is_code(*start, *end))
            .map(|(_, start, end)| (*start, *end, 8));
        self.spans.extend(read);
    }

    pub(super) fn set_apart<S: Side>(&mut self, code: Code<'_, S>, jumps: &[JumpTable<S>]) {
        for table in jumps {
            let start = table.table.get().wrapping_sub(code.rva.get()) as usize;
            if let Some(count @ 1..) = table.count {
                self.spans.push((start, start + 4 * count as usize, 4));
            }
        }
        for start in &self.found.indexes {
            self.spans.push((*start as usize, code.bytes.len(), 1));
        }
        self.spans.sort_unstable();
        // A table of indexes ends where anything else is known to be.
        let next: Vec<usize> = self.spans.iter().skip(1).map(|span| span.0).collect();
        let mut reached: Vec<u32> = self.found.reached.iter().copied().collect();
        reached.sort_unstable();
        for (index, span) in self.spans.iter_mut().enumerate() {
            let code_behind = reached.partition_point(|at| (*at as usize) <= span.0);
            let ends = [
                next.get(index).copied(),
                reached.get(code_behind).map(|at| *at as usize),
            ];
            span.1 = ends.into_iter().flatten().fold(span.1, usize::min);
        }
        self.spans.retain(|span| span.0 < span.1);
    }

    /// The table that begins at or behind `position`.
    pub(super) fn next(&self, position: usize) -> Option<(usize, usize, usize)> {
        let index = self.spans.partition_point(|span| span.1 <= position);
        self.spans.get(index).copied()
    }
}
