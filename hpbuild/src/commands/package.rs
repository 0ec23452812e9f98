//! `hpbuild package`: patch images into one signed cabinet, with the statement beside it.

use std::path::{Path, PathBuf};

use clap::Args;
use hpbuild_metadata::manifest::{Manifest, Patch, Sha256};
use hpbuild_signer::package::{
    Calendar, Material, PROVENANCE_SUFFIX, PackageImage, PackageRequest, Provenance, Release,
    package, read_manifest,
};
use hpbuild_signer::{DigestAlgorithm, Existing};
use serde::Serialize;

use super::sign::hex;
use super::signer::{SignatureArguments, SignerArguments, at, present, read, read_text};
use crate::cli::Format;
use crate::failure::{Failure, Outcome};
use crate::{output, render};

/// What is put behind the name of a patch image to name the file with its part of the manifest.
pub(crate) const DESCRIPTION_SUFFIX: &str = ".json";

#[derive(Clone, Debug, Args)]
pub(crate) struct PackageArguments {
    /// The patch images, each with its description beside it (as `hpbuild build` writes them)
    #[arg(required = true, value_name = "PATCH")]
    pub(crate) patches: Vec<PathBuf>,

    /// Where to write the cabinet; the statement of how it was made goes beside it
    #[arg(short, long, value_name = "CAB")]
    pub(crate) output: PathBuf,

    /// What the report calls the output, where its path means nothing to the user.
    #[arg(skip)]
    pub(crate) shown: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) release: ReleaseArguments,

    #[command(flatten)]
    pub(crate) signer: SignerArguments,

    #[command(flatten)]
    pub(crate) how: SignatureArguments,

    /// The form of the report
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(crate) format: Format,
}

/// What is known of the release.
#[derive(Clone, Debug, Args)]
pub(crate) struct ReleaseArguments {
    /// Id, title, severity, baseline and so on (TOML)
    #[arg(long, value_name = "FILE")]
    pub(crate) release: PathBuf,

    /// Refuse a release that does not fit this calendar of baselines (TOML)
    #[arg(long, value_name = "FILE")]
    pub(crate) calendar: Option<PathBuf>,

    /// A package that this one replaces; it must carry all that one carries (may be repeated)
    #[arg(long, value_name = "CAB")]
    pub(crate) previous: Vec<PathBuf>,

    /// URI of who or what makes the package, for the statement
    #[arg(
        long,
        value_name = "URI",
        default_value = "urn:hpbuild:builder:unnamed"
    )]
    pub(crate) builder: String,

    /// URI or number of this run, for the statement
    #[arg(long, value_name = "TEXT")]
    pub(crate) invocation: Option<String>,

    /// A further file that went in, such as the fixed build, for the statement (may be repeated)
    #[arg(long, value_name = "FILE")]
    pub(crate) material: Vec<PathBuf>,
}

/// What was done.
#[derive(Serialize)]
struct Report {
    schema: u32,
    verdict: &'static str,
    output: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    refusal: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
    manifest: Manifest,
}

pub(crate) fn run(arguments: &PackageArguments) -> Result<Outcome, Failure> {
    let mut images = Vec::new();
    let mut patches = Vec::new();
    for path in &arguments.patches {
        let (patch, image) = described(path)?;
        patches.push(patch);
        images.push(image);
    }
    let mut release = read_release(&arguments.release.release)?;
    let previous = previous(&arguments.release.previous)?;
    for (path, manifest) in arguments.release.previous.iter().zip(&previous) {
        release
            .succeed(manifest)
            .map_err(|error| at(path, &error))?;
    }
    let manifest = release.manifest(patches);
    let mut report = Report {
        schema: 1,
        verdict: "packaged",
        output: arguments
            .shown
            .as_ref()
            .unwrap_or(&arguments.output)
            .display()
            .to_string(),
        refusal: None,
        sha256: None,
        manifest: manifest.clone(),
    };
    if let Some(refusal) = refused_by_calendar(&arguments.release, &manifest)? {
        anstream::eprintln!("hpbuild: {}: {refusal}", manifest.id);
        report.verdict = "refused";
        report.refusal = Some(refusal);
        print(arguments.format, &report)?;
        return Ok(Outcome::Refused);
    }
    let signer = arguments.signer.open()?;
    let request = PackageRequest {
        manifest,
        images,
        previous,
        options: arguments.how.options(Existing::Refuse)?,
        provenance: provenance(&arguments.release)?,
    };
    let built = package(&request, &signer)?;
    output::write_file(&arguments.output, &built.cabinet)?;
    let mut beside = arguments.output.clone().into_os_string();
    beside.push(PROVENANCE_SUFFIX);
    output::write_file(Path::new(&beside), &built.provenance)?;
    report.sha256 = Some(hex(&DigestAlgorithm::Sha256.digest(&built.cabinet)));
    report.manifest = built.manifest;
    print(arguments.format, &report)?;
    Ok(Outcome::Done)
}

/// Puts a finished package, and the statement beside it, where the user wants it.
pub(crate) fn move_finished(from: &Path, to: &Path) -> Result<(), Failure> {
    let beside = |path: &Path| {
        let mut name = path.to_owned().into_os_string();
        name.push(PROVENANCE_SUFFIX);
        PathBuf::from(name)
    };
    output::write_file(&beside(to), &read(&beside(from))?)?;
    output::write_file(to, &read(from)?)
}

fn print(format: Format, report: &Report) -> Result<(), Failure> {
    output::print(&match (format, &report.refusal) {
        (Format::Json, _) => render::json(report),
        (Format::Text, Some(_)) => String::new(),
        (Format::Text, None) => format!(
            "{}: {} with {}, over the baseline {}\n",
            report.output,
            report.manifest.id,
            render::package::images(report.manifest.patches.len()),
            report.manifest.baseline
        ),
    })
}

/// A patch image, and its part of the manifest from the file beside it. The file belongs to these
/// bytes alone: it names their digest.
fn described(path: &Path) -> Result<(Patch, PackageImage), Failure> {
    let bytes = read(path)?;
    let mut beside = path.to_owned().into_os_string();
    beside.push(DESCRIPTION_SUFFIX);
    let beside = PathBuf::from(beside);
    let text = read(&beside)?;
    let patch: Patch = serde_json::from_slice(&text)
        .map_err(|error| Failure::new(format!("{}: {error}", beside.display())))?;
    let digest = DigestAlgorithm::Sha256.digest(&bytes);
    if patch.sha256.0[..] != digest[..] || patch.size != bytes.len() as u64 {
        let message = format!(
            "{}: sha256: expected {} as in {}, found {}",
            path.display(),
            patch.sha256,
            beside.display(),
            hex(&digest)
        );
        return Err(Failure::new(message).hint("build the patch again"));
    }
    let name = path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let patch = Patch {
        file: name.clone(),
        ..patch
    };
    Ok((patch, PackageImage { name, bytes }))
}

/// Reads a release file.
pub(crate) fn read_release(path: &Path) -> Result<Release, Failure> {
    Release::from_toml(&read_text(path)?).map_err(|error| at(path, &error))
}

/// Reads the manifests of older packages.
pub(crate) fn previous(paths: &[PathBuf]) -> Result<Vec<Manifest>, Failure> {
    let one = |path: &PathBuf| read_manifest(&read(path)?).map_err(|error| at(path, &error));
    paths.iter().map(one).collect()
}

/// Why the calendar refuses the release, if there is a calendar and it does.
pub(crate) fn refused_by_calendar(
    arguments: &ReleaseArguments,
    manifest: &Manifest,
) -> Result<Option<String>, Failure> {
    let Some(path) = &arguments.calendar else {
        return Ok(None);
    };
    let calendar = Calendar::from_toml(&read_text(path)?).map_err(|error| at(path, &error))?;
    Ok(calendar
        .check(manifest)
        .err()
        .map(|refusal| refusal.to_string()))
}

/// What the statement says, from the arguments.
pub(crate) fn provenance(arguments: &ReleaseArguments) -> Result<Provenance, Failure> {
    let mut materials = Vec::new();
    for path in &arguments.material {
        let mut sha256 = Sha256([0; 32]);
        sha256
            .0
            .copy_from_slice(&DigestAlgorithm::Sha256.digest(&read(path)?));
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        materials.push(Material { name, sha256 });
    }
    Ok(Provenance {
        builder: arguments.builder.clone(),
        invocation: arguments.invocation.clone(),
        time: present()?,
        materials,
    })
}
