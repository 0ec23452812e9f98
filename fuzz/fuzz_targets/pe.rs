//! Any bytes as a PE file.
#![no_main]

use std::path::Path;

use hpbuild_differ::pe::{Opened, Pe};
use hpbuild_metadata::Base;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(Opened::Pe(pe)) = Pe::<Base>::parse(Path::new("fuzz"), bytes.to_vec()) else {
        return;
    };
    let _ = pe.resource_tree();
    // What was believed must hold.
    let inside = |rva: u32| rva <= pe.image_size;
    for section in &pe.sections {
        assert!(inside(section.rva.get() + section.size));
        assert!(section.file.end <= bytes.len() && section.file.len() <= section.size as usize);
    }
    for function in &pe.runtime_functions {
        assert!(function.begin < function.end && inside(function.end.get()));
    }
    for place in &pe.base_relocations {
        assert!(pe.section_at(*place).is_some());
    }
    assert!(pe.base_relocations.is_sorted());
    assert!(pe.imports.is_sorted_by_key(|import| import.slot));
    assert!(
        pe.runtime_functions
            .is_sorted_by_key(|function| function.begin)
    );
});
