//! Where names count lambdas and closures: one more in front gives all others of the function
//! another number, and the same number may be another one.

use std::ops::Range;

use super::{has_mark, without};

/// Between what compilers write the position of a lambda or closure in its function: Clang and
/// MSVC, Clang with the Itanium C++ ABI, rustc in PDBs, and rustc in DWARF.
const MARKS: [(&str, &str); 6] = [
    ("<lambda_", ">"),
    ("<lambda", ">"),
    ("closure$", ""),
    ("closure_env$", ""),
    ("{closure#", "}"),
    ("{closure_env#", "}"),
];

/// How clang counts lambdas that no other object can name.
const CLANG_LAMBDA: &str = "$_";

/// More digits are no position: MSVC has hashes of 32.
const MAX_DIGITS: usize = 31;

/// Whether the name counts lambdas or closures.
pub(crate) fn is_position(name: &str) -> bool {
    has_mark(name.as_bytes()) && digits(name).next().is_some()
}

/// Whether a linkage name of the Microsoft or the Itanium C++ ABI counts lambdas.
pub(crate) fn is_position_in_linkage(linkage: &str) -> bool {
    !itanium_digits(linkage).is_empty() || linkage.contains("<lambda_") && is_position(linkage)
}

/// Whether a function with these names is one of a lambda or closure. MSVC has hashes for their
/// positions.
pub(crate) fn is_of_lambda(name: &str, linkage: Option<&str>) -> bool {
    name.contains("<lambda_") || is_position(name) || linkage.is_some_and(is_position_in_linkage)
}

/// The positions in a function's name, or else in its linkage name, one for each lambda or closure
/// that it stands in; empty where neither counts any.
pub(crate) fn of_function(name: &str, linkage: Option<&str>) -> Vec<u32> {
    let linkage = linkage.unwrap_or_default();
    let found = [of_name(name), of_name(linkage)];
    let found = found.into_iter().find(|it| !it.is_empty());
    found.unwrap_or_else(|| of_itanium(linkage))
}

fn of_name(name: &str) -> Vec<u32> {
    let mut found: Vec<_> = digits(name).collect();
    found.sort_unstable_by_key(|digits| digits.start);
    let numbers = found.into_iter();
    numbers.filter_map(|it| name[it].parse().ok()).collect()
}

fn of_itanium(linkage: &str) -> Vec<u32> {
    let number = |digits: Range<usize>| {
        let is_own = linkage[..digits.start].ends_with(CLANG_LAMBDA);
        match &linkage[digits] {
            // The first has none, and the second is 0.
            "" => Some(0),
            number if is_own => number.parse().ok(),
            number => number.parse::<u32>().ok()?.checked_add(1),
        }
    };
    let found = itanium_digits(linkage).into_iter();
    found.filter_map(number).collect()
}

/// Where the digits of positions are, those of each kind of mark together.
pub(super) fn digits(name: &str) -> impl Iterator<Item = Range<usize>> {
    MARKS.iter().flat_map(move |(before, behind)| {
        let parts = name.match_indices(before);
        parts.filter_map(move |(at, _)| {
            let digits = digits_at(name, at + before.len());
            let is_number = (1..=MAX_DIGITS).contains(&digits.len());
            (is_number && name[digits.end..].starts_with(behind)).then_some(digits)
        })
    })
}

/// A linkage name of the Itanium C++ ABI without its positions; `None` where it has none.
pub(super) fn without_itanium(linkage: &str) -> Option<String> {
    let mut stable = linkage.to_owned();
    without(&mut stable, itanium_digits(linkage));
    (stable != linkage).then_some(stable)
}

/// Where a linkage name of the Itanium C++ ABI counts lambdas: `Ul`, parameters, `E`, digits or
/// none, `_` (5.1.8); and clang's `$_` with digits. In their order.
fn itanium_digits(linkage: &str) -> Vec<Range<usize>> {
    if !linkage.starts_with("_Z") {
        return Vec::new();
    }
    let own = linkage.match_indices(CLANG_LAMBDA);
    let own = own.map(|(at, mark)| digits_at(linkage, at + mark.len()));
    let own = own.filter(|it| !it.is_empty());
    let ends = linkage.match_indices('E');
    let ends = ends.map(|(at, _)| digits_at(linkage, at + 1));
    // What a lambda in the parameters of another ends with, the other one ends with as well.
    let mut ends = ends
        .filter(|it| linkage[it.end..].starts_with('_'))
        .peekable();
    let shared = linkage.match_indices("Ul").filter_map(|(at, _)| {
        while ends.next_if(|it| it.start <= at).is_some() {}
        ends.peek().cloned()
    });
    let mut found: Vec<_> = own.chain(shared).collect();
    found.sort_unstable_by_key(|it| it.start);
    found.dedup();
    found
}

/// The decimal digits that begin at `at`, none included.
fn digits_at(name: &str, at: usize) -> Range<usize> {
    let rest = name[at..].bytes();
    at..at + rest.take_while(u8::is_ascii_digit).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::{of_type, without_generated_parts};

    #[test]
    fn removed() {
        for (numbered, stable) in [
            ("`f'::`2'::<lambda_1>", "`f'::`2'::<lambda_>"),
            (
                "a::f::closure$12<a::f::closure_env$3>",
                "a::f::closure$<a::f::closure_env$>",
            ),
            ("a::f::{closure#0}", "a::f::{closure#}"),
        ] {
            assert_eq!(without_generated_parts(numbered).as_deref(), Some(stable));
            assert!(is_position(numbered) && !is_position(stable));
        }
        assert!(!is_position("closure$x") && !is_position("enclosure"));
        assert_eq!(
            of_type("_ZTSZ5init2vEUliE0_"),
            of_type("_ZTSZ5init2vEUliE_")
        );
        assert_ne!(
            of_type("_ZTSZ5init2vEUliE0_"),
            of_type("_ZTSZ5init2vEUljE_")
        );
    }

    #[test]
    fn numbers() {
        let inline = "_ZZ5init2vENUliE0_8__invokeEi";
        assert_eq!(of_function("init2::__invoke", Some(inline)), [1]);
        assert_eq!(of_function("f", Some("_ZZ4initENK3$_2clEi")), [2]);
        assert_eq!(of_function("f", Some("_ZZ4initENKUlvE_clEv")), [0]);
        assert_eq!(of_function("f::<lambda_3>::g::<lambda_1>", None), [3, 1]);
        let nested = "_ZZ1fvENKUlZ1gvEUliE0_E2_clEv";
        assert_eq!(of_function("f", Some(nested)), [1]);
        let made = "?call@?$Impl@V<lambda_2>@?0??f@@YAXXZ@@@UEBAHH@Z";
        assert_eq!(
            of_function("Impl<`lambda at a.cpp:3:4'>::call", Some(made)),
            [2]
        );
        let hostile = format!("_Z{}{}", "Ul".repeat(200_000), "E".repeat(200_000));
        assert!(of_function("f", Some(&hostile)).is_empty());
        assert!(is_position_in_linkage(made));
        assert!(!is_position_in_linkage("_Z4Ulfsi") && !is_position_in_linkage("?f@@YAXXZ"));
    }
}
