//! One COFF object, reduced to sections, symbols and relocations.

use std::collections::BTreeSet;

use object::coff::CoffHeader;
use object::read::archive::ArchiveFile;
use object::read::coff::{CoffBigFile, CoffFile};
use object::{
    FileKind, Object, ObjectSection, ObjectSymbol, RelocationFlags, RelocationTarget, SectionFlags,
    SymbolIndex, SymbolKind, SymbolSection, pe,
};

use super::{code_view, rust};

/// Why an object cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file is no COFF object, or a damaged one.
    #[error("{name}: {detail}")]
    Unreadable {
        /// Name of the object.
        name: String,
        /// What is wrong with it.
        detail: String,
    },
    /// Two functions in one section: not compiled as the oracle needs it.
    #[error("{name}: section {section} holds more than one function\nhint: -ffunction-sections")]
    SharedSection {
        /// Name of the object.
        name: String,
        /// Name of the section.
        section: String,
    },
}

/// What the bytes of a section are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Instructions.
    Code,
    /// Data that nobody writes.
    ReadOnly,
    /// Data with or without an initial value.
    Writable,
    /// Debug information, unwind data, directives for the linker.
    Aside,
}

/// The instruction set, which decides where in an instruction an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Machine {
    X64,
    Arm64,
}

/// A place that the linker will write.
#[derive(Clone, Copy, Debug)]
pub(super) struct Relocation {
    /// Bytes from the start of the section.
    pub(super) offset: u32,
    /// `IMAGE_REL_*`.
    pub(super) kind: u16,
    /// Index into [`ObjectFile::symbols`].
    pub(super) symbol: usize,
}

/// One section.
#[derive(Debug)]
pub(super) struct Section {
    pub(super) name: String,
    pub(super) purpose: Purpose,
    /// Contents; empty where there is no initial value.
    pub(super) bytes: Vec<u8>,
    pub(super) size: u32,
    /// In the order of their offsets.
    pub(super) relocations: Vec<Relocation>,
}

/// One symbol.
#[derive(Debug)]
pub(super) struct Symbol {
    /// The name that it has in every version of the program: see [`rust`].
    pub(super) name: String,
    /// The name that the linker knows it by.
    pub(super) linkage: String,
    /// Where it is defined: an index into [`ObjectFile::sections`] and an offset in bytes.
    pub(super) place: Option<(usize, u32)>,
    /// Whether other objects see it.
    pub(super) global: bool,
    /// Whether it stands for the section itself.
    pub(super) is_section: bool,
    pub(super) is_function: bool,
}

/// One object file.
#[derive(Debug)]
pub struct ObjectFile {
    /// What tells its static functions from those of others.
    pub(super) name: String,
    /// Its file, or its name in a library.
    pub(super) file: String,
    pub(super) machine: Machine,
    pub(super) sections: Vec<Section>,
    pub(super) symbols: Vec<Symbol>,
}

impl ObjectFile {
    /// Reads an object. `name` tells static functions of the same name apart and must be the
    /// same for both compiles of one source, but for the hashes of rustc.
    ///
    /// # Errors
    /// The bytes are no x64 or Arm64 COFF object, or a table in it is damaged.
    pub fn read(name: &str, bytes: &[u8]) -> Result<ObjectFile, Error> {
        let unreadable = |detail: String| Error::Unreadable {
            name: name.to_owned(),
            detail,
        };
        let kind = FileKind::parse(bytes).map_err(|error| unreadable(error.to_string()))?;
        let read = match kind {
            FileKind::Coff => CoffFile::<'_, &[u8]>::parse(bytes).map(|file| convert(name, &file)),
            FileKind::CoffBig => {
                CoffBigFile::<'_, &[u8]>::parse(bytes).map(|file| convert(name, &file))
            }
            other => {
                return Err(unreadable(format!(
                    "expected a COFF object, found {other:?}"
                )));
            }
        };
        read.and_then(|object| object)
            .map_err(|error| unreadable(error.to_string()))
    }
}

/// The objects in a static library whose names are among the wanted ones, in its order.
///
/// # Errors
/// The bytes are no library, or a damaged one.
pub fn members(
    name: &str,
    library: &[u8],
    wanted: &BTreeSet<&str>,
) -> Result<Vec<(String, Vec<u8>)>, Error> {
    let unreadable = |error: object::Error| Error::Unreadable {
        name: name.to_owned(),
        detail: error.to_string(),
    };
    let archive = ArchiveFile::parse(library).map_err(unreadable)?;
    let mut found = Vec::new();
    for member in archive.members() {
        let member = member.map_err(unreadable)?;
        let bytes = member.data(library).map_err(unreadable)?;
        let name = String::from_utf8_lossy(member.name()).into_owned();
        // What a library says of a DLL is no object.
        if wanted.contains(name.as_str()) && FileKind::parse(bytes).is_ok_and(is_object) {
            found.push((name, bytes.to_vec()));
        }
    }
    Ok(found)
}

fn is_object(kind: FileKind) -> bool {
    matches!(kind, FileKind::Coff | FileKind::CoffBig)
}

fn convert<'data, H: CoffHeader>(
    name: &str,
    file: &CoffFile<'data, &'data [u8], H>,
) -> object::Result<ObjectFile> {
    let machine = match file.architecture() {
        object::Architecture::Aarch64 => Machine::Arm64,
        _ => Machine::X64,
    };
    // Symbols are named by their index in the file, which skips auxiliary records.
    let mut symbols = Vec::new();
    let mut index_of = std::collections::HashMap::<SymbolIndex, usize>::new();
    for symbol in file.symbols() {
        let place = match symbol.section() {
            SymbolSection::Section(index) => Some((index.0 - 1, symbol.address() as u32)),
            _ => None,
        };
        index_of.insert(symbol.index(), symbols.len());
        symbols.push(Symbol {
            name: rust::stable(symbol.name()?),
            linkage: symbol.name()?.to_owned(),
            place,
            global: symbol.is_global(),
            is_section: symbol.kind() == SymbolKind::Section,
            is_function: symbol.kind() == SymbolKind::Text,
        });
    }
    let called = code_view::names(file, &index_of);
    for (index, name) in called {
        if let Some(symbol) = symbols.get_mut(index) {
            symbol.name = rust::instance(&symbol.linkage, &name);
        }
    }
    let mut sections = Vec::new();
    for section in file.sections() {
        let purpose = purpose(section.name()?, section.flags());
        let mut relocations = Vec::new();
        for (offset, relocation) in section.relocations() {
            let RelocationFlags::Coff { typ } = relocation.flags() else {
                continue;
            };
            if let RelocationTarget::Symbol(symbol) = relocation.target()
                && let Some(&symbol) = index_of.get(&symbol)
            {
                relocations.push(Relocation {
                    offset: offset as u32,
                    kind: typ.0,
                    symbol,
                });
            }
        }
        relocations.sort_by_key(|relocation| relocation.offset);
        sections.push(Section {
            name: section.name()?.to_owned(),
            purpose,
            bytes: section.data()?.to_vec(),
            size: section.size() as u32,
            relocations,
        });
    }
    Ok(ObjectFile {
        name: rust::object(name),
        file: name.to_owned(),
        machine,
        sections,
        symbols,
    })
}

fn purpose(name: &str, flags: SectionFlags) -> Purpose {
    let SectionFlags::Coff { characteristics } = flags else {
        return Purpose::Aside;
    };
    let has = |flag: pe::SectionFlags| characteristics.0 & flag.0 != 0;
    let root = name.split('$').next().unwrap_or(name);
    let aside = [".xdata", ".pdata", ".drectve"].contains(&root)
        || root.starts_with(".debug")
        || root.starts_with(".llvm")
        || has(pe::IMAGE_SCN_LNK_REMOVE)
        || !has(pe::IMAGE_SCN_MEM_READ);
    if aside {
        Purpose::Aside
    } else if has(pe::IMAGE_SCN_MEM_EXECUTE) {
        Purpose::Code
    } else if has(pe::IMAGE_SCN_MEM_WRITE) {
        Purpose::Writable
    } else {
        Purpose::ReadOnly
    }
}
