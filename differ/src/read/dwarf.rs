//! Symbols from the DWARF in an image that names no PDB, as GCC, clang and Rust leave it there for
//! Windows' GNU environments.
//!
//! The outcome is what reading a PDB gives, so that no later stage knows the difference: functions
//! and data with their places, names, types, compilands (units), and lines. What assembly and the
//! C runtime of the linker leave out is taken from the COFF symbol table, where the image still
//! has it. DWARF has no records of jump tables, and tells of inlined code what nobody asks.
//!
//! ```text
//! .debug_info  DW_TAG_subprogram inflate [0x180001a40, 0x180003b12)   -> a procedure
//! .debug_line  0x180001a40 line 622                                   -> lines
//! symbols      .refptr._pctype                                        -> data
//! ```

mod budget;
mod contributions;
mod info;
mod places;
mod sections;
mod units;

use hpbuild_metadata::{Rva, SectionOffset, Side};
use rustc_hash::{FxHashMap, FxHashSet};

use super::assemble::Symbols;
use super::symbols::{ModuleSymbols, RawData, RawProcedure, RawPublic, RawSeparated};
use crate::error::Error;
use crate::image::{Compiland, SymbolSource, Tool};
use crate::lines::LineRecords;
use crate::names::is_itanium_vtable;
use crate::pe::Pe;
use crate::types::Types;
use crate::types::dwarf::{CxxAbi, DwarfTypes};
use contributions::contributions;
use places::{constants, drop_marks, is_linker_made, is_private, own_vtables, starts, texts};
use sections::{CoffSymbol, CoffTables};
use units::{Address, Named, UnitFacts};

/// Entries that take their name from another which takes it from another: declaration, abstract
/// instance, and a few that only partial units add.
const MAX_ORIGINS: usize = 8;
/// `CV_CFL_LANG` of Rust, C++ and C, as compile records of CodeView have them.
const LANGUAGES: [(&[u16], u8); 2] = [(&[0x1c], 0x15), (&[0x04, 0x1a, 0x21, 0x2b, 0x3a], 0x01)];

/// Reads the DWARF of an image; `None` where it has none.
///
/// # Errors
/// Where it is broken, of a version that is not known, or in other files.
pub(super) fn read<S: Side>(pe: &Pe<S>) -> Result<Option<Symbols<S>>, Error> {
    let tables = CoffTables::read(pe)?;
    let Some(sections) = tables.dwarf()? else {
        return Ok(None);
    };
    let mut units = info::read_units(&pe.path, &sections)?;
    let found = units
        .iter_mut()
        .flat_map(|unit| std::mem::take(&mut unit.types))
        .collect();
    let (types, indices) = DwarfTypes::new(found, cxx_abi(&units));
    let entries = Entries {
        named: units
            .iter_mut()
            .flat_map(|unit| std::mem::take(&mut unit.named))
            .collect(),
        types: indices,
    };
    let mut publics = Publics::default();
    let modules: Vec<_> = units
        .iter()
        .enumerate()
        .map(|unit| module(pe, unit, &entries, &mut publics))
        .collect();
    let mut coff = tables.symbols();
    let mut compilands: Vec<_> = units.iter().map(compiland).collect();
    let contributions = contributions(pe, &units, coff.definitions, &mut compilands);
    let starts = starts(pe, &coff.starts);
    let vtables = own_vtables(pe, &coff.symbols, &contributions);
    let constants = constants(pe, &coff.symbols, &vtables);
    coff.symbols
        .retain(|symbol| !is_linker_made(pe, symbol) && !is_private(symbol));
    drop_marks(&mut coff.symbols, &modules);
    let types = Types::from(types);
    let texts = texts(pe, &units, &entries, &types);
    let globals = add_coff_symbols(pe, coff.symbols, &modules, (&mut publics, &vtables));
    let mut modules = modules;
    let mut data = Vec::new();
    for symbol in globals {
        match symbol {
            Unknown::Data(symbol) => data.push(symbol),
            Unknown::Code(procedure) => modules.push(ModuleSymbols {
                procedures: vec![procedure],
                ..ModuleSymbols::default()
            }),
        }
    }
    Ok(Some(Symbols {
        source: SymbolSource::Dwarf,
        publics: publics.list,
        globals: data,
        // Each is in its enumeration.
        enumerators: Vec::new(),
        types,
        compilands,
        contributions,
        starts,
        constants,
        texts,
        lists: coff.lists,
        lines: lines(pe, &units),
        modules,
        // Fixups, names of source files and records of inlined calls are read from PDBs alone.
        fixups: Vec::new(),
        source_names: Box::default(),
        streams: None,
    }))
}

/// The entries that others refer to.
struct Entries {
    named: FxHashMap<usize, Named>,
    types: FxHashMap<usize, u32>,
}

/// What an entry and those it takes the rest from say together.
struct Description {
    name: Option<Box<str>>,
    linkage_name: Option<Box<str>>,
    external: bool,
    /// Index of the type of a variable.
    ty: u32,
    /// The last entry: the one that says most.
    last: usize,
}

impl Entries {
    fn describe(&self, offset: usize) -> Description {
        let mut found = Description {
            name: None,
            linkage_name: None,
            external: false,
            ty: 0,
            last: offset,
        };
        let mut next = Some(offset);
        for _ in 0..MAX_ORIGINS {
            let Some(named) = next.and_then(|next| self.named.get(&next)) else {
                break;
            };
            found.last = next.unwrap_or(offset);
            // A declaration stands in its class; a definition outside may not.
            found.name = named.name.clone().or(found.name);
            found.linkage_name = found.linkage_name.or_else(|| named.linkage_name.clone());
            found.external |= named.external;
            if found.ty == 0 {
                let ty = named.ty.and_then(|ty| self.types.get(&ty));
                found.ty = ty.copied().unwrap_or(0);
            }
            next = named.origin;
        }
        found
    }
}

/// Linkage names, each once.
#[derive(Default)]
struct Publics {
    list: Vec<RawPublic>,
    known: FxHashSet<(SectionOffset, Box<str>)>,
}

impl Publics {
    fn add(&mut self, place: SectionOffset, name: &str) {
        if self.known.insert((place, name.into())) {
            self.list.push(RawPublic {
                place,
                name: name.into(),
            });
        }
    }
}

/// The symbols of one unit, without what the linker dropped: that has no address in the image.
fn module<S: Side>(
    pe: &Pe<S>,
    (index, unit): (usize, &UnitFacts),
    entries: &Entries,
    publics: &mut Publics,
) -> ModuleSymbols {
    let mut module = ModuleSymbols {
        tool: Some(tool(unit)),
        ..ModuleSymbols::default()
    };
    let bodiless = unit.bodiless.iter();
    module.bodiless = bodiless
        .filter_map(|it| entries.describe(*it).name)
        .collect();
    let mut owners: FxHashMap<usize, u32> = FxHashMap::default();
    for function in &unit.functions {
        let mut parts = function.ranges.iter().map(|range| code_part(pe, *range));
        let Some(Some((rva, size))) = parts.next() else {
            continue;
        };
        let Some(at) = place(pe, rva) else { continue };
        let found = entries.describe(function.offset);
        let Some(name) = found.name.clone().or_else(|| found.linkage_name.clone()) else {
            continue;
        };
        match &found.linkage_name {
            Some(linkage_name) => publics.add(at, linkage_name),
            None if found.external => publics.add(at, &name),
            None => {}
        }
        let own = u32::try_from(module.procedures.len()).unwrap_or(u32::MAX);
        owners.insert(function.offset, own);
        owners.insert(found.last, own);
        module.procedures.push(RawProcedure {
            place: at,
            size,
            name,
            global: found.external,
            type_index: entries.types.get(&found.last).copied().unwrap_or(0),
            is_item: false,
            mentions: 0..0,
            records: 0..0,
        });
        module
            .separated
            .extend(parts.flatten().filter_map(|(rva, size)| {
                Some(RawSeparated {
                    place: place(pe, rva)?,
                    size,
                    parent: at,
                })
            }));
    }
    for variable in &unit.variables {
        let rva = match variable.address {
            Address::Virtual(address) => pe.rva_of(address),
            Address::Thread(offset) => thread_rva(pe, offset),
        };
        let at = rva.and_then(|rva| place(pe, rva));
        let found = entries.describe(variable.offset);
        let (Some(at), Some(mut name)) = (at, found.name) else {
            continue;
        };
        let mut type_index = found.ty;
        // Debug information has another name for it, and the type of a pointer.
        if let Some(vtable) = found
            .linkage_name
            .as_ref()
            .filter(|it| is_itanium_vtable(it))
        {
            (name, type_index) = (vtable.clone(), 0);
        }
        // LLVM's own names count the pieces in use, so that one more gives others another name.
        if let Some(piece) = variable.piece {
            (name, type_index) = (format!("{name}+{piece:#x}").into(), 0);
        }
        if let Some(linkage_name) = found
            .linkage_name
            .as_ref()
            .filter(|_| variable.piece.is_none())
        {
            publics.add(at, linkage_name);
        }
        let function = variable.function.map(|offset| entries.describe(offset));
        let last = function.as_ref().map(|function| function.last);
        let parent = last.and_then(|last| owners.get(&last).copied());
        let declared_in = function.and_then(|function| function.name);
        module.data.push(RawData {
            place: at,
            // Of a function that has no body of its own, because it is inlined wherever it is
            // used, only the name is left.
            name: match &declared_in {
                Some(function) if parent.is_none() => format!("{function}::{name}").into(),
                _ => name,
            },
            global: found.external,
            thread_local: matches!(variable.address, Address::Thread(_)),
            type_index,
            parent,
            // The section that it is in may be that of many objects.
            compiland: u32::try_from(index).ok(),
            inlinee: 0,
            declared_in,
        });
    }
    module
}

/// The C++ ABI, by the linkage names.
fn cxx_abi(units: &[UnitFacts]) -> CxxAbi {
    let mut named = units.iter().flat_map(|unit| &unit.named);
    let is_microsoft = |named: &Named| {
        let linkage_name = named.linkage_name.as_deref();
        linkage_name.is_some_and(|name| name.starts_with('?'))
    };
    match named.any(|(_, named)| is_microsoft(named)) {
        true => CxxAbi::Microsoft,
        false => CxxAbi::Itanium,
    }
}

/// RVA and size of a range of code; `None` for one that the linker dropped.
fn code_part<S: Side>(pe: &Pe<S>, (begin, end): (u64, u64)) -> Option<(Rva<S>, u32)> {
    let rva = pe.rva_of(begin)?;
    let section = pe.section_at(rva).filter(|section| section.is_code())?;
    let size = u32::try_from(end.checked_sub(begin)?).ok()?;
    let room = section.size - rva.checked_sub(section.rva)?;
    (size <= room).then_some((rva, size))
}

fn thread_rva<S: Side>(pe: &Pe<S>, offset: u64) -> Option<Rva<S>> {
    let (template, _) = pe.tls.as_ref()?.template?;
    template.checked_add(u32::try_from(offset).ok()?)
}

/// An RVA as symbols of a PDB have it.
fn place<S: Side>(pe: &Pe<S>, rva: Rva<S>) -> Option<SectionOffset> {
    let index = pe.sections.partition_point(|section| section.rva <= rva);
    let section = pe.sections.get(index.checked_sub(1)?)?;
    let offset = rva.checked_sub(section.rva)?;
    (offset < section.size).then_some(SectionOffset {
        section: u16::try_from(index).ok()?,
        offset,
    })
}

fn tool(unit: &UnitFacts) -> Tool {
    let language = LANGUAGES
        .iter()
        .find(|(dwarf, _)| dwarf.contains(&unit.language));
    Tool {
        version: unit.producer.clone(),
        language: language.map_or(0, |(_, codeview)| *codeview),
        // DWARF does not say.
        hotpatch: false,
    }
}

fn short(name: &str) -> &str {
    name.rsplit(['/', '\\']).next().unwrap_or_default()
}

fn compiland(unit: &UnitFacts) -> Compiland {
    Compiland {
        name: unit.name.clone(),
        short_name: crate::names::of_object(&unit.name).into(),
        place: Box::default(),
        tool: Some(tool(unit)),
        lines: LineRecords::default(),
    }
}

/// A symbol of the COFF table that DWARF does not know.
enum Unknown {
    Code(RawProcedure),
    Data(RawData),
}

/// Adds external symbols to the publics, and the linkage names of static functions, which GCC leaves
/// out of the DWARF; returns static symbols of places without a name.
fn add_coff_symbols<S: Side>(
    pe: &Pe<S>,
    symbols: Vec<CoffSymbol>,
    modules: &[ModuleSymbols],
    (publics, vtables): (&mut Publics, &FxHashSet<SectionOffset>),
) -> Vec<Unknown> {
    for symbol in symbols.iter().filter(|symbol| symbol.global) {
        publics.add(symbol.place, &symbol.name);
    }
    let mut known: FxHashSet<SectionOffset> =
        publics.list.iter().map(|public| public.place).collect();
    for module in modules {
        known.extend(module.procedures.iter().map(|procedure| procedure.place));
        known.extend(module.separated.iter().map(|part| part.place));
        known.extend(module.data.iter().map(|data| data.place));
    }
    let mut unlinked: FxHashSet<SectionOffset> = modules
        .iter()
        .flat_map(|module| &module.procedures)
        .map(|procedure| procedure.place)
        .collect();
    for public in &publics.list {
        unlinked.remove(&public.place);
    }
    for symbol in symbols.iter().filter(|symbol| !symbol.global) {
        if crate::names::is_mangled(&symbol.name) && unlinked.remove(&symbol.place) {
            publics.add(symbol.place, &symbol.name);
        }
    }
    let unknown = |symbol: CoffSymbol| {
        let rva = pe.rva_of_place(symbol.place)?;
        let section = pe.section_at(rva)?;
        let is_code = section.is_code();
        // Compilers name constants without saying how large they are, which is worse than not
        // knowing them: then only what is used of them counts.
        if !is_code && !section.is_writable() && !vtables.contains(&symbol.place) {
            return None;
        }
        let name: Box<str> = symbol.name.into();
        Some(if is_code {
            Unknown::Code(RawProcedure {
                place: symbol.place,
                size: 0,
                name,
                global: false,
                type_index: 0,
                is_item: false,
                mentions: 0..0,
                records: 0..0,
            })
        } else {
            Unknown::Data(RawData {
                place: symbol.place,
                name,
                global: false,
                thread_local: false,
                type_index: 0,
                parent: None,
                compiland: None,
                inlinee: 0,
                declared_in: None,
            })
        })
    };
    symbols
        .into_iter()
        .filter(|symbol| !symbol.global && known.insert(symbol.place))
        .filter_map(unknown)
        .collect()
}

fn lines<S: Side>(pe: &Pe<S>, units: &[UnitFacts]) -> Vec<(Rva<S>, u32)> {
    let mut programs: Vec<_> = units.iter().filter(|unit| !unit.lines.is_empty()).collect();
    programs.sort_by_key(|unit| unit.program);
    let mut found: Vec<(Rva<S>, u32)> = programs
        .iter()
        .flat_map(|unit| &unit.lines)
        .filter_map(|(address, line)| {
            let rva = pe.rva_of(*address)?;
            // The end of a program may lie behind the code.
            Some((rva, *line))
        })
        .collect();
    // Of several lines of one address the last one counts.
    found.sort_by_key(|(rva, _)| *rva);
    found
}
