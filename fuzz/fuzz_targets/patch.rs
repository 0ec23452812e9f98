//! A pair of images with damage in any of its files: a patch that verifies, refusals or an error.
//! What the linker writes and the verifier does not believe is a mistake of one of them.
//!
//! The input chooses a prebuilt pair and then says what to damage.
#![no_main]

use std::sync::OnceLock;

use hpbuild_differ::{Differ, Input, SymbolPaths, diff};
use hpbuild_fuzz::{Sides, all, allow_contained_panics, chosen, damage, file};
use hpbuild_packager::extract::Options;
use hpbuild_packager::{NoPatch, build};
use libfuzzer_sys::fuzz_target;

fn pairs() -> &'static [&'static Sides] {
    static PAIRS: OnceLock<Vec<&Sides>> = OnceLock::new();
    PAIRS.get_or_init(|| all().iter().collect())
}

fuzz_target!(|bytes: &[u8]| {
    allow_contained_panics();
    let Some((pair, changes)) = chosen(pairs(), bytes) else {
        return;
    };
    let (mut base, mut fixed) = (pair.base.clone(), pair.fixed.clone());
    let mut files = [&mut fixed.dll, &mut fixed.pdb, &mut base.dll, &mut base.pdb];
    damage(&mut files, changes);
    let [fixed_dll, fixed_pdb, base_dll, base_pdb] = files.map(|bytes| (bytes.len(), file(bytes)));
    let input =
        |dll: &(usize, tempfile::NamedTempFile), pdb: &(usize, tempfile::NamedTempFile)| Input {
            pe: dll.1.path().to_owned(),
            pdb: (pdb.0 != 0).then(|| pdb.1.path().to_owned()),
        };
    let differ = Differ {
        base: input(&base_dll, &base_pdb),
        fixed: input(&fixed_dll, &fixed_pdb),
        symbols: SymbolPaths::default(),
        policy: Default::default(),
    };
    if let Ok(Ok(diff)) = diff(&differ, &mut Vec::new())
        && let Err(NoPatch::Faulty(faults)) = build(&diff, &Options::first())
    {
        panic!("{}: linker and verifier disagree: {faults:?}", pair.name);
    }
});
