//! Instructions beside their partners.

use hpbuild_metadata::{Base, Fixed};
use similar::DiffOp;

use super::reached::Reached;
use super::{DiffLine, Listing, Tag};
use crate::compare::Kind;
use crate::compare::location::{PairLines, kind_of_reference};
use crate::meaning::{Comparer, Meaning};
use crate::text;

/// Unchanged instructions shown around a change.
const CONTEXT: usize = 3;

/// For each instruction its partner.
pub(super) struct Aligned {
    base: Vec<Option<usize>>,
    fixed: Vec<Option<usize>>,
}

impl Aligned {
    pub(super) fn new(ops: &[DiffOp], base_count: usize, fixed_count: usize) -> Self {
        let mut aligned = Self {
            base: vec![None; base_count],
            fixed: vec![None; fixed_count],
        };
        for op in ops {
            if let DiffOp::Equal {
                old_index,
                new_index,
                len,
            } = *op
            {
                for at in 0..len {
                    aligned.base[old_index + at] = Some(new_index + at);
                    aligned.fixed[new_index + at] = Some(old_index + at);
                }
            }
        }
        aligned
    }

    /// The partner of each instruction of the base, and of each of the fixed image.
    pub(super) fn partners(&self) -> [Vec<Option<usize>>; 2] {
        [self.base.clone(), self.fixed.clone()]
    }

    /// Tokens leave out what they cannot name on both sides; this looks again at every aligned
    /// operand, and parts what differs after all.
    pub(super) fn check_equal(
        &mut self,
        comparer: &Comparer<'_>,
        b: &Listing<'_, Base>,
        f: &Listing<'_, Fixed>,
        pair_lines: &PairLines<'_>,
        kinds: &mut Vec<Kind>,
        reached: &mut Reached<'_>,
    ) {
        let mut parted = Vec::new();
        for (index, partner) in self.base.iter().enumerate() {
            let Some(partner) = *partner else { continue };
            let (bi, fi) = (&b.body.instructions[index], &f.body.instructions[partner]);
            let (Some(br), Some(fr)) = (bi.reference, fi.reference) else {
                continue;
            };
            match (b.inner_target(bi), f.inner_target(fi)) {
                (Some(from), Some(to)) => {
                    let expected = b.index_at(from).and_then(|at| self.base[at]);
                    let found = f.index_at(to);
                    // A target that has no partner is a change that shows where it stands.
                    if expected.is_some() && expected != found {
                        kinds.push(Kind::Code);
                        parted.push((index, partner));
                    }
                }
                _ => {
                    if crate::decode::is_completed(&b.body, index) {
                        continue;
                    }
                    let meaning = comparer.compare(br.target, fr.target, br.kind);
                    let operands = (b.operand(bi, br), f.operand(fi, fr));
                    let meaning = comparer.compare_operands(&operands.0, &operands.1, meaning);
                    if let Meaning::Different(difference) = meaning {
                        let (base, fixed) = (&operands.0, &operands.1);
                        let kind = kind_of_reference(comparer, pair_lines, difference, base, fixed);
                        kinds.push(kind);
                        reached.add(kind, bi, fi);
                        parted.push((index, partner));
                    } else if meaning == Meaning::Same {
                        reached.add_end(b, bi, fi);
                    }
                }
            }
        }
        for (index, partner) in parted {
            self.base[index] = None;
            self.fixed[partner] = None;
        }
    }

    /// Changed instructions with their surroundings.
    pub(super) fn lines(&self, b: &Listing<'_, Base>, f: &Listing<'_, Fixed>) -> Vec<DiffLine> {
        let mut all = Vec::new();
        let (mut at, mut of) = (0, 0);
        while at < self.base.len() || of < self.fixed.len() {
            if at < self.base.len() && self.base[at].is_none() {
                all.push(Row::Removed(at));
                at += 1;
            } else if of < self.fixed.len() && self.fixed[of].is_none() {
                all.push(Row::Added(of));
                of += 1;
            } else {
                // Alignment keeps order, so the two are each other's partners.
                all.push(Row::Same(at, of));
                at += 1;
                of += 1;
            }
        }
        texts(&with_context(all), b, f)
    }
}

/// A line of a diff before it has a text: indexes of the instructions it stands for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Row {
    Same(usize, usize),
    Removed(usize),
    Added(usize),
    Gap,
}

/// Keeps changed rows and [`CONTEXT`] rows around them.
fn with_context(all: Vec<Row>) -> Vec<Row> {
    let mut keep = vec![false; all.len()];
    for (index, row) in all.iter().enumerate() {
        if !matches!(row, Row::Same(..)) {
            let end = (index + CONTEXT + 1).min(all.len());
            keep[index.saturating_sub(CONTEXT)..end].fill(true);
        }
    }
    let mut rows = Vec::new();
    for (row, keep) in all.into_iter().zip(keep) {
        if keep {
            rows.push(row);
        } else if rows.last().is_some_and(|last| *last != Row::Gap) {
            rows.push(Row::Gap);
        }
    }
    rows.pop_if(|last| *last == Row::Gap);
    rows
}

/// Writes out the instructions that are shown, and only those: text is what takes longest.
fn texts(rows: &[Row], b: &Listing<'_, Base>, f: &Listing<'_, Fixed>) -> Vec<DiffLine> {
    // What points nowhere reads the same on both sides.
    let points = |at: usize| b.body.instructions[at].reference.is_some();
    let base_shown = rows.iter().filter_map(|row| match row {
        Row::Removed(at) => Some(b.body.instructions[*at]),
        Row::Same(at, _) if points(*at) => Some(b.body.instructions[*at]),
        _ => None,
    });
    let fixed_shown = rows.iter().filter_map(|row| match row {
        Row::Same(_, of) | Row::Added(of) => Some(f.body.instructions[*of]),
        _ => None,
    });
    let base_shown: Vec<_> = base_shown.collect();
    let fixed_shown: Vec<_> = fixed_shown.collect();
    let mut base_texts = text::instructions(b.image, b.id, &base_shown).into_iter();
    let mut fixed_texts = text::instructions(f.image, f.id, &fixed_shown).into_iter();
    let line = |row: &Row| {
        let (tag, base, fixed, text) = match *row {
            Row::Same(at, of) => (Tag::Same, Some(at), Some(of), fixed_texts.next()),
            Row::Removed(at) => (Tag::Removed, Some(at), None, base_texts.next()),
            Row::Added(of) => (Tag::Added, None, Some(of), fixed_texts.next()),
            Row::Gap => (Tag::Gap, None, None, None),
        };
        let base_text = match *row {
            Row::Same(at, _) if points(at) => base_texts.next(),
            _ => None,
        };
        let base_text = base_text.filter(|base| Some(base) != text.as_ref());
        DiffLine {
            tag,
            base_offset: base.map(|at| b.body.instructions[at].offset),
            fixed_offset: fixed.map(|of| f.body.instructions[of].offset),
            text: text.unwrap_or_default(),
            base_text,
        }
    };
    rows.iter().map(line).collect()
}
