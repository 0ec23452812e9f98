//! Any bytes as unwind data.
#![no_main]

use hpbuild_differ::unwind::ScopeTable;
use hpbuild_differ::unwind::arm64::{Packed, Record};
use hpbuild_differ::unwind::x64::UnwindInfo;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(info) = UnwindInfo::read(bytes) {
        let written = info.write().expect("what was stored can be stored");
        assert_eq!(written.len(), info.size());
        assert_eq!(UnwindInfo::read(&written).as_ref(), Ok(&info));
        assert!(info.rva_fields().iter().all(|at| at + 4 <= info.size()));
    }
    if let Ok(record) = Record::read(bytes) {
        assert!(record.size <= bytes.len());
        assert!(record.rva_fields().iter().all(|at| at + 4 <= record.size));
        for epilogue in &record.epilogues {
            let _ = record.operations(epilogue.index.into());
        }
    }
    if let Ok(table) = ScopeTable::read(bytes) {
        assert!(table.rva_fields().iter().all(|at| at + 4 <= table.size()));
    }
    if let Some(word) = bytes.first_chunk() {
        let _ = Packed::read(u32::from_le_bytes(*word));
    }
});
