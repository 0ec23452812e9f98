//! One image as the later stages see it: what its PE says, and the functions and data that its
//! symbols name, sorted by address.

mod references;
mod runtime;

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hpbuild_metadata::{CompilandId, DataId, FunctionId, Rva, SectionOffset, Side};

use crate::decode::{ReferenceKind, TableJump};
use crate::lines::LineRecords;
use crate::pe::Pe;
use crate::records::CompilandStreams;
use crate::types::Types;

pub use references::PlacedReference;
pub(crate) use references::References;
pub use runtime::RuntimeLists;

/// How MSVC's name for itself begins.
const MSVC: &str = "Microsoft";

/// One side of a pair, read and ordered. Nothing in it changes after `read`.
#[derive(Debug)]
pub struct Image<S: Side> {
    /// Where the PE was read from.
    pub path: PathBuf,
    /// Where its symbols were read from.
    pub symbols: SymbolSource,
    /// The PE file and its directories.
    pub pe: Pe<S>,
    /// Bodies of code, sorted by address, disjoint.
    pub functions: Vec<Function<S>>,
    /// Names of functions, grouped by body: see [`Function::procedures`].
    pub procedures: Vec<Procedure>,
    /// What the procedures mention: see [`Image::add_mentioned`].
    pub(crate) mentions: Vec<Mention>,
    /// Named data, sorted by address.
    pub data: Vec<DataSymbol<S>>,
    /// Constants whose symbols tell no size and that are no data for it: places, and the bytes to
    /// where something else is known to be; sorted.
    pub(crate) constants: Vec<(Rva<S>, u32)>,
    /// Texts without a name whose bytes the records tell: start and bytes, sorted.
    pub(crate) texts: Vec<(Rva<S>, u32)>,
    /// Object files, in the PDB's order.
    pub compilands: Vec<Compiland>,
    /// Spans that compilands gave to sections, sorted by address, disjoint.
    pub contributions: Vec<Contribution<S>>,
    /// Jump tables that the PDB describes, sorted by the address of the table.
    pub switch_tables: Vec<SwitchTable<S>>,
    /// Jumps through these tables, where decoding asks for them; sorted by their place, unique.
    pub table_jumps: Vec<TableJump<S>>,
    /// Addresses in data where something is known to start: targets of references from code and
    /// of base relocations, and symbols. Sorted, unique. They bound data that has no symbol.
    pub boundaries: Vec<Rva<S>>,
    /// Those of the boundaries that more tells of than that code or a pointer reaches them: what is
    /// reached may be the middle of something. Sorted, unique.
    pub(crate) certain_boundaries: Vec<Rva<S>>,
    /// Constants that are places in Rust's sources, and where the names in them start. Sorted, unique.
    pub(crate) source_places: Vec<Rva<S>>,
    /// Tables of 32-bit distances from their own start to what their entries mean, as the code
    /// that reads them shows. Sorted, unique.
    pub relative_tables: Vec<Rva<S>>,
    /// Places in data that hold the RVA of something, four bytes each. Sorted, unique.
    pub image_relative: Vec<Rva<S>>,
    /// The linker's record of what it filled in, where the PDB has it; sorted by place.
    pub fixups: Vec<Fixup<S>>,
    /// Names of functions compiled to reach globals through `__ref_` variables
    /// (`S_HOTPATCHFUNC`), sorted.
    pub hotpatch_functions: Vec<Box<str>>,
    /// For each cold part its start and the entry of the function it was moved away from; sorted.
    pub cold_parts: Vec<(Rva<S>, Rva<S>)>,
    /// Names of functions that DWARF tells of without a body; sorted, unique.
    pub(crate) bodiless: Vec<Box<str>>,
    /// Groups of object sections, sorted by place, disjoint, not empty; none where the symbols do not
    /// tell of them.
    pub groups: Vec<Group<S>>,
    /// What the C runtime of MinGW works through.
    pub runtime: RuntimeLists<S>,
    /// Names and values of enumerators whose enumerations the symbols do not tell, in their order.
    pub(crate) enumerators: Vec<(Box<str>, i128)>,
    /// Types of functions and data.
    pub types: Types,
    /// Where records of compilands are read that few ask for; none without a PDB.
    pub(crate) streams: Option<Arc<CompilandStreams>>,
    /// Names of source files, as line records refer to them: each ends with a zero.
    pub(crate) source_names: Box<[u8]>,
    /// (address, source line) from DWARF, sorted by address; line 0 where nothing has one. Empty
    /// where symbols come from a PDB: then each compiland has its own.
    pub(crate) lines: Vec<(Rva<S>, u32)>,
    /// Every pointing operand of every function.
    pub(crate) references: References<S>,
}

/// Where the symbols of an image come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SymbolSource {
    /// A PDB.
    Pdb {
        /// The file.
        path: PathBuf,
        /// Its GUID, as `8-4-4-4-12` hexadecimal.
        guid: String,
        /// Its age.
        age: u32,
    },
    /// DWARF in the image itself.
    Dwarf,
}

impl SymbolSource {
    /// The PDB, where they come from one.
    pub fn pdb(&self) -> Option<&Path> {
        match self {
            SymbolSource::Pdb { path, .. } => Some(path),
            SymbolSource::Dwarf => None,
        }
    }

    /// The word for it in reports.
    pub fn name(&self) -> &'static str {
        match self {
            SymbolSource::Pdb { .. } => "pdb",
            SymbolSource::Dwarf => "dwarf",
        }
    }
}

/// A place that the linker filled with an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fixup<S: Side> {
    /// Where.
    pub place: Rva<S>,
    /// The address; that of a symbol, so that an offset may come on top.
    pub target: Rva<S>,
    /// How.
    pub kind: FixupKind,
}

/// How a place was filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FixupKind {
    /// With a virtual address.
    Address,
    /// With an RVA.
    ImageRelative,
    /// With a distance from the place.
    Relative,
    /// With something else: an offset within a section, a section's number.
    Other,
}

/// One body of code: an extent that procedure records, publics or unwind entries agree on.
#[derive(Clone, Debug)]
pub struct Function<S: Side> {
    /// Its entry.
    pub rva: Rva<S>,
    /// Bytes of the body, padding excluded.
    pub size: u32,
    /// The object file it came from.
    pub compiland: Option<CompilandId<S>>,
    /// Its names as a range of [`Image::procedures`]; several where bodies were folded, none where
    /// only an unwind entry told of it.
    pub procedures: Range<u32>,
    /// What kind of code this is.
    pub kind: FunctionKind,
}

/// What kind of code a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FunctionKind {
    /// A procedure record gives its extent.
    Procedure,
    /// Only a public names it; the extent comes from unwind info or from what follows.
    Public,
    /// Only passes on to something else: import, incremental-link or adjustor thunk.
    Thunk,
    /// A cold part that the compiler moved away from its function.
    Separated,
    /// Only an unwind entry tells of it.
    Unnamed,
}

/// A name of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Procedure {
    /// The procedure record's name; the public's where there is no record.
    pub name: Box<str>,
    /// The linkage name, where a public gives one.
    pub decorated: Option<Box<str>>,
    /// Whether other compilands can name it.
    pub global: bool,
    /// Index of the function's type in [`Image::types`], 0 for none.
    pub type_index: u32,
    /// Types of its variables, of what is inlined into it and of what it calls, as far as its
    /// records tell: a range of [`Image::mentions`].
    pub(crate) mentions: Range<u32>,
    /// Where its record and those inside it are.
    pub(crate) records: RecordPlace,
}

/// Where the records of a procedure are: a compiland, and a range of its symbol records. Empty
/// where it has none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RecordPlace {
    pub(crate) compiland: u32,
    pub(crate) range: Range<u32>,
}

/// A type that a record of a procedure mentions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mention {
    /// Its index, or that of an item that leads to it.
    pub(crate) index: u32,
    /// Whether it is that of an item.
    pub(crate) is_item: bool,
}

impl Procedure {
    /// The name as a person reads it: demangled, with types where the linkage name has them.
    pub fn display(&self) -> String {
        match &self.decorated {
            Some(decorated) if decorated.starts_with('?') => crate::names::display(decorated),
            _ => self.name.to_string(),
        }
    }
}

impl<S: Side> DataSymbol<S> {
    /// The name as a person reads it.
    pub fn display(&self) -> String {
        crate::names::display_data(&self.name)
    }
}

/// A named piece of data.
#[derive(Clone, Debug)]
pub struct DataSymbol<S: Side> {
    /// Where it starts.
    pub rva: Rva<S>,
    /// Bytes of it, from its type or from what follows.
    pub size: u32,
    /// Whether the size is certain: it comes from its type, or from the name of a string.
    pub sized_by_type: bool,
    /// The record's name; the public's where there is no record.
    pub name: Box<str>,
    /// The linkage name, where a public gives one.
    pub decorated: Option<Box<str>>,
    /// The object file it came from.
    pub compiland: Option<CompilandId<S>>,
    /// The functions among whose records it stands, as indexes of [`Image::procedures`]: it is a
    /// static local of one of them, or of one that is inlined into them.
    pub parents: Vec<u32>,
    /// The function that declares it, where records say so outright.
    pub declared_in: Option<Box<str>>,
    /// Whether other compilands can name it.
    pub global: bool,
    /// Whether each thread has its own; then `rva` lies in the TLS template.
    pub thread_local: bool,
    /// Index of its type in [`Image::types`], 0 for none.
    pub type_index: u32,
}

/// An object file as the PDB lists it.
#[derive(Clone, Debug)]
pub struct Compiland {
    /// Its name as the linker saw it.
    pub name: Box<str>,
    /// The name without folders and hashes, which does not depend on where the build ran and is the
    /// same in another version.
    pub short_name: Box<str>,
    /// The short name; where several compilands have it, with the folders in which they differ.
    pub place: Box<str>,
    /// Front end, from the compile record: language, tool name and flags.
    pub tool: Option<Tool>,
    /// C13 line subsections.
    pub(crate) lines: LineRecords,
}

/// What compiled a compiland.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tool {
    /// Name and version as the compiler wrote it.
    pub version: Box<str>,
    /// `CV_CFL_LANG` of the compile record.
    pub language: u8,
    /// Whether the compile record says that the code is prepared for hotpatching.
    pub hotpatch: bool,
}

/// The span one compiland gave to one section.
#[derive(Clone, Copy, Debug)]
pub struct Contribution<S: Side> {
    /// Where it starts.
    pub rva: Rva<S>,
    /// Bytes.
    pub size: u32,
    /// Whose it is.
    pub compiland: CompilandId<S>,
    /// Section characteristics (`IMAGE_SCN_*`) in the object file.
    pub characteristics: u32,
}

impl<S: Side> Contribution<S> {
    /// Bytes to which its section asked to be aligned; `None` where that is not recorded.
    pub fn alignment(&self) -> Option<u32> {
        /// `IMAGE_SCN_ALIGN_*`: four bits, 1 for one byte (`winnt.h`).
        const ALIGN: u32 = 20;
        let section = self.characteristics >> ALIGN & 0xf;
        (section > 0).then(|| 1 << (section - 1))
    }

    /// Whether it is of a section of which the linker keeps one copy.
    pub fn is_comdat(&self) -> bool {
        /// `winnt.h`.
        const IMAGE_SCN_LNK_COMDAT: u32 = 0x1000;
        self.characteristics & IMAGE_SCN_LNK_COMDAT != 0
    }
}

/// What the linker put beside each other because object sections have one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group<S: Side> {
    /// Where it starts.
    pub rva: Rva<S>,
    /// Bytes.
    pub size: u32,
    /// The name of the object sections, such as `.CRT$XCU`.
    pub name: Box<str>,
}

/// A jump table as a PDB record describes it (`S_ARMSWITCHTABLE`; clang writes it for every
/// machine).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SwitchTable<S: Side> {
    /// The table.
    pub table: Rva<S>,
    /// What its entries are added to.
    pub base: Rva<S>,
    /// The instruction that jumps through it.
    pub branch: Rva<S>,
    /// How an entry is stored.
    pub entry: SwitchEntry,
    /// Number of entries.
    pub count: u32,
}

/// How an entry of a jump table is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SwitchEntry {
    /// Bytes of an entry: 1, 2, 4 or 8.
    pub size: u8,
    /// Whether it is sign-extended.
    pub signed: bool,
    /// How many bits it is shifted left before it is added to the base.
    pub shift: u8,
    /// Whether the entry is a virtual address by itself.
    pub absolute: bool,
}

impl<S: Side> Image<S> {
    /// The function whose body holds `rva`.
    pub fn function_at(&self, rva: Rva<S>) -> Option<FunctionId<S>> {
        self.function_among(0..self.functions.len(), rva)
    }

    /// As [`Image::function_at`], where it is known that the functions before `among` start before
    /// `rva` and those behind start behind it.
    pub(crate) fn function_among(&self, among: Range<usize>, rva: Rva<S>) -> Option<FunctionId<S>> {
        let first = among.start;
        let behind = first + self.functions[among].partition_point(|f| f.rva <= rva);
        let index = behind.checked_sub(1)?;
        let function = &self.functions[index];
        (rva.checked_sub(function.rva)? < function.size.max(1)).then(|| FunctionId::new(index))
    }

    /// The last data symbol that starts at or before `rva` and reaches over it.
    pub fn data_at(&self, rva: Rva<S>) -> Option<DataId<S>> {
        self.data_among(0..self.data.len(), rva)
    }

    /// As [`Image::data_at`], where it is known that the symbols before `among` start before `rva`
    /// and those behind start behind it.
    pub(crate) fn data_among(&self, among: Range<usize>, rva: Rva<S>) -> Option<DataId<S>> {
        let first = among.start;
        let behind = first + self.data[among].partition_point(|d| d.rva <= rva);
        let index = behind.checked_sub(1)?;
        let symbol = &self.data[index];
        // Of several names of one address the first one stands for all.
        let covers = rva.checked_sub(symbol.rva)? < symbol.size.max(1);
        covers.then(|| DataId::new(self.names_around(index).start))
    }

    /// All names of the address that a data symbol has, the symbol included.
    pub fn data_aliases(&self, id: DataId<S>) -> impl Iterator<Item = DataId<S>> + use<S> {
        self.names_around(id.index()).map(DataId::new)
    }

    /// The data symbols of the address that the one at `index` has. Most have one name, and that
    /// is told without searching.
    fn names_around(&self, index: usize) -> Range<usize> {
        let rva = self.data[index].rva;
        let is_here = |symbol: Option<&DataSymbol<S>>| symbol.is_some_and(|s| s.rva == rva);
        let before = index
            .checked_sub(1)
            .and_then(|before| self.data.get(before));
        let start = if is_here(before) {
            self.data.partition_point(|symbol| symbol.rva < rva)
        } else {
            index
        };
        let end = if is_here(self.data.get(index + 1)) {
            self.data.partition_point(|symbol| symbol.rva <= rva)
        } else {
            index + 1
        };
        start..end
    }

    /// Those names of the address of a data symbol that tell what stands there: the ones with a type,
    /// where any has one. Linkers name the starts of sections too, and whatever variable comes
    /// first there has that name beside its own.
    pub fn telling_names(&self, id: DataId<S>) -> impl Iterator<Item = DataId<S>> + '_ {
        let is_typed = |id: &DataId<S>| self.data_symbol(*id).sized_by_type;
        let any_typed = self.data_aliases(id).any(|id| is_typed(&id));
        self.data_aliases(id)
            .filter(move |id| !any_typed || is_typed(id))
    }

    /// The function with this id.
    pub fn function(&self, id: FunctionId<S>) -> &Function<S> {
        &self.functions[id.index()]
    }

    /// The data symbol with this id.
    pub fn data_symbol(&self, id: DataId<S>) -> &DataSymbol<S> {
        &self.data[id.index()]
    }

    /// The names of a function; empty where only an unwind entry told of it.
    pub fn procedures_of(&self, id: FunctionId<S>) -> &[Procedure] {
        let range = &self.function(id).procedures;
        &self.procedures[range.start as usize..range.end as usize]
    }

    /// The structures, unions and enumerations that the records of a procedure lead to directly, as
    /// indexes of [`Image::types`], are added to `found`.
    pub(crate) fn add_mentioned(&self, procedure: &Procedure, found: &mut BTreeSet<u32>) {
        for mention in self.mentions_of(procedure) {
            self.types.add_mentioned(*mention, found);
        }
    }

    /// The types that the records of a procedure mention.
    pub(crate) fn mentions_of(&self, procedure: &Procedure) -> impl Iterator<Item = &Mention> {
        let range = procedure.mentions.start as usize..procedure.mentions.end as usize;
        self.mentions.get(range).unwrap_or_default().iter()
    }

    /// The items of what is inlined into a procedure, as far as its records tell.
    pub(crate) fn inlined_into(&self, procedure: &Procedure) -> impl Iterator<Item = u32> {
        let mentions = self.mentions_of(procedure);
        mentions.filter(|it| it.is_item).map(|it| it.index)
    }

    /// The symbol records of a procedure, read from its PDB.
    pub(crate) fn records_of(&self, procedure: &Procedure) -> Vec<u8> {
        let RecordPlace { compiland, range } = &procedure.records;
        match &self.streams {
            Some(streams) if !range.is_empty() => streams.symbols(*compiland, range),
            _ => Vec::new(),
        }
    }

    /// The pointing operands of a function, in address order.
    pub fn references_of(&self, id: FunctionId<S>) -> &[PlacedReference<S>] {
        self.references.of(id.index())
    }

    /// The RVA of a place as PDB records have it; `None` where it names no section (absolute and
    /// discarded symbols) or lies outside its section.
    pub(crate) fn rva_of_place(&self, place: SectionOffset) -> Option<Rva<S>> {
        self.pe.rva_of_place(place)
    }

    /// The place of `rva` as PDB records have it; `None` where it lies in no section.
    pub(crate) fn place_of(&self, rva: Rva<S>) -> Option<SectionOffset> {
        self.pe.place_of(rva)
    }

    /// The readable name of a function: its first name, or its address where it has none.
    pub fn display_name(&self, id: FunctionId<S>) -> String {
        match self.procedures_of(self.behind_trampoline(id)).first() {
            Some(procedure) => procedure.display(),
            None => format!("unnamed at rva {}", self.function(id).rva),
        }
    }

    /// The function that a thunk of an incremental link leads to (`S_TRAMPOLINE`, which has no name); any
    /// other function itself. Calls by such a thunk mean what those without one do.
    pub fn behind_trampoline(&self, id: FunctionId<S>) -> FunctionId<S> {
        let is_trampoline = |id: FunctionId<S>| {
            self.function(id).kind == FunctionKind::Thunk && self.procedures_of(id).is_empty()
        };
        let [only] = self.references_of(id) else {
            return id;
        };
        let is_jump = only.offset == 0 && only.reference.kind == ReferenceKind::Jump;
        if !is_jump || !is_trampoline(id) {
            return id;
        }
        let target = only.reference.target;
        let led_to = self.function_at(target);
        let led_to = led_to.filter(|it| self.function(*it).rva == target && !is_trampoline(*it));
        led_to.unwrap_or(id)
    }

    /// The ids of all functions, in address order.
    pub fn function_ids(&self) -> impl ExactSizeIterator<Item = FunctionId<S>> + use<S> {
        (0..self.functions.len()).map(FunctionId::new)
    }

    /// Whether MSVC may have compiled a function: another compiler is not known to have.
    pub fn may_be_of_msvc(&self, id: FunctionId<S>) -> bool {
        let compiland = self.function(id).compiland;
        let compiland = compiland.and_then(|it| self.compilands.get(it.index()));
        let tool = compiland.and_then(|compiland| compiland.tool.as_ref());
        tool.is_none_or(|tool| tool.version.starts_with(MSVC))
    }

    /// The function that a cold part was moved away from; `None` for what is no cold part.
    pub fn owner_of(&self, id: FunctionId<S>) -> Option<FunctionId<S>> {
        let part = self.function(id);
        if part.kind != FunctionKind::Separated {
            return None;
        }
        let start = self
            .cold_parts
            .partition_point(|(cold, _)| *cold < part.rva);
        let (cold, owner) = self.cold_parts.get(start)?;
        let owner = (*cold == part.rva).then(|| self.function_at(*owner))??;
        // A chain of parts that own each other would be nobody's.
        (self.function(owner).kind != FunctionKind::Separated).then_some(owner)
    }

    /// The bytes of a function as they stand in the file.
    pub fn code_of(&self, id: FunctionId<S>) -> &[u8] {
        let function = self.function(id);
        self.pe
            .bytes(function.rva, function.size)
            .unwrap_or_default()
    }

    /// The bytes of a function without what its pointing operands lead to: zeros in their place.
    pub(crate) fn code_without_targets(&self, id: FunctionId<S>) -> Vec<u8> {
        let mut code = self.code_of(id).to_vec();
        for placed in self.references_of(id) {
            let end = placed.offset as usize + usize::from(placed.length);
            if let Some(instruction) = code.get_mut(placed.offset as usize..end) {
                placed.reference.field.clear(instruction);
            }
        }
        code
    }

    /// The contribution that holds `rva`.
    pub fn contribution_at(&self, rva: Rva<S>) -> Option<&Contribution<S>> {
        let index = self
            .contributions
            .partition_point(|c| c.rva <= rva)
            .checked_sub(1)?;
        let contribution = &self.contributions[index];
        (rva.checked_sub(contribution.rva)? < contribution.size).then_some(contribution)
    }

    /// The places in `size` bytes from `rva` that hold an address: with a base relocation a virtual
    /// address of eight bytes (true), or an RVA of four. In address order.
    pub fn pointers_in(&self, rva: Rva<S>, size: u32) -> Vec<(Rva<S>, bool)> {
        let absolute = self.pe.relocations_in(rva, size);
        let start = self.image_relative.partition_point(|place| *place < rva);
        let end = u64::from(rva.get()) + u64::from(size);
        let relative = self.image_relative[start..]
            .iter()
            .take_while(|place| u64::from(place.get()) < end);
        let mut places: Vec<_> = absolute.iter().map(|place| (*place, true)).collect();
        places.extend(relative.map(|place| (*place, false)));
        places.sort_unstable();
        places
    }

    /// The next boundary behind `rva`, or the end of its section. In a section of code functions
    /// and contributions are boundaries.
    pub fn next_boundary(&self, rva: Rva<S>) -> Option<Rva<S>> {
        let section = self.pe.section_at(rva)?;
        let end = section.rva.checked_add(section.size)?;
        if section.is_code() {
            let next = self.functions.partition_point(|f| f.rva <= rva);
            let function = self.functions.get(next).map(|function| function.rva);
            let contribution = self
                .contribution_at(rva)
                .and_then(|contribution| contribution.rva.checked_add(contribution.size));
            let ends = [function, contribution].into_iter().flatten();
            return Some(ends.fold(end, Rva::min));
        }
        Some(first_behind(&self.boundaries, rva).map_or(end, |next| next.min(end)))
    }

    /// The next boundary behind `rva` at which something is certain to start, or the end of its
    /// section.
    pub(crate) fn next_certain_boundary(&self, rva: Rva<S>) -> Option<Rva<S>> {
        let section = self.pe.section_at(rva)?;
        if section.is_code() {
            return self.next_boundary(rva);
        }
        let end = section.rva.checked_add(section.size)?;
        let next = first_behind(&self.certain_boundaries, rva);
        Some(next.map_or(end, |next| next.min(end)))
    }
}

/// The first of sorted addresses behind `rva`.
fn first_behind<S: Side>(sorted: &[Rva<S>], rva: Rva<S>) -> Option<Rva<S>> {
    let index = sorted.partition_point(|it| *it <= rva);
    sorted.get(index).copied()
}
