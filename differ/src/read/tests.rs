//! Cold parts by hand-made records: two functions of a fixture are called one function and its
//! cold part, as `S_SEPCODE` records or ranges of DWARF say it.

use std::path::Path;

use hpbuild_metadata::{Base, Fixed, SectionOffset, Side};

use super::assemble::{Symbols, Unscanned, assemble};
use super::symbols::RawSeparated;
use super::{Input, Read, SymbolPaths, dwarf, read_file};
use crate::compare::{Comparison, Kind, compare};
use crate::image::{FunctionKind, Image};
use crate::judge::{Policy, judge};
use crate::meaning::Comparer;
use crate::pair::pair;
use crate::pe::{Opened, Pe};

fn pe<S: Side>(variant: &str) -> Pe<S> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/prebuilt/dwarf/x64");
    let path = root.join(variant).join("hp_dwarf.dll");
    match Pe::parse(&path, read_file(&path).unwrap()).unwrap() {
        Opened::Pe(pe) => *pe,
        Opened::Unsupported(kind) => panic!("{kind:?}"),
    }
}

/// An image in which each of `parts` is a cold part of `owner`.
fn image<S: Side>(variant: &str, owner: &str, parts: &[&str]) -> Image<S> {
    let pe = pe::<S>(variant);
    let mut symbols = dwarf::read(&pe).unwrap().unwrap();
    let place = |symbols: &Symbols<S>, name: &str| -> (SectionOffset, u32) {
        let all = symbols.modules.iter().flat_map(|module| &module.procedures);
        let found = all.into_iter().find(|procedure| &*procedure.name == name);
        found
            .map(|procedure| (procedure.place, procedure.size))
            .unwrap()
    };
    let parent = place(&symbols, owner).0;
    for name in parts {
        let (at, size) = place(&symbols, name);
        for module in &mut symbols.modules {
            module.procedures.retain(|procedure| procedure.place != at);
            if module
                .procedures
                .iter()
                .any(|procedure| procedure.place == parent)
            {
                module.separated.push(RawSeparated {
                    place: at,
                    size,
                    parent,
                });
            }
        }
        symbols.publics.retain(|public| public.place != at);
    }
    assemble(Unscanned::new(pe, symbols))
}

fn compared(variant: &str, owner: &str, parts: &[&str]) -> (Comparison, Vec<String>) {
    let base = image::<Base>("base", owner, parts);
    let fixed = image::<Fixed>(variant, owner, parts);
    let pairing = pair(&base, &fixed);
    let comparer = Comparer::new(&base, &fixed, &pairing);
    let comparison = compare(&comparer);
    let judged = judge(&comparer, &comparison, &Policy::default());
    let codes = judged
        .iter()
        .map(|refusal| format!("{} {}", refusal.code, refusal.name));
    (comparison, codes.collect())
}

#[test]
fn cold_parts_go_by_their_function() {
    let image = image::<Base>("base", "gate", &["immediate", "wide_constant"]);
    let mut names = Vec::new();
    for id in image.function_ids() {
        if image.function(id).kind == FunctionKind::Separated {
            let owner = image.owner_of(id).expect("an owner");
            assert_eq!(image.display_name(owner), "gate");
            assert!(image.owner_of(owner).is_none());
            names.push(image.display_name(id));
        }
    }
    names.sort();
    assert_eq!(names, ["gate (cold part 2)", "gate (cold part)"]);
}

/// A change in the cold part is one of the function, which is what gets redirected.
#[test]
fn function_is_replaced_with_its_cold_part() {
    let (comparison, _) = compared("immediate", "gate", &["immediate"]);
    let base = image::<Base>("base", "gate", &["immediate"]);
    let found: Vec<_> = comparison
        .changed
        .iter()
        .map(|change| {
            (
                base.display_name(change.base),
                change.in_owner,
                change.kinds.clone(),
            )
        })
        .collect();
    let mut expected = vec![
        ("gate".to_owned(), false, vec![Kind::Immediate]),
        ("gate (cold part)".to_owned(), true, vec![Kind::Immediate]),
    ];
    expected.sort_by_key(|(name, ..)| {
        base.function_ids()
            .find(|id| base.display_name(*id) == *name)
    });
    assert_eq!(found, expected);
    assert!(comparison.added.is_empty() && comparison.removed.is_empty());
    assert!(comparison.unmatched_base.is_empty());
    // All functions are there once.
    let bodies = base.functions.len() as u32;
    assert_eq!(comparison.same + 2, bodies);
}

/// Nobody enters a function by its cold part, so whether that could be redirected is no question.
/// In another order of linking nothing changed.
#[test]
fn cold_parts_need_no_entry() {
    let (_, codes) = compared("immediate", "gate", &["immediate"]);
    assert!(
        !codes.iter().any(|code| code.contains("cold part")),
        "{codes:?}"
    );
    let (comparison, codes) = compared("other-order", "gate", &["immediate"]);
    assert!(comparison.changed.is_empty(), "{codes:?}");
}

/// Nothing is a cold part that no symbol says is one.
#[test]
fn reading_finds_none_by_itself() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/prebuilt/dwarf/x64");
    let input = Input {
        pe: root.join("base/hp_dwarf.dll"),
        pdb: None,
    };
    let Read::Image(image) = super::read::<Base>(&input, &SymbolPaths::default()).unwrap() else {
        panic!("a native image");
    };
    assert!(assemble(*image).cold_parts.is_empty());
}

/// Code that ends behind the last address there is: every address of the DWARF in turn.
#[test]
fn code_that_leaves_the_address_space_is_an_error() {
    let mut overflows = 0;
    for variant in ["base", "other-version"] {
        let whole = pe::<Base>(variant);
        let addresses = whole.image_base..whole.image_base + u64::from(whole.image_size);
        let file = whole.file();
        let first = whole.sections[0].file.end;
        for at in first..file.len() - 8 {
            let value = u64::from_le_bytes(*file[at..].first_chunk().unwrap());
            if !addresses.contains(&value) {
                continue;
            }
            let mut damaged = file.to_vec();
            damaged[at..at + 8].copy_from_slice(&(u64::MAX - 1).to_le_bytes());
            let Ok(Opened::Pe(damaged)) = Pe::<Base>::parse(Path::new("damaged"), damaged) else {
                continue;
            };
            if let Err(error) = dwarf::read(&damaged) {
                overflows += usize::from(error.to_string().contains("address overflow"));
            }
        }
    }
    assert!(overflows > 0);
}
