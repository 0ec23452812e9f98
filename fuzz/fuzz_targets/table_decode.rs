//! Any bytes as a hotpatch table: never a panic, and what is understood survives a round trip.
#![no_main]

use hpbuild_metadata::table::{decode, encode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(table) = decode(bytes) else { return };
    let again = decode(&encode(&table)).expect("what we encode can be decoded");
    assert_eq!(again, table);
});
