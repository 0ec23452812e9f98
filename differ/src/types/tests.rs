use ms_pdb::tpi::TypeStream;

use super::*;

/// A type stream with these records.
fn stream(records: &[(u16, Vec<u8>)]) -> Records {
    let mut bytes = Vec::new();
    for (kind, data) in records {
        let mut data = data.clone();
        data.resize(data.len().next_multiple_of(4), 0xf1);
        let length = u16::try_from(data.len() + 2).unwrap();
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&kind.to_le_bytes());
        bytes.extend(data);
    }
    let end = 0x1000 + u32::try_from(records.len()).unwrap();
    let size = u32::try_from(bytes.len()).unwrap();
    let mut header: Vec<u8> = [20_040_203, 56, 0x1000, end, size]
        .into_iter()
        .flat_map(u32::to_le_bytes)
        .collect();
    header.resize(56, 0);
    header.extend(bytes);
    Records::new(TypeStream::parse(ms_pdb::Stream::TPI, header).unwrap())
}

/// `struct N { T a; T b; }`: a field list at `index` and the structure behind it.
fn pair_of(index: u32, member: u32, name: &str) -> [(u16, Vec<u8>); 2] {
    let mut fields = Vec::new();
    for (offset, name) in [(0_u16, b"a\0"), (8, b"b\0")] {
        fields.extend_from_slice(&0x150d_u16.to_le_bytes());
        fields.extend_from_slice(&3_u16.to_le_bytes());
        fields.extend_from_slice(&member.to_le_bytes());
        fields.extend_from_slice(&offset.to_le_bytes());
        fields.extend_from_slice(name);
    }
    let mut structure = vec![2, 0, 0, 0];
    structure.extend_from_slice(&index.to_le_bytes());
    structure.extend_from_slice(&[0; 8]);
    structure.extend_from_slice(&16_u16.to_le_bytes());
    structure.extend_from_slice(name.as_bytes());
    structure.push(0);
    [(0x1203, fields), (0x1505, structure)]
}

/// Structures of two structures each, `levels` deep, over `leaf`; the type index of the outermost.
fn tower(levels: u32, leaf: u32) -> (CodeViewTypes, u32) {
    let mut records = Vec::new();
    let mut member = leaf;
    for level in 0..levels {
        let index = 0x1000 + 2 * level;
        records.extend(pair_of(index, member, &format!("S{level}")));
        member = index + 1;
    }
    (CodeViewTypes::new(stream(&records), stream(&[])), member)
}

/// Without remembering what was walked this would take 2^50 steps.
#[test]
fn a_tower_of_structures_is_walked_in_time() {
    let (one, top) = tower(50, 0x74);
    let (same, _) = tower(50, 0x74);
    let (other, _) = tower(50, 0x75);
    assert_eq!(one.layout_hash(top), same.layout_hash(top));
    assert_ne!(one.layout_hash(top), other.layout_hash(top));
    assert_eq!(one.size(top), Some(16));
}

/// `struct S`, declared, and defined with so many bytes by one compiland and another.
fn namesakes(first: u16, second: u16) -> Option<u32> {
    let structure = |property: u16, bytes: u16| {
        let mut data = vec![0, 0];
        data.extend_from_slice(&property.to_le_bytes());
        data.extend_from_slice(&[0; 12]);
        data.extend_from_slice(&bytes.to_le_bytes());
        data.extend_from_slice(b"S\0");
        (0x1505, data)
    };
    let records = [
        structure(0x80, 0),
        structure(0, first),
        structure(0, second),
    ];
    CodeViewTypes::new(stream(&records), stream(&[])).size(0x1000)
}

#[test]
fn a_declaration_of_several_structures_has_no_size() {
    assert_eq!(namesakes(16, 16), Some(16));
    assert_eq!(namesakes(4, 16), None);
}

/// `struct`, defined with so many bytes, as rustc writes it: its unique name is a hash.
fn of_rust(name: &str, hash: &str, bytes: u16) -> CodeViewTypes {
    const HAS_UNIQUE_NAME: u16 = 0x200;
    let mut data = vec![0, 0];
    data.extend_from_slice(&HAS_UNIQUE_NAME.to_le_bytes());
    data.extend_from_slice(&[0; 12]);
    data.extend_from_slice(&bytes.to_le_bytes());
    data.extend_from_slice(format!("{name}\0{hash}\0").as_bytes());
    CodeViewTypes::new(stream(&[(0x1505, data)]), stream(&[]))
}

#[test]
fn another_version_of_a_crate_has_other_hashes() {
    const HASHES: [&str; 2] = [
        "a9f45efc0e78a3a978a2b5dac3cb1305",
        "118c3e7dae47b0ec87ea8a3febf885b",
    ];
    let layout = |types: &CodeViewTypes| types.layout_hash(0x1000);
    let names = |types: &CodeViewTypes| types.definitions();
    let (before, after) = (
        of_rust("shop::impl$3::Item", HASHES[0], 8),
        of_rust("shop::impl$4::Item", HASHES[1], 8),
    );
    assert_eq!(layout(&before), layout(&after));
    assert_eq!(names(&before), names(&after));
    assert_eq!(names(&before), [("shop::impl$::Item".to_owned(), 0x1000)]);
    assert_ne!(
        layout(&before),
        layout(&of_rust("shop::impl$4::Item", HASHES[1], 16))
    );
    assert_ne!(
        layout(&before),
        layout(&of_rust("shop::impl$4::Price", HASHES[0], 8))
    );
}
