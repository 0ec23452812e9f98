//! Static locals whose linkage names count the scopes of their function.
//!
//! The Microsoft C++ ABI tells static locals of one name in one function apart by the number of the
//! scope that they stand in: `?seen@?4??f@@9@4HA` and `?seen@?7??f@@9@4HA`. A block more in front gives
//! each another number, and perhaps that which another one had. So these are paired in their order,
//! where both sides have as many; where they have not, nothing tells which one is new, and the numbers
//! least of all.

use hpbuild_metadata::{Base, Fixed, Side};
use rustc_hash::{FxHashMap, FxHashSet};

use super::{Paired, link};
use crate::image::{DataSymbol, Image};

/// What has the same name in the same function, as (number of the scope, index).
type Scopes<'a> = Vec<(usize, &'a str, u32)>;

/// The variables that their numbers do not tell apart, by their indexes.
#[derive(Default)]
pub(super) struct Uncounted {
    pub(super) base: FxHashSet<u32>,
    pub(super) fixed: FxHashSet<u32>,
}

/// Pairs static locals whose linkage names count scopes; returns those that are left.
pub(super) fn pair_scoped(
    paired: &mut Paired,
    base: (&Image<Base>, &[bool]),
    fixed: (&Image<Fixed>, &[bool]),
) -> Uncounted {
    let mut left = Uncounted::default();
    let (before, mut after) = (scopes(base), scopes(fixed));
    // Each name of each function stands alone, so the order of the table does not show.
    #[allow(clippy::iter_over_hash_type)]
    for (key, bases) in before {
        let Some(fixeds) = after.remove(&key) else {
            continue;
        };
        if bases.len() == fixeds.len() {
            for (one, other) in bases.into_iter().zip(fixeds) {
                link(paired, one.2, other.2);
            }
        } else {
            left.base.extend(bases.into_iter().map(|it| it.2));
            left.fixed.extend(fixeds.into_iter().map(|it| it.2));
        }
    }
    left
}

/// The static locals of an image by name and function, in the order of their scopes; without those whose
/// function may have another one's name.
fn scopes<'a, S: Side>(
    (image, unsure): (&'a Image<S>, &[bool]),
) -> FxHashMap<(&'a str, &'a str), Scopes<'a>> {
    let mut found: FxHashMap<(&str, &str), Scopes<'_>> = FxHashMap::default();
    for (index, symbol) in (0_u32..).zip(&image.data) {
        let sure = Some(symbol).filter(|_| !unsure[index as usize]);
        if let Some((name, scope, function)) = sure.and_then(parts_of) {
            let all = found.entry((name, function)).or_default();
            all.push((scope.len(), scope, index));
        }
    }
    // Numbers up to ten are one digit, and larger ones letters: the longer one is the larger one.
    found.values_mut().for_each(|all| all.sort_unstable());
    found
}

fn parts_of<S: Side>(symbol: &DataSymbol<S>) -> Option<(&str, &str, &str)> {
    parts(symbol.decorated.as_deref()?)
}

/// Name, number of the scope and function in a linkage name: `?seen`, `4` and `??f@@9` of
/// `?seen@?4??f@@9@4HA`.
fn parts(linkage: &str) -> Option<(&str, &str, &str)> {
    let (name, rest) = linkage.split_once("@?")?;
    let at = rest.find("??")?;
    let (scope, function) = rest.split_at(at);
    let is_number = match scope.strip_suffix('@') {
        Some(letters) => letters.bytes().all(|it| matches!(it, b'A'..=b'P')),
        None => scope.len() == 1 && scope.as_bytes()[0].is_ascii_digit(),
    };
    let end = function
        .rfind("@4")
        .filter(|_| is_number && !scope.is_empty())?;
    Some((name, scope, &function[..end]))
}

#[cfg(test)]
mod tests {
    use super::parts;

    #[test]
    fn parts_of_linkage_names() {
        let of_h = |scope| Some(("?seen", scope, "??h@S@@SAHH@Z"));
        assert_eq!(parts("?seen@?4??h@S@@SAHH@Z@4HA"), of_h("4"));
        assert_eq!(parts("?seen@?L@??h@S@@SAHH@Z@4_JA"), of_h("L@"));
        for other in [
            "?limit@@3HA",
            "??_7S@@6B@",
            "?a@?",
            "?seen@?x??h@@9@4HA",
            "?seen@???h@@9@4HA",
            "?seen@?4??h@@9",
        ] {
            assert_eq!(parts(other), None, "{other}");
        }
    }
}
