//! How a run ends.

use std::fmt::Display;

/// A run that did its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// What was asked for is done.
    Done,
    /// The change is understood and cannot be hotpatched, or a check did not hold or could not
    /// be made.
    Refused,
    /// Nothing changed, or only numbers of source lines.
    Same,
    /// A process that runs images for `test`, with its code.
    Child(i32),
}

impl Outcome {
    pub(crate) const fn code(self) -> u8 {
        match self {
            Outcome::Done => 0,
            Outcome::Refused => 1,
            Outcome::Same => 3,
            Outcome::Child(0) => 0,
            Outcome::Child(_) => 2,
        }
    }
}

/// A run that could not do its work: bad input, or no way to write the output.
#[derive(Debug)]
pub(crate) struct Failure {
    message: String,
    hint: Option<String>,
}

impl Failure {
    /// The exit code.
    pub(crate) const CODE: u8 = 2;

    pub(crate) fn new(message: impl Display) -> Self {
        Self {
            message: message.to_string(),
            hint: None,
        }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn print(&self) {
        anstream::eprintln!("hpbuild: {}", self.message);
        if let Some(hint) = &self.hint {
            anstream::eprintln!("\nhint: {hint}");
        }
    }
}

impl From<hpbuild_differ::Error> for Failure {
    fn from(error: hpbuild_differ::Error) -> Self {
        use hpbuild_differ::Error;
        let failure = Failure::new(&error);
        match error {
            Error::NoPdb { .. } => failure.hint(
                "name the PDB with --base-pdb or --fixed-pdb, or its folder with --symbols",
            ),
            Error::NoDebugDirectory { .. } => failure.hint("link with /DEBUG, or build with -g and without -s for DWARF"),
            Error::PdbMismatch { .. } => failure.hint(
                "find the PDB that was written together with the PE; --symbols names further folders",
            ),
            _ => failure,
        }
    }
}
