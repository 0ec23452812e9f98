//! The sections and symbols of an image by their whole names: DWARF, and the COFF symbol table.
//!
//! A name of more than eight bytes stands in the string table behind the symbols, and the section
//! table has `/` and its offset (Microsoft's "PE Format", COFF string table). Linkers that write
//! DWARF keep that table, because every DWARF section needs it.

use std::borrow::Cow;

use gimli::{DwarfSections, SectionId};
use hpbuild_metadata::{SectionOffset, Side};

use crate::error::Error;
use crate::pe::{Pe, Section};
use crate::read::runtime::{Named, is_list};

/// How many times larger a compressed section may be inside than outside. Real ones gain a factor
/// of 2 to 6.
const MAX_GAIN: usize = 64;
/// `IMAGE_SYM_CLASS_EXTERNAL`.
const EXTERNAL: u8 = 2;
/// `IMAGE_SYM_CLASS_STATIC`.
const STATIC: u8 = 3;
/// `IMAGE_SYM_CLASS_FILE`.
const FILE: u8 = 103;
/// `IMAGE_SYM_DTYPE_FUNCTION`, in the bits of a type above the lowest four.
const FUNCTION: u8 = 2;
/// Bytes of a record of the symbol table.
const SYMBOL: usize = 18;
/// Sections whose symbols name what the linker made and the loader or nobody reads.
const LINKER_MADE: [&str; 6] = [".idata", ".edata", ".pdata", ".xdata", ".rsrc", ".reloc"];
/// How names of pointers to imports begin.
pub(super) const POINTER: &str = "__imp_";
/// Sections of object files. Some objects have symbols of these names without saying that they
/// stand for sections (dlltool's), and lld keeps them.
const SECTIONS: [&str; 9] = [
    ".text", ".data", ".bss", ".rdata", ".tls", ".CRT", ".idata", ".pdata", ".xdata",
];
/// Lists that GNU ld makes, partly in the middle of code.
const LISTS: [&str; 4] = [
    "__CTOR_LIST__",
    "___CTOR_LIST__",
    "__DTOR_LIST__",
    "___DTOR_LIST__",
];

/// A symbol of the COFF symbol table that has an address.
#[derive(Debug)]
pub(super) struct CoffSymbol {
    pub(super) name: String,
    pub(super) place: SectionOffset,
    /// Whether other object files can name it.
    pub(super) global: bool,
    /// Whether its type says that it is a function.
    pub(super) is_function: bool,
}

/// What an object file gave to a section. GNU ld keeps these; lld does not.
#[derive(Debug)]
pub(super) struct SectionDefinition {
    /// The source file, as the object names it.
    pub(super) file: Option<String>,
    pub(super) place: SectionOffset,
    pub(super) size: u32,
}

/// What the symbol table says.
#[derive(Debug, Default)]
pub(super) struct CoffSymbols {
    pub(super) symbols: Vec<CoffSymbol>,
    pub(super) definitions: Vec<SectionDefinition>,
    /// Where further sections of object files start; nothing tells of their sizes.
    pub(super) starts: Vec<SectionOffset>,
    /// Lists of the C runtime.
    pub(super) lists: Vec<Named>,
}

/// The symbol table of an image, and the names that need it.
pub(super) struct CoffTables<'a, S: Side> {
    pe: &'a Pe<S>,
    symbols: &'a [u8],
    strings: &'a [u8],
}

impl<'a, S: Side> CoffTables<'a, S> {
    /// Finds the tables; both are empty where the image has none.
    ///
    /// # Errors
    /// Where they leave the file.
    pub(super) fn read(pe: &'a Pe<S>) -> Result<Self, Error> {
        let file = pe.file();
        let header = word(file, 0x3c).map_or(0, |at| at as usize);
        let field = |at: usize| word(file, header.checked_add(at)?);
        let (at, count) = (field(12).unwrap_or(0), field(16).unwrap_or(0));
        if at == 0 {
            let (symbols, strings) = (&[][..], &[][..]);
            return Ok(Self {
                pe,
                symbols,
                strings,
            });
        }
        let broken = |what: &str| {
            let expected = format!("{what} inside the file of {:#x} bytes", file.len());
            let found = format!("{count} symbols at file offset {at:#x}");
            Error::format(&pe.path, "coff symbol table", expected, found)
        };
        let rest = file.get(at as usize..).ok_or_else(|| broken("symbols"))?;
        let size = (count as usize).checked_mul(SYMBOL);
        let (symbols, rest) = size
            .and_then(|size| rest.split_at_checked(size))
            .ok_or_else(|| broken("symbols"))?;
        // The size of the strings counts itself; a table that is not there has none.
        let size = word(rest, 0).map_or(0, |size| size as usize);
        let strings = rest.get(..size).ok_or_else(|| broken("strings"))?;
        Ok(Self {
            pe,
            symbols,
            strings,
        })
    }

    fn string(&self, offset: usize) -> Option<Cow<'a, str>> {
        let bytes = self.strings.get(offset..)?;
        let end = bytes.iter().position(|byte| *byte == 0)?;
        Some(String::from_utf8_lossy(&bytes[..end]))
    }

    /// The whole name of a section; what stands in the section table where it leads nowhere.
    fn section_name(&self, section: &'a Section<S>) -> Cow<'a, str> {
        let offset = section.name.strip_prefix('/').and_then(string_offset);
        let long = offset.and_then(|offset| self.string(offset));
        long.unwrap_or(Cow::Borrowed(&section.name))
    }

    /// The bytes of the DWARF sections, decompressed; `None` where there are none.
    ///
    /// # Errors
    /// Where a compressed section cannot be decompressed.
    pub(super) fn dwarf(&self) -> Result<Option<DwarfSections<Cow<'a, [u8]>>>, Error> {
        let names: Vec<_> = self
            .pe
            .sections
            .iter()
            .map(|section| (self.section_name(section), section))
            .collect();
        if !names
            .iter()
            .any(|(name, _)| matches!(&**name, ".debug_info" | ".zdebug_info"))
        {
            return Ok(None);
        }
        let load = |id: SectionId| {
            let plain = id.name();
            let compressed = plain.replacen(".debug", ".zdebug", 1);
            let found = names
                .iter()
                .find(|(name, _)| **name == *plain || **name == compressed);
            let Some((name, section)) = found else {
                return Ok(Cow::Borrowed(&[][..]));
            };
            let stored = self.pe.file().get(section.file.clone()).unwrap_or_default();
            let bytes = &stored[..stored.len().min(section.size as usize)];
            if **name == *plain {
                Ok(Cow::Borrowed(bytes))
            } else {
                self.inflate(name, bytes).map(Cow::Owned)
            }
        };
        DwarfSections::load(load).map(Some)
    }

    /// A `.zdebug_` section: `ZLIB`, the size in eight bytes from the highest, and a zlib stream
    /// (binutils' `--compress-debug-sections=zlib-gnu`).
    fn inflate(&self, name: &str, bytes: &[u8]) -> Result<Vec<u8>, Error> {
        let broken = |expected: String, found: String| {
            Err(Error::format(&self.pe.path, name, expected, found))
        };
        let header = bytes
            .strip_prefix(b"ZLIB")
            .and_then(|rest| rest.split_first_chunk());
        let Some((size, stream)) = header else {
            return broken("a compressed section".into(), "another header".into());
        };
        let most = stream.len().saturating_mul(MAX_GAIN);
        let size = usize::try_from(u64::from_be_bytes(*size)).unwrap_or(usize::MAX);
        if size > most {
            let expected = format!("at most {most:#x} bytes when decompressed");
            return broken(expected, format!("{size:#x}"));
        }
        match miniz_oxide::inflate::decompress_to_vec_zlib_with_limit(stream, size) {
            Ok(bytes) if bytes.len() == size => Ok(bytes),
            Ok(bytes) => broken(format!("{size:#x} bytes"), format!("{:#x}", bytes.len())),
            Err(error) => broken("a zlib stream".into(), error.to_string()),
        }
    }

    /// The symbols that name code or data of the program.
    pub(super) fn symbols(&self) -> CoffSymbols {
        let mut found = CoffSymbols::default();
        let mut file: Option<String> = None;
        let mut records = self.symbols.chunks_exact(SYMBOL);
        while let Some(record) = records.next() {
            let (class, further) = (record[16], usize::from(record[17]));
            let more = match further {
                0 => None,
                _ => {
                    let first = records.next();
                    (1..further).for_each(|_| _ = records.next());
                    first
                }
            };
            if let (FILE, Some(more)) = (class, more) {
                file = Some(self.file_name(more));
            }
            let number = u16::from_le_bytes([record[12], record[13]]);
            let section = usize::from(number)
                .checked_sub(1)
                .and_then(|index| self.pe.sections.get(index));
            let (EXTERNAL | STATIC, Some(section)) = (class, section) else {
                continue;
            };
            if section.is_discardable() {
                continue;
            }
            let is_linker_made = LINKER_MADE.contains(&&*section.name);
            let place = SectionOffset {
                section: number,
                offset: word(record, 8).unwrap_or(0),
            };
            // A static symbol with more to it stands for a section of an object file.
            if let (STATIC, Some(more)) = (class, more) {
                if is_linker_made {
                    continue;
                }
                found.definitions.push(SectionDefinition {
                    file: file.clone(),
                    place,
                    size: word(more, 0).unwrap_or(0),
                });
                continue;
            }
            let name = match record[..4] {
                [0, 0, 0, 0] => word(record, 4).and_then(|at| self.string(at as usize)),
                _ => {
                    let end = record[..8].iter().position(|byte| *byte == 0).unwrap_or(8);
                    Some(String::from_utf8_lossy(&record[..end]))
                }
            };
            let Some(name) = name.filter(|name| !name.is_empty()) else {
                continue;
            };
            if is_list(&name) {
                found.lists.push((Box::from(&*name), place));
            }
            if LISTS.contains(&&*name) {
                continue;
            }
            if class == STATIC && is_section(&name) {
                found.starts.push(place);
                continue;
            }
            // Pointers to imports are in the program's use.
            if is_linker_made && !name.starts_with(POINTER) {
                continue;
            }
            found.symbols.push(CoffSymbol {
                name: name.into_owned(),
                place,
                global: class == EXTERNAL,
                is_function: record[14] >> 4 & 3 == FUNCTION,
            });
        }
        found
    }
}

impl<S: Side> CoffTables<'_, S> {
    /// The name behind a symbol `.file`, as one record has it; longer ones are in the strings.
    fn file_name(&self, record: &[u8]) -> String {
        let long = match record[..4] {
            [0, 0, 0, 0] => word(record, 4).and_then(|at| self.string(at as usize)),
            _ => None,
        };
        let end = record.iter().position(|byte| *byte == 0);
        let short = || String::from_utf8_lossy(&record[..end.unwrap_or(record.len())]);
        long.unwrap_or_else(short).into_owned()
    }
}

/// Whether this is the name of a section of an object file, grouped or not.
fn is_section(name: &str) -> bool {
    let plain = name.split('$').next().unwrap_or_default();
    SECTIONS.contains(&plain)
}

/// The offset behind the `/` of a section's name: decimal, or after a second `/` six digits to
/// the base 64.
fn string_offset(digits: &str) -> Option<usize> {
    let Some(digits) = digits.strip_prefix('/') else {
        return digits.parse().ok();
    };
    digits.bytes().try_fold(0_usize, |value, byte| {
        let digit = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        value.checked_mul(64)?.checked_add(usize::from(digit))
    })
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_le_bytes(*word))
}

#[cfg(test)]
mod tests {
    use super::{is_section, string_offset};

    #[test]
    fn names_of_sections() {
        for name in [
            ".text",
            ".data",
            ".bss",
            ".rdata$zzz",
            ".idata$7",
            ".CRT$XCA",
        ] {
            assert!(is_section(name), "{name}");
        }
        for name in [
            ".refptr.__image_base__",
            ".rdata.x",
            "data",
            ".weak.f.g",
            ".",
            "",
            "p.0",
        ] {
            assert!(!is_section(name), "{name}");
        }
    }

    #[test]
    fn offsets_of_long_names() {
        assert_eq!(string_offset("4"), Some(4));
        assert_eq!(string_offset("1234567"), Some(1_234_567));
        assert_eq!(string_offset("/AAAAAE"), Some(4));
        assert_eq!(
            string_offset("/AAmJaA"),
            Some(((38 * 64 + 9) * 64 + 26) * 64)
        );
        assert_eq!(string_offset(""), None);
        assert_eq!(string_offset("/%%"), None);
        assert_eq!(string_offset("//////////////////"), None);
    }
}
