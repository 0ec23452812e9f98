//! What the names of an image say about functions that are looked for.

use crate::names::Functions;
use crate::types::Marks;

/// Before the place of a lambda in clang's name of what a template made of it.
const PLACED_LAMBDA: &str = "lambda at ";

/// Names as they stand in records and publics, with what the records of types add to them.
pub(super) struct Names<'a> {
    pub(super) functions: &'a Functions<'a>,
    pub(super) marks: &'a Marks,
}

impl Names<'_> {
    /// Adds the functions whose types may be arguments of a template in a name. Names in records have
    /// these without their scopes: where there is a linkage name of the Microsoft ABI, it tells.
    pub(super) fn add_of_arguments(
        &self,
        name: &str,
        decorated: Option<&str>,
        found: &mut impl Extend<u32>,
    ) {
        let all = [Some(name), decorated];
        let is_told = |it: &str| it.starts_with('?') && !is_hash(it);
        if all.into_iter().flatten().any(is_told) {
            return;
        }
        for place in name.split(PLACED_LAMBDA).skip(1) {
            match line_of(place) {
                Some(line) => {
                    found.extend(self.marks.lines.get(&line).into_iter().flatten().copied());
                    found.extend(self.marks.placeless.iter().copied());
                }
                None => found.extend(self.marks.lines.values().flatten().copied()),
            }
        }
        let Some((_, arguments)) = name.split_once('<') else {
            return;
        };
        let is_outside = |it: char| !it.is_alphanumeric() && it != '_' && it != '$';
        for word in arguments.split(is_outside) {
            found.extend(self.marks.words.get(word).into_iter().flatten().copied());
        }
    }
}

/// The line of a place: `FILE:LINE:COLUMN'`.
fn line_of(place: &str) -> Option<u32> {
    let end = place.find(['\'', ')', '}']).unwrap_or(place.len());
    let mut parts = place[..end].rsplit(':');
    parts.next()?.parse::<u32>().ok()?;
    parts.next()?.parse().ok()
}

/// Whether a name hides what it is of: a hash of one that would be too long.
pub(super) fn is_hash(name: &str) -> bool {
    name.starts_with("??@")
}

/// Whether this is a name of a variable that a function declares itself, and nothing more.
pub(super) fn is_static_local(name: &str, function: &str) -> bool {
    let readable = match name.starts_with('?') {
        true => undname::demangle(name, undname::Flags::NAME_ONLY)
            .map(|it| it.to_string())
            .unwrap_or_default(),
        false => name.to_owned(),
    };
    let quoted = readable.strip_prefix('`').and_then(|it| {
        let (block, name) = it
            .strip_prefix(function)?
            .strip_prefix("'::`")?
            .split_once("'::")?;
        let is_number = block.bytes().all(|it| it.is_ascii_digit());
        is_number.then_some(name)
    });
    let plain = readable
        .strip_prefix(function)
        .and_then(|it| it.strip_prefix("::"));
    let is_name = |it: &str| {
        !it.is_empty()
            && it
                .chars()
                .all(|it| it.is_alphanumeric() || matches!(it, '_' | '$'))
    };
    quoted.or(plain).is_some_and(is_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_places() {
        assert_eq!(line_of(r"C:\a b.cpp:12:3'>"), Some(12));
        assert_eq!(line_of("a.cpp:12:3),int"), Some(12));
        assert_eq!(line_of("a.cpp"), None);
        assert_eq!(line_of("a.cpp:3"), None);
    }

    #[test]
    fn static_locals() {
        assert!(is_static_local("?x@?1??job@@9@4HA", "job"));
        assert!(is_static_local("`job'::`2'::x", "job"));
        assert!(is_static_local("k::sum::COUNT", "k::sum"));
        for other in [
            "job",
            "job::L::x",
            "`job'::`2'::L::x",
            "?x@L@?1??job@@9@4HA",
            "?x@?1??go@@9@4HA",
            "impl$<k::sum::closure_env$0>::vtable$",
        ] {
            assert!(!is_static_local(other, "job"), "{other}");
        }
    }
}
