//! Which function a type is declared in, and which names have to do with it.

use rustc_hash::FxHashMap;
use undname::Flags;

/// How names are made readable here: arguments of templates as records have them.
const PLAINLY: Flags = Flags::NO_TAG_SPECIFIER;

/// What a member of the scopes of this language stands behind.
const SCOPE: &str = "::";

/// How rustc calls the type of a closure, and its code.
const CLOSURE: &str = "closure_env$";
const CLOSURE_CODE: &str = "::closure$";

/// Closures in one name that are looked at; each may be followed by all others.
const MAX_CLOSURES: usize = 64;

/// The one function in which the type of these names is declared, however deep, or all types
/// without which it would have another name. `None` where there is none, where there are several,
/// and where the names do not say: those of the Itanium C++ ABI, and of what may be suspended.
pub(crate) fn function_around(plain: &str, unique: Option<&str>) -> Option<String> {
    match unique {
        Some(unique) if unique.starts_with(".?A") => {
            let readable = undname::demangle(unique, Flags::NAME_ONLY).ok()?;
            only(functions_in(&readable.to_string())?)
        }
        Some(unique) if unique.starts_with("_Z") => None,
        _ if plain.contains("_env$") => only(functions_of_closures(plain)?),
        // rustc's unique names are hashes, and C has none: nothing else there is in a function.
        Some(_) => None,
        None => {
            let (function, name) = plain.rsplit_once(SCOPE)?;
            let is_name = |text: &str| !text.is_empty() && text.bytes().all(is_of_identifier);
            (is_name(function) && is_name(name)).then(|| function.to_owned())
        }
    }
}

/// The only one of these names.
fn only(mut names: Vec<String>) -> Option<String> {
    let first = names.pop()?;
    names.iter().all(|it| *it == first).then_some(first)
}

/// The functions in a readable name of the Microsoft ABI within which something is declared
/// (`` `f'::`2'::x ``) and that are not themselves declared within one. `None` where the quotes do
/// not match.
fn functions_in(readable: &str) -> Option<Vec<String>> {
    let mut open: Vec<(usize, bool)> = Vec::new();
    let mut found = Vec::new();
    for (at, mark) in readable.match_indices(['`', '\'']) {
        if mark == "`" {
            open.push((at + 1, false));
            continue;
        }
        let (start, has_inner) = open.pop()?;
        let is_function = readable[at + 1..]
            .strip_prefix("::`")
            .is_some_and(|it| it.starts_with(|it: char| it.is_ascii_digit()));
        if is_function && !has_inner {
            found.push(readable[start..at].to_owned());
        }
        if (is_function || has_inner)
            && let Some(outer) = open.last_mut()
        {
            outer.1 = true;
        }
    }
    open.is_empty().then_some(found)
}

/// The functions whose closures stand in a name of rustc: of closures within closures the outermost,
/// of closures of what a generic function made of another one, the latter's. `None` where anything
/// else in the name is the state of a function.
fn functions_of_closures(plain: &str) -> Option<Vec<String>> {
    let is_closure = |at: usize| plain[..at + "_env$".len()].ends_with(CLOSURE);
    if !plain.match_indices("_env$").all(|(at, _)| is_closure(at)) {
        return None;
    }
    if plain.matches(CLOSURE).count() > MAX_CLOSURES {
        return None;
    }
    let mut found = Vec::new();
    for (at, _) in plain.match_indices(CLOSURE) {
        let behind = plain[at + CLOSURE.len()..].trim_start_matches(|it: char| it.is_ascii_digit());
        let own = arguments(behind);
        if own.contains(CLOSURE) {
            continue;
        }
        let is_of_path = |it: char| it.is_alphanumeric() || matches!(it, ':' | '$' | '_');
        let start = plain[..at].trim_end_matches(is_of_path).len();
        let path = plain[start..at].strip_suffix(SCOPE)?;
        let function = path.find(CLOSURE_CODE).map_or(path, |at| &path[..at]);
        let is_plain = function.split(SCOPE).all(|part| {
            let name = part.strip_prefix("impl$").unwrap_or(part);
            !name.is_empty() && !name.contains('$')
        });
        if !is_plain {
            return None;
        }
        found.push(function.to_owned());
    }
    Some(found)
}

/// The arguments that a text begins with, in brackets; empty where it begins with none.
fn arguments(text: &str) -> &str {
    let mut depth = 0_usize;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'<' => depth += 1,
            b'>' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return &text[..at];
        }
    }
    text
}

/// Functions that are looked for in names, by the last word of theirs.
#[derive(Debug, Default)]
pub(crate) struct Functions<'a> {
    names: &'a [String],
    by_word: FxHashMap<&'a str, Vec<u32>>,
    /// How long these words are, each length once.
    lengths: Vec<usize>,
}

impl<'a> Functions<'a> {
    pub(crate) fn new(names: &'a [String]) -> Self {
        let mut by_word: FxHashMap<&str, Vec<u32>> = FxHashMap::default();
        for (index, name) in (0..).zip(names) {
            by_word.entry(last_word(name).1).or_default().push(index);
        }
        let mut lengths: Vec<usize> = names.iter().map(|it| last_word(it).1.len()).collect();
        lengths.sort_unstable();
        lengths.dedup();
        Self {
            names,
            by_word,
            lengths,
        }
    }

    /// Adds those functions in whose scope something of this name may be, or that it may mention
    /// otherwise. Encoded names are made readable; of one that cannot be, any that has the word.
    pub(crate) fn add_mentioned(&self, name: &str, found: &mut Vec<u32>) {
        if !name.starts_with(['?', '.', '_']) {
            return self.add_of_readable(name, found);
        }
        let is_encoded = ["?", ".?A", "_TI", "_CT"];
        if !is_encoded.iter().any(|it| name.starts_with(it)) {
            return self.add_of_readable(name, found);
        }
        // What is declared in a function has the function's own encoding in its name.
        if name.starts_with("??_C@") || !name[1..].contains("??") {
            return;
        }
        let suspects = self.with_word_in(name);
        if suspects.is_empty() {
            return;
        }
        match undname::demangle(name, PLAINLY) {
            Ok(readable) => self.add_of_readable(&readable.to_string(), found),
            Err(_) => found.extend(suspects),
        }
    }

    /// Those with a word of an encoded name that ends so: codes of types stand in front of words.
    fn with_word_in(&self, name: &str) -> Vec<u32> {
        let words = name.split(|it: char| it.is_ascii() && !is_of_identifier(it as u8));
        let ends = words.flat_map(|word| {
            let starts = self.lengths.iter().map(|it| word.len().checked_sub(*it));
            starts.filter_map(move |start| word.get(start?..))
        });
        let found = ends.filter_map(|word| self.by_word.get(word));
        found.flatten().copied().collect()
    }

    fn add_of_readable(&self, text: &str, found: &mut Vec<u32>) {
        let mut at = 0_usize;
        let is_outside = |it: char| it.is_ascii() && !is_of_identifier(it as u8);
        for word in text.split(is_outside) {
            for index in self.by_word.get(word).into_iter().flatten() {
                let name = &*self.names[*index as usize];
                let start = at.checked_sub(last_word(name).0);
                let here = start.and_then(|start| Some((&text[..start], text.get(start..)?)));
                let is_it = here.is_some_and(|(before, rest)| {
                    rest.strip_prefix(name).is_some_and(|behind| {
                        !before.ends_with(|it| it == ':' || !is_outside(it))
                            && behind.chars().next().is_none_or(is_outside)
                    })
                });
                if is_it {
                    found.push(*index);
                }
            }
            at += word.len() + 1;
        }
    }
}

/// Where the last word of a function's own name is, arguments left out, and the word.
fn last_word(name: &str) -> (usize, &str) {
    let own = name.split('<').next().unwrap_or(name);
    let own = own.trim_end_matches(|it: char| it.is_ascii() && !is_of_identifier(it as u8));
    let start = own
        .rfind(|it: char| it.is_ascii() && !is_of_identifier(it as u8))
        .map_or(0, |at| at + 1);
    (start, &own[start..])
}

fn is_of_identifier(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$') || !byte.is_ascii()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_around_types() {
        for (unique, function) in [
            (".?AV<lambda_1>@?0??job@@9@", Some("job")),
            (
                ".?AV<lambda_0>@?0??job2@K@ns@@QEAAHH@Z@",
                Some("ns::K::job2"),
            ),
            (".?AU?$Defer@V<lambda_1>@?0??job@@9@@@", Some("job")),
            (
                ".?AV<lambda_1>@?0???R<lambda_0>@?0??job@@9@QEBA@XZ@",
                Some("job"),
            ),
            (
                ".?AUL@?1??f@?A0x12345678@@YAHH@Z@",
                Some("`anonymous namespace'::f"),
            ),
            (".?AUL@?1???$run@H@@YAHH@Z@", Some("run<int>")),
            (
                ".?AU?$Two@V<lambda_1>@?0??f@@9@V<lambda_2>@?0??f@@9@@@",
                Some("f"),
            ),
            (
                ".?AU?$Two@V<lambda_1>@?0??f@@9@V<lambda_2>@?0??g@@9@@@",
                None,
            ),
            (".?AUL@@", None),
            (".?AUL@K@ns@@", None),
            (".?AV<lambda_1>@?A0x12345678@@", None),
        ] {
            let found = function_around("x", Some(unique));
            assert_eq!(found.as_deref(), function, "{unique}");
        }
        assert_eq!(
            function_around("one::L1", None).as_deref(),
            Some("one"),
            "of C"
        );
        for plain in ["L1", "a<b>::c", "::L1"] {
            assert_eq!(function_around(plain, None), None, "{plain}");
        }
        assert_eq!(function_around("f::L", Some("_ZTSZ1fvE1L")), None);
    }

    #[test]
    fn functions_around_closures() {
        let hash = Some("0123456789abcdef0123456789abcdef");
        for (plain, function) in [
            ("k::sum::closure_env$0", Some("k::sum")),
            ("k::impl$2::sum::closure_env$0<u32>", Some("k::impl$2::sum")),
            (
                "core::iter::Map<core::slice::Iter<u32>,k::sum::closure_env$1>",
                Some("k::sum"),
            ),
            ("k::sum::closure$0::closure_env$1", Some("k::sum")),
            (
                "core::map_fold::closure_env$0<u32,k::sum::closure_env$0>",
                Some("k::sum"),
            ),
            (
                "tuple$<k::sum::closure_env$0,k::other::closure_env$0>",
                None,
            ),
            ("k::sum::async_fn_env$0", None),
            ("Map<k::sum::closure_env$0,k::sum::async_block_env$0>", None),
            ("k::sum::async_fn$0::closure_env$0", None),
            ("k::sum::Local", None),
        ] {
            assert_eq!(function_around(plain, hash).as_deref(), function, "{plain}");
        }
    }

    #[test]
    fn functions_mentioned() {
        let names = [
            "job",
            "ns::K::go",
            "run<int>",
            "k::sum",
            "`anonymous namespace'::f",
        ];
        let names = names.map(str::to_owned);
        let functions = Functions::new(&names);
        let mentioned = |name: &str| {
            let mut found = Vec::new();
            functions.add_mentioned(name, &mut found);
            found.sort_unstable();
            found.dedup();
            found
        };
        for (name, found) in [
            ("job", &[0][..]),
            ("job::L::f", &[0]),
            ("`job'::`1'::dtor$2", &[0]),
            ("job.resume", &[0]),
            ("K::job", &[]),
            ("jobs", &[]),
            ("my_job", &[]),
            ("ns::K::go::<lambda_1>::operator()", &[1]),
            ("go", &[]),
            ("other::ns::K::go", &[]),
            ("run<int>::L", &[2]),
            ("run<long>::L", &[]),
            ("k::sum::closure$0", &[3]),
            ("k::sum<u32>", &[3]),
            ("call<k::sum::closure_env$0>", &[3]),
            ("k::summary", &[]),
            ("`anonymous namespace'::f::L", &[4]),
            ("f", &[]),
            (
                "??R<lambda_1>@?0??go@K@ns@@QEAAHH@Z@QEBA?A?<auto>@@XZ",
                &[1],
            ),
            (
                "??R<lambda_1>@?0??go@K@other@@QEAAHH@Z@QEBA?A?<auto>@@XZ",
                &[],
            ),
            (
                "??$call@V<lambda_2>@?0??job@@9@@@YAHAEBV<lambda_2>@?0??job@@9@H@Z",
                &[0],
            ),
            ("?g@@YAXUL@?1??job@@9@@Z", &[0]),
            (".?AUL@?1??job@@9@", &[0]),
            (".?AUjob@?1??0@9@", &[0]),
            ("_TI1?AUL@?1??job@@9@", &[0]),
            ("?job@@YAHH@Z", &[]),
            ("??_C@_03ABCDEFGH@job??$AA@", &[]),
        ] {
            assert_eq!(mentioned(name), found, "{name}");
        }
        let hostile = format!("?{}", "??job@".repeat(100_000));
        mentioned(&hostile);
        mentioned(&"job::".repeat(100_000));
        assert!(functions_in(&"`".repeat(100_000)).is_none());
    }
}
