//! Which function of the base enters which other, and which are entered in ways that calls do not
//! show.

use hpbuild_metadata::{Base, FunctionId, Rva};

use crate::decode::ReferenceKind;
use crate::handling::{self, Value};
use crate::image::{FunctionKind, Image};
use crate::judge::Case;
use crate::meaning::{Target, relative_entries};
use crate::pair::funclet;
use crate::pe::ExportTarget;

/// Bytes of a page of Arm64 addresses.
const PAGE: u32 = 0x1000;

/// Longer chains of callers are cut off.
const MAX_CHAIN: usize = 64;

/// How a function can be entered other than by a call or a jump that names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Held {
    /// In no way that is known.
    No,
    /// By its address, which this function alone takes.
    By(FunctionId<Base>),
    /// By its address or as an export.
    Freely,
}

/// Calls and jumps from function to function, and what else enters functions.
pub(super) struct Graph {
    /// For each function where its own begin in `callees`, and their end.
    starts: Vec<usize>,
    callees: Vec<FunctionId<Base>>,
    held: Vec<Held>,
    is_called: Vec<bool>,
}

impl Graph {
    /// Reads all references of the base. What points at functions from within `lists` does not
    /// count: who reads those lists is known.
    pub(super) fn new(case: &Case<'_>, lists: &[(Rva<Base>, u32)]) -> Self {
        let base = case.comparer.base;
        let count = base.functions.len();
        let mut graph = Self {
            starts: Vec::with_capacity(count + 1),
            callees: Vec::new(),
            held: vec![Held::No; count],
            is_called: vec![false; count],
        };
        for id in base.function_ids() {
            let start = graph.callees.len();
            graph.starts.push(start);
            graph.add_code(case, id);
            graph.add_exits(base, id);
            graph.callees[start..].sort_unstable();
            let mut last = None;
            let mut kept = start;
            for index in start..graph.callees.len() {
                let callee = graph.callees[index];
                if last.replace(callee) != Some(callee) {
                    graph.callees[kept] = callee;
                    kept += 1;
                }
            }
            graph.callees.truncate(kept);
        }
        graph.starts.push(graph.callees.len());
        for callee in &graph.callees {
            graph.is_called[callee.index()] = true;
        }
        graph.add_data(base, lists);
        graph
    }

    /// What code of a function leads to.
    fn add_code(&mut self, case: &Case<'_>, id: FunctionId<Base>) {
        let base = case.comparer.base;
        for placed in base.references_of(id) {
            if placed.completed_elsewhere {
                continue;
            }
            let target = placed.reference.target;
            if placed.reference.kind == ReferenceKind::Page {
                // What is reached in that page is not known.
                self.hold_page(base, target);
                continue;
            }
            // Most jumps stay within their function.
            let function = base.function(id);
            if target
                .checked_sub(function.rva)
                .is_some_and(|at| at < function.size)
            {
                if target == function.rva && is_address(placed.reference.kind) {
                    self.hold(id, id);
                }
                continue;
            }
            let Target::Function { id: callee, offset } = case.comparer.in_base(target) else {
                continue;
            };
            // A place inside a function is where a part of it goes on, not an entry to hand out.
            match is_address(placed.reference.kind) && offset == 0 {
                true => self.hold(callee, id),
                false => self.callees.push(callee),
            }
        }
    }

    /// What an exception that leaves a function runs.
    fn add_exits(&mut self, base: &Image<Base>, id: FunctionId<Base>) {
        let (facts, _) = handling::facts(base, id);
        for fact in facts {
            if let Value::Place(rva) = fact.value
                && let Some(callee) = base.function_at(rva)
                && callee != id
            {
                self.callees.push(callee);
            }
        }
    }

    /// What data, exports and tables lead to.
    fn add_data(&mut self, base: &Image<Base>, lists: &[(Rva<Base>, u32)]) {
        let lists = merged(lists);
        let is_listed = |place: Rva<Base>| {
            let behind = lists.partition_point(|(start, _)| *start <= place);
            let list = behind.checked_sub(1).map(|index| lists[index]);
            list.is_some_and(|(start, size)| place.checked_sub(start).is_some_and(|at| at < size))
        };
        let absolute = base
            .pe
            .base_relocations
            .iter()
            .filter(|it| !is_listed(**it));
        let absolute =
            absolute.filter(|it| base.pe.section_at(**it).is_some_and(|it| !it.is_code()));
        let absolute = absolute.filter_map(|place| {
            let word = base.pe.bytes(*place, 8)?.first_chunk()?;
            base.pe.rva_of(u64::from_le_bytes(*word))
        });
        let unwinding = base.pe.exception_directory;
        let is_unwinding = |place: Rva<Base>| {
            unwinding
                .is_some_and(|(start, size)| place.checked_sub(start).is_some_and(|at| at < size))
        };
        let relative = base.image_relative.iter().filter(|it| !is_unwinding(**it));
        let relative = relative.filter_map(|place| {
            let word = base.pe.bytes(*place, 4)?.first_chunk()?;
            Some(Rva::new(u32::from_le_bytes(*word)))
        });
        let tables = base.relative_tables.iter();
        let tables = tables.filter_map(|it| relative_entries(&base.pe, &base.boundaries, *it));
        let exports = base.pe.exports.iter().filter_map(|it| match it.target {
            ExportTarget::Rva(rva) => Some(rva),
            ExportTarget::Forward(_) => None,
        });
        for rva in absolute
            .chain(relative)
            .chain(tables.flatten())
            .chain(exports)
        {
            if let Some(id) = base.function_at(rva) {
                self.held[id.index()] = Held::Freely;
            }
        }
    }

    fn hold(&mut self, id: FunctionId<Base>, by: FunctionId<Base>) {
        let held = &mut self.held[id.index()];
        *held = match *held {
            Held::No => Held::By(by),
            Held::By(other) if other == by => Held::By(by),
            _ => Held::Freely,
        };
    }

    fn hold_page(&mut self, base: &Image<Base>, page: Rva<Base>) {
        let first = base.functions.partition_point(|it| it.rva < page);
        let functions = base.functions[first..].iter();
        let inside =
            functions.take_while(|it| it.rva.checked_sub(page).is_some_and(|at| at < PAGE));
        for (index, _) in (first..).zip(inside) {
            self.held[index] = Held::Freely;
        }
    }

    /// How a function is entered beside what calls it.
    pub(super) fn held(&self, id: FunctionId<Base>) -> Held {
        self.held[id.index()]
    }

    /// What a function enters; sorted, unique.
    pub(super) fn callees(&self, id: FunctionId<Base>) -> &[FunctionId<Base>] {
        &self.callees[self.starts[id.index()]..self.starts[id.index() + 1]]
    }

    /// Whether nothing is known to enter a function, though something may: what only an unwind entry
    /// tells of, and what control flow guard expects to be called through a pointer. Anything else
    /// that nothing enters is a copy of what was inlined everywhere, which linkers keep.
    pub(super) fn is_lonely(&self, base: &Image<Base>, id: FunctionId<Base>) -> bool {
        let function = base.function(id);
        let config = base.pe.load_config.as_ref();
        let is_expected =
            || config.is_some_and(|it| it.guard_functions.binary_search(&function.rva).is_ok());
        let is_entered = self.is_called[id.index()] || self.held(id) != Held::No;
        !is_entered
            && !is_part(base, id)
            && (function.kind == FunctionKind::Unnamed || is_expected())
    }

    /// Whether anything enters a function by naming it.
    pub(super) fn is_called(&self, id: FunctionId<Base>) -> bool {
        self.is_called[id.index()]
    }

    /// Who enters a function: not its own parts, which go on in it.
    pub(super) fn callers<'a>(
        &'a self,
        base: &'a Image<Base>,
        id: FunctionId<Base>,
    ) -> impl Iterator<Item = FunctionId<Base>> + 'a {
        let callers = base
            .function_ids()
            .filter(move |it| self.callees(*it).binary_search(&id).is_ok());
        callers.filter(|it| !is_part(base, *it))
    }

    /// Everything that is entered once `from` are, without going on from `but`; for each what it is
    /// entered by, the first ones by themselves.
    pub(super) fn reached(
        &self,
        from: impl IntoIterator<Item = FunctionId<Base>>,
        but: Option<FunctionId<Base>>,
    ) -> Reached {
        let mut by = vec![None; self.held.len()];
        let mut open = Vec::new();
        for id in from {
            if by[id.index()].is_none() {
                by[id.index()] = Some(id);
                open.push(id);
            }
        }
        let mut next = 0;
        while let Some(&id) = open.get(next) {
            next += 1;
            if Some(id) == but {
                continue;
            }
            for callee in self.callees(id) {
                if by[callee.index()].is_none() {
                    by[callee.index()] = Some(id);
                    open.push(*callee);
                }
            }
        }
        Reached { by }
    }
}

/// Stretches that may overlap as those that do not, sorted.
fn merged(stretches: &[(Rva<Base>, u32)]) -> Vec<(Rva<Base>, u32)> {
    let mut sorted = stretches.to_vec();
    sorted.sort_unstable();
    let mut merged: Vec<(Rva<Base>, u32)> = Vec::new();
    for (start, size) in sorted {
        if let Some((first, whole)) = merged.last_mut()
            && let Some(at) = start.checked_sub(*first)
            && at <= *whole
        {
            *whole = (*whole).max(at.saturating_add(size));
        } else {
            merged.push((start, size));
        }
    }
    merged
}

/// Whether this is a cold part or a funclet, there for what enters it and nothing else.
fn is_part(base: &Image<Base>, id: FunctionId<Base>) -> bool {
    let mut names = base.procedures_of(id).iter();
    base.function(id).kind == FunctionKind::Separated
        || names.any(|it| funclet::is_funclet(&it.name))
}

/// Whether the address may go elsewhere. Where code is read as data, nobody knows what becomes of it.
fn is_address(kind: ReferenceKind) -> bool {
    use ReferenceKind::{Call, ConditionalJump, Jump};
    !matches!(kind, Call | Jump | ConditionalJump)
}

/// Functions that are entered, and by which others.
pub(super) struct Reached {
    by: Vec<Option<FunctionId<Base>>>,
}

impl Reached {
    pub(super) fn has(&self, id: FunctionId<Base>) -> bool {
        self.by[id.index()].is_some()
    }

    /// A function, what enters it, what enters that, and so on; the first of them comes last, unless
    /// it is too far.
    pub(super) fn chain(&self, id: FunctionId<Base>) -> Vec<FunctionId<Base>> {
        let mut chain = vec![id];
        let mut last = id;
        while let Some(by) = self.by[last.index()].filter(|by| *by != last) {
            if chain.len() == MAX_CHAIN {
                break;
            }
            chain.push(by);
            last = by;
        }
        chain
    }
}
