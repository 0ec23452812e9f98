//! Where code may go on after an exception: the patch lists what the fixed image lists of the
//! functions that it carries, and nothing else.
//!
//! Images are read by `goblin` and by offsets of the load config, exports tell where functions are.

use std::path::Path;

use goblin::pe::PE;
use hpbuild_differ::{Diff, Differ, Input, diff};
use hpbuild_fixtures::{Build, Pair, pairs};
use hpbuild_metadata::table::Chunk;
use hpbuild_packager::extract::Options;
use hpbuild_packager::verify::verify;
use hpbuild_packager::{NoPatch, Patch, build};

/// Offsets in the load config.
const FLAGS: usize = 0x90;
const TABLE: usize = 0x108;

/// Where an address stands in the file.
fn place(pe: &PE<'_>, rva: u32) -> usize {
    let section = pe.sections.iter().find(|section| {
        let start = section.virtual_address;
        (start..start + section.size_of_raw_data).contains(&rva)
    });
    let section = section.expect("a section");
    (rva - section.virtual_address + section.pointer_to_raw_data) as usize
}

/// Where the load config stands in the file.
fn load_config(pe: &PE<'_>) -> usize {
    let header = pe.header.optional_header.expect("an optional header");
    let directory = header.data_directories.get_load_config_table();
    place(pe, directory.expect("a load config").virtual_address)
}

fn word(file: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(file[at..at + 4].try_into().expect("four bytes"))
}

/// Where the listed places stand in the file, and what they are.
fn listed(file: &[u8]) -> Vec<(usize, u32)> {
    let pe = PE::parse(file).expect("goblin reads the image");
    let config = load_config(&pe);
    let wide = |at: usize| u64::from_le_bytes(file[at..at + 8].try_into().expect("eight bytes"));
    let (table, count) = (wide(config + TABLE), wide(config + TABLE + 8) as usize);
    assert_ne!(word(file, config + FLAGS) & 0x40_0000, 0);
    assert_eq!(word(file, config + FLAGS) >> 28, 0, "bytes behind entries");
    let start = place(&pe, (table - pe.image_base) as u32);
    let at = (0..count).map(|index| start + 4 * index);
    at.map(|at| (at, word(file, at))).collect()
}

fn export(file: &[u8], name: &str) -> u32 {
    let pe = PE::parse(file).expect("goblin reads the image");
    let export = pe.exports.iter().find(|export| export.name == Some(name));
    export.expect("an exported function").rva as u32
}

struct Built {
    base: Vec<u8>,
    fixed: Vec<u8>,
    patch: Patch,
}

/// The base of a pair and an image that is described by the PDB of the fixed one.
fn compared(pair: &Pair, fixed: &Path) -> Box<Diff> {
    let input = |pe: &Path, build: &Build| Input {
        pe: pe.to_owned(),
        pdb: Some(build.pdb.clone()),
    };
    let differ = Differ {
        base: input(&pair.base.dll, &pair.base),
        fixed: input(fixed, &pair.fixed),
        symbols: Default::default(),
        policy: Default::default(),
    };
    let diff = diff(&differ, &mut Vec::new()).expect("readable images");
    diff.expect("images that can be patched")
}

/// The pair for each machine.
fn numbers() -> Vec<Pair> {
    let pairs = pairs().expect("the prebuilt pairs").into_iter();
    pairs
        .filter(|pair| pair.name == "continuations/number")
        .collect()
}

/// The patch of the pair for each machine.
fn built() -> Vec<Built> {
    let pairs = numbers();
    let built = pairs.iter().map(|pair| {
        let diff = compared(pair, &pair.fixed.dll);
        Built {
            base: std::fs::read(&pair.base.dll).expect("the base"),
            fixed: std::fs::read(&pair.fixed.dll).expect("the fixed image"),
            patch: build(&diff, &Options::first()).expect("a patch"),
        }
    });
    built.collect()
}

#[test]
fn the_patch_lists_what_the_fixed_image_does() {
    let built = built();
    assert_eq!(built.len(), 2);
    for Built { base, fixed, patch } in built {
        let attached = |rva: u32| {
            let chunks = patch.verified.table.bases[0].chunks.iter();
            let attaches = chunks.filter_map(|chunk| match chunk {
                Chunk::ForwardFunction(records) => Some(records),
                _ => None,
            });
            let mut attaches = attaches.flatten();
            let attach = attaches.find(|attach| attach.base.get() == rva);
            attach.map(|attach| attach.patch.get())
        };
        let names = ["guarded", "caught", "left_behind", "unchanged"];
        let mut expected = Vec::new();
        for (_, rva) in listed(&fixed) {
            let starts = names.iter().map(|name| (export(&fixed, name), *name));
            let (start, name) = starts.filter(|it| it.0 <= rva).max().expect("an owner");
            let replacement = attached(export(&base, name));
            assert_eq!(replacement.is_some(), name != "unchanged");
            expected.extend(replacement.map(|replacement| replacement + (rva - start)));
        }
        expected.sort_unstable();
        let found: Vec<u32> = listed(&patch.file).iter().map(|entry| entry.1).collect();
        assert_eq!(found, expected);
        assert_eq!(found.len(), 3);
    }
}

/// The verifier reads the list from the file.
#[test]
fn another_list_is_a_fault() {
    for Built { patch, .. } in built() {
        let config = load_config(&PE::parse(&patch.file).expect("goblin reads the image"));
        let entries = listed(&patch.file);
        let changes = [
            ("GuardFlags", config + FLAGS, 0x500),
            ("GuardFlags", config + FLAGS, 0x1040_0500),
            ("GuardEHContinuationTable", config + TABLE + 8, 2),
            ("GuardEHContinuationTable", config + TABLE + 8, u32::MAX),
            ("GuardEHContinuationTable", config + TABLE, 0),
            ("GuardEHContinuationTable", entries[0].0, entries[1].1),
            ("GuardEHContinuationTable", entries[2].0, entries[2].1 + 1),
        ];
        for (name, at, word) in changes {
            let mut file = patch.file.clone();
            file[at..at + 4].copy_from_slice(&word.to_le_bytes());
            let faults = verify(&file, &patch.parts).expect_err("a fault");
            let named = faults.iter().any(|fault| fault.place == name);
            assert!(named, "{name} at {at:#x}: {faults:?}");
        }
    }
}

/// A scope table names a place, and the list does not hold it: which of the two is right?
#[test]
fn a_place_that_the_fixed_image_does_not_list_is_refused() {
    for pair in numbers() {
        let mut fixed = std::fs::read(&pair.fixed.dll).expect("the fixed image");
        let start = export(&fixed, "guarded");
        let end = ["caught", "left_behind", "unchanged"].map(|name| export(&fixed, name));
        let end = end.into_iter().filter(|rva| *rva > start).min();
        let entries = listed(&fixed);
        let inside = |rva: u32| rva > start && end.is_none_or(|end| rva < end);
        let (of, others): (Vec<_>, Vec<_>) = entries.into_iter().partition(|entry| inside(entry.1));
        assert_eq!((of.len(), others.len()), (1, 3));
        let (at, other) = (of[0].0, others[0].1);
        fixed[at..at + 4].copy_from_slice(&other.to_le_bytes());
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("hp_continuations.dll");
        std::fs::write(&path, &fixed).expect("room for it");
        let Err(NoPatch::Refused(refusals)) = build(&compared(&pair, &path), &Options::first())
        else {
            panic!("{:?}: a patch, or a faulty one", pair.machine);
        };
        let found: Vec<_> = refusals
            .iter()
            .map(|it| (it.rule.name(), &*it.name))
            .collect();
        assert_eq!(found, [("HP066", "guarded")]);
    }
}
