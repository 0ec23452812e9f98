//! The lists of MinGW's C runtime, found by the symbols that GNU ld and lld give them.
//!
//! `__CTOR_LIST__` and `__DTOR_LIST__` are a word that counts the entries or is -1, pointers to
//! functions, and a zero (libgcc's `gbl-ctors.h`). What lies between `__RUNTIME_PSEUDO_RELOC_LIST__` and
//! `__RUNTIME_PSEUDO_RELOC_LIST_END__` names the places that the runtime rewrites at the start: addresses
//! of another image's variables, which code reaches without `dllimport` (mingw-w64's `pseudo-reloc.c`).

use hpbuild_metadata::{Rva, SectionOffset, Side};

use crate::image::RuntimeLists;
use crate::pe::Pe;

const CONSTRUCTORS: [&str; 2] = ["__CTOR_LIST__", ".refptr.__CTOR_LIST__"];
const DESTRUCTORS: [&str; 2] = ["__DTOR_LIST__", ".refptr.__DTOR_LIST__"];
const REWRITTEN: [&str; 2] = [
    "__RUNTIME_PSEUDO_RELOC_LIST__",
    "__RUNTIME_PSEUDO_RELOC_LIST_END__",
];

/// More entries than lists of functions have.
const MAX_FUNCTIONS: usize = 1 << 16;

/// A symbol of one of the lists, and its place.
pub(super) type Named = (Box<str>, SectionOffset);

/// Whether a symbol tells where one of the lists is.
pub(super) fn is_list(name: &str) -> bool {
    let all = [CONSTRUCTORS, DESTRUCTORS, REWRITTEN];
    all.iter().flatten().any(|it| *it == name)
}

/// Reads the lists that these symbols tell of.
pub(super) fn lists<S: Side>(pe: &Pe<S>, named: &[Named]) -> RuntimeLists<S> {
    let place = |name: &str| {
        let found = named.iter().find(|it| &*it.0 == name)?;
        pe.rva_of_place(found.1)
    };
    let functions = |[list, pointer]: [&str; 2]| {
        let pointed = || {
            let word = pe.bytes(place(pointer)?, 8)?.first_chunk()?;
            pe.rva_of(u64::from_le_bytes(*word))
        };
        functions(pe, place(list).or_else(pointed)?)
    };
    let [start, end] = REWRITTEN.map(place);
    let rewritten = start.zip(end).and_then(|(start, end)| {
        let list = pe.bytes(start, end.checked_sub(start)?)?;
        Some(rewritten(list))
    });
    RuntimeLists {
        constructors: functions(CONSTRUCTORS),
        destructors: functions(DESTRUCTORS),
        rewritten: rewritten.unwrap_or_default(),
    }
}

/// Where the pointers of a list of functions stand; `None` where its end is not found.
fn functions<S: Side>(pe: &Pe<S>, list: Rva<S>) -> Option<(Rva<S>, u32)> {
    let start = list.checked_add(8)?;
    let mut words = pe.bytes_from(start).chunks_exact(8).take(MAX_FUNCTIONS);
    let count = words.position(|word| word.iter().all(|byte| *byte == 0))?;
    Some((start, u32::try_from(count * 8).ok()?))
}

/// The places in a list of what is rewritten, with their bytes.
fn rewritten<S: Side>(list: &[u8]) -> Vec<(Rva<S>, u32)> {
    let word = |bytes: &[u8], at: usize| {
        let word = bytes.get(at..)?.first_chunk()?;
        Some(u32::from_le_bytes(*word))
    };
    let header = [word(list, 0), word(list, 4), word(list, 8)];
    let entry = |entry: &[u8]| Some((Rva::new(word(entry, 4)?), 4));
    let wide = |entry: &[u8]| {
        // The lowest byte of the flags counts bits.
        let bits = word(entry, 8)? & 0xff;
        Some((Rva::new(word(entry, 4)?), bits.div_ceil(8).clamp(1, 8)))
    };
    let mut found: Vec<_> = match header {
        // Without a header: what is added, and where.
        [Some(first), Some(second), _] if first != 0 || second != 0 => {
            list.chunks_exact(8).filter_map(entry).collect()
        }
        [Some(0), Some(0), Some(0)] => list[12..].chunks_exact(8).filter_map(entry).collect(),
        // What is reached, where, and how wide it is.
        [Some(0), Some(0), Some(1)] => list[12..].chunks_exact(12).filter_map(wide).collect(),
        // The runtime refuses any other.
        _ => Vec::new(),
    };
    found.sort_unstable();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use hpbuild_metadata::Fixed;

    use super::*;

    fn places(words: &[u32]) -> Vec<(u32, u32)> {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let found = rewritten::<Fixed>(&bytes);
        found.iter().map(|(rva, size)| (rva.get(), *size)).collect()
    }

    #[test]
    fn every_version_of_the_list() {
        let second = [0, 0, 1, 0x91e8, 0x4008, 64, 0x91e8, 0x4000, 32];
        assert_eq!(places(&second), [(0x4000, 4), (0x4008, 8)]);
        assert_eq!(places(&[0, 0, 0, 5, 0x4000]), [(0x4000, 4)]);
        assert_eq!(places(&[5, 0x4000, 0, 0x4010]), [(0x4000, 4), (0x4010, 4)]);
    }

    #[test]
    fn other_lists_tell_of_nothing() {
        assert_eq!(places(&[]), []);
        assert_eq!(places(&[0, 0, 1, 0x91e8, 0x4008]), []);
        assert_eq!(places(&[0, 0, 2, 0x91e8, 0x4008, 64]), []);
        assert_eq!(places(&[0, 0]), []);
    }

    #[test]
    fn places_that_reach_into_bytes() {
        let lists = RuntimeLists::<Fixed> {
            constructors: None,
            destructors: None,
            rewritten: vec![(Rva::new(0x1000), 8), (Rva::new(0x1010), 4)],
        };
        let first = |rva: u32, size| lists.rewritten_in(Rva::new(rva), size).map(Rva::get);
        assert_eq!(first(0x1007, 1), Some(0x1000));
        assert_eq!(first(0x1008, 8), None);
        assert_eq!(first(0x0ff8, 8), None);
        assert_eq!(first(0x1008, 9), Some(0x1010));
        assert_eq!(first(0x1014, 4), None);
    }
}
