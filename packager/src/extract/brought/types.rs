//! Types that only patches bring. Objects that code of an older patch made, and that things of the base
//! lead to, keep their layout and their values, and a newer patch's code goes on with them.

use std::collections::{BTreeMap, BTreeSet};

use hpbuild_differ::Diff;
use hpbuild_differ::decode::Escape;
use hpbuild_differ::judge::{NewPart, NewType, Refusal, Severity, new_types};
use sha2::{Digest as _, Sha256};

use super::{CODE, Previous, shortened};
use crate::piece::{Brought, Lasting};

/// What code of the patch uses of types that the base does not have.
pub(super) fn used(diff: &Diff) -> impl Iterator<Item = Brought> {
    let all = new_types(&diff.comparer(), &diff.comparison).into_iter();
    all.filter(|it| it.is_used).map(|it| brought(&it))
}

fn brought(new: &NewType) -> Brought {
    let (lasting, name, hash) = match &new.part {
        NewPart::Layout(layout) => (
            Lasting::Layout,
            shortened(&new.name),
            Sha256::new().chain_update(layout.to_le_bytes()),
        ),
        // With another name a value is what it was.
        NewPart::Value(name, value) => (
            Lasting::Value,
            shortened(&format!("{}::{name}", new.name)),
            Sha256::new()
                .chain_update(&new.name)
                .chain_update([0])
                .chain_update(value),
        ),
    };
    Brought {
        lasting,
        name,
        digest: hash.finalize().into(),
        way: Escape::Handed,
        has_state: false,
    }
}

/// The findings about those of older patches: types that are laid out otherwise now, and values that
/// mean something else or nothing.
pub(super) fn findings(diff: &Diff, previous: &Previous) -> Vec<Refusal> {
    let mut older: BTreeMap<(Lasting, &str), Vec<[u8; 32]>> = BTreeMap::new();
    let types = previous.brought.iter();
    for it in types.filter(|it| it.lasting != Lasting::Address) {
        let digests = older.entry((it.lasting, &*it.name)).or_default();
        digests.push(it.digest);
    }
    if older.is_empty() {
        return Vec::new();
    }
    let new = new_types(&diff.comparer(), &diff.comparison);
    let new: Vec<(Brought, bool)> = new.iter().map(|it| (brought(it), it.is_used)).collect();
    let digests: BTreeSet<[u8; 32]> = new.iter().map(|it| it.0.digest).collect();
    let mut named: BTreeMap<(Lasting, &str), Vec<&(Brought, bool)>> = BTreeMap::new();
    for it in &new {
        let same = named.entry((it.0.lasting, &*it.0.name)).or_default();
        same.push(it);
    }
    let finding = |((lasting, name), older): (&(Lasting, &str), &Vec<[u8; 32]>)| {
        let own = named.get(&(*lasting, *name)).map_or(&[][..], Vec::as_slice);
        let has = |digest: &[u8; 32]| own.iter().any(|(it, _)| it.digest == *digest);
        let is_lost = older.iter().any(|digest| !has(digest));
        // Of several types of one name one may have gone, and no other has come.
        let is_new = own.iter().any(|(it, _)| !older.contains(&it.digest));
        let what = match lasting {
            _ if !is_lost => return None,
            Lasting::Layout if !is_new && own.len() != 1 => return None,
            Lasting::Layout => {
                "is laid out otherwise: objects that code of the older patch made have the old layout"
            }
            _ if own.is_empty() && older.iter().all(|it| digests.contains(it)) => return None,
            _ if own.is_empty() => {
                "is gone: objects that code of the older patch made may hold its value"
            }
            _ => {
                "has another value: objects that code of the older patch made may hold the old one"
            }
        };
        let shown = hpbuild_differ::display_data(name);
        let message = format!("{shown}, which an older patch brought, {what}");
        let evidence = format!("older patch of sequence {}", previous.sequence);
        let mut finding = Refusal::new(CODE, *name, message, evidence);
        if !own.iter().any(|(_, is_used)| *is_used) {
            finding.severity = Severity::Warn;
        }
        Some(finding)
    };
    older.iter().filter_map(finding).collect()
}
