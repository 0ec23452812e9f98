//! What a version resource says, entry by entry.
//!
//! Layout: `VS_VERSIONINFO`, `VS_FIXEDFILEINFO`, `StringFileInfo`, `StringTable`, `String` and
//! `VarFileInfo` of Microsoft's documentation of version information. All of them are blocks of one
//! form: three words (bytes of the whole, length of the value, whether that is text), a key in
//! UTF-16 that a zero ends, the value, and further blocks, each at a multiple of four bytes.

use std::collections::BTreeMap;

/// Blocks within blocks.
const DEPTH: usize = 4;
/// Blocks that are read.
const BLOCKS: usize = 1 << 12;
/// What begins `VS_FIXEDFILEINFO`.
const SIGNATURE: u32 = 0xfeef_04bd;
/// Where the numbers of `VS_FIXEDFILEINFO` stand, in words of four bytes.
const FIXED: [(usize, &str); 7] = [
    (6, "file flags mask"),
    (7, "file flags"),
    (8, "file OS"),
    (9, "file type"),
    (10, "file subtype"),
    (11, "file date, high"),
    (12, "file date, low"),
];

/// A value of version information.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VersionValue {
    /// A text.
    Text(String),
    /// A version, a number or bytes, readable.
    Number(String),
}

/// Values of version information by name: numbers by what they are, strings by language and key
/// (`040904b0/CompanyName`).
pub fn version_values(data: &[u8]) -> BTreeMap<String, VersionValue> {
    let mut values = BTreeMap::new();
    let Some(root) = Block::read(data) else {
        return values;
    };
    let word = |index: usize| {
        let bytes = root.value.get(4 * index..)?.first_chunk()?;
        Some(u32::from_le_bytes(*bytes))
    };
    if word(0) == Some(SIGNATURE) {
        for (index, name) in [(2, "file version"), (4, "product version")] {
            let version = word(index).zip(word(index + 1)).map(|(high, low)| {
                let [a, b, c, d] = [high >> 16, high & 0xffff, low >> 16, low & 0xffff];
                format!("{a}.{b}.{c}.{d}")
            });
            let version = version.map(VersionValue::Number);
            values.extend(version.map(|version| (name.to_owned(), version)));
        }
        let numbers = FIXED.iter().filter_map(|(index, name)| {
            let number = word(*index)?;
            let number = VersionValue::Number(format!("{number:#x}"));
            Some(((*name).to_owned(), number))
        });
        values.extend(numbers);
    }
    let mut left = BLOCKS;
    add(root.children, "", 0, &mut left, &mut values);
    values
}

/// Adds what the blocks in `data` say; `left` is how many may still be read.
fn add(
    mut data: &[u8],
    path: &str,
    depth: usize,
    left: &mut usize,
    values: &mut BTreeMap<String, VersionValue>,
) {
    while let Some(block) = Block::read(data) {
        let Some(fewer) = left.checked_sub(1) else {
            return;
        };
        *left = fewer;
        // The two kinds of lists have names that say nothing.
        let path = match depth {
            0 => String::new(),
            1 => block.key.clone(),
            _ => format!("{path}/{}", block.key),
        };
        if depth >= 1 && !block.value.is_empty() {
            values.insert(path.clone(), block.readable());
        }
        if depth < DEPTH {
            add(block.children, &path, depth + 1, left, values);
        }
        data = block.rest;
    }
}

/// A block, cut up.
struct Block<'a> {
    key: String,
    is_text: bool,
    value: &'a [u8],
    children: &'a [u8],
    /// What follows it.
    rest: &'a [u8],
}

impl<'a> Block<'a> {
    /// The block at the start of `data`; `None` where there is none, or a broken one.
    fn read(data: &'a [u8]) -> Option<Self> {
        let word = |at: usize| Some(u16::from_le_bytes(*data.get(at..)?.first_chunk()?));
        let length = usize::from(word(0)?);
        let whole = data.get(..length).filter(|_| length >= 6)?;
        let units = whole[6..].chunks_exact(2);
        let units = units.map(|unit| u16::from_le_bytes([unit[0], unit[1]]));
        let end = units.clone().position(|unit| unit == 0)?;
        let key: Vec<u16> = units.take(end).collect();
        let is_text = word(4)? == 1;
        // Lengths of texts are in characters; some tools write bytes.
        let unit = if is_text { 2 } else { 1 };
        let start = (6 + 2 * end + 2).next_multiple_of(4).min(length);
        let size = unit * usize::from(word(2)?);
        let stop = start.saturating_add(size).min(length);
        let children = stop.next_multiple_of(4).min(length);
        let next = length.next_multiple_of(4).min(data.len());
        Some(Self {
            key: String::from_utf16_lossy(&key),
            is_text,
            value: &whole[start..stop],
            children: &whole[children..],
            rest: &data[next..],
        })
    }

    /// The value: a text up to its zero, or digits.
    fn readable(&self) -> VersionValue {
        if self.is_text {
            let units = self.value.chunks_exact(2);
            let units = units.map(|unit| u16::from_le_bytes([unit[0], unit[1]]));
            let text: Vec<u16> = units.take_while(|unit| *unit != 0).collect();
            return VersionValue::Text(String::from_utf16_lossy(&text));
        }
        let digits = self.value.iter().map(|byte| format!("{byte:02x}"));
        VersionValue::Number(digits.collect::<Vec<_>>().join(" "))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    fn block(key: &str, value: &[u8], is_text: bool, children: &[Vec<u8>]) -> Vec<u8> {
        let count = value.len() / if is_text { 2 } else { 1 };
        let mut out = vec![0; 2];
        out.extend((count as u16).to_le_bytes());
        out.extend(u16::from(is_text).to_le_bytes());
        out.extend(wide(key));
        out.resize(out.len().next_multiple_of(4), 0);
        out.extend(value);
        for child in children {
            out.resize(out.len().next_multiple_of(4), 0);
            out.extend(child);
        }
        let length = out.len() as u16;
        out[..2].copy_from_slice(&length.to_le_bytes());
        out
    }

    fn wide(text: &str) -> Vec<u8> {
        let units = text.encode_utf16().chain([0]);
        units.flat_map(u16::to_le_bytes).collect()
    }

    /// A resource with two strings and the file version 1.2.3 and this.
    pub(crate) fn sample(text: &str, last: u32) -> Vec<u8> {
        let low = 0x3_0000 | last;
        let words = [SIGNATURE, 0x1_0000, 0x1_0002, low, 0x5_0006, 0x7_0008];
        let fixed: Vec<u8> = words.into_iter().flat_map(u32::to_le_bytes).collect();
        let strings = ["CompanyName", "Odd"].map(|key| block(key, &wide(text), true, &[]));
        let table = block("040904b0", &[], true, &strings);
        let translation = block("Translation", &[9, 4, 0xb0, 4], false, &[]);
        let lists = [
            block("StringFileInfo", &[], true, &[table]),
            block("VarFileInfo", &[], true, &[translation]),
        ];
        block("VS_VERSION_INFO", &fixed, false, &lists)
    }

    #[test]
    fn values_by_name() {
        let values = version_values(&sample("a b", 4));
        let text: Vec<String> = values
            .iter()
            .map(|(key, value)| match value {
                VersionValue::Text(text) => format!("{key}={text:?}"),
                VersionValue::Number(number) => format!("{key}={number}"),
            })
            .collect();
        assert_eq!(
            text,
            [
                r#"040904b0/CompanyName="a b""#,
                r#"040904b0/Odd="a b""#,
                "Translation=09 04 b0 04",
                "file version=1.2.3.4",
                "product version=5.6.7.8",
            ]
        );
    }

    #[test]
    fn damaged_bytes_are_read_to_the_end() {
        let sample = sample("a b", 4);
        for length in 0..sample.len() {
            version_values(&sample[..length]);
        }
        for at in 0..sample.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut damaged = sample.clone();
                damaged[at] = value;
                assert!(version_values(&damaged).len() < 100);
            }
        }
    }
}
