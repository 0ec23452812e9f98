//! Each directory, read back from an image made by hand.

use hpbuild_metadata::Rva;

use super::super::{Export, ExportTarget, Import, ImportSymbol, RuntimeFunction, Tls, Unwind};
use super::build::{IMAGE_BASE, Image, PAGE, put, words};
use super::*;

fn va(rva: u32) -> [u8; 8] {
    (IMAGE_BASE + u64::from(rva)).to_le_bytes()
}

/// An image with one of everything. Code at 0x1000, then one page for each directory.
pub(super) fn full(machine: u16) -> Image {
    let mut image = Image::new(machine);
    image.entry_point = image.section(".text", &[0xcc; 0x300], 0x6000_0020);
    let mut image = image
        .directory(0, &exports(0x2000))
        .directory(1, &imports(0x3000))
        .directory(3, &exceptions(machine, 0x4000))
        .directory(9, &tls(0x5000))
        .directory(10, &load_config(0x6000))
        .directory(6, &debug(0x7000))
        .directory(13, &delayed(0x8000))
        // DIR64 at 0x5000, 0x5008 and 0x5010, and filler.
        .directory(5, &words(&[0x5000, 16, 0xa008_a000, 0x0000_a010]));
    // Directories carry their declared size, not that of the section made for them.
    image.directories[0].1 = 0x80;
    image.directories[3].1 = 24;
    image.directories[6].1 = 56;
    image.directories[2] = (0xdead_0000, 0x10);
    image
}

/// Two functions with three names, a hole, and a forwarder.
fn exports(at: u32) -> Vec<u8> {
    let mut bytes = vec![0; 0x100];
    let fields = [0, 0, 0, at + 0x70, 5, 4, 3, at + 0x28, at + 0x38, at + 0x48];
    put(&mut bytes, 0, &words(&fields));
    put(&mut bytes, 0x28, &words(&[0x1010, 0, at + 0x60, 0x1020]));
    put(&mut bytes, 0x38, &words(&[at + 0x90, at + 0x94, at + 0x98]));
    put(&mut bytes, 0x48, &[0, 0, 2, 0, 0, 0]);
    put(&mut bytes, 0x60, b"other.fwd\0");
    put(&mut bytes, 0x70, b"test.dll\0");
    put(&mut bytes, 0x90, b"aaa\0fwd\0zzz\0");
    bytes
}

fn imports(at: u32) -> Vec<u8> {
    let mut bytes = vec![0; 0x100];
    put(
        &mut bytes,
        0,
        &words(&[at + 0x40, 0, 0, at + 0xa0, at + 0x60]),
    );
    put(&mut bytes, 0x40, &u64::from(at + 0x80).to_le_bytes());
    put(&mut bytes, 0x48, &(1u64 << 63 | 0x42).to_le_bytes());
    put(&mut bytes, 0x82, b"CreateThing\0");
    put(&mut bytes, 0xa0, b"KERNEL32.dll\0");
    bytes
}

fn delayed(at: u32) -> Vec<u8> {
    let mut bytes = vec![0; 0x100];
    let fields = [1, at + 0xa0, at + 0xf0, at + 0x60, at + 0x40, 0, 0, 0];
    put(&mut bytes, 0, &words(&fields));
    put(&mut bytes, 0x40, &u64::from(at + 0x80).to_le_bytes());
    put(&mut bytes, 0x82, b"Late\0");
    put(&mut bytes, 0xa0, b"late.dll\0");
    bytes
}

fn exceptions(machine: u16, at: u32) -> Vec<u8> {
    let mut bytes = vec![0; 0x80];
    let entries = if machine == 0x8664 {
        words(&[0x1000, 0x1010, at + 0x40, 0x1010, 0x1080, at + 1])
    } else {
        // Packed, 4 words long; shared, without a length; an .xdata record of 24 words.
        words(&[0x1000, 4 << 2 | 1, 0x1010, at + 3, 0x1020, at + 0x40])
    };
    put(&mut bytes, 0, &entries);
    put(&mut bytes, 0x40, &words(&[0x0820_0018, 0]));
    bytes
}

fn tls(at: u32) -> Vec<u8> {
    let mut bytes = vec![0; 0x100];
    for (index, rva) in [0x1000, 0x1020, at + 0x80, at + 0x40]
        .into_iter()
        .enumerate()
    {
        put(&mut bytes, 8 * index, &va(rva));
    }
    put(&mut bytes, 32, &words(&[0x18]));
    put(&mut bytes, 0x40, &va(0x1030));
    bytes
}

fn load_config(at: u32) -> Vec<u8> {
    let mut bytes = vec![0; 0x200];
    put(&mut bytes, 0, &words(&[0x140]));
    for (field, rva) in [
        (0x58, at + 0x1c0),
        (0x70, at + 0x1c8),
        (0x78, at + 0x1d0),
        (0x80, at + 0x150),
        (0x118, at + 0x1d8),
    ] {
        put(&mut bytes, field, &va(rva));
    }
    put(&mut bytes, 0x88, &2u64.to_le_bytes());
    // One byte of flags behind each entry of a guard table.
    put(&mut bytes, 0x90, &words(&[0x1000_0500]));
    put(
        &mut bytes,
        0x150,
        &[0x20, 0x10, 0, 0, 2, 0x10, 0x10, 0, 0, 0],
    );
    // Dynamic value relocation table: section 6, offset 0x180, version 1.
    put(&mut bytes, 0xe0, &words(&[0x180, 6, 0, 0, at + 0x1e0]));
    put(&mut bytes, 0x180, &words(&[1, 16, 3, 0, 4, 0]));
    bytes
}

fn debug(at: u32) -> Vec<u8> {
    let mut bytes = vec![0; 0x100];
    put(&mut bytes, 0, &words(&[0, 0, 0, 2, 0x28, at + 0x40, 0]));
    put(&mut bytes, 28, &words(&[0, 0, 0, 20, 4, at + 0x80, 0]));
    put(
        &mut bytes,
        0x40,
        b"RSDS\x01\x02\x03\x04\x05\x06\x07\x08ABCDEFGH",
    );
    put(&mut bytes, 0x54, &words(&[9]));
    put(&mut bytes, 0x58, b"c:\\a\\test.pdb\0");
    put(&mut bytes, 0x80, &words(&[0x81]));
    bytes
}

#[test]
fn headers() {
    let image = pe(full(0x8664).build());
    assert_eq!(image.identity.time_date_stamp, 0x1234_5678);
    assert_eq!(image.identity.checksum, 0x9abc);
    assert_eq!(
        (image.characteristics, image.image_base),
        (0x2022, IMAGE_BASE)
    );
    assert_eq!(image.entry_point, Some(Rva::new(0x1000)));
    assert_eq!(image.sections.len(), 9);
    assert_eq!(image.bytes(Rva::new(0x12fe), 2), Some(&[0xcc, 0xcc][..]));
    assert_eq!(image.bytes(Rva::new(0x12fe), 3), None);
    assert!(image.sections[0].is_code());
    // A broken resource directory is passed on as it stands.
    assert_eq!(image.resources, Some((Rva::new(0xdead_0000), 0x10)));
}

#[test]
fn export_directory() {
    let export = |ordinal, name: &str, target| Export {
        ordinal,
        name: Some(name.into()),
        target,
    };
    let at = |rva| ExportTarget::Rva(Rva::new(rva));
    let expected = [
        export(5, "aaa", at(0x1010)),
        export(5, "zzz", at(0x1010)),
        export(7, "fwd", ExportTarget::Forward("other.fwd".into())),
        Export {
            ordinal: 8,
            name: None,
            target: at(0x1020),
        },
    ];
    assert_eq!(pe(full(0x8664).build()).exports, expected);
}

#[test]
fn import_directories() {
    let import = |slot, dll: &str, symbol, delayed| Import {
        slot: Rva::new(slot),
        dll: dll.into(),
        symbol,
        delayed,
    };
    let expected = [
        import(
            0x3060,
            "KERNEL32.dll",
            ImportSymbol::Name("CreateThing".into()),
            false,
        ),
        import(0x3068, "KERNEL32.dll", ImportSymbol::Ordinal(0x42), false),
        import(0x8060, "late.dll", ImportSymbol::Name("Late".into()), true),
    ];
    assert_eq!(pe(full(0x8664).build()).imports, expected);
}

#[test]
fn exception_directory() {
    let function = |begin, end, unwind| RuntimeFunction {
        begin: Rva::new(begin),
        end: Rva::new(end),
        unwind,
    };
    assert_eq!(
        pe(full(0x8664).build()).runtime_functions,
        [
            function(0x1000, 0x1010, Unwind::Info(Rva::new(0x4040))),
            function(0x1010, 0x1080, Unwind::Shared(Rva::new(0x4000))),
        ]
    );
    assert_eq!(
        pe(full(0xaa64).build()).runtime_functions,
        [
            function(0x1000, 0x1010, Unwind::Packed(0x11)),
            function(0x1010, 0x1020, Unwind::Shared(Rva::new(0x4000))),
            function(0x1020, 0x1080, Unwind::Info(Rva::new(0x4040))),
        ]
    );
}

#[test]
fn exception_directory_is_checked() {
    let message = |entries: &[u32]| {
        let mut bytes = words(entries);
        let size = bytes.len() as u32;
        bytes.resize(0x100, 0);
        let mut image = Image::new(0x8664).directory(3, &bytes);
        image.directories[3].1 = size;
        open(image.build()).map_err(|error| error.to_string()).err()
    };
    let info = 0x1080;
    assert_eq!(message(&[0x1000, 0x1010, info, 0, 0, 0]), None);
    for (entries, why) in [
        (&[0x1000, 0x1010][..], "entries of 12 bytes"),
        (&[0x1000, 0x1000, info], "an end at 0x1000"),
        (&[0x1000, 0x9000, info], "ends inside the image"),
        (&[0x1000, 0x1010, 0x9000], "which has no section"),
        (
            &[0, 0, 0, 0x1000, 0x1010, info],
            "exception directory entry 0",
        ),
        (
            &[0x1000, 0x1010, info, 0x100f, 0x1020, info],
            "where the one before ends",
        ),
    ] {
        let found = message(entries).unwrap_or_default();
        assert!(found.contains(why), "{why}: {found}");
    }
}

#[test]
fn tls_directory() {
    let expected = Tls {
        template: Some((Rva::new(0x1000), 0x20)),
        index: Some(Rva::new(0x5080)),
        callbacks: vec![Rva::new(0x1030)],
        zero_fill: 0x18,
    };
    assert_eq!(pe(full(0x8664).build()).tls, Some(expected));
}

#[test]
fn load_config_directory() {
    let image = pe(full(0x8664).build());
    let config = image.load_config.expect("a load config");
    let at = |rva| Some(Rva::new(rva));
    assert_eq!((config.size, config.guard_flags), (0x140, 0x1000_0500));
    assert_eq!(config.security_cookie, at(0x61c0));
    assert_eq!(config.guard_cf_check, at(0x61c8));
    assert_eq!(config.guard_cf_dispatch, at(0x61d0));
    assert_eq!(config.guard_pointers, [Rva::new(0x61d8)]);
    assert_eq!(config.guard_functions, [Rva::new(0x1010), Rva::new(0x1020)]);
    assert_eq!(config.hotpatch_table, at(0x61e0));
    assert_eq!(config.dynamic_relocations, [(3, 4)]);
}

#[test]
fn load_config_is_checked() {
    let message = |field: usize, value: u64| {
        let mut bytes = load_config(0x1000);
        put(&mut bytes, field, &value.to_le_bytes());
        error(Image::new(0x8664).directory(10, &bytes).build())
    };
    assert!(message(0, 0x201).contains("load config directory: expected 0x201 bytes"));
    assert!(message(0x58, 0x1234).contains("load config SecurityCookie: expected 0 or an address"));
    assert!(message(0x88, u64::MAX).contains("load config GuardCFFunctionTable"));
    assert!(message(0x88, 0x1000).contains("0x5000 bytes inside one section"));
    assert!(message(0xf0, 0x9000).contains("load config HotPatchTableOffset"));
    assert!(message(0xe0, 0x9_0000_0180).contains("one of the 1 sections"));
}

#[test]
fn debug_directory() {
    let image = pe(full(0x8664).build());
    assert!(image.hotpatch_compatible);
    assert_eq!(image.ex_dll_characteristics, 0x81);
    let codeview = image.codeview.expect("a CodeView record");
    assert_eq!(codeview.guid, "04030201-0605-0807-4142-434445464748");
    assert_eq!((codeview.age, &*codeview.pdb_path), (9, "c:\\a\\test.pdb"));
}

#[test]
fn base_relocations() {
    let image = pe(full(0x8664).build());
    let at = |rva| Rva::new(rva);
    assert_eq!(image.base_relocations, [at(0x5000), at(0x5008), at(0x5010)]);
    assert_eq!(image.relocations_in(at(0x5008), 8), [at(0x5008)]);
}

#[test]
fn base_relocations_are_checked() {
    let message = |entries: &[u32]| {
        let mut image = Image::new(0x8664);
        image.section(".data", &[0; PAGE as usize], 0xc000_0040);
        error(image.directory(5, &words(entries)).build())
    };
    for (entries, why) in [
        (
            &[0x1000, 12, 0x0000_3000][..],
            "entries of type DIR64 (10), found type 3",
        ),
        (
            &[0x1000, 7, 0xa000],
            "an even SizeOfBlock from 8 to 0xc, found 0x7",
        ),
        (&[0x1000, 16, 0xa000], "found 0x10"),
        (
            &[0x1000, 12, 0xa004_a000],
            "places at least 8 bytes apart, found 0x1000 and 0x1004",
        ),
        (&[0x1000, 12, 0x0000_affc], "8 bytes inside one section"),
        (&[0xffff_ffff, 12, 0x0000_a002], "a page inside the image"),
    ] {
        let found = message(entries);
        assert!(found.contains(why), "{why}: {found}");
    }
}

#[test]
fn imports_are_named_plainly() {
    assert_eq!(ImportSymbol::Name("imp2".into()).to_string(), "imp2");
    assert_eq!(ImportSymbol::Ordinal(7).to_string(), "#7");
}
