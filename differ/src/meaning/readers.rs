//! Who reaches data, and whether they share source.

use std::ops::Range;
use std::sync::OnceLock;

use hpbuild_metadata::{FunctionId, Rva, Side};
use rustc_hash::FxHashSet;

use super::cut::Operand;
use super::{Target, is_read_only, resolve};
use crate::decode::ReferenceKind;
use crate::image::{Contribution, FunctionKind, Image};

/// The language of what the linker made (`cvconst.h`).
const CV_CFL_LINK: u8 = 7;

/// So many cuts and so many functions at each are looked at.
pub(super) const MOST: usize = 32;

/// What leads into data. Few pairs of images ask.
#[derive(Debug)]
pub(super) struct Readers<S: Side> {
    /// Which functions do, and where: (place, function), sorted.
    functions: OnceLock<Vec<(Rva<S>, FunctionId<S>)>>,
    /// Where pointers lead that the loader relocates; sorted.
    pointers: OnceLock<Vec<Rva<S>>>,
}

impl<S: Side> Default for Readers<S> {
    fn default() -> Self {
        Self {
            functions: OnceLock::new(),
            pointers: OnceLock::new(),
        }
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

    /// Whether a pointer in the image leads into these addresses.
    pub(super) fn is_pointed_at(&self, image: &Image<S>, places: Range<Rva<S>>) -> bool {
        let all = self.pointers.get_or_init(|| {
            let words = image.pe.base_relocations.iter();
            let targets = words.filter_map(|place| {
                let word = image.pe.bytes(*place, 8)?.first_chunk()?;
                image.pe.rva_of(u64::from_le_bytes(*word))
            });
            let mut all: Vec<_> = targets.collect();
            all.sort_unstable();
            all
        });
        let next = all.partition_point(|target| *target < places.start);
        all.get(next).is_some_and(|target| *target < places.end)
    }

    /// Whether no function but this one reaches into these addresses.
    pub(super) fn is_only_of(
        &self,
        image: &Image<S>,
        places: Range<Rva<S>>,
        function: FunctionId<S>,
    ) -> bool {
        let all = self.all(image);
        let first = all.partition_point(|it| it.0 < places.start);
        let inside = all[first..].iter().take_while(|it| it.0 < places.end);
        inside.map(|it| it.1).all(|reader| reader == function)
    }

    fn all(&self, image: &Image<S>) -> &[(Rva<S>, FunctionId<S>)] {
        self.functions.get_or_init(|| {
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
            && !is_out_of_reach(image, reader, cut)
    };
    Some(!readers.of(image, cut).take(MOST).any(is_foreign))
}

/// Whether at `rva` begin constants that another object than a function's gave, and that it cannot name:
/// where it takes that address, it means the end of its own. Those of which each object may have a copy
/// are everybody's, and what the linker joined is its own.
pub(super) fn is_out_of_reach<S: Side>(
    image: &Image<S>,
    function: FunctionId<S>,
    rva: Rva<S>,
) -> bool {
    let own = image.function(function).compiland;
    let is_private = match resolve(image, rva) {
        Target::Anonymous(_) => true,
        Target::Data { id, offset: 0 } => image.data_aliases(id).all(|alias| {
            let symbol = image.data_symbol(alias);
            !symbol.global && symbol.compiland.is_some() && symbol.compiland != own
        }),
        _ => false,
    };
    let of_compiler = |contribution: &Contribution<S>| {
        let compiland = image.compilands.get(contribution.compiland.index());
        let tool = compiland.and_then(|it| it.tool.as_ref());
        tool.is_some_and(|tool| tool.language != CV_CFL_LINK)
    };
    let contribution = image.contribution_at(rva);
    let is_other = |it: &Contribution<S>| own.is_some_and(|own| own != it.compiland);
    is_private
        && is_read_only(image, rva)
        && contribution.is_some_and(|it| is_other(it) && !it.is_comdat() && of_compiler(it))
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
