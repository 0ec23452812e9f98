//! Edits of a PDB in place: the optional debug header, and texts.

/// Index in the optional debug header of the stream of exception data, of which nothing is read.
pub(crate) const EXCEPTION: usize = 1;
/// Of the map from addresses behind a rewriter to those in front.
pub(crate) const OMAP_TO_SRC: usize = 3;
/// Of the section headers.
const SECTION_HEADERS: usize = 5;

fn word(bytes: &[u8], at: usize) -> usize {
    let word = bytes[at..].first_chunk().expect("a PDB of our own");
    u32::from_le_bytes(*word) as usize
}

/// Where in the file each byte of the debug information stream (3) stands.
fn debug_information(pdb: &[u8]) -> Vec<usize> {
    let page = word(pdb, 32);
    let directory_size = word(pdb, 44);
    let map = word(pdb, 52) * page;
    let directory: Vec<u8> = (0..directory_size.div_ceil(page))
        .flat_map(|index| {
            let at = word(pdb, map + 4 * index) * page;
            pdb[at..at + page].to_vec()
        })
        .collect();
    let count = word(&directory, 0);
    let size = |stream: usize| match word(&directory, 4 + 4 * stream) {
        0xffff_ffff => 0,
        size => size,
    };
    let before: usize = (0..3).map(|stream| size(stream).div_ceil(page)).sum();
    let first = 4 + 4 * count + 4 * before;
    (0..size(3))
        .map(|at| word(&directory, first + 4 * (at / page)) * page + at % page)
        .collect()
}

/// Says in the optional debug header that the stream of the section headers is another one, too.
pub(crate) fn with_optional_stream(pdb: &[u8], index: usize) -> Vec<u8> {
    let places = debug_information(pdb);
    let stream: Vec<u8> = places.iter().map(|at| pdb[*at]).collect();
    // Behind the header of 64 bytes: modules, contributions, section map, sources, type servers,
    // edit and continue, and then the header in question.
    let sizes = [24, 28, 32, 36, 40, 52].map(|at| word(&stream, at));
    let start = 64 + sizes.iter().sum::<usize>();
    let mut edited = pdb.to_vec();
    for byte in 0..2 {
        let from = places[start + 2 * SECTION_HEADERS + byte];
        edited[places[start + 2 * index + byte]] = pdb[from];
    }
    edited
}

/// Gives the compiler another version in the first so many of the records that name it.
pub(crate) fn with_other_compiler(pdb: &[u8], records: usize) -> Vec<u8> {
    const MARK: &[u8] = b"clang version 22.";
    let mut edited = pdb.to_vec();
    let found: Vec<usize> = pdb
        .windows(MARK.len())
        .enumerate()
        .filter(|(_, bytes)| *bytes == MARK)
        .map(|(at, _)| at)
        .take(records)
        .collect();
    assert!(!found.is_empty(), "no compiler is named");
    for at in found {
        edited[at + MARK.len() - 2] = b'1';
    }
    edited
}
