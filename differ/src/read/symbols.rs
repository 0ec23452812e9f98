//! CodeView symbol records to the few facts that matter here, places still as the PDB has them.

use std::ops::Range;
use std::path::Path;

use hpbuild_metadata::SectionOffset;
use ms_pdb::codeview::parser::ParserError;
use ms_pdb::syms::{
    ArmSwitchTable, ArmSwitchType, Compile3, Constant, Data, HotPatchFunc, OffsetSegment, Proc,
    Pub, Sym, SymKind, ThreadStorageData, Thunk, Trampoline,
};
use ms_pdb::types::TypeIndex;

use crate::error::Error;
use crate::image::{Mention, SwitchEntry, Tool};
use crate::records::SymbolRecords;

/// The symbols of one compiland.
#[derive(Default)]
pub(super) struct ModuleSymbols {
    pub(super) procedures: Vec<RawProcedure>,
    pub(super) data: Vec<RawData>,
    pub(super) thunks: Vec<RawThunk>,
    pub(super) switch_tables: Vec<RawSwitchTable>,
    /// Cold parts that the compiler moved away from their function (`S_SEPCODE`).
    pub(super) separated: Vec<RawSeparated>,
    /// What the linker put beside each other by the names of object sections (`S_COFFGROUP`).
    pub(super) groups: Vec<RawGroup>,
    /// Functions compiled to reach their globals through `__ref_` variables.
    pub(super) hotpatch_functions: Vec<Box<str>>,
    pub(super) tool: Option<Tool>,
    /// Names of functions that may have no body of their own.
    pub(super) bodiless: Vec<Box<str>>,
    /// What records inside procedures mention, procedure by procedure.
    pub(super) mentions: Vec<Mention>,
}

pub(super) struct RawProcedure {
    pub(super) place: SectionOffset,
    pub(super) size: u32,
    pub(super) name: Box<str>,
    pub(super) global: bool,
    pub(super) type_index: u32,
    /// Whether the type index is an item id.
    pub(super) is_item: bool,
    /// What records inside it mention, as a range of [`ModuleSymbols::mentions`].
    pub(super) mentions: Range<u32>,
    /// Its record and those inside it, as a range of the compiland's symbol records.
    pub(super) records: Range<u32>,
}

pub(super) struct RawData {
    pub(super) place: SectionOffset,
    pub(super) name: Box<str>,
    pub(super) global: bool,
    pub(super) thread_local: bool,
    pub(super) type_index: u32,
    /// The procedure it is a static local of, as an index of [`ModuleSymbols::procedures`].
    pub(super) parent: Option<u32>,
    /// The item of the inlined function that it is a static local of, where its record stands among
    /// those of one; 0 for none.
    pub(super) inlinee: u32,
    /// The function that declares it, where its name is all that is left of that.
    pub(super) declared_in: Option<Box<str>>,
    /// The index of its compiland, where the record says it by itself.
    pub(super) compiland: Option<u32>,
}

/// A scope that is open while records are read.
#[derive(Clone, Copy, Default)]
struct Scope {
    /// The procedure that it belongs to.
    procedure: Option<u32>,
    /// The item of the inlined function that it belongs to; 0 for none.
    inlinee: u32,
}

pub(super) struct RawThunk {
    pub(super) place: SectionOffset,
    pub(super) size: u32,
    pub(super) name: Box<str>,
}

pub(super) struct RawSwitchTable {
    pub(super) table: SectionOffset,
    pub(super) base: SectionOffset,
    pub(super) branch: SectionOffset,
    pub(super) entry: SwitchEntry,
    pub(super) count: u32,
}

pub(super) struct RawSeparated {
    pub(super) place: SectionOffset,
    pub(super) size: u32,
    pub(super) parent: SectionOffset,
}

pub(super) struct RawGroup {
    pub(super) place: SectionOffset,
    pub(super) size: u32,
    pub(super) name: Box<str>,
}

/// A public: a linkage name with an address.
pub(super) struct RawPublic {
    pub(super) place: SectionOffset,
    pub(super) name: Box<str>,
}

/// What the global symbol stream tells.
#[derive(Default)]
pub(super) struct GlobalSymbols {
    pub(super) publics: Vec<RawPublic>,
    /// Data that no compiland's own records name, and data that these name as well.
    pub(super) data: Vec<RawData>,
    /// Enumerators of C, whose records lead to no enumeration: names and values.
    pub(super) enumerators: Vec<(Box<str>, i128)>,
}

impl ModuleSymbols {
    /// Notes the type that a record inside a procedure mentions, by the index in its bytes: of
    /// variables, of aliases, of calls, and of what is allocated. Offsets of the index are those of
    /// LLVM's CodeView records and of MSVC's `cvinfo.h`.
    fn mention(&mut self, data: &[u8], at: usize, scopes: &[Scope]) {
        self.mention_index(data, at, false, scopes);
    }

    /// The same for the item that says what was inlined.
    fn mention_item(&mut self, data: &[u8], at: usize, scopes: &[Scope]) {
        self.mention_index(data, at, true, scopes);
    }

    fn mention_index(&mut self, data: &[u8], at: usize, is_item: bool, scopes: &[Scope]) {
        let word = word(data, at);
        // Basic types lead nowhere.
        if word < TypeIndex::MIN_BEGIN.0 {
            return;
        }
        let mention = Mention {
            index: word,
            is_item,
        };
        let open = innermost(scopes).procedure;
        let Some(procedure) = open.and_then(|open| self.procedures.get_mut(open as usize)) else {
            return;
        };
        let known = &mut procedure.mentions;
        let repeats = known.start < known.end && self.mentions.last() == Some(&mention);
        if !repeats {
            self.mentions.push(mention);
        }
        // Procedures do not nest. If some did, the outer one would be said to mention what the
        // inner one does, too, which errs on the safe side.
        known.end = index(self.mentions.len());
    }

    /// Notes that a scope of a procedure ends at `offset`; its own is the last.
    fn close(&mut self, procedure: Option<u32>, offset: usize) {
        if let Some(procedure) = procedure.and_then(|it| self.procedures.get_mut(it as usize)) {
            procedure.records.end = index(offset);
        }
    }

    /// Adds what a record tells of code and data, if it is one that does.
    fn add(
        &mut self,
        symbol: &Sym<'_>,
        offset: usize,
        scopes: &mut Vec<Scope>,
    ) -> Result<(), ParserError> {
        let found = self;
        match symbol.kind {
            SymKind::S_GPROC32
            | SymKind::S_LPROC32
            | SymKind::S_GPROC32_ID
            | SymKind::S_LPROC32_ID
            | SymKind::S_LPROC32_DPC
            | SymKind::S_LPROC32_DPC_ID => {
                scopes.push(Scope {
                    procedure: u32::try_from(found.procedures.len()).ok(),
                    inlinee: 0,
                });
                let procedure = found.procedure(symbol.kind, symbol.parse_as()?, offset);
                found.procedures.push(procedure);
            }
            SymKind::S_GDATA32 | SymKind::S_LDATA32 => {
                let record: Data<'_> = symbol.parse_as()?;
                let scope = innermost(scopes);
                found.data.push(RawData {
                    place: place(record.header.offset_segment),
                    name: text(record.name),
                    global: symbol.kind == SymKind::S_GDATA32,
                    thread_local: false,
                    type_index: record.header.type_.get().0,
                    parent: scope.procedure,
                    inlinee: scope.inlinee,
                    declared_in: None,
                    compiland: None,
                });
            }
            SymKind::S_GTHREAD32 | SymKind::S_LTHREAD32 => {
                let record: ThreadStorageData<'_> = symbol.parse_as()?;
                let scope = innermost(scopes);
                found.data.push(RawData {
                    place: place(record.header.offset_segment),
                    name: text(record.name),
                    global: symbol.kind == SymKind::S_GTHREAD32,
                    thread_local: true,
                    type_index: record.header.type_.get().0,
                    parent: scope.procedure,
                    inlinee: scope.inlinee,
                    declared_in: None,
                    compiland: None,
                });
            }
            SymKind::S_THUNK32 => {
                scopes.push(innermost(scopes));
                let record: Thunk<'_> = symbol.parse_as()?;
                found.thunks.push(RawThunk {
                    place: place(record.fixed.offset_segment),
                    size: record.fixed.length.get().into(),
                    name: text(record.name),
                });
            }
            SymKind::S_TRAMPOLINE => {
                let record: Trampoline<'_> = symbol.parse_as()?;
                found.thunks.push(RawThunk {
                    place: place(record.fixed.thunk()),
                    size: record.fixed.thunk_len.get().into(),
                    name: "".into(),
                });
            }
            SymKind::S_ARMSWITCHTABLE => found.switch_tables.extend(switch_table(symbol.data)),
            SymKind::S_SEPCODE => found.separated.extend(separated(symbol.data)),
            SymKind::S_COFFGROUP => found.groups.extend(group(symbol.data)),
            SymKind::S_COMPILE3 => {
                let record: Compile3<'_> = symbol.parse_as()?;
                let flags = record.fixed.flags.get();
                found.tool = Some(Tool {
                    version: text(record.name),
                    language: flags.to_le_bytes()[0],
                    hotpatch: flags & (1 << 14) != 0,
                });
            }
            SymKind::S_HOTPATCHFUNC => {
                let record: HotPatchFunc<'_> = symbol.parse_as()?;
                found.hotpatch_functions.push(text(record.name));
            }
            _ => {}
        }
        Ok(())
    }

    fn procedure(&self, kind: SymKind, record: Proc<'_>, offset: usize) -> RawProcedure {
        let mentions = index(self.mentions.len());
        RawProcedure {
            place: place(record.fixed.offset_segment),
            size: record.fixed.proc_len.get(),
            name: text(record.name),
            global: matches!(kind, SymKind::S_GPROC32 | SymKind::S_GPROC32_ID),
            type_index: record.fixed.proc_type.get().0,
            is_item: matches!(
                kind,
                SymKind::S_GPROC32_ID | SymKind::S_LPROC32_ID | SymKind::S_LPROC32_DPC_ID
            ),
            mentions: mentions..mentions,
            records: index(offset)..index(offset),
        }
    }
}

/// The innermost open scope, or that of no procedure.
fn innermost(scopes: &[Scope]) -> Scope {
    scopes.last().copied().unwrap_or_default()
}

/// Four bytes of a record as a number; 0 where there are none.
fn word(data: &[u8], at: usize) -> u32 {
    let word = data.get(at..).and_then(|rest| rest.first_chunk());
    word.map_or(0, |word| u32::from_le_bytes(*word))
}

/// Reads the symbols of one compiland.
///
/// # Errors
/// Where a record of a kind used here cannot be read, or the records end in the middle of one.
pub(super) fn module_symbols(
    path: &Path,
    name: &str,
    bytes: &[u8],
) -> Result<ModuleSymbols, Error> {
    let mut found = ModuleSymbols::default();
    let mut scopes: Vec<Scope> = Vec::new();
    let mut iter = SymbolRecords::new(bytes);
    let mut offset = 0;
    for symbol in iter.by_ref() {
        let broken = |_| {
            let place = format!("pdb symbols of {name}+{offset:#x}");
            let found = format!("{:#x} bytes that do not parse", symbol.data.len());
            Error::format(
                path,
                place,
                format!("a record of kind {:?}", symbol.kind),
                found,
            )
        };
        // Most records are of variables and of where they live: one look tells them apart.
        match symbol.kind {
            SymKind::S_LOCAL | SymKind::S_REGISTER | SymKind::S_UDT => {
                found.mention(symbol.data, 0, &scopes);
            }
            SymKind::S_REGREL32 | SymKind::S_BPREL32 => found.mention(symbol.data, 4, &scopes),
            SymKind::S_CALLSITEINFO | SymKind::S_HEAPALLOCSITE => {
                found.mention(symbol.data, 8, &scopes);
            }
            SymKind::S_INLINESITE | SymKind::S_INLINESITE2 => {
                found.mention_item(symbol.data, 8, &scopes);
                scopes.push(Scope {
                    inlinee: word(symbol.data, 8),
                    ..innermost(&scopes)
                });
            }
            SymKind::S_BLOCK32 | SymKind::S_WITH32 => scopes.push(innermost(&scopes)),
            SymKind::S_END | SymKind::S_PROC_ID_END | SymKind::S_INLINESITE_END => {
                found.close(scopes.pop().and_then(|scope| scope.procedure), offset);
            }
            _ => {
                found.add(&symbol, offset, &mut scopes).map_err(broken)?;
            }
        }
        offset += 4 + symbol.data.len();
    }
    check_whole(path, name, &iter, bytes.len())?;
    Ok(found)
}

/// Reads the global symbol stream.
///
/// # Errors
/// As [`module_symbols`].
pub(super) fn global_symbols(path: &Path, bytes: &[u8]) -> Result<GlobalSymbols, Error> {
    let mut found = GlobalSymbols::default();
    let mut iter = SymbolRecords::new(bytes);
    for symbol in iter.by_ref() {
        let broken = |_| {
            let expected = format!("a record of kind {:?}", symbol.kind);
            Error::format(
                path,
                "pdb global symbols",
                expected,
                "bytes that do not parse",
            )
        };
        match symbol.kind {
            SymKind::S_PUB32 => {
                let record: Pub<'_> = symbol.parse_as().map_err(broken)?;
                found.publics.push(RawPublic {
                    place: place(record.offset_segment()),
                    name: text(record.name),
                });
            }
            SymKind::S_GDATA32 | SymKind::S_LDATA32 => {
                let record: Data<'_> = symbol.parse_as().map_err(broken)?;
                found.data.push(RawData {
                    place: place(record.header.offset_segment),
                    name: text(record.name),
                    global: symbol.kind == SymKind::S_GDATA32,
                    thread_local: false,
                    type_index: record.header.type_.get().0,
                    parent: None,
                    inlinee: 0,
                    declared_in: None,
                    compiland: None,
                });
            }
            SymKind::S_CONSTANT => {
                let record: Constant<'_> = symbol.parse_as().map_err(broken)?;
                // A constant that a program declares is of a constant type, and that is a record.
                let is_enumerator = record.type_ < TypeIndex::MIN_BEGIN;
                let value = is_enumerator.then(|| i128::try_from(record.value));
                if let Some(Ok(value)) = value {
                    found.enumerators.push((text(record.name), value));
                }
            }
            _ => {}
        }
    }
    check_whole(path, "the global stream", &iter, bytes.len())?;
    Ok(found)
}

/// The iterator stops silently at a record it cannot read; whatever is left then is an error,
/// because a symbol that is missed is a function that is not compared.
fn check_whole(
    path: &Path,
    name: &str,
    iter: &SymbolRecords<'_>,
    total: usize,
) -> Result<(), Error> {
    let rest = iter.rest();
    // Streams are padded with zeros to a multiple of four.
    if rest.iter().all(|byte| *byte == 0) && rest.len() < 4 {
        return Ok(());
    }
    let place = format!("pdb symbols of {name}+{:#x}", total - rest.len());
    let found = format!("{:#x} bytes that are none", rest.len());
    Err(Error::format(path, place, "a whole symbol record", found))
}

fn index(length: usize) -> u32 {
    u32::try_from(length).expect("a stream has fewer than 2^32 records")
}

fn place(at: OffsetSegment) -> SectionOffset {
    SectionOffset {
        section: at.segment(),
        offset: at.offset(),
    }
}

/// Names are UTF-8 by convention; what is not is kept readable.
fn text(name: &bstr::BStr) -> Box<str> {
    match str::from_utf8(name) {
        Ok(name) => name.into(),
        Err(_) => String::from_utf8_lossy(name).into(),
    }
}

fn switch_table(data: &[u8]) -> Option<RawSwitchTable> {
    use zerocopy::FromBytes;
    let (table, _) = ArmSwitchTable::ref_from_prefix(data).ok()?;
    let (size, signed, shift, absolute) = match table.switch_type() {
        ArmSwitchType::INT1 => (1, true, 0, false),
        ArmSwitchType::UINT1 => (1, false, 0, false),
        ArmSwitchType::INT2 => (2, true, 0, false),
        ArmSwitchType::UINT2 => (2, false, 0, false),
        ArmSwitchType::INT4 => (4, true, 0, false),
        ArmSwitchType::UINT4 => (4, false, 0, false),
        ArmSwitchType::POINTER => (8, false, 0, true),
        ArmSwitchType::UINT1SHL1 => (1, false, 1, false),
        ArmSwitchType::UINT2SHL1 => (2, false, 1, false),
        ArmSwitchType::INT1SHL1 => (1, true, 1, false),
        ArmSwitchType::INT2SHL1 => (2, true, 1, false),
        _ => return None,
    };
    Some(RawSwitchTable {
        table: place(table.table()),
        base: place(table.base()),
        branch: place(table.branch()),
        entry: SwitchEntry {
            size,
            signed,
            shift,
            absolute,
        },
        count: table.num_entries(),
    })
}

/// `SEPCODESYM`: parent, end, length, flags, offset and parent's offset, section and parent's
/// section (LLVM's CodeView records, `S_SEPCODE` in MSVC's `cvinfo.h`).
fn separated(data: &[u8]) -> Option<RawSeparated> {
    let word = |at: usize| Some(u32::from_le_bytes(*data.get(at..)?.first_chunk()?));
    let half = |at: usize| Some(u16::from_le_bytes(*data.get(at..)?.first_chunk()?));
    Some(RawSeparated {
        size: word(8)?,
        place: SectionOffset {
            offset: word(16)?,
            section: half(24)?,
        },
        parent: SectionOffset {
            offset: word(20)?,
            section: half(26)?,
        },
    })
}

/// `COFFGROUPSYM`: length, characteristics, offset, section, name (`cvinfo.h`, LLVM's CodeView
/// records).
fn group(data: &[u8]) -> Option<RawGroup> {
    let word = |at: usize| Some(u32::from_le_bytes(*data.get(at..)?.first_chunk()?));
    let name = data.get(14..)?.split(|byte| *byte == 0).next()?;
    Some(RawGroup {
        size: word(0)?,
        place: SectionOffset {
            offset: word(8)?,
            section: u16::from_le_bytes(*data.get(12..)?.first_chunk()?),
        },
        name: text(name.into()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `S_SEPCODE` as `cvinfo.h` lays it out; a cut record is none.
    #[test]
    fn separated_code() {
        let mut data = Vec::new();
        // Parent and end, length, flags, offset, the parent's offset.
        for word in [0x10_u32, 0x90, 0x123, 1, 0x4567, 0x89ab] {
            data.extend(word.to_le_bytes());
        }
        // Section, the parent's section.
        for half in [3_u16, 1] {
            data.extend(half.to_le_bytes());
        }
        let found = separated(&data).unwrap();
        let place = |section, offset| SectionOffset { section, offset };
        assert_eq!((found.place, found.size), (place(3, 0x4567), 0x123));
        assert_eq!(found.parent, place(1, 0x89ab));
        for length in 0..data.len() {
            assert!(separated(&data[..length]).is_none());
        }
    }

    /// `S_COFFGROUP` as `cvinfo.h` lays it out; a cut record is none.
    #[test]
    fn groups() {
        let mut data = Vec::new();
        for word in [0x18_u32, 0x4000_0040, 0x1230] {
            data.extend(word.to_le_bytes());
        }
        data.extend(2_u16.to_le_bytes());
        for length in 0..=data.len() - 1 {
            assert!(group(&data[..length]).is_none());
        }
        data.extend(b".CRT$XCU\0\0");
        let found = group(&data).unwrap();
        assert_eq!(
            (found.size, found.place.offset, found.place.section),
            (0x18, 0x1230, 2)
        );
        assert_eq!(&*found.name, ".CRT$XCU");
    }

    /// Variables count among what a procedure mentions, basic types do not, and what stands behind
    /// the procedure is not its own.
    #[test]
    fn mentions_of_a_procedure() {
        let mut bytes = Vec::new();
        let mut record = |kind: SymKind, data: &[u8]| {
            bytes.extend((data.len() as u16 + 2).to_le_bytes());
            bytes.extend(kind.0.to_le_bytes());
            bytes.extend(data);
        };
        let of_type = |index: u32, behind: &[u8]| [&index.to_le_bytes()[..], behind].concat();
        // Parent to type, offset, section and flags; a name.
        let procedure = [&[0; 35][..], b"f\0"].concat();
        record(SymKind::S_UDT, &of_type(0x1001, b"before\0\0"));
        record(SymKind::S_GPROC32, &procedure);
        record(SymKind::S_LOCAL, &of_type(0x1002, &[0; 8]));
        record(SymKind::S_LOCAL, &of_type(0x1002, &[0; 8]));
        record(SymKind::S_LOCAL, &of_type(0x74, &[0; 8]));
        record(SymKind::S_BLOCK32, &[0; 20]);
        record(
            SymKind::S_REGREL32,
            &[[0; 4], [3, 0x10, 0, 0], [0; 4]].concat(),
        );
        record(SymKind::S_END, &[]);
        record(
            SymKind::S_INLINESITE,
            &[[0; 4], [0; 4], [4, 0x10, 0, 0]].concat(),
        );
        record(SymKind::S_INLINESITE_END, &[]);
        record(SymKind::S_END, &[]);
        record(SymKind::S_UDT, &of_type(0x1005, b"behind\0\0"));
        let found = module_symbols(Path::new("x.pdb"), "x.obj", &bytes).unwrap();
        let own = &found.procedures[0];
        let range = own.mentions.start as usize..own.mentions.end as usize;
        let mentions = found.mentions[range].iter();
        let mentions: Vec<_> = mentions.map(|it| (it.index, it.is_item)).collect();
        assert_eq!(mentions, [(0x1002, false), (0x1003, false), (0x1004, true)]);
        assert_eq!(found.mentions.len(), 3);
        // From its own record to that of its end.
        let records = &bytes[own.records.start as usize..own.records.end as usize];
        assert_eq!(records[..2], (procedure.len() as u16 + 2).to_le_bytes());
        assert_eq!(
            &bytes[own.records.end as usize..][2..4],
            SymKind::S_END.0.to_le_bytes()
        );
    }
}
