//! A base and its patch with damage in either: loaded, applied and reverted on a model of memory.
//! What went in comes out without a trace, or did not go in.
#![no_main]

use std::sync::OnceLock;

use hpbuild_differ::{Differ, Input, SymbolPaths, diff};
use hpbuild_fuzz::{Files, all, damage, file};
use hpbuild_packager::build;
use hpbuild_packager::extract::Options;
use libfuzzer_sys::fuzz_target;

/// Groups whose patches use every kind of record, and two machines.
const GROUPS: [&str; 5] = ["demo/", "edits/", "exceptions/", "patterns/", "tls/"];

/// Every base and patch that the groups give.
fn patches() -> &'static [(Vec<u8>, Vec<u8>)] {
    static PATCHES: OnceLock<Vec<(Vec<u8>, Vec<u8>)>> = OnceLock::new();
    PATCHES.get_or_init(|| {
        let wanted = |name: &str| GROUPS.iter().any(|group| name.starts_with(group));
        let pairs = all().iter().filter(|pair| wanted(&pair.name));
        pairs
            .filter_map(|pair| Some((pair.base.dll.clone(), patch(&pair.base, &pair.fixed)?)))
            .collect()
    })
}

fn patch(base: &Files, fixed: &Files) -> Option<Vec<u8>> {
    let files = [&base.dll, &base.pdb, &fixed.dll, &fixed.pdb].map(|bytes| file(bytes));
    let input = |pe: usize| Input {
        pe: files[pe].path().to_owned(),
        pdb: Some(files[pe + 1].path().to_owned()),
    };
    let differ = Differ {
        base: input(0),
        fixed: input(2),
        symbols: SymbolPaths::default(),
        policy: Default::default(),
    };
    let diff = diff(&differ, &mut Vec::new()).ok()?.ok()?;
    Some(build(&diff, &Options::first()).ok()?.file)
}

fuzz_target!(|bytes: &[u8]| {
    let Some((first, changes)) = bytes.split_first() else {
        return;
    };
    let all = patches();
    let (mut base, mut patch) = all[usize::from(*first) % all.len()].clone();
    damage(&mut [&mut patch, &mut base], changes);
    hpbuild_harness::fuzz_apply(&base, &patch);
});
