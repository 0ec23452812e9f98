//! Where code may go on after an exception (`/guard:ehcont`).
//!
//! A base that was built so lists those places, and the system lets an exception end nowhere else
//! in it. Patch code then needs such a list, too: the entries of the fixed image's own for the
//! functions that are carried. Where the fixed image has none nobody knows them, because the data
//! of handlers does not name them all.

use hpbuild_differ::image::Image;
use hpbuild_metadata::{Rva, Side};

use super::function::extent;
use super::table::Refused;
use super::{Extraction, Source};
use crate::piece::Place;
use crate::refusal::Code;

/// Whether the image says that it has the table.
pub(super) fn has_table<S: Side>(image: &Image<S>) -> bool {
    // IMAGE_GUARD_EH_CONTINUATION_TABLE_PRESENT.
    const PRESENT: u32 = 0x0040_0000;
    let config = image.pe.load_config.as_ref();
    config.is_some_and(|config| config.guard_flags & PRESENT != 0)
}

impl Extraction<'_> {
    /// Checks that what the handlers of a function go on at can be listed, if it has to be.
    pub(super) fn check_continuations(&self) -> Result<(), Refused> {
        if !has_table(&self.diff.base) || has_table(&self.diff.fixed) {
            return Ok(());
        }
        let message = "the base lists where code may go on after an exception (/guard:ehcont), and \
                       the fixed image does not";
        Err((Code::HandlerData, message.to_string()))
    }

    /// The same, and that one such place is listed.
    pub(super) fn check_continuation(&self, rva: u32) -> Result<(), Refused> {
        self.check_continuations()?;
        if !has_table(&self.diff.base) {
            return Ok(());
        }
        let config = self.diff.fixed.pe.load_config.as_ref();
        let listed = config.map_or(&[][..], |config| &config.guard_eh_continuations);
        match listed.binary_search(&Rva::new(rva)) {
            Ok(_) => Ok(()),
            Err(_) => {
                let message = format!(
                    "its code goes on at fixed rva {rva:#x} after an exception, which the fixed \
                     image does not list (/guard:ehcont)"
                );
                Err((Code::HandlerData, message))
            }
        }
    }

    /// The listed places in the code that is carried, in the order of the fixed image. None where
    /// the base has no list.
    pub(super) fn continuations(&self) -> Vec<Place> {
        let image = &self.diff.fixed;
        let config = image.pe.load_config.as_ref();
        let Some(config) = config.filter(|_| has_table(&self.diff.base)) else {
            return Vec::new();
        };
        let place = |rva: &Rva<_>| {
            let id = image.function_at(*rva).or_else(|| {
                let entry = image.pe.runtime_function_at(*rva)?;
                image.function_at(entry.begin)
            })?;
            let piece = self.ids.get(&Source::Function(id))?;
            let offset = extent(image, id).offset_of(*rva)?;
            Some(Place::new(*piece, offset.into()))
        };
        let mut places: Vec<Place> = config
            .guard_eh_continuations
            .iter()
            .filter_map(place)
            .collect();
        places.dedup();
        places
    }
}
