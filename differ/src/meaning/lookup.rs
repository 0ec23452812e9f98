//! What stands at an address, found without searching a whole image for it.
//!
//! Comparing asks for the meaning of every operand of every function. A binary search of a large
//! image takes some seventeen steps, nearly each of them into memory that is in no cache. So the
//! comparer notes once where the symbols of each stretch of addresses begin.

use hpbuild_metadata::{Rva, Side};

use super::{Target, resolve_in};
use crate::image::Image;
use crate::stretches::Stretches;

/// Where in the sorted tables of one image to look for an address.
#[derive(Debug)]
pub(super) struct Lookup {
    functions: Stretches,
    data: Stretches,
    switch_tables: Stretches,
}

impl Lookup {
    pub(super) fn new<S: Side>(image: &Image<S>) -> Self {
        let functions = image.functions.iter().map(|function| function.rva.get());
        let data = image.data.iter().map(|symbol| symbol.rva.get());
        let tables = image.switch_tables.iter().map(|table| table.table.get());
        Self {
            functions: Stretches::new(functions),
            data: Stretches::new(data),
            switch_tables: Stretches::new(tables),
        }
    }

    /// As [`super::resolve`].
    pub(super) fn resolve<S: Side>(&self, image: &Image<S>, rva: Rva<S>) -> Target<S> {
        resolve_in(
            image,
            rva,
            (
                self.functions.of(rva.get()),
                self.data.of(rva.get()),
                self.switch_tables.of(rva.get()),
            ),
        )
    }
}
