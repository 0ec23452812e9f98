use proptest::prelude::*;

use super::arm64::{Epilogue, Operation as ArmOperation, Packed, Record};
use super::x64::{Chain, Code, Operation, Register, UnwindInfo};
use super::*;

/// `push rbp; push rbx; sub rsp, 0x98; lea rbp, [rsp+0x80]`, a handler, and its data behind.
const INFO: [u8; 20] = [
    0x09, 0x11, 0x05, 0x85, // version 1, handler, prologue 0x11, 5 slots, rbp + 0x80
    0x11, 0x83, // set frame register; information bits as MSVC writes them
    0x09, 0x01, 0x13, 0x00, // allocate 0x13 * 8
    0x02, 0x30, // push rbx
    0x01, 0x50, // push rbp
    0x00, 0x00, // filler
    0x78, 0x56, 0x34, 0x12, // handler
];

#[test]
fn unwind_info() {
    let info = UnwindInfo::read(&INFO).expect("well formed");
    let expected = UnwindInfo {
        version: 1,
        flags: x64::EXCEPTION_HANDLER,
        prologue: 0x11,
        frame: Some((Register::Rbp, 0x80)),
        codes: vec![
            Code::new(0x11, Operation::SetFrameRegister { info: 8 }),
            Code::new(9, Operation::Allocate(0x98)),
            Code::new(2, Operation::PushNonvolatile(Register::Rbx)),
            Code::new(1, Operation::PushNonvolatile(Register::Rbp)),
        ],
        chain: None,
        handler: Some(0x1234_5678),
    };
    assert_eq!(info, expected);
    assert_eq!((info.size(), info.rva_fields()), (20, vec![16]));
    assert_eq!(info.write().as_deref(), Ok(&INFO[..]));
    for end in 0..INFO.len() {
        assert!(UnwindInfo::read(&INFO[..end]).is_err(), "cut at {end}");
    }
}

#[test]
fn chained_info() {
    let chain = Chain {
        begin: 0x1000,
        end: 0x1040,
        unwind: 0x3000,
    };
    let info = UnwindInfo {
        version: 1,
        flags: x64::CHAINED,
        prologue: 0,
        frame: None,
        codes: vec![Code::new(5, Operation::SaveXmm(6, 0x20))],
        chain: Some(chain),
        handler: None,
    };
    let bytes = info.write().expect("fits");
    assert_eq!(bytes[..8], [0x21, 0, 2, 0, 5, 0x68, 2, 0]);
    assert_eq!((info.size(), info.rva_fields()), (20, vec![8, 12, 16]));
    assert_eq!(UnwindInfo::read(&bytes), Ok(info));
}

fn message(bytes: &[u8]) -> String {
    UnwindInfo::read(bytes).expect_err("broken").to_string()
}

#[test]
fn broken_unwind_info() {
    let codes = |codes: [u8; 4]| message(&[&[1, 0, 2, 0], &codes[..]].concat());
    assert_eq!(
        message(&[3, 0, 0, 0]),
        "unwind record+0x0: Version: expected 1 or 2, found 3"
    );
    assert!(message(&[0x29, 0, 0, 0]).contains("Flags: expected handler flags"));
    assert!(message(&[0x41, 0, 0, 0]).contains("Flags: expected handler flags"));
    // The second slot of the last code is missing, though there are bytes.
    assert!(codes([0, 0, 4, 0x01]).contains("+0x8: unwind code: expected 2 bytes, found 0"));
    assert!(codes([4, 6, 0, 0]).contains("expected a code of version 1, found operation 6 with 0"));
    assert!(codes([4, 0x21, 0, 0]).contains("operation 1 with 2"));
}

#[test]
fn numbers_that_do_not_fit_are_not_written() {
    let write = |operation, slots| {
        let code = Code {
            offset: 0,
            operation,
            slots,
        };
        let info = UnwindInfo {
            version: 1,
            flags: 0,
            prologue: 0,
            frame: None,
            codes: vec![code],
            chain: None,
            handler: None,
        };
        info.write().is_ok()
    };
    assert!(write(Operation::Allocate(128), 1) && !write(Operation::Allocate(136), 1));
    assert!(!write(Operation::Allocate(4), 1) && !write(Operation::Allocate(0), 1));
    assert!(write(Operation::Allocate(0x7_fff8), 2) && !write(Operation::Allocate(0x8_0000), 2));
    assert!(write(Operation::Allocate(0x8_0000), 3));
    assert!(!write(Operation::SaveNonvolatile(Register::Rbx, 4), 2));
    assert!(!write(Operation::SaveXmm(6, 8), 2) && !write(Operation::SaveXmm(16, 16), 2));
    assert!(!write(Operation::SetFrameRegister { info: 0 }, 2));
}

fn operation() -> impl Strategy<Value = Operation> {
    let register = (0u8..16).prop_map(Register::from_number);
    prop_oneof![
        register.clone().prop_map(Operation::PushNonvolatile),
        (1u32..0x2000_0000).prop_map(|n| Operation::Allocate(n * 8)),
        (1u32..40).prop_map(|n| Operation::Allocate(n * 8)),
        (0u8..16).prop_map(|info| Operation::SetFrameRegister { info }),
        (register, 0u32..0x2_0000).prop_map(|(r, n)| Operation::SaveNonvolatile(r, n * 8)),
        (0u8..16, 0u32..0x2_0000).prop_map(|(r, n)| Operation::SaveXmm(r, n * 16)),
        any::<bool>().prop_map(|error_code| Operation::MachineFrame { error_code }),
        (0u8..16).prop_map(|info| Operation::Epilogue { info }),
        (0u8..16, any::<u16>()).prop_map(|(info, value)| Operation::Spare(info, value)),
    ]
}

fn info() -> impl Strategy<Value = UnwindInfo> {
    let codes = (any::<u8>(), operation()).prop_map(|(offset, op)| Code::new(offset, op));
    let codes = proptest::collection::vec(codes, 0..40);
    let tail = prop_oneof![
        Just((0, None, None)),
        (1u8..4, any::<u32>()).prop_map(|(flags, handler)| (flags, None, Some(handler))),
        any::<[u32; 3]>().prop_map(|[begin, end, unwind]| {
            (x64::CHAINED, Some(Chain { begin, end, unwind }), None)
        }),
    ];
    let frame = proptest::option::of((1u8..16, 0u8..16));
    (any::<u8>(), frame, codes, tail).prop_map(|(prologue, frame, codes, tail)| UnwindInfo {
        version: 2,
        flags: tail.0,
        prologue,
        frame: frame.map(|(register, units)| (Register::from_number(register), units * 16)),
        codes,
        chain: tail.1,
        handler: tail.2,
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read(info in info()) {
        let bytes = info.write().expect("fits");
        prop_assert_eq!(bytes.len(), info.size());
        prop_assert_eq!(UnwindInfo::read(&bytes), Ok(info));
    }

    #[test]
    fn what_is_read_is_written(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        if let Ok(info) = UnwindInfo::read(&bytes) {
            let written = info.write().expect("what was stored can be stored");
            prop_assert!(info.size() <= bytes.len());
            prop_assert_eq!(UnwindInfo::read(&written), Ok(info.clone()));
            let filler = 4 + 2 * usize::from(bytes[2]);
            for (at, (new, old)) in written.iter().zip(&bytes).enumerate() {
                let is_filler = bytes[2] % 2 == 1 && (filler..filler + 2).contains(&at);
                prop_assert!(new == old || is_filler, "at {}", at);
            }
        }
    }

    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..256), start in 0usize..300) {
        if let Ok(record) = Record::read(&bytes) {
            prop_assert!(record.size <= bytes.len());
            let _ = record.operations(start);
        }
        if let Ok(table) = ScopeTable::read(&bytes) {
            prop_assert!(table.size() <= bytes.len());
        }
    }
}

#[test]
fn packed_data() {
    // From the public description: length 0x10, RegI 2, CR 3, frame 0x20.
    let word = 1 | 4 << 2 | 2 << 16 | 3 << 21 | 2 << 23;
    let expected = Packed {
        fragment: false,
        length: 0x10,
        reg_f: 0,
        reg_i: 2,
        homes: false,
        chain: 3,
        frame: 0x20,
    };
    assert_eq!(Packed::read(word), Some(expected));
    assert_eq!((Packed::read(4), Packed::read(3)), (None, None));
}

#[test]
fn records() {
    // Two epilogues, 2 words of codes, a handler.
    let head: u32 = 0x40 | 1 << 20 | 2 << 22 | 2 << 27;
    let codes = [0xe1, 0x81, 0xd0, 0xc2, 0xc0, 0x10, 0xe4, 0xe3];
    let mut bytes = head.to_le_bytes().to_vec();
    for scope in [0x10u32 | 1 << 22, 0x20 | 6 << 22] {
        bytes.extend(scope.to_le_bytes());
    }
    bytes.extend(codes);
    bytes.extend(0x1234u32.to_le_bytes());
    let record = Record::read(&bytes).expect("well formed");
    let expected = Record {
        length: 0x100,
        version: 0,
        epilogues: vec![
            Epilogue {
                start: Some(0x40),
                index: 1,
            },
            Epilogue {
                start: Some(0x80),
                index: 6,
            },
        ],
        codes: codes.to_vec(),
        handler: Some(0x1234),
        size: 24,
    };
    assert_eq!(record, expected);
    assert_eq!(record.rva_fields(), [20]);
    assert_eq!(
        record.operations(0),
        Ok(vec![
            ArmOperation::SetFp,
            ArmOperation::SaveFpLr {
                at: 16,
                indexed: true
            },
            ArmOperation::Save {
                register: 22,
                at: 16,
                indexed: false
            },
            ArmOperation::Allocate(0x100),
            ArmOperation::End,
        ])
    );
    assert_eq!(record.operations(6), Ok(vec![ArmOperation::End]));
    assert!(record.operations(7).is_err(), "no end behind the last code");
    for end in 0..bytes.len() {
        assert!(Record::read(&bytes[..end]).is_err(), "cut at {end}");
    }
}

#[test]
fn records_of_other_shapes() {
    // One epilogue at the end: its index stands where the count would.
    let single: u32 = 0x40 | 1 << 21 | 2 << 22 | 1 << 27;
    let bytes = [single.to_le_bytes(), [0xe3, 0xe3, 0xe4, 0xe3]].concat();
    let record = Record::read(&bytes).expect("well formed");
    let epilogue = Epilogue {
        start: None,
        index: 2,
    };
    assert_eq!((record.epilogues, record.size), (vec![epilogue], 8));
    // An index behind the codes.
    let mut broken = bytes.clone();
    broken[..4].copy_from_slice(&(single | 4 << 22).to_le_bytes());
    assert!(Record::read(&broken).is_err());
    // An extended header: no epilogue, 33 words of codes.
    let mut long = vec![0x40, 0, 0, 0, 0, 0, 33, 0];
    long.resize(8 + 4 * 33, 0xe4);
    let record = Record::read(&long).expect("well formed");
    assert_eq!((record.size, record.codes.len()), (140, 132));
    // A fragment: the codes of the function it was split from follow its own.
    let chained = [0x40, 0, 0, 8, 0xe1, 0xe5, 0x81, 0xe4];
    let record = Record::read(&chained).expect("well formed");
    let operations = record.operations(0).expect("an end");
    assert_eq!(
        (operations[1], operations.len()),
        (ArmOperation::EndChained, 4)
    );
    // Another version.
    assert!(Record::read(&(0x40u32 | 1 << 18 | 1 << 27).to_le_bytes()).is_err());
}

#[test]
fn scope_tables() {
    let words = [2u32, 0x1000, 0x1010, 1, 0x1020, 0x1000, 0x1030, 0x2000, 0];
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let table = ScopeTable::read(&bytes).expect("well formed");
    assert_eq!(table.scopes.len(), 2);
    assert_eq!(table.size(), bytes.len());
    // The constant filter and the missing target are no addresses.
    assert_eq!(table.rva_fields(), [4, 8, 16, 20, 24, 28]);
    assert!(ScopeTable::read(&bytes[..35]).is_err());
    assert!(ScopeTable::read(&u32::MAX.to_le_bytes()).is_err());
}
