//! A PDB for the patch image, so that a debugger and a crash dump show names for patched frames.
//!
//! It holds a procedure for every function, thunk and stub, and a public for every piece whose name is its own; no types
//! and no lines. The format is that of the LLVM project's "The PDB File Format".

mod msf;

use std::collections::BTreeSet;

use ms_pdb::globals::build_global_symbols_index;

use crate::link::{Linked, LinkedSymbol};
use crate::piece::{Parts, Room};

/// Buckets of the hash tables of names, as every PDB has them.
const BUCKETS: usize = 4096;
/// Where the streams stand.
const GLOBALS: u16 = 5;
const PUBLICS: u16 = 6;
const SYMBOLS: u16 = 7;
const SECTIONS: u16 = 8;
const MODULE: u16 = 9;

const S_END: u16 = 0x0006;
const S_OBJNAME: u16 = 0x1101;
const S_PUB32: u16 = 0x110e;
const S_LPROC32: u16 = 0x110f;
const S_GPROC32: u16 = 0x1110;
const S_PROCREF: u16 = 0x1125;
const S_LPROCREF: u16 = 0x1127;
const S_COMPILE3: u16 = 0x113c;

/// The name of the only compiland.
const COMPILAND: &str = "hotpatch";

/// The bytes of the PDB that belongs to `file`, the written image; `None` where the tables of names
/// cannot be built, which means more symbols than a PDB can hold.
pub fn pdb(parts: &Parts, linked: &Linked, file: &[u8]) -> Option<Vec<u8>> {
    let headers = section_headers(file, linked.sections.len())?;
    let (guid, stamp) = identity(parts, linked, file)?;
    let namesakes = namesakes(linked);
    let (module, procedures) = module_stream(parts, linked, &namesakes);
    let symbols = symbol_records(linked, &procedures, &namesakes);
    let index = build_global_symbols_index(&symbols, BUCKETS).ok()?;
    let mut info = Vec::new();
    u32s(&mut info, &[20_000_404, stamp, 1]);
    info.extend(guid);
    // No named streams: no names, and a table of capacity 1 with nothing in it. Then the feature
    // code of a PDB with an item stream.
    u32s(&mut info, &[0, 0, 1, 0, 0, 20_140_508]);
    let dbi = dbi_stream(parts, linked, u32::try_from(module.len()).ok()?);
    let mut module = module;
    // Behind the symbols: no lines, and no references to globals.
    u32s(&mut module, &[0]);
    Some(msf::container(&[
        Vec::new(),
        info,
        types(),
        dbi,
        types(),
        index.global_symbol_index_stream_data,
        index.public_symbol_index_stream_data,
        symbols,
        headers.to_vec(),
        module,
    ]))
}

/// The section table of the image, which the PDB repeats.
fn section_headers(file: &[u8], count: usize) -> Option<&[u8]> {
    let pe = u32::from_le_bytes(*file.get(0x3c..)?.first_chunk()?) as usize;
    let start = pe.checked_add(24 + 240)?;
    file.get(start..start.checked_add(40 * count)?)
}

/// The GUID that the image's debug directory names, and the image's time stamp.
fn identity(parts: &Parts, linked: &Linked, file: &[u8]) -> Option<([u8; 16], u32)> {
    let name = crate::write::pdb_name(parts);
    let offset = crate::write::place_in_file(linked, linked.directories.guid?)?;
    let guid: &[u8; 16] = file.get(offset..)?.first_chunk()?;
    let named = file.get(offset + 20..offset + 20 + name.len())?;
    let pe = u32::from_le_bytes(*file.get(0x3c..)?.first_chunk()?) as usize;
    let stamp = file.get(pe + 8..)?.first_chunk()?;
    (named == name.as_bytes()).then_some((*guid, u32::from_le_bytes(*stamp)))
}

/// An empty stream of types.
fn types() -> Vec<u8> {
    let mut out = Vec::new();
    // Version, size of this header, first and last type, bytes of types.
    u32s(&mut out, &[20_040_203, 56, 0x1000, 0x1000, 0]);
    u16s(&mut out, &[u16::MAX, u16::MAX]);
    // Size of a hash, buckets, and three empty tables.
    u32s(&mut out, &[4, 0x3ffff, 0, 0, 0, 0, 0, 0]);
    out
}

/// Section number, from 1, and offset of a symbol.
fn place(linked: &Linked, symbol: &LinkedSymbol) -> (u16, u32) {
    let index = linked
        .sections
        .partition_point(|section| section.rva <= symbol.rva);
    let start = index
        .checked_sub(1)
        .map_or(0, |index| linked.sections[index].rva.get());
    (index as u16, symbol.rva.get() - start)
}

/// The symbols of the only compiland, and where each procedure stands among them.
fn module_stream<'a>(
    parts: &Parts,
    linked: &'a Linked,
    namesakes: &BTreeSet<&str>,
) -> (Vec<u8>, Vec<(&'a LinkedSymbol, u32)>) {
    let mut out = 4_u32.to_le_bytes().to_vec();
    record(&mut out, S_OBJNAME, |body| {
        u32s(body, &[0]);
        text(body, COMPILAND);
    });
    record(&mut out, S_COMPILE3, |body| {
        // Language 3 is MASM; CV_CFL_X64 and CV_CFL_ARM64.
        let machine = match parts.machine {
            hpbuild_metadata::Machine::X64 => 0xd0,
            hpbuild_metadata::Machine::Arm64 => 0xf6,
        };
        u32s(body, &[3]);
        u16s(body, &[machine, 0, 1, 0, 0, 0, 1, 0, 0]);
        text(body, concat!("hpbuild ", env!("CARGO_PKG_VERSION")));
    });
    let mut procedures = Vec::new();
    for symbol in linked
        .symbols
        .iter()
        .filter(|symbol| symbol.room == Room::Code)
    {
        let (section, offset) = place(linked, symbol);
        let at = out.len() as u32;
        procedures.push((symbol, at));
        let kind = match namesakes.contains(&*symbol.name) {
            true => S_LPROC32,
            false => S_GPROC32,
        };
        record(&mut out, kind, |body| {
            u32s(body, &[0, 0, 0, symbol.size, 0, symbol.size, 0, offset]);
            u16s(body, &[section]);
            body.push(0);
            text(body, &symbol.name);
        });
        let end = out.len() as u32;
        out[at as usize + 8..at as usize + 12].copy_from_slice(&end.to_le_bytes());
        record(&mut out, S_END, |_| {});
    }
    (out, procedures)
}

/// Names that several functions have, which must be static ones of several sources.
fn namesakes(linked: &Linked) -> BTreeSet<&str> {
    let code = linked.symbols.iter().filter(|it| it.room == Room::Code);
    let mut known = BTreeSet::new();
    code.map(|it| &*it.name)
        .filter(|name| !known.insert(*name))
        .collect()
}

/// Publics, and references to the procedures of the compiland.
fn symbol_records(
    linked: &Linked,
    procedures: &[(&LinkedSymbol, u32)],
    namesakes: &BTreeSet<&str>,
) -> Vec<u8> {
    let mut out = Vec::new();
    let is_static = |it: &LinkedSymbol| it.room == Room::Code && namesakes.contains(&*it.name);
    for symbol in linked
        .symbols
        .iter()
        .filter(|it| it.room != Room::Unwind && !is_static(it))
    {
        let (section, offset) = place(linked, symbol);
        record(&mut out, S_PUB32, |body| {
            // 2: a function.
            u32s(
                body,
                &[if symbol.room == Room::Code { 2 } else { 0 }, offset],
            );
            u16s(body, &[section]);
            text(body, &symbol.name);
        });
    }
    for (symbol, at) in procedures {
        let kind = match is_static(symbol) {
            true => S_LPROCREF,
            false => S_PROCREF,
        };
        record(&mut out, kind, |body| {
            u32s(body, &[0, *at]);
            u16s(body, &[1]);
            text(body, &symbol.name);
        });
    }
    out
}

/// The stream that ties everything together.
fn dbi_stream(parts: &Parts, linked: &Linked, symbol_bytes: u32) -> Vec<u8> {
    let contributions: Vec<u8> = linked
        .sections
        .iter()
        .zip(1..)
        .flat_map(|(section, number)| contribution(number, section.size, section.characteristics))
        .collect();
    let mut modules = 0_u32.to_le_bytes().to_vec();
    modules.extend_from_slice(contributions.get(..28).unwrap_or(&[0; 28]));
    u16s(&mut modules, &[0, MODULE]);
    u32s(&mut modules, &[symbol_bytes, 0, 0, 0, 0, 0, 0]);
    text(&mut modules, COMPILAND);
    text(&mut modules, COMPILAND);
    modules.resize(modules.len().next_multiple_of(4), 0);
    let map = section_map(linked);
    let mut out = u32::MAX.to_le_bytes().to_vec();
    u32s(&mut out, &[19_990_903, 1]);
    // The build number says "new format, linker 14.0".
    u16s(&mut out, &[GLOBALS, 0x8e00, PUBLICS, 0, SYMBOLS, 0]);
    let sizes = [modules.len(), 4 + contributions.len(), map.len(), 8];
    u32s(&mut out, &sizes.map(|size| size as u32));
    // Type servers, their default, optional streams, edit and continue.
    let names = empty_names();
    u32s(&mut out, &[0, 0, 22, names.len() as u32]);
    u16s(&mut out, &[0, parts.machine.coff()]);
    u32s(&mut out, &[0]);
    out.extend(modules);
    u32s(&mut out, &[0xf12e_ba2d]);
    out.extend(contributions);
    out.extend(map);
    // One compiland without source files.
    u16s(&mut out, &[1, 0, 0, 0]);
    out.extend(names);
    let mut optional = [u16::MAX; 11];
    optional[5] = SECTIONS;
    u16s(&mut out, &optional);
    out
}

/// A table of names with the empty one alone, which compilands name for their PDB and source.
fn empty_names() -> Vec<u8> {
    let mut out = Vec::new();
    u32s(&mut out, &[0xeffe_effe, 1, 1]);
    out.push(0);
    // One bucket, empty, and no names.
    u32s(&mut out, &[1, 0, 0]);
    out
}

fn contribution(number: u16, size: u32, characteristics: u32) -> Vec<u8> {
    let mut out = Vec::new();
    u16s(&mut out, &[number, 0]);
    u32s(&mut out, &[0, size, characteristics]);
    u16s(&mut out, &[0, 0]);
    u32s(&mut out, &[0, 0]);
    out
}

/// Segments as debuggers of old wanted them: one a section, and one for absolute symbols.
fn section_map(linked: &Linked) -> Vec<u8> {
    let count = linked.sections.len() as u16 + 1;
    let mut out = Vec::new();
    u16s(&mut out, &[count, count]);
    for (number, section) in (1..).zip(&linked.sections) {
        let access = section.characteristics >> 29;
        // Execute, read and write stand in another order here; 0x108 marks a 32-bit selector.
        let flags = 0x108 | (access >> 1 & 1) | (access >> 2 & 1) << 1 | (access & 1) << 2;
        u16s(&mut out, &[flags as u16, 0, 0, number, u16::MAX, u16::MAX]);
        u32s(&mut out, &[0, section.size]);
    }
    u16s(&mut out, &[0x208, 0, 0, count, u16::MAX, u16::MAX]);
    u32s(&mut out, &[0, u32::MAX]);
    out
}

/// A symbol record: length, kind, body, padded to four bytes.
fn record(out: &mut Vec<u8>, kind: u16, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    u16s(out, &[0, kind]);
    body(out);
    out.resize(out.len().next_multiple_of(4), 0);
    let length = (out.len() - start - 2) as u16;
    out[start..start + 2].copy_from_slice(&length.to_le_bytes());
}

/// A name that fits a record, ended by zero.
fn text(out: &mut Vec<u8>, name: &str) {
    const MAX_NAME: usize = 0xf000;
    let end = (0..=name.len().min(MAX_NAME))
        .rev()
        .find(|end| name.is_char_boundary(*end));
    out.extend(
        name.as_bytes()[..end.unwrap_or(0)]
            .iter()
            .filter(|byte| **byte != 0),
    );
    out.push(0);
}

fn u16s(out: &mut Vec<u8>, values: &[u16]) {
    out.extend(values.iter().flat_map(|value| value.to_le_bytes()));
}

fn u32s(out: &mut Vec<u8>, values: &[u32]) {
    out.extend(values.iter().flat_map(|value| value.to_le_bytes()));
}
