//! Records of compilands that are read from the PDB when they are wanted.
//!
//! Line records and records inside procedures are most of a PDB, and only those of changed functions
//! are ever looked at. So the PDB stays open, and they are read again where they are asked for.
//! What cannot be read any more makes reports say less and changes no verdict.

use std::fmt;
use std::iter::FusedIterator;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Mutex;

use ms_pdb::dbi::ModuleInfoFixed;
use ms_pdb::syms::{Sym, SymKind};
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

/// Symbol records one after the other, up to the first that is cut short. That of the library is
/// not inlined, which makes it the slowest part of reading a large PDB.
#[derive(Clone, Debug)]
pub(crate) struct SymbolRecords<'a> {
    rest: &'a [u8],
}

impl<'a> SymbolRecords<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What was not read yet; at the end, what is no whole record.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

impl<'a> Iterator for SymbolRecords<'a> {
    type Item = Sym<'a>;

    #[inline]
    fn next(&mut self) -> Option<Sym<'a>> {
        let (&[l0, l1, k0, k1], behind) = self.rest.split_first_chunk()?;
        // The kind counts.
        let length = usize::from(u16::from_le_bytes([l0, l1])).checked_sub(2)?;
        let (data, rest) = behind.split_at_checked(length)?;
        self.rest = rest;
        let kind = SymKind(u16::from_le_bytes([k0, k1]));
        Some(Sym { kind, data })
    }
}

impl FusedIterator for SymbolRecords<'_> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_end_where_one_is_cut() {
        let bytes = [4, 0, 0x4c, 0x11, 1, 2, 2, 0, 6, 0, 5, 0, 0x3e, 0x11, 7];
        let found = |bytes: &[u8]| -> Vec<_> {
            SymbolRecords::new(bytes)
                .map(|it| (it.kind.0, it.data.to_vec()))
                .collect()
        };
        let all = [(0x114c, vec![1, 2]), (6, vec![])];
        assert_eq!(found(&bytes), all);
        for length in 0..bytes.len() {
            let whole = usize::from(length >= 6) + usize::from(length >= 10);
            assert_eq!(found(&bytes[..length]), all[..whole], "{length}");
        }
        let mut records = SymbolRecords::new(&[1, 0, 6, 0]);
        assert!(records.next().is_none());
        assert_eq!(records.rest().len(), 4);
    }
}
