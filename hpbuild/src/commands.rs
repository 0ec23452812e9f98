//! One file a subcommand.

pub(crate) mod batch;
pub(crate) mod build;
mod contents;
pub(crate) mod demo;
mod describe;
pub(crate) mod diff;
pub(crate) mod explain;
pub(crate) mod inspect;
pub(crate) mod keygen;
pub(crate) mod package;
pub(crate) mod release;
pub(crate) mod sign;
pub(crate) mod signer;
pub(crate) mod test;
pub(crate) mod verdict;
pub(crate) mod verify;
