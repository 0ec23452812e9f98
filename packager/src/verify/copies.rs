//! What is copied has one address, as it has in the fixed image: programs compare addresses.

use super::fault;
use super::walk::Walk;

/// A copy as it was found in the image.
struct Copy<'a> {
    name: &'a str,
    /// First byte in the fixed image.
    start: i64,
    /// First byte behind.
    end: i64,
    /// How far from there it lies in the patch.
    moved: i64,
}

/// Checks that no byte of the fixed image's data was found at two places of the patch.
pub(super) fn check(walk: &mut Walk<'_>) {
    let found = walk.parts.pieces.iter().zip(&walk.rvas);
    let found = found.filter_map(|(piece, rva)| {
        let (origin, rva) = (piece.origin?, (*rva)?);
        let (start, lead) = (i64::from(origin.rva.get()), i64::from(origin.lead));
        Some(Copy {
            name: &piece.name,
            start,
            end: start + i64::from(piece.size()) - lead,
            moved: i64::from(rva) + lead - start,
        })
    });
    let mut copies: Vec<Copy<'_>> = found.filter(|copy| copy.start < copy.end).collect();
    copies.sort_by_key(|copy| (copy.start, copy.end, copy.moved));
    // Of those before, the copy that reaches farthest.
    let mut last: Option<&Copy<'_>> = None;
    for copy in &copies {
        if let Some(last) = last
            && copy.start < last.end
            && copy.moved != last.moved
        {
            let (one, other) = (copy.start + last.moved, copy.start + copy.moved);
            let expected = format!("rva {one:#x}, where {} has it", last.name);
            walk.faults
                .push(fault(copy.name, expected, format!("rva {other:#x}, too")));
        }
        if last.is_none_or(|last| last.end < copy.end) {
            last = Some(copy);
        }
    }
}
