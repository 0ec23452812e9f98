//! The manifest of a patch package: what the package is, which bases it belongs to, and what each
//! patch image changes.
//!
//! As a file it is *canonical* JSON: keys in order, no spaces, one spelling of every string and
//! number (a subset of RFC 8785 without fractions), so that equal manifests are equal bytes and a
//! reader can refuse any other spelling. The form is versioned by `schema` and published as
//! `docs/schema/manifest-1.json`.

mod canonical;
mod validate;
mod values;

use serde::{Deserialize, Serialize};

use crate::address::{Base, Rva};
use crate::identity::{BaseIdentity, Machine};

pub use canonical::canonical_json;
pub use validate::{LINE, is_line};
pub use values::{Guid, Month, Sha256};

/// The version of the form that this crate writes and reads.
pub const SCHEMA: u32 = 1;
/// The longest manifest that is read, in bytes.
pub const MAX_SIZE: usize = 16 << 20;

/// A whole manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Name of the release, unique among all; letters, digits and `.-_`.
    pub id: String,
    /// One line for people.
    pub title: String,
    /// How urgent the fix is.
    pub severity: Severity,
    /// The vulnerabilities that are fixed, as `CVE-YYYY-NNNN`.
    pub cves: Vec<String>,
    /// Order among the releases over one baseline; never zero.
    pub sequence: u32,
    /// Ids of the releases that this one replaces. Patches are cumulative, so these are all the
    /// earlier ones over the baseline.
    pub supersedes: Vec<String>,
    /// The month of the baseline that the package belongs to.
    pub baseline: Month,
    /// The month the package is released for.
    pub release: Month,
    /// What a device must be.
    pub requirements: Requirements,
    /// What a device gets that does not meet the requirements.
    pub fallback: String,
    /// The patch images, in order of file name.
    pub patches: Vec<Patch>,
}

/// How urgent a fix is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Hardly exploitable.
    Low,
    /// Mitigated by defaults or hard to reach.
    Moderate,
    /// Compromise of data or service.
    Important,
    /// Runs code without a warning.
    Critical,
}

/// What a device must be so that its running images can be patched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Requirements {
    /// The build that must be running, such as `26100.1742`.
    pub baseline_build: String,
    /// Whether virtualization-based security must be on.
    pub vbs: bool,
    /// Whether CHPE must be disabled on Arm64 devices.
    pub chpe_disabled_on_arm64: bool,
}

/// One patch image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Patch {
    /// Its name in the package.
    pub file: String,
    /// Its length in bytes, signed.
    pub size: u64,
    /// Its digest, signed.
    pub sha256: Sha256,
    /// Its instruction set, which is its base's.
    pub machine: Machine,
    /// The sequence number in its hotpatch table.
    pub sequence: u32,
    /// The image it patches.
    pub base: BaseFile,
    /// What it redirects, in order of base address.
    pub functions: Vec<RedirectedFunction>,
    /// Refusals that a policy allowed.
    pub waivers: Vec<Waiver>,
}

/// A base image by everything that names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BaseFile {
    /// File name, without folder.
    pub name: String,
    /// Instruction set.
    pub machine: Machine,
    /// TimeDateStamp of the COFF header.
    pub time_date_stamp: u32,
    /// CheckSum of the optional header.
    pub checksum: u32,
    /// Digest of the file.
    pub sha256: Sha256,
    /// Its PDB; none where its symbols come from DWARF in the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pdb: Option<PdbIdentity>,
}

impl BaseFile {
    /// What the kernel compares.
    pub const fn identity(&self) -> BaseIdentity {
        BaseIdentity {
            time_date_stamp: self.time_date_stamp,
            checksum: self.checksum,
        }
    }
}

/// The PDB that belongs to an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PdbIdentity {
    /// The GUID in the debug directory.
    pub guid: Guid,
    /// The age in the debug directory.
    pub age: u32,
}

/// A base function that the patch replaces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedirectedFunction {
    /// Its linker name, or the name of its procedure record where it has none.
    pub decorated: String,
    /// Its name for people.
    pub readable: String,
    /// Its entry in the base.
    pub base_rva: Rva<Base>,
    /// Why it is redirected: the kinds of change found in it, or that an older patch did.
    pub reasons: Vec<String>,
}

/// A refusal that a policy allowed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Waiver {
    /// The rule, such as `HP021`.
    pub rule: String,
    /// What it was waived for.
    pub symbol: String,
    /// Why.
    pub reason: String,
}

/// Why bytes are not a manifest, or why a manifest is not sound.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("manifest: {place}: expected {expected}, found {found}")]
pub struct ManifestError {
    /// The field, such as `patches[0].base.name`.
    pub place: String,
    /// What would have been right.
    pub expected: String,
    /// What stands there.
    pub found: String,
}

impl Manifest {
    /// The manifest as canonical JSON.
    ///
    /// # Errors
    /// When the manifest is not sound: see [`Manifest::from_json`].
    pub fn to_json(&self) -> Result<Vec<u8>, ManifestError> {
        self.validate()?;
        let value = serde_json::to_value(self).map_err(|error| ManifestError {
            place: "whole".into(),
            expected: "values that JSON can hold".into(),
            found: error.to_string(),
        })?;
        Ok(canonical_json(&value))
    }

    /// Reads canonical JSON.
    ///
    /// # Errors
    /// When the bytes are not JSON of this form, are spelt in any but the canonical way, or break
    /// a rule that the form alone cannot express: names are bounded and plain, lists are in order
    /// and without repetition, sequence numbers are not zero, and every patch agrees with its base
    /// about the instruction set.
    pub fn from_json(bytes: &[u8]) -> Result<Self, ManifestError> {
        let fail = |expected: String, found: String| ManifestError {
            place: "whole".into(),
            expected,
            found,
        };
        if bytes.len() > MAX_SIZE {
            let found = format!("{} bytes", bytes.len());
            return Err(fail(format!("at most {MAX_SIZE} bytes"), found));
        }
        let manifest: Manifest = serde_json::from_slice(bytes)
            .map_err(|error| fail(format!("JSON of schema {SCHEMA}"), error.to_string()))?;
        let canonical = manifest.to_json()?;
        if canonical != bytes {
            let at = canonical
                .iter()
                .zip(bytes)
                .take_while(|(a, b)| a == b)
                .count();
            return Err(fail(
                "canonical JSON".into(),
                format!("another spelling at byte {at}"),
            ));
        }
        Ok(manifest)
    }
}

#[cfg(test)]
mod tests;
