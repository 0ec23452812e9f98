//! DOS, COFF and optional header, and the section table.

use hpbuild_metadata::{Rva, Side};

use super::Section;
use super::view::{Fault, u16_at, u32_at, u64_at};

/// `IMAGE_NT_OPTIONAL_HDR32_MAGIC`.
const PE32: u16 = 0x10b;
/// `IMAGE_NT_OPTIONAL_HDR64_MAGIC`.
const PE32_PLUS: u16 = 0x20b;

/// Files are mapped in units of this many bytes, whatever their alignment says.
const SECTOR: u32 = 0x200;
/// Images aligned to less than a page are mapped as one flat piece.
const PAGE: u32 = 0x1000;

/// Indexes of data directories.
pub(super) mod directory {
    pub(crate) const EXPORT: usize = 0;
    pub(crate) const IMPORT: usize = 1;
    pub(crate) const RESOURCE: usize = 2;
    pub(crate) const EXCEPTION: usize = 3;
    pub(crate) const BASE_RELOCATION: usize = 5;
    pub(crate) const DEBUG: usize = 6;
    pub(crate) const TLS: usize = 9;
    pub(crate) const LOAD_CONFIG: usize = 10;
    pub(crate) const DELAY_IMPORT: usize = 13;
    pub(crate) const COM_DESCRIPTOR: usize = 14;
}

/// The headers as stored.
pub(super) struct Headers {
    pub(super) machine: u16,
    pub(super) time_date_stamp: u32,
    pub(super) characteristics: u16,
    /// Whether the optional header is the 64-bit one.
    pub(super) wide: bool,
    /// File offset of the optional header.
    pub(super) optional_at: usize,
    pub(super) entry_point: u32,
    pub(super) image_base: u64,
    pub(super) section_alignment: u32,
    pub(super) image_size: u32,
    pub(super) checksum: u32,
    pub(super) subsystem: u16,
    pub(super) dll_characteristics: u16,
    /// Bytes of stack and heap, reserved and committed each.
    pub(super) memory: [u64; 4],
    directories: [(u32, u32); 16],
    sections_at: usize,
    section_count: u16,
}

impl Headers {
    /// RVA and size of a data directory; `None` where it is absent.
    pub(super) fn directory(&self, index: usize) -> Option<(u32, u32)> {
        self.directories
            .get(index)
            .copied()
            .filter(|(rva, size)| *rva != 0 && *size != 0)
    }
}

/// Reads the headers in front of the section table.
pub(super) fn read(file: &[u8]) -> Result<Headers, Fault> {
    let length = file.len();
    if !file.starts_with(b"MZ") {
        let found = format!("{:02x?}", &file[..length.min(2)]);
        return Err(Fault::new(
            "offset 0x0",
            "a PE file, which starts with MZ",
            found,
        ));
    }
    if length < 0x40 {
        let expected = "a DOS header of 0x40 bytes";
        return Err(Fault::new("DOS header", expected, format!("{length:#x}")));
    }
    let pe_at = u32_at(file, 0x3c) as usize;
    let signature = pe_at.checked_add(4).and_then(|end| file.get(pe_at..end));
    if signature != Some(b"PE\0\0") {
        return Err(Fault::new(
            "e_lfanew at offset 0x3c",
            "the offset of a PE signature",
            format!("{pe_at:#x}, where {}", describe_signature(signature)),
        ));
    }
    // Behind the signature stand the COFF header, 20 bytes, and the optional header.
    let coff = file.get(pe_at + 4..).unwrap_or_default();
    let optional_at = pe_at + 24;
    let optional_size = usize::from(u16_at(coff, 16));
    let optional = optional_at
        .checked_add(optional_size)
        .and_then(|end| file.get(optional_at..end))
        .ok_or_else(|| {
            Fault::new(
                format!("COFF header at {:#x}", pe_at + 4),
                format!("an optional header of {optional_size:#x} bytes behind it"),
                format!("{:#x} bytes", length.saturating_sub(optional_at)),
            )
        })?;
    let mut headers = read_optional(optional, optional_at)?;
    headers.machine = u16_at(coff, 0);
    headers.section_count = u16_at(coff, 2);
    headers.time_date_stamp = u32_at(coff, 4);
    headers.characteristics = u16_at(coff, 18);
    headers.sections_at = optional_at + optional_size;
    Ok(headers)
}

fn describe_signature(found: Option<&[u8]>) -> String {
    match found {
        Some(bytes) => format!("{bytes:02x?} stands"),
        None => "the file has ended".into(),
    }
}

fn read_optional(optional: &[u8], at: usize) -> Result<Headers, Fault> {
    let magic = u16_at(optional, 0);
    let (wide, fixed_size) = match magic {
        PE32 => (false, 96),
        PE32_PLUS => (true, 112),
        _ => {
            return Err(Fault::new(
                format!("optional header Magic at {at:#x}"),
                format!("{PE32:#x} or {PE32_PLUS:#x}"),
                format!("{magic:#x}"),
            ));
        }
    };
    // A count above 16 is cut by the loader; one below leaves the rest absent.
    let count = (u32_at(optional, fixed_size - 4) as usize).min(16);
    if optional.len() < fixed_size + 8 * count {
        return Err(Fault::new(
            format!("optional header at {at:#x}"),
            format!(
                "{:#x} bytes for {count} directories",
                fixed_size + 8 * count
            ),
            format!("SizeOfOptionalHeader {:#x}", optional.len()),
        ));
    }
    let mut directories = [(0, 0); 16];
    for (index, slot) in directories.iter_mut().take(count).enumerate() {
        let entry = fixed_size + 8 * index;
        *slot = (u32_at(optional, entry), u32_at(optional, entry + 4));
    }
    Ok(Headers {
        machine: 0,
        time_date_stamp: 0,
        characteristics: 0,
        wide,
        optional_at: at,
        entry_point: u32_at(optional, 16),
        image_base: if wide {
            u64_at(optional, 24)
        } else {
            u32_at(optional, 28).into()
        },
        section_alignment: u32_at(optional, 32),
        image_size: u32_at(optional, 56),
        checksum: u32_at(optional, 64),
        subsystem: u16_at(optional, 68),
        dll_characteristics: u16_at(optional, 70),
        memory: [0, 1, 2, 3].map(|index| match wide {
            true => u64_at(optional, 72 + 8 * index),
            false => u32_at(optional, 72 + 4 * index).into(),
        }),
        directories,
        sections_at: 0,
        section_count: 0,
    })
}

/// Reads the section table.
pub(super) fn sections<S: Side>(file: &[u8], headers: &Headers) -> Result<Vec<Section<S>>, Fault> {
    let count = usize::from(headers.section_count);
    let table = headers
        .sections_at
        .checked_add(40 * count)
        .and_then(|end| file.get(headers.sections_at..end))
        .ok_or_else(|| {
            Fault::new(
                format!("section table at {:#x}", headers.sections_at),
                format!("{count} entries of 40 bytes"),
                format!(
                    "{:#x} bytes",
                    file.len().saturating_sub(headers.sections_at)
                ),
            )
        })?;
    if headers
        .image_base
        .checked_add(headers.image_size.into())
        .is_none()
    {
        return Err(Fault::new(
            "ImageBase",
            "an image that ends inside the address space",
            format!("{:#x}", headers.image_base),
        ));
    }
    let mut sections: Vec<Section<S>> = Vec::with_capacity(count);
    let mut end_before = 0;
    for (index, entry) in table.chunks_exact(40).enumerate() {
        let section = read_section(entry, index, file.len(), headers)?;
        if section.rva.get() < end_before {
            return Err(Fault::new(
                format!("section {} ({})", index + 1, section.name),
                format!("a VirtualAddress of at least {end_before:#x}, the end of the one before"),
                format!("{:#x}", section.rva.get()),
            ));
        }
        end_before = section.rva.get() + section.size;
        sections.push(section);
    }
    Ok(sections)
}

fn read_section<S: Side>(
    entry: &[u8],
    index: usize,
    file_length: usize,
    headers: &Headers,
) -> Result<Section<S>, Fault> {
    let name = entry.get(..8).unwrap_or_default();
    let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
    let name: Box<str> = String::from_utf8_lossy(name).into();
    let (virtual_size, rva) = (u32_at(entry, 8), u32_at(entry, 12));
    let (raw_size, raw_at) = (u32_at(entry, 16), u32_at(entry, 20));
    let size = if virtual_size == 0 {
        raw_size
    } else {
        virtual_size
    };
    let fault = |expected: String, found: String| {
        Err(Fault::new(
            format!("section {} ({name})", index + 1),
            expected,
            found,
        ))
    };
    let end = u64::from(rva) + u64::from(size);
    if end > headers.image_size.into() {
        let expected = format!("an end within SizeOfImage {:#x}", headers.image_size);
        return fault(expected, format!("{end:#x}"));
    }
    // A pointer of zero means that the section has nothing in the file, whatever the size says.
    let used = if raw_at == 0 { 0 } else { raw_size.min(size) };
    // Where there is nothing in the file the pointer may be anything.
    let file = match used {
        0 => 0..0,
        _ => raw_at as usize..raw_at as usize + used as usize,
    };
    // Filler behind the section's own bytes must be there, too: a file without it was cut.
    if used != 0 && u64::from(raw_at) + u64::from(raw_size) > file_length as u64 {
        let expected = format!("{raw_size:#x} bytes at file offset {raw_at:#x}");
        return fault(expected, format!("a file of {file_length:#x} bytes"));
    }
    // Loaders round the pointer down to whole sectors and map flat what is aligned to less than a
    // page. Where that would give other bytes than the fields say, nothing can be known.
    if used != 0 && headers.section_alignment >= PAGE && raw_at % SECTOR != 0 {
        let expected = format!("a PointerToRawData that is a multiple of {SECTOR:#x}");
        return fault(expected, format!("{raw_at:#x}"));
    }
    if used != 0 && headers.section_alignment < PAGE && raw_at != rva {
        let expected = format!("PointerToRawData {rva:#x}, as SectionAlignment is below a page");
        return fault(expected, format!("{raw_at:#x}"));
    }
    Ok(Section {
        rva: Rva::new(rva),
        size,
        file,
        characteristics: u32_at(entry, 36),
        name,
    })
}
