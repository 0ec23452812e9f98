//! What the headers alone say of an image: rights, mitigations, the entry point.
//!
//! The loader read them when the base was loaded, and a patch has none of its own that counts for
//! code of the base.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

use hpbuild_metadata::{Base, Fixed, Rva, Side};

use super::{Case, Refusal};
use crate::decode::ReferenceKind;
use crate::meaning::Meaning;
use crate::pe::{Pe, Section};

/// `IMAGE_FILE_*` that mean something for an image that is loaded: large addresses, run from swap,
/// system, DLL, one processor (`winnt.h`). Others tell how the file was made.
const CHARACTERISTICS: [(u32, &str); 6] = [
    (0x0020, "LARGE_ADDRESS_AWARE"),
    (0x0400, "REMOVABLE_RUN_FROM_SWAP"),
    (0x0800, "NET_RUN_FROM_SWAP"),
    (0x1000, "SYSTEM"),
    (0x2000, "DLL"),
    (0x4000, "UP_SYSTEM_ONLY"),
];

/// `IMAGE_DLLCHARACTERISTICS_*` (`winnt.h`).
const DLL_CHARACTERISTICS: [(u32, &str); 11] = [
    (0x0020, "HIGH_ENTROPY_VA"),
    (0x0040, "DYNAMIC_BASE"),
    (0x0080, "FORCE_INTEGRITY"),
    (0x0100, "NX_COMPAT"),
    (0x0200, "NO_ISOLATION"),
    (0x0400, "NO_SEH"),
    (0x0800, "NO_BIND"),
    (0x1000, "APPCONTAINER"),
    (0x2000, "WDM_DRIVER"),
    (0x4000, "GUARD_CF"),
    (0x8000, "TERMINAL_SERVER_AWARE"),
];

/// `IMAGE_DLLCHARACTERISTICS_EX_*` (`winnt.h`), but for what says that the image can be hotpatched.
const EX_DLL_CHARACTERISTICS: [(u32, &str); 5] = [
    (0x01, "CET_COMPAT"),
    (0x02, "CET_COMPAT_STRICT_MODE"),
    (0x04, "CET_SET_CONTEXT_IP_VALIDATION_RELAXED_MODE"),
    (0x08, "CET_DYNAMIC_APIS_ALLOW_IN_PROC"),
    (0x40, "FORWARD_CFI_COMPAT"),
];

/// `IMAGE_GUARD_*` (`winnt.h`) that say how the code was compiled. Others say which tables there
/// are, and come and go with what the code does.
const GUARD_FLAGS: [(u32, &str); 7] = [
    (0x0000_0100, "CF_INSTRUMENTED"),
    (0x0000_0200, "CFW_INSTRUMENTED"),
    (0x0002_0000, "RF_INSTRUMENTED"),
    (0x0004_0000, "RF_ENABLE"),
    (0x0008_0000, "RF_STRICT"),
    (0x0010_0000, "RETPOLINE_PRESENT"),
    (0x0080_0000, "XFG_ENABLED"),
];

/// `IMAGE_SCN_*` (`winnt.h`) that say what may be done with the pages of a section.
const RIGHTS: [(u32, &str); 7] = [
    (0x0200_0000, "DISCARDABLE"),
    (0x0400_0000, "NOT_CACHED"),
    (0x0800_0000, "NOT_PAGED"),
    (0x1000_0000, "SHARED"),
    (0x2000_0000, "EXECUTE"),
    (0x4000_0000, "READ"),
    (0x8000_0000, "WRITE"),
];

pub(super) fn judge(case: &Case<'_>, refusals: &mut Vec<Refusal>) {
    let (base, fixed) = (&case.comparer.base.pe, &case.comparer.fixed.pe);
    let mut found = |name: &str, evidence: String| {
        let message = format!("the {name} of the image changed");
        refusals.push(Refusal::new("HP039", name, message, evidence));
    };
    let mut flags = |name, before: u32, after: u32, names: &[(u32, &str)]| {
        found(name, flags_that_differ(before, after, names)?);
        Some(())
    };
    let of_file = (base.characteristics.into(), fixed.characteristics.into());
    flags("Characteristics", of_file.0, of_file.1, &CHARACTERISTICS);
    let of_image = (
        base.dll_characteristics.into(),
        fixed.dll_characteristics.into(),
    );
    flags(
        "DllCharacteristics",
        of_image.0,
        of_image.1,
        &DLL_CHARACTERISTICS,
    );
    flags(
        "extended DllCharacteristics",
        base.ex_dll_characteristics,
        fixed.ex_dll_characteristics,
        &EX_DLL_CHARACTERISTICS,
    );
    flags(
        "GuardFlags",
        guard_flags(base),
        guard_flags(fixed),
        &GUARD_FLAGS,
    );
    let mut number = |name, before: u64, after: u64| {
        if before != after {
            found(
                name,
                sides(format_args!("{before:#x}"), format_args!("{after:#x}")),
            );
        }
    };
    number("Subsystem", base.subsystem.into(), fixed.subsystem.into());
    for (index, name) in [
        "SizeOfStackReserve",
        "SizeOfStackCommit",
        "SizeOfHeapReserve",
        "SizeOfHeapCommit",
    ]
    .into_iter()
    .enumerate()
    {
        number(name, base.memory[index], fixed.memory[index]);
    }
    load_config(base, fixed, refusals);
    sections(base, fixed, refusals);
    entry_point(case, refusals);
}

/// What is new and what is gone of the flags that have a name here; `None` where nothing is.
fn flags_that_differ(before: u32, after: u32, names: &[(u32, &str)]) -> Option<String> {
    let listed = |flags: u32| {
        let set = names.iter().filter(move |(flag, _)| flags & flag != 0);
        set.map(|(_, name)| *name).collect::<Vec<_>>().join(" ")
    };
    let (new, gone) = (listed(after & !before), listed(before & !after));
    let parts = [(new, "new"), (gone, "gone")];
    let parts = parts.iter().filter(|(names, _)| !names.is_empty());
    let parts: Vec<String> = parts.map(|(names, how)| format!("{names} {how}")).collect();
    (!parts.is_empty()).then(|| format!("{} ({before:#x}, {after:#x})", parts.join(", ")))
}

fn guard_flags<S: Side>(pe: &Pe<S>) -> u32 {
    pe.load_config.as_ref().map_or(0, |it| it.guard_flags)
}

/// What the loader goes by in the load config directory. An image without one has zeros in its place.
fn load_config(base: &Pe<Base>, fixed: &Pe<Fixed>, refusals: &mut Vec<Refusal>) {
    let (before, after) = (settings(base), settings(fixed));
    let names: BTreeSet<_> = before.keys().chain(after.keys()).collect();
    for name in names {
        let value = |of: &BTreeMap<_, u64>| of.get(name).copied().unwrap_or(0);
        let (before, after) = (value(&before), value(&after));
        if before != after {
            let message = format!("the {name} of the image changed");
            let evidence = sides(format_args!("{before:#x}"), format_args!("{after:#x}"));
            refusals.push(Refusal::new("HP039", *name, message, evidence));
        }
    }
    let (before, after) = (promises(base), promises(fixed));
    for name in before.symmetric_difference(&after) {
        let word = |is_there: bool| if is_there { "there" } else { "none" };
        let evidence = sides(word(before.contains(name)), word(after.contains(name)));
        let message = format!("the {name} of the image came or went");
        refusals.push(Refusal::new("HP039", *name, message, evidence));
    }
}

fn settings<S: Side>(pe: &Pe<S>) -> BTreeMap<&'static str, u64> {
    let settings = pe.load_config.iter().flat_map(|it| &it.settings);
    settings.copied().collect()
}

fn promises<S: Side>(pe: &Pe<S>) -> BTreeSet<&'static str> {
    let promises = pe.load_config.iter().flat_map(|it| &it.promises);
    promises.copied().collect()
}

fn sides(before: impl Display, after: impl Display) -> String {
    format!("{before} before, {after} after")
}

/// Sections that both sides have and whose pages have other rights.
fn sections(base: &Pe<Base>, fixed: &Pe<Fixed>, refusals: &mut Vec<Refusal>) {
    let (before, after) = (by_name(&base.sections), by_name(&fixed.sections));
    for (name, before) in before {
        let after = after.get(name).map_or(&[][..], Vec::as_slice);
        // Of one name there may be several; where one more came, nothing tells which it is.
        if before.len() != after.len() {
            continue;
        }
        for (before, after) in before.iter().zip(after) {
            if let Some(evidence) = flags_that_differ(*before, *after, &RIGHTS) {
                let message = format!("the section {name} has other rights");
                refusals.push(Refusal::new("HP039", name, message, evidence));
            }
        }
    }
}

/// The characteristics of sections by name, in the order of their addresses.
fn by_name<S: Side>(sections: &[Section<S>]) -> BTreeMap<&str, Vec<u32>> {
    let mut found: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
    for section in sections {
        let known = found.entry(&section.name).or_default();
        known.push(section.characteristics);
    }
    found
}

/// The loader calls the entry point of a DLL whenever a thread starts or ends.
fn entry_point(case: &Case<'_>, refusals: &mut Vec<Refusal>) {
    let (base, fixed) = (&case.comparer.base.pe, &case.comparer.fixed.pe);
    let is_same = match (base.entry_point, fixed.entry_point) {
        (None, None) => true,
        (Some(before), Some(after)) => {
            case.comparer.compare(before, after, ReferenceKind::Call) == Meaning::Same
        }
        _ => false,
    };
    if !is_same {
        let evidence = sides(
            entry_name(case.comparer.base, base.entry_point),
            entry_name(case.comparer.fixed, fixed.entry_point),
        );
        let message = "the entry point of the image changed";
        refusals.push(Refusal::new("HP039", "entry point", message, evidence));
    }
}

fn entry_name<S: Side>(image: &crate::image::Image<S>, entry: Option<Rva<S>>) -> String {
    let Some(entry) = entry else {
        return "none".to_owned();
    };
    match image.function_at(entry) {
        Some(id) if image.function(id).rva == entry => image.display_name(id),
        _ => format!("rva {entry}"),
    }
}
