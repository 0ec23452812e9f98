//! `hpbuild release`: the whole main job in one go, made of the other subcommands' own functions:
//! diff, judge and build, sign and package, verify.

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use clap::Args;

use super::package::{PackageArguments, ReleaseArguments};
use super::signer::{SignatureArguments, SignerArguments};
use super::verify::{TrustArguments, VerifyArguments};
use super::{build, package, verify};
use crate::cli::{BuildArguments, Format, PairArguments};
use crate::failure::{Failure, Outcome};

#[derive(Clone, Debug, Args)]
pub(crate) struct ReleaseAllArguments {
    #[command(flatten)]
    pub(crate) pair: PairArguments,

    /// Where to write the signed package (.cab); the statement of how it was made goes beside it
    #[arg(short, long, value_name = "CAB")]
    pub(crate) output: PathBuf,

    /// The patch image that this one replaces; everything it redirects has to be in the new one
    #[arg(long, value_name = "OLDER")]
    pub(crate) previous_patch: Option<PathBuf>,

    /// Place of the patch in the order of patches over this base [default: 1, or one more than
    /// that of --previous-patch]
    #[arg(long, value_name = "N")]
    pub(crate) sequence: Option<NonZeroU32>,

    #[command(flatten)]
    pub(crate) release: ReleaseArguments,

    #[command(flatten)]
    pub(crate) signer: SignerArguments,

    #[command(flatten)]
    pub(crate) how: SignatureArguments,

    #[command(flatten)]
    pub(crate) trust: TrustArguments,
}

pub(crate) fn run(arguments: &ReleaseAllArguments) -> Result<Outcome, Failure> {
    let work = tempfile::tempdir()
        .map_err(|error| Failure::new(format!("folder for temporary files: {error}")))?;
    let name = patch_name(&arguments.pair.base);
    let patch = work.path().join(&name);
    let built = build::run(&BuildArguments {
        pair: arguments.pair.clone(),
        output: patch.clone(),
        shown: Some(name.into()),
        previous: arguments.previous_patch.clone(),
        sequence: arguments.sequence,
        with_line_numbers: false,
        format: Format::Text,
        time: false,
        quiet: false,
    })?;
    if built != Outcome::Done {
        return Ok(built);
    }
    let mut release = arguments.release.clone();
    // What went in is stated, so that anybody can make the patch again.
    release.material.push(arguments.pair.base.clone());
    release.material.push(arguments.pair.fixed.clone());
    // The package appears under its name only when it has been verified.
    let unverified = work.path().join("package.cab");
    let packaged = package::run(&PackageArguments {
        patches: vec![patch],
        output: unverified.clone(),
        shown: Some(arguments.output.clone()),
        release,
        signer: arguments.signer.clone(),
        how: arguments.how.clone(),
        format: Format::Text,
    })?;
    if packaged != Outcome::Done {
        return Ok(packaged);
    }
    let verified = verify::run(&VerifyArguments {
        file: unverified.clone(),
        shown: Some(arguments.output.clone()),
        trust: arguments.trust.clone(),
        provenance: None,
        unpack: None,
        format: Format::Text,
        quiet: false,
    })?;
    if verified == Outcome::Done {
        package::move_finished(&unverified, &arguments.output)?;
        let path = arguments.output.display();
        crate::output::print(&format!("wrote {path}\n"))?;
    }
    Ok(verified)
}

/// `<stem>_hotpatch.<extension>`, the name that systems look for.
fn patch_name(base: &Path) -> String {
    let stem = base.file_stem().unwrap_or_default().to_string_lossy();
    match base.extension() {
        Some(extension) => format!("{stem}_hotpatch.{}", extension.to_string_lossy()),
        None => format!("{stem}_hotpatch"),
    }
}
