//! Verifying a package.

use hpbuild_metadata::manifest::Manifest;

use super::contents::check_patch;
use super::{MANIFEST, SBOM, provenance, sbom};
use crate::cabinet::{CabinetFile, Limits, read_cabinet};
use crate::digest::sha256;
use crate::error::Error;
use crate::signing::{FileKind, SignatureReport, signer_certificate, verify};
use crate::trust::{Checks, Trust};

/// What the verification of a package found.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct PackageReport {
    /// The signatures of the cabinet.
    pub signature: SignatureReport,
    /// The manifest.
    pub manifest: Manifest,
    /// The signatures of the images, in order of the manifest.
    pub images: Vec<ImageReport>,
    /// Whether a statement of how the package was made was there, and verified.
    pub provenance: bool,
    /// Everything in the cabinet, verified; for unpacking.
    #[serde(skip)]
    pub files: Vec<CabinetFile>,
}

/// The signatures of one image.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ImageReport {
    /// Its name in the cabinet.
    pub file: String,
    /// Its signatures.
    pub signature: SignatureReport,
}

/// Verifies the package `cabinet`, and `provenance` if it is given: the cabinet's signature first,
/// then the manifest against what the cabinet holds, then each image's own signature and its
/// hotpatch table against the manifest. What was found right is added to `checks`.
///
/// Nothing is read out of the cabinet before its signature has been found good.
///
/// # Errors
/// The first thing that is wrong, with its place.
pub fn verify_package(
    cabinet: &[u8],
    provenance: Option<&[u8]>,
    trust: &Trust,
    limits: Limits,
    checks: &mut Checks,
) -> Result<PackageReport, Error> {
    if FileKind::of(cabinet)? != FileKind::Cabinet {
        return Err(Error::format("package", "a cabinet", "an image"));
    }
    let signature = verify(cabinet, trust, checks).map_err(|error| error.within("cabinet"))?;
    let files = read_cabinet(cabinet, limits)?;
    let manifest = manifest_of(&files)?;
    checks.add(
        MANIFEST,
        format!("canonical, schema {}, sound", manifest.schema),
    );
    check_names(&files, &manifest)?;
    let find = |name: &str| files.iter().find(|file| file.name == name);
    let bill = find(SBOM).map_or(&[][..], |file| &file.bytes);
    sbom::check(bill, &manifest)?;
    checks.add(SBOM, "lists the images with their digests");
    let mut images = Vec::new();
    for patch in &manifest.patches {
        let bytes = find(&patch.file).map_or(&[][..], |file| &file.bytes);
        check_patch(patch, bytes)?;
        checks.add(
            &patch.file,
            "size, digest and hotpatch table are those of the manifest",
        );
        let mut inner = Checks::default();
        let result = verify(bytes, trust, &mut inner);
        for check in inner.0 {
            checks.add(&format!("{}: {}", patch.file, check.place), check.holds);
        }
        let signature = result.map_err(|error| error.within(&patch.file))?;
        if signature.kind != FileKind::Image {
            return Err(Error::format(&patch.file, "an image", "a cabinet"));
        }
        images.push(ImageReport {
            file: patch.file.clone(),
            signature,
        });
    }
    if let Some(line) = provenance {
        let certificate = signer_certificate(cabinet)?;
        provenance::check(line, &sha256(cabinet), &manifest.id, &certificate)?;
        checks.add("provenance", "a statement about this package by its signer");
    }
    Ok(PackageReport {
        signature,
        manifest,
        images,
        provenance: provenance.is_some(),
        files,
    })
}

/// Reads the manifest of a package *without verifying anything*, for looking at it or for what can
/// only be refused because of it.
///
/// # Errors
/// When the bytes are no cabinet with a manifest in it.
pub fn read_manifest(cabinet: &[u8]) -> Result<Manifest, Error> {
    manifest_of(&read_cabinet(cabinet, Limits::default())?)
}

fn manifest_of(files: &[CabinetFile]) -> Result<Manifest, Error> {
    let first = files.first().filter(|file| file.name == MANIFEST);
    let first = first.ok_or_else(|| {
        let found = files.first().map_or("no file", |file| file.name.as_str());
        Error::format("cabinet: first file", MANIFEST, found)
    })?;
    Manifest::from_json(&first.bytes).map_err(|error| {
        Error::format(
            format!("{MANIFEST}: {}", error.place),
            error.expected,
            error.found,
        )
    })
}

/// The cabinet must hold what the manifest names and nothing else.
fn check_names(files: &[CabinetFile], manifest: &Manifest) -> Result<(), Error> {
    let named: Vec<&str> = [MANIFEST, SBOM]
        .into_iter()
        .chain(manifest.patches.iter().map(|patch| patch.file.as_str()))
        .collect();
    let held: Vec<&str> = files.iter().map(|file| file.name.as_str()).collect();
    if named == held {
        return Ok(());
    }
    let expected = named.join(", ");
    Err(Error::untrusted(
        "cabinet",
        "files",
        expected,
        held.join(", "),
    ))
}
