//! The files that a user names.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::failure::Failure;

/// Every file that this run was given, by identity and as it was named. Nothing may be written
/// over one of them: see `output`.
static GIVEN: Mutex<Vec<(Identity, PathBuf)>> = Mutex::new(Vec::new());

/// What makes two paths the same file, links of both kinds included.
#[derive(Debug, PartialEq, Eq)]
#[cfg(unix)]
struct Identity {
    device: u64,
    file: u64,
}

#[derive(Debug, PartialEq, Eq)]
#[cfg(not(unix))]
struct Identity {
    path: PathBuf,
}

impl Identity {
    #[cfg(unix)]
    fn of(path: &Path) -> Option<Self> {
        use std::os::unix::fs::MetadataExt;
        let metadata = std::fs::metadata(path).ok()?;
        Some(Self {
            device: metadata.dev(),
            file: metadata.ino(),
        })
    }

    #[cfg(not(unix))]
    fn of(path: &Path) -> Option<Self> {
        let path = std::fs::canonicalize(path).ok()?;
        Some(Self { path })
    }
}

/// Notes that a file is an input of this run.
pub(crate) fn note(path: &Path) {
    if let (Some(identity), Ok(mut given)) = (Identity::of(path), GIVEN.lock()) {
        given.push((identity, path.to_owned()));
    }
}

/// The input that `path` is, as it was named; `None` where it is none.
pub(crate) fn given(path: &Path) -> Option<PathBuf> {
    let identity = Identity::of(path)?;
    let given = GIVEN.lock().ok()?;
    let found = given.iter().find(|(known, _)| *known == identity);
    found.map(|(_, path)| path.clone())
}

/// The bytes of the file at `path`. Folders, pipes and devices are refused before they are opened:
/// opening a pipe can wait for ever, and a device need not end.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let fail = |error: &dyn std::fmt::Display| Failure::new(format!("{}: {error}", path.display()));
    let metadata = std::fs::metadata(path).map_err(|error| fail(&error))?;
    if !metadata.is_file() {
        let found = if metadata.is_dir() {
            "a folder"
        } else {
            "a pipe or device"
        };
        return Err(fail(&format!("input: expected a file, found {found}")));
    }
    note(path);
    std::fs::read(path).map_err(|error| fail(&error))
}

/// The same for text.
pub(crate) fn read_text(path: &Path) -> Result<String, Failure> {
    let bytes = read(path)?;
    match std::str::from_utf8(&bytes) {
        Ok(text) => Ok(text.to_owned()),
        Err(error) => {
            let (path, at) = (path.display(), error.valid_up_to());
            let byte = bytes[at];
            Err(Failure::new(format!(
                "{path}: offset {at:#x}: expected UTF-8 text, found byte {byte:#04x}"
            )))
        }
    }
}
