//! Verifying whatever claims to be a signed image or cabinet.
#![no_main]

use hpbuild_signer::{Checks, Trust, verify};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut checks = Checks::default();
    let trusted = verify(bytes, &Trust::default(), &mut checks);
    assert!(trusted.is_err(), "nobody is trusted, so nothing can be verified");
});
