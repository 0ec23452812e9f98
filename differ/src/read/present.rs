//! Is the code in the file? A packed image unpacks its code when it runs: its records tell of functions
//! of which the file has nothing.

use hpbuild_metadata::{Rva, Side};

use super::assemble::Symbols;
use crate::error::Error;
use crate::pe::Pe;

/// Refuses an image with a function that symbols or unwind entries tell of and whose bytes, or some of
/// them, the file does not have.
///
/// # Errors
/// Where there is one: the first by its address.
pub(super) fn check<S: Side>(pe: &Pe<S>, symbols: &Symbols<S>) -> Result<(), Error> {
    let modules = symbols.modules.iter();
    let named = modules.flat_map(|module| &module.procedures);
    let named = named.filter_map(|procedure| {
        let rva = pe.rva_of_place(procedure.place)?;
        Some((rva, procedure.size, &*procedure.name))
    });
    let entries = pe.runtime_functions.iter().filter_map(|entry| {
        let size = entry.end.checked_sub(entry.begin)?;
        Some((entry.begin, size, "the function"))
    });
    let missing = |(rva, size, _): &(Rva<S>, u32, &str)| {
        let is_code = pe.section_at(*rva).is_some_and(|it| it.is_code());
        is_code && pe.bytes(*rva, *size).is_none()
    };
    let Some((rva, size, name)) = named.chain(entries).filter(missing).min() else {
        return Ok(());
    };
    let section = pe.section_at(rva).map_or("", |section| &*section.name);
    let place = format!("section {section}: {name} at rva {rva}");
    let expected = format!("{size} bytes of code in the file");
    let found = format!("{}, as in a packed image", pe.bytes_from(rva).len());
    Err(Error::format(&pe.path, place, expected, found))
}
