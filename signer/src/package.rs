//! The package: one signed cabinet per release, and a statement of how it was made beside it.
//!
//! ```text
//! HP-2026-0011.cab                  signed as a whole
//!   manifest.json                   what it is and what it changes
//!   sbom.cdx.json                   the same for inventory tools (CycloneDX)
//!   zlib1.x64.dll ...               the signed patch images
//! HP-2026-0011.cab.intoto.jsonl     DSSE envelope with an in-toto statement (SLSA provenance)
//! ```

mod build;
mod calendar;
mod contents;
mod provenance;
mod release;
mod sbom;
mod verify;

pub use build::{Package, PackageImage, PackageRequest, package};
pub use calendar::{Calendar, CalendarRefusal};
pub use provenance::{Material, Provenance};
pub use release::Release;
pub use verify::{ImageReport, PackageReport, read_manifest, verify_package};

/// Name of the manifest in the cabinet.
pub const MANIFEST: &str = "manifest.json";
/// Name of the bill of materials in the cabinet.
pub const SBOM: &str = "sbom.cdx.json";
/// What is put behind the cabinet's name to name the statement beside it.
pub const PROVENANCE_SUFFIX: &str = ".intoto.jsonl";
