//! The resource directory: a tree of type, name and language, with the data at its leaves.
//!
//! Layout: Microsoft's "PE Format", section "The .rsrc Section". The tree is read when it is asked
//! for: an image with a broken one still runs, and still can be compared.

use std::collections::BTreeMap;

use hpbuild_metadata::{Rva, Side};

use super::Pe;

/// Resources of one image are believed up to this number.
const MOST: usize = 1 << 16;
/// Type, name, language.
const LEVELS: usize = 3;
/// `RT_VERSION`.
const VERSION: ResourceId = ResourceId::Number(16);

/// A type, name or language of a resource.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ResourceId {
    /// By number; the types below 25 have meanings of their own.
    Number(u32),
    /// By name.
    Name(String),
}

/// Where a resource stands in the tree: type, name and language.
pub type ResourcePath = Vec<ResourceId>;

impl<S: Side> Pe<S> {
    /// Every resource by its path; empty where there are none.
    ///
    /// # Errors
    /// A tree that leaves the image, is deeper than three levels or has more than 65536 leaves:
    /// where it goes wrong.
    pub fn resource_tree(&self) -> Result<BTreeMap<ResourcePath, &[u8]>, String> {
        let Some((start, _)) = self.resources else {
            return Ok(BTreeMap::new());
        };
        let mut reader = Reader {
            pe: self,
            start,
            found: BTreeMap::new(),
            seen: 0,
        };
        reader.directory(0, &mut Vec::new())?;
        Ok(reader.found)
    }
}

struct Reader<'a, S: Side> {
    pe: &'a Pe<S>,
    start: Rva<S>,
    found: BTreeMap<ResourcePath, &'a [u8]>,
    /// Entries looked at, in whatever directory.
    seen: usize,
}

impl<'a, S: Side> Reader<'a, S> {
    /// Bytes at an offset from the start of the tree.
    fn bytes(&self, offset: u32, size: u32) -> Result<&'a [u8], String> {
        let place = self.start.checked_add(offset);
        let bytes = place.and_then(|place| self.pe.bytes(place, size));
        bytes.ok_or_else(|| format!("resource directory+{offset:#x} lies outside the image"))
    }

    fn word(&self, offset: u32) -> Result<u32, String> {
        let bytes = self.bytes(offset, 4)?;
        Ok(bytes
            .first_chunk()
            .map_or(0, |word| u32::from_le_bytes(*word)))
    }

    fn directory(&mut self, offset: u32, path: &mut ResourcePath) -> Result<(), String> {
        if path.len() >= LEVELS {
            return Err(format!(
                "resource directory+{offset:#x} is on a fourth level"
            ));
        }
        // Two counts in one word: entries by name, then entries by number.
        let counts = self.word(offset.saturating_add(12))?;
        let count = (counts & 0xffff) + (counts >> 16);
        for index in 0..count {
            self.seen += 1;
            if self.seen > MOST {
                return Err(format!("more than {MOST} resources"));
            }
            let entry = offset.saturating_add(16).saturating_add(8 * index);
            let (name, data) = (self.word(entry)?, self.word(entry.saturating_add(4))?);
            path.push(self.id(name)?);
            match data & 1 << 31 {
                0 => self.leaf(data, path)?,
                _ => self.directory(data & !(1 << 31), path)?,
            }
            path.pop();
        }
        Ok(())
    }

    /// A number, or with the highest bit set the offset of a name in UTF-16 behind its length.
    fn id(&self, name: u32) -> Result<ResourceId, String> {
        if name & 1 << 31 == 0 {
            return Ok(ResourceId::Number(name));
        }
        let at = name & !(1 << 31);
        let length = self.bytes(at, 2)?;
        let length = length
            .first_chunk()
            .map_or(0, |size| u16::from_le_bytes(*size));
        let text = self.bytes(at.saturating_add(2), 2 * u32::from(length))?;
        let units = text
            .chunks_exact(2)
            .map(|unit| u16::from_le_bytes([unit[0], unit[1]]));
        let text =
            char::decode_utf16(units).map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER));
        Ok(ResourceId::Name(text.collect()))
    }

    /// The address and size of the data.
    fn leaf(&mut self, offset: u32, path: &ResourcePath) -> Result<(), String> {
        let rva = Rva::new(self.word(offset)?);
        let size = self.word(offset.saturating_add(4))?;
        let data = match size {
            0 => Some(&[][..]),
            _ => self.pe.bytes(rva, size),
        };
        let data = data.ok_or_else(|| format!("a resource at rva {rva} lies outside the image"))?;
        self.found.insert(path.clone(), data);
        Ok(())
    }
}

/// Whether a resource is version information.
pub fn is_version(path: &[ResourceId]) -> bool {
    path.first() == Some(&VERSION)
}

/// A type, name or language as a person reads it; types with their names from the SDK.
pub fn readable(path: &[ResourceId]) -> String {
    const TYPES: [(u32, &str); 17] = [
        (1, "cursor"),
        (2, "bitmap"),
        (3, "icon"),
        (4, "menu"),
        (5, "dialog"),
        (6, "string table"),
        (7, "font directory"),
        (8, "font"),
        (9, "accelerators"),
        (10, "raw data"),
        (11, "message table"),
        (12, "cursor group"),
        (14, "icon group"),
        (16, "version"),
        (21, "animated cursor"),
        (23, "HTML"),
        (24, "manifest"),
    ];
    let part = |(level, id): (usize, &ResourceId)| match id {
        ResourceId::Name(name) => name.clone(),
        ResourceId::Number(number) => {
            let known = TYPES
                .iter()
                .find(|(known, _)| level == 0 && known == number);
            known.map_or_else(|| number.to_string(), |(_, name)| (*name).to_owned())
        }
    };
    let parts: Vec<String> = path.iter().enumerate().map(part).collect();
    parts.join("/")
}
