//! Why something could not be signed, packed or believed.

/// The one error type of this crate. Every variant names a place, so that a message can be traced
/// to a field of a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Bytes are not in the format they claim to be in.
    #[error("{place}: expected {expected}, found {found}")]
    Format {
        /// The structure and field.
        place: String,
        /// What would have been right.
        expected: String,
        /// What stands there.
        found: String,
    },
    /// The bytes are well formed, and what they claim is not true or not trusted.
    #[error("{place}: {what}: expected {expected}, found {found}")]
    Untrusted {
        /// The structure that makes the claim.
        place: String,
        /// The claim.
        what: &'static str,
        /// What would have been accepted.
        expected: String,
        /// What was found.
        found: String,
    },
    /// A key, or what holds it, cannot be used.
    #[error("{place}: {reason}")]
    Key {
        /// The file, token or command.
        place: String,
        /// Why it cannot be used.
        reason: String,
    },
    /// A time-stamp server gave no usable answer.
    #[error("time-stamp server {url}: {reason}")]
    TimeStampServer {
        /// The address the user named.
        url: String,
        /// What went wrong.
        reason: String,
    },
    /// The caller asks for something that cannot be signed or packed.
    #[error("{place}: {reason}")]
    Request {
        /// The option, file or field.
        place: String,
        /// Why it cannot be done.
        reason: String,
    },
}

impl Error {
    pub(crate) fn format(
        place: impl Into<String>,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Self {
        Error::Format {
            place: place.into(),
            expected: expected.into(),
            found: found.into(),
        }
    }

    pub(crate) fn untrusted(
        place: impl Into<String>,
        what: &'static str,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Self {
        Error::Untrusted {
            place: place.into(),
            what,
            expected: expected.into(),
            found: found.into(),
        }
    }

    pub(crate) fn key(place: impl Into<String>, reason: impl Into<String>) -> Self {
        Error::Key {
            place: place.into(),
            reason: reason.into(),
        }
    }

    pub(crate) fn request(place: impl Into<String>, reason: impl Into<String>) -> Self {
        Error::Request {
            place: place.into(),
            reason: reason.into(),
        }
    }

    /// The same error with `outer` put before its place, for a file inside a file.
    pub(crate) fn within(mut self, outer: &str) -> Self {
        match &mut self {
            Error::Format { place, .. }
            | Error::Untrusted { place, .. }
            | Error::Key { place, .. }
            | Error::Request { place, .. } => *place = format!("{outer}: {place}"),
            Error::TimeStampServer { .. } => {}
        }
        self
    }
}
