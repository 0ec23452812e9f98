//! Extracts changed functions into a patch image, and verifies what was written.
//!
//! The stages run one way, each a function from earlier values to a new one:
//! `extract -> link -> attach -> write -> verify`.
#![forbid(unsafe_code)]

pub mod attach;
pub mod link;
pub mod piece;
pub mod refusal;
pub mod verify;
pub mod write;

pub use refusal::Refusal;
