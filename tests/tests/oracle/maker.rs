//! Objects made by hand.

use object::write::{Object, Relocation, SectionId, Symbol, SymbolFlags, SymbolId, SymbolSection};
use object::{
    Architecture, BinaryFormat, Endianness, RelocationFlags, SectionKind, SymbolKind, SymbolScope,
    pe,
};

/// An object under construction.
pub(crate) struct Maker(pub(crate) Object<'static>);

impl Maker {
    pub(crate) fn new() -> Maker {
        Maker(Object::new(
            BinaryFormat::Coff,
            Architecture::X86_64,
            Endianness::Little,
        ))
    }

    pub(crate) fn symbol(&mut self, name: &str, section: SectionId, kind: SymbolKind) -> SymbolId {
        let scope = if name.starts_with('.') {
            SymbolScope::Compilation
        } else {
            SymbolScope::Linkage
        };
        self.0.add_symbol(Symbol {
            name: name.as_bytes().to_vec(),
            value: 0,
            size: 0,
            kind,
            scope,
            weak: false,
            section: SymbolSection::Section(section),
            flags: SymbolFlags::None,
        })
    }

    pub(crate) fn section(&mut self, name: &str, kind: SectionKind, bytes: &[u8]) -> SectionId {
        let id = self
            .0
            .add_section(Vec::new(), name.as_bytes().to_vec(), kind);
        self.0.append_section_data(id, bytes, 16);
        id
    }

    /// A function that is one load of an address, `lea rax, [rip + ...]`, and a return.
    pub(crate) fn function(&mut self, name: &str) -> SectionId {
        let code = [0x48, 0x8d, 0x05, 0, 0, 0, 0, 0xc3];
        let id = self.section(&format!(".text${name}"), SectionKind::Text, &code);
        self.symbol(name, id, SymbolKind::Text);
        id
    }

    pub(crate) fn constant(&mut self, name: &str, bytes: &[u8]) -> (SectionId, SymbolId) {
        let id = self.section(&format!(".rdata${name}"), SectionKind::ReadOnlyData, bytes);
        (id, self.symbol(name, id, SymbolKind::Data))
    }

    pub(crate) fn relocate(
        &mut self,
        section: SectionId,
        offset: u64,
        symbol: SymbolId,
        typ: u16,
        addend: i64,
    ) {
        let flags = RelocationFlags::Coff {
            typ: pe::RelocationType(typ),
        };
        self.0
            .add_relocation(
                section,
                Relocation {
                    offset,
                    symbol,
                    addend,
                    flags,
                },
            )
            .expect("a relocation that COFF has");
    }

    pub(crate) fn lea(&mut self, section: SectionId, symbol: SymbolId) {
        self.relocate(section, 3, symbol, pe::IMAGE_REL_AMD64_REL32.0, -4);
    }

    pub(crate) fn pointer(&mut self, section: SectionId, offset: u64, symbol: SymbolId) {
        self.relocate(section, offset, symbol, pe::IMAGE_REL_AMD64_ADDR64.0, 0);
    }

    pub(crate) fn bytes(self) -> Vec<u8> {
        self.0.write().expect("an object")
    }
}
