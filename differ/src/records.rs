//! Records of compilands that are read from the PDB when they are wanted.
//!
//! Line records and records inside procedures are most of a PDB, and only those of changed functions
//! are ever looked at. So the PDB stays open, and they are read again where they are asked for.
//! What cannot be read any more makes reports say less and changes no verdict.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Mutex;

use ms_pdb::dbi::ModuleInfoFixed;
use ms_pdb::{Pdb, RandomAccessFile, ReadAt};

use crate::error::Error;
use crate::read::contained;

/// The streams of all compilands of one PDB.
pub(crate) struct CompilandStreams {
    path: PathBuf,
    /// Some of what it could be asked caches without locks.
    pdb: Mutex<Box<Pdb<RandomAccessFile>>>,
    /// Where each compiland's stream is and how it is divided, in the PDB's order.
    headers: Vec<ModuleInfoFixed>,
}

impl fmt::Debug for CompilandStreams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CompilandStreams")
            .field("path", &self.path)
            .field("count", &self.headers.len())
            .finish_non_exhaustive()
    }
}

impl CompilandStreams {
    pub(crate) fn new(
        path: PathBuf,
        pdb: Box<Pdb<RandomAccessFile>>,
        headers: Vec<ModuleInfoFixed>,
    ) -> Self {
        Self {
            path,
            pdb: Mutex::new(pdb),
            headers,
        }
    }

    /// The C13 line subsections of a compiland; empty where there are none.
    pub(crate) fn lines(&self, compiland: u32) -> Vec<u8> {
        let range = |header: &ModuleInfoFixed| {
            let start =
                u64::from(header.sym_byte_size.get()) + u64::from(header.c11_byte_size.get());
            start..start + u64::from(header.c13_byte_size.get())
        };
        self.part(compiland, range).unwrap_or_default()
    }

    /// Some of the symbol records of a compiland: `range` counts from the first one.
    pub(crate) fn symbols(&self, compiland: u32, range: &Range<u32>) -> Vec<u8> {
        // A signature comes first.
        let start = u64::from(range.start) + 4;
        let end = u64::from(range.end) + 4;
        let inside = |header: &ModuleInfoFixed| start..end.min(header.sym_byte_size.get().into());
        self.part(compiland, inside).unwrap_or_default()
    }

    /// A part of a compiland's stream; `None` where the stream does not have it.
    fn part(
        &self,
        compiland: u32,
        range: impl Fn(&ModuleInfoFixed) -> Range<u64>,
    ) -> Option<Vec<u8>> {
        let header = self.headers.get(compiland as usize)?;
        let stream = header.stream()?;
        let range = range(header);
        let pdb = self.pdb.lock().ok()?;
        let read = contained(&self.path, "pdb module stream", || {
            let broken = |cause: &dyn fmt::Display| {
                let expected = "a readable stream";
                Error::format(&self.path, "pdb module stream", expected, cause)
            };
            // Streams are not longer than what was promised when the PDB was opened.
            let is_inside = range.start <= range.end && range.end <= pdb.stream_len(stream);
            let size = usize::try_from(range.end.saturating_sub(range.start));
            let (true, Ok(size)) = (is_inside, size) else {
                return Err(broken(&"a stream that is too short"));
            };
            let reader = pdb.get_stream_reader(stream).map_err(|it| broken(&it))?;
            let mut bytes = vec![0; size];
            let read = reader.read_exact_at(&mut bytes, range.start);
            read.map_err(|it| broken(&it)).map(|()| bytes)
        });
        read.ok()
    }
}
