//! LLVM's tools as oracles. In CI they must be there; elsewhere a missing one skips its check.

use std::path::Path;
use std::process::Command;

/// What the tool prints about `file`, or `None` where it is not installed.
pub(crate) fn run(tool: &str, arguments: &[&str], file: &[u8]) -> Option<String> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("patch.dll");
    std::fs::write(&path, file).expect("a written file");
    run_on(tool, arguments, &path)
}

/// What the tool prints about the file at `path`, which it must accept without complaint.
pub(crate) fn run_on(tool: &str, arguments: &[&str], path: &Path) -> Option<String> {
    let output = match Command::new(tool).args(arguments).arg(path).output() {
        Ok(output) => output,
        Err(error) => {
            assert!(
                std::env::var_os("CI").is_none(),
                "{tool} is needed in CI: {error}"
            );
            eprintln!("skipped: {tool}: {error}");
            return None;
        }
    };
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && errors.is_empty(),
        "{tool}: {errors}"
    );
    Some(String::from_utf8_lossy(&output.stdout).replace(&*path.to_string_lossy(), "patch.dll"))
}

/// The image must be readable in full.
pub(crate) fn readobj(file: &[u8]) {
    if let Some(text) = run(
        "llvm-readobj-22",
        &[
            "--all",
            "--unwind",
            "--coff-load-config",
            "--coff-debug-directory",
        ],
        file,
    ) {
        assert!(!text.to_lowercase().contains("error"), "{text}");
    }
}
