//! Resources: a patch carries none.

use std::collections::BTreeSet;

use super::{Case, Refusal};
use crate::pe::resources::{file_version, is_version, readable};

/// Every resource that differs, version information apart.
pub(super) fn judge(case: &Case<'_>, refusals: &mut Vec<Refusal>) {
    let (base, fixed) = (&case.comparer.base.pe, &case.comparer.fixed.pe);
    let (before, after) = match (base.resource_tree(), fixed.resource_tree()) {
        (Ok(before), Ok(after)) => (before, after),
        (before, after) => {
            for (side, tree) in [("base", before), ("fixed image", after)] {
                if let Err(fault) = tree {
                    let message = format!("the resources of the {side} cannot be read");
                    refusals.push(Refusal::new("HP034", "", message, fault));
                }
            }
            return;
        }
    };
    let paths: BTreeSet<_> = before.keys().chain(after.keys()).collect();
    for path in paths {
        let (old, new) = (before.get(path), after.get(path));
        if old == new {
            continue;
        }
        let what = match (old, new) {
            (None, _) => "is new",
            (_, None) => "is gone",
            _ => "changed",
        };
        let name = readable(path);
        if is_version(path) {
            let version = |data: Option<&&[u8]>| {
                data.map_or_else(
                    || "none".to_owned(),
                    |data| file_version(data).unwrap_or_else(|| "unreadable".to_owned()),
                )
            };
            let message = format!("the version information {what}");
            let evidence = format!("{} before, {} after", version(old), version(new));
            refusals.push(Refusal::new("HP035", name, message, evidence));
        } else {
            let size = |data: Option<&&[u8]>| data.map_or(0, |data| data.len());
            let message = format!("the resource {name} {what}");
            let evidence = format!("{} bytes before, {} after", size(old), size(new));
            refusals.push(Refusal::new("HP034", name, message, evidence));
        }
    }
}
