//! All units of `.debug_info`, found in order and read in parallel, and the checks that keep that
//! from taking more time than the sections are worth.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Mutex;

use gimli::{DwarfSections, EndianSlice, LittleEndian, Section as _};
use rayon::prelude::*;
use rustc_hash::FxHashSet;

use super::budget::Budget;
use super::units::{self, UnitFacts};
use crate::error::Error;

/// Reads all units, in parallel.
///
/// # Errors
/// Where one is broken, of a version that is not known, or in another file.
pub(super) fn read_units(
    path: &Path,
    sections: &DwarfSections<Cow<'_, [u8]>>,
) -> Result<Vec<UnitFacts>, Error> {
    let mut dwarf = sections.borrow(|bytes| EndianSlice::new(bytes, LittleEndian));
    let info = dwarf.debug_info.reader().slice();
    let mut headers = Vec::new();
    let mut iter = dwarf.units();
    loop {
        let read = headers
            .last()
            .map_or(0, |header: &gimli::UnitHeader<_>| end_of(header));
        // Linkers fill the section up.
        if info
            .get(read..)
            .is_none_or(|rest| rest.iter().all(|byte| *byte == 0))
        {
            break;
        }
        match iter.next() {
            Ok(Some(header)) => headers.push(header),
            Ok(None) => break,
            Err(fault) => {
                let place = format!(".debug_info+{read:#x}");
                return Err(Error::format(path, place, "a unit of DWARF 2 to 5", fault));
            }
        }
    }
    check_abbreviations(path, dwarf.debug_abbrev.reader().slice(), &headers)?;
    dwarf.populate_abbreviations_cache(gimli::AbbreviationsCacheStrategy::All);
    let total = [
        info.len(),
        dwarf.debug_abbrev.reader().len(),
        dwarf.debug_str.reader().len(),
        dwarf.debug_line.reader().len(),
    ];
    let budget = Budget::new(total.iter().sum());
    // Units may share a line program; which of them reads it does not show.
    let programs = Mutex::new(FxHashSet::default());
    let is_first = |program| programs.lock().is_ok_and(|mut known| known.insert(program));
    let facts = headers
        .into_par_iter()
        .map(|header| {
            let start = header.debug_info_offset().map_or(0, |offset| offset.0);
            units::read(&dwarf, header, is_first, &budget).map_err(|fault| {
                let place = format!(".debug_info+{start:#x}");
                Error::format(path, place, "a whole unit", fault)
            })
        })
        .collect::<Result<Vec<_>, _>>()?;
    Ok(facts)
}

fn end_of<R: gimli::Reader<Offset = usize>>(header: &gimli::UnitHeader<R>) -> usize {
    let start = header.debug_info_offset().map_or(0, |offset| offset.0);
    start.saturating_add(header.length_including_self())
}

/// Real tables of abbreviations follow each other. Tables that overlap could make a small section
/// endless work, because each would be read to its end.
fn check_abbreviations<R: gimli::Reader<Offset = usize>>(
    path: &Path,
    section: &[u8],
    headers: &[gimli::UnitHeader<R>],
) -> Result<(), Error> {
    let starts: BTreeSet<usize> = headers
        .iter()
        .map(|header| header.debug_abbrev_offset().0)
        .collect();
    let mut end = 0;
    for start in starts {
        let place = || format!(".debug_abbrev+{start:#x}");
        if start < end {
            let expected = format!("no table before {end:#x}, where another one ends");
            return Err(Error::format(path, place(), expected, "one inside it"));
        }
        end = end_of_table(section, start).ok_or_else(|| {
            let found = format!("a section of {:#x} bytes", section.len());
            Error::format(path, place(), "a whole table of abbreviations", found)
        })?;
    }
    Ok(())
}

/// The offset behind a table of abbreviations: each a code, a tag, whether it has children, and
/// pairs of attribute and form to a pair of zeros (DWARF 5, section 7.5.3).
fn end_of_table(section: &[u8], start: usize) -> Option<usize> {
    use gimli::Reader;
    let mut rest = EndianSlice::new(section.get(start..)?, LittleEndian);
    while rest.read_uleb128().ok()? != 0 {
        rest.read_uleb128().ok()?;
        rest.read_uleb128().ok()?;
        loop {
            let (attribute, form) = (rest.read_uleb128().ok()?, rest.read_uleb128().ok()?);
            if form == u64::from(gimli::DW_FORM_implicit_const.0) {
                // Signed: a negative one would not be a number as the others are.
                rest.read_sleb128().ok()?;
            }
            if (attribute, form) == (0, 0) {
                break;
            }
        }
    }
    Some(section.len() - rest.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// GCC's Ada has bounds like this one.
    #[test]
    fn constants_in_abbreviations_are_signed() {
        // Code 1, a subrange without children, an upper bound by implicit constant -2^63.
        let mut table = vec![1, 0x21, 0, 0x2f, 0x21];
        table.extend([0x80; 9]);
        table.extend([0x7f, 0, 0, 0]);
        assert_eq!(end_of_table(&table, 0), Some(table.len()));
        table.pop();
        assert_eq!(end_of_table(&table, 0), None);
    }
}
