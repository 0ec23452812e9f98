//! Names that rustc makes, without what another version of the crate or of the compiler changes.
//!
//! rustc has two ways to write names for the linker. The older one ends in a hash of everything
//! that the function depends on, its generic arguments among it; the newer one spells these out
//! and numbers the crates. Neither hash nor number survives a new version of the crate. What the
//! older way leaves out of the name, the debug information of the object has.

/// The name as it is in every version.
pub(super) fn stable(linkage: &str) -> String {
    let is_rust = linkage.starts_with("_R") || is_legacy(linkage);
    match rustc_demangle::try_demangle(linkage) {
        // The short form leaves out hashes and numbers.
        Ok(readable) if is_rust => format!("{readable:#}"),
        _ => linkage.to_owned(),
    }
}

/// Whether the name ends as rustc's older names do: `17h`, a hash, `E`.
fn is_legacy(linkage: &str) -> bool {
    let hash = linkage
        .strip_suffix('E')
        .and_then(|it| it.rsplit_once("17h"));
    let is_hash = |hash: &str| hash.len() == 16 && hash.bytes().all(|it| it.is_ascii_hexdigit());
    linkage.starts_with("_ZN") && hash.is_some_and(|(_, hash)| is_hash(hash))
}

/// The same for a function that its debug information calls `called`.
pub(super) fn instance(linkage: &str, called: &str) -> String {
    let name = stable(linkage);
    if is_legacy(linkage) {
        format!("{name} [{}]", without_numbers(called))
    } else {
        name
    }
}

/// Debug information numbers the `impl` blocks of a module, and one block more in front gives all
/// others another number.
fn without_numbers(called: &str) -> String {
    let mut text = String::new();
    let mut rest = called;
    while let Some((before, after)) = rest.split_once("impl$") {
        text.push_str(before);
        text.push_str("impl");
        rest = after.trim_start_matches(|it: char| it.is_ascii_digit());
    }
    text.push_str(rest);
    text
}

/// The name of an object: without hashes where rustc made it, as
/// `CRATE-HASH.CRATE.HASH-cgu.0.rcgu.o`.
pub(super) fn object(name: &str) -> String {
    let Some(unit) = name.strip_suffix(".rcgu.o") else {
        return name.to_owned();
    };
    let crate_name = unit.split(['-', '.']).next().unwrap_or(unit);
    // What rustc writes beside the units of a crate has a hash alone.
    let number = unit.rsplit_once("-cgu.").map_or("", |(_, number)| number);
    format!("{crate_name}.{number}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_and_numbers_go() {
        let legacy = "_ZN5alloc3vec16Vec$LT$T$C$A$GT$4push17h0123456789abcdefE";
        assert_eq!(stable(legacy), "alloc::vec::Vec<T,A>::push");
        assert_eq!(
            instance(
                legacy,
                "alloc::vec::impl$12::push<u8,shop::impl$3::f::closure_env$1>"
            ),
            "alloc::vec::Vec<T,A>::push [alloc::vec::impl::push<u8,shop::impl::f::closure_env$1>]"
        );
        let [one, other] = ["Cs9RG1HgTGSVE_", "Csi0pMfQWVxn7_"]
            .map(|number| format!("_RNvNtNt{number}11miniz_oxide7deflate4core14compress_inner"));
        assert_eq!(stable(&one), stable(&other));
        assert_eq!(stable(&one), "miniz_oxide::deflate::core::compress_inner");
        // C and C++ have no such names, though they may look a little like them.
        for name in [
            "_ZN3foo3barE",
            "_Rfoo",
            "inflate",
            "_ZN3foo17hE",
            "?f@@YAXXZ",
        ] {
            assert_eq!(stable(name), name);
        }
    }

    #[test]
    fn objects_keep_the_crate() {
        let unit = "core-7c4a4c66f69609a4.core.609a1634e86a911f-cgu.0.rcgu.o";
        assert_eq!(object(unit), "core.0");
        assert_eq!(object("shop-1680a310b17178cb.3nw8z2mtelb9.rcgu.o"), "shop.");
        assert_eq!(object("inflate.obj"), "inflate.obj");
    }
}
