//! What the debug information of an object calls its functions (CodeView, `cvinfo.h` of the
//! published Microsoft PDB sources: `CV_SIGNATURE_C13`, `DEBUG_S_SYMBOLS`, `PROCSYM32`).

use std::collections::HashMap;

use object::coff::CoffHeader;
use object::read::coff::CoffFile;
use object::{Object, ObjectSection, RelocationTarget, SymbolIndex};

/// `DEBUG_S_SYMBOLS`.
const SYMBOLS: u32 = 0xf1;

/// `S_LPROC32`, `S_GPROC32`, and the two with ids.
const PROCEDURES: [u16; 4] = [0x110f, 0x1110, 0x1146, 0x1147];

/// Bytes from the start of a procedure's record to its address, which the linker fills in.
const ADDRESS: usize = 32;

/// Bytes from there to its name: address, section number, flags.
const NAME: usize = ADDRESS + 4 + 2 + 1;

/// Names by the symbols they are of. Records that do not hold together are left out.
pub(super) fn names<'data, H: CoffHeader>(
    file: &CoffFile<'data, &'data [u8], H>,
    index_of: &HashMap<SymbolIndex, usize>,
) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for section in file.sections() {
        if section.name() != Ok(".debug$S") {
            continue;
        }
        let Ok(bytes) = section.data() else { continue };
        let mut targets = HashMap::new();
        for (offset, relocation) in section.relocations() {
            if let RelocationTarget::Symbol(symbol) = relocation.target() {
                targets.entry(offset as usize).or_insert(symbol);
            }
        }
        for (address, name) in procedures(bytes) {
            let symbol = targets.get(&address).and_then(|it| index_of.get(it));
            found.extend(symbol.map(|&symbol| (symbol, name)));
        }
    }
    found
}

/// Offsets of the addresses of all procedures in a `.debug$S` section, and their names.
fn procedures(bytes: &[u8]) -> Vec<(usize, String)> {
    let number = |at: usize| -> Option<usize> {
        let bytes = bytes.get(at..)?.first_chunk()?;
        usize::try_from(u32::from_le_bytes(*bytes)).ok()
    };
    let mut found = Vec::new();
    let mut at = 4;
    while let (Some(kind), Some(len)) = (number(at), number(at + 4)) {
        let end = (at + 8).saturating_add(len).min(bytes.len());
        if kind == SYMBOLS as usize {
            found.extend(records(bytes, at + 8, end));
        }
        at = end.next_multiple_of(4);
    }
    found
}

fn records(bytes: &[u8], start: usize, end: usize) -> Vec<(usize, String)> {
    let half = |at: usize| -> Option<u16> {
        Some(u16::from_le_bytes(*bytes.get(at..end)?.first_chunk()?))
    };
    let mut found = Vec::new();
    let mut at = start;
    while let (Some(len), Some(kind)) = (half(at), half(at + 2)) {
        let next = at + 2 + usize::from(len);
        let name = bytes.get(at + NAME..next.min(end));
        if let Some(name) = name.filter(|_| PROCEDURES.contains(&kind)) {
            let name = name.split(|&byte| byte == 0).next().unwrap_or_default();
            found.push((at + ADDRESS, String::from_utf8_lossy(name).into_owned()));
        }
        at = next;
    }
    found
}
