//! Bounded reading of a file the way a loader sees it: by RVA, through the section table.
//!
//! `object` casts its structures onto one slice at a time and its errors carry no place. A
//! directory here may point from any section into any other, and every error names the field it
//! was found in, so the readers of this folder take their fields through this view.

use std::cell::Cell;

use hpbuild_metadata::{Rva, Side};

use super::Section;

/// What is wrong, before the file's name is known.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) place: String,
    pub(super) expected: String,
    pub(super) found: String,
}

impl Fault {
    pub(super) fn new(
        place: impl Into<String>,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Self {
        Self {
            place: place.into(),
            expected: expected.into(),
            found: found.into(),
        }
    }
}

/// The sections of a file and its bytes.
pub(super) struct View<'a, S: Side> {
    pub(super) file: &'a [u8],
    pub(super) sections: &'a [Section<S>],
    pub(super) image_base: u64,
    pub(super) image_size: u32,
    /// Bytes of names that may still be copied out. Names may be shared in the file, and a hostile
    /// file can name one long string a million times.
    names_left: Cell<usize>,
}

impl<'a, S: Side> View<'a, S> {
    pub(super) fn new(
        file: &'a [u8],
        sections: &'a [Section<S>],
        image_base: u64,
        image_size: u32,
    ) -> Self {
        Self {
            file,
            sections,
            image_base,
            image_size,
            names_left: Cell::new(file.len().saturating_mul(4)),
        }
    }

    fn section_at(&self, rva: u32) -> Option<(&'a Section<S>, u32)> {
        let index = self
            .sections
            .partition_point(|section| section.rva.get() <= rva)
            .checked_sub(1)?;
        let section = &self.sections[index];
        let offset = rva - section.rva.get();
        (offset < section.size).then_some((section, offset))
    }

    /// The initialised bytes from `rva` to the end of its section.
    pub(super) fn tail(&self, rva: u32) -> Option<&'a [u8]> {
        let (section, offset) = self.section_at(rva)?;
        self.file.get(section.file.clone())?.get(offset as usize..)
    }

    /// `size` initialised bytes at `rva`.
    pub(super) fn bytes(&self, rva: u32, size: u32, what: &str) -> Result<&'a [u8], Fault> {
        self.tail(rva)
            .and_then(|tail| tail.get(..size as usize))
            .ok_or_else(|| {
                Fault::new(
                    what,
                    format!("{size:#x} bytes inside one section"),
                    format!("rva {rva:#x}, which has {}", self.describe(rva)),
                )
            })
    }

    fn describe(&self, rva: u32) -> String {
        match (self.section_at(rva), self.tail(rva)) {
            (Some((section, _)), Some(tail)) => {
                format!("{:#x} bytes left in {}", tail.len(), section.name)
            }
            (Some((section, _)), None) => format!("no bytes in the file ({})", section.name),
            (None, _) => "no section".into(),
        }
    }

    /// `N` bytes at `rva` as the loader would map them: what the file does not hold is zero.
    pub(super) fn mapped<const N: usize>(&self, rva: u32, what: &str) -> Result<[u8; N], Fault> {
        let outside = || {
            Fault::new(
                what,
                format!("{N} bytes inside one section"),
                format!("rva {rva:#x}, which has {}", self.describe(rva)),
            )
        };
        let (section, offset) = self.section_at(rva).ok_or_else(outside)?;
        if ((section.size - offset) as usize) < N {
            return Err(outside());
        }
        let tail = self.tail(rva).unwrap_or_default();
        let mut bytes = [0; N];
        for (to, from) in bytes.iter_mut().zip(tail) {
            *to = *from;
        }
        Ok(bytes)
    }

    pub(super) fn u32(&self, rva: u32, what: &str) -> Result<u32, Fault> {
        self.mapped(rva, what).map(u32::from_le_bytes)
    }

    pub(super) fn u64(&self, rva: u32, what: &str) -> Result<u64, Fault> {
        self.mapped(rva, what).map(u64::from_le_bytes)
    }

    /// The text at `rva` up to its terminating zero.
    pub(super) fn text(&self, rva: u32, what: &str) -> Result<Box<str>, Fault> {
        let tail = self.bytes(rva, 1, what).and(Ok(self.tail(rva)))?;
        let tail = tail.unwrap_or_default();
        // Searching no further than may be copied keeps a name that is used often from being
        // searched for its end each time.
        let most = tail.len().min(self.names_left.get());
        let length = tail[..most].iter().position(|byte| *byte == 0);
        let Some(length) = length else {
            let expected = if most < tail.len() {
                "names that take up less than four times the file"
            } else {
                "a text ended by a zero byte"
            };
            return Err(Fault::new(
                what,
                expected,
                format!("rva {rva:#x}, {most:#x} bytes without an end"),
            ));
        };
        self.names_left.set(self.names_left.get() - length);
        Ok(String::from_utf8_lossy(&tail[..length]).into())
    }

    /// The RVA behind a virtual address, `None` for zero.
    pub(super) fn rva_of(&self, address: u64, what: &str) -> Result<Option<Rva<S>>, Fault> {
        if address == 0 {
            return Ok(None);
        }
        address
            .checked_sub(self.image_base)
            .and_then(|rva| u32::try_from(rva).ok())
            .filter(|rva| *rva < self.image_size)
            .map(|rva| Some(Rva::new(rva)))
            .ok_or_else(|| {
                let (base, size) = (self.image_base, self.image_size);
                Fault::new(
                    what,
                    format!("0 or an address inside the image ({size:#x} bytes from {base:#x})"),
                    format!("{address:#x}"),
                )
            })
    }

    /// `rva` as an address inside the image.
    pub(super) fn inside(&self, rva: u32, what: &str) -> Result<Rva<S>, Fault> {
        if rva < self.image_size {
            return Ok(Rva::new(rva));
        }
        let expected = format!("an rva below the image's size {:#x}", self.image_size);
        Err(Fault::new(what, expected, format!("{rva:#x}")))
    }
}

/// A little-endian field of a structure; zero where the structure is too short to have it, which
/// is what a short structure means in PE.
pub(super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    array_at(bytes, at).map_or(0, u16::from_le_bytes)
}

/// Like [`u16_at`].
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    array_at(bytes, at).map_or(0, u32::from_le_bytes)
}

/// Like [`u16_at`].
pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    array_at(bytes, at).map_or(0, u64::from_le_bytes)
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}
