//! Values to bytes.

use super::{BASE_SIZE, Chunk, HotPatchBase, HotPatchTable, MAX_RECORDS_PER_CHUNK, Version};

/// The bytes of `table`: header, base list, bases, then each base's chunks with a terminator.
///
/// Chunks longer than [`MAX_RECORDS_PER_CHUNK`] are split; empty ones are left out, because a
/// header with no records would read as a chunk of none.
///
/// # Panics
/// When a field is set that the table's version cannot store, or when the table is larger than
/// 4 GiB. Both are mistakes of the caller, not of its input.
pub fn encode(table: &HotPatchTable) -> Vec<u8> {
    let older_than = |version| table.version < version;
    assert!(
        !older_than(Version::V2) || table.buffer_offset == 0,
        "BufferOffset needs version 2"
    );
    assert!(
        !older_than(Version::V3) || table.extra_patch_size == 0,
        "extra words need version 3"
    );
    assert!(
        !older_than(Version::V4) || (table.min_sequence == 0 && table.flags == 0),
        "MinSequenceNumber and Flags need version 4"
    );

    let header_size = table.version.header_size();
    let base_count = u32::try_from(table.bases.len()).expect("fewer than 2^32 bases");
    let first_base = header_size + 4 * base_count;
    let mut chunk_lists = Vec::new();
    let mut chunk_offsets = Vec::new();
    let mut next = first_base + BASE_SIZE * base_count;
    for base in &table.bases {
        let words = chunk_words(base, table.extra_patch_size);
        chunk_offsets.push(next);
        next += 4 * u32::try_from(words.len()).expect("a table below 4 GiB");
        chunk_lists.push(words);
    }

    let mut words = vec![
        table.version.number(),
        next,
        table.sequence.get(),
        header_size,
        base_count,
    ];
    let later = [
        table.buffer_offset,
        table.extra_patch_size,
        table.min_sequence,
        table.flags,
    ];
    words.extend_from_slice(&later[..(header_size as usize - 20) / 4]);
    words.extend((0..base_count).map(|index| first_base + BASE_SIZE * index));
    for (base, chunks) in table.bases.iter().zip(&chunk_offsets) {
        words.extend_from_slice(&[
            base.sequence,
            base.flags,
            base.identity.time_date_stamp,
            base.identity.checksum,
            base.code_integrity_info,
            base.code_integrity_size,
            *chunks,
            base.buffer_offset,
        ]);
    }
    words.extend(chunk_lists.into_iter().flatten());
    assert_eq!(
        words.len() * 4,
        next as usize,
        "reserved and written sizes differ"
    );
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// The chunk list of one base as words, terminator included.
fn chunk_words(base: &HotPatchBase, extra: u32) -> Vec<u32> {
    let mut words = Vec::new();
    for chunk in &base.chunks {
        let records = record_words(chunk);
        for part in records.chunks(MAX_RECORDS_PER_CHUNK) {
            words.push(chunk.header_bits() | u32::try_from(part.len()).expect("at most 4095"));
            for &(first, second, third) in part {
                words.extend_from_slice(&[first, second]);
                words.extend((0..extra).map(|index| if index == 0 { third } else { 0 }));
            }
        }
    }
    words.push(0);
    words
}

/// Word 0, word 1 and the first extra word of each record.
fn record_words(chunk: &Chunk) -> Vec<(u32, u32, u32)> {
    match chunk {
        Chunk::ForwardFunction(records) => records
            .iter()
            .map(|r| (r.base.get(), r.patch.get(), r.original))
            .collect(),
        Chunk::ReverseFunction(records) => records
            .iter()
            .map(|r| (r.patch.get(), r.base.get(), r.original))
            .collect(),
        Chunk::ReverseAbsolute(records)
        | Chunk::ReverseRel32(records)
        | Chunk::ReverseIndirect(records) => records
            .iter()
            .map(|r| (r.patch.get(), r.base.get(), 0))
            .collect(),
        Chunk::CallTarget(records) | Chunk::NoCallTarget(records) => records
            .iter()
            .map(|r| (r.word, r.target.get(), 0))
            .collect(),
        Chunk::DynamicValue(records) => records
            .iter()
            .map(|r| (r.patch.get(), r.index, 0))
            .collect(),
    }
}
