//! The DWARF of a prebuilt image with damage, in the sections that hold it and the symbol table
//! behind them: an answer or an error.
#![no_main]

use std::sync::OnceLock;

use hpbuild_differ::{Input, SymbolPaths, functions_by_name};
use hpbuild_fuzz::{Sides, all, chosen, damage, file};
use hpbuild_metadata::Fixed;
use libfuzzer_sys::fuzz_target;

fn pairs() -> &'static [&'static Sides] {
    static PAIRS: OnceLock<Vec<&Sides>> = OnceLock::new();
    PAIRS.get_or_init(|| all().iter().filter(|it| it.fixed.pdb.is_empty()).collect())
}

/// File offset of the first section of DWARF: their names are longer than eight bytes.
fn start(image: &[u8]) -> usize {
    let word = |at: usize| {
        let bytes = image[at..at + 4].try_into().expect("four bytes");
        u32::from_le_bytes(bytes) as usize
    };
    let header = word(0x3c);
    let table = header + 24 + usize::from(image[header + 20]);
    (0..usize::from(image[header + 6]))
        .map(|index| table + 40 * index)
        .filter(|at| image[*at] == b'/')
        .map(|at| word(at + 20))
        .min()
        .unwrap_or(0)
}

fuzz_target!(|bytes: &[u8]| {
    let Some((pair, changes)) = chosen(pairs(), bytes) else {
        return;
    };
    let mut image = pair.fixed.dll.clone();
    let mut dwarf = image.split_off(start(&image));
    damage(&mut [&mut dwarf], changes);
    image.append(&mut dwarf);
    let pe = file(&image);
    let input = Input {
        pe: pe.path().to_owned(),
        pdb: None,
    };
    let _ = functions_by_name::<Fixed>(&input, &SymbolPaths::default());
});
