//! What tests of several crates share: the oracle that the differ is held against.
#![forbid(unsafe_code)]

pub mod oracle;
