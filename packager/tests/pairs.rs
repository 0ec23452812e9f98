//! Every prebuilt pair: where the change can be hotpatched, a patch image comes out that the
//! verifier and LLVM's reader accept; where it cannot, somebody says why.

mod tools;

use hpbuild_differ::{Diff, Differ, Input, diff};
use hpbuild_fixtures::{Build, Pair, pairs};
use hpbuild_packager::extract::Options;
use hpbuild_packager::{NoPatch, Patch, build};

fn input(build: &Build) -> Input {
    Input {
        pe: build.dll.clone(),
        pdb: Some(build.pdb.clone()),
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
        let judged = diff.refusals.iter().any(|refusal| refusal.refuses());
        if !changes {
            continue;
        }
        match built(&pair, &diff) {
            Ok(patch) => {
                patches += 1;
                goblin::pe::PE::parse(&patch.file).expect("goblin reads the image");
                tools::readobj(&patch.file);
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
