//! Cabinets: written, read back, read by another crate, and damaged.

use std::io::Read as _;

use hpbuild_signer::{
    CabinetFile, Checks, Limits, SignOptions, read_cabinet, sign, verify, write_cabinet,
};
use proptest::prelude::*;

use crate::sample;

fn file(name: &str, bytes: &[u8]) -> CabinetFile {
    CabinetFile {
        name: name.into(),
        bytes: bytes.to_vec(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn what_is_written_is_read_back_here_and_by_another_crate(
        contents in prop::collection::vec(
            prop_oneof![
                prop::collection::vec(any::<u8>(), 0..200),
                (any::<u8>(), 32_700usize..70_000).prop_map(|(b, n)| vec![b; n]),
                prop::collection::vec(any::<u8>(), 32_700..33_000),
            ],
            1..5,
        ),
    ) {
        let files: Vec<_> = contents
            .iter()
            .enumerate()
            .map(|(index, bytes)| file(&format!("file{index}.bin"), bytes))
            .collect();
        let bytes = write_cabinet(&files).unwrap();
        prop_assert_eq!(&read_cabinet(&bytes, Limits::default()).unwrap(), &files);
        let mut theirs = cab::Cabinet::new(std::io::Cursor::new(&bytes)).unwrap();
        for file in &files {
            let mut content = Vec::new();
            theirs.read_file(&file.name).unwrap().read_to_end(&mut content).unwrap();
            prop_assert_eq!(&content, &file.bytes);
        }
    }

    #[test]
    fn random_bytes_are_refused_without_a_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        for magic in [&b"MSCF"[..], b"MZ"] {
            let length = magic.len().min(bytes.len());
            bytes[..length].copy_from_slice(&magic[..length]);
            let trust = hpbuild_signer::Trust::default();
            prop_assert!(verify(&bytes, &trust, &mut Checks::default()).is_err());
            prop_assert!(read_cabinet(&bytes, Limits::default()).is_err());
        }
    }
}

#[test]
fn a_cabinet_of_another_writer_is_read() {
    let mut builder = cab::CabinetBuilder::new();
    let folder = builder.add_folder(cab::CompressionType::MsZip);
    folder.add_file("a.txt");
    folder.add_file("b.txt");
    let mut writer = builder.build(std::io::Cursor::new(Vec::new())).unwrap();
    let contents = [
        vec![b'a'; 100_000],
        (0..=255).cycle().take(50_000).collect(),
    ];
    for content in &contents {
        let mut file = writer.next_file().unwrap().unwrap();
        std::io::Write::write_all(&mut file, content).unwrap();
    }
    let bytes = writer.finish().unwrap().into_inner();
    let files = read_cabinet(&bytes, Limits::default()).unwrap();
    assert_eq!(
        files,
        [file("a.txt", &contents[0]), file("b.txt", &contents[1])]
    );
}

#[test]
fn every_changed_byte_of_a_signed_cabinet_is_noticed() {
    let keys = sample::keys();
    let trust = sample::trust(&keys);
    let unsigned = write_cabinet(&[file("a.txt", b"alpha"), file("b.txt", b"beta")]).unwrap();
    let signed = sign(&unsigned, &SignOptions::default(), &sample::signer(&keys)).unwrap();
    verify(&signed, &trust, &mut Checks::default()).unwrap();
    let mut changed = signed.clone();
    for index in 0..signed.len() {
        for bits in 1..=255 {
            // Every value of the bytes the digest leaves out, three of the others.
            if index >= 60 && ![0x01, 0x80, 0xff].contains(&bits) {
                continue;
            }
            changed[index] ^= bits;
            let result = verify(&changed, &trust, &mut Checks::default());
            assert!(result.is_err(), "byte {index:#x} ^ {bits:#x}");
            changed[index] ^= bits;
        }
    }
    for length in 0..signed.len() {
        assert!(verify(&signed[..length], &trust, &mut Checks::default()).is_err());
    }
}

#[test]
fn limits_and_names_are_checked_before_anything_is_unpacked() {
    let files = [file("a.bin", &[0; 100_000]), file("b.bin", &[1])];
    let bytes = write_cabinet(&files).unwrap();
    let refused = |limits| assert!(read_cabinet(&bytes, limits).is_err());
    refused(Limits {
        files: 1,
        ..Limits::default()
    });
    refused(Limits {
        total: 100_000,
        ..Limits::default()
    });
    for name in [
        "../a", "a/b", "a\\b", "c:a", ".a", "a.", "", "nul", "COM1.txt", "a b", "ä",
    ] {
        assert!(write_cabinet(&[file(name, b"x")]).is_err(), "{name}");
        // The same name planted into a written cabinet, where it is as long as the old one.
        let planted = write_cabinet(&[file(&"x".repeat(name.len().max(1)), b"x")]).unwrap();
        let at = 36 + 8 + 16;
        let mut planted = planted;
        planted[at..at + name.len()].copy_from_slice(name.as_bytes());
        if name.is_empty() {
            planted[at] = 0;
        }
        assert!(read_cabinet(&planted, Limits::default()).is_err(), "{name}");
    }
    assert!(write_cabinet(&[file("a", b"x"), file("A", b"y")]).is_err());
}
