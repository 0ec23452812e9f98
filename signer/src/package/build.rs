//! Putting a package together.

use hpbuild_metadata::manifest::{Manifest, Sha256};

use super::contents::check_patch;
use super::provenance::{Provenance, Subject, statement};
use super::release::check_cumulative;
use super::{MANIFEST, SBOM, sbom};
use crate::authenticode::SignOptions;
use crate::cabinet::{CabinetFile, write_cabinet};
use crate::digest::sha256;
use crate::error::Error;
use crate::keys::Signer;
use crate::signing::{is_signed, sign};

/// A patch image on its way into a package.
#[derive(Clone, Debug)]
pub struct PackageImage {
    /// The name it has in the manifest and gets in the cabinet.
    pub name: String,
    /// The image. One that is signed already keeps its signature.
    pub bytes: Vec<u8>,
}

/// What to pack.
#[derive(Clone, Debug)]
pub struct PackageRequest {
    /// The manifest; `size` and `sha256` of its patches are filled in from the signed images.
    pub manifest: Manifest,
    /// One image for every patch of the manifest.
    pub images: Vec<PackageImage>,
    /// The releases that this one replaces, where they are at hand: everything they redirect must
    /// be redirected again.
    pub previous: Vec<Manifest>,
    /// How to sign the images and the cabinet.
    pub options: SignOptions,
    /// What the statement beside the package says of its making.
    pub provenance: Provenance,
}

/// A finished package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    /// The signed cabinet.
    pub cabinet: Vec<u8>,
    /// The DSSE envelope, one line of JSON.
    pub provenance: Vec<u8>,
    /// The manifest as it stands in the cabinet.
    pub manifest: Manifest,
}

/// Signs the images that are not signed yet, packs them with the manifest and the bill of
/// materials, signs the cabinet and states how it was made.
///
/// With the same request and a key whose signatures are deterministic, the result is the same to
/// the byte on every machine; time stamps are the exception, because they are not ours.
///
/// # Errors
/// When manifest and images do not fit each other (an image without patch or the reverse, a
/// hotpatch table that names another base or other functions), or when signing fails.
pub fn package(request: &PackageRequest, signer: &Signer) -> Result<Package, Error> {
    let mut manifest = request.manifest.clone();
    let mut files = Vec::new();
    for patch in &mut manifest.patches {
        let mut named = request
            .images
            .iter()
            .filter(|image| image.name == patch.file);
        let (Some(image), None) = (named.next(), named.next()) else {
            let reason = "the manifest names it, and not exactly one image has this name";
            return Err(Error::request(&patch.file, reason));
        };
        let bytes = if is_signed(&image.bytes)? {
            image.bytes.clone()
        } else {
            sign(&image.bytes, &request.options, signer)
                .map_err(|error| error.within(&image.name))?
        };
        patch.size = bytes.len() as u64;
        patch.sha256 = Sha256(sha256(&bytes));
        check_patch(patch, &bytes)?;
        files.push(CabinetFile {
            name: image.name.clone(),
            bytes,
        });
    }
    if files.len() != request.images.len() {
        let extra = request
            .images
            .iter()
            .find(|i| files.iter().all(|f| f.name != i.name));
        let name = extra.map_or("", |image| image.name.as_str());
        return Err(Error::request(
            name,
            "the manifest does not name this image",
        ));
    }
    for previous in &request.previous {
        check_cumulative(&manifest, previous)?;
    }
    let json = manifest.to_json().map_err(|error| {
        Error::format(
            format!("manifest: {}", error.place),
            error.expected,
            error.found,
        )
    })?;
    let head = [
        CabinetFile {
            name: MANIFEST.into(),
            bytes: json,
        },
        CabinetFile {
            name: SBOM.into(),
            bytes: sbom::write(&manifest),
        },
    ];
    files.splice(0..0, head);
    let mut options = request.options.clone();
    options.page_hashes = false;
    let cabinet = sign(&write_cabinet(&files)?, &options, signer)?;
    let subject = Subject {
        name: format!("{}.cab", manifest.id),
        sha256: sha256(&cabinet),
    };
    let provenance = statement(&subject, &manifest, &request.provenance, signer)?;
    Ok(Package {
        cabinet,
        provenance,
        manifest,
    })
}
