//! The pointing operands of all functions.

use hpbuild_metadata::Side;

use crate::decode::Reference;

/// A pointing operand and the instruction it stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlacedReference<S: Side> {
    /// Bytes from the start of the function to the instruction.
    pub offset: u32,
    /// Bytes of the instruction; 0 behind the last one, where the code runs on into the function
    /// that follows.
    pub length: u8,
    /// Whether other instructions complete the address (Arm64 pages): then they stand for it.
    pub completed_elsewhere: bool,
    /// The operand.
    pub reference: Reference<S>,
}

/// The pointing operands of all functions of an image, as they were found: some functions at a
/// time, so that nothing is copied and nothing is there twice.
#[derive(Debug)]
pub(crate) struct References<S: Side> {
    /// For every [`References::TOGETHER`] functions all of theirs.
    pub(crate) chunks: Vec<Box<[PlacedReference<S>]>>,
    /// For each function where its own begin in those of its chunk.
    pub(crate) starts: Vec<u32>,
}

impl<S: Side> References<S> {
    /// How many functions have theirs in one piece of memory.
    pub(crate) const TOGETHER: usize = 64;

    /// Those of a function, in address order.
    pub(crate) fn of(&self, function: usize) -> &[PlacedReference<S>] {
        let chunk = &self.chunks[function / Self::TOGETHER];
        let start = self.starts[function] as usize;
        let next = function + 1;
        let is_last = next.is_multiple_of(Self::TOGETHER) || next == self.starts.len();
        let end = match is_last {
            true => chunk.len(),
            false => self.starts[next] as usize,
        };
        &chunk[start..end]
    }
}
