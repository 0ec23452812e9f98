//! Object files of one name, told apart by as much of their folders as that takes.

use std::collections::BTreeMap;

use crate::image::Compiland;

/// No path is cut into more parts.
const MAX_PARTS: usize = 64;

/// Gives every compiland its place. Those of one short name get the folders in front of it in which
/// they differ. Members of archives have none, and are not told apart.
pub(super) fn tell_apart(compilands: &mut [Compiland]) {
    let mut namesakes: BTreeMap<Box<str>, Vec<usize>> = BTreeMap::new();
    for (index, compiland) in compilands.iter_mut().enumerate() {
        compiland.place = compiland.short_name.clone();
        let name = compiland.short_name.clone();
        namesakes.entry(name).or_default().push(index);
    }
    for (name, group) in namesakes {
        if group.len() < 2 {
            continue;
        }
        let folders: Vec<Vec<String>> = group
            .iter()
            .map(|index| folders(&compilands[*index].name))
            .collect();
        let shared = (0..MAX_PARTS)
            .take_while(|part| {
                let first = folders[0].get(*part);
                first.is_some() && folders.iter().all(|it| it.get(*part) == first)
            })
            .count();
        for (index, folders) in group.into_iter().zip(folders) {
            let mut parts = folders[shared..].to_vec();
            parts.push(name.to_string());
            compilands[index].place = parts.join("/").into();
        }
    }
}

/// The folders of a path, outermost first.
fn folders(path: &str) -> Vec<String> {
    let mut parts: Vec<String> = path
        .split(['/', '\\'])
        .map(str::to_owned)
        .take(MAX_PARTS)
        .collect();
    parts.pop();
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lines::LineRecords;

    fn places(names: &[&str]) -> Vec<String> {
        let compiland = |name: &&str| {
            let short: Box<str> = crate::names::of_object(name).into();
            Compiland {
                name: (*name).into(),
                place: short.clone(),
                short_name: short,
                tool: None,
                lines: LineRecords::default(),
            }
        };
        let mut compilands: Vec<_> = names.iter().map(compiland).collect();
        tell_apart(&mut compilands);
        compilands.iter().map(|it| it.place.to_string()).collect()
    }

    #[test]
    fn folders_that_differ_tell() {
        assert_eq!(
            places(&[
                "C:\\build 1\\p\\util.obj",
                "C:\\build 1\\q\\util.obj",
                "C:\\build 1\\a.obj"
            ]),
            ["p/util.obj", "q/util.obj", "a.obj"]
        );
        assert_eq!(
            places(&["util.obj", "x/util.obj"]),
            ["util.obj", "x/util.obj"]
        );
        assert_eq!(
            places(&["u.obj", "u.obj", "u.obj"]),
            ["u.obj", "u.obj", "u.obj"]
        );
    }
}
