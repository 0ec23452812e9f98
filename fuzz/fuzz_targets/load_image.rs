//! The loader of the harness: whatever the file, an image or an error.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|file: &[u8]| {
    hpbuild_harness::fuzz_load(file);
});
