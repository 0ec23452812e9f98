//! Signing and verification from the outside: first with nothing but this crate and other crates
//! as oracles, then against the tools that people use.

mod cabinet;
mod image;
mod keys;
mod package;
mod sample;
mod time_stamp;
mod tools;
