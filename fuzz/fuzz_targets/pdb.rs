//! Any bytes as the PDB of the demo's base: an answer or an error. Only a panic that reading the
//! container contains is not seen here; the differ's own parsing is.
#![no_main]

use std::io::Write;

use hpbuild_differ::{Input, SymbolPaths, functions_by_name};
use hpbuild_metadata::Base;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let file = |bytes: &[u8]| {
        let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
        file.write_all(bytes).expect("room for it");
        file
    };
    let pe = file(hpbuild_fixtures::demo::X64.base.dll.bytes);
    let pdb = file(bytes);
    let input = Input {
        pe: pe.path().to_owned(),
        pdb: Some(pdb.path().to_owned()),
    };
    let _ = functions_by_name::<Base>(&input, &SymbolPaths::default());
});
