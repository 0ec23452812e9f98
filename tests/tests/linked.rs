//! What the oracle makes of the linker's map files: dropped and folded functions.

use hpbuild_tests::oracle::{InImages, LinkerMap, ObjectFile, Program, compare, in_images};
use object::write::{Object, Relocation, StandardSection, Symbol, SymbolFlags, SymbolSection};
use object::{
    Architecture, BinaryFormat, Endianness, RelocationFlags, SectionKind, SymbolKind, SymbolScope,
    pe,
};

/// Functions by name, what they call, and a number that tells them apart.
type Functions<'a> = &'a [(&'a str, Option<&'a str>, u8)];

/// One object: each function is a call and a return, in a section of its own.
fn program(functions: Functions<'_>) -> Program {
    let mut object = Object::new(BinaryFormat::Coff, Architecture::X86_64, Endianness::Little);
    let _ = object.section_id(StandardSection::Text);
    for (name, _, number) in functions {
        let section = format!(".text${name}").into_bytes();
        let section = object.add_section(Vec::new(), section, SectionKind::Text);
        let code = [0xe8, 0, 0, 0, 0, 0x6a, *number, 0x58, 0xc3];
        object.append_section_data(section, &code, 16);
        object.add_symbol(Symbol {
            name: name.as_bytes().to_vec(),
            value: 0,
            size: 0,
            kind: SymbolKind::Text,
            scope: SymbolScope::Linkage,
            weak: false,
            section: SymbolSection::Section(section),
            flags: SymbolFlags::None,
        });
    }
    for (name, callee, _) in functions {
        let (Some(callee), Some(caller)) = (callee, object.symbol_id(name.as_bytes())) else {
            continue;
        };
        let section = object.symbol(caller).section.id().expect("defined above");
        let relocation = Relocation {
            offset: 1,
            symbol: object.symbol_id(callee.as_bytes()).expect("one of them"),
            addend: -4,
            flags: RelocationFlags::Coff {
                typ: pe::IMAGE_REL_AMD64_REL32,
            },
        };
        object
            .add_relocation(section, relocation)
            .expect("a relocation");
    }
    let bytes = object.write().expect("an object");
    Program::new(vec![
        ObjectFile::read("test.obj", &bytes).expect("an object"),
    ])
    .expect("sections")
}

/// A map file with these functions at these addresses.
fn map(functions: &[(&str, u32)]) -> LinkerMap {
    let mut text = " test\n\n Preferred load address is 0000000180000000\n\n".to_owned();
    text += "  Address         Publics by Value              Rva+Base               Lib:Object\n\n";
    for (name, rva) in functions {
        let address = 0x1_8000_0000_u64 + u64::from(*rva);
        text += &format!(" 0001:{rva:08x}       {name}    {address:016x}     test.obj\n");
    }
    LinkerMap::read(&text)
}

fn found(
    (base, in_base): (Functions<'_>, &[(&str, u32)]),
    (fixed, in_fixed): (Functions<'_>, &[(&str, u32)]),
) -> InImages {
    let (base, fixed) = (program(base), program(fixed));
    let comparison = compare(&base, &fixed);
    in_images(
        &comparison,
        (&base, &map(in_base)),
        (&fixed, &map(in_fixed)),
    )
}

#[test]
fn what_changed_and_is_there_must_be_reported() {
    let image = [("one", 0x1000), ("other", 0x1010)];
    let moved = [("one", 0x1010), ("other", 0x1000)];
    let base: Functions<'_> = &[("one", None, 1), ("other", None, 2)];
    let found = found(
        (base, &image),
        (&[("one", None, 3), ("other", None, 2)], &moved),
    );
    assert_eq!(
        found.changed.keys().collect::<Vec<_>>(),
        [&(0x1000, 0x1010)]
    );
    assert!(found.same.contains(&(0x1010, 0x1000)) && found.dropped.is_empty());
}

#[test]
fn what_the_linker_dropped_is_in_no_image() {
    let image = [("one", 0x1000)];
    let base: Functions<'_> = &[("one", None, 1), ("unused", None, 2)];
    let dropped = found(
        (base, &image),
        (&[("one", None, 1), ("unused", None, 3)], &image),
    );
    assert!(dropped.changed.is_empty());
    assert_eq!(dropped.dropped.len(), 1);
    assert!(dropped.dropped[0].unseen && dropped.dropped[0].function.name == "unused");
    // On one side alone: to the images it is gone.
    let both = [("one", 0x1000), ("unused", 0x1010)];
    let gone = found((base, &both), (base, &image));
    assert_eq!(gone.removed.keys().collect::<Vec<_>>(), [&0x1010]);
    assert!(!gone.dropped[0].unseen);
    let came = found((base, &image), (base, &both));
    assert_eq!(came.added.keys().collect::<Vec<_>>(), [&0x1010]);
}

/// Two functions with their numbers, and one that calls one of the two.
fn three(one: u8, other: u8, callee: &str) -> [(&str, Option<&str>, u8); 3] {
    [
        ("one", None, one),
        ("other", None, other),
        ("caller", Some(callee), 0),
    ]
}

/// Where they lie with one body for the two, and with two.
const FOLDED: [(&str, u32); 3] = [("one", 0x1000), ("other", 0x1000), ("caller", 0x1020)];
const APART: [(&str, u32); 3] = [("one", 0x1000), ("other", 0x1010), ("caller", 0x1020)];

#[test]
fn a_folded_body_counts_as_a_body() {
    let base = &three(1, 1, "one");
    // One of the two changes, and is a body of its own from then on.
    let fixed = &three(1, 2, "one");
    let changed = found((base, &FOLDED), (fixed, &APART));
    assert_eq!(
        changed.changed.keys().collect::<Vec<_>>(),
        [&(0x1000, 0x1010)]
    );
    assert!(changed.same.contains(&(0x1000, 0x1000)));
    assert_eq!(changed.folded.len(), 2);
    // Both change alike: one body that changed.
    let fixed = &three(2, 2, "one");
    let changed = found((base, &FOLDED), (fixed, &FOLDED));
    assert_eq!(changed.changed[&(0x1000, 0x1000)].len(), 2);
    assert!(changed.folded.iter().all(|it| !it.unseen));
}

#[test]
fn folding_takes_a_difference_away() {
    let base = &three(1, 1, "one");
    let fixed = &three(1, 1, "other");
    let hidden = found((base, &FOLDED), (fixed, &FOLDED));
    assert!(hidden.changed.is_empty());
    let unseen = hidden.folded.iter().filter(|it| it.unseen);
    let unseen: Vec<&str> = unseen.map(|it| it.function.name.as_str()).collect();
    assert_eq!(unseen, ["caller"]);
    // Not where the two are two.
    let seen = found((base, &APART), (fixed, &APART));
    assert_eq!(seen.changed.keys().collect::<Vec<_>>(), [&(0x1020, 0x1020)]);
}
