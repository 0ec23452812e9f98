//! A PE file as facts: headers, sections and the directories that matter for hotpatching, each
//! bounds-checked and typed. What the facts mean is decided by later stages.

mod debug;
mod exceptions;
mod exports;
mod headers;
mod imports;
mod load_config;
mod parse;
mod relocations;
pub mod resources;
mod tls;
mod unsupported;
pub mod version;
mod view;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::OnceLock;

use hpbuild_metadata::{BaseIdentity, Machine, Rva, SectionOffset, Side};
use sha2::{Digest, Sha256};

pub use unsupported::{Opened, Unsupported, UnsupportedKind};

/// A parsed PE file, with its bytes.
#[derive(Debug)]
pub struct Pe<S: Side> {
    /// Where it was read from.
    pub path: PathBuf,
    /// The instruction set.
    pub machine: Machine,
    /// Preferred image base: a virtual address.
    pub image_base: u64,
    /// Bytes of the image when mapped.
    pub image_size: u32,
    /// Time stamp and checksum.
    pub identity: BaseIdentity,
    /// `IMAGE_FILE_*` of the COFF header.
    pub characteristics: u16,
    /// `IMAGE_DLLCHARACTERISTICS_*`.
    pub dll_characteristics: u16,
    /// `IMAGE_DLLCHARACTERISTICS_EX_*`; 0 where the debug directory has none.
    pub ex_dll_characteristics: u32,
    /// `IMAGE_SUBSYSTEM_*`.
    pub subsystem: u16,
    /// Bytes of stack and heap: `SizeOfStackReserve`, `SizeOfStackCommit`, `SizeOfHeapReserve` and
    /// `SizeOfHeapCommit`.
    pub memory: [u64; 4],
    /// The entry point, if it has one.
    pub entry_point: Option<Rva<S>>,
    /// In address order, disjoint, inside the image.
    pub sections: Vec<Section<S>>,
    /// In the order of the export address table.
    pub exports: Vec<Export<S>>,
    /// Imports and delayed imports, sorted by slot.
    pub imports: Vec<Import<S>>,
    /// The descriptors of DLLs that are loaded late (`ImgDelayDescr`): their places and the names
    /// of the DLLs, in the order of the table.
    pub delay_descriptors: Vec<DelayDescriptor<S>>,
    /// Where linkers put what they make for loaders and debuggers, and how many bytes each has: the
    /// tables of exports and of imports, and the debug directory with what it leads to. Sorted; as
    /// the headers say, so that they may leave the image or overlap.
    pub linker_tables: Vec<(Rva<S>, u32)>,
    /// Places that hold a 64-bit virtual address, from `.reloc`; sorted.
    pub base_relocations: Vec<Rva<S>>,
    /// The exception directory, sorted by `begin`.
    pub runtime_functions: Vec<RuntimeFunction<S>>,
    /// Where the exception directory stands, and how many bytes it has.
    pub exception_directory: Option<(Rva<S>, u32)>,
    /// The load config directory, if present.
    pub load_config: Option<LoadConfig<S>>,
    /// The CodeView entry of the debug directory, if present.
    pub codeview: Option<CodeView>,
    /// Whether `IMAGE_DLLCHARACTERISTICS_EX_HOTPATCH_COMPATIBLE` is set.
    pub hotpatch_compatible: bool,
    /// The TLS directory, if present.
    pub tls: Option<Tls<S>>,
    /// Start and size of the resource directory, if present; as stored, not checked.
    pub resources: Option<(Rva<S>, u32)>,
    /// Asked for by [`Pe::sha256`].
    sha256: OnceLock<[u8; 32]>,
    file: Vec<u8>,
}

/// A section.
#[derive(Clone, Debug)]
pub struct Section<S: Side> {
    /// Its name, at most eight bytes, lossily as text.
    pub name: Box<str>,
    /// Where it starts.
    pub rva: Rva<S>,
    /// Bytes when mapped.
    pub size: u32,
    /// Where its initialised bytes stand in the file.
    pub file: std::ops::Range<usize>,
    /// `IMAGE_SCN_*`.
    pub characteristics: u32,
}

/// An exported name or ordinal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export<S: Side> {
    /// Ordinal, base added.
    pub ordinal: u32,
    /// Name, if it has one.
    pub name: Option<Box<str>>,
    /// What it is.
    pub target: ExportTarget<S>,
}

/// What an export leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExportTarget<S: Side> {
    /// A place in this image.
    Rva(Rva<S>),
    /// `DLL.name` of another image.
    Forward(Box<str>),
}

/// Where a DLL that is loaded late is described, and its name.
pub type DelayDescriptor<S> = (Rva<S>, Box<str>);

/// One slot of an import address table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Import<S: Side> {
    /// The slot, 8 bytes.
    pub slot: Rva<S>,
    /// The DLL as the file spells it.
    pub dll: Box<str>,
    /// What is imported.
    pub symbol: ImportSymbol,
    /// Whether it belongs to the delay import table.
    pub delayed: bool,
}

/// What an import names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ImportSymbol {
    /// By name.
    Name(Box<str>),
    /// By ordinal.
    Ordinal(u16),
}

impl std::fmt::Display for ImportSymbol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ImportSymbol::Name(name) => f.write_str(name),
            ImportSymbol::Ordinal(ordinal) => write!(f, "#{ordinal}"),
        }
    }
}

/// An entry of the exception directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuntimeFunction<S: Side> {
    /// First byte of the code.
    pub begin: Rva<S>,
    /// First byte behind the code; for Arm64 computed from packed data or `.xdata`.
    pub end: Rva<S>,
    /// What the entry's last word is.
    pub unwind: Unwind<S>,
}

/// How a runtime function describes its unwinding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unwind<S: Side> {
    /// x64: UNWIND_INFO here. Arm64: an `.xdata` record here.
    Info(Rva<S>),
    /// Arm64: packed into the entry; the word as stored.
    Packed(u32),
    /// Shares the unwind data of the runtime function stored here, prologue offsets and all (x64:
    /// `RUNTIME_FUNCTION_INDIRECT`; Arm64: flag 3). On Arm64 such an entry has no length of its
    /// own, and `end` is where the next entry begins.
    Shared(Rva<S>),
}

/// What the load config directory says.
#[derive(Clone, Debug)]
pub struct LoadConfig<S: Side> {
    /// Bytes the structure says it has.
    pub size: u32,
    /// `GuardFlags`.
    pub guard_flags: u32,
    /// The security cookie's place.
    pub security_cookie: Option<Rva<S>>,
    /// Further fields that count when the image is loaded, by name.
    pub settings: Vec<(&'static str, u64)>,
    /// Pointers that say by being there that the image is of some kind, by name.
    pub promises: Vec<&'static str>,
    /// The pointer through which `/guard:cf` code checks a target.
    pub guard_cf_check: Option<Rva<S>>,
    /// The pointer through which `/guard:cf` code dispatches to a target.
    pub guard_cf_dispatch: Option<Rva<S>>,
    /// Further guard pointers: XFG check, dispatch and table dispatch, and memcpy.
    pub guard_pointers: Vec<Rva<S>>,
    /// Targets of the guard CF function table, sorted.
    pub guard_functions: Vec<Rva<S>>,
    /// Address-taken import slots of the guard table, sorted.
    pub guard_imports: Vec<Rva<S>>,
    /// Targets of `longjmp` in the guard table, sorted.
    pub guard_long_jumps: Vec<Rva<S>>,
    /// Where exception handling may go on, from the guard table; sorted.
    pub guard_eh_continuations: Vec<Rva<S>>,
    /// `CHPEMetadataPointer`, a virtual address; non-zero in hybrid images, which are
    /// never opened as a [`Pe`].
    pub chpe_metadata: u64,
    /// `HotPatchTableOffset`; set in patch images.
    pub hotpatch_table: Option<Rva<S>>,
    /// Symbols of the dynamic value relocation table with the number of bytes each has.
    pub dynamic_relocations: Vec<(u64, u32)>,
}

/// The CodeView entry of the debug directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodeView {
    /// GUID as it is written: `8-4-4-4-12` upper-case hexadecimal.
    pub guid: String,
    /// Age.
    pub age: u32,
    /// Path of the PDB as the linker wrote it.
    pub pdb_path: String,
}

/// The TLS directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls<S: Side> {
    /// Initial values of the thread-local section.
    pub template: Option<(Rva<S>, u32)>,
    /// Where the loader writes the module's TLS index (`_tls_index`).
    pub index: Option<Rva<S>>,
    /// The callbacks.
    pub callbacks: Vec<Rva<S>>,
    /// Zero bytes behind the template.
    pub zero_fill: u32,
}

/// `IMAGE_SCN_MEM_EXECUTE`.
const EXECUTE: u32 = 0x2000_0000;
/// `IMAGE_SCN_MEM_WRITE`.
const WRITE: u32 = 0x8000_0000;
/// `IMAGE_SCN_MEM_DISCARDABLE`.
const DISCARDABLE: u32 = 0x0200_0000;

impl<S: Side> Section<S> {
    /// Whether code may run here.
    pub fn is_code(&self) -> bool {
        self.characteristics & EXECUTE != 0
    }

    /// Whether it may be written.
    pub fn is_writable(&self) -> bool {
        self.characteristics & WRITE != 0
    }

    /// Whether its pages may be gone once the image is initialised.
    pub fn is_discardable(&self) -> bool {
        self.characteristics & DISCARDABLE != 0
    }
}

impl<S: Side> Pe<S> {
    /// SHA-256 of the whole file, which takes a while when it is asked for first.
    pub fn sha256(&self) -> &[u8; 32] {
        self.sha256
            .get_or_init(|| Sha256::digest(&self.file).into())
    }

    /// The RVA of a place as PDB records have it; `None` where it names no section (absolute and
    /// discarded symbols) or lies outside its section.
    pub(crate) fn rva_of_place(&self, place: SectionOffset) -> Option<Rva<S>> {
        let index = usize::from(place.section).checked_sub(1)?;
        let section = self.sections.get(index)?;
        if place.offset > section.size {
            return None;
        }
        section.rva.checked_add(place.offset)
    }

    /// The place of `rva` as PDB records have it; `None` where it lies in no section.
    pub(crate) fn place_of(&self, rva: Rva<S>) -> Option<SectionOffset> {
        let after = self.sections.partition_point(|section| section.rva <= rva);
        let start = self.sections.get(after.checked_sub(1)?)?.rva;
        Some(SectionOffset {
            section: u16::try_from(after).ok()?,
            offset: rva.checked_sub(start)?,
        })
    }

    /// The section that holds `rva`.
    pub fn section_at(&self, rva: Rva<S>) -> Option<&Section<S>> {
        let index = self
            .sections
            .partition_point(|s| s.rva <= rva)
            .checked_sub(1)?;
        let section = &self.sections[index];
        (rva.checked_sub(section.rva)? < section.size).then_some(section)
    }

    /// `size` bytes at `rva` as they stand in the file; `None` where they leave the section or
    /// its initialised part.
    pub fn bytes(&self, rva: Rva<S>, size: u32) -> Option<&[u8]> {
        let section = self.section_at(rva)?;
        let start = rva.checked_sub(section.rva)? as usize;
        let end = start.checked_add(size as usize)?;
        self.file.get(section.file.clone())?.get(start..end)
    }

    /// All initialised bytes from `rva` to the end of its section; empty where there are none.
    pub fn bytes_from(&self, rva: Rva<S>) -> &[u8] {
        let tail = || {
            let section = self.section_at(rva)?;
            let start = rva.checked_sub(section.rva)? as usize;
            self.file.get(section.file.clone())?.get(start..)
        };
        tail().unwrap_or_default()
    }

    /// The RVA of a virtual address in terms of the preferred image base.
    pub fn rva_of(&self, address: u64) -> Option<Rva<S>> {
        let rva = u32::try_from(address.checked_sub(self.image_base)?).ok()?;
        (rva < self.image_size).then(|| Rva::new(rva))
    }

    /// The import whose slot is exactly at `rva`.
    pub fn import_at(&self, rva: Rva<S>) -> Option<&Import<S>> {
        let index = self
            .imports
            .binary_search_by_key(&rva, |import| import.slot)
            .ok()?;
        Some(&self.imports[index])
    }

    /// The places with a base relocation in `size` bytes from `rva`.
    pub fn relocations_in(&self, rva: Rva<S>, size: u32) -> &[Rva<S>] {
        let start = self.base_relocations.partition_point(|place| *place < rva);
        let rest = &self.base_relocations[start..];
        let end = u64::from(rva.get()) + u64::from(size);
        &rest[..rest.partition_point(|place| u64::from(place.get()) < end)]
    }

    /// The runtime function whose code holds `rva`.
    pub fn runtime_function_at(&self, rva: Rva<S>) -> Option<&RuntimeFunction<S>> {
        let index = self
            .runtime_functions
            .partition_point(|f| f.begin <= rva)
            .checked_sub(1)?;
        let function = &self.runtime_functions[index];
        (rva < function.end).then_some(function)
    }

    /// The whole file.
    pub fn file(&self) -> &[u8] {
        &self.file
    }
}
