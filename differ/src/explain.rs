//! What exactly changed between two bodies: their instructions, aligned.
//!
//! Each instruction becomes a token of its bytes without the reference field and of what the
//! reference means, named by the base's side of each pair, so that mere movement leaves tokens
//! equal. The tokens are aligned; what is not aligned is the change.

mod aligned;
mod data;
mod kinds;
mod reached;
mod value;

use std::hash::{Hash, Hasher};

use hpbuild_metadata::{Base, Fixed, FunctionId, Rva, Side};
use rustc_hash::FxHasher;
use serde::Serialize;
use similar::{Algorithm, capture_diff_slices};

use crate::compare::Kind;
use crate::compare::location::PairLines;
use crate::decode::{Body, Instruction, Reference, ReferenceKind, decode};
use crate::handling;
use crate::image::Image;
use crate::inline::{Inlined, inlined};
use crate::meaning::{Comparer, Operand, Target, anonymous_extent, resolve};
use crate::names::display_data;
use crate::read::code_at;
use crate::text;
use aligned::Aligned;
use kinds::classify;
use reached::Reached;

pub(crate) use data::of_symbol;
pub use data::{Contents, Differences, Entry};
pub(crate) use value::{quote, quoted, short, whole_text};

/// The instruction diff of two bodies.
#[derive(Clone, Debug, Default)]
pub struct Explanation {
    /// In what the aligned instructions differ; sorted.
    pub kinds: Vec<Kind>,
    /// Changed instructions and some around them, in order.
    pub lines: Vec<DiffLine>,
    /// What differs in data that instructions reach, in order of the base's instructions.
    pub contents: Vec<Contents>,
    /// How many more references lead to data that differs.
    pub more_contents: u32,
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
    /// The instruction with symbolic operands; where it stands on both sides, as the fixed image has
    /// it.
    pub text: String,
    /// As the base has it, where that reads otherwise: places inside the function moved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base_text: Option<String>,
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
        let code = code_at(&image.pe, &image.table_jumps, image.function(id));
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

    /// An operand of the function.
    fn operand(&self, instruction: &Instruction<S>, reference: Reference<S>) -> Operand<S> {
        Operand {
            function: self.id,
            offset: instruction.offset,
            reference,
        }
    }

    /// The offset a branch inside the function leads to.
    fn inner_target(&self, instruction: &Instruction<S>) -> Option<u32> {
        self.offset_of(instruction.reference?.target)
    }

    /// The offset of a place inside the function.
    fn offset_of(&self, rva: Rva<S>) -> Option<u32> {
        let function = self.image.function(self.id);
        rva.checked_sub(function.rva)
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
                base_text: None,
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
    let mut reached = Reached::new(comparer, &aligned);
    let pair_lines = PairLines::new(comparer, base, fixed);
    aligned.check_equal(comparer, &b, &f, &pair_lines, &mut kinds, &mut reached);
    classify(
        &ops,
        comparer,
        &b,
        &f,
        &pair_lines,
        &mut kinds,
        &mut reached,
    );
    kinds.sort_unstable();
    kinds.dedup();
    let lines = aligned.lines(&b, &f);
    let (contents, more_contents) = reached.contents(&b, &f);
    let inlined = inlined((comparer.base, base), (comparer.fixed, fixed), &lines);
    Explanation {
        kinds,
        lines,
        contents,
        more_contents,
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
                .map(|procedure| display_data(&procedure.name));
            with_offset(name.unwrap_or_else(|| image.display_name(id)), offset)
        }
        Target::Data { id, offset } => {
            let symbol = image.data_symbol(id);
            // Their names hold no more than what they begin with.
            let is_text = symbol.name.starts_with("??_C@") && offset == 0;
            let text = is_text
                .then(|| text::whole(image, rva, symbol.size))
                .flatten();
            text.unwrap_or_else(|| with_offset(symbol.display(), offset))
        }
        Target::Import(index) => {
            let import = &image.pe.imports[index];
            let symbol = display_data(&import.symbol.to_string());
            format!("{}!{symbol}", import.dll)
        }
        Target::ImageBase(offset) => with_offset("__ImageBase".into(), offset),
        Target::JumpTable(_) => "jump table".into(),
        Target::Anonymous(rva) => return text::constant(image, rva, width),
        Target::Outside => return None,
    })
}
