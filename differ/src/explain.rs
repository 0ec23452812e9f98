//! What exactly changed between two bodies: their instructions, aligned.
//!
//! Each instruction becomes a token of its bytes without the reference field and of what the
//! reference means, named by the base's side of each pair, so that mere movement leaves tokens
//! equal. The tokens are aligned; what is not aligned is the change.

use std::cell::LazyCell;
use std::hash::{Hash, Hasher};

use hpbuild_metadata::{Base, Fixed, FunctionId, Rva, Side};
use rustc_hash::FxHasher;
use serde::Serialize;
use similar::{Algorithm, DiffOp, capture_diff_slices};

use crate::compare::{Kind, kind_of};
use crate::decode::{Body, Constants, Instruction, ReferenceKind, decode};
use crate::handling;
use crate::image::Image;
use crate::inline::{Inlined, inlined};
use crate::lines::lines_of;
use crate::meaning::{Comparer, Meaning, Target, anonymous_extent, resolve};
use crate::read::code_at;
use crate::text;

/// Unchanged instructions shown around a change.
const CONTEXT: usize = 3;

/// The instruction diff of two bodies.
#[derive(Clone, Debug, Default)]
pub struct Explanation {
    /// In what the aligned instructions differ; sorted.
    pub kinds: Vec<Kind>,
    /// Changed instructions and some around them, in order.
    pub lines: Vec<DiffLine>,
    /// Inlined functions that changed instructions came from, those with most first.
    pub inlined: Vec<Inlined>,
}

/// One line of an instruction diff.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DiffLine {
    /// On which side the instruction stands.
    pub tag: Tag,
    /// Bytes from the start of the base function.
    pub base_offset: Option<u32>,
    /// Bytes from the start of the fixed function.
    pub fixed_offset: Option<u32>,
    /// The instruction with symbolic operands.
    pub text: String,
}

/// On which side an instruction stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Tag {
    /// On both.
    Same,
    /// Only in the base.
    Removed,
    /// Only in the fixed image.
    Added,
    /// Lines left out.
    Gap,
}

/// One side of a pair, decoded.
struct Listing<'a, S: Side> {
    image: &'a Image<S>,
    id: FunctionId<S>,
    code: &'a [u8],
    body: Body<S>,
}

impl<'a, S: Side> Listing<'a, S> {
    fn new(image: &'a Image<S>, id: FunctionId<S>) -> Self {
        let mut body = Body::default();
        let code = code_at(&image.pe, image.function(id));
        decode(image.pe.machine, code, &mut body);
        crate::decode::refer_from_tables(code, &mut body);
        crate::decode::refer_to_neighbours(image.pe.machine, code, &mut body);
        Self {
            image,
            id,
            code: code.bytes,
            body,
        }
    }

    fn bytes(&self, instruction: &Instruction<S>) -> &'a [u8] {
        let start = instruction.offset as usize;
        self.code
            .get(start..start + usize::from(instruction.length))
            .unwrap_or_default()
    }

    /// The offset a branch inside the function leads to.
    fn inner_target(&self, instruction: &Instruction<S>) -> Option<u32> {
        let target = instruction.reference?.target;
        let function = self.image.function(self.id);
        target
            .checked_sub(function.rva)
            .filter(|offset| *offset < function.size)
    }

    /// Hashes the instruction, with the meaning of its operand as `canonical` names it.
    fn token(
        &self,
        (index, instruction): (usize, &Instruction<S>),
        canonical: &dyn Fn(&Instruction<S>, &mut FxHasher),
    ) -> u64 {
        // No instruction is longer; what is none is cut into pieces that are not.
        let mut longest = [0; 16];
        let length = self.bytes(instruction).len().min(longest.len());
        let bytes = &mut longest[..length];
        bytes.copy_from_slice(&self.bytes(instruction)[..length]);
        let mut hash = FxHasher::default();
        if let Some(reference) = instruction.reference {
            reference.field.clear(bytes);
            // A page that others complete means nothing by itself.
            let is_page = reference.kind == ReferenceKind::Page
                && crate::decode::is_completed(&self.body, index);
            if self.inner_target(instruction).is_none() && !is_page {
                canonical(instruction, &mut hash);
            }
        }
        bytes.hash(&mut hash);
        hash.finish()
    }

    fn index_at(&self, offset: u32) -> Option<usize> {
        self.body
            .instructions
            .binary_search_by_key(&offset, |i| i.offset)
            .ok()
    }
}

impl Explanation {
    /// Adds what differs in the exception data, in words.
    pub(crate) fn add_handling(
        &mut self,
        comparer: &Comparer<'_>,
        differences: &[handling::Difference],
    ) {
        for (what, before, after) in differences {
            let line = |tag, value: Option<String>| DiffLine {
                tag,
                base_offset: None,
                fixed_offset: None,
                text: format!(
                    "{}: {}",
                    what.words(),
                    value.unwrap_or_else(|| "none".into())
                ),
            };
            let before = before.map(|value| handling_value(comparer.base, value));
            let after = after.map(|value| handling_value(comparer.fixed, value));
            self.lines.push(line(Tag::Removed, before));
            self.lines.push(line(Tag::Added, after));
        }
    }
}

fn handling_value<S: Side>(image: &Image<S>, value: handling::Value<S>) -> String {
    match value {
        handling::Value::Number(number) => format!("{number:#x}"),
        handling::Value::Opaque(word) => format!("{word:#x}"),
        handling::Value::Place(rva) => {
            name_at(image, rva, 0).unwrap_or_else(|| format!("rva {rva}"))
        }
    }
}

/// Aligns the instructions of two bodies and says in what they differ.
pub fn explain(
    comparer: &Comparer<'_>,
    base: FunctionId<Base>,
    fixed: FunctionId<Fixed>,
) -> Explanation {
    let b = Listing::new(comparer.base, base);
    let f = Listing::new(comparer.fixed, fixed);
    let b_tokens: Vec<u64> = b
        .body
        .instructions
        .iter()
        .enumerate()
        .map(|i| b.token(i, &|i, hash| base_meaning(comparer, i, hash)))
        .collect();
    let f_tokens: Vec<u64> = f
        .body
        .instructions
        .iter()
        .enumerate()
        .map(|i| f.token(i, &|i, hash| fixed_meaning(comparer, i, hash)))
        .collect();
    let ops = capture_diff_slices(Algorithm::Myers, &b_tokens, &f_tokens);
    let mut aligned = Aligned::new(&ops, b_tokens.len(), f_tokens.len());
    let mut kinds = Vec::new();
    aligned.check_equal(comparer, &b, &f, &mut kinds);
    classify(&ops, comparer, &b, &f, &mut kinds);
    kinds.sort_unstable();
    kinds.dedup();
    let lines = aligned.lines(&b, &f);
    let inlined = inlined((comparer.base, base), (comparer.fixed, fixed), &lines);
    Explanation {
        kinds,
        lines,
        inlined,
    }
}

/// The base's name for what an operand means.
fn base_meaning(comparer: &Comparer<'_>, instruction: &Instruction<Base>, hash: &mut FxHasher) {
    let Some(reference) = instruction.reference else {
        return;
    };
    let image = comparer.base;
    match comparer.in_base(reference.target) {
        Target::Function { id, offset } => (1_u8, id.index(), offset).hash(hash),
        Target::Data { id, offset } => (2_u8, id.index(), offset).hash(hash),
        other => shared_meaning(image, other, instruction, hash),
    }
}

/// The base's name for what an operand of the fixed image means, or one that no base operand has.
fn fixed_meaning(comparer: &Comparer<'_>, instruction: &Instruction<Fixed>, hash: &mut FxHasher) {
    let Some(reference) = instruction.reference else {
        return;
    };
    let image = comparer.fixed;
    match comparer.in_fixed(reference.target) {
        Target::Function { id, offset } => match comparer.pairing.base_function(id) {
            Some(base) => (1_u8, base.index(), offset).hash(hash),
            None => (3_u8, id.index(), offset).hash(hash),
        },
        Target::Data { id, offset } => match comparer.pairing.base_data(id) {
            Some(base) => (2_u8, base.index(), offset).hash(hash),
            None => (4_u8, id.index(), offset).hash(hash),
        },
        other => shared_meaning(image, other, instruction, hash),
    }
}

/// Meanings that are told without pairing.
fn shared_meaning<S: Side>(
    image: &Image<S>,
    target: Target<S>,
    instruction: &Instruction<S>,
    hash: &mut FxHasher,
) {
    match target {
        Target::Import(index) => image.pe.imports[index].symbol.hash(hash),
        Target::Anonymous(rva) => {
            let kind = instruction.reference.map(|reference| reference.kind);
            let extent = kind.and_then(|kind| anonymous_extent(image, rva, kind));
            extent
                .and_then(|extent| image.pe.bytes(rva, extent.size))
                .hash(hash);
        }
        Target::JumpTable(_) => 5_u8.hash(hash),
        _ => 6_u8.hash(hash),
    }
}

/// For each instruction its partner.
struct Aligned {
    base: Vec<Option<usize>>,
    fixed: Vec<Option<usize>>,
}

impl Aligned {
    fn new(ops: &[DiffOp], base_count: usize, fixed_count: usize) -> Self {
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

    /// Tokens leave out what they cannot name on both sides; this looks again at every aligned
    /// operand, and parts what differs after all.
    fn check_equal(
        &mut self,
        comparer: &Comparer<'_>,
        b: &Listing<'_, Base>,
        f: &Listing<'_, Fixed>,
        kinds: &mut Vec<Kind>,
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
                    if let Meaning::Different(difference) = meaning {
                        kinds.push(kind_of(difference));
                        parted.push((index, partner));
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
    fn lines(&self, b: &Listing<'_, Base>, f: &Listing<'_, Fixed>) -> Vec<DiffLine> {
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
    let base_shown = rows.iter().filter_map(|row| match row {
        Row::Removed(at) => Some(b.body.instructions[*at]),
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
        DiffLine {
            tag,
            base_offset: base.map(|at| b.body.instructions[at].offset),
            fixed_offset: fixed.map(|of| f.body.instructions[of].offset),
            text: text.unwrap_or_default(),
        }
    };
    rows.iter().map(line).collect()
}

/// Says in what the instructions differ that did not align.
fn classify(
    ops: &[DiffOp],
    comparer: &Comparer<'_>,
    b: &Listing<'_, Base>,
    f: &Listing<'_, Fixed>,
    kinds: &mut Vec<Kind>,
) {
    // Most changes are no constants, and nobody asks for their lines.
    let lines = LazyCell::new(|| (lines_of(b.image, b.id), lines_of(f.image, f.id)));
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
                    let kind = classify_pair(comparer, (b, bi), (f, fi));
                    let is_line = |it: Constants| {
                        let (b_lines, f_lines) = &*lines;
                        let is = |line: Option<u32>, value| line.map(u64::from) == Some(value);
                        is(b_lines.at(bi.offset), it.base) && is(f_lines.at(fi.offset), it.fixed)
                    };
                    kinds.push(match kind {
                        PairKind::Constants(it) if it.is_moved && is_line(it) => Kind::LineNumber,
                        PairKind::Constants(_) => Kind::Immediate,
                        PairKind::Reference(kind) => kind,
                        PairKind::Other => Kind::Code,
                    });
                }
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

fn classify_pair(
    comparer: &Comparer<'_>,
    (b, bi): (&Listing<'_, Base>, &Instruction<Base>),
    (f, fi): (&Listing<'_, Fixed>, &Instruction<Fixed>),
) -> PairKind {
    if let (Some(br), Some(fr)) = (bi.reference, fi.reference) {
        let (mut b_bytes, mut f_bytes) = (b.bytes(bi).to_vec(), f.bytes(fi).to_vec());
        br.field.clear(&mut b_bytes);
        fr.field.clear(&mut f_bytes);
        if br.field == fr.field && b_bytes == f_bytes {
            return match comparer.compare(br.target, fr.target, br.kind) {
                Meaning::Different(difference) => PairKind::Reference(kind_of(difference)),
                _ => PairKind::Other,
            };
        }
    }
    let machine = b.image.pe.machine;
    match crate::decode::constants_differing(machine, b.bytes(bi), f.bytes(fi)) {
        Some(values) => PairKind::Constants(values),
        None => PairKind::Other,
    }
}

/// A name for what stands at `rva`, for people.
pub(crate) fn name_at<S: Side>(image: &Image<S>, rva: Rva<S>, width: u16) -> Option<String> {
    let with_offset = |name: String, offset: u32| {
        if offset == 0 {
            name
        } else {
            format!("{name}+{offset:#x}")
        }
    };
    Some(match resolve(image, rva) {
        Target::Function { id, offset } => {
            let name = image
                .procedures_of(id)
                .first()
                .map(|procedure| procedure.name.to_string());
            with_offset(name.unwrap_or_else(|| image.display_name(id)), offset)
        }
        Target::Data { id, offset } => with_offset(image.data_symbol(id).name.to_string(), offset),
        Target::Import(index) => {
            let import = &image.pe.imports[index];
            match &import.symbol {
                crate::pe::ImportSymbol::Name(name) => format!("{}!{name}", import.dll),
                crate::pe::ImportSymbol::Ordinal(ordinal) => format!("{}!#{ordinal}", import.dll),
            }
        }
        Target::ImageBase => "__ImageBase".into(),
        Target::JumpTable(_) => "jump table".into(),
        Target::Anonymous(rva) => return text::constant(image, rva, width),
        Target::Outside => return None,
    })
}
