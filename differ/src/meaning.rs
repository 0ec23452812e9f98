//! What an address means, and whether two addresses of two images mean the same.
//!
//! An address means a paired function or data symbol plus an offset, an import by DLL and name,
//! the image base, a jump table by the blocks it leads to, or, where it has no name, the bytes
//! that stand there. Equal numbers prove nothing and different ones mean nothing.

mod before;
mod content;
mod cut;
mod ends;
mod extent;
pub(crate) mod fresh;
mod index;
mod known;
mod lookup;
mod members;
mod readers;
mod table;
mod thread_local;
mod unwind_labels;
mod vtables;
mod writable;

use std::ops::Range;
use std::sync::Arc;

use hpbuild_metadata::{Base, DataId, Fixed, FunctionId, Rva, Side};

use crate::decode::ReferenceKind;
use crate::image::{DataSymbol, FunctionKind, Image};
use crate::pair::Pairing;
use crate::pe::Import;

use known::Stretches;
use lookup::Lookup;
use readers::Readers;

pub use content::DataChange;
pub(crate) use content::pointer_at;
pub(crate) use cut::Operand;
pub use cut::whole_constants;
pub use ends::{data_before, ends_at, holds_text};
pub(crate) use extent::is_text_alone;
pub use extent::{Extent, anonymous_extent, starts_with_text};
pub use fresh::Fresh;
pub use index::counted_from;
pub(crate) use table::entries as jump_table_entries;
pub use table::relative_entries;
pub use thread_local::ThreadLocalChange;

/// The largest constant, in bytes, that compilers are known to join with a function's address.
const FOLDED: u32 = 8;

/// What stands at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<S: Side> {
    /// A function, or a place inside one.
    Function {
        /// Which.
        id: FunctionId<S>,
        /// Bytes from its entry.
        offset: u32,
    },
    /// Named data, or a place inside it.
    Data {
        /// Which.
        id: DataId<S>,
        /// Bytes from its start.
        offset: u32,
    },
    /// A slot of the import address table: an index of `pe.imports`.
    Import(usize),
    /// A place in the DOS header, by bytes from the image base: what an image knows of itself.
    ImageBase(u32),
    /// A jump table: an index of [`Image::switch_tables`].
    JumpTable(usize),
    /// A place in a section without a name.
    Anonymous(Rva<S>),
    /// No place in any section.
    Outside,
}

/// Size of `IMAGE_DOS_HEADER` (PE format), the only header that always stands at the same place.
const DOS_HEADER: u32 = 64;

/// What stands at `rva`.
pub fn resolve<S: Side>(image: &Image<S>, rva: Rva<S>) -> Target<S> {
    let everywhere = (
        0..image.functions.len(),
        0..image.data.len(),
        0..image.switch_tables.len(),
    );
    resolve_in(image, rva, everywhere)
}

/// What stands at `rva`, where it is known which of the functions, data symbols and jump tables
/// come into question: entries before these ranges lie before `rva`, and those behind lie behind.
fn resolve_in<S: Side>(
    image: &Image<S>,
    rva: Rva<S>,
    (functions, data, tables): (Range<usize>, Range<usize>, Range<usize>),
) -> Target<S> {
    if rva.get() < DOS_HEADER {
        return Target::ImageBase(rva.get());
    }
    let Some(section) = image.pe.section_at(rva) else {
        // The name of the end of a list may stand right behind its section.
        let id = image.data.partition_point(|symbol| symbol.rva < rva);
        return match image.data.get(id) {
            Some(symbol) if symbol.rva == rva => Target::Data {
                id: DataId::new(id),
                offset: 0,
            },
            _ => Target::Outside,
        };
    };
    if section.is_code() {
        if let Some(id) = image.function_among(functions, rva) {
            return Target::Function {
                id,
                offset: rva.get() - image.function(id).rva.get(),
            };
        }
    } else if let Ok(index) = image
        .pe
        .imports
        .binary_search_by_key(&rva, |import| import.slot)
    {
        return Target::Import(index);
    }
    let first = tables.start;
    if let Ok(index) = image.switch_tables[tables].binary_search_by_key(&rva, |table| table.table) {
        return Target::JumpTable(first + index);
    }
    if let Some(id) = image.data_among(data, rva) {
        return Target::Data {
            id,
            offset: rva.get() - image.data_symbol(id).rva.get(),
        };
    }
    Target::Anonymous(rva)
}

/// How two addresses compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Meaning {
    /// They mean the same.
    Same,
    /// They mean different things; the word says of what kind.
    Different(Difference),
    /// What one of them means is not understood.
    Unknown,
}

/// In what two references differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Difference {
    /// Another function, or another place in it.
    Call,
    /// Other data.
    Data,
    /// The same read-only data with other contents.
    DataContent,
    /// A string with other contents.
    String,
    /// A constant with another value.
    Literal,
    /// A jump table with other entries.
    JumpTable,
}

/// Two images and what is known of their correspondence.
pub struct Comparer<'a> {
    /// The base image.
    pub base: &'a Image<Base>,
    /// The fixed image.
    pub fixed: &'a Image<Fixed>,
    /// Which is which.
    pub pairing: &'a Pairing,
    /// For each base data symbol whether its contents, and all that they lead to, are the same in
    /// its fixed partner.
    data_same: Arc<[bool]>,
    /// Where arrays of constants end whose contents are not the same; sorted.
    changed_ends: Vec<Rva<Base>>,
    lookups: Arc<(Lookup, Lookup)>,
    readers: (Readers<Base>, Readers<Fixed>),
    stretches: Stretches,
}

/// What a comparer found out, for another one of the same images.
#[derive(Clone, Debug)]
pub(crate) struct Prepared {
    data_same: Arc<[bool]>,
    lookups: Arc<(Lookup, Lookup)>,
}

impl<'a> Comparer<'a> {
    /// Prepares to compare: compares the contents of all paired read-only data.
    pub fn new(base: &'a Image<Base>, fixed: &'a Image<Fixed>, pairing: &'a Pairing) -> Self {
        let mut comparer = Self {
            base,
            fixed,
            pairing,
            data_same: Arc::default(),
            changed_ends: Vec::new(),
            lookups: Arc::new(rayon::join(|| Lookup::new(base), || Lookup::new(fixed))),
            readers: Default::default(),
            stretches: Stretches::default(),
        };
        comparer.data_same = content::compare_symbols(&comparer).into();
        comparer.changed_ends = ends::changed(base, &comparer.data_same);
        comparer
    }

    /// A comparer that goes on with what an earlier one of the same images found out.
    pub(crate) fn resume(
        base: &'a Image<Base>,
        fixed: &'a Image<Fixed>,
        pairing: &'a Pairing,
        prepared: Prepared,
    ) -> Self {
        Self {
            base,
            fixed,
            pairing,
            changed_ends: ends::changed(base, &prepared.data_same),
            data_same: prepared.data_same,
            lookups: prepared.lookups,
            readers: Default::default(),
            stretches: Stretches::default(),
        }
    }

    /// What was found out, for [`Comparer::resume`].
    pub(crate) fn prepared(&self) -> Prepared {
        Prepared {
            data_same: self.data_same.clone(),
            lookups: self.lookups.clone(),
        }
    }

    /// What stands at an address of the base: as [`resolve`], without searching the whole image.
    pub fn in_base(&self, rva: Rva<Base>) -> Target<Base> {
        self.lookups.0.resolve(self.base, rva)
    }

    /// What stands at an address of the fixed image.
    pub fn in_fixed(&self, rva: Rva<Fixed>) -> Target<Fixed> {
        self.lookups.1.resolve(self.fixed, rva)
    }

    /// Whether the contents of a base data symbol are the same in its partner. Writable data is
    /// the same when it is paired: its contents at run time are the program's business.
    pub fn data_same(&self, id: DataId<Base>) -> bool {
        self.data_same.get(id.index()).copied().unwrap_or(true)
    }

    /// Compares what stands at two addresses, reached by an instruction of this kind.
    pub fn compare(&self, base: Rva<Base>, fixed: Rva<Fixed>, kind: ReferenceKind) -> Meaning {
        let mut visit = content::Visit::new();
        self.compare_in(base, fixed, kind, &mut visit)
    }

    fn compare_in(
        &self,
        base: Rva<Base>,
        fixed: Rva<Fixed>,
        kind: ReferenceKind,
        visit: &mut content::Visit,
    ) -> Meaning {
        let same_if = |same: bool, difference| {
            if same {
                Meaning::Same
            } else {
                Meaning::Different(difference)
            }
        };
        let (b, f) = (self.in_base(base), self.in_fixed(fixed));
        if let (Target::Data { id: b, offset: at }, Target::Data { id: f, offset: of }) = (b, f)
            && let Some(b) = self.paired_names(b, f)
        {
            if at != of {
                return Meaning::Different(Difference::Data);
            }
            return same_if(self.data_same_in(b, visit), Difference::DataContent);
        }
        match (b, f) {
            (Target::Function { id: b, offset: at }, Target::Function { id: f, offset: of }) => {
                let same = at == of && self.same_function(b, f);
                let same = same || self.same_thunks(b, f);
                let is_same = || {
                    let behind = (
                        self.base.behind_trampoline(b),
                        self.fixed.behind_trampoline(f),
                    );
                    at == 0 && of == 0 && self.same_function(behind.0, behind.1)
                };
                same_if(same || is_same(), Difference::Call)
            }
            (Target::Import(b), Target::Import(f)) => {
                let (b, f) = (&self.base.pe.imports[b], &self.fixed.pe.imports[f]);
                same_if(same_import(b, f), Difference::Call)
            }
            (Target::ImageBase(b), Target::ImageBase(f)) => same_if(b == f, Difference::Data),
            (Target::Outside, Target::Outside) => {
                same_if(base.get() == fixed.get(), Difference::Data)
            }
            (Target::JumpTable(b), Target::JumpTable(f)) => {
                same_if(self.same_table(b, f), Difference::JumpTable)
            }
            (b, f) => self.compare_by_content((base, b), (fixed, f), kind, visit),
        }
    }

    /// As [`Comparer::paired_data`], for the first names of two addresses: nearly always these are
    /// partners, and there is nothing to look for. A first name is a telling one.
    fn paired_names(&self, base: DataId<Base>, fixed: DataId<Fixed>) -> Option<DataId<Base>> {
        match self.pairing.fixed_data(base) == Some(fixed) {
            true => Some(base),
            false => self.paired_data(base, fixed),
        }
    }

    /// Of the names of two addresses a base one whose partner is among the fixed ones.
    fn paired_data(&self, base: DataId<Base>, fixed: DataId<Fixed>) -> Option<DataId<Base>> {
        self.base.telling_names(base).find(|name| {
            let partner = self.pairing.fixed_data(*name);
            partner.is_some_and(|partner| self.fixed.telling_names(fixed).any(|it| it == partner))
        })
    }

    /// The data of the base that is the same thing as some of the fixed image, by one of its names.
    pub fn base_data_of(&self, fixed: DataId<Fixed>) -> Option<DataId<Base>> {
        self.fixed.telling_names(fixed).find_map(|name| {
            let partner = self.pairing.base_data(name)?;
            self.paired_data(partner, fixed)
        })
    }

    /// The data of the fixed image that is the same thing as some of the base, by one of its names.
    pub fn fixed_data_of(&self, base: DataId<Base>) -> Option<DataId<Fixed>> {
        self.base.telling_names(base).find_map(|name| {
            let partner = self.pairing.fixed_data(name)?;
            self.paired_data(base, partner).map(|_| partner)
        })
    }

    /// What has no common name is compared by what stands there, if it cannot change.
    fn compare_by_content(
        &self,
        (base, b): (Rva<Base>, Target<Base>),
        (fixed, f): (Rva<Fixed>, Target<Fixed>),
        kind: ReferenceKind,
        visit: &mut content::Visit,
    ) -> Meaning {
        let is_constant = (
            is_read_only(self.base, base),
            is_read_only(self.fixed, fixed),
        );
        if kind == ReferenceKind::Address && self.same_before_function(base, fixed) {
            return Meaning::Same;
        }
        // Programs compare addresses: equal contents do not make two constants one.
        if kind == ReferenceKind::Address && self.are_others(b, f) {
            return Meaning::Different(Difference::Data);
        }
        match (b, f) {
            (
                Target::Data { .. } | Target::Anonymous(_) | Target::JumpTable(_),
                Target::Data { .. } | Target::Anonymous(_) | Target::JumpTable(_),
            ) => match is_constant {
                (true, true) => self.compare_contents(base, fixed, kind, visit),
                (false, false) => self.compare_unnamed_writable(base, b, fixed, f),
                _ => Meaning::Different(Difference::Data),
            },
            (Target::Outside, _) | (_, Target::Outside) => Meaning::Unknown,
            (Target::Function { .. } | Target::Import(_), _)
            | (_, Target::Function { .. } | Target::Import(_)) => {
                Meaning::Different(Difference::Call)
            }
            _ => Meaning::Different(Difference::Data),
        }
    }

    /// Whether both are data that somebody named, and each has another partner.
    fn are_others(&self, base: Target<Base>, fixed: Target<Fixed>) -> bool {
        let (Target::Data { id: b, .. }, Target::Data { id: f, .. }) = (base, fixed) else {
            return false;
        };
        let is_other = is_named_in_source(self.base.data_symbol(b))
            && is_named_in_source(self.fixed.data_symbol(f));
        is_other && self.fixed_data_of(b).is_some() && self.base_data_of(f).is_some()
    }

    /// Whether both addresses lie in code as far before functions that are paired, one of them in
    /// filler at least: where nothing stands between two functions, the other one lies in the
    /// function before.
    ///
    /// Compilers join an address and a constant into one operand where they compare a function's
    /// address with small numbers.
    fn same_before_function(&self, base: Rva<Base>, fixed: Rva<Fixed>) -> bool {
        let (Some((b, before)), Some((f, as_far))) = (
            function_behind(self.base, base),
            function_behind(self.fixed, fixed),
        ) else {
            return false;
        };
        let is_filler =
            self.base.function_at(base).is_none() || self.fixed.function_at(fixed).is_none();
        // What has its address taken and is no filler was made a function, which starts there.
        let (of_base, of_fixed) = (self.in_base(base), self.in_fixed(fixed));
        let starts = matches!(of_base, Target::Function { offset: 0, .. })
            || matches!(of_fixed, Target::Function { offset: 0, .. });
        is_filler && !starts && before == as_far && self.same_function(b, f)
    }

    fn same_function(&self, base: FunctionId<Base>, fixed: FunctionId<Fixed>) -> bool {
        self.pairing.linked(base, fixed)
    }

    /// Whether both are thunks that lead to the same place.
    fn same_thunks(&self, base: FunctionId<Base>, fixed: FunctionId<Fixed>) -> bool {
        let is_thunk = self.base.function(base).kind == FunctionKind::Thunk
            && self.fixed.function(fixed).kind == FunctionKind::Thunk;
        if !is_thunk {
            return false;
        }
        let (b, f) = (
            self.base.references_of(base),
            self.fixed.references_of(fixed),
        );
        match (b, f) {
            // The targets of thunks are functions or imports, not thunks again: this ends.
            ([b], [f]) => match (
                resolve(self.base, b.reference.target),
                resolve(self.fixed, f.reference.target),
            ) {
                (
                    Target::Function { id: b, offset: at },
                    Target::Function { id: f, offset: of },
                ) => at == of && self.same_function(b, f),
                (Target::Import(b), Target::Import(f)) => {
                    same_import(&self.base.pe.imports[b], &self.fixed.pe.imports[f])
                }
                _ => false,
            },
            _ => false,
        }
    }
}

/// Whether the name is not one of those that compilers number: it has a type, or is a C++ linkage name.
fn is_named_in_source<S: Side>(symbol: &DataSymbol<S>) -> bool {
    let linkage = symbol.decorated.as_deref().unwrap_or_default();
    let is_known = symbol.type_index != 0 || linkage.starts_with("??_7");
    is_known && !symbol.name.is_empty() && !symbol.name.contains('.')
}

fn same_import(base: &Import<Base>, fixed: &Import<Fixed>) -> bool {
    base.dll.eq_ignore_ascii_case(&fixed.dll) && base.symbol == fixed.symbol
}

/// The function that follows close behind a place in code, and how many bytes on it starts.
/// Compilers join a function's address with small numbers that they compare it with.
pub fn function_behind<S: Side>(image: &Image<S>, rva: Rva<S>) -> Option<(FunctionId<S>, u32)> {
    let is_code = image.pe.section_at(rva)?.is_code();
    let next = image.functions.partition_point(|it| it.rva <= rva);
    let distance = image.functions.get(next)?.rva.checked_sub(rva)?;
    (is_code && distance <= FOLDED).then(|| (FunctionId::new(next), distance))
}

/// Whether the program cannot write at `rva`. Code counts: constants may stand between functions.
pub fn is_read_only<S: Side>(image: &Image<S>, rva: Rva<S>) -> bool {
    image
        .pe
        .section_at(rva)
        .is_some_and(|section| !section.is_writable())
}
