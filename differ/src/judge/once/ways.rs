//! Where control may go inside a function: between its instructions, its cold parts included.
//!
//! Only what the code itself shows: a jump through a table goes where its entries lead, and what no
//! way leads to, the system enters, as it does what catches exceptions.

use hpbuild_metadata::{FunctionId, Rva, Side};

use crate::decode::{self, Body, Flow, Instruction, Reference, ReferenceKind};
use crate::image::{FunctionKind, Image};
use crate::meaning::jump_table_entries;
use crate::read::code_at;

/// More instructions than any function has that a person wrote.
const MAX_INSTRUCTIONS: usize = 1 << 18;

/// More cold parts than compilers make of one function.
const MAX_PARTS: usize = 64;

/// An instruction, by its number among all of the function and its parts.
pub(super) type Place = usize;

/// Jumps through tables that are followed in one function, and tables of one jump.
const MAX_JUMPS: usize = 64;
const MAX_TABLES: usize = 4;

/// The jump tables of an image by the jumps that go through them.
pub(super) struct Tables<S: Side>(Vec<(Rva<S>, usize)>);

impl<S: Side> Tables<S> {
    pub(super) fn new(image: &Image<S>) -> Self {
        let tables = image.switch_tables.iter().enumerate();
        let mut tables: Vec<_> = tables.map(|(index, it)| (it.branch, index)).collect();
        tables.sort_unstable();
        Self(tables)
    }

    fn of(&self, branch: Rva<S>) -> impl Iterator<Item = usize> {
        let first = self.0.partition_point(|(it, _)| *it < branch);
        let found = self.0[first..].iter().take_while(move |it| it.0 == branch);
        found.map(|(_, index)| *index)
    }
}

/// The instructions of a function and of its cold parts.
pub(super) struct Ways<'a, S: Side> {
    image: &'a Image<S>,
    parts: Vec<Part<'a, S>>,
    steps: Vec<Step>,
}

/// One stretch of code.
struct Part<'a, S: Side> {
    id: FunctionId<S>,
    rva: Rva<S>,
    bytes: &'a [u8],
    body: Body<S>,
    /// The number of its first instruction.
    first: Place,
}

/// How a function is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exit {
    /// To who called it, or to another function that goes on in its place.
    Out,
    /// By a jump of which nobody knows where it goes.
    Unknown,
    /// By the end of the process, or behind a call that does not come back.
    End,
}

/// Where control goes behind one instruction.
#[derive(Default)]
pub(super) struct Step {
    /// The next instruction.
    next: Option<Place>,
    /// Where a jump inside the function leads.
    target: Option<Place>,
    /// Where a jump through tables leads; sorted, unique.
    table: Box<[Place]>,
    pub(super) exit: Option<Exit>,
    pub(super) is_call: bool,
}

impl Step {
    /// Other instructions of the function.
    pub(super) fn to(&self) -> impl Iterator<Item = Place> {
        let near = self.next.into_iter().chain(self.target);
        near.chain(self.table.iter().copied())
    }
}

impl<'a, S: Side> Ways<'a, S> {
    /// `None` where the function is too large to be followed, or has no code.
    pub(super) fn new(image: &'a Image<S>, tables: &Tables<S>, id: FunctionId<S>) -> Option<Self> {
        let mut ways = Self {
            image,
            parts: Vec::new(),
            steps: Vec::new(),
        };
        let mut ids = vec![id];
        let mut count = 0;
        while let Some(&id) = ids.get(ways.parts.len()) {
            count += ways.add(id, count);
            if count > MAX_INSTRUCTIONS || ways.parts.len() > MAX_PARTS {
                return None;
            }
            for placed in image.references_of(id) {
                let part = ways.part_behind(ids[0], &placed.reference);
                if let Some(part) = part.filter(|part| !ids.contains(part)) {
                    ids.push(part);
                }
            }
        }
        let mut jumps = 0;
        let steps = (0..count).map(|place| ways.step_behind(place, tables, &mut jumps));
        ways.steps = steps.collect();
        (count > 0).then_some(ways)
    }

    /// The cold part of a function that an operand of its code jumps to.
    fn part_behind(&self, owner: FunctionId<S>, to: &Reference<S>) -> Option<FunctionId<S>> {
        if !matches!(
            to.kind,
            ReferenceKind::Jump | ReferenceKind::ConditionalJump
        ) {
            return None;
        }
        let part = self.image.function_at(to.target)?;
        let is_part = self.image.function(part).kind == FunctionKind::Separated;
        (is_part && self.image.owner_of(part) == Some(owner)).then_some(part)
    }

    /// Adds a stretch of code; how many instructions that has.
    fn add(&mut self, id: FunctionId<S>, first: Place) -> usize {
        let image = self.image;
        let code = code_at(&image.pe, &image.table_jumps, image.function(id));
        let mut body = Body::default();
        decode::decode(self.image.pe.machine, code, &mut body);
        let count = body.instructions.len();
        self.parts.push(Part {
            id,
            rva: code.rva,
            bytes: code.bytes,
            body,
            first,
        });
        count
    }

    /// All instructions. The first one is the entry.
    pub(super) fn places(&self) -> std::ops::Range<Place> {
        0..self.steps.len()
    }

    /// Where control goes behind an instruction. A call is taken to come back.
    pub(super) fn step(&self, place: Place) -> &Step {
        &self.steps[place]
    }

    fn part_of(&self, place: Place) -> (&Part<'a, S>, &Instruction<S>) {
        let behind = self.parts.partition_point(|it| it.first <= place);
        let part = &self.parts[behind - 1];
        (part, &part.body.instructions[place - part.first])
    }

    /// The function or part that an instruction is of, and its offset there.
    pub(super) fn offset(&self, place: Place) -> (FunctionId<S>, u32) {
        let (part, instruction) = self.part_of(place);
        (part.id, instruction.offset)
    }

    /// Where the operand of an instruction points.
    pub(super) fn target(&self, place: Place) -> Option<Rva<S>> {
        Some(self.part_of(place).1.reference?.target)
    }

    /// Whether this is an instruction and not a constant between others.
    pub(super) fn is_code(&self, place: Place) -> bool {
        self.part_of(place).1.valid
    }

    fn place_at(&self, rva: Rva<S>) -> Option<Place> {
        self.parts.iter().find_map(|part| {
            let offset = rva.checked_sub(part.rva)?;
            let found = &part.body.instructions;
            let index = found.binary_search_by_key(&offset, |it| it.offset).ok()?;
            Some(part.first + index)
        })
    }

    fn step_behind(&self, place: Place, tables: &Tables<S>, jumps: &mut usize) -> Step {
        let (part, instruction) = self.part_of(place);
        let start = instruction.offset as usize;
        let bytes = part
            .bytes
            .get(start..start + usize::from(instruction.length));
        let flow = match bytes.filter(|_| instruction.valid) {
            Some(bytes) => decode::flow(self.image.pe.machine, bytes),
            None => Flow::Trap,
        };
        let mut step = Step {
            is_call: flow == Flow::Call,
            ..Step::default()
        };
        match flow {
            Flow::Return | Flow::Away => step.exit = Some(Exit::Out),
            Flow::Trap => step.exit = Some(Exit::End),
            Flow::Indirect => {
                *jumps += 1;
                step.table = match *jumps > MAX_JUMPS {
                    true => Box::default(),
                    false => self.behind_tables(part, instruction, tables),
                };
                step.exit = step.table.is_empty().then_some(Exit::Unknown);
            }
            Flow::Next | Flow::Call | Flow::Jump | Flow::ConditionalJump => {}
        }
        if matches!(flow, Flow::Next | Flow::Call | Flow::ConditionalJump) {
            let is_last = place + 1 == part.first + part.body.instructions.len();
            match is_last {
                false => step.next = Some(place + 1),
                // Compilers end functions with calls that do not come back. Other code runs on into
                // what follows.
                true if step.is_call => step.exit = Some(Exit::End),
                true => step.exit = Some(Exit::Out),
            }
        }
        if matches!(flow, Flow::Jump | Flow::ConditionalJump) {
            let target = instruction.reference.map(|it| it.target);
            match target.map(|it| (self.place_at(it), self.is_inside(it))) {
                Some((Some(place), _)) => step.target = Some(place),
                Some((None, false)) => step.exit = Some(Exit::Out),
                _ => step.exit = Some(Exit::Unknown),
            }
        }
        step
    }

    fn is_inside(&self, rva: Rva<S>) -> bool {
        let is_in = |part: &Part<'_, S>| {
            let offset = rva.checked_sub(part.rva);
            offset.is_some_and(|it| (it as usize) < part.bytes.len())
        };
        self.parts.iter().any(is_in)
    }

    /// Where the tables lead that an instruction jumps through; nowhere if that is not known.
    fn behind_tables(
        &self,
        part: &Part<'_, S>,
        instruction: &Instruction<S>,
        tables: &Tables<S>,
    ) -> Box<[Place]> {
        let branch = part.rva.checked_add(instruction.offset);
        let tables = branch.into_iter().flat_map(|it| tables.of(it));
        let places = tables.take(MAX_TABLES).map(|index| {
            let entries = jump_table_entries(self.image, &self.image.switch_tables[index])?;
            let mut places: Vec<_> =
                (entries.iter().map(|it| self.place_at(*it))).collect::<Option<_>>()?;
            places.sort_unstable();
            places.dedup();
            Some(places)
        });
        let places: Option<Vec<_>> = places.collect();
        let mut places = places.unwrap_or_default().concat();
        places.sort_unstable();
        places.dedup();
        places.into()
    }

    /// For each instruction whether some way leads there from the instructions `from`, without the
    /// ways, each from one instruction to another, that `is_closed` names.
    pub(super) fn reached(
        &self,
        from: impl IntoIterator<Item = Place>,
        is_closed: impl Fn(Place, Place) -> bool,
    ) -> Vec<bool> {
        let mut reached = vec![false; self.steps.len()];
        let mut open: Vec<Place> = from.into_iter().collect();
        for place in &open {
            reached[*place] = true;
        }
        while let Some(place) = open.pop() {
            for to in self.step(place).to() {
                if !reached[to] && !is_closed(place, to) {
                    reached[to] = true;
                    open.push(to);
                }
            }
        }
        reached
    }

    /// Instructions that no way leads to from the entry: the system enters them, or nobody.
    pub(super) fn strays(&self) -> Vec<Place> {
        let reached = self.reached([0], |_, _| false);
        let strays = self
            .places()
            .filter(|it| !reached[*it] && self.is_code(*it));
        strays.collect()
    }
}
