//! Running jobs in child processes, and reading what they say.
//!
//! A child may crash, hang or be killed: each of these is a result. What it said last tells where
//! it was.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::job::{Job, Range, RangeKind, RawFault, Record};
use crate::outcome::{Ended, Fault};
use crate::scenario::{FaultKind, Session};
use crate::test::ChildProgram;

/// Bytes of one line of a child that are read; the rest of it is an error.
const MAX_LINE: usize = 256 << 20;
/// Time for everything that is not a call: loading, patching, ending.
const PATIENCE: Duration = Duration::from_secs(60);

/// Everything that one child said.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) records: Vec<Record>,
    pub(crate) ranges: Vec<Range>,
    /// Why it ended without having done everything.
    pub(crate) fault: Option<Fault>,
}

/// Starts children and keeps their files.
pub(crate) struct Parent<'r> {
    program: &'r ChildProgram,
    folder: tempfile::TempDir,
}

impl<'r> Parent<'r> {
    pub(crate) fn new(program: &'r ChildProgram) -> Result<Self, Error> {
        let folder = tempfile::Builder::new().prefix("hpbuild-test-").tempdir();
        let folder = folder.map_err(|e| Error::child("making a temporary folder", e))?;
        Ok(Self { program, folder })
    }

    /// Stores an image where children find it.
    pub(crate) fn store(&self, name: &str, bytes: &[u8]) -> Result<PathBuf, Error> {
        let path = self.folder.path().join(name);
        std::fs::write(&path, bytes).map_err(|e| Error::child("writing an image", e))?;
        Ok(path)
    }

    /// Runs one job to its end. A call may take `limit`.
    pub(crate) fn run(&self, job: &Job, limit: Duration) -> Result<Told, Error> {
        let path = self.folder.path().join("job.json");
        let text = serde_json::to_vec(job).map_err(|e| Error::child("writing the job", e))?;
        std::fs::write(&path, text).map_err(|e| Error::child("writing the job", e))?;
        let mut child = self.spawn(&path)?;
        let told = listen(&mut child, limit);
        // Either it is over or it must be. An error means that it is gone already.
        let _ = child.kill();
        let status = child
            .wait()
            .map_err(|e| Error::child("waiting for it", e))?;
        let mut told = told?;
        let complete = matches!(told.records.last(), Some(Record::Done | Record::Refused(_)));
        if !complete && told.fault.is_none() {
            told.fault = Some(Fault {
                kind: FaultKind::Crash,
                place: "unknown".to_owned(),
                detail: format!("the process ended with {status}"),
            });
        }
        Ok(told)
    }

    fn spawn(&self, job: &Path) -> Result<Child, Error> {
        Command::new(&self.program.program)
            .args(&self.program.arguments)
            .arg(job)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .map_err(|e| {
                let program = self.program.program.display();
                Error::child("starting it", format!("{program}: {e}"))
            })
    }
}

/// Reads records until the child is done, silent for too long, or gone.
fn listen(child: &mut Child, limit: Duration) -> Result<Told, Error> {
    let output = child.stdout.take();
    let output = output.ok_or_else(|| Error::child("reading its answers", "no output"))?;
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut lines = BufReader::new(output);
        loop {
            let mut line = Vec::new();
            let mut bounded = std::io::Read::take(&mut lines, MAX_LINE as u64);
            match bounded.read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => return,
                Ok(_) if sender.send(line).is_err() => return,
                Ok(_) => {}
            }
        }
    });
    let mut told = Told::default();
    let mut deadline = Instant::now() + PATIENCE;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let line = match receiver.recv_timeout(left) {
            Ok(line) => line,
            Err(RecvTimeoutError::Disconnected) => return Ok(told),
            Err(RecvTimeoutError::Timeout) => {
                told.fault = Some(Fault {
                    kind: FaultKind::Timeout,
                    place: "unknown".to_owned(),
                    detail: "the call took longer than it may".to_owned(),
                });
                return Ok(told);
            }
        };
        let record: Record = serde_json::from_slice(&line).map_err(|error| {
            let text = String::from_utf8_lossy(&line[..line.len().min(200)]).into_owned();
            Error::child("reading its answers", format!("{error}: {text}"))
        })?;
        deadline = Instant::now()
            + if matches!(record, Record::Call(_)) {
                limit
            } else {
                PATIENCE
            };
        match record {
            Record::Failed(why) => return Err(Error::child("doing its job", why)),
            Record::Range(range) => told.ranges.push(range),
            Record::Fault(raw) => told.fault = Some(explain(&raw, &told.ranges)),
            Record::Stopped { kind, detail } => told.fault = Some(stopped(&kind, detail)),
            record => told.records.push(record),
        }
        if matches!(told.records.last(), Some(Record::Done)) || told.fault.is_some() {
            return Ok(told);
        }
    }
}

impl Told {
    /// The calls of `sessions`, as they ended; sessions that were not begun are left out.
    pub(crate) fn calls(&self, sessions: &[Session]) -> Vec<Vec<Ended>> {
        let mut ended: Vec<Vec<Ended>> = Vec::new();
        for record in &self.records {
            match (record, ended.last_mut()) {
                (Record::Session(_), _) => ended.push(Vec::new()),
                (Record::Returned(effects), Some(calls)) => {
                    calls.push(Ended::Returned(effects.clone()));
                }
                _ => {}
            }
        }
        let last = ended.len();
        for (index, (calls, session)) in ended.iter_mut().zip(sessions).enumerate() {
            if index + 1 == last && calls.len() < session.calls.len() {
                calls.extend(self.fault.clone().map(Ended::Fault));
            }
            calls.resize(session.calls.len(), Ended::NotRun);
        }
        ended
    }

    /// Why the patch was refused, if it was.
    pub(crate) fn refused(&self) -> Option<&str> {
        self.records.iter().find_map(|record| match record {
            Record::Refused(why) => Some(why.as_str()),
            _ => None,
        })
    }
}

/// Names a fault by what lies at its addresses.
fn explain(raw: &RawFault, ranges: &[Range]) -> Fault {
    let at = |address: u64| ranges.iter().find(|r| (r.start..r.end).contains(&address));
    let place = match at(raw.pointer) {
        Some(range) => format!("{}+{:#x}", range.name, raw.pointer - range.start),
        None => match at(raw.caller) {
            Some(range) => {
                let offset = raw.caller - range.start;
                format!(
                    "a function of the harness, called before {}+{offset:#x}",
                    range.name
                )
            }
            None => format!("address {:#x}", raw.pointer),
        },
    };
    // Signal numbers of Linux, the only host that runs children.
    let (kind, detail) = match raw.signal {
        4 => (FaultKind::IllegalInstruction, String::new()),
        5 => (FaultKind::Breakpoint, String::new()),
        8 => (FaultKind::Arithmetic, String::new()),
        // int 0x29 asks Windows to end the process; rcx says why.
        11 if raw.code == 0x29cd => (FaultKind::FailFast, format!("code {}", raw.rcx)),
        // Where not even the stack below the pointer is writable, the stack has run out.
        _ => match at(raw.address) {
            Some(range) if range.kind == RangeKind::StackGuard => {
                (FaultKind::StackOverflow, "the stack ran out".to_owned())
            }
            Some(range) if range.kind == RangeKind::Guard => (
                FaultKind::GuardPage,
                format!("beside buffer {}", range.name),
            ),
            Some(range) if range.kind == RangeKind::Heap => {
                let offset = raw.address - range.start;
                (
                    FaultKind::GuardPage,
                    format!("beside a heap block, heap+{offset:#x}"),
                )
            }
            Some(range) => {
                let offset = raw.address - range.start;
                (
                    FaultKind::AccessViolation,
                    format!("{}+{offset:#x}", range.name),
                )
            }
            None => (
                FaultKind::AccessViolation,
                format!("address {:#x}", raw.address),
            ),
        },
    };
    Fault {
        kind,
        place,
        detail,
    }
}

fn stopped(kind: &str, detail: String) -> Fault {
    let known = serde_json::from_value(serde_json::Value::String(kind.to_owned()));
    let detail = match known {
        Ok(FaultKind::UnresolvedImport) => {
            format!("import {detail} is not provided by the harness")
        }
        _ => detail,
    };
    Fault {
        kind: known.unwrap_or(FaultKind::Crash),
        place: "a function of the harness".to_owned(),
        detail,
    }
}
