//! Compares two builds of one PE image function by function.
//!
//! The stages run one way, each a function from earlier values to a new one:
//! `read -> pair -> compare -> judge`.
#![forbid(unsafe_code)]

pub mod decode;
mod error;
pub mod image;
pub mod pe;
pub mod meaning;
pub mod pair;
mod read;
mod names;
mod types;

pub use error::Error;
