//! What a person writes about a release; the rest of the manifest comes from the patches.

use hpbuild_metadata::manifest::{Manifest, Month, Patch, Requirements, SCHEMA, Severity};
use serde::Deserialize;

use crate::error::Error;

/// A release file (TOML): the fields of a manifest that no tool can know.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// Name of the release.
    pub id: String,
    /// One line for people.
    pub title: String,
    /// How urgent the fix is.
    pub severity: Severity,
    /// The vulnerabilities that are fixed.
    #[serde(default)]
    pub cves: Vec<String>,
    /// Order among the releases over the baseline.
    pub sequence: u32,
    /// Ids of the releases that this one replaces.
    #[serde(default)]
    pub supersedes: Vec<String>,
    /// The month of the baseline.
    pub baseline: Month,
    /// The month of the release.
    pub release: Month,
    /// What a device must be.
    pub requirements: Requirements,
    /// What a device gets that is not.
    pub fallback: String,
}

impl Release {
    /// Reads a release file.
    ///
    /// # Errors
    /// When the text is not TOML of this form.
    pub fn from_toml(text: &str) -> Result<Self, Error> {
        toml::from_str(text).map_err(|error| {
            Error::format("release file", "the fields of a release", error.to_string())
        })
    }

    /// The manifest of this release with `patches`. Lists are put in order.
    pub fn manifest(&self, mut patches: Vec<Patch>) -> Manifest {
        patches.sort_by_key(|patch| patch.file.to_lowercase());
        let ordered = |list: &[String]| {
            let mut list = list.to_vec();
            list.sort();
            list.dedup();
            list
        };
        Manifest {
            schema: SCHEMA,
            id: self.id.clone(),
            title: self.title.clone(),
            severity: self.severity,
            cves: ordered(&self.cves),
            sequence: self.sequence,
            supersedes: ordered(&self.supersedes),
            baseline: self.baseline,
            release: self.release,
            requirements: self.requirements.clone(),
            fallback: self.fallback.clone(),
            patches,
        }
    }

    /// Makes this release the successor of `previous`: it supersedes it and all that it
    /// superseded.
    ///
    /// # Errors
    /// When the older release is over another baseline, or not before this one in order.
    pub fn succeed(&mut self, previous: &Manifest) -> Result<(), Error> {
        let place = format!("previous release {}", previous.id);
        if previous.baseline != self.baseline {
            let reason = format!(
                "it belongs to the baseline {}, this one to {}",
                previous.baseline, self.baseline
            );
            return Err(Error::request(place, reason));
        }
        if previous.sequence >= self.sequence {
            let reason = format!(
                "its sequence {} is not below {}",
                previous.sequence, self.sequence
            );
            return Err(Error::request(place, reason));
        }
        self.supersedes.push(previous.id.clone());
        self.supersedes.extend(previous.supersedes.iter().cloned());
        Ok(())
    }
}

/// Checks that `manifest` redirects everything that `previous` does in the bases they share, and
/// leaves none of its bases out: an engine reverts what a newer patch does not mention.
pub(super) fn check_cumulative(manifest: &Manifest, previous: &Manifest) -> Result<(), Error> {
    for older in &previous.patches {
        let place = format!("{} of {}", older.file, previous.id);
        let newer = manifest
            .patches
            .iter()
            .find(|patch| patch.base == older.base);
        let newer = newer.ok_or_else(|| {
            let reason = format!(
                "no patch of {} has its base {}",
                manifest.id, older.base.name
            );
            Error::request(&place, reason)
        })?;
        if newer.sequence <= older.sequence {
            let reason = format!(
                "its sequence {} is not below {} of {}",
                older.sequence, newer.sequence, newer.file
            );
            return Err(Error::request(place, reason));
        }
        let missing = older.functions.iter().find(|function| {
            newer
                .functions
                .iter()
                .all(|f| f.base_rva != function.base_rva)
        });
        if let Some(function) = missing {
            let reason = format!(
                "it redirects {} (rva {}), and {} does not: applying that would undo the fix",
                function.readable, function.base_rva, newer.file
            );
            return Err(Error::request(place, reason));
        }
    }
    Ok(())
}
