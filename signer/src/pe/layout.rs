//! Reading the headers of a PE32+ image, no field believed before it is bounded.

use std::ops::Range;

use hpbuild_metadata::Machine;

use crate::error::Error;

/// Index of the certificate table among the data directories.
const SECURITY: usize = 4;
/// Index of the load configuration among the data directories.
const LOAD_CONFIG: usize = 10;
/// Sections a loader accepts at most (Windows: 96).
const MAX_SECTIONS: usize = 96;

/// One section header.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Section {
    pub(crate) address: u32,
    pub(crate) virtual_size: u32,
    pub(crate) raw_offset: u32,
    pub(crate) raw_size: u32,
}

/// What the headers of an image say, checked against its length.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    pub(crate) machine: Machine,
    pub(crate) checksum_at: usize,
    pub(crate) security_at: usize,
    pub(crate) size_of_headers: usize,
    pub(crate) section_alignment: u32,
    pub(crate) sections: Vec<Section>,
    /// Address and size of the load configuration.
    pub(crate) load_config: (u32, u32),
    /// The certificate table; empty, and at the end of the file, in an unsigned image.
    pub(crate) certificates: Range<usize>,
}

impl Layout {
    /// Reads the headers of `bytes`.
    ///
    /// # Errors
    /// When the file is no PE32+ image for x64 or Arm64, when its sections do not lie one behind
    /// the other inside the part a signature covers, or when a certificate table is anywhere but
    /// at the very end.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, Error> {
        expect(bytes.starts_with(b"MZ"), "DOS header", "\"MZ\"", || {
            format!("{:02x?}", bytes.get(..2).unwrap_or(bytes))
        })?;
        let pe = u32_at(bytes, 0x3c, "DOS header: e_lfanew")? as usize;
        let signature = u32_at(bytes, pe, "PE signature")?;
        expect(signature == 0x4550, "PE signature", "\"PE\\0\\0\"", || {
            format!("{signature:#x}")
        })?;
        let coff = pe + 4;
        let number = u16_at(bytes, coff, "COFF header: Machine")?;
        let machine = Machine::from_coff(number).ok_or_else(|| {
            let found = format!("{number:#06x}");
            Error::format(
                "COFF header: Machine",
                "0x8664 (x64) or 0xaa64 (arm64)",
                found,
            )
        })?;
        let count = usize::from(u16_at(bytes, coff + 2, "COFF header: NumberOfSections")?);
        let optional_size = usize::from(u16_at(bytes, coff + 16, "COFF header")?);
        let optional = coff + 20;
        let magic = u16_at(bytes, optional, "optional header: Magic")?;
        expect(
            magic == 0x20b,
            "optional header: Magic",
            "0x20b (PE32+)",
            || format!("{magic:#x}"),
        )?;
        let directories = u32_at(
            bytes,
            optional + 108,
            "optional header: NumberOfRvaAndSizes",
        )?;
        let needed = 112 + 8 * (LOAD_CONFIG + 1);
        expect(
            directories as usize > LOAD_CONFIG && directories <= 16 && optional_size >= needed,
            "optional header: NumberOfRvaAndSizes",
            "11 to 16, inside the header",
            || format!("{directories} in {optional_size:#x} bytes"),
        )?;
        expect(
            count <= MAX_SECTIONS,
            "COFF header: NumberOfSections",
            "at most 96",
            || count.to_string(),
        )?;
        let directory = |index: usize| -> Result<(u32, u32), Error> {
            let at = optional + 112 + 8 * index;
            Ok((
                u32_at(bytes, at, "data directory")?,
                u32_at(bytes, at + 4, "data directory")?,
            ))
        };
        let table = optional + optional_size;
        let sections = (0..count)
            .map(|index| section(bytes, table + 40 * index))
            .collect::<Result<Vec<_>, _>>()?;
        let layout = Layout {
            machine,
            checksum_at: optional + 64,
            security_at: optional + 112 + 8 * SECURITY,
            size_of_headers: u32_at(bytes, optional + 60, "optional header: SizeOfHeaders")?
                as usize,
            section_alignment: u32_at(bytes, optional + 32, "optional header: SectionAlignment")?,
            sections,
            load_config: directory(LOAD_CONFIG)?,
            certificates: certificates(bytes, directory(SECURITY)?)?,
        };
        layout.check(table + 40 * count)?;
        Ok(layout)
    }

    /// The order of raw data decides whether the digest that Windows makes section by section is
    /// the one over the file from front to back; only such images are accepted.
    fn check(&self, headers_end: usize) -> Result<(), Error> {
        expect(
            headers_end <= self.size_of_headers && self.size_of_headers <= self.certificates.start,
            "optional header: SizeOfHeaders",
            &format!("{headers_end:#x} to {:#x}", self.certificates.start),
            || format!("{:#x}", self.size_of_headers),
        )?;
        let mut end = self.size_of_headers as u64;
        for (index, section) in self.sections.iter().enumerate() {
            if section.raw_size == 0 {
                continue;
            }
            let start = u64::from(section.raw_offset);
            let place = format!("section {}: raw data", index + 1);
            expect(
                start >= end,
                &place,
                &format!("a start of at least {end:#x}"),
                || format!("{start:#x}"),
            )?;
            end = start + u64::from(section.raw_size);
            let limit = self.certificates.start as u64;
            expect(
                end <= limit,
                &place,
                &format!("an end of at most {limit:#x}"),
                || format!("{end:#x}"),
            )?;
        }
        Ok(())
    }

    /// The checksum that the header states.
    pub(crate) fn checksum(&self, bytes: &[u8]) -> Result<u32, Error> {
        u32_at(bytes, self.checksum_at, "optional header: CheckSum")
    }

    /// The slices a signature covers, front to back.
    pub(crate) fn covered<'a>(&self, bytes: &'a [u8]) -> [&'a [u8]; 3] {
        [
            &bytes[..self.checksum_at],
            &bytes[self.checksum_at + 4..self.security_at],
            &bytes[self.security_at + 8..self.certificates.start],
        ]
    }

    /// The bytes of the file behind `length` bytes at `address`, which must lie in the headers or
    /// in the raw data of one section.
    pub(crate) fn mapped<'a>(
        &self,
        bytes: &'a [u8],
        address: u32,
        length: u32,
    ) -> Option<&'a [u8]> {
        let end = address.checked_add(length)?;
        if end as usize <= self.size_of_headers {
            return bytes.get(address as usize..end as usize);
        }
        let section = self.sections.iter().find(|s| {
            let size = s.raw_size.min(s.virtual_size);
            s.address <= address && u64::from(end) <= u64::from(s.address) + u64::from(size)
        })?;
        let start = section.raw_offset.checked_add(address - section.address)? as usize;
        bytes.get(start..start.checked_add(length as usize)?)
    }
}

fn section(bytes: &[u8], at: usize) -> Result<Section, Error> {
    let field = |offset| u32_at(bytes, at + offset, "section header");
    Ok(Section {
        virtual_size: field(8)?,
        address: field(12)?,
        raw_size: field(16)?,
        raw_offset: field(20)?,
    })
}

fn certificates(bytes: &[u8], (offset, size): (u32, u32)) -> Result<Range<usize>, Error> {
    if (offset, size) == (0, 0) {
        return Ok(bytes.len()..bytes.len());
    }
    let (start, length) = (offset as usize, size as usize);
    let end = start.checked_add(length);
    expect(
        end == Some(bytes.len()) && length >= 8 && start % 8 == 0,
        "certificate table",
        &format!(
            "8-byte aligned, up to the end of the file at {:#x}",
            bytes.len()
        ),
        || format!("{offset:#x} and {size:#x} bytes"),
    )?;
    Ok(start..bytes.len())
}

fn expect(
    holds: bool,
    place: &str,
    expected: &str,
    found: impl FnOnce() -> String,
) -> Result<(), Error> {
    if holds {
        Ok(())
    } else {
        Err(Error::format(place, expected, found()))
    }
}

pub(crate) fn u16_at(bytes: &[u8], at: usize, place: &str) -> Result<u16, Error> {
    array_at(bytes, at, place).map(u16::from_le_bytes)
}

pub(crate) fn u32_at(bytes: &[u8], at: usize, place: &str) -> Result<u32, Error> {
    array_at(bytes, at, place).map(u32::from_le_bytes)
}

fn array_at<const N: usize>(bytes: &[u8], at: usize, place: &str) -> Result<[u8; N], Error> {
    at.checked_add(N)
        .and_then(|end| bytes.get(at..end))
        .and_then(|slice| slice.try_into().ok())
        .ok_or_else(|| {
            let expected = format!("{N} bytes at {at:#x}");
            Error::format(
                place,
                expected,
                format!("a file of {:#x} bytes", bytes.len()),
            )
        })
}
