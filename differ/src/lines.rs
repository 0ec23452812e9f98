//! Source lines of one function, from the C13 line records of its compiland.
//!
//! The layout is that of LLVM's "The PDB Module Information Stream" and of `cvinfo.h` in
//! Microsoft's published PDB sources. It is read here and not by a library, because it is read
//! while functions are compared, where nothing stands by to catch a panic.

use hpbuild_metadata::{FunctionId, SectionOffset, Side};

use crate::image::Image;

/// `DEBUG_S_LINES`.
const LINES: u32 = 0xf2;
/// Bytes in front of the blocks of a lines subsection: place, flags, bytes of code.
const LINES_HEADER: usize = 12;
/// Bytes in front of the lines of a block: file, number of lines, bytes of the block.
const BLOCK_HEADER: usize = 12;
/// Line numbers that tell a debugger where not to stop and name no line.
const NO_LINES: [u32; 2] = [0x00f0_0f00, 0x00fe_efee];

/// Source lines of a function, by offset from its start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lines {
    /// (bytes from the function's start, line number), sorted.
    starts: Vec<(u32, u32)>,
}

impl Lines {
    /// The line of the instruction `offset` bytes into the function.
    pub(crate) fn at(&self, offset: u32) -> Option<u32> {
        let index = self
            .starts
            .partition_point(|start| start.0 <= offset)
            .checked_sub(1)?;
        Some(self.starts[index].1)
    }
}

/// The lines of a function; empty where the PDB has none.
pub(crate) fn lines_of<S: Side>(image: &Image<S>, id: FunctionId<S>) -> Lines {
    let function = image.function(id);
    let compiland = function
        .compiland
        .and_then(|id| image.compilands.get(id.index()));
    let Some(compiland) = compiland else {
        return Lines::default();
    };
    let mut starts = Vec::new();
    for lines in subsections(&compiland.lines, LINES) {
        let Some(header) = lines.first_chunk::<LINES_HEADER>() else {
            continue;
        };
        let place = SectionOffset {
            section: u16::from_le_bytes([header[4], header[5]]),
            offset: word(lines, 0),
        };
        let Some(start) = image.rva_of_place(place) else {
            continue;
        };
        // Most records are of other functions, and their lines need not be looked at.
        let size = word(lines, 8);
        let begins_behind = start.get() >= function.rva.get().saturating_add(function.size);
        if begins_behind || start.get().saturating_add(size) <= function.rva.get() {
            continue;
        }
        // One record may cover several functions of a compiland compiled without COMDATs.
        for (at, number) in numbers(&lines[LINES_HEADER..]) {
            let rva = start.checked_add(at);
            let Some(offset) = rva.and_then(|rva| rva.checked_sub(function.rva)) else {
                continue;
            };
            if offset < function.size && number > 0 && !NO_LINES.contains(&number) {
                starts.push((offset, number));
            }
        }
    }
    starts.sort_unstable();
    Lines { starts }
}

/// The word at an offset; 0 behind the end.
fn word(bytes: &[u8], at: usize) -> u32 {
    let word = bytes.get(at..).and_then(|rest| rest.first_chunk());
    word.map_or(0, |word| u32::from_le_bytes(*word))
}

/// The contents of the subsections of one kind, up to the first that is cut short.
fn subsections(mut rest: &[u8], kind: u32) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        while rest.len() >= 8 {
            let (found, size) = (word(rest, 0), word(rest, 4) as usize);
            let data = rest.get(8..)?.get(..size)?;
            // Each starts at a multiple of four.
            let next = size.checked_next_multiple_of(4)?.saturating_add(8);
            rest = rest.get(next..).unwrap_or_default();
            if found == kind {
                return Some(data);
            }
        }
        None
    })
}

/// The lines of all blocks as (bytes from the start of the code, line), up to the first block that
/// is cut short.
fn numbers(mut blocks: &[u8]) -> impl Iterator<Item = (u32, u32)> {
    let block = move || {
        let (count, size) = (word(blocks, 4) as usize, word(blocks, 8) as usize);
        let block = blocks.get(..size).filter(|_| size >= BLOCK_HEADER)?;
        blocks = &blocks[size..];
        // Columns may follow the lines.
        let lines = &block[BLOCK_HEADER..];
        Some(lines.chunks_exact(8).take(count))
    };
    // The number is in the lower 24 bits; how many lines a statement has, above.
    let line = |entry: &[u8]| (word(entry, 0), word(entry, 4) & 0x00ff_ffff);
    std::iter::from_fn(block).flatten().map(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().copied().flat_map(u32::to_le_bytes).collect()
    }

    #[test]
    fn reads_the_lines_of_all_blocks() {
        // Two lines and columns for them; then one line.
        let blocks = words(&[
            0,
            2,
            36,
            0,
            0x8000_0007,
            5,
            0x8000_0008,
            0x0001_0001,
            0x0002_0002,
            8,
            1,
            20,
            9,
            3,
        ]);
        let found: Vec<_> = numbers(&blocks).collect();
        assert_eq!(found, [(0, 7), (5, 8), (9, 3)]);
    }

    #[test]
    fn passes_over_other_subsections() {
        let mut bytes = words(&[0xf4, 5, 0, 0, LINES, 4, 77]);
        bytes.extend(words(&[LINES, 400]));
        let found: Vec<_> = subsections(&bytes, LINES).collect();
        assert_eq!(found, [&77_u32.to_le_bytes()[..]]);
    }

    #[test]
    fn broken_records_end_the_walk() {
        for size in [0, 11, 13, u32::MAX] {
            assert_eq!(numbers(&words(&[0, 1, size])).count(), 0);
        }
        // More lines than the block has room for.
        assert_eq!(numbers(&words(&[0, u32::MAX, 20, 4, 6])).count(), 1);
        assert_eq!(subsections(&words(&[LINES, u32::MAX]), LINES).count(), 0);
    }
}
