//! The image as a whole: headers, sections, directories, base relocations, exception directory.

use hpbuild_metadata::Machine;

use super::pe::View;
use super::{Fault, fault};
use crate::piece::Parts;

pub(super) fn check(view: &View<'_>, parts: &Parts) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut expect = |place: &str, right: bool, expected: String, found: String| {
        if !right {
            faults.push(fault(place, expected, found));
        }
    };
    let machine = parts.machine.coff();
    expect(
        "machine",
        view.machine == machine,
        format!("{machine:#x}"),
        format!("{:#x}", view.machine),
    );
    expect(
        "entry point",
        view.entry_point == 0,
        "none".into(),
        format!("{:#x}", view.entry_point),
    );
    expect(
        "time stamp",
        view.time_stamp != 0,
        "not zero".into(),
        "0".into(),
    );
    let sum = checksum(view.file, view.checksum_at);
    expect(
        "checksum",
        view.checksum == sum,
        format!("{sum:#x}"),
        format!("{:#x}", view.checksum),
    );
    let guard = view.dll_characteristics & 0x4000 != 0;
    expect(
        "GUARD_CF",
        guard == parts.base.guard_cf,
        parts.base.guard_cf.to_string(),
        guard.to_string(),
    );
    let safe = view.dll_characteristics & 0x0160;
    expect(
        "DLL characteristics",
        safe == 0x0160,
        "0x160 set".into(),
        format!("{safe:#x}"),
    );
    check_sections(view, &mut faults);
    check_relocations(view, &mut faults);
    check_exceptions(view, parts.machine, &mut faults);
    faults
}

/// The checksum as the sum of 32-bit words, folded: another way to the same number.
fn checksum(file: &[u8], at: usize) -> u32 {
    let mut sum = 0_u64;
    for (index, chunk) in file.chunks(4).enumerate() {
        if index * 4 != at {
            let mut word = [0; 4];
            word[..chunk.len()].copy_from_slice(chunk);
            sum += u64::from(u32::from_le_bytes(word));
        }
    }
    let folded = match sum % 0xffff {
        0 if sum != 0 => 0xffff,
        rest => rest,
    };
    (folded + file.len() as u64) as u32
}

fn check_sections(view: &View<'_>, faults: &mut Vec<Fault>) {
    let mut next = view.header_size;
    let mut next_file = view.header_size as usize;
    for (index, section) in view.sections.iter().enumerate() {
        let place = format!("section {}", index + 1);
        if section.is_code() && section.is_writable() {
            faults.push(fault(
                &place,
                "not both writable and executable",
                format!("{:#x}", section.characteristics),
            ));
        }
        let end = section.rva.checked_add(section.size);
        if section.rva % 0x1000 != 0
            || section.rva < next
            || end.is_none_or(|end| end > view.image_size)
        {
            faults.push(fault(
                &place,
                format!("pages from {next:#x} to {:#x}", view.image_size),
                format!("rva {:#x}, {:#x} bytes", section.rva, section.size),
            ));
        }
        let file = &section.file;
        if !file.is_empty()
            && (file.start < next_file || file.end > view.file.len() || file.start % 0x200 != 0)
        {
            faults.push(fault(
                &place,
                "file bytes behind the ones before and inside the file",
                format!("{file:?}"),
            ));
        }
        next = end.unwrap_or(u32::MAX);
        next_file = next_file.max(file.end);
    }
    // A signature may stand behind the sections.
    if next_file != view.file.len() && view.directory(4).0 as usize != next_file {
        faults.push(fault(
            "end of file",
            format!("{next_file:#x}"),
            format!("{:#x}", view.file.len()),
        ));
    }
}

/// Base relocations touch data only, and what they touch points into the image.
fn check_relocations(view: &View<'_>, faults: &mut Vec<Fault>) {
    for rva in &view.relocations {
        let in_data = view
            .section_at(*rva)
            .is_some_and(|section| !section.is_code());
        let target = view
            .u64(*rva)
            .and_then(|address| address.checked_sub(view.image_base));
        if !in_data
            || rva % 8 != 0
            || target.is_none_or(|target| target >= u64::from(view.image_size))
        {
            faults.push(fault(
                format!("base relocation at rva {rva:#x}"),
                "an aligned pointer into the image, in data",
                format!("{target:x?}"),
            ));
        }
    }
}

/// Entries are sorted and disjoint and lie in code, their unwind info in data.
fn check_exceptions(view: &View<'_>, machine: Machine, faults: &mut Vec<Fault>) {
    let (start, size) = view.directory(3);
    let stride = match machine {
        Machine::X64 => 12,
        Machine::Arm64 => 8,
    };
    if size % stride != 0 {
        faults.push(fault(
            "exception directory",
            format!("a multiple of {stride} bytes"),
            format!("{size:#x}"),
        ));
    }
    let mut last = 0;
    for at in (0..size / stride).map(|index| start + index * stride) {
        let place = || format!("exception directory entry at rva {at:#x}");
        let (begin, end, info) = match machine {
            Machine::X64 => (view.u32(at), view.u32(at + 4), view.u32(at + 8)),
            Machine::Arm64 => (
                view.u32(at),
                super::arm64::code_end(view, at),
                view.u32(at + 4),
            ),
        };
        let (Some(begin), Some(end), Some(info)) = (begin, end, info) else {
            faults.push(fault(place(), "an entry", "the end of the image"));
            return;
        };
        let in_code = view
            .section_at(begin)
            .is_some_and(|section| section.is_code() && end <= section.rva + section.size);
        if begin < last || end <= begin || !in_code {
            faults.push(fault(
                place(),
                format!("code behind {last:#x}"),
                format!("{begin:#x} to {end:#x}"),
            ));
        }
        let is_packed = machine == Machine::Arm64 && info & 3 != 0;
        let has_info = info % 4 == 0
            && view
                .section_at(info)
                .is_some_and(|section| !section.is_code());
        if !is_packed && !has_info {
            faults.push(fault(
                place(),
                "aligned unwind info in data",
                format!("{info:#x}"),
            ));
        }
        last = end;
    }
}
