//! Resources: a patch carries none.

use std::collections::BTreeSet;

use super::{Case, Refusal};
use crate::explain::{quoted, short};
use crate::pe::resources::{is_version, readable};
use crate::pe::version::{VersionValue, version_values};

/// Values of version information that are told.
const VALUES: usize = 6;

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
            let message = format!("the version information {what}");
            let evidence = versions(old.copied(), new.copied());
            refusals.push(Refusal::new("HP035", name, message, evidence));
        } else {
            let size = |data: Option<&&[u8]>| data.map_or(0, |data| data.len());
            let message = format!("the resource {name} {what}");
            let evidence = format!("{} bytes before, {} after", size(old), size(new));
            refusals.push(Refusal::new("HP034", name, message, evidence));
        }
    }
}

/// In which values two version resources differ. One that is missing has none.
fn versions(before: Option<&[u8]>, after: Option<&[u8]>) -> String {
    let (before, after) = (before.unwrap_or_default(), after.unwrap_or_default());
    let (old, new) = (version_values(before), version_values(after));
    let names: BTreeSet<_> = old.keys().chain(new.keys()).collect();
    let is_none = |value: &VersionValue| *value == VersionValue::Number("0x0".into());
    let differs = |name: &&&String| {
        let (old, new) = (old.get(**name), new.get(**name));
        old.filter(|it| !is_none(it)) != new.filter(|it| !is_none(it))
    };
    // What people look for first.
    let mut names: Vec<_> = names.iter().filter(differs).copied().collect();
    names.sort_by_key(|name| *name != "file version");
    let told = names.iter().take(VALUES).map(|name| {
        let (old, new) = values(old.get(*name), new.get(*name));
        format!("{}: {old} before, {new} after", short((*name).clone()))
    });
    let mut told: Vec<String> = told.collect();
    match names.len().saturating_sub(VALUES) {
        0 if told.is_empty() => {
            let (old, new) = (before.len(), after.len());
            return format!("no value, but other bytes: {old} before, {new} after");
        }
        0 => {}
        more => told.push(format!("{more} more values")),
    }
    told.join("; ")
}

/// Two values that differ, readable.
fn values(old: Option<&VersionValue>, new: Option<&VersionValue>) -> (String, String) {
    if let (Some(VersionValue::Text(old)), Some(VersionValue::Text(new))) = (old, new)
        && let Some(texts) = quoted(old, new)
    {
        return texts;
    }
    let readable = |value: Option<&VersionValue>| match value {
        None => "none".to_owned(),
        Some(VersionValue::Number(number)) => short(number.clone()),
        Some(VersionValue::Text(text)) => quoted(text, "\0").unwrap_or_default().0,
    };
    (readable(old), readable(new))
}

#[cfg(test)]
mod tests {
    use super::versions;
    use crate::pe::version::tests::sample;

    #[test]
    fn values_that_differ_are_told() {
        let before = sample("a b", 4);
        let told = versions(Some(&before), Some(&sample("a c", 4)));
        let company = "040904b0/CompanyName: \"a b\" before, \"a c\" after";
        assert_eq!(
            told,
            format!("{company}; {}", company.replace("CompanyName", "Odd"))
        );
        let told = versions(Some(&before), Some(&sample("a b", 5)));
        assert_eq!(told, "file version: 1.2.3.4 before, 1.2.3.5 after");
        let told = versions(Some(&before), None);
        assert!(
            told.starts_with("file version: 1.2.3.4 before, none after; "),
            "{told}"
        );
        let mut other = before.clone();
        other.extend([0; 4]);
        let told = versions(Some(&before), Some(&other));
        assert!(told.starts_with("no value, but other bytes: "), "{told}");
    }
}
