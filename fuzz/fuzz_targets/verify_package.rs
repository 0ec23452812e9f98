//! Reading and verifying whatever claims to be a package. Most inputs fail at the digest, so the
//! readers behind it are also driven directly.
#![no_main]

use hpbuild_metadata::manifest::Manifest;
use hpbuild_signer::package::verify_package;
use hpbuild_signer::{Checks, Limits, Prepared, Trust, read_cabinet};
use libfuzzer_sys::fuzz_target;

const LIMITS: Limits = Limits {
    files: 16,
    total: 1 << 20,
};

fuzz_target!(|bytes: &[u8]| {
    let trust = Trust::default();
    let mut checks = Checks::default();
    let verified = verify_package(bytes, Some(bytes), &trust, LIMITS, &mut checks);
    assert!(verified.is_err(), "nobody is trusted, so nothing can be verified");
    if let Ok(files) = read_cabinet(bytes, LIMITS) {
        assert!(files.iter().map(|file| file.bytes.len()).sum::<usize>() <= LIMITS.total);
    }
    if let Ok(manifest) = Manifest::from_json(bytes) {
        assert_eq!(manifest.to_json().as_deref(), Ok(bytes));
    }
    let _ = Prepared::from_json(bytes);
});
