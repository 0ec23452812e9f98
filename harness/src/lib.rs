//! Applies a hotpatch to a base image in-process and watches what changes.
//!
//! [`test()`] takes a base, a patch and, where there are any, an older patch, the fixed image and a
//! [`Scenario`], and returns a [`Report`]. It maps the images as Windows would, applies the patch
//! in the engine's order, follows every redirect, applies it again, and reverts it; then it makes
//! the scenario's calls on base, patched, reverted and fixed code and compares what they did.
//!
//! Images are executed in child processes alone: a base that crashes, hangs or ends its process
//! is a result. On a host that cannot execute an image, the same engine runs on a model of the
//! memory, and the report says that nothing was called.
//!
//! Not here: reading PDBs (the caller passes names), and emulation.
#![deny(unsafe_code)]
// Imports, thread-local storage and the like are read by the native backend alone.
#![cfg_attr(
    not(all(target_os = "linux", target_arch = "x86_64")),
    allow(dead_code)
)]

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod child;
mod engine;
mod error;
mod image;
mod job;
mod lifecycle;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
#[allow(unsafe_code)]
mod native;
mod observe;
mod outcome;
mod parent;
pub mod report;
mod running;
mod scenario;
mod space;
mod test;

use std::path::Path;

pub use error::Error;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub use native::heap::HeapLock;
pub use report::{Report, Verdict};
pub use scenario::Scenario;
pub use test::{ChildProgram, Progress, Request, runs_here, test};

/// The child's side of [`test()`]: does the job in the file `job`, answers on standard output, and
/// returns the code to end the process with.
///
/// The program must have written nothing to standard output before.
pub fn child_main(job: &Path) -> i32 {
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    let done = child::run(job);
    // No parent on such a host starts one.
    #[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
    let done = {
        let _ = job;
        false
    };
    if done { 0 } else { 2 }
}

/// Reads `file` as an image and, where it has one, as a patch; for fuzzing. Says whether it was
/// one.
#[doc(hidden)]
pub fn fuzz_load(file: &[u8]) -> bool {
    running::PatchFile::parse(file).is_ok()
        || image::Image::<hpbuild_metadata::Base>::parse(file).is_ok()
}

/// Loads a base and a patch, applies the patch and reverts it on a model of the memory; for
/// fuzzing. Says whether it went in.
///
/// # Panics
/// Where a patch that went in does not come out without a trace.
#[doc(hidden)]
pub fn fuzz_apply(base: &[u8], patch: &[u8]) -> bool {
    let (Ok(base), Ok(patch)) = (image::Image::parse(base), running::PatchFile::parse(patch))
    else {
        return false;
    };
    let space = space::Space::Model(space::Model::default());
    let Ok(mut running) = running::load(space, base, vec![patch], 1) else {
        return false;
    };
    let mut went_in = false;
    lifecycle::run(&mut running, &mut |step| {
        let reverted = matches!(step.name, "revert" | "apply after revert");
        went_in |= reverted;
        let failures = &step.failures;
        assert!(
            !reverted || failures.is_empty(),
            "{}: {failures:?}",
            step.name
        );
    });
    went_in
}
