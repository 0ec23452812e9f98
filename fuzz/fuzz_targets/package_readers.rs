//! The readers behind a package's signature, driven directly: `verify` seldom gets past the digest.
#![no_main]

use hpbuild_metadata::manifest::Manifest;
use hpbuild_signer::package::{Calendar, Release};
use hpbuild_signer::{Limits, Prepared, read_cabinet};
use libfuzzer_sys::fuzz_target;

const LIMITS: Limits = Limits {
    files: 16,
    total: 1 << 20,
};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(files) = read_cabinet(bytes, LIMITS) {
        assert!(files.iter().map(|file| file.bytes.len()).sum::<usize>() <= LIMITS.total);
    }
    if let Ok(manifest) = Manifest::from_json(bytes) {
        assert_eq!(manifest.to_json().as_deref(), Ok(bytes));
    }
    let _ = Prepared::from_json(bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = Calendar::from_toml(text);
        let _ = Release::from_toml(text);
    }
});
