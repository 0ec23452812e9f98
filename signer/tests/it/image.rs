//! Signed images, checked by this crate, by the crate `authenticode`, and byte by byte.

use authenticode::{AttributeCertificateIterator, authenticode_digest};
use authenticode_object::read::pe::PeFile64;
use authenticode_sha2::{Digest, Sha256};
use hpbuild_metadata::Machine;
use hpbuild_signer::{
    Checks, DigestAlgorithm, Error, Existing, SignOptions, Signer, Trust, attach, prepare, sign,
};

use crate::sample;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn verify(bytes: &[u8], trust: &Trust) -> Result<hpbuild_signer::SignatureReport, Error> {
    hpbuild_signer::verify(bytes, trust, &mut Checks::default())
}

#[test]
fn signed_images_verify_and_other_crates_agree() {
    let keys = sample::keys();
    let signers = [
        (sample::signer(&keys), sample::trust(&keys)),
        sample::rsa_signer(),
    ];
    for machine in [Machine::X64, Machine::Arm64] {
        let image = sample::patch_image(machine);
        for (signer, trust) in &signers {
            let options = SignOptions {
                signing_time: Some(sample::NOW),
                ..SignOptions::default()
            };
            let signed = sign(&image, &options, signer).unwrap();
            let report = verify(&signed, trust).unwrap();
            assert_eq!(report.signers.len(), 1);

            let file = PeFile64::parse(&signed[..]).unwrap();
            let mut entries = AttributeCertificateIterator::new(&file).unwrap().unwrap();
            let theirs = entries.next().unwrap().unwrap();
            let theirs = theirs.get_authenticode_signature().unwrap();
            let mut state = Sha256::new();
            authenticode_digest(&file, &mut state).unwrap();
            let actual = hex(&state.finalize());
            assert_eq!(report.signers[0].digest, actual);
            assert_eq!(hex(theirs.digest()), actual);
        }
    }
}

#[test]
fn signing_is_deterministic_with_both_kinds_of_key() {
    let image = sample::patch_image(Machine::X64);
    let keys = sample::keys();
    for signer in [sample::signer(&keys), sample::rsa_signer().0] {
        let options = SignOptions {
            signing_time: Some(sample::NOW),
            page_hashes: true,
            ..SignOptions::default()
        };
        let first = sign(&image, &options, &signer).unwrap();
        assert_eq!(first, sign(&image, &options, &signer).unwrap());
    }
}

#[test]
fn every_changed_byte_of_a_signed_image_is_noticed() {
    let keys = sample::keys();
    let trust = sample::trust(&keys);
    let image = sample::patch_image(Machine::X64);
    let options = SignOptions {
        signing_time: Some(sample::NOW),
        page_hashes: true,
        ..SignOptions::default()
    };
    let once = sign(&image, &options, &sample::signer(&keys)).unwrap();
    let nested = SignOptions {
        digest: DigestAlgorithm::Sha384,
        existing: Existing::Nest,
        ..options
    };
    let signed = sign(&once, &nested, &sample::signer(&keys)).unwrap();
    assert_eq!(verify(&signed, &trust).unwrap().signers.len(), 2);
    let mut changed = signed.clone();
    for index in 0..signed.len() {
        for bits in [0x01, 0x80, 0xff] {
            changed[index] ^= bits;
            assert!(
                verify(&changed, &trust).is_err(),
                "byte {index:#x} ^ {bits:#x}"
            );
            changed[index] ^= bits;
        }
    }
    for length in 0..signed.len() {
        assert!(
            verify(&signed[..length], &trust).is_err(),
            "{length:#x} bytes"
        );
    }
    changed.extend_from_slice(&[0; 8]);
    assert!(verify(&changed, &trust).is_err());
}

#[test]
fn two_steps_give_the_same_bytes_as_one() {
    let keys = sample::keys();
    let signer = sample::signer(&keys);
    let image = sample::patch_image(Machine::Arm64);
    let options = SignOptions::default();
    let whole = sign(&image, &options, &signer).unwrap();
    let certificates = hpbuild_signer::Certificate::from_pem(&keys.code_signing.certificate);
    let prepared = prepare(&image, &options, &certificates.unwrap()).unwrap();
    let travelled = hpbuild_signer::Prepared::from_json(&prepared.to_json()).unwrap();
    assert_eq!(travelled, prepared);
    // The key's owner sees nothing but the digest.
    let key: p256::SecretKey =
        pkcs8::DecodePrivateKey::from_pkcs8_pem(&keys.code_signing.key).unwrap();
    let key = p256::ecdsa::SigningKey::from(key);
    let value: p256::ecdsa::Signature =
        p256::ecdsa::signature::hazmat::PrehashSigner::sign_prehash(&key, &prepared.digest())
            .unwrap();
    for form in [value.to_der().as_bytes().to_vec(), value.to_vec()] {
        assert_eq!(attach(&image, &prepared, &form, &options).unwrap(), whole);
    }
    let mut other = image.clone();
    other[0x210] ^= 1;
    assert!(attach(&other, &prepared, &value.to_vec(), &options).is_err());
    let mut wrong = value.to_vec();
    wrong[40] ^= 1;
    assert!(attach(&image, &prepared, &wrong, &options).is_err());
}

#[test]
fn a_signature_is_replaced_or_nested_only_when_asked() {
    let keys = sample::keys();
    let signer = sample::signer(&keys);
    let image = sample::patch_image(Machine::X64);
    let plain = SignOptions::default();
    let signed = sign(&image, &plain, &signer).unwrap();
    assert!(matches!(
        sign(&signed, &plain, &signer),
        Err(Error::Request { .. })
    ));
    let replace = SignOptions {
        existing: Existing::Replace,
        ..plain.clone()
    };
    assert_eq!(sign(&signed, &replace, &signer).unwrap(), signed);
    let nest = SignOptions {
        existing: Existing::Nest,
        ..plain
    };
    assert!(matches!(
        sign(&image, &nest, &signer),
        Err(Error::Request { .. })
    ));
}

#[test]
fn only_the_right_signer_at_the_right_time_is_believed() {
    let keys = sample::keys();
    let trust = sample::trust(&keys);
    let image = sample::patch_image(Machine::X64);
    let signed = sign(&image, &SignOptions::default(), &sample::signer(&keys)).unwrap();
    let fails = |trust: &Trust, part: &str| {
        let error = verify(&signed, trust).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    };
    fails(&sample::trust(&sample::keys()), "chain");
    fails(
        &Trust {
            anchors: Vec::new(),
            ..trust.clone()
        },
        "chain",
    );
    fails(
        &Trust {
            now: sample::NOW + 36_501 * 86_400,
            ..trust.clone()
        },
        "chain",
    );
    fails(
        &Trust {
            now: sample::NOW - 2 * 86_400,
            ..trust.clone()
        },
        "chain",
    );
    fails(
        &Trust {
            require_time_stamp: true,
            ..trust.clone()
        },
        "time stamp",
    );
    fails(
        &Trust {
            pinned: vec![[0; 32]],
            ..trust.clone()
        },
        "pinned signer",
    );
    let certificate =
        hpbuild_signer::Certificate::from_pem(&keys.code_signing.certificate).unwrap();
    let pinned = vec![certificate[0].fingerprint()];
    assert!(
        verify(
            &signed,
            &Trust {
                pinned,
                ..trust.clone()
            }
        )
        .is_ok()
    );
    // A certificate for time stamping signs no code, and a key signs for no other certificate.
    let stamping = &keys.time_stamping;
    let other = Signer::from_pem(&stamping.key, &stamping.certificate, None).unwrap();
    let wrong = sign(&image, &SignOptions::default(), &other).unwrap();
    let error = verify(&wrong, &trust).unwrap_err().to_string();
    assert!(error.contains("purpose"), "{error}");
    assert!(Signer::from_pem(&stamping.key, &keys.code_signing.certificate, None).is_err());
    assert!(
        verify(&image, &trust)
            .unwrap_err()
            .to_string()
            .contains("none")
    );
}
