//! A stretch of code as blocks, and the ways between them that the code shows.

use hpbuild_metadata::Side;

use super::effects::{self, Flow};
use super::switches::switches;
use crate::decode::{Body, Code};

/// More blocks than any function has that a person wrote; each costs a state of the registers.
const MAX_BLOCKS: usize = 1 << 16;

/// A run of instructions that is entered at its start and left at its end, as indexes.
pub(super) struct Block {
    pub(super) start: u32,
    pub(super) end: u32,
    /// How control leaves it.
    pub(super) flow: Flow,
    /// The block that its last instruction branches to.
    pub(super) target: Option<usize>,
    /// The blocks that its last instruction, a jump by a register, may lead to and no others; none
    /// where that is not known.
    pub(super) cases: Vec<usize>,
    /// Whether no direct way leads to it, so that an indirect jump, by a table that is known or not,
    /// or the system must be the way.
    pub(super) orphan: bool,
}

impl Block {
    /// Whether control may go on to the next block.
    pub(super) fn goes_on(&self) -> bool {
        matches!(
            self.flow,
            Flow::Next | Flow::Call | Flow::Branch { conditional: true }
        )
    }

    /// Whether it branches out of the stretch.
    pub(super) fn branches_out(&self) -> bool {
        matches!(self.flow, Flow::Branch { .. }) && self.target.is_none()
    }
}

/// The blocks in order, without gaps; `None` where there are too many. `body` holds the
/// instructions of `code`, at least one.
pub(super) fn blocks<S: Side>(code: Code<'_, S>, body: &Body<S>) -> Option<Vec<Block>> {
    let mut starts = starts(code, body);
    let switches = switches(code, body, &mut starts);
    if starts.len() > MAX_BLOCKS {
        return None;
    }
    let count = body.instructions.len() as u32;
    let ends = starts.iter().skip(1).copied().chain([count]);
    let block = |(start, end): (u32, u32)| {
        let last = end - 1;
        let flow = effects::of(word_at(code, body, last)).flow;
        let target = match flow {
            Flow::Branch { .. } => inside(code, body, last),
            _ => None,
        };
        Block {
            start,
            end,
            flow,
            target: target.and_then(|target| starts.binary_search(&target).ok()),
            cases: Vec::new(),
            orphan: true,
        }
    };
    let mut blocks: Vec<Block> = starts.iter().copied().zip(ends).map(block).collect();
    for switch in switches {
        let index = starts.partition_point(|start| *start <= switch.branch) - 1;
        let cases = switch.targets.iter();
        blocks[index].cases = cases
            .filter_map(|to| starts.binary_search(to).ok())
            .collect();
    }
    blocks[0].orphan = false;
    for index in 0..blocks.len() {
        if let Some(target) = blocks[index].target {
            blocks[target].orphan = false;
        }
        if blocks[index].goes_on()
            && let Some(next) = blocks.get_mut(index + 1)
        {
            next.orphan = false;
        }
    }
    Some(blocks)
}

/// The word of an instruction; for what is none 0, which is undefined and stops.
pub(super) fn word_at<S: Side>(code: Code<'_, S>, body: &Body<S>, index: u32) -> u32 {
    let start = index as usize * 4;
    match code.bytes.get(start..start + 4).map(TryInto::try_into) {
        Some(Ok(word)) if body.instructions[index as usize].valid => u32::from_le_bytes(word),
        _ => 0,
    }
}

/// The index of the instruction that a branch leads to, where it is one of `code`.
fn inside<S: Side>(code: Code<'_, S>, body: &Body<S>, index: u32) -> Option<u32> {
    let target = body.instructions[index as usize].reference?.target;
    let offset = target.checked_sub(code.rva)?;
    (offset % 4 == 0 && (offset as usize) < code.bytes.len()).then_some(offset / 4)
}

/// First instructions of blocks: targets of branches and what stands behind them.
fn starts<S: Side>(code: Code<'_, S>, body: &Body<S>) -> Vec<u32> {
    let mut starts = vec![0];
    for index in 0..body.instructions.len() as u32 {
        let word = word_at(code, body, index);
        // Only the groups of branches and of undefined instructions end a block.
        if !matches!((word >> 25) & 0xf, 0b1010 | 0b1011 | 0) {
            continue;
        }
        match effects::of(word).flow {
            Flow::Next | Flow::Call => continue,
            Flow::Branch { .. } => starts.extend(inside(code, body, index)),
            Flow::Indirect | Flow::Stop => {}
        }
        if index as usize + 1 < body.instructions.len() {
            starts.push(index + 1);
        }
    }
    starts.sort_unstable();
    starts.dedup();
    starts
}
