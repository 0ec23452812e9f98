//! What parent and child say to each other.
//!
//! The parent writes one [`Job`] to a file; the child answers on its standard output with one
//! [`Record`] a line, and says what it is about to do before it does it: the last line of a child
//! that is gone tells how far it came.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::outcome::Effects;
use crate::scenario::{Background, Load, Session};

/// What a child is to do.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    /// The image that is called: the base, or the fixed image in its place.
    pub(crate) target: PathBuf,
    pub(crate) target_name: String,
    /// Patches to apply, in this order, each over the one before.
    pub(crate) patches: Vec<PathBuf>,
    pub(crate) hpat_blocks: u32,
    pub(crate) load: Load,
    pub(crate) task: Task,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Task {
    /// Load, match, apply, follow, apply again, revert, compare.
    Lifecycle,
    /// Make the calls of `sessions`, with the patches applied where `patching` says so.
    Sessions {
        patching: Patching,
        sessions: Vec<PlacedSession>,
    },
    /// Calls in threads while the patch comes and goes.
    Background {
        background: Background,
        places: Vec<u32>,
    },
}

/// What happens to the target before a session's calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Patching {
    Untouched,
    Applied,
    Reverted,
}

/// A session with its functions found in the target.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct PlacedSession {
    pub(crate) session: Session,
    /// The RVA of each call's function.
    pub(crate) places: Vec<u32>,
}

/// One line from the child.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Record {
    /// Something lies here.
    Range(Range),
    /// A session begins.
    Session(usize),
    /// A call of it begins.
    Call(usize),
    Returned(Effects),
    /// A signal ended the child.
    Fault(RawFault),
    /// A function that ends a process was called.
    Stopped {
        kind: String,
        detail: String,
    },
    /// One step of the lifecycle or of the background run ended.
    Step {
        name: String,
        failures: Vec<String>,
        details: Vec<String>,
        microseconds: u64,
    },
    /// A long step is getting on.
    Alive,
    /// The patch was refused; nothing more follows.
    Refused(String),
    /// The job cannot be done.
    Failed(String),
    /// Everything was done.
    Done,
}

/// Names addresses.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Range {
    pub(crate) kind: RangeKind,
    pub(crate) name: String,
    pub(crate) start: u64,
    pub(crate) end: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum RangeKind {
    Image,
    /// An inaccessible page beside a buffer.
    Guard,
    Stack,
    /// The inaccessible pages below a stack.
    StackGuard,
    Heap,
}

/// What a signal handler knows.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct RawFault {
    pub(crate) signal: i32,
    pub(crate) address: u64,
    pub(crate) pointer: u64,
    pub(crate) stack: u64,
    /// The first two bytes of the instruction, where they can be read.
    pub(crate) code: u64,
    pub(crate) rcx: u64,
    /// Where in an image the function of the harness was called from that faulted; or 0.
    pub(crate) caller: u64,
}
