//! Damaged images and PDBs: the differ answers or says what is wrong, and never panics.

use hpbuild_differ::{Differ, Input, Report, SymbolPaths, diff};
use hpbuild_fixtures::demo;
use proptest::prelude::*;

/// Compares a damaged base with the fixed build.
fn compare(dll: &[u8], pdb: &[u8]) {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let input = |dll: &str, pdb: &str, bytes: (&[u8], &[u8])| Input {
        pe: write(dll, bytes.0),
        pdb: Some(write(pdb, bytes.1)),
    };
    let fixed = &demo::X64.fixed;
    let differ = Differ {
        base: input("base.dll", "base.pdb", (dll, pdb)),
        fixed: input("fixed.dll", "fixed.pdb", (fixed.dll.bytes, fixed.pdb.bytes)),
        symbols: SymbolPaths::default(),
        policy: Default::default(),
    };
    match diff(&differ, &mut Vec::new()) {
        Ok(Ok(diff)) => drop(Report::new(&diff, false)),
        Ok(Err(refusals)) => assert!(!refusals.is_empty()),
        Err(error) => assert!(error.to_string().contains("base."), "{error}"),
    }
}

/// Writes words over bytes; places wrap around at the end of the file.
fn damage(bytes: &[u8], words: &[(u32, u32)]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for &(place, word) in words {
        let at = (place as usize) % (bytes.len() - 4);
        bytes[at..at + 4].copy_from_slice(&word.to_le_bytes());
    }
    bytes
}

/// Compares an image with itself whose DWARF and string table are damaged.
fn compare_dwarf(words: &[(u32, u32)]) {
    let whole = include_bytes!("../../fixtures/prebuilt/dwarf/x64/base/hp_dwarf.dll");
    // The first section of DWARF has a long name; from there on all is DWARF.
    let pe = u32::from_le_bytes(*whole[0x3c..].first_chunk().unwrap()) as usize;
    let mut header = pe + 24 + usize::from(whole[pe + 20]);
    while whole[header] != b'/' {
        header += 40;
    }
    let at = u32::from_le_bytes(*whole[header + 20..].first_chunk().unwrap()) as usize;
    let mut damaged = whole[..at].to_vec();
    damaged.extend(damage(&whole[at..], words));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("base.dll");
    std::fs::write(&path, damaged).unwrap();
    let input = Input {
        pe: path,
        pdb: None,
    };
    let differ = Differ {
        base: input.clone(),
        fixed: input,
        symbols: SymbolPaths::default(),
        policy: Default::default(),
    };
    match diff(&differ, &mut Vec::new()) {
        Ok(Ok(diff)) => drop(Report::new(&diff, false)),
        Ok(Err(refusals)) => assert!(!refusals.is_empty()),
        Err(error) => assert!(error.to_string().contains("base."), "{error}"),
    }
}

fn words() -> impl Strategy<Value = Vec<(u32, u32)>> {
    let word = prop_oneof![any::<u32>(), Just(0), Just(u32::MAX), 0_u32..0x100];
    prop::collection::vec((any::<u32>(), word), 1..6)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_pe(words in words()) {
        let base = &demo::X64.base;
        compare(&damage(base.dll.bytes, &words), base.pdb.bytes);
    }

    #[test]
    fn damaged_pdb(words in words()) {
        let base = &demo::X64.base;
        compare(base.dll.bytes, &damage(base.pdb.bytes, &words));
    }

    #[test]
    fn damaged_dwarf(words in words()) {
        compare_dwarf(&words);
    }

    #[test]
    fn cut_short(dll in any::<prop::sample::Index>(), pdb in any::<prop::sample::Index>()) {
        let base = &demo::X64.base;
        compare(&base.dll.bytes[..dll.index(base.dll.bytes.len())], base.pdb.bytes);
        compare(base.dll.bytes, &base.pdb.bytes[..pdb.index(base.pdb.bytes.len())]);
    }
}
