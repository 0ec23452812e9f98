//! Compares two builds of one PE image function by function, and judges whether the change can be
//! hotpatched.
//!
//! The stages run one way, each a function from earlier values to a new one:
//! `read -> pair -> compare -> judge`. [`diff`] is all of them; [`Report`] is what they found, as
//! plain data.
#![forbid(unsafe_code)]

pub mod compare;
pub mod decode;
mod error;
pub mod explain;
pub mod handling;
pub mod image;
mod inline;
pub mod judge;
mod lines;
pub mod meaning;
mod names;
pub mod pair;
pub mod pe;
mod pipeline;
mod read;
mod records;
pub mod report;
mod source;
mod stretches;
pub mod text;
mod types;
pub mod unwind;

pub use error::Error;
pub use inline::Inlined;
pub use names::{display, display_data};
pub use pipeline::{Diff, Differ, Stage, diff};
pub use read::{
    FixupCheck, Input, SymbolPaths, code_at, functions_by_name, jumps_in, panic_is_contained,
};
pub use report::Report;
pub use source::Source;
pub use types::Types;
