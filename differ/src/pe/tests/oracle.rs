//! Goblin as the oracle: it reads the same images with code of its own.

use std::collections::BTreeSet;

use goblin::pe::PE;
use goblin::pe::options::ParseOptions;

use super::super::{ExportTarget, ImportSymbol};
use super::directories::full;
use super::*;

/// What both readers say, as lines.
fn ours(pe: &Pe<Base>) -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    lines.insert(format!("base {:#x}", pe.image_base));
    lines.insert(format!("stamp {:#x}", pe.identity.time_date_stamp));
    lines.insert(format!("entry {:?}", pe.entry_point.map(|rva| rva.get())));
    for section in &pe.sections {
        let (rva, size) = (section.rva.get(), section.size);
        lines.insert(format!("section {} {rva:#x} {size:#x}", section.name));
    }
    for export in &pe.exports {
        // Goblin lists named exports alone.
        if let (Some(name), ExportTarget::Rva(rva)) = (&export.name, &export.target) {
            lines.insert(format!("export {name} {:#x}", rva.get()));
        }
    }
    for import in pe.imports.iter().filter(|import| !import.delayed) {
        let (dll, slot) = (&import.dll, import.slot.get());
        lines.insert(match &import.symbol {
            ImportSymbol::Name(name) => format!("import {dll} {name} {slot:#x}"),
            ImportSymbol::Ordinal(number) => format!("import {dll} #{number} {slot:#x}"),
        });
    }
    if pe.machine == hpbuild_metadata::Machine::X64 {
        for function in &pe.runtime_functions {
            let (begin, end) = (function.begin.get(), function.end.get());
            lines.insert(format!("function {begin:#x} {end:#x}"));
        }
    }
    if let Some(tls) = &pe.tls {
        let template = tls.template.map(|(rva, size)| (rva.get(), size));
        lines.insert(format!("tls {template:?} {}", tls.callbacks.len()));
    }
    if let Some(codeview) = &pe.codeview {
        lines.insert(format!("pdb {} {}", codeview.age, codeview.pdb_path));
    }
    lines
}

fn theirs(file: &[u8]) -> BTreeSet<String> {
    let mut options = ParseOptions::default();
    options.parse_attribute_certificates = false;
    let pe = PE::parse_with_opts(file, &options).expect("goblin reads it");
    let base = pe.image_base;
    let mut lines = BTreeSet::new();
    lines.insert(format!("base {base:#x}"));
    let stamp = pe.header.coff_header.time_date_stamp;
    lines.insert(format!("stamp {stamp:#x}"));
    let entry = Some(pe.entry).filter(|entry| *entry != 0);
    lines.insert(format!("entry {entry:?}"));
    for section in &pe.sections {
        // As the table has it: goblin looks long names up, which this reader leaves to others.
        let name = String::from_utf8_lossy(&section.name);
        let name = name.trim_end_matches('\0');
        let (rva, size) = (section.virtual_address, section.virtual_size);
        lines.insert(format!("section {name} {rva:#x} {size:#x}"));
    }
    for export in &pe.exports {
        if let (Some(name), None) = (export.name, &export.reexport) {
            lines.insert(format!("export {name} {:#x}", export.rva));
        }
    }
    for import in &pe.imports {
        let (dll, slot) = (import.dll, import.offset);
        lines.insert(match import.ordinal {
            number if number != 0 && import.name.starts_with("ORDINAL") => {
                format!("import {dll} #{number} {slot:#x}")
            }
            _ => format!("import {dll} {} {slot:#x}", import.name),
        });
    }
    if pe.header.coff_header.machine == 0x8664 {
        for function in pe.exception_data.iter().flat_map(|data| data.functions()) {
            let function = function.expect("an entry");
            let (begin, end) = (function.begin_address, function.end_address);
            lines.insert(format!("function {begin:#x} {end:#x}"));
        }
    }
    if let Some(tls) = &pe.tls_data {
        let raw = tls.image_tls_directory;
        let rva = raw.start_address_of_raw_data.checked_sub(base);
        let size = raw.end_address_of_raw_data - raw.start_address_of_raw_data;
        let template = rva.map(|rva| (rva as u32, size as u32));
        lines.insert(format!("tls {template:?} {}", tls.callbacks.len()));
    }
    if let Some(pdb) = pe
        .debug_data
        .and_then(|debug| debug.codeview_pdb70_debug_info)
    {
        let path = pdb
            .filename
            .split(|byte| *byte == 0)
            .next()
            .unwrap_or_default();
        lines.insert(format!("pdb {} {}", pdb.age, String::from_utf8_lossy(path)));
    }
    lines
}

fn compare(file: Vec<u8>) -> usize {
    let expected = theirs(&file);
    let found = ours(&pe(file));
    let missing: Vec<_> = expected.difference(&found).collect();
    let extra: Vec<_> = found.difference(&expected).collect();
    assert!(
        missing.is_empty() && extra.is_empty(),
        "missing {missing:#?}, extra {extra:#?}"
    );
    found.len()
}

#[test]
fn images_made_here() {
    for machine in [0x8664, 0xaa64] {
        let mut image = full(machine);
        // Goblin wants resources to be whole and finds debug data by file offset alone.
        image.directories[2] = (0, 0);
        image.directories[6] = (0, 0);
        assert!(compare(image.build()) >= 15);
    }
}

/// Images that a linker made: those in the repository.
#[test]
fn images_of_a_linker() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/prebuilt");
    let mut folders = vec![folder];
    let mut compared = 0;
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder).expect("the prebuilt pairs");
        for entry in entries {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "dll") {
                let file = std::fs::read(&path).expect("readable");
                if let Ok(Opened::Pe(_)) = open(file.clone()) {
                    compare(file);
                    compared += 1;
                }
            }
        }
    }
    assert!(compared >= 4, "only {compared} images");
}
