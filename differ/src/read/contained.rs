//! A wall around parsers that are not ours.
//!
//! They were not written for hostile input. A panic in one of them means a broken file, not a
//! broken tool, so it becomes an [`Error`] here.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use crate::error::Error;

thread_local! {
    /// How many walls stand around what this thread is doing.
    static WALLS: Cell<u32> = const { Cell::new(0) };
}

/// Whether a panic on this thread would become an [`Error`]. A program whose panic hook prints
/// should stay silent then: the error says what there is to say.
pub fn panic_is_contained() -> bool {
    WALLS.get() > 0
}

/// Runs `parse`, which reads `place` of the file at `path`. What a panic leaves half done is
/// dropped with it. Work must stay on this thread, or its panics are not silent.
pub(crate) fn contained<T>(
    path: &Path,
    place: &str,
    parse: impl FnOnce() -> Result<T, Error>,
) -> Result<T, Error> {
    WALLS.set(WALLS.get() + 1);
    let outcome = catch_unwind(AssertUnwindSafe(parse));
    WALLS.set(WALLS.get() - 1);
    outcome.unwrap_or_else(|_| {
        let found = "a structure that cannot be read";
        Err(Error::format(path, place, "well-formed records", found))
    })
}
