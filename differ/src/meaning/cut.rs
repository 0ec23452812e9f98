//! Where constants without a name end, by who reaches what stands behind them.
//!
//! Such a constant is cut where anything reaches in (see [`super::extent`]), and what stands behind
//! the cut may be its rest. With full debug information whatever has no name is private to the
//! function that declares it: a local array, a literal, a table that the compiler made of a switch.
//! Others reach it only where that function is inlined. So a cut that a function makes which
//! shares no source with the reader is where something else starts.
//!
//! ```text
//! switch.table.area   reached by area
//!   cut               reached by volume, which shares no source with area: another table
//! ```

use std::sync::OnceLock;

use hpbuild_metadata::{Base, Fixed, FunctionId, Rva, Side};
use rustc_hash::FxHashSet;

use super::content::{Visit, pointer_at};
use super::extent::{anonymous_extent, comdat, is_ended_text, open_size};
use super::{Comparer, Difference, Extent, Meaning, Target, is_read_only, resolve};
use crate::decode::{Reference, ReferenceKind, reaches_back};
use crate::image::{FunctionKind, Image};

/// So many cuts and so many functions at each are looked at.
const MOST: usize = 32;

/// Which functions reach into data, and where: (place, function), sorted. Few pairs of images ask.
#[derive(Debug)]
pub(super) struct Readers<S: Side>(OnceLock<Vec<(Rva<S>, FunctionId<S>)>>);

impl<S: Side> Default for Readers<S> {
    fn default() -> Self {
        Self(OnceLock::new())
    }
}

impl<S: Side> Readers<S> {
    fn of<'a>(
        &'a self,
        image: &Image<S>,
        rva: Rva<S>,
    ) -> impl Iterator<Item = FunctionId<S>> + use<'a, S> {
        let all = self.0.get_or_init(|| {
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
        });
        let start = all.partition_point(|it| it.0 < rva);
        let here = all[start..].iter().take_while(move |it| it.0 == rva);
        here.map(|it| it.1)
    }
}

/// An operand of a function.
#[derive(Clone, Copy)]
pub(crate) struct Operand<S: Side> {
    /// The function.
    pub(crate) function: FunctionId<S>,
    /// Bytes from its start to the instruction.
    pub(crate) offset: u32,
    /// Where it points, and what for.
    pub(crate) reference: Reference<S>,
}

/// Constants without a name on both sides, as far as two functions reach them by two operands.
type Reach = (Extent<Base>, Extent<Fixed>);

impl Comparer<'_> {
    /// What [`Comparer::compare`] says of two operands, where it is known whose they are: for
    /// constants without a name that tells more.
    pub(crate) fn compare_operands(
        &self,
        base: &Operand<Base>,
        fixed: &Operand<Fixed>,
        meaning: Meaning,
    ) -> Meaning {
        match meaning {
            Meaning::Same if self.changed_behind(base, fixed).is_some() => Meaning::Unknown,
            Meaning::Same => self
                .changed_before(base, fixed)
                .map_or(Meaning::Same, |(meaning, _)| meaning),
            Meaning::Unknown => self.reach(base, fixed).map_or(Meaning::Unknown, |(b, f)| {
                self.compare_table_or_extents(b, f, &mut Visit::new())
            }),
            Meaning::Different(_) => meaning,
        }
    }

    /// Whether what is not known of two operands is how far the constants reach whose address they
    /// take.
    pub(crate) fn has_open_ends(&self, base: &Operand<Base>, fixed: &Operand<Fixed>) -> bool {
        is_nameless_constant(self.base, base.reference.target)
            && is_nameless_constant(self.fixed, fixed.reference.target)
            && base.reference.kind == ReferenceKind::Address
    }

    /// Constants without a name whose address is taken, as far as the functions reach them. `None`
    /// where nothing tells.
    pub(crate) fn reach(&self, base: &Operand<Base>, fixed: &Operand<Fixed>) -> Option<Reach> {
        if !self.has_open_ends(base, fixed) {
            return None;
        }
        let places = (base.reference.target, fixed.reference.target);
        let sizes = (
            size_for(self.base, &self.readers.0, base)?,
            size_for(self.fixed, &self.readers.1, fixed)?,
        );
        Some((open(places.0, sizes.0), open(places.1, sizes.1)))
    }

    /// What stands before constants without a name and differs, where the operand that takes their
    /// address reaches back from there: then they are the middle of something.
    pub(crate) fn changed_before(
        &self,
        base: &Operand<Base>,
        fixed: &Operand<Fixed>,
    ) -> Option<(Meaning, Reach)> {
        if base.reference.kind != ReferenceKind::Address {
            return None;
        }
        let b = stretch_before(self.base, base.reference.target)?;
        let f = stretch_before(self.fixed, fixed.reference.target)?;
        // Few differ, and the rest takes longer.
        if self.base.pe.bytes(b.rva, b.size) == self.fixed.pe.bytes(f.rva, f.size) {
            return None;
        }
        let mut own = self.base.references_of(base.function).iter();
        let is_reached = own.any(|it| it.reference.target == b.rva);
        let code = self.base.code_of(base.function);
        if is_reached
            || self.compare_table_or_extents(b, f, &mut Visit::new()) == Meaning::Same
            || !reaches_back(self.base.pe.machine, code, base.offset)
        {
            return None;
        }
        let whose = (
            is_of(self.base, &self.readers.0, base, b.rva),
            is_of(self.fixed, &self.readers.1, fixed, f.rva),
        );
        // What starts there may be another's, and shorter.
        let is_foreign = whose.0 == Some(false) || whose.1 == Some(false);
        let ended = || Some((behind_text(self.base, b)?, behind_text(self.fixed, f)?));
        let meaning = match (whose, is_foreign.then(ended).flatten()) {
            (_, Some((b, f))) => self.compare_table_or_extents(b, f, &mut Visit::new()),
            ((Some(true), Some(true)), None) => Meaning::Different(Difference::DataContent),
            _ => Meaning::Unknown,
        };
        if meaning == Meaning::Same {
            return None;
        }
        Some((meaning, (b, f)))
    }
}

impl Comparer<'_> {
    /// The constants without a name that code of the fixed image may reach by an address that an
    /// operand takes, whole: whoever copies the code copies all of them. `offset` is that of the
    /// instruction in the function. `None` where the operand leads to anything else, or to constants
    /// of unknown extent.
    pub fn constants_reached(
        &self,
        function: FunctionId<Fixed>,
        offset: u32,
        reference: Reference<Fixed>,
    ) -> Option<Extent<Fixed>> {
        let (image, rva) = (self.fixed, reference.target);
        let operand = Operand {
            function,
            offset,
            reference,
        };
        let whole = whole_constants(image, rva)?;
        if whole.exact {
            return Some(whole);
        }
        let size = match open_size(image, whole_to_cut(image, rva)?) {
            None => whole.size,
            Some(_) => size_for(image, &self.readers.1, &operand).unwrap_or(whole.size),
        };
        let code = image.code_of(function);
        let before = stretch_before(image, rva);
        match before.filter(|_| reaches_back(image.pe.machine, code, offset)) {
            Some(before) => Some(open(before.rva, before.size.checked_add(size)?)),
            None => Some(open(rva, size)),
        }
    }
}

/// The constants without a name that whoever has the address `rva` may reach, whole; `rva` may lie
/// inside them. `None` where something else stands there, or where their extent is not known.
pub fn whole_constants<S: Side>(image: &Image<S>, rva: Rva<S>) -> Option<Extent<S>> {
    if !is_nameless_constant(image, rva) {
        return None;
    }
    if let Some(whole) = comdat(image, rva) {
        return Some(whole);
    }
    let extent = whole_to_cut(image, rva)?;
    Some(match open_size(image, extent) {
        Some(size) => open(rva, size),
        None => extent,
    })
}

fn whole_to_cut<S: Side>(image: &Image<S>, rva: Rva<S>) -> Option<Extent<S>> {
    anonymous_extent(image, rva, ReferenceKind::Address).filter(|extent| extent.size > 0)
}

fn open<S: Side>(rva: Rva<S>, size: u32) -> Extent<S> {
    Extent {
        rva,
        size,
        exact: false,
    }
}

fn is_nameless_constant<S: Side>(image: &Image<S>, rva: Rva<S>) -> bool {
    matches!(resolve(image, rva), Target::Anonymous(_)) && is_read_only(image, rva)
}

/// The constants without a name between what starts last before `rva` and `rva`, unless something is
/// certain to start there, or a text ends there.
fn stretch_before<S: Side>(image: &Image<S>, rva: Rva<S>) -> Option<Extent<S>> {
    let is_start = image.certain_boundaries.binary_search(&rva).is_ok();
    if is_start || !is_nameless_constant(image, rva) {
        return None;
    }
    let next = image.boundaries.partition_point(|it| *it < rva);
    let start = *image.boundaries.get(next.checked_sub(1)?)?;
    let size = rva.checked_sub(start)?;
    let bytes = image.pe.bytes(start, size)?;
    (is_nameless_constant(image, start) && !is_ended_text(bytes)).then_some(open(start, size))
}

/// What stands behind the text and its zero that constants without a name start with.
fn behind_text<S: Side>(image: &Image<S>, constants: Extent<S>) -> Option<Extent<S>> {
    let bytes = image.pe.bytes(constants.rva, constants.size)?;
    let zero = bytes.iter().position(|byte| *byte == 0)?;
    let end = u32::try_from(zero + 1).ok()?;
    let start = constants.rva.checked_add(end)?;
    is_ended_text(&bytes[..=zero]).then(|| open(start, constants.size - end))
}

/// Whether what `operand` reaches may go on at `cut`, by who else reaches that. `None` where nothing
/// tells.
fn is_of<S: Side>(
    image: &Image<S>,
    readers: &Readers<S>,
    operand: &Operand<S>,
    cut: Rva<S>,
) -> Option<bool> {
    let own = sources(image, operand.function)?;
    // Vtables have no name where their class has none for the linker. The constructor of a base class
    // is inlined with that of its descendants, and shares nothing else with them.
    if leads_to_code(image, operand.reference.target) && leads_to_code(image, cut) {
        return Some(false);
    }
    let is_foreign = |reader: FunctionId<S>| {
        sources(image, reader).is_some_and(|sources| sources.is_disjoint(&own))
    };
    Some(!readers.of(image, cut).take(MOST).any(is_foreign))
}

/// Whether a pointer to the start of a function stands at `rva`.
fn leads_to_code<S: Side>(image: &Image<S>, rva: Rva<S>) -> bool {
    let is_pointer = image.pe.relocations_in(rva, 8).first() == Some(&rva);
    let target = is_pointer.then(|| pointer_at(image, rva, true)).flatten();
    target.is_some_and(|target| {
        let function = image.functions.binary_search_by_key(&target, |it| it.rva);
        function.is_ok()
    })
}

/// The bytes from what `operand` reaches to the first place behind it that starts something else.
/// `None` where nothing tells.
fn size_for<S: Side>(image: &Image<S>, readers: &Readers<S>, operand: &Operand<S>) -> Option<u32> {
    let rva = operand.reference.target;
    let certain = image.next_certain_boundary(rva)?;
    let first = image.boundaries.partition_point(|it| *it <= rva);
    let cuts = image.boundaries[first..].iter();
    for cut in cuts.take_while(|cut| **cut < certain).take(MOST) {
        if !is_of(image, readers, operand, *cut)? {
            return cut.checked_sub(rva);
        }
    }
    sources(image, operand.function)?;
    certain.checked_sub(rva)
}

/// The functions of the source that a function is made of: itself, and what is inlined into it.
/// `None` where the records do not tell.
fn sources<S: Side>(image: &Image<S>, id: FunctionId<S>) -> Option<FxHashSet<String>> {
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
