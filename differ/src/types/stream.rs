//! The records of a type or item stream.

use ms_pdb::tpi::TypeStream;
use ms_pdb::types::{TypeIndex, TypeRecord, TypesIter};

/// The records of one type or item stream, found by index.
///
/// `ms_pdb` finds them through a table behind a cell, which cannot be shared between threads.
pub(crate) struct Records {
    /// The whole stream.
    bytes: Vec<u8>,
    /// The index of the first record.
    begin: u32,
    /// Offset of each record in `bytes`.
    starts: Vec<u32>,
    /// Where the last record ends.
    end: usize,
}

impl Records {
    /// Finds the records of a stream. Fewer than the header promises are no error here: see
    /// [`Records::count`].
    pub(crate) fn new(stream: TypeStream<Vec<u8>>) -> Self {
        let range = stream.type_records_range();
        let begin = stream.type_index_begin().0;
        let bytes = stream.stream_data;
        let mut starts = Vec::new();
        let mut iter = TypesIter::new(bytes.get(range.clone()).unwrap_or_default());
        let total = iter.rest().len();
        loop {
            let at = total - iter.rest().len();
            if iter.next().is_none() {
                break;
            }
            // Both are sizes of a stream, which are words.
            starts.push((range.start + at) as u32);
        }
        starts.shrink_to_fit();
        Self {
            bytes,
            begin,
            starts,
            end: range.end,
        }
    }

    /// How many records there are.
    pub(crate) fn count(&self) -> usize {
        self.starts.len()
    }

    pub(super) fn indexes(&self) -> impl Iterator<Item = TypeIndex> + use<> {
        let begin = self.begin;
        (0..self.starts.len()).filter_map(move |at| {
            let at = u32::try_from(at).ok()?;
            begin.checked_add(at).map(TypeIndex)
        })
    }

    pub(super) fn is_primitive(&self, index: TypeIndex) -> bool {
        index.0 < self.begin
    }

    pub(super) fn record(&self, index: TypeIndex) -> Option<TypeRecord<'_>> {
        let start = *self.starts.get(index.0.checked_sub(self.begin)? as usize)?;
        TypesIter::new(self.bytes.get(start as usize..self.end)?).next()
    }
}
