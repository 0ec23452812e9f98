//! Unwind data behind the exception directory, read and (for x64) written.
//!
//! The twins [`x64`] and [`arm64`] each read one record and tell how long it is and where in it
//! RVAs stand, so that a record can be copied into another image and its RVAs moved. Neither
//! follows an RVA: the bytes behind it are for the caller to fetch.

pub mod arm64;
pub mod x64;

/// What is wrong with an unwind record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unwind record+{offset:#x}: {what}: expected {expected}, found {found}")]
pub struct UnwindError {
    /// Where, in bytes from the start of the record.
    pub offset: u32,
    /// The field that is wrong.
    pub what: &'static str,
    /// What would have been right.
    pub expected: String,
    /// What stands there.
    pub found: String,
}

impl UnwindError {
    fn new(
        offset: usize,
        what: &'static str,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Self {
        Self {
            offset: u32::try_from(offset).unwrap_or(u32::MAX),
            what,
            expected: expected.into(),
            found: found.into(),
        }
    }
}

/// `size` bytes at `at`.
fn part<'a>(
    bytes: &'a [u8],
    at: usize,
    size: usize,
    what: &'static str,
) -> Result<&'a [u8], UnwindError> {
    at.checked_add(size)
        .and_then(|end| bytes.get(at..end))
        .ok_or_else(|| {
            let left = bytes.len().saturating_sub(at);
            UnwindError::new(at, what, format!("{size} bytes"), format!("{left}"))
        })
}

fn u32_at(bytes: &[u8], at: usize, what: &'static str) -> Result<u32, UnwindError> {
    let word = part(bytes, at, 4, what)?;
    Ok(word
        .iter()
        .rev()
        .fold(0, |value, byte| value << 8 | u32::from(*byte)))
}

/// The entries of a `__C_specific_handler` scope table (`SCOPE_TABLE_AMD64`, `SCOPE_TABLE_ARM64`),
/// which is the same on both machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scope {
    /// RVA of the first byte of the guarded code.
    pub begin: u32,
    /// RVA of the first byte behind it.
    pub end: u32,
    /// RVA of the filter or of the termination handler; 1 where the filter is the constant
    /// `EXCEPTION_EXECUTE_HANDLER`.
    pub handler: u32,
    /// RVA where execution goes on; 0 for a termination handler.
    pub target: u32,
}

/// A scope table as found in handler data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScopeTable {
    /// Its entries.
    pub scopes: Vec<Scope>,
}

impl ScopeTable {
    /// Reads the table at the start of `bytes`, the handler data of a record whose handler is
    /// `__C_specific_handler`. That it is, only symbols can tell.
    ///
    /// # Errors
    /// Where the table is longer than `bytes`, or a scope ends before it begins.
    pub fn read(bytes: &[u8]) -> Result<Self, UnwindError> {
        let count = u32_at(bytes, 0, "scope table Count")?;
        let size = (count as usize).saturating_mul(16);
        let entries = part(bytes, 4, size, "scope table")?;
        let mut scopes = Vec::with_capacity(entries.len() / 16);
        for (index, entry) in entries.chunks_exact(16).enumerate() {
            let field = |at| u32_at(entry, at, "scope");
            let scope = Scope {
                begin: field(0)?,
                end: field(4)?,
                handler: field(8)?,
                target: field(12)?,
            };
            if scope.end < scope.begin {
                let expected = format!("an end not before {:#x}", scope.begin);
                let found = format!("{:#x}", scope.end);
                return Err(UnwindError::new(4 + 16 * index, "scope", expected, found));
            }
            scopes.push(scope);
        }
        Ok(Self { scopes })
    }

    /// Bytes of the table.
    pub fn size(&self) -> usize {
        4 + 16 * self.scopes.len()
    }

    /// Where in the table RVAs stand, in bytes from its start.
    pub fn rva_fields(&self) -> Vec<usize> {
        let mut fields = Vec::new();
        for (index, scope) in self.scopes.iter().enumerate() {
            let at = 4 + 16 * index;
            fields.extend([at, at + 4]);
            // 1 is no address but the answer of a filter that always says yes.
            fields.extend((scope.handler > 1).then_some(at + 8));
            fields.extend((scope.target != 0).then_some(at + 12));
        }
        fields
    }
}

#[cfg(test)]
mod tests;
