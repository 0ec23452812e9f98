//! The source file and line that code came from, by the C13 line records of its compiland.

use hpbuild_metadata::{CompilandId, FunctionId, Rva, SectionOffset, Side};
use ms_pdb::lines::{LineData, LinesSubsection, SubsectionKind, is_jmc_line};
use rustc_hash::FxHashMap;
use serde::Serialize;

use crate::image::{Compiland, Image};

/// A place in a source file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Source {
    /// The file as the compiler named it.
    pub file: String,
    /// The line, from 1.
    pub line: u32,
}

/// Line records of the compilands that were asked for so far.
pub(crate) struct Sources<'a, S: Side> {
    image: &'a Image<S>,
    compilands: FxHashMap<CompilandId<S>, Vec<Record<'a, S>>>,
}

/// The line records of one span of code.
struct Record<'a, S: Side> {
    start: Rva<S>,
    size: u32,
    lines: LinesSubsection<'a>,
}

impl<'a, S: Side> Sources<'a, S> {
    pub(crate) fn new(image: &'a Image<S>) -> Self {
        Self {
            image,
            compilands: FxHashMap::default(),
        }
    }

    /// Where the instruction `offset` bytes into a function came from.
    pub(crate) fn of(&mut self, id: FunctionId<S>, offset: u32) -> Option<Source> {
        let function = self.image.function(id);
        let at = function.rva.checked_add(offset)?;
        let compiland_id = function.compiland?;
        let compiland = self.image.compilands.get(compiland_id.index())?;
        let image = self.image;
        let records = self
            .compilands
            .entry(compiland_id)
            .or_insert_with(|| records(image, compiland));
        let index = records.partition_point(|record| record.start <= at);
        let record = &records[index.checked_sub(1)?];
        let distance = at.checked_sub(record.start)?;
        if distance >= record.size {
            return None;
        }
        let (file, line) = nearest(&record.lines, distance)?;
        Some(Source {
            file: file_name(image, compiland, file)?,
            line,
        })
    }
}

/// The last line that starts at or before `distance`, with the index of its file.
fn nearest(lines: &LinesSubsection<'_>, distance: u32) -> Option<(u32, u32)> {
    let mut best: Option<(u32, u32, u32)> = None;
    for block in lines.blocks() {
        for line in block.lines() {
            let (offset, number) = (line.offset.get(), line.line_num_start());
            let nearer = best.is_none_or(|(known, ..)| offset >= known);
            if offset <= distance && nearer && number > 0 && !is_jmc_line(number) {
                best = Some((offset, block.header.file_index.get(), number));
            }
        }
    }
    best.map(|(_, file, number)| (file, number))
}

fn records<'a, S: Side>(image: &'a Image<S>, compiland: &'a Compiland) -> Vec<Record<'a, S>> {
    let mut records = Vec::new();
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
        if let Some(start) = image.rva_of_place(place) {
            records.push(Record {
                start,
                size: lines.contribution.size.get(),
                lines,
            });
        }
    }
    records.sort_by_key(|record| record.start);
    records
}

fn file_name<S: Side>(image: &Image<S>, compiland: &Compiland, file: u32) -> Option<String> {
    let checksums = LineData::new(&compiland.lines).find_checksums()?;
    let name = checksums.get_file(file).ok()?.name().0;
    let rest = image.source_names.get(usize::try_from(name).ok()?..)?;
    let end = rest.iter().position(|byte| *byte == 0)?;
    (end > 0).then(|| String::from_utf8_lossy(&rest[..end]).into_owned())
}
