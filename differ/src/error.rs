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
    /// The PE names no PDB.
    #[error("{path}: debug directory: expected a CodeView entry that names a PDB, or sections of DWARF, found none (HP004)", path = path.display())]
    NoDebugDirectory {
        /// The PE.
        path: PathBuf,
    },
    /// The PDB that the PE names is nowhere.
    #[error(
        "{path}: no PDB found (HP004): expected {} age {}; looked at {looked}",
        expected.0, expected.1, path = path.display(), looked = list(looked)
    )]
    NoPdb {
        /// The PE.
        path: PathBuf,
        /// GUID and age in the PE's debug directory.
        expected: (String, u32),
        /// The places looked at.
        looked: Vec<PathBuf>,
    },
    /// The PDB belongs to another build.
    #[error(
        "{pdb}: pdb identity: expected {} age {} as {pe} names it, found {} age {} (HP005); \
         looked at {looked}",
        expected.0, expected.1, found.0, found.1,
        pe = pe.display(), pdb = pdb.display(), looked = list(looked)
    )]
    PdbMismatch {
        /// The PE.
        pe: PathBuf,
        /// The PDB.
        pdb: PathBuf,
        /// GUID and age in the PE's debug directory.
        expected: Box<(String, u32)>,
        /// GUID and age of the PDB.
        found: Box<(String, u32)>,
        /// The places looked at.
        looked: Vec<PathBuf>,
    },
}

fn list(paths: &[PathBuf]) -> String {
    let shown: Vec<_> = paths
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    if shown.is_empty() {
        "no place".into()
    } else {
        shown.join(", ")
    }
}

impl Error {
    /// A broken structure: shorthand for [`Error::Format`].
    pub(crate) fn format(
        path: &std::path::Path,
        place: impl Into<String>,
        expected: impl Into<String>,
        found: impl ToString,
    ) -> Self {
        Error::Format {
            path: path.into(),
            place: place.into(),
            expected: expected.into(),
            found: found.to_string(),
        }
    }
}
