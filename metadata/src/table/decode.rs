//! Bytes to values, with every check the bytes alone allow.

use super::{
    BASE_SIZE, CallTarget, Chunk, DynamicValue, ForwardAttach, HotPatchBase, HotPatchTable,
    PointerAttach, ReverseFunctionAttach, TableError, Version, header,
};
use crate::address::Rva;
use crate::identity::{BaseIdentity, Sequence};

/// Words behind the first two of a record that we are willing to believe. Kernels seen use 1; the
/// bound keeps a hostile value from multiplying into an overflow.
const MAX_EXTRA: u32 = 64;

/// More bases than any table could mean; each costs the reader a walk over a chunk list, and the
/// lists of a hostile table may all be the same one.
const MAX_BASES: u32 = 64;

/// Reads the hotpatch table at the start of `bytes`; bytes behind its own `Size` are not read.
///
/// # Errors
/// The first field or record that breaks a rule of the format reference, sections 1.2 to 2.
/// Addresses are not checked here: see [`HotPatchTable::validate`].
pub fn decode(bytes: &[u8]) -> Result<HotPatchTable, TableError> {
    let words = Words { bytes };
    let number = words.at(0, "Version")?;
    let version = Version::from_number(number)
        .ok_or_else(|| error(0, "Version", "1 to 4", number.to_string()))?;
    let size = words.at(4, "Size")?;
    let available = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    if size < version.header_size() || size > available || size % 4 != 0 {
        let expected = format!(
            "a multiple of 4 from {:#x} to {available:#x}",
            version.header_size()
        );
        return Err(error(4, "Size", expected, format!("{size:#x}")));
    }
    let words = Words {
        bytes: &bytes[..size as usize],
    };
    let since = |least, offset, what| {
        if version >= least {
            words.at(offset, what)
        } else {
            Ok(0)
        }
    };
    let sequence = words.at(8, "SequenceNumber")?;
    let sequence = Sequence::new(sequence)
        .ok_or_else(|| error(8, "SequenceNumber", "a number other than 0", "0"))?;
    let list = words.at(12, "BaseImageList")?;
    let count = words.at(16, "BaseImageCount")?;
    let buffer_offset = since(Version::V2, 20, "BufferOffset")?;
    let extra_patch_size = since(Version::V3, 24, "ExtraPatchSize")?;
    let min_sequence = since(Version::V4, 28, "MinSequenceNumber")?;
    let flags = since(Version::V4, 32, "Flags")?;
    if extra_patch_size > MAX_EXTRA {
        let expected = format!("at most {MAX_EXTRA}");
        return Err(error(
            24,
            "ExtraPatchSize",
            expected,
            extra_patch_size.to_string(),
        ));
    }
    if count == 0 || count > MAX_BASES {
        return Err(error(
            16,
            "BaseImageCount",
            format!("1 to {MAX_BASES}"),
            count.to_string(),
        ));
    }
    if list < version.header_size() || u64::from(list) + 4 * u64::from(count) > u64::from(size) {
        let expected = format!("a list of {count} words between header and end ({size:#x})");
        return Err(error(12, "BaseImageList", expected, format!("{list:#x}")));
    }

    let mut bases = Vec::new();
    for index in 0..count {
        let entry = list + 4 * index;
        let offset = words.at(entry, "BaseImageList entry")?;
        if offset < version.header_size() || u64::from(offset) + 32 > u64::from(size) {
            let expected = format!("an offset of a base that ends by {size:#x}");
            return Err(error(
                entry,
                "BaseImageList entry",
                expected,
                format!("{offset:#x}"),
            ));
        }
        bases.push(decode_base(words, offset, extra_patch_size)?);
    }
    Ok(HotPatchTable {
        version,
        sequence,
        buffer_offset,
        extra_patch_size,
        min_sequence,
        flags,
        bases,
    })
}

fn decode_base(words: Words<'_>, offset: u32, extra: u32) -> Result<HotPatchBase, TableError> {
    let at = |field: u32, what| words.at(offset + field, what);
    let chunks_at = at(0x18, "PatchTable")?;
    if chunks_at == 0 {
        return Err(error(
            offset + 0x18,
            "PatchTable",
            "an offset other than 0",
            "0",
        ));
    }
    Ok(HotPatchBase {
        sequence: at(0, "base SequenceNumber")?,
        flags: at(4, "base Flags")?,
        identity: BaseIdentity {
            time_date_stamp: at(8, "OriginalTimeDateStamp")?,
            checksum: at(12, "OriginalCheckSum")?,
        },
        code_integrity_info: at(16, "CodeIntegrityInfo")?,
        code_integrity_size: at(20, "CodeIntegritySize")?,
        buffer_offset: at(BASE_SIZE - 4, "base BufferOffset")?,
        chunks: decode_chunks(words, chunks_at, extra)?,
    })
}

fn decode_chunks(words: Words<'_>, start: u32, extra: u32) -> Result<Vec<Chunk>, TableError> {
    let mut chunks = Vec::new();
    let mut at = start;
    loop {
        let bits = words.at(at, "chunk header")?;
        if bits == 0 {
            return Ok(chunks);
        }
        let forbidden = bits & (header::RESERVED | header::OBLIGATORY);
        if forbidden != 0 {
            let expected = "reserved and OBLIGATORY bits clear";
            return Err(error(at, "chunk header", expected, format!("{bits:#010x}")));
        }
        let count = bits & header::SIZE;
        if count == 0 {
            let expected = "at least one record";
            return Err(error(at, "chunk header", expected, format!("{bits:#010x}")));
        }
        let stride = 4 * (2 + extra);
        let end = u64::from(at) + 4 + u64::from(count) * u64::from(stride);
        if end > words.bytes.len() as u64 {
            let expected = format!("{count} records that end by {:#x}", words.bytes.len());
            return Err(error(at, "chunk", expected, format!("an end at {end:#x}")));
        }
        let mut records = Vec::with_capacity(count as usize);
        for index in 0..count {
            let record = at + 4 + index * stride;
            let third = if extra > 0 {
                words.at(record + 8, "record")?
            } else {
                0
            };
            let (first, second) = (words.at(record, "record")?, words.at(record + 4, "record")?);
            records.push((first, second, third));
        }
        let chunk = typed_chunk(bits, &records).ok_or_else(|| {
            let expected = "FUNCTION, or another known type with INVERSE";
            error(at, "chunk type", expected, format!("{bits:#010x}"))
        })?;
        chunks.push(chunk);
        at += 4 + count * stride;
    }
}

/// The records as the chunk's kind gives them meaning; `None` for a kind or direction that the
/// format does not have.
fn typed_chunk(bits: u32, records: &[(u32, u32, u32)]) -> Option<Chunk> {
    let pointers = || {
        let pointer = |&(patch, base, _): &_| PointerAttach {
            patch: Rva::new(patch),
            base: Rva::new(base),
        };
        records.iter().map(pointer).collect()
    };
    let targets = || {
        let target = |&(word, target, _): &_| CallTarget {
            word,
            target: Rva::new(target),
        };
        records.iter().map(target).collect()
    };
    let inverse = bits & header::INVERSE != 0;
    Some(match (bits & header::TYPE, inverse) {
        (header::FUNCTION, false) => Chunk::ForwardFunction(
            records
                .iter()
                .map(|&(base, patch, original)| ForwardAttach {
                    base: Rva::new(base),
                    patch: Rva::new(patch),
                    original,
                })
                .collect(),
        ),
        (header::FUNCTION, true) => Chunk::ReverseFunction(
            records
                .iter()
                .map(|&(patch, base, original)| ReverseFunctionAttach {
                    patch: Rva::new(patch),
                    base: Rva::new(base),
                    original,
                })
                .collect(),
        ),
        (header::ABSOLUTE, true) => Chunk::ReverseAbsolute(pointers()),
        (header::REL32, true) => Chunk::ReverseRel32(pointers()),
        (header::INDIRECT, true) => Chunk::ReverseIndirect(pointers()),
        (header::CALL_TARGET, true) => Chunk::CallTarget(targets()),
        (header::NO_CALL_TARGET, true) => Chunk::NoCallTarget(targets()),
        (header::DYNAMIC_VALUE, true) => Chunk::DynamicValue(
            records
                .iter()
                .map(|&(patch, index, _)| DynamicValue {
                    patch: Rva::new(patch),
                    index,
                })
                .collect(),
        ),
        _ => return None,
    })
}

#[derive(Clone, Copy)]
struct Words<'a> {
    bytes: &'a [u8],
}

impl Words<'_> {
    fn at(self, offset: u32, what: &'static str) -> Result<u32, TableError> {
        let start = offset as usize;
        self.bytes
            .get(start..)
            .and_then(|rest| rest.first_chunk())
            .map(|bytes| u32::from_le_bytes(*bytes))
            .ok_or_else(|| {
                error(
                    offset,
                    what,
                    "4 bytes",
                    format!("the end at {:#x}", self.bytes.len()),
                )
            })
    }
}

pub(super) fn error(
    offset: u32,
    what: &'static str,
    expected: impl Into<String>,
    found: impl Into<String>,
) -> TableError {
    TableError {
        offset,
        what,
        expected: expected.into(),
        found: found.into(),
    }
}
