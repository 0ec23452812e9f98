use super::*;

const INT: usize = 1;

fn int(size: u64) -> (usize, DwarfType<usize>) {
    let name = "int".into();
    let encoding = 5;
    (
        INT,
        DwarfType::Base {
            name,
            encoding,
            size,
        },
    )
}

fn structure(at: usize, name: &str, members: &[(u64, usize)]) -> (usize, DwarfType<usize>) {
    let member = |&(offset, ty): &(u64, usize)| Member {
        name: Some("m".into()),
        offset,
        bits: None,
        ty: Some(ty),
    };
    let definition = Definition {
        tag: gimli::DW_TAG_structure_type.0,
        name: Some(name.into()),
        size: Some(16),
        source: "".into(),
        declaration: members.is_empty(),
        members: members.iter().map(member).collect(),
        enumerators: Vec::new(),
        virtuals: Vec::new(),
    };
    (at, DwarfType::Definition(definition))
}

fn types(found: Vec<(usize, DwarfType<usize>)>) -> DwarfTypes {
    DwarfTypes::new(found, CxxAbi::Itanium).0
}

/// Without remembering what was walked this would take 2^50 steps.
#[test]
fn a_tower_of_structures_is_walked_in_time() {
    let tower = |leaf| {
        let mut all = vec![int(leaf)];
        all.extend(
            (2..52).map(|at| structure(at, &format!("S{at}"), &[(0, at - 1), (64, at - 1)])),
        );
        types(all)
    };
    let (one, same, other) = (tower(4), tower(4), tower(8));
    assert_eq!(one.layout_hash(51), same.layout_hash(51));
    assert_ne!(one.layout_hash(51), other.layout_hash(51));
    assert_eq!(one.size(51), Some(16));
}

#[test]
fn structures_that_hold_themselves_end() {
    let types = types(vec![structure(2, "S", &[(0, 2)])]);
    assert_eq!(types.size(1), Some(16));
    assert_eq!(types.layout_hash(1), types.layout_hash(1));
    let alias = DwarfType::Alias {
        name: None,
        target: Some(7),
    };
    let types = DwarfTypes::new(vec![(7, alias)], CxxAbi::Itanium).0;
    assert_eq!((types.size(1), types.udt_of(1)), (None, None));
}

#[test]
fn namesakes_count_once_for_each_layout() {
    let all = types(vec![
        int(4),
        structure(2, "S", &[(0, INT)]),
        structure(3, "S", &[(0, INT)]),
        structure(4, "S", &[(32, INT)]),
    ]);
    let expected = [("S".to_owned(), 2), ("S".to_owned(), 4)];
    assert_eq!(all.definitions(), expected);
}

#[test]
fn declarations_lead_to_definitions() {
    let all = types(vec![
        int(4),
        structure(2, "S", &[]),
        structure(3, "S", &[(0, INT)]),
    ]);
    assert_eq!(all.size(2), Some(16));
    assert_ne!(
        all.layout_hash(2),
        types(vec![int(4), structure(2, "S", &[])]).layout_hash(2)
    );
}

/// Two structures without a tag name, each behind a typedef, the second one const.
#[test]
fn typedefs_name_what_has_no_tag() {
    let unnamed = |at, offset| {
        let (at, record) = structure(at, "", &[(offset, INT)]);
        let DwarfType::Definition(definition) = record else {
            unreachable!("a structure")
        };
        let name = None;
        (at, DwarfType::Definition(Definition { name, ..definition }))
    };
    let alias = |at, name: Option<&str>, target| {
        let (name, target) = (name.map(Into::into), Some(target));
        (at, DwarfType::Alias { name, target })
    };
    let pointer = |at, target| {
        let (tag, target, size) = (gimli::DW_TAG_pointer_type.0, Some(target), None);
        (at, DwarfType::Pointer { tag, target, size })
    };
    let all = |offset| {
        types(vec![
            int(4),
            unnamed(2, offset),
            alias(3, Some("First"), 2),
            unnamed(4, 0),
            alias(5, None, 4),
            alias(6, Some("Second"), 5),
            alias(7, Some("Later"), 2),
            pointer(8, 3),
            pointer(9, 6),
            unnamed(10, offset),
            pointer(11, 10),
        ])
    };
    let (before, after) = (all(0), all(32));
    let named = [("First".to_owned(), 2), ("Second".to_owned(), 4)];
    assert_eq!(before.definitions(), named);
    assert_eq!(before.udt_of(8), Some(b"First".to_vec()));
    assert_ne!(before.layout_hash(2), after.layout_hash(2));
    assert_eq!(before.layout_hash(4), after.layout_hash(4));
    // Behind a pointer the name counts, which tells the two apart; without one the layout does.
    assert_eq!(before.layout_hash(8), after.layout_hash(8));
    assert_ne!(before.layout_hash(8), before.layout_hash(9));
    assert_ne!(before.layout_hash(11), after.layout_hash(11));
}

/// What DWARF leaves out of pointers to members, the C++ ABI says, or nothing does.
#[test]
fn pointers_to_members() {
    let pointer = |at, tag: gimli::DwTag, target| {
        let (tag, target, size) = (tag.0, Some(target), None);
        (at, DwarfType::Pointer { tag, target, size })
    };
    let found = || {
        let function = DwarfType::Function {
            result: None,
            parameters: Vec::new(),
            variadic: false,
        };
        let alias = DwarfType::Alias {
            name: Some("method".into()),
            target: Some(2),
        };
        let array = DwarfType::Array {
            element: Some(5),
            counts: vec![Some(5)],
            size: None,
        };
        let member = gimli::DW_TAG_ptr_to_member_type;
        vec![
            int(4),
            (2, function),
            (3, alias),
            pointer(4, member, INT),
            pointer(5, member, 3),
            (6, array),
            pointer(7, gimli::DW_TAG_pointer_type, 3),
        ]
    };
    let sizes = |abi| {
        let types = DwarfTypes::new(found(), abi).0;
        [4, 5, 6, 7].map(|index| types.size(index))
    };
    assert_eq!(
        sizes(CxxAbi::Itanium),
        [Some(8), Some(16), Some(80), Some(8)]
    );
    assert_eq!(sizes(CxxAbi::Microsoft), [None, None, None, Some(8)]);
}

/// A declaration is of no size where its name stands for structures of several.
#[test]
fn sizes_of_namesakes() {
    let of_size = |at, bytes| {
        let (at, mut found) = structure(at, "S", &[(0, INT)]);
        if let DwarfType::Definition(definition) = &mut found {
            definition.size = Some(bytes);
        }
        (at, found)
    };
    let size = |other| {
        let all = vec![
            int(4),
            of_size(2, 4),
            of_size(3, other),
            structure(4, "S", &[]),
        ];
        types(all).size(4)
    };
    assert_eq!((size(4), size(16)), (Some(4), None));
}

/// Any member of a union may be the one that an initialiser makes longer, and an array whose count
/// nothing says has no size.
#[test]
fn ends_that_are_open() {
    let array = |at, counts| {
        let (element, size) = (Some(INT), None);
        (
            at,
            DwarfType::Array {
                element,
                counts,
                size,
            },
        )
    };
    let union = |at, members: &[(u64, usize)]| {
        let (at, mut found) = structure(at, "U", members);
        if let DwarfType::Definition(definition) = &mut found {
            definition.tag = gimli::DW_TAG_union_type.0;
        }
        (at, found)
    };
    let types = types(vec![
        int(4),
        array(2, vec![None]),
        union(3, &[(0, 2), (0, INT)]),
        structure(4, "S", &[(0, 2), (0, INT)]),
        structure(5, "T", &[(0, INT), (0, 3)]),
        array(6, Vec::new()),
    ]);
    let open = [2, 3, 4, 5].map(|index| types.is_open_ended(index));
    assert_eq!(open, [true, true, false, true]);
    assert_eq!(types.size(6), None);
}
