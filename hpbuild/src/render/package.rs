//! What a package is, for people.

use std::fmt::Write as _;

use hpbuild_metadata::manifest::Manifest;

/// The release and its images: `verify` shows it of what it believes, `inspect` of anything.
pub(crate) fn summary(manifest: &Manifest) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "{} (sequence {}): {}\nbaseline {}, release {}, {}",
        manifest.id,
        manifest.sequence,
        manifest.title,
        manifest.baseline,
        manifest.release,
        images(manifest.patches.len())
    );
    for patch in &manifest.patches {
        let count = patch.functions.len();
        let functions = if count == 1 { "function" } else { "functions" };
        let _ = writeln!(
            text,
            "  {}: {count} {functions} of {} ({}, {})",
            patch.file,
            patch.base.name,
            patch.machine,
            patch.base.identity()
        );
    }
    text
}

/// A number of patch images, in words.
pub(crate) fn images(count: usize) -> String {
    match count {
        1 => "1 patch image".to_owned(),
        _ => format!("{count} patch images"),
    }
}
