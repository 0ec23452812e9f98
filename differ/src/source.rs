//! The source file and line that code came from, by the C13 line records of its compiland.

use hpbuild_metadata::{FunctionId, Side};
use serde::Serialize;

use crate::image::{Compiland, Image};
use crate::lines::{LINES_HEADER, last_before};

/// A place in a source file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Source {
    /// The file as the compiler named it.
    pub file: String,
    /// The line, from 1.
    pub line: u32,
}

/// Where the instruction `offset` bytes into a function came from; `None` where the PDB does not
/// say.
pub(crate) fn source_of<S: Side>(
    image: &Image<S>,
    id: FunctionId<S>,
    offset: u32,
) -> Option<Source> {
    let function = image.function(id);
    let at = function.rva.checked_add(offset)?;
    let compiland = image.compilands.get(function.compiland?.index())?;
    // The last line that starts at or before the instruction.
    let mut best: Option<(u32, u32, u32)> = None;
    for (place, lines) in compiland.lines.around(image.place_of(at), 1) {
        let Some(distance) = image
            .rva_of_place(place)
            .and_then(|start| at.checked_sub(start))
        else {
            continue;
        };
        // Bytes of code, behind the place and the flags.
        let size = lines.get(8..).and_then(|rest| rest.first_chunk());
        if size.is_none_or(|size| distance >= u32::from_le_bytes(*size)) {
            continue;
        }
        for (start, file, number) in last_before(&lines[LINES_HEADER..], distance) {
            if best.is_none_or(|(known, ..)| start >= known) {
                best = Some((start, file, number));
            }
        }
        // Of several records about one place the first one stands for all: offsets count from each.
        if best.is_some() {
            break;
        }
    }
    let (_, file, line) = best?;
    Some(Source {
        file: file_name(image, compiland, file)?,
        line,
    })
}

fn file_name<S: Side>(image: &Image<S>, compiland: &Compiland, file: u32) -> Option<String> {
    let rest = image.source_names.get(compiland.lines.file_name(file)?..)?;
    let end = rest.iter().position(|byte| *byte == 0)?;
    (end > 0).then(|| String::from_utf8_lossy(&rest[..end]).into_owned())
}
