//! A fixed image with damage: a patch that verifies, refusals or an error. What the linker writes
//! and the verifier does not believe is a mistake of one of them.
//!
//! The input is a list of changes, six bytes each: a place in the sections, and a word for it.
#![no_main]

use std::io::Write;
use std::path::Path;

use hpbuild_differ::{Differ, Input, SymbolPaths, diff};
use hpbuild_packager::extract::Options;
use hpbuild_packager::{NoPatch, build};
use libfuzzer_sys::fuzz_target;

const PREBUILT: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../fixtures/prebuilt/exceptions/x64"
);
const IMAGE: &[u8] =
    include_bytes!("../../fixtures/prebuilt/exceptions/x64/handled/hp_exceptions.dll");
/// Changes that are made of an input.
const MOST: usize = 16;
/// Bytes of headers, which the target `pe` is for.
const HEADERS: usize = 0x400;

fuzz_target!(|bytes: &[u8]| {
    let mut image = IMAGE.to_vec();
    for change in bytes.chunks_exact(6).take(MOST) {
        let place = usize::from(u16::from_le_bytes([change[0], change[1]]));
        let at = HEADERS + place % (image.len() - HEADERS - 4);
        image[at..at + 4].copy_from_slice(&change[2..]);
    }
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(&image).expect("room for it");
    let input = |pe: &Path, side: &str| Input {
        pe: pe.to_owned(),
        pdb: Some(Path::new(PREBUILT).join(side).join("hp_exceptions.pdb")),
    };
    let base = Path::new(PREBUILT).join("base/hp_exceptions.dll");
    let differ = Differ {
        base: input(&base, "base"),
        fixed: input(file.path(), "handled"),
        symbols: SymbolPaths::default(),
        policy: Default::default(),
    };
    if let Ok(Ok(diff)) = diff(&differ, &mut Vec::new())
        && let Err(NoPatch::Faulty(faults)) = build(&diff, &Options::first())
    {
        panic!("the linker and the verifier disagree: {faults:?}");
    }
});
