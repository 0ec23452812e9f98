//! All objects of one side, with names resolved between them.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::linker_map::LinkerMap;
use super::object_file::{Error, Machine, ObjectFile, Purpose, Section, Symbol};

/// A function by name; `object` is set for a static one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FunctionName {
    /// Name of the symbol.
    pub name: String,
    /// The object that a static function belongs to.
    pub object: Option<String>,
    /// Counts from 0 where several functions of one side have all of this in common.
    pub instance: usize,
}

/// A section of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct SectionId {
    pub(super) object: usize,
    pub(super) section: usize,
}

/// A stretch of a data section between two labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Datum {
    pub(super) section: SectionId,
    pub(super) start: u32,
    pub(super) end: u32,
    /// Whether other data shares the section, so that padding may follow before `end`.
    pub(super) shared: bool,
}

/// What a symbol with an addend stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// Not defined in any object of this side.
    Undefined(String),
    /// Code, as bytes from the start of the function.
    Code(SectionId, u32),
    /// Data, as bytes from its start.
    Data(Datum, u32),
    /// Something the linker throws away.
    Aside,
}

/// All objects of one side.
#[derive(Debug)]
pub struct Program {
    pub(super) objects: Vec<ObjectFile>,
    /// Functions by the section they fill.
    pub(super) functions: BTreeMap<FunctionName, SectionId>,
    pub(super) names: HashMap<SectionId, FunctionName>,
    /// Symbols seen by all objects, by the names that the linker knows.
    globals: HashMap<String, (SectionId, u32)>,
    /// Offsets of all labels in the data sections, in order.
    labels: BTreeMap<SectionId, Vec<u32>>,
    /// Sections with the exception data of one function alone, by the function's section.
    handling: BTreeMap<SectionId, Vec<SectionId>>,
}

impl Program {
    /// Puts the objects of one side together.
    ///
    /// # Errors
    /// A section holds two functions.
    pub fn new(objects: Vec<ObjectFile>) -> Result<Program, Error> {
        let mut program = Program {
            objects,
            functions: BTreeMap::new(),
            names: HashMap::new(),
            globals: HashMap::new(),
            labels: BTreeMap::new(),
            handling: BTreeMap::new(),
        };
        for (index, object) in program.objects.iter().enumerate() {
            for symbol in &object.symbols {
                let Some((section, offset)) = symbol.place else {
                    continue;
                };
                let id = SectionId {
                    object: index,
                    section,
                };
                if symbol.is_section || object.sections.get(section).is_none() {
                    continue;
                }
                if symbol.global {
                    // Of several copies (inline functions, COMDAT) the linker keeps the first.
                    program
                        .globals
                        .entry(symbol.linkage.clone())
                        .or_insert((id, offset));
                }
                // Before a vtable stands what tells the class of the object: the two are one.
                if !symbol.linkage.starts_with("??_7") {
                    program.labels.entry(id).or_default().push(offset);
                }
                let code = object.sections[section].purpose == Purpose::Code;
                if !code || !(symbol.is_function || symbol.global) {
                    continue;
                }
                // Filters and `__finally` blocks have sections of their own.
                if is_funclet(&symbol.linkage) && offset != 0 {
                    continue;
                }
                if offset != 0 {
                    return Err(Error::SharedSection {
                        name: object.name.clone(),
                        section: object.sections[section].name.clone(),
                    });
                }
                let mut name = FunctionName {
                    name: symbol.name.clone(),
                    object: (!symbol.global).then(|| object.name.clone()),
                    instance: 0,
                };
                let kept = program.globals.get(&symbol.linkage);
                let is_copy = symbol.global && kept.is_some_and(|it| *it != (id, offset));
                while !is_copy && *program.functions.get(&name).unwrap_or(&id) != id {
                    name.instance += 1;
                }
                program.names.entry(id).or_insert_with(|| name.clone());
                if !is_copy {
                    program.functions.insert(name, id);
                }
            }
        }
        program.handling = program.find_handling();
        for labels in program.labels.values_mut() {
            labels.sort_unstable();
            labels.dedup();
        }
        Ok(program)
    }

    pub(super) fn section(&self, id: SectionId) -> &Section {
        &self.objects[id.object].sections[id.section]
    }

    /// Which sections the entries of the exception directory connect: each entry has relocations to
    /// the function and, where there is more to say than fits, to the data that says it.
    fn find_handling(&self) -> BTreeMap<SectionId, Vec<SectionId>> {
        let mut users = BTreeMap::<SectionId, BTreeSet<SectionId>>::new();
        for (object, file) in self.objects.iter().enumerate() {
            let directory = |it: &&Section| it.name.split('$').next() == Some(".pdata");
            let entry = match file.machine {
                Machine::X64 => 12,
                Machine::Arm64 => 8,
            };
            for relocations in file.sections.iter().filter(directory).flat_map(|it| {
                it.relocations
                    .chunk_by(move |one, other| one.offset / entry == other.offset / entry)
            }) {
                let places = relocations
                    .iter()
                    .filter_map(|it| file.symbols[it.symbol].place);
                let mut code = None;
                for (section, _) in places {
                    let id = SectionId { object, section };
                    match file.sections.get(section).map(|it| it.purpose) {
                        Some(Purpose::Code) => code = Some(id),
                        Some(_) => {
                            users.entry(id).or_default().extend(code);
                        }
                        None => {}
                    }
                }
            }
        }
        let mut found = BTreeMap::<SectionId, Vec<SectionId>>::new();
        for (data, functions) in users {
            if let [function] = functions.into_iter().collect::<Vec<_>>()[..] {
                found.entry(function).or_default().push(data);
            }
        }
        found
    }

    /// The sections with the exception data of a function.
    pub(super) fn handling(&self, function: SectionId) -> &[SectionId] {
        self.handling.get(&function).map_or(&[], Vec::as_slice)
    }

    /// What a relocation in `object` against `symbol` means, and what is left of its addend.
    pub(super) fn target(&self, object: usize, symbol: usize, addend: i64) -> (Target, i64) {
        let symbol = &self.objects[object].symbols[symbol];
        let own = symbol
            .place
            .map(|(section, offset)| (SectionId { object, section }, offset));
        let shared = self.globals.get(&symbol.linkage).copied();
        let defined = if symbol.global { shared.or(own) } else { own };
        let Some((id, mut offset)) = defined else {
            return (Target::Undefined(symbol.name.clone()), addend);
        };
        let mut left = addend;
        if symbol.is_section {
            // The addend is the place; only labels could tell the two apart.
            offset = offset.wrapping_add(addend as u32);
            left = 0;
        }
        let target = match self.objects[id.object]
            .sections
            .get(id.section)
            .map(|it| it.purpose)
        {
            None | Some(Purpose::Aside) => Target::Aside,
            Some(Purpose::Code) => Target::Code(id, offset),
            Some(Purpose::ReadOnly | Purpose::Writable) => {
                let datum = self.datum(id, offset);
                Target::Data(datum, offset - datum.start)
            }
        };
        (target, left)
    }

    /// Names that objects use and none defines.
    pub(super) fn elsewhere(&self) -> BTreeSet<String> {
        let symbols = self.objects.iter().flat_map(|it| &it.symbols);
        symbols
            .filter(|it| it.place.is_none() && !self.globals.contains_key(&it.linkage))
            .map(|it| it.linkage.clone())
            .collect()
    }

    /// Where the linker put a function; nothing where it dropped it.
    #[must_use]
    pub fn place(&self, name: &FunctionName, map: &LinkerMap) -> Option<u64> {
        let id = *self.functions.get(name)?;
        let object = &self.objects[id.object];
        let here = |it: &&Symbol| it.place == Some((id.section, 0)) && !it.is_section;
        let mut symbols = object.symbols.iter().filter(here);
        symbols.find_map(|it| map.place(&object.file, &it.linkage, it.global))
    }

    /// The addresses that the linker gave to more than one function.
    pub(super) fn shared(&self, map: &LinkerMap) -> BTreeSet<u64> {
        let mut owners = BTreeMap::<u64, BTreeSet<SectionId>>::new();
        for (name, id) in &self.functions {
            if let Some(at) = self.place(name, map) {
                owners.entry(at).or_default().insert(*id);
            }
        }
        owners.retain(|_, ids| ids.len() > 1);
        owners.into_keys().collect()
    }

    /// The datum that holds this place.
    pub(super) fn datum(&self, id: SectionId, offset: u32) -> Datum {
        let labels = self.labels.get(&id).map_or(&[][..], Vec::as_slice);
        let next = labels.partition_point(|&label| label <= offset);
        let start = if next == 0 { 0 } else { labels[next - 1] };
        let end = labels.get(next).copied().unwrap_or(self.section(id).size);
        Datum {
            section: id,
            start: start.min(offset),
            end: end.max(start),
            shared: labels.len() > 1,
        }
    }

    /// The names of a datum that somebody wrote: those without a dot, and not LLVM's numbers for
    /// what has none; sorted.
    pub(super) fn data_names(&self, datum: Datum) -> Vec<&str> {
        let object = &self.objects[datum.section.object];
        let place = Some((datum.section.section, datum.start));
        let named = object
            .symbols
            .iter()
            .filter(|it| it.place == place && !it.is_section);
        let mut names: Vec<&str> = named.map(|it| it.name.as_str()).collect();
        names.retain(|name| !name.contains('.') && !name.starts_with("__unnamed_"));
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Every writable datum that has a name, with whether it is static.
    pub(super) fn writable(&self) -> BTreeMap<FunctionName, Datum> {
        let mut found = BTreeMap::new();
        for (index, object) in self.objects.iter().enumerate() {
            for symbol in object.symbols.iter().filter(|it| !it.is_section) {
                let Some((section, offset)) = symbol.place else {
                    continue;
                };
                let written = object.sections.get(section).map(|it| it.purpose);
                if written == Some(Purpose::Writable) {
                    let name = FunctionName {
                        name: symbol.name.clone(),
                        object: (!symbol.global).then(|| object.name.clone()),
                        instance: 0,
                    };
                    let id = SectionId {
                        object: index,
                        section,
                    };
                    found.entry(name).or_insert_with(|| self.datum(id, offset));
                }
            }
        }
        found
    }
}

/// Whether this is the body of a `catch` or a clean-up that is compiled apart: it stands in the
/// section of its function, and is a part of it.
fn is_funclet(name: &str) -> bool {
    let kinds = ["?dtor$", "?catch$", "?fin$", "?filt$"];
    kinds.iter().any(|kind| name.starts_with(kind))
}
