//! `hpbuild inspect` of a cabinet: what it holds and what it says of itself, believed or not.

use std::fmt::Write as _;
use std::path::Path;

use hpbuild_metadata::manifest::{Manifest, Patch, Severity};
use hpbuild_signer::package::{MANIFEST, read_manifest};
use hpbuild_signer::{CabinetFile, DigestAlgorithm, Limits, read_cabinet};
use serde::Serialize;

use super::sign::hex;
use super::signer::at;
use crate::cli::Format;
use crate::failure::{Failure, Outcome};
use crate::{output, render};

/// What a cabinet holds.
#[derive(Debug, Serialize)]
struct Contents {
    schema: &'static str,
    file: String,
    /// `package` where there is a manifest, `cabinet` otherwise.
    kind: &'static str,
    files: Vec<File>,
    #[serde(skip_serializing_if = "Option::is_none")]
    manifest: Option<Manifest>,
}

#[derive(Debug, Serialize)]
struct File {
    name: String,
    /// In bytes.
    size: usize,
    sha256: String,
}

/// Whether `bytes` start as a cabinet does.
pub(crate) fn is_cabinet(bytes: &[u8]) -> bool {
    bytes.starts_with(b"MSCF")
}

/// Says what the cabinet at `path` holds.
pub(crate) fn run(
    path: &Path,
    bytes: &[u8],
    format: Format,
    verbose: bool,
) -> Result<Outcome, Failure> {
    let files = read_cabinet(bytes, Limits::default()).map_err(|error| at(path, &error))?;
    let is_package = files.iter().any(|file| file.name == MANIFEST);
    let manifest = match is_package {
        true => Some(read_manifest(bytes).map_err(|error| at(path, &error))?),
        false => None,
    };
    let describe = |file: &CabinetFile| File {
        name: file.name.clone(),
        size: file.bytes.len(),
        sha256: hex(&DigestAlgorithm::Sha256.digest(&file.bytes)),
    };
    let contents = Contents {
        schema: "hpbuild-inspect-1",
        file: path.display().to_string(),
        kind: if is_package { "package" } else { "cabinet" },
        files: files.iter().map(describe).collect(),
        manifest,
    };
    output::print(&match format {
        Format::Text => text(&contents, verbose),
        Format::Json => render::json(&contents),
    })?;
    Ok(Outcome::Done)
}

fn text(contents: &Contents, verbose: bool) -> String {
    let mut out = format!(
        "{}: {}, not verified (hpbuild verify does that)\n",
        contents.file, contents.kind
    );
    for file in &contents.files {
        let _ = writeln!(out, "  {:>8} bytes  {}", file.size, file.name);
    }
    let Some(manifest) = &contents.manifest else {
        return out;
    };
    out.push('\n');
    out.push_str(&render::package::summary(manifest));
    let _ = writeln!(out, "severity {}", severity(manifest.severity));
    for (what, names) in [
        ("fixes", &manifest.cves),
        ("supersedes", &manifest.supersedes),
    ] {
        if !names.is_empty() {
            let _ = writeln!(out, "{what} {}", names.join(", "));
        }
    }
    for patch in &manifest.patches {
        redirected(&mut out, patch, verbose);
    }
    out
}

fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Low => "low",
        Severity::Moderate => "moderate",
        Severity::Important => "important",
        Severity::Critical => "critical",
    }
}

/// The functions that a patch image redirects, and what was allowed for it.
fn redirected(out: &mut String, patch: &Patch, verbose: bool) {
    let _ = writeln!(out, "{}", patch.file);
    for function in &patch.functions {
        let reasons = function.reasons.join(", ");
        let _ = writeln!(out, "  {}  {reasons}", function.readable);
        if verbose {
            let (name, rva) = (&function.decorated, function.base_rva);
            let _ = writeln!(out, "    {name} at {rva}");
        }
    }
    for waiver in &patch.waivers {
        let (code, name, reason) = (&waiver.rule, &waiver.symbol, &waiver.reason);
        let _ = writeln!(out, "  allowed: {code} for {name}: {reason}");
    }
}
