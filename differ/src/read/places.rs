//! The one conversion from the PDB's places to RVAs.

use hpbuild_metadata::{Rva, SectionOffset, Side};

use crate::pe::Pe;

/// Section starts, by number.
pub(super) struct Places<'a, S: Side> {
    pe: &'a Pe<S>,
}

impl<'a, S: Side> Places<'a, S> {
    pub(super) fn new(pe: &'a Pe<S>) -> Self {
        Self { pe }
    }

    /// The RVA of a place; `None` where it names no section (absolute and discarded symbols) or
    /// lies outside its section.
    pub(super) fn rva(&self, place: SectionOffset) -> Option<Rva<S>> {
        let index = usize::from(place.section).checked_sub(1)?;
        let section = self.pe.sections.get(index)?;
        if place.offset > section.size {
            return None;
        }
        section.rva.checked_add(place.offset)
    }
}
