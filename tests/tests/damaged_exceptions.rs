//! Damaged exception data in a changed function: a patch that verifies, a refusal or an error, and
//! never a panic.

use std::path::Path;

use hpbuild_differ::{Differ, Input, SymbolPaths, diff};
use hpbuild_packager::extract::Options;
use hpbuild_packager::{NoPatch, build};
use proptest::prelude::*;

const PREBUILT: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../fixtures/prebuilt/exceptions"
);
/// How every `FuncInfo` begins.
const MAGIC: u32 = 0x1993_0522;

/// The patch from the base to an image with these bytes: the functions in it.
fn patch(machine: &str, fixed: &[u8]) -> Option<usize> {
    let base = std::fs::read(
        Path::new(PREBUILT)
            .join(machine)
            .join("base/hp_exceptions.dll"),
    );
    patch_of(machine, &base.unwrap(), fixed)
}

fn patch_of(machine: &str, base: &[u8], fixed: &[u8]) -> Option<usize> {
    let prebuilt = Path::new(PREBUILT).join(machine);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fixed.dll");
    std::fs::write(&path, fixed).unwrap();
    let base_path = folder.path().join("base.dll");
    std::fs::write(&base_path, base).unwrap();
    let differ = Differ {
        base: Input {
            pe: base_path,
            pdb: Some(prebuilt.join("base/hp_exceptions.pdb")),
        },
        fixed: Input {
            pe: path,
            pdb: Some(prebuilt.join("handled/hp_exceptions.pdb")),
        },
        symbols: SymbolPaths::default(),
        policy: Default::default(),
    };
    let diff = diff(&differ, &mut Vec::new()).ok()?.ok()?;
    match build(&diff, &Options::first()) {
        Ok(patch) => Some(patch.parts.redirects.len()),
        Err(NoPatch::Refused(refusals)) => {
            assert!(!refusals.is_empty());
            None
        }
        Err(NoPatch::Faulty(faults)) => panic!("the linker and the verifier disagree: {faults:?}"),
    }
}

fn fixed(machine: &str) -> Vec<u8> {
    std::fs::read(
        Path::new(PREBUILT)
            .join(machine)
            .join("handled/hp_exceptions.dll"),
    )
    .unwrap()
}

/// Writes words over the image near its `FuncInfo`s, whose tables stand beside them.
fn damage(machine: &str, words: &[(u32, u32)]) -> Vec<u8> {
    let mut bytes = fixed(machine);
    let found: Vec<usize> = (0..bytes.len() - 4)
        .filter(|at| bytes[*at..*at + 4] == MAGIC.to_le_bytes())
        .collect();
    let (first, last) = (found[0] - 0x100, found[found.len() - 1] + 0x100);
    for &(place, word) in words {
        let at = first + place as usize % (last - first);
        bytes[at..at + 4].copy_from_slice(&word.to_le_bytes());
    }
    bytes
}

#[test]
fn whole_data_is_carried() {
    assert_eq!(patch("x64", &fixed("x64")), Some(3));
    assert_eq!(patch("arm64", &fixed("arm64")), Some(2));
}

/// A version that is not known, a count too large, and states out of order are refused.
#[test]
fn what_is_not_understood_is_refused() {
    for machine in ["x64", "arm64"] {
        let bytes = fixed(machine);
        let at = (0..bytes.len() - 4)
            .find(|at| bytes[*at..*at + 4] == MAGIC.to_le_bytes())
            .unwrap();
        for (offset, word) in [(0, MAGIC + 1), (4, 0x1_0001), (20, u32::MAX), (32, 0x1000)] {
            let mut bytes = bytes.clone();
            bytes[at + offset..at + offset + 4].copy_from_slice(&word.to_le_bytes());
            assert_eq!(
                patch(machine, &bytes),
                None,
                "{machine}: {word:#x} at {offset}"
            );
        }
    }
}

/// With /guard:ehcont the system asks a table whether code may go on where a handler says.
#[test]
fn a_base_that_lists_continuations_is_refused() {
    let mut base = std::fs::read(Path::new(PREBUILT).join("x64/base/hp_exceptions.dll")).unwrap();
    assert_eq!(patch_of("x64", &base, &fixed("x64")), Some(3));
    let flags = guard_flags(&base);
    base[flags + 2] |= 0x40;
    assert_eq!(patch_of("x64", &base, &fixed("x64")), None);
}

/// Where the guard flags of the load config stand in the file.
fn guard_flags(image: &[u8]) -> usize {
    let file = object::read::pe::PeFile64::parse(image).unwrap();
    let directory = file
        .data_directory(object::pe::IMAGE_DIRECTORY_ENTRY_LOAD_CONFIG)
        .unwrap();
    let (offset, _) = directory.file_range(&file.section_table()).unwrap();
    offset as usize + 0x90
}

/// What random words found once: a table of no entries that is the last of its section.
#[test]
fn damaged_once() {
    let words = [(2_518_724_313, 0)];
    patch("x64", &damage("x64", &words));
    patch("arm64", &damage("arm64", &words));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged(words in prop::collection::vec((any::<u32>(), prop_oneof![any::<u32>(), 0_u32..0x3000]), 1..4)) {
        patch("x64", &damage("x64", &words));
        patch("arm64", &damage("arm64", &words));
    }
}
