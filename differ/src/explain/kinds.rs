//! In what instructions differ.

use hpbuild_metadata::{Base, Fixed};
use similar::DiffOp;

use super::Listing;
use super::reached::Reached;
use crate::compare::Kind;
use crate::compare::location::{PairLines, kind_of_reference};
use crate::decode::{Constants, Instruction};
use crate::meaning::{Comparer, Meaning};

/// Says in what the instructions differ that did not align.
pub(super) fn classify(
    ops: &[DiffOp],
    comparer: &Comparer<'_>,
    b: &Listing<'_, Base>,
    f: &Listing<'_, Fixed>,
    pair_lines: &PairLines<'_>,
    kinds: &mut Vec<Kind>,
    reached: &mut Reached<'_>,
) {
    for op in ops {
        match *op {
            DiffOp::Equal { .. } => {}
            DiffOp::Replace {
                old_index,
                old_len,
                new_index,
                new_len,
            } if old_len == new_len => {
                for at in 0..old_len {
                    let bi = &b.body.instructions[old_index + at];
                    let fi = &f.body.instructions[new_index + at];
                    let kind = classify_pair(comparer, pair_lines, (b, bi), (f, fi));
                    let is_line = |it: Constants| {
                        pair_lines.are_at((bi.offset, it.base), (fi.offset, it.fixed))
                    };
                    kinds.push(match kind {
                        PairKind::Constants(it) if it.is_moved && is_line(it) => Kind::LineNumber,
                        PairKind::Constants(_) => Kind::Immediate,
                        PairKind::Reference(kind) => {
                            reached.add(kind, bi, fi);
                            kind
                        }
                        PairKind::Other => Kind::Code,
                    });
                }
            }
            DiffOp::Replace {
                old_index,
                old_len,
                new_index,
                new_len,
            } => {
                kinds.push(Kind::Code);
                let removed = &b.body.instructions[old_index..old_index + old_len];
                let added = &f.body.instructions[new_index..new_index + new_len];
                reached.add_alike((b, removed), (f, added));
            }
            _ => kinds.push(Kind::Code),
        }
    }
}

/// In what two instructions at corresponding places differ.
enum PairKind {
    /// Only in a constant.
    Constants(Constants),
    /// Only in what the operand points at.
    Reference(Kind),
    /// In more.
    Other,
}

/// Whether two instructions do the same with what their operands point at.
pub(super) fn same_but_target(
    (b, bi): (&Listing<'_, Base>, &Instruction<Base>),
    (f, fi): (&Listing<'_, Fixed>, &Instruction<Fixed>),
) -> bool {
    let (Some(br), Some(fr)) = (bi.reference, fi.reference) else {
        return false;
    };
    let (mut b_bytes, mut f_bytes) = (b.bytes(bi).to_vec(), f.bytes(fi).to_vec());
    br.field.clear(&mut b_bytes);
    fr.field.clear(&mut f_bytes);
    br.field == fr.field && b_bytes == f_bytes
}

fn classify_pair(
    comparer: &Comparer<'_>,
    pair_lines: &PairLines<'_>,
    (b, bi): (&Listing<'_, Base>, &Instruction<Base>),
    (f, fi): (&Listing<'_, Fixed>, &Instruction<Fixed>),
) -> PairKind {
    if let (Some(br), Some(fr)) = (bi.reference, fi.reference)
        && same_but_target((b, bi), (f, fi))
    {
        let meaning = comparer.compare(br.target, fr.target, br.kind);
        let operands = (b.operand(bi, br), f.operand(fi, fr));
        return match comparer.compare_operands(&operands.0, &operands.1, meaning) {
            Meaning::Different(difference) => {
                let (base, fixed) = (&operands.0, &operands.1);
                PairKind::Reference(kind_of_reference(
                    comparer, pair_lines, difference, base, fixed,
                ))
            }
            _ => PairKind::Other,
        };
    }
    let machine = b.image.pe.machine;
    match crate::decode::constants_differing(machine, b.bytes(bi), f.bytes(fi)) {
        Some(values) => PairKind::Constants(values),
        None => PairKind::Other,
    }
}
