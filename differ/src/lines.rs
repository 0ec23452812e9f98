//! Source lines of one function, from the C13 line records of its compiland, or from DWARF.

use hpbuild_metadata::{FunctionId, SectionOffset, Side};
use ms_pdb::lines::{LineData, LinesSubsection, SubsectionKind};

use crate::image::{Function, Image};

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
    for subsection in LineData::new(&compiland.lines).subsections() {
        if subsection.kind != SubsectionKind::LINES {
            continue;
        }
        let Ok(lines) = LinesSubsection::parse(subsection.data) else {
            continue;
        };
        let at = lines.contribution.offset_segment();
        let place = SectionOffset {
            section: at.segment(),
            offset: at.offset(),
        };
        let Some(start) = image.rva_of_place(place) else {
            continue;
        };
        // Most records are of other functions, and their lines need not be looked at.
        let size = lines.contribution.size.get();
        let begins_behind = start.get() >= function.rva.get().saturating_add(function.size);
        if begins_behind || start.get().saturating_add(size) <= function.rva.get() {
            continue;
        }
        // One record may cover several functions of a compiland compiled without COMDATs.
        for line in lines.blocks().flat_map(|block| block.lines()) {
            let Some(rva) = start.checked_add(line.offset.get()) else {
                continue;
            };
            let number = line.line_num_start();
            let Some(offset) = rva.checked_sub(function.rva) else {
                continue;
            };
            if offset < function.size && !ms_pdb::lines::is_jmc_line(number) && number > 0 {
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
