//! Which inlined function an instruction came from.
//!
//! A function changes where what was inlined into it changed, and the name of the function alone
//! does not tell. Compilers leave an `S_INLINESITE` record for each call that they replaced by the
//! callee's body: the callee as an index of the item stream, and as binary annotations the ranges
//! of code that came from it. The records nest as the calls did.
//!
//! An instruction is said to come from the innermost site that holds it. That is where it came
//! from, and no proof that this callee's source changed: what a caller passes can change it, too.

use std::ops::Range;

use hpbuild_metadata::{FunctionId, Side};
use ms_pdb::syms::{Sym, SymKind};
use serde::Serialize;

use crate::explain::{DiffLine, Tag};
use crate::image::Image;
use crate::records::SymbolRecords;

/// Ranges of one site that are looked at; real ones have a few.
const MAX_RANGES: usize = 1 << 16;

/// A function some of whose inlined instructions changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Inlined {
    /// The inlined function, with its scope.
    pub name: String,
    /// Changed instructions of the base that came from it.
    pub removed: u32,
    /// Changed instructions of the fixed image that came from it.
    pub added: u32,
}

/// A site with what it means.
struct Site {
    depth: u16,
    inlinee: u32,
    ranges: Vec<Range<u32>>,
}

/// The calls in one function that were replaced by the callee's body.
pub(crate) struct Sites(Vec<Site>);

impl Sites {
    pub(crate) fn of<S: Side>(image: &Image<S>, id: FunctionId<S>) -> Self {
        Self(sites_of(image, id))
    }

    /// The items of the functions that an instruction came from, innermost first: the one that it
    /// stands in, the one that this was inlined into, and so on. Empty where it is the body's own.
    pub(crate) fn around(&self, offset: u32) -> impl Iterator<Item = u32> {
        let innermost = innermost(&self.0, offset);
        let mut depth = innermost.map_or(0, |at| self.0[at].depth);
        let before = self.0[..innermost.unwrap_or(0)].iter().rev();
        // Sites stand in the order in which they begin: the next one further out holds this one.
        let outer = before.filter(move |site| {
            let is_outer = site.depth < depth;
            depth = if is_outer { site.depth } else { depth };
            is_outer
        });
        let first = innermost.map(|at| &self.0[at]);
        first.into_iter().chain(outer).map(|site| site.inlinee)
    }
}

/// The index of the innermost site that holds `offset`.
fn innermost(sites: &[Site], offset: u32) -> Option<usize> {
    let holds = |site: &Site| site.ranges.iter().any(|range| range.contains(&offset));
    let holding = (0..sites.len()).filter(|at| holds(&sites[*at]));
    holding.max_by_key(|at| sites[*at].depth)
}

/// The calls in a function that were replaced by the callee's body.
fn sites_of<S: Side>(image: &Image<S>, id: FunctionId<S>) -> Vec<Site> {
    let procedures = image.procedures_of(id).iter();
    let records = procedures.map(|procedure| image.records_of(procedure));
    records.flat_map(|records| sites(&records)).collect()
}

/// The inline sites among the records of one procedure, up to the first that is cut short.
///
/// `INLINESITESYM`: parent, end, inlinee, and in `INLINESITESYM2` the number of invocations; then
/// binary annotations (`cvinfo.h`).
fn sites(records: &[u8]) -> Vec<Site> {
    let mut found = Vec::new();
    let mut depth = 0_u16;
    for Sym { kind, data } in SymbolRecords::new(records) {
        let header = match kind {
            SymKind::S_INLINESITE => 12,
            SymKind::S_INLINESITE2 => 16,
            SymKind::S_INLINESITE_END => {
                depth = depth.saturating_sub(1);
                continue;
            }
            _ => continue,
        };
        let inlinee = data.get(8..).and_then(|rest| rest.first_chunk());
        if let (Some(inlinee), Some(annotations)) = (inlinee, data.get(header..)) {
            found.push(Site {
                depth,
                inlinee: u32::from_le_bytes(*inlinee),
                ranges: ranges(annotations),
            });
        }
        depth = depth.saturating_add(1);
    }
    found
}

/// The inlined functions that changed lines of a diff came from, those with most lines first.
pub(crate) fn inlined<B: Side, F: Side>(
    (base, base_id): (&Image<B>, FunctionId<B>),
    (fixed, fixed_id): (&Image<F>, FunctionId<F>),
    lines: &[DiffLine],
) -> Vec<Inlined> {
    let (base_sites, fixed_sites) = (sites_of(base, base_id), sites_of(fixed, fixed_id));
    let mut found: Vec<Inlined> = Vec::new();
    for line in lines {
        let name = match (line.tag, line.base_offset, line.fixed_offset) {
            (Tag::Removed, Some(offset), _) => name_at(base, &base_sites, offset),
            (Tag::Added, _, Some(offset)) => name_at(fixed, &fixed_sites, offset),
            _ => None,
        };
        let Some(name) = name else { continue };
        let at = found.iter().position(|inlined| inlined.name == name);
        let at = at.unwrap_or_else(|| {
            found.push(Inlined {
                name,
                removed: 0,
                added: 0,
            });
            found.len() - 1
        });
        match line.tag {
            Tag::Removed => found[at].removed += 1,
            _ => found[at].added += 1,
        }
    }
    found.sort_by(|one, other| {
        let weight = |inlined: &Inlined| inlined.removed + inlined.added;
        (weight(other), &one.name).cmp(&(weight(one), &other.name))
    });
    found
}

/// The innermost inlined function that holds `offset`.
fn name_at<S: Side>(image: &Image<S>, sites: &[Site], offset: u32) -> Option<String> {
    let innermost = &sites[innermost(sites, offset)?];
    image.types.item_name(innermost.inlinee)
}

/// The ranges of code that binary annotations describe, in bytes from the function's start; not
/// sorted, and empty from where the annotations are broken on.
///
/// The operations are those of `CodeViewInfo`'s `BinaryAnnotationsOpCode` (LLVM's `CodeView.h`,
/// `BinaryAnnotationOpcode` in MSVC's `cvinfo.h`). An operation that moves the code offset starts a
/// piece of code that lasts to the next one, or for the length that is given.
fn ranges(annotations: &[u8]) -> Vec<Range<u32>> {
    let mut rest = annotations;
    let mut ranges: Vec<Range<u32>> = Vec::new();
    let mut offset = 0_u32;
    let mut base = 0_u32;
    // Where a piece of code has begun whose end is not known yet.
    let mut open: Option<u32> = None;
    while let Some(operation) = compressed(&mut rest) {
        if operation == 0 || ranges.len() >= MAX_RANGES {
            break;
        }
        let Some(operand) = compressed(&mut rest) else {
            break;
        };
        let moved = match operation {
            // CodeOffset: from the function's start.
            1 => Some((operand, None)),
            // ChangeCodeOffsetBase.
            2 => {
                base = base.wrapping_add(operand);
                None
            }
            // ChangeCodeOffset.
            3 => Some((offset.wrapping_add(operand), None)),
            // ChangeCodeLength: of what began last; what comes next is counted from its end.
            4 => {
                if let Some(start) = open.take() {
                    ranges.push(start..start.saturating_add(operand));
                    offset = offset.wrapping_add(operand);
                }
                None
            }
            // ChangeCodeOffsetAndLineOffset: four bits of code offset below the line's.
            11 => Some((offset.wrapping_add(operand & 0xf), None)),
            // ChangeCodeLengthAndCodeOffset.
            12 => {
                let Some(distance) = compressed(&mut rest) else {
                    break;
                };
                Some((offset.wrapping_add(distance), Some(operand)))
            }
            // Files, lines and columns.
            5..=10 | 13 => None,
            _ => break,
        };
        if let Some((to, length)) = moved {
            offset = to;
            let start = base.wrapping_add(to);
            if let Some(begun) = open.take() {
                ranges.push(begun..start);
            }
            match length {
                Some(length) => {
                    ranges.push(start..start.saturating_add(length));
                    offset = offset.wrapping_add(length);
                }
                None => open = Some(start),
            }
        }
    }
    ranges
}

/// A number of one, two or four bytes, as `CVUncompressData` of MSVC's `cvinfo.h` reads it.
fn compressed(rest: &mut &[u8]) -> Option<u32> {
    let first = *rest.first()?;
    let length = match first {
        0..=0x7f => 1,
        0x80..=0xbf => 2,
        0xc0..=0xdf => 4,
        _ => return None,
    };
    let (bytes, behind) = rest.split_at_checked(length)?;
    *rest = behind;
    let value = bytes
        .iter()
        .fold(0_u32, |value, byte| value << 8 | u32::from(*byte));
    Some(match length {
        1 => value,
        2 => value & 0x3fff,
        _ => value & 0x1fff_ffff,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A callee inlined in two pieces, as clang writes it.
    #[test]
    fn ranges_of_annotations() {
        // Offset 4, line and offset +3, length 5, offset +0x10, length 2.
        let annotations = [3, 4, 11, 0x23, 4, 5, 3, 0x10, 4, 2, 0, 0];
        assert_eq!(ranges(&annotations), [4..7, 7..12, 28..30]);
        // Length and offset in one.
        assert_eq!(ranges(&[12, 6, 0x81, 0x00]), vec![0x100..0x106]);
        // What a piece lacks is not made up.
        assert_eq!(ranges(&[3, 4]), []);
    }

    #[test]
    fn sites_nest() {
        let mut records = Vec::new();
        let mut record = |kind: SymKind, data: &[u8]| {
            records.extend((data.len() as u16 + 2).to_le_bytes());
            records.extend(kind.0.to_le_bytes());
            records.extend(data);
        };
        let site = |inlinee: u8, behind: &[u8]| [&[0; 8][..], &[inlinee, 0, 0, 0], behind].concat();
        record(SymKind::S_GPROC32, &[0; 40]);
        record(SymKind::S_INLINESITE, &site(1, &[3, 4, 4, 8]));
        record(SymKind::S_INLINESITE2, &site(2, &[9, 0, 0, 0, 3, 6, 4, 2]));
        record(SymKind::S_INLINESITE_END, &[]);
        record(SymKind::S_INLINESITE_END, &[]);
        record(SymKind::S_INLINESITE, &site(3, &[3, 0x20, 4, 1]));
        let found = |records: &[u8]| -> Vec<_> {
            let all = sites(records).into_iter();
            all.map(|it| (it.depth, it.inlinee, it.ranges[0].clone()))
                .collect()
        };
        let all = [(0, 1, 4..12), (1, 2, 6..8), (0, 3, 32..33)];
        assert_eq!(found(&records), all);
        // What is cut short is left out, and so is what comes behind.
        for length in 0..records.len() {
            let some = found(&records[..length]);
            assert!(some.len() < 3 && all.starts_with(&some), "{length}");
        }
    }

    #[test]
    fn broken_annotations() {
        for bytes in [&[3][..], &[12, 1], &[0xff, 1], &[3, 0x80], &[3, 1, 0x44, 1]] {
            assert_eq!(ranges(bytes), [], "{bytes:x?}");
        }
        // Offsets wrap, and nothing overflows.
        let mut wild = Vec::new();
        for _ in 0..100 {
            wild.extend([3, 0xdf, 0xff, 0xff, 0xff, 4, 0xdf, 0xff, 0xff, 0xff]);
        }
        assert_eq!(ranges(&wild).len(), 100);
    }

    #[test]
    fn compressed_numbers() {
        let read = |mut bytes: &[u8]| compressed(&mut bytes);
        assert_eq!(read(&[0x7f]), Some(0x7f));
        assert_eq!(read(&[0xbf, 0xff]), Some(0x3fff));
        assert_eq!(read(&[0xdf, 0xff, 0xff, 0xff]), Some(0x1fff_ffff));
        assert_eq!(read(&[0xe0, 0, 0, 0]), None);
        assert_eq!(read(&[]), None);
    }
}
