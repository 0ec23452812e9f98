//! Linkage names as a person reads them.

use undname::Flags;

/// A linkage name of a function made readable, with its types: MSVC's through `undname`, anything
/// else as it is.
pub fn display(decorated: &str) -> String {
    if !decorated.starts_with('?') {
        return decorated.to_owned();
    }
    demangled(decorated, Flags::default()).unwrap_or_else(|| decorated.to_owned())
}

/// A linkage name of data, of a type or of an import made readable, without types: tables and
/// descriptors that the Microsoft ABI makes for classes, what it makes for `throw`, and texts, which
/// are named after what they begin with. Anything else as it is, so that it does no harm to a name
/// that is readable already.
pub fn display_data(name: &str) -> String {
    readable(name).unwrap_or_else(|| name.to_owned())
}

fn readable(name: &str) -> Option<String> {
    if name.starts_with("??_C@") {
        return Some(format!("string {}", demangled(name, Flags::default())?));
    }
    // Its name alone does not say of which type it is.
    if name.starts_with("??_R0") {
        return demangled(name, Flags::default());
    }
    if name.starts_with('?') || name.starts_with(".?A") {
        return demangled(name, Flags::NAME_ONLY);
    }
    let (what, rest) = if let Some(rest) = name.strip_prefix("_CTA") {
        ("catchable types", rest)
    } else if let Some(rest) = name.strip_prefix("_CT") {
        let end = rest.find("@8").map(|at| at + "@8".len())?;
        let kind = demangled(rest.get(..end)?, Flags::default())?;
        return Some(format!("catchable type {kind}"));
    } else {
        let rest = name.strip_prefix("_TI")?;
        // Whether what is thrown is const, volatile or unaligned.
        ("throw info", rest.trim_start_matches(['C', 'V', 'U']))
    };
    // How many types a handler may name for it, and the type itself.
    let kind = rest.trim_start_matches(|it: char| it.is_ascii_digit());
    if kind.len() == rest.len() {
        return None;
    }
    let kind = demangled(&format!(".{kind}"), Flags::NAME_ONLY)?;
    Some(format!("{what} of {kind}"))
}

fn demangled(name: &str, flags: Flags) -> Option<String> {
    let readable = undname::demangle(name, flags).ok()?.to_string();
    (!readable.is_empty()).then_some(readable)
}

#[cfg(test)]
mod tests {
    use super::{display, display_data};

    #[test]
    fn data_that_compilers_name() {
        for (name, readable) in [
            ("??_7Cat@@6B@", "Cat::`vftable'"),
            ("??_7Cat@@6BTame@@@", "Cat::`vftable'{for `Tame'}"),
            ("??_R0?AUV@@@8", "struct V `RTTI Type Descriptor'"),
            ("??_R0H@8", "int `RTTI Type Descriptor'"),
            ("??_R4Cat@@6B@", "Cat::`RTTI Complete Object Locator'"),
            (".?AVShape@?A0x1234abcd@@", "`anonymous namespace'::Shape"),
            (".?AW4Colour@@", "Colour"),
            ("??_C@_08DDCPLLID@measured?$AA@", "string \"measured\""),
            ("??_C@_15ABCDEFGH@?$AAa?$AAb?$AA?$AA@", "string L\"ab\""),
            ("?table@ns@@3QBHB", "ns::table"),
            ("_TI1?AUBase@@", "throw info of Base"),
            ("_TIC2PEAD", "throw info of char *"),
            ("_CTA1?AUBase@@", "catchable types of Base"),
            (
                "_CT??_R0?AUBase@@@8??0Base@@QEAA@AEBU0@@Z8",
                "catchable type struct Base `RTTI Type Descriptor'",
            ),
        ] {
            assert_eq!(display_data(name), readable);
        }
    }

    #[test]
    fn other_names_stay() {
        for name in [
            "",
            "?",
            "table",
            "ns::table",
            "_TI",
            "_TIMER",
            "_TI_x",
            "_CT",
            "_CTABLE",
            "_CT\u{e9}@8",
            "??_C@_0",
            "??_7",
            ".?A",
            "__real@3f800000",
            "`f'::`2'::x",
            "Cat::`vftable'",
        ] {
            assert_eq!(display_data(name), name);
            assert_eq!(display(name), name);
        }
    }
}
