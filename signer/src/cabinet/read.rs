//! Reading a cabinet.

use super::write::MSZIP;
use super::{HEADER, RESERVE, RESERVE_PRESENT, RESERVE_START, mszip};
use crate::error::Error;
use crate::pe::u16_at;
pub(super) use crate::pe::u32_at;

/// A file in a cabinet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CabinetFile {
    /// Its name: 1 to 200 letters, digits and `.-_+`, not starting with a dot.
    pub name: String,
    /// Its contents.
    pub bytes: Vec<u8>,
}

/// What a reader is willing to believe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Files.
    pub files: usize,
    /// Bytes of all files together.
    pub total: usize,
}

impl Default for Limits {
    /// 256 files of 512 MiB together: far above any patch package.
    fn default() -> Self {
        Limits {
            files: 256,
            total: 512 << 20,
        }
    }
}

/// What the header says, checked against the file's length.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    /// Bytes of the cabinet without a signature.
    pub(crate) size: usize,
    pub(crate) flags: u16,
    pub(crate) folders: usize,
    files: usize,
    files_at: usize,
    /// Whether there is room for a signature.
    pub(crate) reserved: bool,
    /// Where the folder entries start.
    folders_at: usize,
}

/// Reads the header. A signature, if there is one, is the only thing that may follow the cabinet,
/// and stands where the header says.
pub(crate) fn header(bytes: &[u8]) -> Result<Header, Error> {
    let word = |at| u32_at(bytes, at, "cabinet header");
    let half = |at| u16_at(bytes, at, "cabinet header").map(usize::from);
    let expect = |holds: bool, field: &str, expected: &str, found: String| {
        if holds {
            return Ok(());
        }
        Err(Error::format(
            format!("cabinet header: {field}"),
            expected,
            found,
        ))
    };
    let magic = bytes.get(..4) == Some(b"MSCF");
    expect(magic, "signature", "\"MSCF\"", "other bytes".into())?;
    expect(
        bytes.len() >= HEADER,
        "length",
        "36 bytes",
        bytes.len().to_string(),
    )?;
    for (at, field) in [(4, "reserved1"), (12, "reserved2"), (20, "reserved3")] {
        expect(word(at)? == 0, field, "0", format!("{:#x}", word(at)?))?;
    }
    let version = (bytes[25], bytes[24]);
    expect(
        version == (1, 3),
        "version",
        "1.3",
        format!("{}.{}", version.0, version.1),
    )?;
    let flags = half(30)? as u16;
    let known = flags & !RESERVE_PRESENT == 0 && half(34)? == 0;
    expect(
        known,
        "flags",
        "a cabinet that is no part of a set",
        format!("{flags:#x}"),
    )?;
    let reserved = flags & RESERVE_PRESENT != 0;
    let size = word(8)? as usize;
    let folders_at = if reserved { HEADER + RESERVE } else { HEADER };
    let folders = half(26)?;
    let files_at = word(16)? as usize;
    let least = folders_at + 8 * folders;
    expect(
        least <= files_at && files_at <= size && size <= bytes.len(),
        "sizes",
        &format!("{least:#x} <= coffFiles <= cbCabinet <= {:#x}", bytes.len()),
        format!("{files_at:#x} and {size:#x}"),
    )?;
    if reserved {
        let start = &bytes[HEADER..HEADER + 8];
        let found = crate::digest::hex(start);
        expect(
            start == RESERVE_START,
            "reserve",
            "20 bytes for a signature",
            found,
        )?;
        let (at, length) = (word(44)? as usize, word(48)? as usize);
        let unsigned = at == 0 && length == 0 && size == bytes.len();
        let signed = at == size && at.checked_add(length) == Some(bytes.len()) && length > 0;
        let zeros = bytes[52..60].iter().all(|b| *b == 0);
        expect(
            (unsigned || signed) && zeros,
            "reserve",
            &format!(
                "a signature from {size:#x} to the end at {:#x}",
                bytes.len()
            ),
            format!("{length:#x} bytes at {at:#x}"),
        )?;
    } else {
        expect(
            size == bytes.len(),
            "cbCabinet",
            "the file's length",
            format!("{size:#x}"),
        )?;
    }
    Ok(Header {
        size,
        flags,
        folders,
        files: half(28)?,
        files_at,
        reserved,
        folders_at,
    })
}

/// Reads every file of a cabinet with one MSZIP folder, without looking at its signature.
///
/// # Errors
/// The first field that is malformed or above `limits`; names that could lead out of a folder or
/// that differ only in case.
pub fn read_cabinet(bytes: &[u8], limits: Limits) -> Result<Vec<CabinetFile>, Error> {
    let header = header(bytes)?;
    let cabinet = &bytes[..header.size];
    let fail = |place: &str, expected: String, found: String| {
        Err(Error::format(format!("cabinet: {place}"), expected, found))
    };
    if header.folders != 1 || header.files > limits.files {
        let found = format!("{} and {}", header.folders, header.files);
        return fail(
            "folders and files",
            format!("1 and at most {}", limits.files),
            found,
        );
    }
    let (entries, data_at) = file_entries(cabinet, &header)?;
    let start = u32_at(cabinet, header.folders_at, "cabinet folder")? as usize;
    let blocks = u16_at(cabinet, header.folders_at + 4, "cabinet folder")?;
    let kind = u16_at(cabinet, header.folders_at + 6, "cabinet folder")?;
    if start != data_at || kind != MSZIP {
        let expected = format!("data at {data_at:#x}, MSZIP (1)");
        return fail("folder", expected, format!("{start:#x}, {kind:#x}"));
    }
    let total = entries.last().map_or(0, |(_, range)| range.end);
    if total > limits.total || total > usize::from(blocks) * mszip::BLOCK {
        let expected = format!("at most {} bytes", limits.total);
        return fail("files", expected, format!("{total} in {blocks} blocks"));
    }
    let content = decompress(cabinet, start, blocks, total)?;
    Ok(entries
        .into_iter()
        .map(|(name, range)| CabinetFile {
            name,
            bytes: content[range].to_vec(),
        })
        .collect())
}

type Entry = (String, std::ops::Range<usize>);

/// Names and places of the files, which must fill the folder one behind the other; and where the
/// list ends.
fn file_entries(cabinet: &[u8], header: &Header) -> Result<(Vec<Entry>, usize), Error> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut at = header.files_at;
    let mut offset = 0usize;
    for _ in 0..header.files {
        let place = "cabinet file entry";
        let size = u32_at(cabinet, at, place)? as usize;
        let start = u32_at(cabinet, at + 4, place)? as usize;
        let folder = u16_at(cabinet, at + 8, place)?;
        let rest = cabinet.get(at + 16..).unwrap_or_default();
        let length = rest.iter().take(256).position(|b| *b == 0);
        let name = length.and_then(|length| std::str::from_utf8(&rest[..length]).ok());
        let name = name.ok_or_else(|| Error::format(place, "a name that ends", "none"))?;
        check_name(name)?;
        let twice = entries
            .iter()
            .any(|(other, _)| other.eq_ignore_ascii_case(name));
        if twice || folder != 0 || start != offset {
            let expected = format!("a new name, folder 0, offset {offset:#x}");
            let found = format!("{name}, {folder}, {start:#x}");
            return Err(Error::format(place, expected, found));
        }
        offset = start.saturating_add(size);
        entries.push((name.to_owned(), start..offset));
        at += 16 + name.len() + 1;
    }
    Ok((entries, at))
}

fn decompress(cabinet: &[u8], start: usize, blocks: u16, total: usize) -> Result<Vec<u8>, Error> {
    let place = "cabinet data block";
    let mut content = Vec::new();
    let mut at = start;
    for index in 0..blocks {
        let stored = u32_at(cabinet, at, place)?;
        let compressed = usize::from(u16_at(cabinet, at + 4, place)?);
        let length = usize::from(u16_at(cabinet, at + 6, place)?);
        let left = total - content.len();
        // All blocks but the last are full, and no byte belongs to no file.
        if length != left.min(mszip::BLOCK) || length == 0 || compressed > mszip::MAX_COMPRESSED {
            let expected = format!("{} bytes", left.min(mszip::BLOCK));
            let found = format!("{length} from {compressed} in block {index}");
            return Err(Error::format(place, expected, found));
        }
        let data = cabinet.get(at + 8..at + 8 + compressed).ok_or_else(|| {
            Error::format(
                place,
                format!("{compressed} bytes"),
                "the end of the cabinet",
            )
        })?;
        let actual = checksum(data, &cabinet[at + 4..at + 8]);
        if stored != actual {
            let found = format!("{stored:#x}");
            return Err(Error::format(
                "cabinet data block: checksum",
                format!("{actual:#x}"),
                found,
            ));
        }
        mszip::decompress_into(&mut content, data, length)?;
        at += 8 + compressed;
    }
    if content.len() != total || at != cabinet.len() {
        let expected = format!("{total} bytes, from blocks up to {:#x}", cabinet.len());
        let found = format!("{} bytes, up to {at:#x}", content.len());
        return Err(Error::format(place, expected, found));
    }
    Ok(content)
}

/// The checksum of a data block: the little-endian words of the data, then of its sizes, combined
/// by exclusive or; the bytes that fill no word count the other way round.
pub(super) fn checksum(data: &[u8], sizes: &[u8]) -> u32 {
    let words = |bytes: &[u8]| {
        let mut chunks = bytes.chunks_exact(4);
        let sum = (&mut chunks)
            .map(|w| u32::from_le_bytes([w[0], w[1], w[2], w[3]]))
            .fold(0, |sum, word| sum ^ word);
        let rest = chunks.remainder().iter();
        sum ^ rest.fold(0, |word, byte| word << 8 | u32::from(*byte))
    };
    words(data) ^ words(sizes)
}

/// Names are written into a folder of the user's choice, on any system: no separators, no drive,
/// no device, nothing hidden.
pub(super) fn check_name(name: &str) -> Result<(), Error> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b".-_+".contains(&b);
    let stem = name
        .split('.')
        .next()
        .unwrap_or_default()
        .to_ascii_lowercase();
    let numbered = |prefix: &str| {
        stem.strip_prefix(prefix)
            .is_some_and(|n| n.len() == 1 && n.as_bytes()[0].is_ascii_digit())
    };
    let device =
        ["con", "prn", "aux", "nul"].contains(&stem.as_str()) || numbered("com") || numbered("lpt");
    let fits = !name.is_empty()
        && name.len() <= 200
        && !name.starts_with('.')
        && !name.ends_with('.')
        && name.bytes().all(plain)
        && !device;
    if fits {
        return Ok(());
    }
    let expected = "1 to 200 letters, digits and .-_+, without a dot at either end, no device";
    Err(Error::format(
        "cabinet: file name",
        expected,
        format!("{name:?}"),
    ))
}
