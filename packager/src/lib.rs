//! Extracts changed functions into a patch image, and verifies what was written.
//!
//! The stages run one way, each a function from earlier values to a new one:
//! `extract -> link -> attach -> write -> verify`.
#![forbid(unsafe_code)]

pub mod attach;
pub mod extract;
pub mod link;
pub mod pdb;
pub mod piece;
pub mod refusal;
pub mod verify;
pub mod write;

pub use refusal::Refusal;

use hpbuild_differ::{Diff, judge};
use verify::{Fault, Verified};

/// A patch image that was read back.
#[derive(Clone, Debug)]
pub struct Patch {
    /// The file name it should have.
    pub name: String,
    /// Its bytes.
    pub file: Vec<u8>,
    /// The bytes of its PDB, to be written beside it as [`write::pdb_name`].
    pub pdb: Option<Vec<u8>>,
    /// What it was made from.
    pub parts: piece::Parts,
    /// Where everything lies.
    pub linked: link::Linked,
    /// What the verifier found.
    pub verified: Verified,
    /// What there is to say of what the patch brings, and of what the process may hold of the older
    /// patch, where there is one. They are for the caller to judge by its policy: no patch should be made
    /// where one refuses.
    pub findings: Vec<judge::Refusal>,
}

/// Why there is no patch image.
#[derive(Debug)]
pub enum NoPatch {
    /// The change cannot be expressed in one.
    Refused(Vec<Refusal>),
    /// The image that was written does not hold what it should: a bug of this crate.
    Faulty(Vec<Fault>),
}

/// All stages: extracts, links, attaches, writes and verifies.
///
/// # Errors
/// Every refusal, or every fault the verifier found.
pub fn build(diff: &Diff, options: &extract::Options) -> Result<Patch, NoPatch> {
    let parts = extract::extract(diff, options).map_err(NoPatch::Refused)?;
    let linked = link::link(&parts).map_err(NoPatch::Refused)?;
    let table = attach::attach(&parts, &linked);
    let file = write::write(&linked, &table);
    let verified = verify::verify(&file, &parts).map_err(NoPatch::Faulty)?;
    let mut findings = extract::unnamed::notes(diff, &parts);
    if let Some(older) = &options.previous {
        findings.extend(extract::brought::findings(diff, &parts, older));
    }
    Ok(Patch {
        findings,
        name: write::image_name(&parts),
        pdb: pdb::pdb(&parts, &linked, &file),
        file,
        parts,
        linked,
        verified,
    })
}
