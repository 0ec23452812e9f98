//! Any bytes as the DWARF of an image: those of a section each, behind two bytes of length, in
//! place of the sections of a fixture. An answer or an error.
#![no_main]

use std::io::Write;

use hpbuild_differ::{Input, SymbolPaths, functions_by_name};
use hpbuild_metadata::Base;
use libfuzzer_sys::fuzz_target;

const IMAGE: &[u8] = include_bytes!("../../fixtures/prebuilt/dwarf/x64/base/hp_dwarf.dll");

/// File offset and size of every section from the first of DWARF on: all are read by name alone.
fn sections() -> impl Iterator<Item = std::ops::Range<usize>> {
    let word = |at: usize| {
        let bytes = IMAGE[at..at + 4].try_into().expect("four bytes");
        u32::from_le_bytes(bytes) as usize
    };
    let header = word(0x3c);
    let count = usize::from(IMAGE[header + 6]);
    let table = header + 24 + usize::from(IMAGE[header + 20]);
    (0..count)
        .map(move |index| table + 40 * index)
        .filter(|at| IMAGE[*at] == b'/')
        .map(move |at| word(at + 20)..word(at + 20) + word(at + 16))
}

fuzz_target!(|bytes: &[u8]| {
    let mut image = IMAGE.to_vec();
    let mut rest = bytes;
    for section in sections() {
        let Some((length, behind)) = rest.split_first_chunk() else {
            break;
        };
        let length = usize::from(u16::from_le_bytes(*length));
        let length = length.min(behind.len()).min(section.len());
        image[section.start..section.start + length].copy_from_slice(&behind[..length]);
        rest = &behind[length..];
    }
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(&image).expect("room for it");
    let input = Input {
        pe: file.path().to_owned(),
        pdb: None,
    };
    let _ = functions_by_name::<Base>(&input, &SymbolPaths::default());
});
