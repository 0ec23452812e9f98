//! One file a subcommand.

pub(crate) mod diff;
pub(crate) mod explain;
pub(crate) mod keygen;
pub(crate) mod package;
pub(crate) mod sign;
pub(crate) mod signer;
pub(crate) mod verify;
