//! Which function of the base enters which other, and which are entered in ways that calls do not
//! show.

use hpbuild_metadata::{Base, FunctionId, Rva};

use super::statics::Makers;
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
    /// Of the callees those that a function enters only where it makes static locals; sorted.
    made_with: Vec<(FunctionId<Base>, FunctionId<Base>)>,
    held: Vec<Held>,
    is_called: Vec<bool>,
}

impl Graph {
    /// Reads all references of the base. What points at functions from within `lists` does not
    /// count: who reads those lists is known.
    pub(super) fn new(case: &Case<'_>, lists: &[(Rva<Base>, u32)], makers: &Makers<Base>) -> Self {
        let base = case.comparer.base;
        let count = base.functions.len();
        let mut graph = Self {
            starts: Vec::with_capacity(count + 1),
            callees: Vec::new(),
            made_with: Vec::new(),
            held: vec![Held::No; count],
            is_called: vec![false; count],
        };
        let mut made = Vec::new();
        for id in base.function_ids() {
            let start = graph.callees.len();
            graph.starts.push(start);
            graph.add_code(case, id, makers.of(id), &mut made);
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
            graph.add_made(id, start, &mut made);
        }
        graph.starts.push(graph.callees.len());
        for callee in &graph.callees {
            graph.is_called[callee.index()] = true;
        }
        graph.add_data(base, lists);
        graph
    }

    /// What code of a function leads to; what the instructions at the offsets `makers` enter is added
    /// to `made`.
    fn add_code(
        &mut self,
        case: &Case<'_>,
        id: FunctionId<Base>,
        makers: &[u32],
        made: &mut Vec<FunctionId<Base>>,
    ) {
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
                false if makers.binary_search(&placed.offset).is_ok() => made.push(callee),
                false => self.callees.push(callee),
            }
        }
    }

    /// Empties `made` into the callees of a function, which begin at `start`.
    fn add_made(&mut self, id: FunctionId<Base>, start: usize, made: &mut Vec<FunctionId<Base>>) {
        if made.is_empty() {
            return;
        }
        made.sort_unstable();
        made.dedup();
        made.retain(|it| self.callees[start..].binary_search(it).is_err());
        self.made_with.extend(made.iter().map(|it| (id, *it)));
        self.callees.append(made);
        self.callees[start..].sort_unstable();
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
        // Destructors run at the end. GNU ld lists them in the midst of code.
        let destructors = base.runtime.destructors;
        let destructors = destructors.map_or(&[][..], |it| base.pe.relocations_in(it.0, it.1));
        let absolute = absolute.chain(destructors).filter_map(|place| {
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
        let from = from.into_iter().map(|id| (id, id));
        self.spread(from, |caller, _| Some(caller) != but)
    }

    /// Everything that is entered at any time once `from` may be: not what makes static locals.
    pub(super) fn reached_again(
        &self,
        from: impl IntoIterator<Item = FunctionId<Base>>,
    ) -> Reached {
        let from = from.into_iter().map(|id| (id, id));
        self.spread(from, |caller, callee| !self.makes_with(caller, callee))
    }

    /// Everything that is entered to make the static locals of functions that `makes` tells.
    pub(super) fn made_by(&self, makes: impl Fn(FunctionId<Base>) -> bool) -> Reached {
        let from = self.made_with.iter().filter(|(by, _)| makes(*by));
        self.spread(from.map(|(by, id)| (*id, *by)), |_, _| true)
    }

    /// Whether a function enters another only to make static locals.
    pub(super) fn makes_with(&self, caller: FunctionId<Base>, callee: FunctionId<Base>) -> bool {
        self.made_with.binary_search(&(caller, callee)).is_ok()
    }

    /// Everything that is entered once the first of each pair in `from` are, by the second; from a
    /// function to another only where `goes`.
    fn spread(
        &self,
        from: impl IntoIterator<Item = (FunctionId<Base>, FunctionId<Base>)>,
        goes: impl Fn(FunctionId<Base>, FunctionId<Base>) -> bool,
    ) -> Reached {
        let mut by = vec![None; self.held.len()];
        let mut open = Vec::new();
        for (id, first) in from {
            if by[id.index()].is_none() {
                by[id.index()] = Some(first);
                open.push(id);
            }
        }
        let mut next = 0;
        while let Some(&id) = open.get(next) {
            next += 1;
            for callee in self.callees(id) {
                if by[callee.index()].is_none() && goes(id, *callee) {
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
        // Those that call each other may be entered by one of them.
        while let Some(by) = self.by[last.index()].filter(|by| !chain.contains(by)) {
            if chain.len() == MAX_CHAIN {
                break;
            }
            chain.push(by);
            last = by;
        }
        chain
    }
}
