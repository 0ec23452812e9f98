//! Headers and sections: which kind of file it is, and its bytes laid out as in memory.

use hpbuild_metadata::{BaseIdentity, Machine, Rva, Side};
use object::LittleEndian as LE;
use object::read::pe::{ImageNtHeaders, ImageOptionalHeader};

use super::{MAX_IMAGE, PAGE, Section};
use crate::error::Error;

/// One data directory, as the header states it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Directory {
    pub(super) rva: u32,
    pub(super) size: u32,
}

/// The headers' facts, and the image laid out.
pub(super) struct Headers<S: Side> {
    pub(super) machine: Machine,
    pub(super) identity: BaseIdentity,
    pub(super) preferred: u64,
    pub(super) size: u32,
    pub(super) entry_point: Option<Rva<S>>,
    pub(super) sections: Vec<Section<S>>,
    pub(super) directories: Vec<Directory>,
    pub(super) relocations_stripped: bool,
    pub(super) memory: Vec<u8>,
}

impl<S: Side> Headers<S> {
    /// The directory at `index`, where the file has one that is not empty.
    pub(super) fn directory(&self, index: usize) -> Option<Directory> {
        let directory = self.directories.get(index).copied();
        directory.filter(|d| d.rva != 0 && d.size != 0)
    }
}

/// Most sections in a file that is believed; the format's own bound for images.
const MAX_SECTIONS: usize = 96;
/// `IMAGE_FILE_RELOCS_STRIPPED`.
const RELOCS_STRIPPED: u16 = 1;

pub(super) fn read<S: Side>(file: &[u8]) -> Result<Headers<S>, Error> {
    let wrap = |place: &str, error: object::read::Error| {
        Error::image::<S>(place, "a readable PE file", error.to_string())
    };
    let dos = object::pe::ImageDosHeader::parse(file).map_err(|e| wrap("DOS header", e))?;
    let mut offset = u64::from(dos.nt_headers_offset());
    let machine = machine::<S>(file, offset)?;
    let (nt, directories) = object::pe::ImageNtHeaders64::parse(file, &mut offset)
        .map_err(|e| wrap("PE headers", e))?;
    let optional = nt.optional_header();
    let size = image_size::<S>(optional.size_of_image(), optional.section_alignment())?;
    let table = nt
        .sections(file, offset)
        .map_err(|e| wrap("section table", e))?;
    if table.len() > MAX_SECTIONS {
        let expected = format!("at most {MAX_SECTIONS} sections");
        return Err(Error::image::<S>(
            "section table",
            expected,
            table.len().to_string(),
        ));
    }
    let mut memory = vec![0; size as usize];
    let headers = (optional.size_of_headers() as usize)
        .min(file.len())
        .min(memory.len());
    memory[..headers].copy_from_slice(&file[..headers]);
    let mut sections: Vec<Section<S>> = Vec::new();
    let mut end = 0;
    for header in table.iter() {
        let section = place_section::<S>(file, header, end, &mut memory)?;
        end = section.start.get() + section.size;
        sections.push(section);
    }
    Ok(Headers {
        machine,
        identity: BaseIdentity {
            time_date_stamp: nt.file_header().time_date_stamp.get(LE),
            checksum: optional.check_sum(),
        },
        preferred: optional.image_base(),
        size,
        entry_point: Some(optional.address_of_entry_point())
            .filter(|&entry| entry != 0 && entry < size)
            .map(Rva::new),
        sections,
        directories: directories
            .iter()
            .map(|directory| {
                let (rva, size) = directory.address_range();
                Directory { rva, size }
            })
            .collect(),
        relocations_stripped: nt.file_header().characteristics.get(LE).0 & RELOCS_STRIPPED != 0,
        memory,
    })
}

/// The size of the mapping for an image that says it has `size` bytes in aligned sections.
fn image_size<S: Side>(size: u32, alignment: u32) -> Result<u32, Error> {
    if size == 0 || size > MAX_IMAGE {
        let expected = format!("1 to {MAX_IMAGE:#x} bytes");
        let found = format!("{size:#x}");
        return Err(Error::image::<S>("SizeOfImage", expected, found));
    }
    if alignment < PAGE || !alignment.is_power_of_two() {
        let expected = "a power of two of at least 0x1000";
        let found = format!("{alignment:#x}");
        return Err(Error::image::<S>("SectionAlignment", expected, found));
    }
    Ok(size.next_multiple_of(PAGE))
}

/// The machine, read before anything else so that an x86 or foreign file is refused by name.
fn machine<S: Side>(file: &[u8], nt: u64) -> Result<Machine, Error> {
    let at = |offset: u64| -> Option<u16> {
        let start = usize::try_from(nt.checked_add(offset)?).ok()?;
        let bytes = file.get(start..start.checked_add(2)?)?;
        Some(u16::from_le_bytes([bytes[0], bytes[1]]))
    };
    if (at(0), at(2)) != (Some(0x4550), Some(0)) {
        return Err(Error::image::<S>(
            "PE headers",
            "the signature PE\\0\\0",
            "something else",
        ));
    }
    let number = at(4)
        .ok_or_else(|| Error::image::<S>("PE headers", "a whole header", "the end of the file"))?;
    Machine::from_coff(number).ok_or_else(|| {
        let found = match number {
            0x14c => "x86 (0x14c)".to_owned(),
            other => format!("{other:#x}"),
        };
        Error::image::<S>("machine", "x64 (0x8664) or arm64 (0xaa64)", found)
    })
}

/// Copies one section to its place in `memory`; it must lie behind `previous_end`.
fn place_section<S: Side>(
    file: &[u8],
    header: &object::pe::ImageSectionHeader,
    previous_end: u32,
    memory: &mut [u8],
) -> Result<Section<S>, Error> {
    let name = String::from_utf8_lossy(header.raw_name()).into_owned();
    let place = format!("section {name}");
    let start = header.virtual_address.get(LE);
    let raw_size = header.size_of_raw_data.get(LE);
    let size = match header.virtual_size.get(LE) {
        0 => raw_size,
        size => size,
    };
    let end = u64::from(start) + u64::from(size);
    if !start.is_multiple_of(PAGE) || start < previous_end || end > memory.len() as u64 {
        let expected = format!(
            "a page behind {previous_end:#x} and an end by {:#x}",
            memory.len()
        );
        return Err(Error::image::<S>(
            place,
            expected,
            format!("{start:#x} to {end:#x}"),
        ));
    }
    let offset = header.pointer_to_raw_data.get(LE) as usize;
    let length = raw_size.min(size) as usize;
    if length != 0 && offset != 0 {
        let bytes = file.get(offset..).and_then(|rest| rest.get(..length));
        let bytes = bytes.ok_or_else(|| {
            let expected = format!("{length:#x} bytes at file offset {offset:#x}");
            Error::image::<S>(
                place,
                expected,
                format!("a file of {:#x} bytes", file.len()),
            )
        })?;
        memory[start as usize..start as usize + length].copy_from_slice(bytes);
    }
    let flags = header.characteristics.get(LE).0;
    Ok(Section {
        name,
        start: Rva::new(start),
        size: size.next_multiple_of(PAGE),
        readable: flags & 0x4000_0000 != 0,
        writable: flags & 0x8000_0000 != 0,
        executable: flags & 0x2000_0000 != 0,
    })
}
