//! Every prebuilt pair: where the change can be hotpatched, a patch image comes out that the
//! verifier and LLVM's reader accept; where it cannot, somebody says why.

mod tools;

use hpbuild_differ::{Diff, Differ, Input, diff};
use hpbuild_fixtures::{Build, Pair, pairs};
use hpbuild_metadata::{Rva, Sequence};
use hpbuild_packager::extract::{Options, Previous};
use hpbuild_packager::{NoPatch, Patch, build};

fn input(build: &Build) -> Input {
    Input {
        pe: build.dll.clone(),
        pdb: build.pdb.is_file().then(|| build.pdb.clone()),
    }
}

/// The comparison of a pair, or `None` where the images cannot be patched at all.
fn compared(pair: &Pair) -> Option<Box<Diff>> {
    let differ = Differ {
        base: input(&pair.base),
        fixed: input(&pair.fixed),
        symbols: Default::default(),
        policy: Default::default(),
    };
    diff(&differ, &mut Vec::new())
        .expect("readable images")
        .ok()
}

fn built(pair: &Pair, diff: &Diff) -> Result<Patch, String> {
    build(diff, &Options::first()).map_err(|no| match no {
        NoPatch::Refused(refusals) => refusals.iter().map(|r| format!("{r}\n")).collect(),
        NoPatch::Faulty(faults) => panic!("{} {:?}: {faults:#?}", pair.name, pair.machine),
    })
}

#[test]
fn every_pair_gives_a_patch_or_a_reason() {
    let mut failures = String::new();
    let mut patches = 0;
    for pair in pairs().expect("the prebuilt pairs") {
        let Some(diff) = compared(&pair) else {
            continue;
        };
        let changes = diff
            .comparison
            .changed
            .iter()
            .any(|c| !c.is_line_number_only());
        let judged = diff.refusals.iter().any(|refusal| refusal.refuses())
            || pair.expected.hotpatchable == Some(false);
        if !changes {
            continue;
        }
        match built(&pair, &diff) {
            Ok(patch) => {
                patches += 1;
                goblin::pe::PE::parse(&patch.file).expect("goblin reads the image");
                tools::readobj(&patch.file);
                check_pdb(&pair, &patch);
                assert_eq!(patch.file, built(&pair, &diff).expect("again").file);
            }
            Err(reasons) if !judged => {
                let name = format!("{} {:?}", pair.name, pair.machine);
                failures.push_str(&format!("{name}:\n{reasons}"));
            }
            Err(_) => {}
        }
    }
    assert!(failures.is_empty(), "{failures}");
    assert!(patches > 0, "no pair gave a patch");
    eprintln!("{patches} patches");
}

/// The PDB belongs to the image and names every function where it lies: read by the differ, which
/// shares no code with what wrote it, and by LLVM's reader.
fn check_pdb(pair: &Pair, patch: &Patch) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let image = folder.path().join(&patch.name);
    let pdb = image.with_extension("pdb");
    std::fs::write(&image, &patch.file).expect("a written image");
    std::fs::write(&pdb, patch.pdb.as_ref().expect("a pdb")).expect("a written pdb");
    let side = Input {
        pe: image.clone(),
        pdb: Some(pdb.clone()),
    };
    let differ = Differ {
        base: side.clone(),
        fixed: side,
        symbols: Default::default(),
        policy: Default::default(),
    };
    let read = diff(&differ, &mut Vec::new())
        .expect("a readable pair")
        .expect("a native image");
    for (redirect, entry) in patch.parts.redirects.iter().zip(&patch.linked.entries) {
        let rva = Rva::new(entry.get());
        let id = read.base.function_at(rva).expect("a function at the entry");
        assert_eq!(read.base.function(id).rva, rva);
        let names: Vec<_> = read
            .base
            .procedures_of(id)
            .iter()
            .map(|p| &*p.name)
            .collect();
        let piece = patch.parts.piece(redirect.piece);
        assert!(names.contains(&&*piece.name), "{}: {names:?}", pair.name);
    }
    let found = &read.comparison;
    assert!(
        found.changed.is_empty(),
        "{}: {:?}",
        pair.name,
        found.changed
    );
    assert!(found.unmatched_base.is_empty(), "{}", pair.name);
    let all = [
        "dump",
        "-summary",
        "-streams",
        "-modules",
        "-section-contribs",
        "-section-map",
        "-section-headers",
        "-publics",
        "-public-extras",
        "-globals",
        "-global-extras",
        "-symbols",
        "-types",
        "-ids",
    ];
    tools::run_on("llvm-pdbutil-22", &all, &pdb);
}

/// What the base has without a name and unchanged is reached there, by code and by pointers; what
/// changed is copied.
#[test]
fn constants_without_a_name_that_did_not_change_are_those_of_the_base() {
    let all = pairs().expect("the prebuilt pairs");
    let expected: [(&str, &[u8]); 3] = [
        ("identity/check", b""),
        ("identity/other", b""),
        ("identity/text", b"good evening, all\0"),
    ];
    for (name, copied) in expected {
        let mut machines = 0;
        for pair in all.iter().filter(|pair| pair.name == name) {
            let diff = compared(pair).expect("images that can be compared");
            let patch = built(pair, &diff).expect("a patch");
            let pieces = patch.parts.pieces.iter();
            let copies = pieces.filter(|piece| piece.origin.is_some());
            let copies: Vec<_> = copies.map(|piece| &*piece.bytes).collect();
            let title = format!("{name} {:?}", pair.machine);
            match copied {
                [] => assert!(copies.is_empty(), "{title}: {copies:?}"),
                _ => {
                    let holds = |copy: &&[u8]| copy.windows(copied.len()).any(|it| it == copied);
                    assert!(copies.iter().any(holds), "{title}: {copies:?}");
                }
            }
            machines += 1;
        }
        assert_eq!(machines, 2, "{name}");
    }
}

/// What a patch brought counts for all that come after it, whichever lie between.
#[test]
fn what_older_patches_brought_is_handed_on() {
    let all = pairs().expect("the prebuilt pairs");
    let built_over = |name: &str, older: Option<&Patch>| {
        let is_it =
            |pair: &&Pair| pair.name == name && pair.machine == hpbuild_fixtures::Machine::X64;
        let pair = all.iter().find(is_it).expect("a pair of the group");
        let diff = compared(pair).expect("images that can be compared");
        let read = |patch: &Patch| Previous::read(&patch.file).expect("a patch image");
        let older = older.map(read);
        let follows = older.as_ref().map_or(1, |older| older.sequence.get() + 1);
        let options = Options {
            sequence: Sequence::new(follows).expect("not zero"),
            previous: older,
            ..Options::first()
        };
        build(&diff, &options).expect("a patch")
    };
    let found = |patch: &Patch| -> Vec<String> {
        patch.findings.iter().map(|it| it.name.clone()).collect()
    };
    let first = built_over("later/first", None);
    assert!(first.findings.is_empty());
    let names: Vec<&str> = first.parts.brought.iter().map(|it| &*it.name).collect();
    let expected = [
        "checked",
        "checked_ways",
        "equal_ways",
        "on_late",
        "strict",
        "extra",
        "mode::MODE_LATE",
    ];
    assert_eq!(names, expected);
    let second = built_over("later/gone", Some(&first));
    assert_eq!(found(&second), ["on_late"]);
    assert_eq!(second.parts.brought, first.parts.brought);
    let third = built_over("later/first", Some(&second));
    assert_eq!(found(&third), [""; 0]);
    let third = built_over("later/handed", Some(&second));
    assert_eq!(found(&third), ["on_late"]);
    // Both that came are listed from then on.
    let names = third
        .parts
        .brought
        .iter()
        .filter(|it| &*it.name == "on_late");
    assert_eq!(names.count(), 2);
    for cut in (0..first.file.len()).step_by(7) {
        let _ = Previous::read(&first.file[..cut]);
    }
}

/// A newer patch must carry what an older one redirected, with a higher number.
#[test]
fn an_older_patch_must_be_carried() {
    let all = pairs().expect("the prebuilt pairs");
    let of = |name: &str| {
        let pair = all
            .iter()
            .find(|pair| pair.name == name && pair.machine == hpbuild_fixtures::Machine::X64);
        let pair = pair.expect("a pair of the edits");
        (pair, compared(pair).expect("images that can be compared"))
    };
    let (pair, diff) = of("edits/call-target");
    let older = built(pair, &diff).expect("a patch");
    let previous = Previous::read(&older.file).expect("a patch image");
    assert_eq!(previous.redirected.len(), 1);
    let options = |sequence| Options {
        sequence: Sequence::new(sequence).expect("not zero"),
        previous: Some(previous.clone()),
        ..Options::first()
    };
    let codes = |diff: &Diff, sequence| match build(diff, &options(sequence)) {
        Ok(patch) => {
            assert_eq!(patch.verified.table.sequence.get(), sequence);
            Vec::new()
        }
        Err(NoPatch::Refused(refusals)) => refusals.iter().map(|r| r.rule.name()).collect(),
        Err(NoPatch::Faulty(faults)) => panic!("{faults:#?}"),
    };
    assert_eq!(codes(&diff, 2), [""; 0]);
    assert_eq!(codes(&diff, 1), ["HP077"]);
    let (_, other) = of("edits/immediate");
    assert_eq!(codes(&other, 2), ["HP076"]);
    assert!(Previous::read(&std::fs::read(&pair.base.dll).expect("the base")).is_err());
    assert!(Previous::read(b"MZ").is_err());
}
