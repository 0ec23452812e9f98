//! Where results go: standard output, or a file that appears only when it is complete.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

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

/// Refuses to write over what this run was given: a base that is gone cannot be patched.
pub(crate) fn check(path: &Path) -> Result<(), Failure> {
    let Some(input) = crate::input::given(path) else {
        return Ok(());
    };
    let (path, input) = (path.display(), input.display());
    let message = format!("{path}: output: expected another file than any input, found {input}");
    Err(Failure::new(message).hint("name another file with -o"))
}

fn write(
    path: &Path,
    bytes: &[u8],
    set_mode: impl FnOnce(&std::fs::File) -> std::io::Result<()>,
) -> Result<(), Failure> {
    let fail = |error: &dyn std::fmt::Display| Failure::new(format!("{}: {error}", path.display()));
    check(path)?;
    let target = match Target::of(path).map_err(|error| fail(&error))? {
        Target::File(target) => target,
        // Renaming over a device would put a file in its place.
        Target::Device => return std::fs::write(path, bytes).map_err(|error| fail(&error)),
        Target::Folder => return Err(fail(&"output: expected a file, found a folder")),
    };
    let folder = match target.parent() {
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
    file.persist(&target).map_err(|error| fail(&error.error))?;
    Ok(())
}

/// What stands where an output is to go.
enum Target {
    /// A file, or nothing yet; behind links, so that a link stays one.
    File(PathBuf),
    /// A pipe or device.
    Device,
    Folder,
}

impl Target {
    fn of(path: &Path) -> std::io::Result<Self> {
        Ok(match std::fs::metadata(path) {
            Ok(found) if found.is_dir() => Target::Folder,
            Ok(found) if !found.is_file() => Target::Device,
            Ok(_) => Target::File(std::fs::canonicalize(path)?),
            // Whatever is wrong with the place shows when it is written.
            Err(_) => Target::File(path.to_owned()),
        })
    }
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

/// Columns of a terminal that does not say how many it has.
const USUAL: usize = 80;
/// Columns that a report needs at least.
const NARROW: usize = 20;

/// Columns of the terminal that a report goes to; `None` where it goes to a file or pipe.
pub(crate) fn width(path: Option<&Path>) -> Option<usize> {
    if path.is_some() {
        return None;
    }
    let stdout = std::io::stdout();
    if !stdout.is_terminal() {
        return None;
    }
    let size = terminal_size::terminal_size_of(stdout);
    let told = || std::env::var("COLUMNS").ok()?.parse().ok();
    // Some terminals do not know their size.
    let width = size.map(|(width, _)| usize::from(width.0)).or_else(told);
    let width = width.filter(|width| *width > 0).unwrap_or(USUAL);
    // A terminal of hardly any columns is none that anybody looks at.
    Some(width.max(NARROW))
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
