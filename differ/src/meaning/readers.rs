//! Who reaches data, and whether they share source.

use std::ops::Range;
use std::sync::OnceLock;

use hpbuild_metadata::{FunctionId, Rva, Side};
use rustc_hash::FxHashSet;

use super::cut::Operand;
use crate::decode::ReferenceKind;
use crate::image::{FunctionKind, Image};

/// So many cuts and so many functions at each are looked at.
pub(super) const MOST: usize = 32;

/// Which functions reach into data, and where: (place, function), sorted. Few pairs of images ask.
#[derive(Debug)]
pub(super) struct Readers<S: Side>(OnceLock<Vec<(Rva<S>, FunctionId<S>)>>);

impl<S: Side> Default for Readers<S> {
    fn default() -> Self {
        Self(OnceLock::new())
    }
}

impl<S: Side> Readers<S> {
    /// The functions that reach `rva`.
    pub(super) fn of<'a>(
        &'a self,
        image: &Image<S>,
        rva: Rva<S>,
    ) -> impl Iterator<Item = FunctionId<S>> + use<'a, S> {
        let all = self.all(image);
        let start = all.partition_point(|it| it.0 < rva);
        let here = all[start..].iter().take_while(move |it| it.0 == rva);
        here.map(|it| it.1)
    }

    /// Whether any function reaches into these addresses.
    pub(super) fn any_in(&self, image: &Image<S>, places: Range<Rva<S>>) -> bool {
        let all = self.all(image);
        let next = all.partition_point(|it| it.0 < places.start);
        all.get(next).is_some_and(|it| it.0 < places.end)
    }

    fn all(&self, image: &Image<S>) -> &[(Rva<S>, FunctionId<S>)] {
        self.0.get_or_init(|| {
            let places = |id: FunctionId<S>| {
                let references = image.references_of(id).iter();
                let data = references.filter(|it| {
                    let kind = it.reference.kind;
                    matches!(kind, ReferenceKind::Address | ReferenceKind::Memory(_))
                });
                data.map(move |it| (it.reference.target, id))
            };
            let mut all: Vec<_> = image.function_ids().flat_map(places).collect();
            all.sort_unstable();
            all.dedup();
            all
        })
    }
}

/// Whether what `operand` reaches may go on at `cut`, by who else reaches that. `None` where nothing
/// tells.
pub(super) fn is_of<S: Side>(
    image: &Image<S>,
    readers: &Readers<S>,
    operand: &Operand<S>,
    cut: Rva<S>,
) -> Option<bool> {
    let own = sources(image, operand.function)?;
    let is_foreign = |reader: FunctionId<S>| {
        sources(image, reader).is_some_and(|sources| sources.is_disjoint(&own))
    };
    Some(!readers.of(image, cut).take(MOST).any(is_foreign))
}

/// The functions of the source that a function is made of: itself, and what is inlined into it.
/// `None` where the records do not tell.
pub(super) fn sources<S: Side>(image: &Image<S>, id: FunctionId<S>) -> Option<FxHashSet<String>> {
    // MSVC can be told to leave out the records of what it inlines.
    if image.function(id).kind != FunctionKind::Procedure || image.may_be_of_msvc(id) {
        return None;
    }
    let mut names: FxHashSet<String> = FxHashSet::default();
    for procedure in image.procedures_of(id) {
        names.insert(last_component(&procedure.name).to_owned());
        for item in image.inlined_into(procedure) {
            names.insert(last_component(&image.types.item_name(item)?).to_owned());
        }
    }
    (!names.is_empty()).then_some(names)
}

/// A name without its scope, which records of procedures and of inlined functions write in
/// different ways.
fn last_component(name: &str) -> &str {
    name.rsplit("::").next().unwrap_or(name)
}
