//! No bytes may make the reader panic, loop or ask for memory that the file does not justify.

use proptest::prelude::*;

use super::build::{Image, PAGE, put, words};
use super::directories::full;
use super::*;

proptest! {
    #[test]
    fn random_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..2048)) {
        let _ = open(bytes);
    }

    #[test]
    fn random_directories(
        machine in prop_oneof![Just(0x8664u16), Just(0xaa64), Just(0x14c)],
        index in 0usize..16,
        bytes in proptest::collection::vec(any::<u8>(), 1..1024),
    ) {
        let _ = open(Image::new(machine).directory(index, &bytes).build());
    }

    #[test]
    fn truncated(end in 0usize..0x2000) {
        let mut file = full(0x8664).build();
        file.truncate(end);
        let _ = open(file);
    }

    #[test]
    fn flipped(
        machine in prop_oneof![Just(0x8664u16), Just(0xaa64)],
        flips in proptest::collection::vec((any::<usize>(), any::<u8>()), 1..8),
    ) {
        let mut file = full(machine).build();
        for (at, value) in flips {
            let at = at % file.len();
            file[at] = value;
        }
        let _ = open(file);
    }

    /// Small numbers reach deeper than random ones, which mostly leave the image at once.
    #[test]
    fn flipped_words(
        machine in prop_oneof![Just(0x8664u16), Just(0xaa64)],
        flips in proptest::collection::vec((any::<usize>(), 0u32..0x6000), 1..4),
    ) {
        let mut file = full(machine).build();
        for (at, value) in flips {
            let at = at % (file.len() / 4) * 4;
            put(&mut file, at, &value.to_le_bytes());
        }
        let _ = open(file);
    }
}

/// A truncated image is an error wherever the cut goes through something that is used.
#[test]
fn every_truncation_that_cuts_a_section_is_an_error() {
    let file = full(0x8664).build();
    let last = full(0x8664).sections.last().expect("sections").1.len();
    let used = file.len() - (last.next_multiple_of(0x200) - last);
    for end in 0..used {
        assert!(open(file[..end].to_vec()).is_err(), "cut at {end:#x}");
    }
}

/// Every descriptor names the same slots: the list of imports must not become the product.
#[test]
fn imports_that_share_their_slots() {
    let mut bytes = vec![0; PAGE as usize];
    for at in (0..0x400).step_by(20) {
        put(&mut bytes, at, &words(&[0x1800, 0, 0, 0x1f00, 0x1800]));
    }
    put(&mut bytes, 0x3e8, &[0; 24]);
    for at in (0x800..0xe00).step_by(8) {
        put(&mut bytes, at, &(1u64 << 63 | 7).to_le_bytes());
    }
    put(&mut bytes, 0xf00, b"a.dll\0");
    let message = error(Image::new(0x8664).directory(1, &bytes).build());
    assert!(
        message.contains("import lists that do not overlap"),
        "{message}"
    );
}

/// One long name used by every import.
#[test]
fn names_are_bounded_by_the_file() {
    let mut bytes = vec![0; PAGE as usize];
    put(&mut bytes, 0, &words(&[0x1040, 0, 0, 0x1800, 0x1040]));
    for at in (0x40..0x7f8).step_by(8) {
        put(&mut bytes, at, &0x1800u64.to_le_bytes());
    }
    bytes[0x800..0xfff].fill(b'x');
    let message = error(Image::new(0x8664).directory(1, &bytes).build());
    assert!(
        message.contains("names that take up less than four times the file"),
        "{message}"
    );
}

#[test]
fn sections_are_checked() {
    let base = full(0x8664);
    let table = 0x58 + 112 + 128;
    let broken = |section: usize, field: usize, value: u32| {
        let mut file = base.build();
        put(
            &mut file,
            table + 40 * section + field,
            &value.to_le_bytes(),
        );
        error(file)
    };
    let message = broken(1, 12, 0x1000);
    assert!(message.contains("section 2 (.rdata): expected a VirtualAddress of at least"));
    assert!(broken(0, 8, 0xffff_ffff).contains("an end within SizeOfImage"));
    assert!(broken(0, 20, 0x00ff_0000).contains("a file of"));
    assert!(broken(0, 20, 0x401).contains("a multiple of 0x200, found 0x401"));
    let mut flat = base.clone();
    flat.section_alignment = 0x20;
    assert!(error(flat.build()).contains("SectionAlignment is below a page"));
}

/// A section with nothing in the file may point anywhere; what is believed of it stays inside.
#[test]
fn an_empty_section_points_nowhere() {
    let mut file = full(0x8664).build();
    let entry = 0x58 + 112 + 128;
    let sections = full(0x8664).sections.len();
    let header = entry + 40 * sections;
    put(&mut file, 0x46, &(sections as u16 + 1).to_le_bytes());
    let end = PAGE * (sections as u32 + 1);
    put(&mut file, header, &words(&[0, 0, 0, end, 0, 0x5d00_0000]));
    let pe = pe(file);
    let last = pe.sections.last().expect("a section");
    assert_eq!(last.file, 0..0);
}
