//! How much DWARF may make out of its bytes.
//!
//! Entries share names, lists of ranges and abbreviations by offset. Real ones share little of
//! it; a hostile file can have every entry name the same megabyte.

use std::sync::atomic::{AtomicU64, Ordering};

/// Why a unit cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error("{0}")]
    Broken(#[from] gimli::Error),
    #[error("names and ranges out of all proportion to the sections")]
    Overdrawn,
    #[error("a unit whose entries are in the file {0}")]
    Split(String),
}

pub(super) type Result<T> = std::result::Result<T, Fault>;

/// What may still be spent, by all units together; so whether it is enough does not depend on the
/// number of threads.
pub(super) struct Budget(AtomicU64);

impl Budget {
    /// For sections of so many bytes together. Templates of C++ and Rust have long names that
    /// many entries share; the largest factor seen is 4.
    pub(super) fn new(bytes: usize) -> Self {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        Self(AtomicU64::new(
            bytes.saturating_mul(64).saturating_add(1 << 20),
        ))
    }

    /// Spends some.
    ///
    /// # Errors
    /// Where it is not there.
    pub(super) fn spend(&self, amount: usize) -> Result<()> {
        let amount = u64::try_from(amount).unwrap_or(u64::MAX);
        let spent = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                left.checked_sub(amount)
            });
        match spent {
            Ok(_) => Ok(()),
            Err(_) => Err(Fault::Overdrawn),
        }
    }
}
