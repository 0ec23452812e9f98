//! What makes an input unusable. A change that cannot be hotpatched is not an error but a
//! refusal: see `judge`.

use std::path::PathBuf;

/// An input that cannot be used, with the file and the place in it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("{path}: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A structure of the file is broken.
    #[error("{path}: {place}: expected {expected}, found {found}", path = path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// The structure and its address or offset.
        place: String,
        /// What would have been right.
        expected: String,
        /// What stands there.
        found: String,
    },
}
