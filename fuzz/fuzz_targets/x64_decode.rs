//! Any bytes as x64 code, behind two bytes that say where it lies.
#![no_main]

use hpbuild_differ::decode::{Body, Code, decode};
use hpbuild_metadata::{Base, Machine, Rva};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((place, bytes)) = bytes.split_first_chunk::<2>() else {
        return;
    };
    let rva = 0x1000 + u32::from(u16::from_le_bytes(*place));
    let mut body = Body::<Base>::default();
    let code = Code {
        bytes,
        rva: Rva::new(rva),
        image_base: 0x1_8000_0000,
        relocated: &[Rva::new(rva + 2)],
        jumps: &[],
    };
    decode(Machine::X64, code, &mut body);
    // Every byte belongs to one instruction or to none that is believed.
    let mut end = 0;
    for instruction in &body.instructions {
        assert_eq!(instruction.offset, end);
        end += u32::from(instruction.length);
    }
    assert_eq!(end as usize, bytes.len());
    for table in &body.jump_tables {
        let start = table.table.get().checked_sub(rva);
        if let (Some(start), Some(count)) = (start, table.count) {
            let end = u64::from(start) + 4 * u64::from(count);
            assert!(end <= bytes.len() as u64 || start as usize >= bytes.len());
        }
    }
});
