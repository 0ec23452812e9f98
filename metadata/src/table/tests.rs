use proptest::prelude::*;

use super::*;

/// The worked example of the format reference, section 2, word for word.
const WORKED_EXAMPLE: [u32; 33] = [
    0x0000_0003,
    0x0000_0084,
    0x0000_0001,
    0x0000_001c, //
    0x0000_0001,
    0x0000_0000,
    0x0000_0001,
    0x0000_0020, //
    0x0000_0001,
    0x0000_0010,
    0x662a_7c63,
    0x0001_f2a4, //
    0x0000_0000,
    0x0000_0000,
    0x0000_0040,
    0x0000_0000, //
    0x8001_c001,
    0x0000_2000,
    0x0000_1800,
    0x0000_5540, //
    0x8002_c001,
    0x0000_5000,
    0x0000_4010,
    0x0000_0000, //
    0x8005_c001,
    0x0000_5100,
    0x0000_3008,
    0x0000_0000, //
    0x0001_c001,
    0x0000_1400,
    0x0000_2200,
    0x0000_5340, //
    0x0000_0000,
];

fn bytes_of(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn worked_example() -> HotPatchTable {
    HotPatchTable::new(
        Sequence::FIRST,
        Machine::X64,
        BaseIdentity {
            time_date_stamp: 0x662a_7c63,
            checksum: 0x1f2a4,
        },
        vec![
            Chunk::ReverseFunction(vec![ReverseFunctionAttach {
                patch: Rva::new(0x2000),
                base: Rva::new(0x1800),
                original: 0x5540,
            }]),
            Chunk::ReverseAbsolute(vec![PointerAttach {
                patch: Rva::new(0x5000),
                base: Rva::new(0x4010),
            }]),
            Chunk::ReverseIndirect(vec![PointerAttach {
                patch: Rva::new(0x5100),
                base: Rva::new(0x3008),
            }]),
            Chunk::ForwardFunction(vec![ForwardAttach {
                base: Rva::new(0x1400),
                patch: Rva::new(0x2200),
                original: 0x5340,
            }]),
        ],
    )
}

#[test]
fn worked_example_decodes_and_encodes() {
    assert_eq!(
        decode(&bytes_of(&WORKED_EXAMPLE)).unwrap(),
        worked_example()
    );
    assert_eq!(encode(&worked_example()), bytes_of(&WORKED_EXAMPLE));
    worked_example()
        .validate(Machine::X64, 0x6000, 0x5000)
        .unwrap();
}

/// Changes word `index` of the worked example and returns the error's message.
fn broken(index: usize, value: u32) -> String {
    let mut words = WORKED_EXAMPLE;
    words[index] = value;
    decode(&bytes_of(&words)).unwrap_err().to_string()
}

#[test]
fn each_header_rule_is_checked_with_its_place() {
    let cases = [
        (
            0,
            5,
            "hotpatch table+0x0: Version: expected 1 to 4, found 5",
        ),
        (
            1,
            0x85,
            "hotpatch table+0x4: Size: expected a multiple of 4 from 0x1c to 0x84, found 0x85",
        ),
        (
            1,
            0x88,
            "hotpatch table+0x4: Size: expected a multiple of 4 from 0x1c to 0x84, found 0x88",
        ),
        (
            1,
            0x18,
            "hotpatch table+0x4: Size: expected a multiple of 4 from 0x1c to 0x84, found 0x18",
        ),
        (
            2,
            0,
            "hotpatch table+0x8: SequenceNumber: expected a number other than 0, found 0",
        ),
        (
            3,
            0x84,
            "hotpatch table+0xc: BaseImageList: expected a list of 1 words between header and end (0x84), found 0x84",
        ),
        (
            4,
            0,
            "hotpatch table+0x10: BaseImageCount: expected 1 to 64, found 0",
        ),
        (
            6,
            65,
            "hotpatch table+0x18: ExtraPatchSize: expected at most 64, found 65",
        ),
        (
            7,
            0,
            "hotpatch table+0x1c: BaseImageList entry: expected an offset of a base that ends by 0x84, found 0x0",
        ),
        (
            7,
            0x68,
            "hotpatch table+0x1c: BaseImageList entry: expected an offset of a base that ends by 0x84, found 0x68",
        ),
        (
            14,
            0,
            "hotpatch table+0x38: PatchTable: expected an offset other than 0, found 0",
        ),
        (
            14,
            0x84,
            "hotpatch table+0x84: chunk header: expected 4 bytes, found the end at 0x84",
        ),
        (
            16,
            0xc001_c001,
            "hotpatch table+0x40: chunk header: expected reserved and OBLIGATORY bits clear, found 0xc001c001",
        ),
        (
            16,
            0x8001_d001,
            "hotpatch table+0x40: chunk header: expected reserved and OBLIGATORY bits clear, found 0x8001d001",
        ),
        (
            16,
            0x8001_c000,
            "hotpatch table+0x40: chunk header: expected at least one record, found 0x8001c000",
        ),
        (
            16,
            0x8001_cfff,
            "hotpatch table+0x40: chunk: expected 4095 records that end by 0x84, found an end at 0xc038",
        ),
        (
            20,
            0x0002_c001,
            "hotpatch table+0x50: chunk type: expected FUNCTION, or another known type with INVERSE, found 0x0002c001",
        ),
        (
            32,
            1,
            "hotpatch table+0x80: chunk: expected 1 records that end by 0x84, found an end at 0x90",
        ),
    ];
    for (index, value, message) in cases {
        assert_eq!(broken(index, value), message);
    }
}

#[test]
fn addresses_outside_the_images_are_refused() {
    let table = worked_example();
    let message = |patch, base| {
        table
            .validate(Machine::X64, patch, base)
            .unwrap_err()
            .to_string()
    };
    assert!(message(0x5104, 0x5000).contains("reverse slot"));
    assert!(message(0x6000, 0x4014).contains("reverse target"));
    assert!(message(0x6000, 0x1000).contains("reverse FUNCTION target"));
    assert!(table.validate(Machine::Arm64, 0x6000, 0x5000).is_err());

    let mut low = worked_example();
    low.bases[0].chunks = vec![Chunk::ForwardFunction(vec![ForwardAttach {
        base: Rva::new(5),
        patch: Rva::new(0x1000),
        original: 0,
    }])];
    assert!(
        low.validate(Machine::X64, 0x6000, 0x5000).is_err(),
        "entry below rva 6"
    );
}

/// 4096 records need a second chunk, which decodes to the same records in two chunks.
#[test]
fn long_lists_are_split_into_chunks() {
    for count in [1_u32, 4095, 4096] {
        let records: Vec<_> = (0..count)
            .map(|n| PointerAttach {
                patch: Rva::new(8 * n),
                base: Rva::new(n),
            })
            .collect();
        let mut table = worked_example();
        table.bases[0].chunks = vec![Chunk::ReverseAbsolute(records.clone())];
        let decoded = decode(&encode(&table)).unwrap();
        let found: Vec<_> = decoded.bases[0]
            .chunks
            .iter()
            .flat_map(|chunk| match chunk {
                Chunk::ReverseAbsolute(records) => records.clone(),
                other => panic!("unexpected {}", other.name()),
            })
            .collect();
        assert_eq!(found, records);
        assert_eq!(
            decoded.bases[0].chunks.len(),
            if count > 4095 { 2 } else { 1 }
        );
    }
}

fn any_chunk(extra: u32) -> impl Strategy<Value = Chunk> {
    let words = prop::collection::vec((any::<u32>(), any::<u32>(), any::<u32>()), 1..20);
    (0..8_u8, words).prop_map(move |(kind, words)| {
        let original = |third| if extra > 0 { third } else { 0 };
        let pointers = || {
            words
                .iter()
                .map(|w| PointerAttach {
                    patch: Rva::new(w.0),
                    base: Rva::new(w.1),
                })
                .collect()
        };
        let targets = || {
            words
                .iter()
                .map(|w| CallTarget {
                    word: w.0,
                    target: Rva::new(w.1),
                })
                .collect()
        };
        match kind {
            0 => Chunk::ForwardFunction(
                words
                    .iter()
                    .map(|w| ForwardAttach {
                        base: Rva::new(w.0),
                        patch: Rva::new(w.1),
                        original: original(w.2),
                    })
                    .collect(),
            ),
            1 => Chunk::ReverseFunction(
                words
                    .iter()
                    .map(|w| ReverseFunctionAttach {
                        patch: Rva::new(w.0),
                        base: Rva::new(w.1),
                        original: original(w.2),
                    })
                    .collect(),
            ),
            2 => Chunk::ReverseAbsolute(pointers()),
            3 => Chunk::ReverseRel32(pointers()),
            4 => Chunk::ReverseIndirect(pointers()),
            5 => Chunk::CallTarget(targets()),
            6 => Chunk::NoCallTarget(targets()),
            _ => Chunk::DynamicValue(
                words
                    .iter()
                    .map(|w| DynamicValue {
                        patch: Rva::new(w.0),
                        index: w.1,
                    })
                    .collect(),
            ),
        }
    })
}

fn any_table() -> impl Strategy<Value = HotPatchTable> {
    (1..=4_u32, 0..4_u32, any::<[u32; 4]>(), 1..u32::MAX).prop_flat_map(
        |(version, extra, extras, sequence)| {
            let version = Version::from_number(version).unwrap();
            let extra = if version >= Version::V3 { extra } else { 0 };
            let base = (
                any::<[u32; 7]>(),
                prop::collection::vec(any_chunk(extra), 0..6),
            )
                .prop_map(|(w, chunks)| HotPatchBase {
                    sequence: w[0],
                    flags: w[1],
                    identity: BaseIdentity {
                        time_date_stamp: w[2],
                        checksum: w[3],
                    },
                    code_integrity_info: w[4],
                    code_integrity_size: w[5],
                    buffer_offset: w[6],
                    chunks,
                });
            prop::collection::vec(base, 1..4).prop_map(move |bases| HotPatchTable {
                version,
                sequence: Sequence::new(sequence).unwrap(),
                buffer_offset: if version >= Version::V2 { extras[0] } else { 0 },
                extra_patch_size: extra,
                min_sequence: if version >= Version::V4 { extras[1] } else { 0 },
                flags: if version >= Version::V4 { extras[2] } else { 0 },
                bases,
            })
        },
    )
}

proptest! {
    #[test]
    fn decode_inverts_encode(table in any_table()) {
        prop_assert_eq!(decode(&encode(&table)).unwrap(), table);
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        let _ = decode(&bytes);
    }

    /// One changed word, or a cut, of a valid table gives a table or an error, never a panic.
    #[test]
    fn damaged_tables_never_panic(
        table in any_table(), at in any::<prop::sample::Index>(), word in any::<u32>(),
    ) {
        let mut bytes = encode(&table);
        let index = at.index(bytes.len() / 4) * 4;
        bytes[index..index + 4].copy_from_slice(&word.to_le_bytes());
        if let Ok(table) = decode(&bytes) {
            let _ = table.validate(Machine::X64, 0x10000, 0x10000);
        }
        let _ = decode(&bytes[..index]);
    }
}
