//! Any bytes as something signed: an image, a cabinet or a package that nobody vouches for.
#![no_main]

use hpbuild_signer::package::{read_manifest, verify_package};
use hpbuild_signer::{Checks, Limits, Trust};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let trust = Trust {
        anchors: Vec::new(),
        time_stamp_anchors: Vec::new(),
        now: 1_790_000_000,
        pinned: Vec::new(),
        require_time_stamp: false,
    };
    // Without an anchor nothing may ever be believed.
    assert!(hpbuild_signer::verify(bytes, &trust, &mut Checks::default()).is_err());
    let limits = Limits::default();
    assert!(verify_package(bytes, None, &trust, limits, &mut Checks::default()).is_err());
    let _ = read_manifest(bytes);
});
