//! What a test found, as values; rendering is the caller's.

use hpbuild_metadata::{BaseIdentity, Machine};
use serde::Serialize;

pub use crate::outcome::{Fault, Value};
pub use crate::scenario::FaultKind;

/// The answer of a whole test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Everything that was asked for was done, and was right.
    Passed,
    /// Something was wrong.
    Failed,
    /// Nothing was wrong, and something could not be done on this host.
    Incomplete,
}

/// How a step, a session or a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// As it should.
    Passed,
    /// Not as it should.
    Failed,
    /// Not done, for a reason given beside it.
    Skipped,
}

/// A whole test.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The answer.
    pub verdict: Verdict,
    /// The base that was patched.
    pub base: BaseFacts,
    /// The patch that was applied.
    pub patch: PatchFacts,
    /// Where code was run: `native` or, where it was not, `model`.
    pub backend: &'static str,
    /// Load, match, apply, follow, apply again, revert, apply after revert; then background.
    pub steps: Vec<Step>,
    /// The scenario's sessions.
    pub sessions: Vec<SessionReport>,
    /// The scenario's generated calls.
    pub generated: Vec<GeneratedReport>,
}

/// What is known of the base.
#[derive(Clone, Debug, Serialize)]
pub struct BaseFacts {
    /// Its instruction set.
    pub machine: Machine,
    /// `TimeDateStamp`.
    pub time_date_stamp: u32,
    /// `CheckSum`.
    pub checksum: u32,
    /// `SizeOfImage` in bytes.
    pub size: u32,
}

impl BaseFacts {
    pub(crate) fn new(machine: Machine, identity: BaseIdentity, size: u32) -> Self {
        Self {
            machine,
            time_date_stamp: identity.time_date_stamp,
            checksum: identity.checksum,
            size,
        }
    }
}

/// What is known of the patch.
#[derive(Clone, Debug, Serialize)]
pub struct PatchFacts {
    /// Its sequence number.
    pub sequence: u32,
    /// Base functions that it redirects.
    pub functions: usize,
    /// Records that connect it with the base, in the other direction.
    pub reverse_records: usize,
}

/// One step.
#[derive(Clone, Debug, Serialize)]
pub struct Step {
    /// Its name: `match`, `apply`, `follow`, `apply again`, `revert`, `apply after revert` or
    /// `background`.
    pub name: String,
    /// How it ended.
    pub status: Status,
    /// What was wrong, one line each.
    pub failures: Vec<String>,
    /// What is worth knowing, one line each.
    pub details: Vec<String>,
    /// How long it took.
    pub microseconds: u64,
}

/// One session of a scenario.
#[derive(Clone, Debug, Serialize)]
pub struct SessionReport {
    /// Its name.
    pub name: String,
    /// Whether every call did what it had to.
    pub status: Status,
    /// Its calls.
    pub calls: Vec<CallReport>,
}

/// One call, as base, patched, reverted and fixed code did it.
#[derive(Clone, Debug, Serialize)]
pub struct CallReport {
    /// The function.
    pub function: String,
    /// Whether all expectations were met and all comparisons hold.
    pub status: Status,
    /// By the base as it is.
    pub before: Outcome,
    /// By the base with the patch applied.
    pub after: Outcome,
    /// By the base with the patch applied and reverted.
    pub reverted: Outcome,
    /// By the fixed image, where there is one.
    pub fixed: Option<Outcome>,
    /// By the base with an older patch and then this one applied, where there is an older one.
    pub over_older: Option<Outcome>,
    /// What was wrong, one line each.
    pub failures: Vec<String>,
}

/// What one call did.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It returned.
    Returned {
        /// The value.
        value: Value,
        /// Buffers that are not as they were before the call.
        changed: Vec<Change>,
        /// Buffers behind whose end it wrote.
        overruns: Vec<String>,
    },
    /// It did not return.
    Fault(Fault),
    /// It was not made, because an earlier call of the session did not return.
    NotRun,
}

/// Where a buffer changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// The buffer.
    pub buffer: String,
    /// Offset of the first changed byte.
    pub at: usize,
    /// Bytes from the first to the last changed one.
    pub length: usize,
    /// The first of them, at most 32, in hexadecimal.
    pub bytes: String,
}

/// Calls made up for one function.
#[derive(Clone, Debug, Serialize)]
pub struct GeneratedReport {
    /// The function.
    pub function: String,
    /// Seed of the generator.
    pub seed: u64,
    /// Whether all comparisons hold.
    pub status: Status,
    /// Calls made.
    pub cases: usize,
    /// Calls that patched code answers differently from the base.
    pub different: usize,
    /// Calls in which the base faults.
    pub base_faults: usize,
    /// Calls in which patched code faults.
    pub patched_faults: usize,
    /// Whether patched code was compared with the fixed image.
    pub against_fixed: bool,
    /// The first failures, with the number of the case.
    pub failures: Vec<String>,
}
