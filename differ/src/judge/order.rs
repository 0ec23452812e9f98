//! Lists that the linker gathers, and the order of what stands in them.

use std::collections::{BTreeMap, BTreeSet};

use hpbuild_metadata::{DataId, Rva, Side};

use crate::image::{Group, Image};

/// Object sections with these names are put into order by compilers and linkers for themselves.
const OWN: [&str; 22] = [
    ".00cfg", ".bss", ".data", ".debug", ".didat", ".edata", ".gehcont", ".gfids", ".giats",
    ".gljmp", ".idata", ".msvcjmc", ".orpc", ".pdata", ".rdata", ".reloc", ".retplne", ".rsrc",
    ".text", ".tls", ".voltbl", ".xdata",
];

/// Sections of images that no program asks for by name, beside those.
const OF_TOOLS: [&str; 3] = [".CRT", ".buildid", ".eh_fram"];

/// The lists of the C runtime that rules about initialisers look at.
pub(super) const INITIALISERS: [&str; 4] = [".CRT$XC", ".CRT$XD", ".CRT$XI", ".CRT$XL"];

/// Longer lists are looked at only neighbour by neighbour.
pub(super) const MAX_LIST: usize = 1 << 10;

/// Where an entry came from: entries of one object, and groups, have an order that somebody wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Origin<'a> {
    pub(super) compiland: Option<&'a str>,
    pub(super) group: Option<&'a str>,
}

/// One entry of a list.
pub(super) struct Entry<'a, S: Side> {
    pub(super) rva: Rva<S>,
    /// Its name; none where only the object that gave it is known.
    pub(super) symbol: Option<DataId<S>>,
    pub(super) origin: Origin<'a>,
}

/// The lists of an image by name, in the order of their entries: object sections whose names are the
/// same up to a dollar sign.
pub(super) fn lists<S: Side>(image: &Image<S>) -> BTreeMap<&str, Vec<Entry<'_, S>>> {
    let mut found: BTreeMap<&str, Vec<Entry<'_, S>>> = BTreeMap::new();
    for group in &image.groups {
        if let Some(list) = list_of(&group.name) {
            found.entry(list).or_default().extend(entries(image, group));
        }
    }
    found
}

/// Whether a section of an image has a name that a program gave it. Where nothing tells of groups, all
/// that is in it may be a list.
pub(super) fn is_named_by_program(section: &str) -> bool {
    // Names of more than eight letters, as those of DWARF are, stand elsewhere.
    let is_elsewhere = section.starts_with('/');
    !is_elsewhere && !OWN.contains(&section) && !OF_TOOLS.contains(&section)
}

/// The list that a group is a part of.
fn list_of(group: &str) -> Option<&str> {
    let (name, suffix) = group.split_once('$')?;
    if suffix.is_empty() || OWN.contains(&name) {
        return None;
    }
    // The C runtime has one list for each letter behind the X.
    let list = match name {
        ".CRT" => group.get(..".CRT$XA".len())?,
        _ => name,
    };
    (!INITIALISERS.contains(&list)).then_some(list)
}

fn entries<'a, S: Side>(image: &'a Image<S>, group: &'a Group<S>) -> Vec<Entry<'a, S>> {
    let inside = |rva: Rva<S>| rva.checked_sub(group.rva).is_some_and(|at| at < group.size);
    let entry = |rva, symbol| Entry {
        rva,
        symbol,
        origin: origin(image, rva),
    };
    let first = image.data.partition_point(|it| it.rva < group.rva);
    let symbols = image.data.iter().enumerate().skip(first);
    let symbols = symbols.take_while(|(_, it)| inside(it.rva));
    let mut found: Vec<Entry<'a, S>> = symbols
        .filter(|(_, it)| !it.name.is_empty())
        .map(|(index, it)| entry(it.rva, Some(DataId::new(index))))
        .collect();
    // Of several names of one place the first stands for it.
    found.dedup_by_key(|it| it.rva);
    let first = image.contributions.partition_point(|it| it.rva < group.rva);
    let given = image.contributions[first..].iter();
    let given = given.take_while(|it| inside(it.rva));
    let nameless = given.filter(|contribution| {
        let next = found.partition_point(|it| it.rva < contribution.rva);
        let named = found.get(next);
        let at = named.and_then(|it| it.rva.checked_sub(contribution.rva));
        at.is_none_or(|at| at >= contribution.size)
    });
    let nameless: Vec<_> = nameless.map(|it| entry(it.rva, None)).collect();
    found.extend(nameless);
    found.sort_by_key(|it| it.rva);
    found
}

/// Who gave what stands at `rva`, and in which group it is.
pub(super) fn origin<S: Side>(image: &Image<S>, rva: Rva<S>) -> Origin<'_> {
    let compiland = image.contribution_at(rva).map(|it| it.compiland);
    let compiland = compiland.and_then(|id| image.compilands.get(id.index()));
    let behind = image.groups.partition_point(|it| it.rva <= rva);
    let group = behind.checked_sub(1).map(|index| &image.groups[index]);
    let group = group.filter(|it| rva.checked_sub(it.rva).is_some_and(|at| at < it.size));
    Origin {
        compiland: compiland.map(|it| &*it.place),
        group: group.map(|it| &*it.name),
    }
}

/// Two entries that both sides have and that stand in another order, as indexes of `places`: for each
/// entry of the base, in order, its place in the fixed list and its origin. The order of what
/// different objects put into one group is that of the objects, which nobody wrote in a source.
pub(super) fn swapped(places: &[(usize, Origin<'_>)]) -> Option<(usize, usize)> {
    let reach = if places.len() > MAX_LIST {
        1
    } else {
        places.len()
    };
    let pairs = (0..places.len()).flat_map(|first| {
        let last = first.saturating_add(reach).min(places.len() - 1);
        (first + 1..=last).map(move |second| (first, second))
    });
    let mut pairs = pairs.filter(|&(first, second)| {
        let (before, after) = (&places[first], &places[second]);
        let is_written = before.1.compiland == after.1.compiland || before.1.group != after.1.group;
        before.0 > after.0 && is_written
    });
    pairs.next()
}

/// What is in any list, those of initialisers among them, for rules that look at the rest.
pub(super) fn listed<S: Side>(image: &Image<S>) -> BTreeSet<DataId<S>> {
    let is_list = |name: &str| {
        list_of(name).is_some() || INITIALISERS.iter().any(|list| name.starts_with(list))
    };
    let groups = image.groups.iter().filter(|group| is_list(&group.name));
    let entries = groups.flat_map(|group| entries(image, group));
    entries.filter_map(|entry| entry.symbol).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_lists() {
        for (group, list) in [
            ("lst$m", Some("lst")),
            (".list$a", Some(".list")),
            (".CRT$XTA", Some(".CRT$XT")),
            (".CRT$XCU", None),
            (".CRT$", None),
            (".rdata$zzzdbg", None),
            (".rdata", None),
            ("lst$", None),
        ] {
            assert_eq!(list_of(group), list, "{group}");
        }
    }

    #[test]
    fn orders_that_somebody_wrote() {
        let origin = |compiland, group| Origin {
            compiland: Some(compiland),
            group: Some(group),
        };
        let (a, b) = (origin("a.obj", "l$m"), origin("b.obj", "l$m"));
        let later = origin("b.obj", "l$n");
        assert_eq!(swapped(&[]), None);
        assert_eq!(swapped(&[(0, a), (1, a), (2, b)]), None);
        assert_eq!(swapped(&[(0, a), (2, a), (1, a)]), Some((1, 2)));
        // Two objects change places, with one entry each and in one group; then in two groups.
        assert_eq!(swapped(&[(1, a), (0, b)]), None);
        assert_eq!(swapped(&[(1, a), (0, later)]), Some((0, 1)));
        // Not side by side.
        assert_eq!(swapped(&[(2, a), (0, b), (1, a)]), Some((0, 2)));
    }
}
