//! Where results go: standard output, or a file that appears only when it is complete.

use std::io::Write;
use std::path::Path;

use crate::failure::Failure;

/// Writes `bytes` to `path` by way of a temporary file beside it, so that a run that is cut short
/// leaves nothing half-written.
pub(crate) fn write_file(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    write(path, bytes, make_readable)
}

/// The same for what only its owner may read.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    write(path, bytes, |_| Ok(()))
}

fn write(
    path: &Path,
    bytes: &[u8],
    set_mode: impl FnOnce(&std::fs::File) -> std::io::Result<()>,
) -> Result<(), Failure> {
    let fail = |error: &dyn std::fmt::Display| Failure::new(format!("{}: {error}", path.display()));
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    if !folder.is_dir() {
        let message = format!(
            "{}: output folder: expected an existing folder, found none at {}",
            path.display(),
            folder.display()
        );
        return Err(Failure::new(message).hint(format!("create it: mkdir -p {}", folder.display())));
    }
    let mut file = tempfile::Builder::new()
        .prefix(".hpbuild-")
        .tempfile_in(folder)
        .map_err(|error| fail(&error))?;
    file.write_all(bytes).map_err(|error| fail(&error))?;
    set_mode(file.as_file()).map_err(|error| fail(&error))?;
    file.persist(path).map_err(|error| fail(&error.error))?;
    Ok(())
}

/// Temporary files are private; results are as readable as any other file.
#[cfg(unix)]
fn make_readable(file: &std::fs::File) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(std::fs::Permissions::from_mode(0o644))
}

#[cfg(not(unix))]
fn make_readable(_file: &std::fs::File) -> std::io::Result<()> {
    Ok(())
}

/// Prints to standard output. A reader that went away is no error: it has seen enough.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = anstream::stdout();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::new(format!("standard output: {error}")))
        }
        _ => Ok(()),
    }
}

/// Gives a report to where the user wants it.
pub(crate) fn deliver(text: &str, path: Option<&Path>) -> Result<(), Failure> {
    match path {
        // Colour is for terminals.
        Some(path) => write_file(
            path,
            anstream::adapter::strip_str(text).to_string().as_bytes(),
        ),
        None => print(text),
    }
}
