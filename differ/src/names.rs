//! Names as a person reads them.

use undname::Flags;

/// A linkage name made readable: MSVC's through `undname`, anything else as it is.
pub fn display(decorated: &str) -> String {
    if !decorated.starts_with('?') {
        return decorated.to_owned();
    }
    undname::demangle(decorated, Flags::default()).map_or_else(|_| decorated.to_owned(), |name| name.to_string())
}

/// Whether the linkage name `decorated` stands for the procedure record's name `name`, which has
/// its scopes but no types.
pub(crate) fn matches(decorated: &str, name: &str) -> bool {
    if decorated == name {
        return true;
    }
    if !decorated.starts_with('?') {
        return false;
    }
    undname::demangle(decorated, Flags::NAME_ONLY).is_ok_and(|readable| readable.to_string() == name)
}
