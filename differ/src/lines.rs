//! Source lines of one function, from the C13 line records of its compiland, or
//! from DWARF.
//!
//! The layout is that of LLVM's "The PDB Module Information Stream" and of `cvinfo.h` in
//! Microsoft's published PDB sources. It is read here and not by a library, because it is read
//! while functions are compared, where nothing stands by to catch a panic.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use hpbuild_metadata::{FunctionId, SectionOffset, Side};

use crate::image::{Function, Image};
use crate::records::CompilandStreams;

/// `DEBUG_S_FILECHKSMS`.
const FILE_CHECKSUMS: u32 = 0xf4;
/// `DEBUG_S_LINES`.
const LINES: u32 = 0xf2;
/// Bytes in front of the blocks of a lines subsection: place, flags, bytes of code.
pub(crate) const LINES_HEADER: usize = 12;
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
        Some(self.starts[index].1).filter(|line| *line > 0)
    }
}

/// The line records of a compiland. Nothing is read before it is asked for: in most compilands
/// nothing changed, and nobody asks.
#[derive(Clone, Debug, Default)]
pub(crate) struct LineRecords {
    /// Where they are read from, and of which compiland of it; none where the PDB has none.
    source: Option<(Arc<CompilandStreams>, u32)>,
    read: OnceLock<Subsections>,
}

/// Line records as the PDB stores them.
#[derive(Clone, Debug)]
struct Subsections {
    bytes: Box<[u8]>,
    /// Lines subsections by the code they are about.
    index: Vec<Covered>,
    /// Where the subsection of file checksums is.
    checksums: Range<usize>,
}

/// The code that a lines subsection is about.
#[derive(Clone, Copy, Debug)]
struct Covered {
    section: u16,
    start: u32,
    /// Where the code ends, of this subsection and of all before it in the same section.
    reach: u32,
    /// Where in the records the subsection's contents are.
    contents: (usize, usize),
}

impl LineRecords {
    /// Those of a compiland, by its index in the PDB.
    pub(crate) fn new(streams: Arc<CompilandStreams>, compiland: u32) -> Self {
        Self {
            source: Some((streams, compiland)),
            read: OnceLock::new(),
        }
    }

    fn subsections(&self) -> &Subsections {
        self.read.get_or_init(|| {
            let source = self.source.as_ref();
            let bytes = source.map(|(streams, compiland)| streams.lines(*compiland));
            let bytes = bytes.unwrap_or_default().into_boxed_slice();
            let checksums = subsections(&bytes, FILE_CHECKSUMS).next();
            Subsections {
                index: index(&bytes),
                checksums: checksums.map_or(0..0, |(at, found)| at..at + found.len()),
                bytes,
            }
        })
    }

    /// Where in the image's names of source files the name of a file begins.
    pub(crate) fn file_name(&self, file: u32) -> Option<usize> {
        let Subsections {
            bytes, checksums, ..
        } = self.subsections();
        let checksums = bytes.get(checksums.clone())?;
        let entry = checksums.get(usize::try_from(file).ok()?..)?;
        let name = u32::from_le_bytes(*entry.first_chunk()?);
        name.try_into().ok()
    }

    /// The lines subsections, with the places they begin at, that are about some of the `size`
    /// bytes of code from `from` on.
    pub(crate) fn around(
        &self,
        from: Option<SectionOffset>,
        size: u32,
    ) -> impl Iterator<Item = (SectionOffset, &[u8])> {
        let Subsections { bytes, index, .. } = self.subsections();
        let (section, from) = from.map_or((0, 0), |place| (place.section, place.offset));
        let first = index.partition_point(|it| (it.section, it.reach) <= (section, from));
        let is_near =
            move |it: &&Covered| it.section == section && it.start < from.saturating_add(size);
        index[first..].iter().take_while(is_near).map(|it| {
            let place = SectionOffset {
                section: it.section,
                offset: it.start,
            };
            let (at, length) = it.contents;
            (place, &bytes[at..at + length])
        })
    }
}

/// All lines subsections, sorted by the code they are about.
fn index(bytes: &[u8]) -> Vec<Covered> {
    let covered = |(at, lines): (usize, &[u8])| {
        let header = lines.first_chunk::<LINES_HEADER>()?;
        let start = word(lines, 0);
        Some(Covered {
            section: u16::from_le_bytes([header[4], header[5]]),
            start,
            reach: start.saturating_add(word(lines, 8)),
            contents: (at, lines.len()),
        })
    };
    let mut index: Vec<_> = subsections(bytes, LINES).filter_map(covered).collect();
    index.sort_by_key(|it| (it.section, it.start));
    for at in 1..index.len() {
        if index[at].section == index[at - 1].section {
            index[at].reach = index[at].reach.max(index[at - 1].reach);
        }
    }
    index
}

/// The lines of a function; empty where the PDB has none.
pub(crate) fn lines_of<S: Side>(image: &Image<S>, id: FunctionId<S>) -> Lines {
    let function = image.function(id);
    if !image.lines.is_empty() {
        return dwarf_lines(image, function);
    }
    let compiland = function
        .compiland
        .and_then(|id| image.compilands.get(id.index()));
    let Some(compiland) = compiland else {
        return Lines::default();
    };
    let mut starts = Vec::new();
    for (place, lines) in compiland
        .lines
        .around(image.place_of(function.rva), function.size)
    {
        let Some(start) = image.rva_of_place(place) else {
            continue;
        };
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

fn dwarf_lines<S: Side>(image: &Image<S>, function: &Function<S>) -> Lines {
    let rows = &image.lines;
    let start = rows.partition_point(|row| row.0 < function.rva);
    let mut starts: Vec<(u32, u32)> = Vec::new();
    for (rva, line) in &rows[start..] {
        let Some(offset) = rva.checked_sub(function.rva) else {
            continue;
        };
        if offset >= function.size {
            break;
        }
        // Of several lines of one address the last one counts.
        starts.pop_if(|last| last.0 == offset);
        starts.push((offset, *line));
    }
    Lines { starts }
}

/// The word at an offset; 0 behind the end.
fn word(bytes: &[u8], at: usize) -> u32 {
    let word = bytes.get(at..).and_then(|rest| rest.first_chunk());
    word.map_or(0, |word| u32::from_le_bytes(*word))
}

/// The contents of the subsections of one kind and where they begin, up to the first that is cut
/// short.
fn subsections(bytes: &[u8], kind: u32) -> impl Iterator<Item = (usize, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        while rest.len() >= 8 {
            let at = bytes.len() - rest.len() + 8;
            let (found, size) = (word(rest, 0), word(rest, 4) as usize);
            let data = rest.get(8..)?.get(..size)?;
            // Each starts at a multiple of four.
            let next = size.checked_next_multiple_of(4)?.saturating_add(8);
            rest = rest.get(next..).unwrap_or_default();
            if found == kind {
                return Some((at, data));
            }
        }
        None
    })
}

/// The lines of all blocks as (bytes from the start of the code, line).
fn numbers(blocks: &[u8]) -> impl Iterator<Item = (u32, u32)> {
    let lines = block_lines(blocks).flat_map(|(_, lines)| lines.chunks_exact(8));
    lines.map(|entry| (word(entry, 0), number(entry)))
}

/// For each block its last line that starts at or before `at`, as (bytes from the start of the
/// code, file, line). A file is an offset in the compiland's file checksums. The lines of a block
/// are sorted, and there can be very many.
pub(crate) fn last_before(blocks: &[u8], at: u32) -> impl Iterator<Item = (u32, u32, u32)> {
    block_lines(blocks).filter_map(move |(file, lines)| {
        let (lines, _) = lines.as_chunks::<8>();
        let before = lines.partition_point(|entry| word(entry, 0) <= at);
        let mut named = lines[..before]
            .iter()
            .rev()
            .map(|it| (word(it, 0), number(it)));
        let is_named = |line: &(u32, u32)| line.1 > 0 && !NO_LINES.contains(&line.1);
        let (start, number) = named.find(is_named)?;
        Some((start, file, number))
    })
}

/// The number is in the lower 24 bits; how many lines a statement has, above.
fn number(entry: &[u8]) -> u32 {
    word(entry, 4) & 0x00ff_ffff
}

/// The file and the lines, eight bytes each, of all blocks, up to the first that is cut short.
fn block_lines(mut blocks: &[u8]) -> impl Iterator<Item = (u32, &[u8])> {
    std::iter::from_fn(move || {
        let (count, size) = (word(blocks, 4) as usize, word(blocks, 8) as usize);
        let file = word(blocks, 0);
        let block = blocks.get(..size).filter(|_| size >= BLOCK_HEADER)?;
        blocks = &blocks[size..];
        // Columns may follow the lines.
        let lines = &block[BLOCK_HEADER..];
        let end = count.saturating_mul(8).min(lines.len());
        Some((file, &lines[..end]))
    })
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
        let at = |at| last_before(&blocks, at).collect::<Vec<_>>();
        assert_eq!(at(4), [(0, 0, 7)]);
        assert_eq!(at(8), [(5, 0, 8)]);
        assert_eq!(at(9), [(5, 0, 8), (9, 8, 3)]);
    }

    #[test]
    fn passes_over_other_subsections() {
        let mut bytes = words(&[0xf4, 5, 0, 0, LINES, 4, 77]);
        bytes.extend(words(&[LINES, 400]));
        let found: Vec<_> = subsections(&bytes, LINES).collect();
        assert_eq!(found, [(24, &77_u32.to_le_bytes()[..])]);
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
