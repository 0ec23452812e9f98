//! One file a subcommand.

pub(crate) mod diff;
pub(crate) mod explain;
