//! What makes a test impossible to run, as opposed to a test that ran and failed.

use hpbuild_metadata::table::TableError;

/// Input that cannot be used, or a host that cannot run it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A PE file is damaged, or of a kind that the harness does not load.
    #[error("{image}: {place}: expected {expected}, found {found}")]
    Image {
        /// Which of the images: `base`, `fixed` or `patch`.
        image: &'static str,
        /// The header, directory or record.
        place: String,
        /// What would have been right.
        expected: String,
        /// What stands there.
        found: String,
    },
    /// The hotpatch table of the patch image cannot be read.
    #[error("patch: {0}")]
    Table(#[from] TableError),
    /// A scenario is not valid, or names something that does not exist.
    #[error("scenario: {place}: {message}")]
    Scenario {
        /// The session, call or key; for a syntax error the line and column.
        place: String,
        /// What is wrong with it.
        message: String,
    },
    /// The child process that runs the images cannot be started or spoken to.
    #[error("child process: {action}: {message}")]
    Child {
        /// What was being done.
        action: &'static str,
        /// What the operating system or the child said.
        message: String,
    },
}

impl Error {
    pub(crate) fn image<S: hpbuild_metadata::Side>(
        place: impl Into<String>,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Self {
        Error::Image {
            image: S::NAME,
            place: place.into(),
            expected: expected.into(),
            found: found.into(),
        }
    }

    pub(crate) fn scenario(place: impl Into<String>, message: impl Into<String>) -> Self {
        Error::Scenario {
            place: place.into(),
            message: message.into(),
        }
    }

    pub(crate) fn child(action: &'static str, message: impl ToString) -> Self {
        Error::Child {
            action,
            message: message.to_string(),
        }
    }
}
