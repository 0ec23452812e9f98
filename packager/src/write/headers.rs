//! The headers of a PE32+ DLL.

use crate::link::{IMAGE_BASE, Linked, Range};
use crate::write::FILE_ALIGN;

/// Where the PE signature stands: right behind the DOS header.
const PE_OFFSET: usize = 0x40;
/// Where the COFF time stamp stands.
pub(super) const TIME_STAMP: usize = PE_OFFSET + 8;
/// Where the optional header's checksum stands.
pub(super) const CHECKSUM: usize = PE_OFFSET + 24 + 64;
/// Bytes of the optional header with 16 directories.
const OPTIONAL_SIZE: u16 = 240;

/// `EXECUTABLE_IMAGE | LARGE_ADDRESS_AWARE | DLL`.
const FILE_CHARACTERISTICS: u16 = 0x2022;
/// `HIGH_ENTROPY_VA | DYNAMIC_BASE | NX_COMPAT`.
const DLL_CHARACTERISTICS: u16 = 0x0160;
/// `GUARD_CF`.
const DLL_GUARD_CF: u16 = 0x4000;
/// Version 10.0, for `MajorOperatingSystemVersion` and `MajorSubsystemVersion`.
const WINDOWS_10: u16 = 10;

/// The headers, filled up to the first section, and the file offset of each section.
pub(super) fn headers(linked: &Linked) -> (Vec<u8>, Vec<u32>) {
    let count = linked.sections.len();
    let header_size = PE_OFFSET + 24 + usize::from(OPTIONAL_SIZE) + 40 * count;
    let header_size = (header_size as u32).next_multiple_of(FILE_ALIGN);
    let mut offsets = Vec::new();
    let mut next = header_size;
    for section in &linked.sections {
        offsets.push(next);
        next += raw_size(section.bytes.len());
    }
    let mut out = Vec::new();
    dos_header(&mut out);
    out.extend(b"PE\0\0");
    u16s(&mut out, &[linked.machine.coff(), count as u16]);
    // Time stamp, then no COFF symbols.
    u32s(&mut out, &[0, 0, 0]);
    u16s(&mut out, &[OPTIONAL_SIZE, FILE_CHARACTERISTICS]);
    optional_header(linked, header_size, &mut out);
    for (section, offset) in linked.sections.iter().zip(&offsets) {
        let mut name = [0; 8];
        name[..section.name.len()].copy_from_slice(section.name.as_bytes());
        out.extend(name);
        let raw = raw_size(section.bytes.len());
        let file = if raw == 0 { 0 } else { *offset };
        u32s(
            &mut out,
            &[
                section.size,
                section.rva.get(),
                raw,
                file,
                0,
                0,
                0,
                section.characteristics,
            ],
        );
    }
    assert!(
        out.len() <= header_size as usize,
        "headers outgrew their reserve"
    );
    out.resize(header_size as usize, 0);
    (out, offsets)
}

fn raw_size(bytes: usize) -> u32 {
    u32::try_from(bytes)
        .expect("a section below 4 GiB")
        .next_multiple_of(FILE_ALIGN)
}

/// Only the magic number and the place of the PE header mean anything.
fn dos_header(out: &mut Vec<u8>) {
    out.extend(b"MZ");
    out.resize(0x3c, 0);
    u32s(out, &[PE_OFFSET as u32]);
}

fn optional_header(linked: &Linked, header_size: u32, out: &mut Vec<u8>) {
    let start = out.len();
    let sized = |bit: u32| -> u32 {
        let sections = linked
            .sections
            .iter()
            .filter(|section| section.characteristics & bit != 0);
        sections.map(|section| raw_size(section.bytes.len())).sum()
    };
    let code = linked
        .sections
        .iter()
        .find(|section| section.characteristics & 0x20 != 0);
    // PE32+, and no linker version.
    u16s(out, &[0x20b, 0]);
    // Code, initialised data, uninitialised data, no entry point, base of code.
    let code_rva = code.map_or(0, |section| section.rva.get());
    u32s(out, &[sized(0x20), sized(0x40), 0, 0, code_rva]);
    out.extend(IMAGE_BASE.to_le_bytes());
    u32s(out, &[0x1000, FILE_ALIGN]);
    u16s(out, &[WINDOWS_10, 0, 0, 0, WINDOWS_10, 0]);
    // Reserved, image, headers, checksum.
    u32s(out, &[0, linked.image_size, header_size, 0]);
    let guard = if linked.directories.guard_cf {
        DLL_GUARD_CF
    } else {
        0
    };
    // IMAGE_SUBSYSTEM_WINDOWS_GUI, as for any DLL.
    u16s(out, &[2, DLL_CHARACTERISTICS | guard]);
    for size in [0x10_0000_u64, 0x1000, 0x10_0000, 0x1000] {
        out.extend(size.to_le_bytes());
    }
    u32s(out, &[0, 16]);
    directories(linked, out);
    assert_eq!(
        out.len() - start,
        usize::from(OPTIONAL_SIZE),
        "optional header size"
    );
}

fn directories(linked: &Linked, out: &mut Vec<u8>) {
    let known = &linked.directories;
    let mut all: [Option<Range>; 16] = [None; 16];
    all[1] = known.imports;
    all[3] = known.exceptions;
    all[5] = known.base_relocations;
    all[6] = known.debug;
    all[10] = known.load_config;
    all[12] = known.import_addresses;
    for directory in all {
        let (rva, size) = directory.map_or((0, 0), |(rva, size)| (rva.get(), size));
        u32s(out, &[rva, size]);
    }
}

fn u16s(out: &mut Vec<u8>, values: &[u16]) {
    out.extend(values.iter().flat_map(|value| value.to_le_bytes()));
}

fn u32s(out: &mut Vec<u8>, values: &[u32]) {
    out.extend(values.iter().flat_map(|value| value.to_le_bytes()));
}
