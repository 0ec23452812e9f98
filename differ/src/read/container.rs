//! The sizes that a PDB promises, plain (MSF) or compressed (MSFZ), held against the size of the
//! file.
//!
//! The parser allocates what the file asks for before it reads it. A hostile file can ask for
//! gigabytes, in its header or by a directory that lists one page or chunk again and again, and a
//! cut file fails somewhere deep inside. So this file looks first.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use ms_pdb::ReadAt;
use ms_pdb::msf::Msf;
use ms_pdb::msfz::{Msfz, is_header_msfz};

use crate::error::Error;

/// How a PDB as linkers write it begins (LLVM's "The MSF File Format"). The older format of 16-bit
/// page numbers ended with Visual C++ 6, before there was x64.
const MSF: &[u8; 32] = b"Microsoft C/C++ MSF 7.00\r\n\x1aDS\0\0\0";

/// Bytes of the header of either.
const HEADER: u64 = 80;

/// How many times larger a compressed PDB may be inside than outside. Real ones gain a factor of 3
/// to 8.
const MAX_GAIN: u64 = 64;

/// Checks the header of the PDB at `path`; returns how many bytes its streams may have together.
///
/// # Errors
/// Where the file is no PDB, or cannot hold what its header promises.
pub(super) fn check(path: &Path, file: &File) -> Result<u64, Error> {
    let fail = |source| Error::Read {
        path: path.into(),
        source,
    };
    let expected = "a PDB of format MSF 7.00 or MSFZ";
    let file_size = file.metadata().map_err(fail)?.len();
    if file_size < HEADER {
        let found = format!("a file of {file_size:#x} bytes");
        return Err(Error::format(path, "pdb header", expected, found));
    }
    let mut header = [0; HEADER as usize];
    read_at(file, 0, &mut header).map_err(fail)?;
    if header.starts_with(MSF) {
        check_pages(path, file_size, &header)?;
        Ok(file_size)
    } else if is_header_msfz(&header) {
        check_chunks(path, file_size, &header, file)?;
        Ok(file_size.saturating_mul(MAX_GAIN))
    } else {
        let start = header[..8].escape_ascii();
        let found = format!("a file that starts with \"{start}\"");
        Err(Error::format(path, "pdb header", expected, found))
    }
}

/// Checks the directory of streams of a PDB whose header was checked: no more than `most` bytes
/// together. Streams are allocated at the size the directory gives them. Pages and chunks are not
/// shared between streams of a real PDB, so all of them together fit in the file.
///
/// # Errors
/// Where the directory cannot be read, or promises more.
pub(super) fn check_directory(path: &Path, file: impl ReadAt, most: u64) -> Result<(), Error> {
    const PLACE: &str = "pdb header and stream directory";
    let broken = |cause: anyhow::Error| Error::format(path, PLACE, "a readable structure", cause);
    let mut start = [0; 32];
    file.read_exact_at(&mut start, 0)
        .map_err(|cause| broken(cause.into()))?;
    let total = if is_header_msfz(&start) {
        let container = Msfz::from_file(file).map_err(broken)?;
        let sizes = (0..container.num_streams()).map(|stream| container.stream_size(stream));
        sizes.sum::<anyhow::Result<u64>>().map_err(broken)?
    } else {
        let container = Msf::open_with_file(file).map_err(broken)?;
        let sizes = (0..container.num_streams()).map(|stream| container.stream_size(stream));
        sizes.map(u64::from).sum()
    };
    if total > most {
        let expected = format!("streams of at most {most:#x} bytes together");
        let found = format!("{total:#x} bytes");
        return Err(Error::format(path, "pdb stream directory", expected, found));
    }
    Ok(())
}

/// Pages, and the directory of streams that is stored in them.
fn check_pages(path: &Path, file_size: u64, header: &[u8]) -> Result<(), Error> {
    let page_size = word(header, 32);
    let (pages, directory) = (word(header, 40), word(header, 44));
    if !page_size.is_power_of_two() || !(512..=0x10000).contains(&page_size) {
        let expected = "a power of two from 0x200 to 0x10000";
        let found = format!("{page_size:#x}");
        return Err(Error::format(path, "pdb header page size", expected, found));
    }
    // The last page may be shorter.
    let needed = (pages * page_size).saturating_sub(page_size - 1);
    if pages == 0 || needed > file_size {
        let expected = format!("{pages:#x} pages of {page_size:#x} bytes");
        let found = format!("a file of {file_size:#x} bytes");
        return Err(Error::format(path, "pdb header", expected, found));
    }
    check_size(path, "pdb stream directory", directory, file_size)
}

/// The directory and the table of chunks of a compressed PDB.
fn check_chunks(path: &Path, file_size: u64, header: &[u8], file: &File) -> Result<(), Error> {
    let largest = file_size.saturating_mul(MAX_GAIN);
    check_size(path, "pdb stream directory", word(header, 64), file_size)?;
    check_size(path, "pdb stream directory", word(header, 68), largest)?;
    // A stream takes up at least a word of the directory.
    let words = word(header, 56) * 4;
    check_size(path, "pdb list of streams", words, word(header, 68))?;
    let table = u64::from_le_bytes(*header[48..].first_chunk().expect("inside the header"));
    let table_size = word(header, 76);
    let inside = table.saturating_add(table_size);
    check_size(path, "pdb chunk table", inside, file_size)?;
    let mut chunks = vec![0; usize::try_from(table_size).unwrap_or(usize::MAX)];
    read_at(file, table, &mut chunks).map_err(|source| Error::Read {
        path: path.into(),
        source,
    })?;
    let mut total = 0;
    // Offset, compression, size in the file, size in memory.
    for chunk in chunks.chunks_exact(20) {
        check_size(path, "pdb chunk", word(chunk, 12), file_size)?;
        total += word(chunk, 16);
    }
    check_size(path, "pdb chunks", total, largest)
}

fn read_at(mut file: &File, offset: u64, bytes: &mut [u8]) -> std::io::Result<()> {
    file.seek(SeekFrom::Start(offset))?;
    file.read_exact(bytes)
}

fn check_size(path: &Path, place: &str, size: u64, most: u64) -> Result<(), Error> {
    if size <= most {
        return Ok(());
    }
    let expected = format!("at most {most:#x} bytes");
    Err(Error::format(
        path,
        place,
        expected,
        format!("{size:#x} bytes"),
    ))
}

/// A little-endian word of the header or of a whole chunk entry.
fn word(bytes: &[u8], at: usize) -> u64 {
    let word = bytes[at..].first_chunk().expect("inside the structure");
    u32::from_le_bytes(*word).into()
}
