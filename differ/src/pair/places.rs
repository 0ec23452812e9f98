//! Where functions are from.
//!
//! That is their object file, but for those of link-time optimisation: it makes one object of all
//! sources, and the line records tell of which each function is.

use std::collections::BTreeSet;

use hpbuild_metadata::{FunctionId, Side};
use rayon::prelude::*;
use rustc_hash::{FxHashMap, FxHashSet};

use crate::image::Image;
use crate::names::is_joint_object;
use crate::source::source_of;

/// So many folders in front of the name of a source tell it from others.
const MAX_FOLDERS: usize = 4;

/// The places of the functions of one image.
pub(super) struct Places<'a, S: Side> {
    image: &'a Image<S>,
    /// For each body of an object that is made of several sources its source, without folders.
    sources: FxHashMap<FunctionId<S>, Box<str>>,
    /// The places of all object files, and all those sources.
    all: FxHashSet<Box<str>>,
}

impl<'a, S: Side> Places<'a, S> {
    pub(super) fn new(image: &'a Image<S>) -> Self {
        let sources = sources(image);
        let mut all: FxHashSet<Box<str>> =
            image.compilands.iter().map(|it| it.place.clone()).collect();
        all.extend(sources.values().cloned());
        Self {
            image,
            sources,
            all,
        }
    }

    /// The object file, or the source, without folders.
    pub(super) fn short(&self, id: FunctionId<S>) -> Option<&str> {
        let compiland = self.image.function(id).compiland?;
        let compiland = self.image.compilands.get(compiland.index())?;
        let source = self.sources.get(&id);
        Some(source.map_or(&compiland.short_name, |it| &**it))
    }

    /// The object file with the folders in which it differs from others of its name, or the source.
    pub(super) fn exact(&self, id: FunctionId<S>) -> Option<&str> {
        let compiland = self.image.function(id).compiland?;
        let compiland = self.image.compilands.get(compiland.index())?;
        let source = self.sources.get(&id);
        Some(source.map_or(&compiland.place, |it| &**it))
    }

    /// Whether anything of the image is from there.
    pub(super) fn has(&self, place: &str) -> bool {
        self.all.contains(place)
    }
}

/// The sources of the bodies of joint objects: their names, with as many folders as it takes to tell them
/// from others.
fn sources<S: Side>(image: &Image<S>) -> FxHashMap<FunctionId<S>, Box<str>> {
    let compilands = image.compilands.iter();
    let joint: Vec<bool> = compilands.map(|it| is_joint_object(&it.name)).collect();
    if !joint.contains(&true) {
        return FxHashMap::default();
    }
    let is_joint = |id: &FunctionId<S>| {
        let compiland = image.function(*id).compiland;
        compiland.is_some_and(|it| joint.get(it.index()) == Some(&true))
    };
    let ids: Vec<_> = image.function_ids().filter(is_joint).collect();
    let found = ids.par_iter();
    let found = found.filter_map(|id| Some((*id, source_of(image, *id, 0)?.file)));
    let found: Vec<(FunctionId<S>, String)> = found.collect();
    let mut paths: FxHashMap<&str, BTreeSet<&str>> = FxHashMap::default();
    for (_, path) in &found {
        paths.entry(end_of(path, 0)).or_default().insert(path);
    }
    let mut told: FxHashMap<&str, &str> = FxHashMap::default();
    for namesakes in paths.into_values() {
        told.extend(told_apart(&namesakes));
    }
    let known = found.iter();
    let known = known.filter_map(|(id, path)| Some((*id, (*told.get(&**path)?).into())));
    known.collect()
}

/// The ends of paths that tell them apart, each for its path; none where that takes too many folders.
fn told_apart<'a>(paths: &BTreeSet<&'a str>) -> FxHashMap<&'a str, &'a str> {
    let mut told = FxHashMap::default();
    for folders in 0..=MAX_FOLDERS {
        let mut ends: FxHashMap<&str, usize> = FxHashMap::default();
        for path in paths {
            *ends.entry(end_of(path, folders)).or_default() += 1;
        }
        for path in paths {
            let end = end_of(path, folders);
            if ends.get(end) == Some(&1) {
                told.entry(*path).or_insert(end);
            }
        }
    }
    told
}

/// The name of a file, behind so many folders.
fn end_of(path: &str, folders: usize) -> &str {
    let mut separators = path.rmatch_indices(['/', '\\']);
    separators
        .nth(folders)
        .map_or(path, |(at, _)| &path[at + 1..])
}

#[cfg(test)]
mod tests {
    use super::{BTreeSet, end_of, told_apart};

    #[test]
    fn names_with_folders() {
        let path = "C:\\one/two\\three.c";
        assert_eq!(end_of(path, 0), "three.c");
        assert_eq!(end_of(path, 1), "two\\three.c");
        assert_eq!(end_of(path, 3), path);
    }

    #[test]
    fn ends_that_tell_paths_apart() {
        let deep = ["/1/c/c/c/c/x.c", "/2/c/c/c/c/x.c"];
        let paths: BTreeSet<&str> = ["a/x.c", "b/x.c", "c/b/x.c"]
            .into_iter()
            .chain(deep)
            .collect();
        let told = told_apart(&paths);
        let end = |path| told.get(path).copied();
        assert_eq!(end("a/x.c"), Some("a/x.c"));
        assert_eq!(end("b/x.c"), Some("b/x.c"));
        assert_eq!(end("c/b/x.c"), Some("c/b/x.c"));
        assert!(deep.into_iter().all(|path| end(path).is_none()));
    }
}
