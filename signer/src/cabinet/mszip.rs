//! MSZIP: blocks of at most 32 KiB, each a deflate stream behind the letters `CK`.

use miniz_oxide::deflate::compress_to_vec;
use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};

use crate::error::Error;

/// Bytes that a block holds at most before compression.
pub(super) const BLOCK: usize = 32 << 10;
/// The same after it: a block that does not compress takes a little more.
pub(super) const MAX_COMPRESSED: usize = BLOCK + 12;
const MAGIC: &[u8] = b"CK";
/// The best compression; packages are written once and carried often.
const LEVEL: u8 = 10;

/// One block. Blocks here do not look back into the ones before them, which readers allow.
pub(super) fn compress(block: &[u8]) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    let deflated = compress_to_vec(block, LEVEL);
    if MAGIC.len() + deflated.len() <= MAX_COMPRESSED {
        out.extend(deflated);
        return out;
    }
    // One stored block: last-block bit, length, its complement, the bytes.
    let length = block.len() as u16;
    out.push(1);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&(!length).to_le_bytes());
    out.extend_from_slice(block);
    out
}

/// Appends the block's `length` bytes to `out`, whose earlier bytes it may refer to.
pub(super) fn decompress_into(out: &mut Vec<u8>, block: &[u8], length: usize) -> Result<(), Error> {
    let place = "cabinet data block";
    let stream = block
        .strip_prefix(MAGIC)
        .ok_or_else(|| Error::format(place, "\"CK\"", "other bytes"))?;
    let start = out.len();
    out.resize(start + length, 0);
    let mut state = Box::<DecompressorOxide>::default();
    let flags = TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
    let (status, read, written) = decompress(&mut state, stream, out, start, flags);
    if status != TINFLStatus::Done || written != length || read != stream.len() {
        let found = format!(
            "{written} bytes from {read} of {} ({status:?})",
            stream.len()
        );
        return Err(Error::format(place, format!("{length} bytes"), found));
    }
    Ok(())
}
