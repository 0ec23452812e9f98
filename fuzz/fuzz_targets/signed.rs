//! Signed files with damage: nothing that a signature covers may differ where one is believed.
//!
//! The key is that of the signer's tests; its signatures are the same each time.
#![no_main]

use std::sync::OnceLock;

use hpbuild_fuzz::{all, damage};
use hpbuild_signer::{
    CabinetFile, Certificate, Checks, Limits, SignOptions, Signer, Trust, read_cabinet, sign,
    verify, write_cabinet,
};
use libfuzzer_sys::fuzz_target;

const KEY: &str = include_str!("../../signer/tests/data/rsa-code-signing.pem");
const AUTHORITY: &str = include_str!("../../signer/tests/data/rsa-authority.pem");
/// 2026-01-01T00:00:00Z, when the certificates are valid.
const NOW: u64 = 1_767_225_600;
const LIMITS: Limits = Limits {
    files: 16,
    total: 1 << 20,
};

struct Signed {
    image: Vec<u8>,
    cabinet: Vec<u8>,
    trust: Trust,
}

fn signed() -> &'static Signed {
    static SIGNED: OnceLock<Signed> = OnceLock::new();
    SIGNED.get_or_init(|| {
        let signer = Signer::from_pem(KEY, KEY, None).expect("a key");
        let options = SignOptions {
            signing_time: Some(NOW),
            ..SignOptions::default()
        };
        let image = &all().first().expect("a pair").base.dll;
        let file = CabinetFile {
            name: "manifest.json".into(),
            bytes: b"{}\n".to_vec(),
        };
        let cabinet = write_cabinet(&[file]).expect("a cabinet");
        Signed {
            image: sign(image, &options, &signer).expect("a signed image"),
            cabinet: sign(&cabinet, &options, &signer).expect("a signed cabinet"),
            trust: Trust {
                anchors: Certificate::from_pem(AUTHORITY).expect("an authority"),
                now: NOW,
                ..Trust::default()
            },
        }
    })
}

/// What of a signed image the signature covers: all but the checksum, the directory entry of the
/// certificate table and the table (Authenticode_PE.docx, "Calculating the PE Image Hash").
fn covered(image: &[u8]) -> Vec<u8> {
    let word = |at: usize| {
        let bytes = image[at..at + 4].try_into().expect("four bytes");
        u32::from_le_bytes(bytes) as usize
    };
    let header = word(0x3c) + 24;
    let entry = header + 112 + 4 * 8;
    let table = word(entry);
    let parts = [0..header + 64, header + 68..entry, entry + 8..table];
    parts
        .into_iter()
        .flat_map(|part| image[part].to_vec())
        .collect()
}

fuzz_target!(|bytes: &[u8]| {
    let Some((first, changes)) = bytes.split_first() else {
        return;
    };
    let Signed {
        image,
        cabinet,
        trust,
    } = signed();
    if first & 1 == 0 {
        let mut damaged = image.clone();
        damage(&mut [&mut damaged], changes);
        if verify(&damaged, trust, &mut Checks::default()).is_ok() {
            assert!(
                covered(&damaged) == covered(image),
                "other contents believed"
            );
        }
        return;
    }
    let mut damaged = cabinet.clone();
    damage(&mut [&mut damaged], changes);
    if verify(&damaged, trust, &mut Checks::default()).is_ok() {
        let read = |bytes| {
            read_cabinet(bytes, LIMITS)
                .expect("a verified cabinet")
                .to_vec()
        };
        assert!(read(&damaged) == read(cabinet), "other contents believed");
    }
});
