//! CodeView symbol records to the few facts that matter here, places still as the PDB has them.

use std::path::Path;

use hpbuild_metadata::SectionOffset;
use ms_pdb::syms::{
    ArmSwitchTable, ArmSwitchType, Compile3, Data, OffsetSegment, Proc, Pub, SymIter, SymKind,
    ThreadStorageData, Thunk, Trampoline,
};

use crate::error::Error;
use crate::image::{SwitchEntry, Tool};

/// The symbols of one compiland.
#[derive(Default)]
pub(super) struct ModuleSymbols {
    pub(super) procedures: Vec<RawProcedure>,
    pub(super) data: Vec<RawData>,
    pub(super) thunks: Vec<RawThunk>,
    pub(super) switch_tables: Vec<RawSwitchTable>,
    /// Cold parts that the compiler moved away from their function (`S_SEPCODE`).
    pub(super) separated: Vec<RawSeparated>,
    /// Functions compiled to reach their globals through `__ref_` variables.
    pub(super) hotpatch_functions: Vec<Box<str>>,
    pub(super) tool: Option<Tool>,
}

pub(super) struct RawProcedure {
    pub(super) place: SectionOffset,
    pub(super) size: u32,
    pub(super) name: Box<str>,
    pub(super) global: bool,
    pub(super) type_index: u32,
    /// Whether the type index is an item id.
    pub(super) is_item: bool,
    /// Type indexes that records inside it mention, and whether each is an item id.
    pub(super) mentions: Vec<(u32, bool)>,
}

pub(super) struct RawData {
    pub(super) place: SectionOffset,
    pub(super) name: Box<str>,
    pub(super) global: bool,
    pub(super) thread_local: bool,
    pub(super) type_index: u32,
    /// The procedure it is a static local of, as an index of [`ModuleSymbols::procedures`].
    pub(super) parent: Option<u32>,
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

/// A public: a linkage name with an address.
pub(super) struct RawPublic {
    pub(super) place: SectionOffset,
    pub(super) name: Box<str>,
}

/// `S_GPROC32_ID` and its kin keep an item id where the older records keep a type.
const PROCEDURES: [(SymKind, bool, bool); 6] = [
    (SymKind::S_GPROC32, true, false),
    (SymKind::S_LPROC32, false, false),
    (SymKind::S_GPROC32_ID, true, true),
    (SymKind::S_LPROC32_ID, false, true),
    (SymKind::S_LPROC32_DPC, false, false),
    (SymKind::S_LPROC32_DPC_ID, false, true),
];

/// Kinds that open a scope which `S_END`, `S_PROC_ID_END` or `S_INLINESITE_END` closes.
const SCOPES: [SymKind; 5] = [
    SymKind::S_BLOCK32,
    SymKind::S_THUNK32,
    SymKind::S_INLINESITE,
    SymKind::S_INLINESITE2,
    SymKind::S_WITH32,
];

/// The kinds that most records of a compiland are of: variables of functions and where they live.
fn is_passed_over(kind: SymKind) -> bool {
    matches!(
        kind,
        SymKind::S_LOCAL
            | SymKind::S_REGREL32
            | SymKind::S_FRAMEPROC
            | SymKind::S_DEFRANGE_REGISTER
            | SymKind::S_DEFRANGE_REGISTER_REL
            | SymKind::S_DEFRANGE_FRAMEPOINTER_REL
            | SymKind::S_DEFRANGE_FRAMEPOINTER_REL_FULL_SCOPE
            | SymKind::S_DEFRANGE_SUBFIELD_REGISTER
            | SymKind::S_UDT
            | SymKind::S_CONSTANT
    )
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
    // The procedure each open scope belongs to.
    let mut scopes: Vec<Option<u32>> = Vec::new();
    let mut iter = SymIter::new(bytes);
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
        if is_passed_over(symbol.kind) {
            offset += 4 + symbol.data.len();
            continue;
        }
        let procedure = PROCEDURES.iter().find(|(kind, ..)| *kind == symbol.kind);
        if let Some(&(_, global, is_item)) = procedure {
            let record: Proc<'_> = symbol.parse_as().map_err(broken)?;
            scopes.push(u32::try_from(found.procedures.len()).ok());
            found.procedures.push(RawProcedure {
                place: place(record.fixed.offset_segment),
                size: record.fixed.proc_len.get(),
                name: text(record.name),
                global,
                type_index: record.fixed.proc_type.get().0,
                is_item,
                mentions: Vec::new(),
            });
        } else if SCOPES.contains(&symbol.kind) {
            scopes.push(scopes.last().copied().flatten());
        }
        let open = scopes.last().copied().flatten();
        if let Some(mention) = mentioned(symbol.kind, symbol.data)
            && let Some(procedure) = open.and_then(|open| found.procedures.get_mut(open as usize))
            && procedure.mentions.last() != Some(&mention)
        {
            procedure.mentions.push(mention);
        }
        match symbol.kind {
            SymKind::S_END | SymKind::S_PROC_ID_END | SymKind::S_INLINESITE_END => {
                scopes.pop();
            }
            SymKind::S_GDATA32 | SymKind::S_LDATA32 => {
                let record: Data<'_> = symbol.parse_as().map_err(broken)?;
                found.data.push(RawData {
                    place: place(record.header.offset_segment),
                    name: text(record.name),
                    global: symbol.kind == SymKind::S_GDATA32,
                    thread_local: false,
                    type_index: record.header.type_.get().0,
                    parent: scopes.last().copied().flatten(),
                });
            }
            SymKind::S_GTHREAD32 | SymKind::S_LTHREAD32 => {
                let record: ThreadStorageData<'_> = symbol.parse_as().map_err(broken)?;
                found.data.push(RawData {
                    place: place(record.header.offset_segment),
                    name: text(record.name),
                    global: symbol.kind == SymKind::S_GTHREAD32,
                    thread_local: true,
                    type_index: record.header.type_.get().0,
                    parent: scopes.last().copied().flatten(),
                });
            }
            SymKind::S_THUNK32 => {
                let record: Thunk<'_> = symbol.parse_as().map_err(broken)?;
                found.thunks.push(RawThunk {
                    place: place(record.fixed.offset_segment),
                    size: record.fixed.length.get().into(),
                    name: text(record.name),
                });
            }
            SymKind::S_TRAMPOLINE => {
                let record: Trampoline<'_> = symbol.parse_as().map_err(broken)?;
                found.thunks.push(RawThunk {
                    place: place(record.fixed.thunk()),
                    size: record.fixed.thunk_len.get().into(),
                    name: "".into(),
                });
            }
            SymKind::S_ARMSWITCHTABLE => {
                found.switch_tables.extend(switch_table(symbol.data));
            }
            SymKind::S_SEPCODE => found.separated.extend(separated(symbol.data)),
            SymKind::S_COMPILE3 => {
                let record: Compile3<'_> = symbol.parse_as().map_err(broken)?;
                let flags = record.fixed.flags.get();
                found.tool = Some(Tool {
                    version: text(record.name),
                    language: flags.to_le_bytes()[0],
                    hotpatch: flags & (1 << 14) != 0,
                });
            }
            SymKind::S_HOTPATCHFUNC => {
                let record: ms_pdb::syms::HotPatchFunc<'_> = symbol.parse_as().map_err(broken)?;
                found.hotpatch_functions.push(text(record.name));
            }
            _ => {}
        }
        offset += 4 + symbol.data.len();
    }
    check_whole(path, name, &iter, bytes.len())?;
    Ok(found)
}

/// The type that a record inside a procedure mentions, and whether it is an item id: of variables,
/// of aliases, of calls, of what is allocated, and of what is inlined. Offsets of the index are
/// those of LLVM's CodeView records and of MSVC's `cvinfo.h`.
fn mentioned(kind: SymKind, data: &[u8]) -> Option<(u32, bool)> {
    let (at, is_item) = match kind {
        SymKind::S_LOCAL | SymKind::S_REGISTER | SymKind::S_UDT => (0, false),
        SymKind::S_REGREL32 | SymKind::S_BPREL32 => (4, false),
        SymKind::S_CALLSITEINFO | SymKind::S_HEAPALLOCSITE => (8, false),
        SymKind::S_INLINESITE | SymKind::S_INLINESITE2 => (8, true),
        _ => return None,
    };
    let index = data.get(at..)?.first_chunk()?;
    Some((u32::from_le_bytes(*index), is_item))
}

/// Reads the global symbol stream: publics, and data that no compiland's own records name.
///
/// # Errors
/// As [`module_symbols`].
pub(super) fn global_symbols(
    path: &Path,
    bytes: &[u8],
) -> Result<(Vec<RawPublic>, Vec<RawData>), Error> {
    let (mut publics, mut data) = (Vec::new(), Vec::new());
    let mut iter = SymIter::new(bytes);
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
                publics.push(RawPublic {
                    place: place(record.offset_segment()),
                    name: text(record.name),
                });
            }
            SymKind::S_GDATA32 | SymKind::S_LDATA32 => {
                let record: Data<'_> = symbol.parse_as().map_err(broken)?;
                data.push(RawData {
                    place: place(record.header.offset_segment),
                    name: text(record.name),
                    global: symbol.kind == SymKind::S_GDATA32,
                    thread_local: false,
                    type_index: record.header.type_.get().0,
                    parent: None,
                });
            }
            _ => {}
        }
    }
    check_whole(path, "the global stream", &iter, bytes.len())?;
    Ok((publics, data))
}

/// The iterator stops silently at a record it cannot read; whatever is left then is an error,
/// because a symbol that is missed is a function that is not compared.
fn check_whole(path: &Path, name: &str, iter: &SymIter<'_>, total: usize) -> Result<(), Error> {
    let rest = iter.rest();
    // Streams are padded with zeros to a multiple of four.
    if rest.iter().all(|byte| *byte == 0) && rest.len() < 4 {
        return Ok(());
    }
    let place = format!("pdb symbols of {name}+{:#x}", total - rest.len());
    let found = format!("{:#x} bytes that are none", rest.len());
    Err(Error::format(path, place, "a whole symbol record", found))
}

fn place(at: OffsetSegment) -> SectionOffset {
    SectionOffset {
        section: at.segment(),
        offset: at.offset(),
    }
}

/// Names are UTF-8 by convention; what is not is kept readable.
fn text(name: &bstr::BStr) -> Box<str> {
    name.to_string().into()
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
}
