//! The PDB of a prebuilt image with damage: an answer or an error. A panic of the PDB parser
//! that the differ contains is an error, too.
#![no_main]

use std::sync::OnceLock;

use hpbuild_differ::{Input, SymbolPaths, functions_by_name};
use hpbuild_fuzz::{Sides, all, allow_contained_panics, chosen, damage, file};
use hpbuild_metadata::Fixed;
use libfuzzer_sys::fuzz_target;

fn pairs() -> &'static [&'static Sides] {
    static PAIRS: OnceLock<Vec<&Sides>> = OnceLock::new();
    PAIRS.get_or_init(|| all().iter().filter(|it| !it.fixed.pdb.is_empty()).collect())
}

fuzz_target!(|bytes: &[u8]| {
    allow_contained_panics();
    let Some((pair, changes)) = chosen(pairs(), bytes) else {
        return;
    };
    let mut damaged = pair.fixed.pdb.clone();
    damage(&mut [&mut damaged], changes);
    let (pe, pdb) = (file(&pair.fixed.dll), file(&damaged));
    let input = Input {
        pe: pe.path().to_owned(),
        pdb: Some(pdb.path().to_owned()),
    };
    let _ = functions_by_name::<Fixed>(&input, &SymbolPaths::default());
});
