//! Compares two builds of one PE image function by function.
//!
//! The stages run one way, each a function from earlier values to a new one:
//! `read -> pair -> compare -> judge`.
#![forbid(unsafe_code)]

pub mod decode;
mod error;
pub mod image;
pub mod pe;
pub mod unwind;

pub use error::Error;
