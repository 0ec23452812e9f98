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
        declaration: members.is_empty(),
        members: members.iter().map(member).collect(),
        enumerators: Vec::new(),
        virtuals: Vec::new(),
    };
    (at, DwarfType::Definition(definition))
}

fn types(found: Vec<(usize, DwarfType<usize>)>) -> DwarfTypes {
    DwarfTypes::new(found).0
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
    let types = DwarfTypes::new(vec![(7, alias)]).0;
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
