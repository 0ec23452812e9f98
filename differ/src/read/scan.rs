//! Decodes every function once and keeps what points somewhere.
//!
//! Two bodies are equal when their bytes are equal outside the fields of their references and the
//! references mean the same. So the references are all that comparing needs of the instructions,
//! and no function is decoded twice unless it changed.

use hpbuild_metadata::{Machine, Rva, Side};
use rayon::prelude::*;

use super::alike::Decoded;
use super::fixups;
use super::table_jumps::jumps_in;
use crate::decode::{
    Body, Code, Field, Instruction, JumpTable, Reference, ReferenceKind, TableJump, decode,
    refer_from_tables, refer_to_neighbours, relative_tables, runs_on,
};
use crate::image::{Fixup, Function, PlacedReference, Procedure, References};
use crate::pe::Pe;
use crate::stretches::Stretches;

/// What the code of an image points at.
pub(super) struct Scanned<S: Side> {
    /// The references of all functions.
    pub(super) references: References<S>,
    /// Tables of distances from their own start; sorted, unique.
    pub(super) relative_tables: Vec<Rva<S>>,
    /// Tables of RVAs, with the index of the function that jumps through each.
    pub(super) jump_tables: Vec<(usize, JumpTable<S>)>,
    /// Where references lead to outside of code, pages left out; some repeated.
    pub(super) reached: Vec<Rva<S>>,
    /// What is called, jumped to or has its address taken in code outside of the functions; some
    /// repeated.
    pub(super) unknown: Vec<Rva<S>>,
    /// For each function whether its references are all that its place and its fields tell: see
    /// [`Body::is_movable`].
    pub(super) is_movable: Vec<bool>,
}

/// What a thread works with: memory that is used again for each chunk.
struct Scratch<S: Side> {
    body: Body<S>,
    references: Vec<PlacedReference<S>>,
}

/// What some consecutive functions point at.
struct Chunk<S: Side> {
    references: Box<[PlacedReference<S>]>,
    /// Where in `references` those of each function begin.
    starts: Vec<u32>,
    relative_tables: Vec<Rva<S>>,
    /// Tables with the place in the chunk of the function that jumps through each.
    jump_tables: Vec<(usize, JumpTable<S>)>,
    reached: Vec<Rva<S>>,
    unknown: Vec<Rva<S>>,
    is_movable: Vec<bool>,
}

impl<S: Side> Default for Chunk<S> {
    fn default() -> Self {
        Self {
            references: Box::default(),
            starts: Vec::new(),
            relative_tables: Vec::new(),
            jump_tables: Vec::new(),
            reached: Vec::new(),
            unknown: Vec::new(),
            is_movable: Vec::new(),
        }
    }
}

impl<S: Side> Chunk<S> {
    /// Sorts out where the references lead that do not lead into functions.
    fn note_targets(&mut self, pe: &Pe<S>, known: &Known<'_, S>) {
        for PlacedReference { reference, .. } in &self.references {
            let section = pe.section_at(reference.target);
            match (reference.kind, section.map(|section| section.is_code())) {
                (ReferenceKind::Page, _) | (_, None) => {}
                (_, Some(false)) => self.reached.push(reference.target),
                (ReferenceKind::Memory(_), Some(true)) => {}
                (_, Some(true)) if known.hold(reference.target) => {}
                (_, Some(true)) => self.unknown.push(reference.target),
            }
        }
        self.reached.sort_unstable();
        self.reached.dedup();
    }
}

/// The functions that are known, for finding what is in none.
struct Known<'a, S: Side> {
    functions: &'a [Function<S>],
    starts: Stretches,
}

impl<S: Side> Known<'_, S> {
    /// Whether another function starts where one ends.
    fn start_behind(&self, function: &Function<S>) -> bool {
        let Some(end) = function.rva.checked_add(function.size) else {
            return false;
        };
        let functions = &self.functions[self.starts.of(end.get())];
        functions.binary_search_by_key(&end, |it| it.rva).is_ok()
    }

    /// Whether an address lies in a function.
    fn hold(&self, rva: Rva<S>) -> bool {
        let among = self.starts.of(rva.get());
        let first = among.start;
        let behind = first + self.functions[among].partition_point(|it| it.rva <= rva);
        let before = behind.checked_sub(1).map(|index| &self.functions[index]);
        before.is_some_and(|function| rva.get() - function.rva.get() < function.size)
    }
}

/// Decodes all `functions` in parallel, but for those that are the same in `other`, the other image.
pub(super) fn scan<S: Side, O: Side>(
    pe: &Pe<S>,
    (fixups, jumps): (&[Fixup<S>], &[TableJump<S>]),
    (functions, procedures): (&[Function<S>], &[Procedure]),
    other: Option<&Decoded<'_, O>>,
) -> Scanned<S> {
    let known = Known {
        functions,
        starts: Stretches::new(functions.iter().map(|function| function.rva.get())),
    };
    let scratch = || Scratch {
        body: Body::default(),
        references: Vec::new(),
    };
    let chunks: Vec<Chunk<S>> = functions
        .par_chunks(References::<S>::TOGETHER)
        .map_init(scratch, |scratch, functions| {
            let mut chunk = Chunk {
                starts: Vec::with_capacity(functions.len()),
                is_movable: vec![false; functions.len()],
                ..Chunk::default()
            };
            scratch.references.clear();
            let mut expected = usize::MAX;
            for function in functions {
                chunk.starts.push(index(scratch.references.len()));
                let found = &mut scratch.references;
                // What may run on into a function behind it tells by its last instruction.
                let is_known = other.filter(|_| !known.start_behind(function));
                let is_known = is_known.is_some_and(|other| {
                    other.copy((pe, procedures), function, &mut expected, found)
                });
                if is_known {
                    debug_assert!(is_decoded(pe, jumps, function, scratch, &chunk));
                } else {
                    add_references(pe, (fixups, jumps), function, scratch, &mut chunk);
                    let run_on = run_on(pe, function, &known, &scratch.body);
                    scratch.references.extend(run_on);
                }
            }
            chunk.references = scratch.references.as_slice().into();
            chunk.note_targets(pe, &known);
            chunk
        })
        .collect();
    let mut scanned = Scanned {
        references: References {
            chunks: Vec::with_capacity(chunks.len()),
            starts: Vec::with_capacity(functions.len()),
        },
        relative_tables: Vec::new(),
        jump_tables: Vec::new(),
        reached: Vec::new(),
        unknown: Vec::new(),
        is_movable: Vec::with_capacity(functions.len()),
    };
    for (number, chunk) in chunks.into_iter().enumerate() {
        scanned.references.starts.extend(chunk.starts);
        scanned.references.chunks.push(chunk.references);
        scanned.relative_tables.extend(chunk.relative_tables);
        scanned.reached.extend(chunk.reached);
        scanned.unknown.extend(chunk.unknown);
        scanned.is_movable.extend(chunk.is_movable);
        let first = number * References::<S>::TOGETHER;
        let jumps = chunk.jump_tables.into_iter();
        let jumps = jumps.map(|(at, table)| (first + at, table));
        scanned.jump_tables.extend(jumps);
    }
    scanned.relative_tables.sort_unstable();
    scanned.relative_tables.dedup();
    scanned
}

fn index(length: usize) -> u32 {
    u32::try_from(length).expect("an image of 4 GiB has fewer than 2^32 references")
}

/// What the code of a function shows by itself.
pub(super) fn uncorrected<S: Side>(machine: Machine, code: Code<'_, S>, body: &mut Body<S>) {
    decode(machine, code, body);
    refer_from_tables(code, body);
}

/// Whether decoding a function gives the references that were copied last, and nothing else.
fn is_decoded<S: Side>(
    pe: &Pe<S>,
    jumps: &[TableJump<S>],
    function: &Function<S>,
    scratch: &Scratch<S>,
    chunk: &Chunk<S>,
) -> bool {
    let mut decoded = Scratch {
        body: Body::default(),
        references: Vec::new(),
    };
    let mut found = Chunk {
        starts: vec![0],
        is_movable: vec![false],
        ..Chunk::default()
    };
    add_references(pe, (&[], jumps), function, &mut decoded, &mut found);
    let copied = chunk.starts.last().map(|start| *start as usize);
    found.is_movable[0]
        && found.jump_tables.is_empty()
        && copied.and_then(|start| scratch.references.get(start..)) == Some(&decoded.references)
}

/// Adds what one function points at.
fn add_references<S: Side>(
    pe: &Pe<S>,
    (fixups, jumps): (&[Fixup<S>], &[TableJump<S>]),
    function: &Function<S>,
    scratch: &mut Scratch<S>,
    chunk: &mut Chunk<S>,
) {
    let body = &mut scratch.body;
    let code = code_at(pe, jumps, function);
    uncorrected(pe.machine, code, body);
    fixups::correct(fixups, function, body);
    let tables = relative_tables(pe.machine, code, body);
    let at = chunk.starts.len() - 1;
    chunk.is_movable[at] = body.is_movable && tables.is_empty() && fixups.is_empty();
    chunk.relative_tables.extend(tables);
    refer_to_neighbours(pe.machine, code, body);
    let mut pages: Vec<u32> = body.page_links.iter().map(|link| link.page).collect();
    pages.sort_unstable();
    let placed = (0_u32..)
        .zip(&body.instructions)
        .filter_map(|(index, instruction)| {
            let reference = instruction.reference?;
            Some(PlacedReference {
                offset: instruction.offset,
                length: instruction.length,
                completed_elsewhere: reference.kind == ReferenceKind::Page
                    && pages.binary_search(&index).is_ok(),
                reference,
            })
        });
    // Branches inside the function move with it and are plain bytes on both machines: an x64
    // displacement and an Arm64 offset both count from the instruction.
    let end = u64::from(function.rva.get()) + u64::from(function.size);
    let inside = |reference: &PlacedReference<S>| {
        let target = reference.reference.target;
        target >= function.rva && u64::from(target.get()) < end && is_branch(reference)
    };
    let placed = placed.filter(|reference| !inside(reference));
    scratch.references.extend(placed);
    let jumps = body.jump_tables.drain(..).map(|table| (at, table));
    chunk.jump_tables.extend(jumps);
}

/// Code that runs on into the function behind it jumps there, in a way: with an instruction of no
/// bytes. Through instructions that do nothing at its end it runs on, too, where it leads to them,
/// whatever stands before them.
fn run_on<S: Side>(
    pe: &Pe<S>,
    function: &Function<S>,
    known: &Known<'_, S>,
    body: &Body<S>,
) -> Option<PlacedReference<S>> {
    if !known.start_behind(function) {
        return None;
    }
    let end = function.rva.checked_add(function.size)?;
    let goes_on = |instruction: &Instruction<S>| {
        let place = function.rva.checked_add(instruction.offset)?;
        let bytes = pe.bytes(place, instruction.length.into())?;
        match instruction.valid {
            true => runs_on(pe.machine, bytes),
            false => Some(false),
        }
    };
    let instructions = &body.instructions;
    let last = instructions.iter().rposition(|it| goes_on(it).is_some());
    let nops = &instructions[last.map_or(0, |last| last + 1)..];
    let is_led_to = || {
        let first = function.rva.checked_add(nops.first()?.offset)?;
        let led_to = instructions.iter().filter_map(|it| it.reference);
        let mut led_to = led_to.filter(|it| it.kind != ReferenceKind::Page);
        Some(first == function.rva || led_to.any(|it| first <= it.target && it.target < end))
    };
    let runs = last.and_then(|last| goes_on(&instructions[last])) == Some(true)
        || is_led_to() == Some(true);
    runs.then_some(PlacedReference {
        offset: function.size,
        length: 0,
        completed_elsewhere: false,
        reference: Reference {
            target: end,
            kind: ReferenceKind::Jump,
            field: Field::Word { mask: 0 },
        },
    })
}

pub(super) fn is_branch<S: Side>(reference: &PlacedReference<S>) -> bool {
    use ReferenceKind::{Call, ConditionalJump, Jump};
    matches!(reference.reference.kind, Call | Jump | ConditionalJump)
}

/// The code of a function, ready to be decoded.
pub fn code_at<'a, S: Side>(
    pe: &'a Pe<S>,
    jumps: &'a [TableJump<S>],
    function: &Function<S>,
) -> Code<'a, S> {
    // Arm64 code has no room for an absolute address.
    let relocated = match pe.machine {
        Machine::X64 => pe.relocations_in(function.rva, function.size),
        Machine::Arm64 => &[],
    };
    Code {
        bytes: pe.bytes(function.rva, function.size).unwrap_or_default(),
        rva: function.rva,
        image_base: pe.image_base,
        relocated,
        jumps: jumps_in(jumps, function.rva, function.size),
    }
}
