//! What the rules find in an input: those of judging, and those of making the patch.

use std::collections::BTreeSet;
use std::path::Path;

use hpbuild_differ::image::Image;
use hpbuild_differ::judge::{Policy, Refusal, Severity};
use hpbuild_differ::{Diff, Differ, Input, SymbolPaths, diff};
use hpbuild_fixtures::Build;
use hpbuild_metadata::Side;
use hpbuild_packager::NoPatch;
use hpbuild_packager::extract::Options;

/// What was found.
pub(crate) struct Findings {
    /// `HP0xx`, and the name that the finding is about behind a space.
    pub(crate) rules: BTreeSet<String>,
    /// Those of them that warn.
    pub(crate) warned: BTreeSet<String>,
    /// Whether any of them refuses.
    pub(crate) refused: bool,
    /// Everything that a finding could be about.
    pub(crate) names: BTreeSet<String>,
}

pub(crate) fn findings_of_builds(base: &Build, fixed: &Build) -> Findings {
    findings(&base.dll, &fixed.dll, SymbolPaths::default())
}

/// Compares two images whose PDBs lie beside them or where `symbols` says, and makes the patch.
pub(crate) fn findings(base: &Path, fixed: &Path, symbols: SymbolPaths) -> Findings {
    match compared(base, fixed, symbols, Policy::default()) {
        Compared::Diff(diff) => findings_of(&diff, &Options::first()),
        Compared::Nothing(rules) => Findings {
            rules,
            warned: BTreeSet::new(),
            refused: true,
            names: BTreeSet::new(),
        },
    }
}

/// What comparing came to.
pub(crate) enum Compared {
    Diff(Box<Diff>),
    /// There was nothing to compare; the rules that say why.
    Nothing(BTreeSet<String>),
}

pub(crate) fn compared(
    base: &Path,
    fixed: &Path,
    symbols: SymbolPaths,
    policy: Policy,
) -> Compared {
    let input = |pe: &Path| Input {
        pe: pe.to_owned(),
        pdb: None,
    };
    let differ = Differ {
        base: input(base),
        fixed: input(fixed),
        symbols,
        policy,
    };
    match diff(&differ, &mut Vec::new()) {
        Ok(Ok(diff)) => Compared::Diff(diff),
        Ok(Err(refusals)) => Compared::Nothing(refusals.iter().map(text).collect()),
        Err(error) => {
            let error = error.to_string();
            let at = error.find("HP0").expect("an error that names its rule");
            Compared::Nothing([error[at..at + 5].to_owned()].into())
        }
    }
}

/// The findings of a comparison, and of making its patch in this way where there is one to be made.
pub(crate) fn findings_of(diff: &Diff, options: &Options) -> Findings {
    let mut rules: BTreeSet<String> = diff.refusals.iter().map(text).collect();
    let warns = diff
        .refusals
        .iter()
        .filter(|it| it.severity == Severity::Warn);
    let warned = warns.map(text).collect();
    let mut refused = diff.refusals.iter().any(Refusal::refuses);
    let changed = &diff.comparison.changed;
    if changed.iter().any(|change| !change.is_line_number_only()) {
        match hpbuild_packager::build(diff, options) {
            Ok(patch) => {
                refused |= patch.findings.iter().any(Refusal::refuses);
                rules.extend(patch.findings.iter().map(text));
            }
            Err(NoPatch::Refused(found)) => {
                refused = true;
                rules.extend(found.iter().map(|it| text(&it.judged())));
            }
            Err(NoPatch::Faulty(faults)) => panic!("{}: {faults:#?}", diff.base.path.display()),
        }
    }
    let mut names = BTreeSet::new();
    add_names(&diff.base, &mut names);
    add_names(&diff.fixed, &mut names);
    Findings {
        rules,
        warned,
        refused,
        names,
    }
}

fn text(refusal: &Refusal) -> String {
    format!("{} {}", refusal.code, refusal.name)
        .trim_end()
        .to_owned()
}

fn add_names<S: Side>(image: &Image<S>, names: &mut BTreeSet<String>) {
    names.extend(image.function_ids().map(|id| image.display_name(id)));
    names.extend(image.procedures.iter().map(|it| it.display()));
    names.extend(image.data.iter().map(|it| it.name.to_string()));
    let types = image.types.definitions();
    for (name, index) in types {
        let values = image.types.enumerators(index).into_iter();
        names.extend(values.map(|(value, _)| format!("{name}::{value}")));
        names.insert(name);
    }
    let exports = image.pe.exports.iter();
    names.extend(exports.filter_map(|export| Some(export.name.as_ref()?.to_string())));
    let imports = image.pe.imports.iter();
    names.extend(imports.map(|import| match &import.symbol {
        hpbuild_differ::pe::ImportSymbol::Name(name) => format!("{}!{name}", import.dll),
        hpbuild_differ::pe::ImportSymbol::Ordinal(number) => format!("{}!#{number}", import.dll),
    }));
}
