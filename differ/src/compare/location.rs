//! Places in sources that a program names itself: what Rust's panics carry, and the records of macros for
//! logs and assertions.
//!
//! A `core::panic::Location` is a constant of the name of a file (address and length), a line and a
//! column (`library/core/src/panic/location.rs`; the layout is that of rustc 1.59 to 1.95). Every
//! function that may panic has some, and one line more at the top of a file changes them all.
//!
//! In C and C++ there is no one layout (`static const struct site here = {__FILE__, __LINE__, __func__}`).
//! The record of the constant's type tells which members are numbers: where nothing but such members
//! differs, and each holds the line of the very code that reaches the constant, lines are all that changed.

use std::cell::OnceCell;

use hpbuild_metadata::{Base, Fixed, FunctionId, Rva, Side};

use super::{Kind, kind_of};
use crate::image::Image;
use crate::lines::{Lines, lines_of};
use crate::meaning::{Comparer, Difference, Operand};

/// Bytes of a location: two of 8 bytes, two of 4.
const SIZE: u32 = 24;
/// No name of a file is longer, in bytes.
const MAX_NAME: u64 = 1 << 12;

/// A place in a source.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Location<'a> {
    file: &'a [u8],
    line: u32,
    column: u32,
}

/// The lines of a pair of functions, read when somebody asks: most changes are of something else.
pub(crate) struct PairLines<'a> {
    base: (&'a Image<Base>, FunctionId<Base>),
    fixed: (&'a Image<Fixed>, FunctionId<Fixed>),
    read: OnceCell<(Lines, Lines)>,
}

impl<'a> PairLines<'a> {
    pub(crate) fn new(
        comparer: &Comparer<'a>,
        base: FunctionId<Base>,
        fixed: FunctionId<Fixed>,
    ) -> Self {
        Self {
            base: (comparer.base, base),
            fixed: (comparer.fixed, fixed),
            read: OnceCell::new(),
        }
    }

    /// Whether each instruction, told by its offset, comes from that line of its side's source.
    pub(crate) fn are_at(&self, base: (u32, u64), fixed: (u32, u64)) -> bool {
        let is = |lines: &Lines, (offset, line): (u32, u64)| {
            lines.at(offset).map(u64::from) == Some(line)
        };
        let (before, after) = self.read.get_or_init(|| {
            let ((b, base), (f, fixed)) = (self.base, self.fixed);
            (lines_of(b, base), lines_of(f, fixed))
        });
        is(before, base) && is(after, fixed)
    }
}

/// The kind of change that a difference makes between what two operands refer to.
pub(crate) fn kind_of_reference(
    comparer: &Comparer<'_>,
    lines: &PairLines<'_>,
    difference: Difference,
    base: &Operand<Base>,
    fixed: &Operand<Fixed>,
) -> Kind {
    let are_at =
        |before: u64, after: u64| lines.are_at((base.offset, before), (fixed.offset, after));
    let is_place = || {
        let before = location(comparer.base, base.reference.target);
        let after = location(comparer.fixed, fixed.reference.target);
        before.zip(after).is_some_and(|(before, after)| {
            before.file == after.file
                && before.column == after.column
                && are_at(before.line.into(), after.line.into())
        })
    };
    let is_record = || {
        let members = comparer.members_differing(base, fixed);
        members.is_some_and(|members| members.iter().all(|it| are_at(it.0, it.1)))
    };
    match difference == Difference::DataContent && (is_place() || is_record()) {
        true => Kind::LineNumber,
        false => kind_of(difference),
    }
}

/// The place in a Rust source that the constant at `rva` is, as far as a constant can tell.
fn location<S: Side>(image: &Image<S>, rva: Rva<S>) -> Option<Location<'_>> {
    let is_constant = |rva| image.pe.section_at(rva).is_some_and(|it| !it.is_writable());
    if !is_constant(rva) || image.pointers_in(rva, SIZE) != [(rva, true)] {
        return None;
    }
    let (name, rest) = image.pe.bytes(rva, SIZE)?.split_first_chunk()?;
    let (length, rest) = rest.split_first_chunk()?;
    let (line, rest) = rest.split_first_chunk()?;
    let length = u64::from_le_bytes(*length);
    let file = image.pe.rva_of(u64::from_le_bytes(*name))?;
    if length > MAX_NAME || !is_constant(file) {
        return None;
    }
    let file = image.pe.bytes(file, u32::try_from(length).ok()?)?;
    let is_source = file.strip_suffix(b"\0").unwrap_or(file).ends_with(b".rs");
    is_source.then_some(Location {
        file,
        line: u32::from_le_bytes(*line),
        column: u32::from_le_bytes(*rest.first_chunk()?),
    })
}
