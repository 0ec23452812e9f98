//! What is a PE, what kind of one, and what is none.

use super::super::UnsupportedKind;
use super::build::{IMAGE_BASE, Image, put, words};
use super::*;

fn unsupported(image: &Image) -> (UnsupportedKind, &'static str, u64) {
    match open(image.build()) {
        Ok(Opened::Unsupported(it)) => (it.kind, it.field, it.value),
        other => panic!("{other:?}"),
    }
}

/// A 64-bit load config with a CHPE metadata pointer.
fn chpe(size: u32) -> Vec<u8> {
    let mut bytes = vec![0; size as usize];
    put(&mut bytes, 0, &size.to_le_bytes());
    put(&mut bytes, 0xc8, &(IMAGE_BASE + 0x1000).to_le_bytes());
    bytes
}

#[test]
fn machines() {
    assert_eq!(pe(Image::new(0x8664).build()).machine.name(), "x64");
    assert_eq!(pe(Image::new(0xaa64).build()).machine.name(), "arm64");
    let of = |machine| unsupported(&Image::new(machine));
    assert_eq!(of(0x14c), (UnsupportedKind::X86, "Machine", 0x14c));
    assert_eq!(of(0xa641), (UnsupportedKind::Arm64Ec, "Machine", 0xa641));
    assert_eq!(of(0xa64e), (UnsupportedKind::Arm64X, "Machine", 0xa64e));
    let arm32 = of(0x1c4).0;
    assert_eq!(arm32, UnsupportedKind::OtherMachine(0x1c4));
    assert_eq!(arm32.to_string(), "ARM32 (Thumb-2)");
    assert_eq!(of(0x4242).0.to_string(), "machine 0x4242");
}

#[test]
fn hybrids_are_told_by_the_chpe_pointer() {
    let evidence = IMAGE_BASE + 0x1000;
    let x64 = Image::new(0x8664).directory(10, &chpe(0x140));
    assert_eq!(
        unsupported(&x64),
        (UnsupportedKind::Arm64Ec, "CHPEMetadataPointer", evidence)
    );
    let arm64 = Image::new(0xaa64).directory(10, &chpe(0xd0));
    assert_eq!(unsupported(&arm64).0, UnsupportedKind::Arm64X);

    let mut config = vec![0; 0xc0];
    put(&mut config, 0, &words(&[0xc0]));
    put(&mut config, 0x7c, &words(&[0x1000_2000]));
    let x86 = Image::new(0x14c).directory(10, &config);
    assert_eq!(
        unsupported(&x86),
        (UnsupportedKind::ChpeX86, "CHPEMetadataPointer", 0x1000_2000)
    );
}

/// The field only counts where the structure reaches over it.
#[test]
fn a_short_load_config_has_no_chpe_pointer() {
    let mut config = chpe(0x140);
    put(&mut config, 0, &words(&[0xc8]));
    let image = pe(Image::new(0x8664).directory(10, &config).build());
    assert_eq!(image.load_config.expect("a load config").chpe_metadata, 0);
}

#[test]
fn managed_wins_over_the_machine() {
    for machine in [0x14c, 0x8664, 0xfd1d] {
        let image = Image::new(machine).directory(14, &[0; 72]);
        assert_eq!(
            unsupported(&image),
            (UnsupportedKind::Managed, "COM descriptor directory", 0x1000)
        );
    }
}

#[test]
fn no_pe_at_all() {
    assert_eq!(
        error(b"\x7fELF".to_vec()),
        "test.dll: offset 0x0: expected a PE file, which starts with MZ, found [7f, 45]"
    );
    assert!(error(Vec::new()).contains("offset 0x0: expected a PE file"));
    assert!(error(b"MZ".to_vec()).contains("DOS header: expected a DOS header of 0x40 bytes"));
    let mut dos = Image::new(0x8664).build();
    put(&mut dos, 0x3c, &words(&[0x100]));
    assert_eq!(
        error(dos),
        "test.dll: e_lfanew at offset 0x3c: expected the offset of a PE signature, \
         found 0x100, where [00, 00, 00, 00] stands"
    );
    let mut narrow = Image::new(0x8664);
    narrow.magic = 0x10b;
    assert_eq!(
        error(narrow.build()),
        "test.dll: optional header Magic at 0x58: expected 0x20b, as the machine is x64, \
         found 0x10b"
    );
    narrow.magic = 0x107;
    assert!(error(narrow.build()).contains("expected 0x10b or 0x20b, found 0x107"));
}
