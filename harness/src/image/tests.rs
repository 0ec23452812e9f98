use goblin::pe::PE;
use hpbuild_metadata::Base;
use proptest::prelude::*;

use super::*;
use crate::running::PatchFile;

const IMAGES: [&[u8]; 6] = [
    include_bytes!("../../tests/images/base-x64.dll"),
    include_bytes!("../../tests/images/base-arm64.dll"),
    include_bytes!("../../tests/images/fixed-x64.dll"),
    include_bytes!("../../tests/images/patch-x64.dll"),
    include_bytes!("../../tests/images/patch-arm64.dll"),
    include_bytes!("../../tests/images/older-x64.dll"),
];
const BASE: &[u8] = IMAGES[0];
const PATCH: &[u8] = IMAGES[3];

/// Another library reads the same facts from the same files.
#[test]
fn images_read_as_goblin_reads_them() {
    for file in IMAGES {
        let image = Image::<Base>::parse(file).unwrap();
        let pe = PE::parse(file).unwrap();
        let header = pe.header.optional_header.unwrap();
        assert_eq!(image.machine.coff(), pe.header.coff_header.machine);
        assert_eq!(
            image.identity.time_date_stamp,
            pe.header.coff_header.time_date_stamp
        );
        assert_eq!(image.identity.checksum, header.windows_fields.check_sum);
        assert_eq!(image.preferred, header.windows_fields.image_base);
        assert_eq!(image.size, header.windows_fields.size_of_image);
        let entry = header.standard_fields.address_of_entry_point;
        assert_eq!(image.entry_point.map_or(0, Rva::get), entry);
        let exports: BTreeMap<String, u32> = pe
            .exports
            .iter()
            .map(|export| (export.name.unwrap().to_owned(), export.rva as u32))
            .collect();
        let own = image
            .exports
            .iter()
            .map(|(name, rva)| (name.clone(), rva.get()))
            .collect();
        assert_eq!(exports, own);
        let imports: Vec<_> = pe
            .imports
            .iter()
            .map(|import| {
                (
                    import.dll.to_owned(),
                    import.name.to_string(),
                    import.offset as u32,
                )
            })
            .collect();
        let own: Vec<_> = image
            .imports
            .iter()
            .map(|import| (import.dll.clone(), import.name.clone(), import.slot.get()))
            .collect();
        assert_eq!(imports, own);
        for (section, own) in pe.sections.iter().zip(&image.sections) {
            assert_eq!(section.virtual_address, own.start.get());
            let raw = section.pointer_to_raw_data as usize;
            let length = section.size_of_raw_data.min(section.virtual_size) as usize;
            let start = own.start.get() as usize;
            assert_eq!(image.memory[start..start + length], file[raw..raw + length]);
        }
    }
}

#[test]
fn moving_an_image_moves_its_pointers_and_nothing_else() {
    let image = Image::<Base>::parse(BASE).unwrap();
    let moved = image.relocated(image.preferred + 0x5000_0000);
    let words = image.memory.chunks(8).zip(moved.chunks(8)).enumerate();
    let changed: Vec<usize> = words
        .filter(|(_, (a, b))| a != b)
        .map(|(at, _)| at * 8)
        .collect();
    // The three words of the table, the TLS directory's four addresses, and its one callback.
    assert_eq!(changed.len(), 8, "{changed:x?}");
    assert_eq!(image.relocations.len(), 8);
    for at in changed {
        let read = |memory: &[u8]| u64::from_le_bytes(memory[at..at + 8].try_into().unwrap());
        assert_eq!(read(&moved) - read(&image.memory), 0x5000_0000);
    }
    assert_eq!(image.relocated(image.preferred), image.memory);
}

/// File offset of the PE header.
fn nt(file: &[u8]) -> usize {
    u32::from_le_bytes(file[0x3c..0x40].try_into().unwrap()) as usize
}

/// The error for a file with `bytes` at `offset` from its PE header.
fn broken(file: &[u8], offset: usize, bytes: &[u8]) -> String {
    let mut file = file.to_vec();
    let at = nt(&file) + offset;
    file[at..at + bytes.len()].copy_from_slice(bytes);
    Image::<Base>::parse(&file).unwrap_err().to_string()
}

/// Offset of data directory `index` from the PE header.
fn directory(index: usize) -> usize {
    24 + 112 + 8 * index
}

#[test]
fn images_of_other_kinds_are_refused_by_name() {
    let cases: [(usize, &[u8], &str); 7] = [
        (
            4,
            &[0x4c, 0x01],
            "base: machine: expected x64 (0x8664) or arm64 (0xaa64), found x86 (0x14c)",
        ),
        (
            4,
            &[0x41, 0xa6],
            "base: machine: expected x64 (0x8664) or arm64 (0xaa64), found 0xa641",
        ),
        (
            0,
            b"NE",
            "base: PE headers: expected the signature PE\\0\\0, found something else",
        ),
        (
            directory(14),
            &[0, 0x20, 0, 0, 8, 0, 0, 0],
            "base: COM descriptor: expected a native image, found a managed (.NET) one",
        ),
        (
            24 + 56,
            &[0xff, 0xff, 0xff, 0x7f],
            "base: SizeOfImage: expected 1 to 0x10000000 bytes, found 0x7fffffff",
        ),
        (
            24 + 56,
            &[0, 0, 0, 0],
            "base: SizeOfImage: expected 1 to 0x10000000 bytes, found 0x0",
        ),
        (
            24 + 32,
            &[0x10, 0, 0, 0],
            "base: SectionAlignment: expected a power of two of at least 0x1000, found 0x10",
        ),
    ];
    for (offset, bytes, expected) in cases {
        assert_eq!(broken(BASE, offset, bytes), expected);
    }
}

/// Offset in the patch file of byte `field` of its load config.
fn load_config(file: &[u8], field: usize) -> usize {
    let directory = nt(file) + directory(10);
    let rva = u32::from_le_bytes(file[directory..directory + 4].try_into().unwrap());
    let pe = PE::parse(file).unwrap();
    let section = pe
        .sections
        .iter()
        .find(|s| (s.virtual_address..s.virtual_address + s.virtual_size).contains(&rva))
        .unwrap();
    (rva - section.virtual_address + section.pointer_to_raw_data) as usize + field
}

#[test]
fn hybrids_and_odd_load_configs_are_refused() {
    for (file, kind) in [(PATCH, "Arm64EC"), (IMAGES[4], "Arm64X")] {
        let mut hybrid = file.to_vec();
        hybrid[load_config(file, 0xc8)] = 0x10;
        let error = PatchFile::parse(&hybrid).unwrap_err().to_string();
        let found = format!("found a hybrid ({kind}, CHPE metadata at 0x10)");
        assert_eq!(
            error,
            format!("patch: load config: expected a plain image, {found}")
        );
    }
    let mut other_size = PATCH.to_vec();
    other_size[load_config(PATCH, 0)] = 0x38;
    let error = PatchFile::parse(&other_size).unwrap_err().to_string();
    let expected = "patch: load config Size: expected the directory's size, 0x140, found 0x138";
    assert_eq!(error, expected);
    let mut no_table = PATCH.to_vec();
    no_table[load_config(PATCH, 0xf0)..][..4].copy_from_slice(&[0; 4]);
    let error = PatchFile::parse(&no_table).unwrap_err().to_string();
    let expected =
        "patch: load config: expected a hotpatch table (HotPatchTableOffset), found none";
    assert_eq!(error, expected);
    let mut outside = PATCH.to_vec();
    outside[load_config(PATCH, 0xf0)..][..4].copy_from_slice(&[0xff; 4]);
    let error = PatchFile::parse(&outside).unwrap_err().to_string();
    assert!(
        error.starts_with("patch: HotPatchTableOffset: expected an rva below"),
        "{error}"
    );
    let error = PatchFile::parse(BASE).unwrap_err().to_string();
    assert_eq!(error, expected);
}

#[test]
fn a_table_with_an_unknown_kind_of_chunk_is_refused() {
    let table = PatchFile::parse(PATCH).unwrap().image.table.unwrap().get() as usize;
    let section = PE::parse(PATCH).unwrap().sections[1].clone();
    let shift = section.virtual_address as usize - section.pointer_to_raw_data as usize;
    let mut file = PATCH.to_vec();
    // The first chunk's header, made a forward ABSOLUTE, then a kind that does not exist.
    for header in [0x0002_c001_u32, 0x800a_c001] {
        file[table - shift + 0x40..][..4].copy_from_slice(&header.to_le_bytes());
        let error = PatchFile::parse(&file).unwrap_err().to_string();
        let expected = format!(
            "patch: hotpatch table+0x40: chunk type: expected FUNCTION, or another known type \
             with INVERSE, found {header:#010x}"
        );
        assert_eq!(error, expected);
    }
}

/// A few bytes changed anywhere in a file.
fn edits(length: usize) -> impl Strategy<Value = Vec<(usize, u8)>> {
    prop::collection::vec((0..length, any::<u8>()), 1..6)
}

fn edited(file: &[u8], edits: &[(usize, u8)]) -> Vec<u8> {
    let mut file = file.to_vec();
    for &(at, byte) in edits {
        file[at] = byte;
    }
    file
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn damaged_files_give_an_error_or_an_image(
        which in 0..IMAGES.len(),
        headers in edits(0x400),
        anywhere in edits(PATCH.len()),
        length in 0usize..8192,
    ) {
        let file = IMAGES[which];
        let damaged = edited(&edited(file, &headers), &anywhere);
        let _ = Image::<Base>::parse(&damaged);
        let _ = PatchFile::parse(&damaged);
        let _ = PatchFile::parse(&file[..length.min(file.len())]);
    }

    #[test]
    fn damaged_pairs_are_refused_or_come_out_without_a_trace(
        base in edits(BASE.len()),
        patch in edits(PATCH.len()),
    ) {
        crate::fuzz_apply(&edited(BASE, &base), PATCH);
        crate::fuzz_apply(BASE, &edited(PATCH, &patch));
    }

    #[test]
    fn random_bytes_are_no_image(bytes in prop::collection::vec(any::<u8>(), 0..4096)) {
        prop_assert!(Image::<Base>::parse(&bytes).is_err());
    }
}
