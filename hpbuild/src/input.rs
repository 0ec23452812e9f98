//! The files that a user names.

use std::path::Path;

use crate::failure::Failure;

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
