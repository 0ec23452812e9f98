//! How far data reaches whose symbol has no type: a public of a PDB, a symbol of a COFF table.
//!
//! It reaches no further than to the next symbol, to the end of what its object gave, or to where
//! something else is known to start. COFF tables of linked images tell of few objects, and what has
//! no name (constants, texts, tables of jumps) would then belong to the variable before it, and
//! change all who use that. So names that tell a size or a shape are believed, and tables that
//! code reads by their own start are no part of a variable.
//!
//! ```text
//! .refptr.__image_base__   8 bytes: a pointer
//! _ZTS7failure             up to the zero that ends the text
//! _ZTV7failure             words that are addresses or small numbers
//! ```

use hpbuild_metadata::{Rva, Side};

use super::carve::find;
use super::scan::Scanned;
use crate::image::{Contribution, DataSymbol};
use crate::names;
use crate::pe::Pe;

/// How the linkage names of tables of vtables and vtables of objects under construction begin
/// (Itanium C++ ABI, 5.1.4). As vtables do, they end with an address: what follows the last one are
/// numbers of something else.
const TABLES: [&str; 2] = ["_ZTT", "_ZTC"];
/// How those of type information begin, which is words as well.
const TYPE_INFORMATION: &str = "_ZTI";
/// How those of the names of types begin, which are texts.
const TEXT: &str = "_ZTS";
/// Bits of the numbers in what the C++ ABI lays out: distances, flags, and flags with a count of
/// base classes above them.
const NUMBER_BITS: u32 = 48;

/// What is known of places in data beside symbols with a name: see [`super::assemble::Symbols`].
#[derive(Clone, Copy)]
pub(super) struct Known<'a, S: Side> {
    pub(super) contributions: &'a [Contribution<S>],
    pub(super) starts: &'a [Rva<S>],
    pub(super) constants: &'a [Rva<S>],
}

/// Data without a type reaches to the next symbol, to the end of its contribution, or to where
/// something else is known to start.
pub(super) fn size_the_rest<S: Side>(
    pe: &Pe<S>,
    known: Known<'_, S>,
    symbols: &mut [DataSymbol<S>],
) {
    let Known {
        contributions,
        starts,
        constants,
    } = known;
    let mut next: Option<Rva<S>> = None;
    let mut here: Option<Rva<S>> = None;
    for symbol in symbols.iter_mut().rev() {
        if here.is_some_and(|here| here != symbol.rva) {
            next = here;
        }
        here = Some(symbol.rva);
        let end = match find(contributions, symbol.rva) {
            Some(contribution) => contribution.rva.get().saturating_add(contribution.size),
            None => pe
                .section_at(symbol.rva)
                .map_or(0, |section| section.rva.get().saturating_add(section.size)),
        };
        let room = end.saturating_sub(symbol.rva.get());
        if symbol.sized_by_type {
            continue;
        }
        // Linkers let a string end in the middle of another one, which the name of that one tells.
        let linkage = symbol.decorated.as_deref().unwrap_or(&symbol.name);
        let told = names::literal_size(linkage)
            .or_else(|| names::pointer_size(linkage))
            .or_else(|| text_size(pe, symbol.rva, linkage));
        if let Some(size) = told.filter(|size| *size <= room) {
            symbol.size = size;
            symbol.sized_by_type = true;
            continue;
        }
        let start = starts.get(starts.partition_point(|start| *start <= symbol.rva));
        let behind = [next, start.copied()].into_iter().flatten();
        let to_next = behind.filter_map(|rva| rva.checked_sub(symbol.rva)).min();
        symbol.size = to_next.map_or(room, |bytes| bytes.min(room));
        let is_table = names::is_itanium_vtable(linkage)
            || TABLES.iter().any(|prefix| linkage.starts_with(prefix));
        if is_table || linkage.starts_with(TYPE_INFORMATION) {
            // Type information of classes that one object knows follows, under names of its own.
            let next = constants.partition_point(|it| *it <= symbol.rva);
            let to_next = constants
                .get(next)
                .and_then(|it| it.checked_sub(symbol.rva));
            symbol.size = to_next.map_or(symbol.size, |bytes| bytes.min(symbol.size));
            symbol.size = words(pe, symbol.rva, symbol.size);
        }
        if is_table {
            symbol.size = to_last_address(pe, symbol.rva, symbol.size);
        }
    }
    end_with_types(symbols);
}

/// Of several names of one address those with a type tell where it ends: what only marks a place there,
/// as the names of sections do and arrays without entries, goes no further.
fn end_with_types<S: Side>(symbols: &mut [DataSymbol<S>]) {
    let same_place = |a: &DataSymbol<S>, b: &DataSymbol<S>| a.rva == b.rva;
    for names in symbols.chunk_by_mut(same_place) {
        let typed = names.iter().filter(|it| it.sized_by_type);
        let Some(size) = typed.map(|it| it.size).max().filter(|size| *size > 0) else {
            continue;
        };
        for symbol in names.iter_mut().filter(|it| !it.sized_by_type) {
            symbol.size = symbol.size.min(size);
        }
    }
}

/// Lets data without a type end where a table starts that code reads by its start, where nothing
/// else tells the end.
pub(super) fn end_at_tables<S: Side>(
    contributions: &[Contribution<S>],
    scanned: &Scanned<S>,
    symbols: &mut [DataSymbol<S>],
) {
    let jumps = scanned.jump_tables.iter().map(|(_, table)| table.table);
    let mut tables: Vec<Rva<S>> = jumps
        .chain(scanned.relative_tables.iter().copied())
        .collect();
    tables.sort_unstable();
    for symbol in symbols.iter_mut().filter(|symbol| !symbol.sized_by_type) {
        let next = tables.get(tables.partition_point(|table| *table <= symbol.rva));
        let to_table = next.and_then(|table| table.checked_sub(symbol.rva));
        if let Some(bytes) = to_table.filter(|bytes| *bytes < symbol.size)
            && find(contributions, symbol.rva).is_none()
        {
            symbol.size = bytes;
        }
    }
}

/// Constants without a size, each with the bytes to where something else is known to be.
pub(super) fn constants<S: Side>(
    pe: &Pe<S>,
    places: &[Rva<S>],
    (contributions, starts): (&[Contribution<S>], &[Rva<S>]),
    data: &[DataSymbol<S>],
    scanned: &Scanned<S>,
) -> Vec<(Rva<S>, u32)> {
    let jumps = scanned.jump_tables.iter().map(|(_, table)| table.table);
    let mut others: Vec<Rva<S>> = jumps.collect();
    others.extend(scanned.relative_tables.iter().chain(places).chain(starts));
    others.extend(data.iter().map(|symbol| symbol.rva));
    others.sort_unstable();
    let sized = |rva: &Rva<S>| {
        let section = pe.section_at(*rva)?;
        let given = find(contributions, *rva);
        let given = given.and_then(|it| it.rva.checked_add(it.size));
        let next = others.get(others.partition_point(|other| other <= rva));
        let ends = [section.rva.checked_add(section.size), given, next.copied()];
        Some((*rva, ends.into_iter().flatten().min()?.checked_sub(*rva)?))
    };
    places.iter().filter_map(sized).collect()
}

/// The bytes of the name of a type, the zero at its end included.
fn text_size<S: Side>(pe: &Pe<S>, rva: Rva<S>, linkage: &str) -> Option<u32> {
    if !linkage.starts_with(TEXT) {
        return None;
    }
    let length = pe.bytes_from(rva).iter().position(|byte| *byte == 0)?;
    u32::try_from(length + 1).ok()
}

/// The bytes from `rva`, `most` at most, that are words as the C++ ABI puts them into its tables.
/// What looks like such a word behind the last one is counted in.
fn words<S: Side>(pe: &Pe<S>, rva: Rva<S>, most: u32) -> u32 {
    let bytes = pe.bytes_from(rva);
    let bytes = &bytes[..bytes.len().min(most as usize)];
    let relocated = pe.relocations_in(rva, most);
    let is_word = |at: usize, word: u64| {
        let unused = 64 - NUMBER_BITS;
        let number = word.cast_signed();
        let is_number = (number << unused) >> unused == number;
        let place = u32::try_from(at).ok().and_then(|at| rva.checked_add(at));
        let is_relocated = place.is_some_and(|place| relocated.binary_search(&place).is_ok());
        is_number || is_relocated || pe.rva_of(word).is_some()
    };
    let (whole, _) = bytes.as_chunks::<8>();
    let wrong = whole
        .iter()
        .zip((0..).step_by(8))
        .find(|(word, at)| !is_word(*at, u64::from_le_bytes(**word)));
    match wrong {
        Some((_, at)) => u32::try_from(at).map_or(most, |at| at.min(most)),
        None => most,
    }
}

/// The bytes from `rva`, `most` at most, to behind the last address in them. Without any, which only
/// tables of distances to virtual bases are, it is all of them.
fn to_last_address<S: Side>(pe: &Pe<S>, rva: Rva<S>, most: u32) -> u32 {
    let last = pe.relocations_in(rva, most).last();
    let behind = last.and_then(|last| last.checked_sub(rva)?.checked_add(8));
    behind.map_or(most, |behind| behind.min(most))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use hpbuild_metadata::Base;

    use super::super::assemble::{Unscanned, assemble};
    use super::super::{dwarf, read_file};
    use crate::image::Image;
    use crate::pe::{Opened, Pe};

    fn image() -> Image<Base> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/prebuilt/neighbours");
        let path = root.join("x64/base/hp_near.dll");
        let pe = match Pe::parse(&path, read_file(&path).unwrap()).unwrap() {
            Opened::Pe(pe) => *pe,
            Opened::Unsupported(kind) => panic!("{kind:?}"),
        };
        let symbols = dwarf::read(&pe).unwrap().unwrap();
        assemble(Unscanned::new(pe, symbols))
    }

    #[test]
    fn names_tell_sizes() {
        let image = image();
        let size = |name: &str| {
            let found = image.data.iter().find(|it| &*it.name == name);
            found.map(|symbol| (symbol.size, symbol.sized_by_type))
        };
        assert_eq!(size(".refptr.shared_level"), Some((8, true)));
        // `6Square` and a zero.
        assert_eq!(size("_ZTS6Square"), Some((8, true)));
        // A distance, an address, and two functions.
        assert_eq!(size("_ZTV6Square"), Some((32, false)));
    }

    #[test]
    fn what_the_linker_makes_belongs_to_no_variable() {
        let image = image();
        assert!(!image.pe.linker_tables.is_empty());
        for (start, size) in &image.pe.linker_tables {
            let inside = (0..*size).filter_map(|at| start.checked_add(at));
            let owners: Vec<_> = inside
                .filter_map(|rva| image.data_at(rva))
                .map(|id| &*image.data_symbol(id).name)
                .collect();
            assert!(
                owners.iter().all(|name| name.starts_with("__imp_")),
                "{owners:?}"
            );
        }
    }

    #[test]
    fn words_of_tables() {
        let image = image();
        let vtable = image.data.iter().find(|it| &*it.name == "_ZTV6Square");
        let vtable = vtable.unwrap().rva;
        // The text of a type's name is no word of a table, wherever the table is said to end.
        let name = image.data.iter().find(|it| &*it.name == "_ZTS6Square");
        let to_name = name.unwrap().rva.checked_sub(vtable).unwrap();
        assert_eq!(super::words(&image.pe, vtable, 24), 24);
        assert_eq!(super::words(&image.pe, vtable, to_name + 64), to_name);
    }
}
