//! Scenarios: what is called, with what, and what must come out before and after the patch.
//!
//! The format is TOML and documented in `docs/scenarios.md`. Parsing checks everything that can
//! be known without an image: names refer to something, sizes are bounded, and an expectation can
//! be met at all.

mod contents;
pub(crate) use contents::hex;
mod format;
mod generate;
mod read;

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// Calls to make, in sessions that each start from a freshly loaded image.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scenario {
    pub(crate) load: Load,
    pub(crate) sessions: Vec<Session>,
    pub(crate) generated: Vec<Generated>,
    pub(crate) background: Option<Background>,
}

impl Scenario {
    /// Reads a scenario. Files that it names are looked for in `folder`.
    ///
    /// # Errors
    /// Where the text is no valid scenario, or a file cannot be read.
    pub fn parse(text: &str, folder: &Path) -> Result<Self, Error> {
        read::parse(text, folder)
    }
}

/// How images are loaded for the calls.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Load {
    /// Call the TLS callbacks and the entry point with DLL_PROCESS_ATTACH first.
    pub(crate) dll_main: bool,
    /// End every heap block at an inaccessible page.
    pub(crate) heap_guard: bool,
    /// Longest time for one call.
    pub(crate) timeout_ms: u64,
}

impl Default for Load {
    fn default() -> Self {
        Self {
            dll_main: false,
            heap_guard: false,
            timeout_ms: 5000,
        }
    }
}

/// Calls in a row in one process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Session {
    pub(crate) name: String,
    /// The patch is applied before this call.
    pub(crate) patch_after: usize,
    pub(crate) buffers: Vec<Buffer>,
    pub(crate) calls: Vec<Call>,
}

/// Memory that calls are given.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Buffer {
    pub(crate) name: String,
    #[serde(with = "contents::hex")]
    pub(crate) bytes: Vec<u8>,
    /// Whether it ends at an inaccessible page.
    pub(crate) guard: bool,
    pub(crate) fields: Vec<Field>,
}

/// A value stored in a buffer, at an offset in bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Field {
    pub(crate) buffer: String,
    pub(crate) at: usize,
    /// 1, 2, 4 or 8 bytes.
    pub(crate) size: usize,
    pub(crate) value: Argument,
}

/// One value that a call is given.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Argument {
    Integer(i64),
    Float(f64),
    Buffer { name: String, offset: usize },
    Bound(String),
}

/// The function of a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Function {
    Name(String),
    /// Places in base and fixed image; the second may be unknown.
    Rva(u32, Option<u32>),
}

impl std::fmt::Display for Function {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Function::Name(name) => f.write_str(name),
            Function::Rva(rva, _) => write!(f, "rva {rva:#x}"),
        }
    }
}

/// One call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Call {
    pub(crate) function: Function,
    pub(crate) arguments: Vec<Argument>,
    pub(crate) result: ResultType,
    pub(crate) bind: Option<String>,
    /// Stored in buffers before the call.
    pub(crate) fields: Vec<Field>,
    pub(crate) before: Option<Expectation>,
    pub(crate) after: Option<Expectation>,
}

/// How the returned register is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ResultType {
    Void,
    I8,
    U8,
    I16,
    U16,
    #[default]
    I32,
    U32,
    I64,
    U64,
    F32,
    F64,
    Ptr,
}

/// What a call must do.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Expectation {
    pub(crate) returns: Option<Returns>,
    pub(crate) fault: Option<FaultKind>,
    /// Bytes that a buffer must hold at an offset.
    pub(crate) buffers: BTreeMap<String, Held>,
}

/// An expected result.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Returns {
    Integer(i64),
    Float(f64),
    Null,
    NotNull,
}

/// Expected bytes of a buffer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Held {
    pub(crate) at: usize,
    #[serde(with = "contents::hex")]
    pub(crate) bytes: Vec<u8>,
}

/// How a call can end other than by returning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultKind {
    /// An address that may not be accessed so.
    AccessViolation,
    /// An access to the inaccessible page before or behind a buffer or guarded heap block.
    GuardPage,
    /// The stack ran out.
    StackOverflow,
    /// An instruction that is none, such as a compiler's trap.
    IllegalInstruction,
    /// A division by zero, or one whose result does not fit.
    Arithmetic,
    /// A breakpoint.
    Breakpoint,
    /// `__fastfail`, as a damaged stack cookie or list raises it.
    FailFast,
    /// `abort`, a failed assertion, or an invalid parameter.
    Abort,
    /// The process was ended by `exit` or the like.
    Exit,
    /// A software exception was raised.
    Exception,
    /// A heap block was freed twice, or something that is none.
    HeapCorruption,
    /// A function was called that the harness does not provide.
    UnresolvedImport,
    /// The call took longer than the scenario allows.
    Timeout,
    /// The process ended in a way that says nothing more.
    Crash,
}

/// Calls made up from a description, each in a session of its own, all in one process.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Generated {
    pub(crate) function: Function,
    pub(crate) seed: u64,
    pub(crate) sessions: Vec<Session>,
}

/// Calls that run in threads while the patch is applied and reverted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Background {
    pub(crate) threads: usize,
    /// How often the patch is applied and reverted.
    pub(crate) rounds: usize,
    pub(crate) session: Session,
}

#[cfg(test)]
mod tests;
