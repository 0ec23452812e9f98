//! An own reading of the patch image: just what verification needs, bounds before belief.

use std::collections::BTreeSet;
use std::ops::Range;

use super::{Fault, fault};

/// Images are smaller than this.
const MAX_IMAGE: u32 = 0x8000_0000;

/// A section header.
pub(super) struct Section {
    pub(super) rva: u32,
    pub(super) size: u32,
    pub(super) file: Range<usize>,
    pub(super) characteristics: u32,
}

impl Section {
    pub(super) fn is_code(&self) -> bool {
        self.characteristics & 0x2000_0000 != 0
    }

    pub(super) fn is_writable(&self) -> bool {
        self.characteristics & 0x8000_0000 != 0
    }
}

/// The image as its headers describe it.
pub(super) struct View<'a> {
    pub(super) file: &'a [u8],
    pub(super) machine: u16,
    pub(super) time_stamp: u32,
    pub(super) entry_point: u32,
    pub(super) image_base: u64,
    pub(super) image_size: u32,
    pub(super) header_size: u32,
    pub(super) checksum: u32,
    pub(super) checksum_at: usize,
    pub(super) dll_characteristics: u16,
    pub(super) sections: Vec<Section>,
    directories: Vec<(u32, u32)>,
    /// Places of 64-bit base relocations.
    pub(super) relocations: BTreeSet<u32>,
}

impl<'a> View<'a> {
    pub(super) fn read(file: &'a [u8]) -> Result<Self, Fault> {
        let short = || fault("headers", "a PE32+ image", format!("{} bytes", file.len()));
        let u16_at = |at: usize| {
            Some(u16::from_le_bytes(
                file.get(at..at.checked_add(2)?)?.try_into().ok()?,
            ))
        };
        let u32_at = |at: usize| {
            Some(u32::from_le_bytes(
                file.get(at..at.checked_add(4)?)?.try_into().ok()?,
            ))
        };
        let pe = u32_at(0x3c).ok_or_else(short)? as usize;
        if u32_at(pe) != Some(0x4550) || u16_at(pe + 24) != Some(0x20b) {
            return Err(short());
        }
        let optional = pe + 24;
        let count = usize::from(u16_at(pe + 6).ok_or_else(short)?);
        let table = optional + usize::from(u16_at(pe + 20).ok_or_else(short)?);
        let word = |at: usize| u32_at(optional + at).ok_or_else(short);
        let mut sections = Vec::new();
        for index in 0..count {
            let field = |at: usize| u32_at(table + 40 * index + at).ok_or_else(short);
            let start = field(20)? as usize;
            let raw = field(16)? as usize;
            sections.push(Section {
                rva: field(12)?,
                size: field(8)?,
                file: start..start.checked_add(raw).ok_or_else(short)?,
                characteristics: field(36)?,
            });
        }
        let directory_count = word(108)?.min(16) as usize;
        let directories = (0..directory_count)
            .map(|index| Ok((word(112 + 8 * index)?, word(116 + 8 * index)?)))
            .collect::<Result<_, Fault>>()?;
        let low = u64::from(word(24)?);
        let mut view = Self {
            file,
            machine: u16_at(pe + 4).ok_or_else(short)?,
            time_stamp: u32_at(pe + 8).ok_or_else(short)?,
            entry_point: word(16)?,
            image_base: low | u64::from(word(28)?) << 32,
            image_size: word(56)?,
            header_size: word(60)?,
            checksum: word(64)?,
            checksum_at: optional + 64,
            dll_characteristics: u16_at(optional + 70).ok_or_else(short)?,
            sections,
            directories,
            relocations: BTreeSet::new(),
        };
        // From here on addresses inside sections and directories can be added without overflow.
        let ends = view
            .sections
            .iter()
            .map(|section| (section.rva, section.size));
        for (rva, size) in ends.chain(view.directories.iter().copied()) {
            if rva.checked_add(size).is_none_or(|end| end > MAX_IMAGE) {
                let found = format!("rva {rva:#x}, {size:#x} bytes");
                return Err(fault("section or directory", "one below 2 GiB", found));
            }
        }
        view.relocations = view.read_relocations()?;
        Ok(view)
    }

    /// Start and size of a data directory; zeros where there is none.
    pub(super) fn directory(&self, index: usize) -> (u32, u32) {
        self.directories.get(index).copied().unwrap_or((0, 0))
    }

    pub(super) fn section_at(&self, rva: u32) -> Option<&Section> {
        self.sections
            .iter()
            .find(|section| rva >= section.rva && rva - section.rva < section.size)
    }

    /// Initialised bytes at an address.
    pub(super) fn bytes(&self, rva: u32, size: u32) -> Option<&'a [u8]> {
        let section = self.section_at(rva)?;
        let within = rva - section.rva;
        if within.checked_add(size)? > section.size {
            return None;
        }
        let start = section.file.start.checked_add(within as usize)?;
        let end = start.checked_add(size as usize)?;
        (end <= section.file.end)
            .then(|| self.file.get(start..end))
            .flatten()
    }

    pub(super) fn u32(&self, rva: u32) -> Option<u32> {
        Some(u32::from_le_bytes(self.bytes(rva, 4)?.try_into().ok()?))
    }

    pub(super) fn u64(&self, rva: u32) -> Option<u64> {
        Some(u64::from_le_bytes(self.bytes(rva, 8)?.try_into().ok()?))
    }

    fn read_relocations(&self) -> Result<BTreeSet<u32>, Fault> {
        let (start, size) = self.directory(5);
        let bytes = if size == 0 {
            &[][..]
        } else {
            self.bytes(start, size).unwrap_or(&[0])
        };
        let wrong = |at: usize| {
            fault(
                format!("base relocations+{at:#x}"),
                "blocks of DIR64 entries",
                "something else",
            )
        };
        let mut places = BTreeSet::new();
        let mut at = 0;
        while at < bytes.len() {
            let block = bytes.get(at..at + 8).ok_or_else(|| wrong(at))?;
            let page = u32::from_le_bytes([block[0], block[1], block[2], block[3]]);
            let length = u32::from_le_bytes([block[4], block[5], block[6], block[7]]) as usize;
            let entries = bytes
                .get(at + 8..at.saturating_add(length))
                .ok_or_else(|| wrong(at))?;
            for entry in entries.chunks(2) {
                match u16::from_le_bytes([entry[0], *entry.get(1).ok_or_else(|| wrong(at))?]) {
                    0 => {}
                    entry if entry >> 12 == 10 => {
                        places.insert(page.saturating_add(u32::from(entry & 0xfff)));
                    }
                    _ => return Err(wrong(at)),
                }
            }
            at += length;
        }
        Ok(places)
    }
}
