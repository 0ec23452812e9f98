//! A patch image's part of the manifest, written beside the image by `build` and taken up by
//! `package`.

use std::path::Path;

use hpbuild_differ::Diff;
use hpbuild_differ::compare::Kind;
use hpbuild_differ::image::SymbolSource;
use hpbuild_differ::judge::Refusal;
use hpbuild_metadata::manifest::{
    BaseFile, Guid, Patch, PdbIdentity, RedirectedFunction, Sha256, Waiver,
};
use hpbuild_packager::piece::Redirect;
use hpbuild_signer::DigestAlgorithm;

use crate::failure::Failure;

/// Describes `built`, which was made from `diff` in spite of these `findings` and goes to `path`.
pub(crate) fn describe(
    diff: &Diff,
    built: &hpbuild_packager::Patch,
    findings: &[Refusal],
    path: &Path,
) -> Result<Patch, Failure> {
    let base = &diff.base;
    let pdb = match &base.symbols {
        SymbolSource::Pdb { path, guid, age } => {
            let guid: Guid = guid
                .parse()
                .map_err(|error| Failure::new(format!("{}: {error}", path.display())))?;
            Some(PdbIdentity { guid, age: *age })
        }
        SymbolSource::Dwarf => None,
    };
    let mut sha256 = Sha256([0; 32]);
    sha256
        .0
        .copy_from_slice(&DigestAlgorithm::Sha256.digest(&built.file));
    Ok(Patch {
        file: file_name(path),
        size: built.file.len() as u64,
        sha256,
        machine: base.pe.machine,
        sequence: built.parts.sequence.get(),
        base: BaseFile {
            name: file_name(&base.path),
            machine: base.pe.machine,
            time_date_stamp: base.pe.identity.time_date_stamp,
            checksum: base.pe.identity.checksum,
            sha256: Sha256(*base.pe.sha256()),
            pdb,
        },
        functions: built
            .parts
            .redirects
            .iter()
            .map(|redirect| function(diff, redirect))
            .collect(),
        waivers: waivers(findings),
    })
}

fn file_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

fn function(diff: &Diff, redirect: &Redirect) -> RedirectedFunction {
    let id = diff.base.function_at(redirect.base);
    let procedure = id.and_then(|id| diff.base.procedures_of(id).first());
    let change = diff
        .comparison
        .changed
        .iter()
        .find(|change| Some(change.base) == id);
    RedirectedFunction {
        decorated: procedure.map_or_else(
            || redirect.name.to_string(),
            |name| name.decorated.as_deref().unwrap_or(&name.name).to_owned(),
        ),
        readable: procedure.map_or_else(|| redirect.name.to_string(), |name| name.display()),
        base_rva: redirect.base,
        reasons: change.map_or_else(Vec::new, |change| {
            change.kinds.iter().copied().map(reason).collect()
        }),
    }
}

/// The kind of change as the report names it.
fn reason(kind: Kind) -> String {
    crate::render::diff::kind_name(&kind)
}

/// Every finding that a policy allowed, with its reason.
fn waivers(findings: &[Refusal]) -> Vec<Waiver> {
    let waiver = |refusal: &Refusal| {
        Some(Waiver {
            rule: refusal.code.to_owned(),
            symbol: refusal.name.clone(),
            reason: refusal.waived.clone()?,
        })
    };
    findings.iter().filter_map(waiver).collect()
}
