//! `hpbuild inspect`: what an image, a patch image or a package holds.

use std::collections::BTreeMap;
use std::fmt::Write;

use hpbuild_differ::judge::unsupported;
use hpbuild_differ::pe::{Opened, Pe};
use hpbuild_metadata::Patch;
use hpbuild_metadata::table::{Chunk, HotPatchTable};
use serde::Serialize;

use super::contents;
use crate::cli::{Format, InspectArguments};
use crate::failure::{Failure, Outcome};
use crate::{input, output, render};

/// What a file holds.
#[derive(Debug, Serialize)]
struct Inspected {
    schema: &'static str,
    file: String,
    /// `patch` or `image`.
    kind: &'static str,
    machine: &'static str,
    time_stamp: u32,
    checksum: u32,
    image_size: u32,
    hotpatch_compatible: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pdb: Option<Pdb>,
    sections: Vec<Section>,
    exports: usize,
    imports: usize,
    runtime_functions: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    table: Option<Table>,
}

#[derive(Debug, Serialize)]
struct Pdb {
    path: String,
    guid: String,
    age: u32,
}

#[derive(Debug, Serialize)]
struct Section {
    name: String,
    rva: u32,
    size: u32,
    access: String,
}

/// The hotpatch table.
#[derive(Debug, Serialize)]
struct Table {
    version: u32,
    sequence: u32,
    bases: Vec<BaseEntry>,
}

#[derive(Debug, Serialize)]
struct BaseEntry {
    time_stamp: u32,
    checksum: u32,
    records: Vec<Record>,
}

/// One record: which kind, the place that is written, and the place in the other image.
#[derive(Debug, Serialize)]
struct Record {
    kind: &'static str,
    writes: u32,
    other: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    original: Option<u32>,
}

pub(crate) fn run(arguments: &InspectArguments) -> Result<Outcome, Failure> {
    let path = &arguments.file;
    let fail = |error: &dyn std::fmt::Display| Failure::new(format!("{}: {error}", path.display()));
    let bytes = input::read(path)?;
    if contents::is_cabinet(&bytes) {
        return contents::run(path, &bytes, arguments.format, arguments.verbose);
    }
    let pe = match Pe::<Patch>::parse(path, bytes)? {
        Opened::Pe(pe) => pe,
        Opened::Unsupported(kind) => {
            let refusal = unsupported("file", &kind);
            output::print(&match arguments.format {
                Format::Text => render::diff::refusal_list(&[refusal], output::width(None)),
                Format::Json => render::json(&refusal),
            })?;
            return Ok(Outcome::Refused);
        }
    };
    let is_patch = pe
        .load_config
        .as_ref()
        .is_some_and(|config| config.hotpatch_table.is_some());
    let table = match is_patch {
        true => Some(hpbuild_packager::verify::table(pe.file()).map_err(|fault| fail(&fault))?),
        false => None,
    };
    let inspected = inspect(path.display().to_string(), &pe, table.as_ref());
    output::print(&match arguments.format {
        Format::Text => text(&inspected, arguments.verbose),
        Format::Json => render::json(&inspected),
    })?;
    Ok(Outcome::Done)
}

fn inspect(file: String, pe: &Pe<Patch>, table: Option<&HotPatchTable>) -> Inspected {
    let section = |section: &hpbuild_differ::pe::Section<Patch>| Section {
        name: section.name.to_string(),
        rva: section.rva.get(),
        size: section.size,
        access: [
            (true, 'r'),
            (section.is_writable(), 'w'),
            (section.is_code(), 'x'),
            (section.is_discardable(), 'd'),
        ]
        .into_iter()
        .filter_map(|(has, letter)| has.then_some(letter))
        .collect(),
    };
    Inspected {
        schema: "hpbuild-inspect-1",
        file,
        kind: if table.is_some() { "patch" } else { "image" },
        machine: pe.machine.name(),
        time_stamp: pe.identity.time_date_stamp,
        checksum: pe.identity.checksum,
        image_size: pe.image_size,
        hotpatch_compatible: pe.hotpatch_compatible,
        pdb: pe.codeview.as_ref().map(|codeview| Pdb {
            path: codeview.pdb_path.clone(),
            guid: codeview.guid.clone(),
            age: codeview.age,
        }),
        sections: pe.sections.iter().map(section).collect(),
        exports: pe.exports.len(),
        imports: pe.imports.len(),
        runtime_functions: pe.runtime_functions.len(),
        table: table.map(|table| Table {
            version: table.version.number(),
            sequence: table.sequence.get(),
            bases: table
                .bases
                .iter()
                .map(|base| BaseEntry {
                    time_stamp: base.identity.time_date_stamp,
                    checksum: base.identity.checksum,
                    records: base.chunks.iter().flat_map(records).collect(),
                })
                .collect(),
        }),
    }
}

fn records(chunk: &Chunk) -> Vec<Record> {
    let kind = chunk.name();
    let plain = |writes, other| Record {
        kind,
        writes,
        other,
        original: None,
    };
    match chunk {
        Chunk::ForwardFunction(records) => records
            .iter()
            .map(|r| Record {
                original: Some(r.original),
                ..plain(r.base.get(), r.patch.get())
            })
            .collect(),
        Chunk::ReverseFunction(records) => records
            .iter()
            .map(|r| Record {
                original: Some(r.original),
                ..plain(r.patch.get(), r.base.get())
            })
            .collect(),
        Chunk::ReverseAbsolute(records)
        | Chunk::ReverseRel32(records)
        | Chunk::ReverseIndirect(records) => records
            .iter()
            .map(|r| plain(r.patch.get(), r.base.get()))
            .collect(),
        Chunk::CallTarget(records) | Chunk::NoCallTarget(records) => records
            .iter()
            .map(|r| plain(r.word, r.target.get()))
            .collect(),
        Chunk::DynamicValue(records) => records
            .iter()
            .map(|r| plain(r.patch.get(), r.index))
            .collect(),
    }
}

fn text(inspected: &Inspected, verbose: bool) -> String {
    let mut out = String::new();
    write(&mut out, inspected, verbose).expect("writing to a string does not fail");
    out
}

fn write(out: &mut String, inspected: &Inspected, verbose: bool) -> std::fmt::Result {
    let (kind, machine) = (inspected.kind, inspected.machine);
    writeln!(out, "{}: {kind}, {machine}", inspected.file)?;
    writeln!(
        out,
        "  time stamp {:#010x}, checksum {:#010x}, {:#x} bytes mapped",
        inspected.time_stamp, inspected.checksum, inspected.image_size
    )?;
    let compatible = if inspected.hotpatch_compatible {
        "yes"
    } else {
        "no"
    };
    writeln!(out, "  marked hotpatch-compatible: {compatible}")?;
    match &inspected.pdb {
        Some(pdb) => writeln!(out, "  pdb {} {} age {}", pdb.path, pdb.guid, pdb.age)?,
        None => writeln!(out, "  names no pdb")?,
    }
    writeln!(
        out,
        "  {} exports, {} imports, {} runtime functions",
        inspected.exports, inspected.imports, inspected.runtime_functions
    )?;
    for section in &inspected.sections {
        let (name, rva, size) = (&section.name, section.rva, section.size);
        writeln!(
            out,
            "  {name:8}  rva {rva:#08x}  {size:#8x} bytes  {}",
            section.access
        )?;
    }
    if let Some(table) = &inspected.table {
        write_table(out, table, verbose)?;
    }
    Ok(())
}

fn write_table(out: &mut String, table: &Table, verbose: bool) -> std::fmt::Result {
    writeln!(
        out,
        "hotpatch table: version {}, sequence {}",
        table.version, table.sequence
    )?;
    for base in &table.bases {
        let (time_stamp, checksum) = (base.time_stamp, base.checksum);
        writeln!(
            out,
            "  base: time stamp {time_stamp:#010x}, checksum {checksum:#010x}"
        )?;
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for record in &base.records {
            *counts.entry(record.kind).or_default() += 1;
        }
        for (kind, count) in counts {
            writeln!(out, "  {count:>6} {kind}")?;
        }
        for record in &base.records {
            let (writes, other) = (record.writes, record.other);
            if record.kind.starts_with("forward") {
                let original = record.original.unwrap_or_default();
                writeln!(
                    out,
                    "    base {writes:#x} -> patch {other:#x}  (was {original:#x})"
                )?;
            } else if verbose {
                writeln!(
                    out,
                    "    {}: patch {writes:#x} <- base {other:#x}",
                    record.kind
                )?;
            }
        }
    }
    Ok(())
}
