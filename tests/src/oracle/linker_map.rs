//! Where the linker put what, as it says itself: the file that `/map` makes.
//!
//! A line of it is ` 0001:00000350       name  0000000180001350     object`, and the object is
//! `library:object` where it comes out of one.

use std::collections::{BTreeMap, BTreeSet};

/// Symbols of an image. What the linker dropped is not in it.
#[derive(Clone, Debug, Default)]
pub struct LinkerMap {
    /// RVAs by object and symbol.
    places: BTreeMap<(String, String), u64>,
    /// RVAs by symbol, of those that all objects see.
    publics: BTreeMap<String, u64>,
    /// The names that stand at an RVA.
    names: BTreeMap<u64, Vec<String>>,
}

impl LinkerMap {
    /// Reads a map. Lines that are no symbol are passed over.
    #[must_use]
    pub fn read(text: &str) -> LinkerMap {
        let mut map = LinkerMap::default();
        let mut base = 0;
        let mut is_static = false;
        for line in text.lines() {
            if let Some(address) = line.trim().strip_prefix("Preferred load address is ") {
                base = u64::from_str_radix(address, 16).unwrap_or(0);
            }
            is_static |= line.trim() == "Static symbols";
            let Some((name, address, object)) = symbol(line) else {
                continue;
            };
            let rva = address.wrapping_sub(base);
            let object = object.split_once(':').map_or(object, |(_, member)| member);
            if !is_static {
                map.publics.insert(name.to_owned(), rva);
            }
            map.places.insert((object.to_owned(), name.to_owned()), rva);
            map.names.entry(rva).or_default().push(name.to_owned());
        }
        map
    }

    /// The objects that anything comes from.
    #[must_use]
    pub fn objects(&self) -> BTreeSet<&str> {
        self.places
            .keys()
            .map(|(object, _)| object.as_str())
            .collect()
    }

    /// Where a symbol is: of an object, or of all.
    pub(super) fn place(&self, object: &str, symbol: &str, global: bool) -> Option<u64> {
        if global {
            return self.publics.get(symbol).copied();
        }
        let key = (object.to_owned(), symbol.to_owned());
        self.places.get(&key).copied()
    }

    /// The names of what is at an RVA.
    #[must_use]
    pub fn names(&self, rva: u64) -> &[String] {
        self.names.get(&rva).map_or(&[], Vec::as_slice)
    }
}

/// Name, address and object of a line that has them.
fn symbol(line: &str) -> Option<(&str, u64, &str)> {
    let (place, rest) = line.trim().split_once(' ')?;
    let (section, offset) = place.split_once(':')?;
    let is_place = section.len() == 4 && offset.len() == 8 && section != "0000";
    let (name, rest) = rest.trim_start().split_once(' ')?;
    let (address, object) = rest.trim_start().split_once(' ')?;
    let address = u64::from_str_radix(address, 16).ok()?;
    is_place.then_some((name, address, object.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAP: &str = "\
 library

 Preferred load address is 0000000180000000

 Start         Length     Name                   Class
 0001:00000000 00019784H .text                   CODE

  Address         Publics by Value              Rva+Base               Lib:Object

 0000:00000000       __ImageBase                0000000180000000     <linker-defined>
 0001:00000010       inflate                    0000000180001010     inflate.obj
 0001:00000100       push                       0000000180001100     crate:vec.o
 entry point at         0001:00000000

 Static symbols

 0001:00000200       helper                     0000000180001200     inflate.obj
 0001:00000210       helper                     0000000180001210     crate:vec.o
";

    #[test]
    fn symbols_of_a_map() {
        let map = LinkerMap::read(MAP);
        assert_eq!(map.place("other.obj", "inflate", true), Some(0x1010));
        assert_eq!(map.place("inflate.obj", "helper", false), Some(0x1200));
        assert_eq!(map.place("vec.o", "helper", false), Some(0x1210));
        assert_eq!(map.place("deflate.obj", "helper", false), None);
        assert_eq!(map.place("inflate.obj", "helper", true), None);
        assert_eq!(map.names(0x1210), ["helper"]);
        assert!(map.names(0).is_empty());
        let objects: Vec<_> = map.objects().into_iter().collect();
        assert_eq!(objects, ["inflate.obj", "vec.o"]);
    }
}
