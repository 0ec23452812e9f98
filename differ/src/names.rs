//! What names tell: of compilers and linkers, of what another build may have otherwise, and to people.

mod positions;
mod readable;
mod scopes;

use std::borrow::Cow;
use std::ops::Range;

use undname::Flags;

pub(crate) use positions::{
    is_of_lambda, is_position, is_position_in_linkage, of_function as positions,
};
pub use readable::{display, display_data};
pub(crate) use scopes::{Functions, function_around};

/// Whether the linkage name `decorated` stands for the procedure record's name `name`, which has
/// its scopes but no types.
pub(crate) fn matches(decorated: &str, name: &str) -> bool {
    if decorated == name {
        return true;
    }
    if !decorated.starts_with('?') {
        return false;
    }
    undname::demangle(decorated, Flags::NAME_ONLY).is_ok_and(|readable| readable == name)
}

/// Whether a variable gets its value from the loader or the start of the C runtime, whatever the
/// file holds.
pub(crate) fn is_set_at_start(name: &str) -> bool {
    matches!(name, "__security_cookie" | "__security_cookie_complement")
}

/// Whether a linkage name is that of a vtable of C++, or a name that of one of Rust: as PDBs have it, and
/// as DWARF has.
pub(crate) fn is_vtable(name: &str) -> bool {
    name.starts_with("??_7")
        || is_itanium_vtable(name)
        || name.ends_with("::vtable$")
        || name.ends_with("::{vtable}")
}

/// Whether a linkage name is an encoding of a readable one, rather than a plain name.
pub(crate) fn is_mangled(name: &str) -> bool {
    name.starts_with('?') || name.starts_with("_Z") || name.starts_with("_R")
}

/// Whether this is what a vtable of the Itanium C++ ABI (5.1.4) is called. clang 21 and newer calls
/// every one `_vtable$` within its class in debug information, where it has the type of a pointer:
/// its address is what debuggers want to know. It is longer than that.
pub(crate) fn is_itanium_vtable(name: &str) -> bool {
    name.starts_with("_ZTV") || is_named_vtable(name)
}

/// The same of the names in debug information alone.
pub(crate) fn is_named_vtable(name: &str) -> bool {
    name == "_vtable$" || name.ends_with("::_vtable$")
}

/// Tables and pointers of the load config, which the linker or the loader fills (`guard` headers of
/// the C runtime, LLD's `COFF/Writer.cpp`).
const GUARDS: [&str; 15] = [
    "__guard_check_icall_fptr",
    "__guard_dispatch_icall_fptr",
    "__guard_eh_cont_count",
    "__guard_eh_cont_table",
    "__guard_fids_count",
    "__guard_fids_table",
    "__guard_flags",
    "__guard_iat_count",
    "__guard_iat_table",
    "__guard_longjmp_count",
    "__guard_longjmp_table",
    "__guard_memcpy_fptr",
    "__guard_xfg_check_icall_fptr",
    "__guard_xfg_dispatch_icall_fptr",
    "__guard_xfg_table_dispatch_icall_fptr",
];

/// Whether the linker makes and fills what has this name: its contents are addresses of its own
/// choosing and tell nothing about the program. `__imp_` is not among them: a slot of the import
/// table is known by its place, and anything else of that name is a pointer of the program's own.
/// Linkers give what they make no type: what has one and another name than the runtime's is the
/// program's, whatever it is called.
pub(crate) fn is_linker_made(name: &str, is_typed: bool) -> bool {
    const PREFIXES: [&str; 8] = [
        "__guard_",
        "__IMPORT_DESCRIPTOR_",
        "__NULL_IMPORT_DESCRIPTOR",
        "__DELAY_IMPORT_",
        "_DELAY_IMPORT_",
        "__volatile_metadata",
        "__RUNTIME_PSEUDO_RELOC_LIST",
        "___RUNTIME_PSEUDO_RELOC_LIST",
    ];
    // Nearly every name is asked for, and few begin so.
    if !name.starts_with(['_', '\x7f']) {
        return false;
    }
    let is_known = matches!(
        name,
        "_load_config_used" | "__enclave_config" | "__hybrid_auxiliary_iat"
    ) || is_bound(name)
        || GUARDS.contains(&name);
    let is_made = || {
        PREFIXES.iter().any(|prefix| name.starts_with(prefix))
            || name.starts_with('\x7f') && name.ends_with("_NULL_THUNK_DATA")
    };
    is_known || !is_typed && is_made()
}

/// Whether the linker gives this name to where a section begins or ends (MinGW's, and lld's for it).
pub(crate) fn is_bound(name: &str) -> bool {
    matches!(
        name,
        "__data_start__" | "__data_end__" | "__bss_start__" | "__bss_end__"
    )
}

/// Bytes of the string literal for which the Microsoft ABI makes this linkage name, the terminating
/// zero included: `??_C@_`, the width of a character, the number and more. Numbers up to 10 are one
/// digit, others hexadecimal in letters (LLVM's `MicrosoftMangle.cpp`, `mangleStringLiteral`).
pub(crate) fn literal_size(name: &str) -> Option<u32> {
    let rest = name.strip_prefix("??_C@_")?;
    let number = rest.strip_prefix(['0', '1'])?;
    if let Some(digit) = number.chars().next()?.to_digit(10) {
        return Some(digit + 1);
    }
    let (letters, _) = number.split_once('@')?;
    let digit = |value: u32, letter: u8| {
        let digit = letter.checked_sub(b'A').filter(|digit| *digit < 16)?;
        value.checked_mul(16)?.checked_add(digit.into())
    };
    let is_number = (1..=7).contains(&letters.len());
    is_number
        .then(|| letters.bytes().try_fold(0, digit))
        .flatten()
}

/// Bytes of the pointer for which compilers make this name: `.refptr.X` holds the address of `X`,
/// which the linker may find in another DLL (LLVM's `X86MCInstLower.cpp`, `GetSymbolFromOperand`; GCC
/// does the same).
pub(crate) fn pointer_size(name: &str) -> Option<u32> {
    let target = name.strip_prefix(".refptr.")?;
    (!target.is_empty()).then_some(8)
}

/// Whether a compiler made this name, so that namesakes are told apart by order alone: lambdas,
/// funclets, dynamic initialisers and the like.
pub(crate) fn is_generated(name: &str) -> bool {
    const MARKS: [&str; 14] = [
        "<lambda_",
        "<lambda>",
        "$catch$",
        "$dtor$",
        "$fin$",
        "$filt$",
        "::catch$",
        "::dtor$",
        "::fin$",
        "::filt$",
        "dynamic initializer for",
        "dynamic atexit destructor",
        "::__l",
        "{{closure}}",
    ];
    MARKS.iter().any(|mark| name.contains(mark))
        || is_position(name)
        || without_generated_parts(name).is_some()
}

/// What a name holds that another build may have otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Marks {
    /// Nothing of it all.
    pub(crate) is_plain: bool,
    /// See [`is_only_numbered`].
    pub(crate) is_only_numbered: bool,
    /// See [`is_position`].
    pub(crate) is_position: bool,
    /// Whether [`without_impl_numbers`] changes it.
    pub(crate) has_impl_numbers: bool,
}

impl Marks {
    pub(crate) fn of(name: &str) -> Self {
        if !has_mark(name.as_bytes()) {
            return Self {
                is_plain: true,
                ..Self::default()
            };
        }
        Self {
            is_plain: false,
            is_only_numbered: is_only_numbered(name),
            is_position: is_position(name),
            has_impl_numbers: without_impl_numbers(name).is_some(),
        }
    }
}

/// Whether one walk over the name finds a beginning of anything that the functions below look for,
/// each by itself. Nearly all names have nothing.
fn has_mark(name: &[u8]) -> bool {
    name.starts_with(OUTLINED.as_bytes())
        || (0..name.len()).any(|at| match name[at] {
            b'.' | b'$' | b'#' | b'`' => true,
            b'<' => name[at..].starts_with(b"<lambda"),
            b'A' => name[at..].starts_with(b"A0x"),
            b':' => name[at..].starts_with(b"::h"),
            b' ' => name[at..].starts_with(SOURCE_PLACE.as_bytes()),
            _ => false,
        })
}

/// What compilers append to the name of a function that they made another of, before a number:
/// LLVM's hash of a module and its cold parts, GCC's clones and promoted locals.
const NUMBERED: [&str; 6] = [
    ".llvm.",
    ".cold.",
    ".isra.",
    ".constprop.",
    ".part.",
    ".lto_priv.",
];

/// Whether the name is nothing but a number: that of a part which LLVM's outliner made of
/// instructions that several functions have in common. It numbers them in the order in which it
/// finds them, so that one more renames all others; what is in it tells them apart.
pub(crate) fn is_only_numbered(name: &str) -> bool {
    let digits = name.strip_prefix(OUTLINED);
    digits.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
}

const OUTLINED: &str = "OUTLINED_FUNCTION_";

/// The name without the parts that compilers number or hash: `.llvm.123` and its like, Rust's
/// `::h0123456789abcdef`, and of MSVC lambdas (`<lambda_` and 32 digits), unnamed namespaces
/// (`?A0x` and eight digits), of clang's lambdas and unnamed types line and column
/// (`lambda at FILE:12:3`), types local to a compiland (a backquote and eight digits at the end of
/// the unique name), and positions of lambdas and closures. `None` where it has none.
pub(crate) fn without_generated_parts(name: &str) -> Option<String> {
    if !has_mark(name.as_bytes()) {
        return None;
    }
    let mut stable = name.to_owned();
    if name.contains('.') {
        for mark in NUMBERED {
            let numbers = numbers(&stable, mark);
            without(&mut stable, numbers);
        }
    }
    if let Some(at) = stable.rfind("::h") {
        let hash = &stable[at + 3..];
        if hash.len() == 16 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            stable.truncate(at);
        }
    }
    let mut parts = source_places(&stable);
    parts.extend(hashes(&stable, "<lambda_", 32, ">"));
    parts.extend(positions::digits(&stable));
    parts.extend(hashes(&stable, "A0x", 8, ""));
    without(&mut stable, parts);
    if let Some(at) = stable.rfind('`') {
        let hash = &stable[at + 1..];
        if hash.len() == 8 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            stable.truncate(at);
        }
    }
    (stable != name).then_some(stable)
}

/// The name of a constructor of clang's for a lambda, which has its number and its place
/// (``f::<lambda_1>::`lambda at FILE:12:3'``), without the number; `None` for any other name.
pub(crate) fn without_position_beside_place(name: &str) -> Option<String> {
    let (function, _) = name.strip_suffix('\'')?.rsplit_once(">::`lambda at ")?;
    let (function, number) = function.rsplit_once("<lambda_")?;
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    let place = &name[function.len() + "<lambda_".len() + number.len()..];
    (is_number && source_places(place).len() == 1).then(|| format!("{function}<lambda_{place}"))
}

/// Whether this is what compilers write where a structure, union or enumeration has no name: clang
/// `<unnamed-tag>`, Microsoft's `<unnamed-type-MEMBER>`, `<anonymous-tag>` and the like. What stands
/// in it counts the types of a source, if anything. Type arguments are not looked at.
pub(crate) fn is_nameless_type(name: &str) -> bool {
    const MARKS: [&str; 3] = ["<unnamed-", "<anonymous-", "__unnamed"];
    // A unique name starts with what kind of type it is: `.?AU` for a structure, `.?AW4` for an
    // enumeration.
    let own = match name.strip_prefix(".?A") {
        Some(rest) => rest.trim_start_matches(['T', 'U', 'V', 'W', '4']),
        None => name.rsplit("::").next().unwrap_or(name),
    };
    MARKS.iter().any(|mark| own.starts_with(mark))
}

/// Whether the name of a type has what compilers write in place of one anywhere, arguments of templates
/// included: in another image it may be that of another type.
pub(crate) fn holds_nameless_type(name: &str) -> bool {
    name.contains("<unnamed-") || name.contains("<anonymous-")
}

/// A linkage name of rustc's older kind (`_ZN`, ..., `17h`, a hash, `E`) without the hash, which
/// another version of the crate has otherwise; any other name as it is.
pub(crate) fn without_rust_hash(linkage: &str) -> &str {
    let is_hash = |hash: &str| hash.len() == 16 && hash.bytes().all(|it| it.is_ascii_hexdigit());
    linkage
        .strip_suffix('E')
        .filter(|_| linkage.starts_with("_ZN"))
        .and_then(|it| it.rsplit_once("17h"))
        .filter(|(_, hash)| is_hash(hash))
        .map_or(linkage, |(name, _)| name)
}

/// What clang's debug information says before the place of what has no name.
const SOURCE_PLACE: &str = " at ";

/// Of the number of a line or column, which is one of 32 bits.
const MAX_LINE_DIGITS: usize = 10;

/// Line and column behind the names of sources: `:12:3` at the end of a word in quotes.
pub(crate) fn source_places(name: &str) -> Vec<Range<usize>> {
    let mut end = 0;
    let find = |(at, mark): (usize, &str)| {
        let start = at + mark.len();
        // Several marks may stand in one word. Nobody looks for its end twice.
        if end < start {
            let rest = &name[start..];
            end = start + rest.find(['\'', ')', '}']).unwrap_or(rest.len());
        }
        let number = |end: usize| {
            let digits = name[start..end].bytes().rev().take(MAX_LINE_DIGITS);
            let first = end - digits.take_while(u8::is_ascii_digit).count();
            let is_numbered = first < end && name[start..first].ends_with(':');
            is_numbered.then(|| first - 1)
        };
        Some(number(end).and_then(number)?..end)
    };
    name.match_indices(SOURCE_PLACE).filter_map(find).collect()
}

/// The name without these parts, which may be in any order and overlap.
fn without(name: &mut String, mut parts: Vec<Range<usize>>) {
    if parts.is_empty() {
        return;
    }
    parts.sort_unstable_by_key(|part| part.start);
    let mut kept = String::with_capacity(name.len());
    let mut end = 0;
    for part in parts {
        if part.start > end {
            kept.push_str(&name[end..part.start]);
        }
        end = end.max(part.end);
    }
    kept.push_str(&name[end..]);
    *name = kept;
}

/// The digits behind `mark`, and the mark's last dot, everywhere. That of LLVM's modules goes as a
/// whole, because only some builds have it.
fn numbers(name: &str, mark: &str) -> Vec<Range<usize>> {
    let part = |(at, _)| {
        let start = at + mark.len();
        let digits = name[start..].bytes().take_while(u8::is_ascii_digit).count();
        let end = start + digits;
        let is_whole = name[end..].is_empty() || name[end..].starts_with('.');
        let first = if mark == ".llvm." { at } else { start - 1 };
        (digits > 0 && is_whole).then_some(first..end)
    };
    name.match_indices(mark).filter_map(part).collect()
}

/// The name without the numbers that rustc's debug information gives to the `impl` blocks of a
/// module (`impl$3`, in DWARF `{impl#3}`): one block more in front gives all others another number,
/// and the same number may be another block. `None` where it has none.
pub(crate) fn without_impl_numbers(name: &str) -> Option<String> {
    if !name.contains("impl$") && !name.contains("{impl#") {
        return None;
    }
    let mut stable = String::with_capacity(name.len());
    let mut rest = name;
    while let Some(at) = rest.find("impl") {
        let (before, after) = rest.split_at(at + "impl".len());
        stable.push_str(before);
        rest = after;
        if after.starts_with('$') || after.starts_with('#') && before.ends_with("{impl") {
            let digits = after[1..].bytes().take_while(u8::is_ascii_digit).count();
            stable.push_str(&after[..1]);
            rest = &after[1 + digits..];
        }
    }
    stable.push_str(rest);
    (stable != name).then_some(stable)
}

/// Whether an object file is one of link-time optimisation, made of many sources, as lld calls it:
/// `t.dll.lto.obj`, `t.dll.lto.1.obj`.
pub(crate) fn is_joint_object(path: &str) -> bool {
    let name = path.rsplit(['/', '\\']).next().unwrap_or_default();
    name.contains(".lto.") || name == "lto.tmp"
}

/// What a type is called in another build too: without the parts that compilers hash or count.
pub(crate) fn of_type(name: &str) -> Cow<'_, str> {
    let stable = positions::without_itanium(name).or_else(|| without_generated_parts(name));
    let stable = stable.map_or(name.into(), Cow::Owned);
    match without_impl_numbers(&stable) {
        Some(stable) => stable.into(),
        None => stable,
    }
}

/// What an object file is called in another build too: without its folders, and where rustc named
/// it (`crate-HASH.crate.HASH-cgu.0.rcgu.o`) without the hashes, which another version of the crate
/// or of one that it depends on changes.
pub(crate) fn of_object(path: &str) -> String {
    let name = path.rsplit(['/', '\\']).next().unwrap_or_default();
    let is_hash = |text: &str| {
        matches!(text.len(), 10..=16) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    let Some((unit, number)) = name
        .rsplit_once("-cgu.")
        .filter(|_| name.ends_with(".rcgu.o"))
    else {
        return name.to_owned();
    };
    let parts = unit.split('.').filter(|part| !is_hash(part));
    let named = parts.map(|part| match part.rsplit_once('-') {
        Some((name, hash)) if is_hash(hash) => name,
        _ => part,
    });
    let named: Vec<&str> = named.collect();
    format!("{}-cgu.{number}", named.join("."))
}

/// Every run of exactly `count` hexadecimal digits between `before` and `behind`.
fn hashes(name: &str, before: &str, count: usize, behind: &str) -> Vec<Range<usize>> {
    let part = |(at, _)| {
        let start = at + before.len();
        let rest = &name[start..];
        let digits = rest.bytes().take_while(u8::is_ascii_hexdigit).count();
        let is_hash = digits == count && rest[digits..].starts_with(behind);
        is_hash.then_some(start..start + digits)
    };
    name.match_indices(before).filter_map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_parts() {
        assert_eq!(without_generated_parts("plain"), None);
        assert_eq!(
            without_generated_parts("f.llvm.1234.cold").as_deref(),
            Some("f.cold")
        );
        assert_eq!(
            without_generated_parts(".?AVT@?A0x1234abcd@@").as_deref(),
            Some(".?AVT@?A0x@@")
        );
        for (numbered, stable) in [
            ("f.cold.2", "f.cold"),
            ("f.constprop.0.isra.1", "f.constprop.isra"),
            ("f.lto_priv.12", "f.lto_priv"),
            ("f.part.0.llvm.77", "f.part"),
        ] {
            assert_eq!(without_generated_parts(numbered).as_deref(), Some(stable));
        }
        for other in ["f.part.0x", "f.part.", "f.part", "a.b.3"] {
            assert_eq!(without_generated_parts(other), None, "{other}");
        }
        assert!(is_only_numbered("OUTLINED_FUNCTION_12"));
        assert!(!is_only_numbered("OUTLINED_FUNCTION_1a") && !is_only_numbered("f"));
        for (placed, stable) in [
            (
                "apply<`lambda at a b.cpp:255:21'>",
                "apply<`lambda at a b.cpp'>",
            ),
            (
                r"f<`lambda at C:\s\a.cpp:1:2',(unnamed struct at x.h:10:3)>::g",
                r"f<`lambda at C:\s\a.cpp',(unnamed struct at x.h)>::g",
            ),
        ] {
            assert_eq!(without_generated_parts(placed).as_deref(), Some(stable));
        }
        for other in ["f<`lambda at a:12'>", "operator at :1:x'", "f at 1:2"] {
            assert_eq!(without_generated_parts(other), None, "{other}");
        }
        assert_eq!(without_generated_parts("A0x12"), None);
        assert_eq!(
            without_generated_parts("krate::f::h0123456789abcdef").as_deref(),
            Some("krate::f")
        );
        assert_eq!(
            without_generated_parts(
                "<lambda_0123456789abcdef0123456789abcdef>::f<<lambda_fedcba9876543210fedcba9876543210>>"
            )
            .as_deref(),
            Some("<lambda_>::f<<lambda_>>")
        );
        assert_eq!(
            without_generated_parts(".?AUImpl@?1??f@@YAXXZ@`2641cb60").as_deref(),
            Some(".?AUImpl@?1??f@@YAXXZ@")
        );
        assert_eq!(without_generated_parts("`f'::`2'::x"), None);
    }

    #[test]
    fn sizes_of_literals() {
        assert_eq!(literal_size("??_C@_05MCBCHHEJ@world?$AA@"), Some(6));
        let wide = "??_C@_1BE@NBKGPLIA@?$AAp?$AAr?$AAe?$AAs?$AAu?$AAf?$AAf?$AAi?$AAx?$AA?$AA@";
        assert_eq!(literal_size(wide), Some(20));
        for other in [
            "??_C@_0",
            "??_C@_0@",
            "??_C@_0xyz@",
            "??_C@_0PPPPPPPP@",
            "??_7x@@6B@",
        ] {
            assert_eq!(literal_size(other), None, "{other}");
        }
    }

    #[test]
    fn numbers_of_impl_blocks() {
        assert_eq!(
            without_impl_numbers("a::impl$12::f<b::impl$3::g::closure_env$0>").as_deref(),
            Some("a::impl$::f<b::impl$::g::closure_env$0>")
        );
        assert_eq!(
            without_impl_numbers("a::{impl#12}::f").as_deref(),
            Some("a::{impl#}::f")
        );
        assert_eq!(without_impl_numbers("simple::implementation::f"), None);
        assert_eq!(without_impl_numbers("impl$"), None);
    }

    #[test]
    fn objects() {
        let made = |hash: &str| format!("C:\\x\\dep-{hash}.dep.45842420f4fdf31-cgu.0.rcgu.o");
        assert_eq!(of_object(&made("0123456789abcdef")), "dep.dep-cgu.0.rcgu.o");
        assert_eq!(
            of_object("app.45842420f4fdf313-cgu.12.rcgu.o"),
            "app-cgu.12.rcgu.o"
        );
        assert_eq!(
            of_object("/x/app.8e126487kh4zbqcp.rcgu.o"),
            "app.8e126487kh4zbqcp.rcgu.o"
        );
        assert_eq!(
            of_object("lib/deadbeefdeadbeef-cgu.0.obj"),
            "deadbeefdeadbeef-cgu.0.obj"
        );
    }

    #[test]
    fn linkage_names() {
        assert!(matches("?open@File@@QEAAHPEBD@Z", "File::open"));
        assert!(!matches("?open@File@@QEAAHPEBD@Z", "File::close"));
        assert!(matches("plain", "plain"));
    }
}
