//! Places in sources as names: what clang calls a lambda without another name, and what is made of it.
//!
//! ```text
//! base     set<`lambda at a.cpp:11:14'>   v + h.v      set<`lambda at a.cpp:12:14'>   v * h.v
//! fixed    set<`lambda at a.cpp:11:14'>   v - h.v      set<`lambda at a.cpp:12:14'>   v + h.v     ..13:14
//! ```
//!
//! A line more in front gives each lambda another place, and one lambda more the place of the next: a patch
//! that believed such names would send objects of the process to code that is not theirs. So the places of
//! both sides are held against each other before any name is: by what the functions do that have a place in
//! their names, in the order of the places; what is left between two such is the same one, changed, where
//! both sides have as many. The fixed image's names are then written with the places of the base, and those
//! that have none there, with places that no source has. Functions of a place without a partner have none
//! themselves: what else is alike in their names says nothing.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};

use hpbuild_metadata::{Base, Fixed, Side};
use rustc_hash::{FxHashMap, FxHashSet, FxHasher};
use similar::{Algorithm, DiffOp, capture_diff_slices};

use super::content::Contents;
use super::keys::Names;
use crate::names::source_places;
use crate::types::file_name;

/// Of more places of one file, on both sides together, nothing but what occurs once is looked for.
const MOST: usize = 1 << 12;

/// Line and column.
type Place = (u32, u32);

/// For files and places of the fixed image those of the base.
type Partners<'a> = FxHashMap<(&'a str, Place), (&'a str, Place)>;

/// What is done at a place, as numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Done {
    /// By code, and by what it calls.
    by_code: u64,
    /// By constants without a name, too. Without a section for each, these may be joined with others.
    whole: u64,
    /// The function that the place is in; 0 where nothing tells.
    home: u64,
}

/// For each file its places, and for each what is done at it.
type Sites<'a> = BTreeMap<&'a str, BTreeMap<Place, Done>>;

/// Names of procedures with places of the other side, by index.
pub(super) type Renamed = FxHashMap<u32, Box<str>>;

/// What places say of procedures.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Names of the fixed image as the base would have them, where it has them otherwise.
    pub(super) renamed: Renamed,
    /// Procedures with a place that the other side does not have.
    pub(super) alone: (FxHashSet<u32>, FxHashSet<u32>),
}

/// Holds the places of both sides against each other.
pub(super) fn find(b: &Names<'_, Base>, f: &Names<'_, Fixed>) -> Found {
    let (before, after) = (placed(b), placed(f));
    if before.is_empty() || after.is_empty() {
        return Found::default();
    }
    let contents = Contents::of(b, &before, f, &after);
    let content = |index: u32| contents.both_of_base(b.owners[index as usize]);
    let bases = sites(b, &before, content);
    let content = |index: u32| contents.both_of_fixed(f.owners[index as usize]);
    let fixeds = sites(f, &after, content);
    let files = same_files(&bases, &fixeds);
    let mut partners = Partners::default();
    for (file, fixeds) in &fixeds {
        let none = BTreeMap::new();
        let of_base = files.get(file).copied().unwrap_or(file);
        let bases = bases.get(of_base).unwrap_or(&none);
        // No source has a line 0.
        let mut next = (1..).map(|column| (0, column));
        let pairs = pairs(bases, fixeds);
        for place in fixeds.keys() {
            let partner = pairs.get(place).copied().or_else(|| next.next());
            partners.insert((file, *place), (of_base, partner.unwrap_or_default()));
        }
    }
    let names = after.iter().filter_map(|index| {
        let name = with_places(f.name(*index), &partners)?;
        Some((*index, name.into()))
    });
    let known: FxHashSet<(&str, Place)> = partners.values().copied().collect();
    let lacks_partner = |index: &u32| {
        let all = places(b.name(*index));
        !all.iter().all(|it| known.contains(&(it.0, it.1)))
    };
    let is_new = |index: &u32| {
        let all = places(f.name(*index));
        let partner = |it: &(&str, Place, _)| partners.get(&(it.0, it.1)).map(|it| it.1.0);
        !all.iter()
            .all(|it| partner(it).is_some_and(|line| line > 0))
    };
    Found {
        renamed: names.collect(),
        alone: (
            before.iter().copied().filter(lacks_partner).collect(),
            after.iter().copied().filter(is_new).collect(),
        ),
    }
}

/// Files of the fixed image that the base has in another folder, as where another machine or working
/// folder built it: those that alone have so many parts of the path in common.
fn same_files<'a>(bases: &Sites<'a>, fixeds: &Sites<'a>) -> FxHashMap<&'a str, &'a str> {
    /// Parts of a path that are looked at.
    const MOST_PARTS: usize = 16;
    let mut found: FxHashMap<&str, &str> = FxHashMap::default();
    let mut old: Vec<&str> = bases
        .keys()
        .copied()
        .filter(|it| !fixeds.contains_key(it))
        .collect();
    let mut new: Vec<&str> = fixeds
        .keys()
        .copied()
        .filter(|it| !bases.contains_key(it))
        .collect();
    for parts in (1..=MOST_PARTS).rev() {
        let mut once: BTreeMap<Vec<&str>, (Vec<&str>, Vec<&str>)> = BTreeMap::new();
        let end =
            |path: &'a str| -> Vec<&'a str> { path.rsplit(['/', '\\']).take(parts).collect() };
        for path in &old {
            once.entry(end(path)).or_default().0.push(*path);
        }
        for path in &new {
            once.entry(end(path)).or_default().1.push(*path);
        }
        for (old, new) in once.into_values() {
            if let ([old], [new]) = (&*old, &*new) {
                found.insert(*new, *old);
            }
        }
        new.retain(|path| !found.contains_key(path));
        let paired: FxHashSet<&str> = found.values().copied().collect();
        old.retain(|path| !paired.contains(path));
    }
    found
}

/// The procedures whose names have places in them.
fn placed<S: Side>(names: &Names<'_, S>) -> Vec<u32> {
    let all = 0..u32::try_from(names.owners.len()).unwrap_or(u32::MAX);
    let is_placed = |index: &u32| !names.is_plain(*index) && !places(names.name(*index)).is_empty();
    all.filter(is_placed).collect()
}

/// The places in a name: file, line and column, and where in the name the latter two stand.
fn places(name: &str) -> Vec<(&str, Place, std::ops::Range<usize>)> {
    let mut parts = source_places(name);
    // Of several marks in one word each has the place at its end.
    parts.dedup();
    let place = |part: std::ops::Range<usize>| {
        let (line, column) = name[part.clone()].strip_prefix(':')?.split_once(':')?;
        let start = name[..part.start].rfind(" at ")? + " at ".len();
        let place = (line.parse().ok()?, column.parse().ok()?);
        Some((&name[start..part.start], place, part))
    };
    parts.into_iter().filter_map(place).collect()
}

/// What is done at each place: by the functions that have it in their names and no other.
fn sites<'a, S: Side>(
    names: &Names<'a, S>,
    placed: &[u32],
    content: impl Fn(u32) -> Option<(u64, u64)>,
) -> Sites<'a> {
    let mut found: BTreeMap<&str, BTreeMap<Place, BTreeSet<Named<'_>>>> = BTreeMap::new();
    let mut linkages: FxHashMap<(&str, Place), BTreeSet<&str>> = FxHashMap::default();
    for index in placed {
        let places = places(names.name(*index));
        let linkage = names.linkage(*index).and_then(home_in_linkage);
        let is_one = places
            .windows(2)
            .all(|it| (it[0].0, it[0].1) == (it[1].0, it[1].1));
        for (file, place, _) in places {
            let done = found.entry(file).or_default().entry(place).or_default();
            if is_one {
                done.insert((names.stable_name(*index), content(*index)));
            }
            if let Some(linkage) = linkage.filter(|_| is_one) {
                linkages.entry((file, place)).or_default().insert(linkage);
            }
        }
    }
    let homes = names.image.types.homes(&names.image.source_names);
    let home = |file: &str, place: Place| {
        let told = homes.get(&(file_name(file), place.0));
        let told = told.map(|all| all.iter().map(String::as_str).collect::<BTreeSet<_>>());
        let told = told.or_else(|| linkages.get(&(file, place)).cloned());
        told.map_or(0, |all| {
            let mut hasher = FxHasher::default();
            all.hash(&mut hasher);
            hasher.finish()
        })
    };
    let hash = |done: &BTreeSet<Named<'_>>, is_whole: bool| {
        let mut hasher = FxHasher::default();
        for (name, content) in done {
            (name, content.map(|it| (it.0, is_whole.then_some(it.1)))).hash(&mut hasher);
        }
        hasher.finish()
    };
    let done = |file: &str, place: Place, done: BTreeSet<Named<'_>>| Done {
        by_code: hash(&done, false),
        whole: hash(&done, true),
        home: home(file, place),
    };
    let files = found.into_iter().map(|(file, places)| {
        let places = places.into_iter();
        let places = places.map(|(place, it)| (place, done(file, place, it)));
        (file, places.collect())
    });
    files.collect()
}

/// The function in which something without a name is declared, as the linkage name of what is made of it
/// has it in the Itanium C++ ABI: `Z5startvE3` of `_Z4keepIZ5startvE3$_0EvT_`.
fn home_in_linkage(linkage: &str) -> Option<&str> {
    let end = linkage.strip_prefix("_Z")?.find(['$', 'U'])? + "_Z".len();
    let start = linkage[..end].rfind('Z')?;
    (start > 1).then(|| &linkage[start..end])
}

/// A function by its name without places, and by its meaning.
type Named<'a> = (Cow<'a, str>, Option<(u64, u64)>);

/// For places of the fixed image those of the base that are the same: those of each function by
/// themselves, as functions move and take theirs along.
fn pairs(bases: &BTreeMap<Place, Done>, fixeds: &BTreeMap<Place, Done>) -> BTreeMap<Place, Place> {
    let mut homes: BTreeMap<u64, (Vec<Doing>, Vec<Doing>)> = BTreeMap::new();
    for (place, done) in bases {
        homes.entry(done.home).or_default().0.push((*place, *done));
    }
    for (place, done) in fixeds {
        homes.entry(done.home).or_default().1.push((*place, *done));
    }
    let mut found = BTreeMap::new();
    for (old, new) in homes.into_values() {
        found.extend(pairs_of(&old, &new));
    }
    found
}

/// The same of one function.
fn pairs_of(b: &[Doing], f: &[Doing]) -> BTreeMap<Place, Place> {
    let done = |all: &[Doing]| all.iter().map(|it| it.1).collect::<Vec<_>>();
    let ops = match b.len() + f.len() <= MOST {
        true => capture_diff_slices(Algorithm::Myers, &done(b), &done(f)),
        false => Vec::new(),
    };
    let mut found = BTreeMap::new();
    let mut gaps = Vec::new();
    for op in ops {
        let (old, new) = (&b[op.old_range()], &f[op.new_range()]);
        match op {
            DiffOp::Equal { .. } => {
                let both = old.iter().zip(new);
                found.extend(both.map(|(old, new)| (new.0, old.0)));
            }
            _ => gaps.push((old, new)),
        }
    }
    // What moved is the same where only one on each side does that.
    add_unique(&mut found, (b, f), |done| *done);
    for (old, new) in gaps {
        add_unique(&mut found, (old, new), |done| done.by_code);
        let (old, new) = left(&found, (old, new));
        if old.len() == new.len() {
            found.extend(new.into_iter().zip(old).map(|(new, old)| (new.0, old.0)));
        }
    }
    found
}

/// Places with what is done there.
type Doing = (Place, Done);

/// Those without a partner.
fn left(found: &BTreeMap<Place, Place>, (b, f): (&[Doing], &[Doing])) -> (Vec<Doing>, Vec<Doing>) {
    let known: BTreeSet<Place> = found.values().copied().collect();
    let old = b.iter().filter(|it| !known.contains(&it.0));
    let new = f.iter().filter(|it| !found.contains_key(&it.0));
    (old.copied().collect(), new.copied().collect())
}

/// Pairs those of which each side has one alone.
fn add_unique<K: Hash + Eq>(
    found: &mut BTreeMap<Place, Place>,
    sides: (&[Doing], &[Doing]),
    key: impl Fn(&Done) -> K,
) {
    let (old, new) = left(found, sides);
    let mut once: FxHashMap<K, (Vec<Place>, Vec<Place>)> = FxHashMap::default();
    for (place, done) in old {
        once.entry(key(&done)).or_default().0.push(place);
    }
    for (place, done) in new {
        if let Some(known) = once.get_mut(&key(&done)) {
            known.1.push(place);
        }
    }
    let alone = once.into_values();
    found.extend(alone.filter_map(|(old, new)| match (&*old, &*new) {
        ([old], [new]) => Some((*new, *old)),
        _ => None,
    }));
}

/// A name with other places in it; `None` where they are the same.
fn with_places(name: &str, partners: &Partners<'_>) -> Option<String> {
    let mut renamed = String::with_capacity(name.len());
    let mut end = 0;
    for (file, place, part) in places(name) {
        let (of_base, (line, column)) = partners.get(&(file, place))?;
        renamed.push_str(name.get(end..part.start.checked_sub(file.len())?)?);
        renamed.push_str(&format!("{of_base}:{line}:{column}"));
        end = part.end;
    }
    renamed.push_str(&name[end..]);
    (renamed != name).then_some(renamed)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{Done, Place, pairs, places};

    fn done(all: &[(u32, u64)]) -> BTreeMap<Place, Done> {
        let done = |number: u64| Done {
            by_code: number % 10,
            whole: number,
            home: number / 100,
        };
        let all = all.iter();
        all.map(|(line, number)| ((*line, 14), done(*number)))
            .collect()
    }

    #[test]
    fn places_in_names() {
        let name = "f<`lambda at C:\\s\\a.cpp:1:2',(unnamed struct at x.h:10:3)>::g";
        let found = places(name);
        assert_eq!((found[0].0, found[0].1), ("C:\\s\\a.cpp", (1, 2)));
        assert_eq!((found[1].0, found[1].1), ("x.h", (10, 3)));
        assert_eq!(&name[found[1].2.clone()], ":10:3");
        assert_eq!(
            places("f<`lambda at C:\\look at this\\a.cpp:1:2'>").len(),
            1
        );
        assert!(places("f at 1:2").is_empty());
    }

    #[test]
    fn lambdas_keep_their_order() {
        let lines = |base: &[(u32, u64)], fixed: &[(u32, u64)]| {
            let found = pairs(&done(base), &done(fixed)).into_iter();
            found.map(|(new, old)| (old.0, new.0)).collect::<Vec<_>>()
        };
        // One more in front takes the place of the next.
        let base = [(11, 1), (12, 2)];
        assert_eq!(
            lines(&base, &[(11, 3), (12, 1), (13, 2)]),
            [(11, 12), (12, 13)]
        );
        // One changed, and another one came behind.
        assert_eq!(
            lines(&base, &[(11, 3), (12, 2), (17, 4)]),
            [(11, 11), (12, 12)]
        );
        // One changed, and another one came beside it: nobody knows which is which.
        assert_eq!(lines(&base, &[(11, 3), (12, 4), (13, 2)]), [(12, 13)]);
        // Code tells which is which, though a constant beside it differs.
        assert_eq!(
            lines(&base, &[(11, 3), (12, 21), (13, 2)]),
            [(11, 12), (12, 13)]
        );
        // Two changed places.
        assert_eq!(lines(&base, &[(11, 2), (12, 1)]), [(12, 11), (11, 12)]);
        // One goes, and another one comes in another function.
        assert_eq!(lines(&base, &[(11, 1), (13, 104)]), [(11, 11)]);
        // One goes, and another one comes elsewhere.
        assert_eq!(lines(&base, &[(11, 2), (12, 4)]), [(12, 11)]);
        // A function moves in front of another one, and one of its own changes.
        let base = [(11, 101), (12, 102), (21, 201), (22, 202)];
        assert_eq!(
            lines(&base, &[(11, 203), (12, 202), (21, 101), (22, 102)]),
            [(21, 11), (22, 12), (11, 21), (12, 22)]
        );
    }

    #[test]
    fn homes_in_linkage_names() {
        let home = |name| super::home_in_linkage(name);
        assert_eq!(home("_Z4keepIZ5startvE3$_0EvT_"), Some("Z5startvE3"));
        assert_eq!(
            home("_ZNK4KeptIZN1n5startEvEUlvE_E3runEv"),
            Some("ZN1n5startEvE")
        );
        assert_eq!(home("_Z4keepIiEvT_"), None);
        assert_eq!(home("?keep@@YAXXZ"), None);
    }

    #[test]
    fn files_in_other_folders() {
        let sites = |files: &[&'static str]| {
            let files = files.iter().map(|it| (*it, BTreeMap::new()));
            files.collect::<super::Sites<'static>>()
        };
        let bases = sites(&[
            "C:\\w\\1\\a\\x.cpp",
            "C:\\w\\1\\b\\x.cpp",
            "C:\\w\\1\\y.cpp",
            "z.h",
        ]);
        let fixeds = sites(&[
            "C:\\w\\27\\a\\x.cpp",
            "C:\\w\\27\\b\\x.cpp",
            "C:\\w\\27\\y.cpp",
            "z.h",
        ]);
        let found = super::same_files(&bases, &fixeds);
        assert_eq!(found["C:\\w\\27\\b\\x.cpp"], "C:\\w\\1\\b\\x.cpp");
        assert_eq!(found["C:\\w\\27\\y.cpp"], "C:\\w\\1\\y.cpp");
        assert_eq!(found.len(), 3);
    }
}
