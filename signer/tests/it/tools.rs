//! What the tools that people use say of our signatures, and we of theirs.

use std::path::Path;
use std::process::{Command, Output};

use der::{Decode, Encode};
use hpbuild_metadata::Machine;
use hpbuild_signer::{
    CabinetFile, Certificate, Checks, DigestAlgorithm, Existing, Limits, SignOptions, Signer,
    Trust, read_cabinet, sign, verify, write_cabinet,
};

use crate::sample;

/// Whether `name` can be run. Where it cannot, a developer's machine skips with a note and CI,
/// which installs every tool first, fails.
pub(crate) fn have(name: &str) -> bool {
    have_with(name, "--version")
}

/// The same for a tool whose version is asked in another way.
pub(crate) fn have_with(name: &str, argument: &str) -> bool {
    let found = Command::new(name).arg(argument).output().is_ok();
    let ci = std::env::var_os("CI").is_some_and(|value| value == "true");
    assert!(
        found || !ci,
        "{name} is not installed; on Debian: apt-get install \
         osslsigncode cabextract p7zip-full softhsm2 openssl"
    );
    if !found {
        eprintln!("note: {name} is not installed, so this test checks nothing");
    }
    found
}

/// Runs a tool and returns its output, successful or not.
pub(crate) fn run(name: &str, arguments: &[&str], folder: &Path) -> Output {
    Command::new(name)
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap()
}

/// Runs a tool that must succeed.
pub(crate) fn succeed(name: &str, arguments: &[&str], folder: &Path) -> String {
    let output = run(name, arguments, folder);
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} {arguments:?}\n{text}");
    text
}

#[test]
fn osslsigncode_accepts_our_images() {
    if !have("osslsigncode") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let keys = sample::keys();
    let path = folder.path();
    std::fs::write(path.join("ca.pem"), &keys.authority.certificate).unwrap();
    std::fs::write(
        path.join("rsa-ca.pem"),
        include_str!("../data/rsa-authority.pem"),
    )
    .unwrap();
    let signers = [
        ("ca.pem", sample::signer(&keys)),
        ("rsa-ca.pem", sample::rsa_signer().0),
    ];
    for (machine, (authority, signer)) in [Machine::X64, Machine::Arm64]
        .iter()
        .flat_map(|m| signers.iter().map(move |s| (*m, s)))
    {
        for page_hashes in [false, true] {
            let options = SignOptions {
                page_hashes,
                signing_time: Some(sample::NOW),
                description: Some("A patch".into()),
                url: Some("https://example.org/".into()),
                ..SignOptions::default()
            };
            let mut signed = sign(&sample::patch_image(machine), &options, signer).unwrap();
            for nested in [false, true] {
                if nested {
                    let options = SignOptions {
                        digest: DigestAlgorithm::Sha384,
                        existing: Existing::Nest,
                        ..options.clone()
                    };
                    signed = sign(&signed, &options, signer).unwrap();
                }
                std::fs::write(path.join("signed.dll"), &signed).unwrap();
                let arguments = ["verify", "-CAfile", authority, "-in", "signed.dll"];
                let text = succeed("osslsigncode", &arguments, path);
                assert!(text.contains("Signature verification: ok"), "{text}");
                assert!(
                    !text.contains("MISMATCH") && !text.contains("invalid"),
                    "{text}"
                );
            }
        }
    }
}

/// A P-384 authority and a signer under it, made by OpenSSL: the authority's certificate, the
/// signer's key and certificate.
fn p384(folder: &Path) -> [String; 3] {
    let make = |name: &str, extra: &[&str]| {
        let (key, file) = (format!("{name}.key"), format!("{name}.pem"));
        let subject = format!("/CN=TEST ONLY P-384 {name}");
        let mut arguments = vec!["req", "-x509", "-nodes", "-newkey", "ec", "-sha384"];
        arguments.extend(["-pkeyopt", "ec_paramgen_curve:P-384", "-days", "36500"]);
        arguments.extend(["-keyout", &key, "-out", &file, "-subj", &subject]);
        arguments.extend(extra);
        succeed("openssl", &arguments, folder);
    };
    let signer = [
        "-CA",
        "authority.pem",
        "-CAkey",
        "authority.key",
        "-addext",
        "basicConstraints=critical,CA:FALSE",
        "-addext",
        "extendedKeyUsage=codeSigning",
    ];
    make("authority", &[]);
    make("signer", &signer);
    ["authority.pem", "signer.key", "signer.pem"]
        .map(|name| std::fs::read_to_string(folder.join(name)).unwrap())
}

#[test]
fn every_kind_of_key_signs_with_every_digest() {
    if !have("osslsigncode") || !have_with("openssl", "version") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let keys = sample::keys();
    let [authority, key, certificate] = p384(path);
    let rsa_authority = include_str!("../data/rsa-authority.pem");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = now.unwrap().as_secs();
    let kinds = [
        (sample::signer(&keys), keys.authority.certificate.as_str()),
        (sample::rsa_signer().0, rsa_authority),
        (
            Signer::from_pem(&key, &certificate, None).unwrap(),
            authority.as_str(),
        ),
    ];
    for (signer, authority) in &kinds {
        let trust = Trust {
            anchors: Certificate::from_pem(authority).unwrap(),
            now,
            ..Trust::default()
        };
        std::fs::write(path.join("ca.pem"), authority).unwrap();
        for digest in [
            DigestAlgorithm::Sha256,
            DigestAlgorithm::Sha384,
            DigestAlgorithm::Sha512,
        ] {
            let options = SignOptions {
                digest,
                ..SignOptions::default()
            };
            let signed = sign(&sample::patch_image(Machine::X64), &options, signer).unwrap();
            verify(&signed, &trust, &mut Checks::default()).unwrap();
            std::fs::write(path.join("signed.dll"), &signed).unwrap();
            let arguments = ["verify", "-CAfile", "ca.pem", "-in", "signed.dll"];
            let text = succeed("osslsigncode", &arguments, path);
            assert!(text.contains("Signature verification: ok"), "{text}");

            // Another signature by the same key is none of this file.
            let mut other = signed.clone();
            let last = other.iter().rposition(|byte| *byte != 0).unwrap();
            other[last] ^= 1;
            assert!(verify(&other, &trust, &mut Checks::default()).is_err());
        }
    }
}

#[test]
fn we_verify_what_osslsigncode_signs() {
    if !have("osslsigncode") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let keys = sample::keys();
    std::fs::write(path.join("key.pem"), keys.code_signing.key.as_bytes()).unwrap();
    std::fs::write(path.join("cert.pem"), &keys.code_signing.certificate).unwrap();
    std::fs::write(path.join("image.dll"), sample::patch_image(Machine::X64)).unwrap();
    for hash in ["sha256", "sha384", "sha512"] {
        for page_hashes in [&[][..], &["-ph"][..]] {
            let mut arguments = vec!["sign", "-h", hash, "-certs", "cert.pem", "-key", "key.pem"];
            arguments.extend([
                "-in",
                "image.dll",
                "-out",
                "theirs.dll",
                "-n",
                "x",
                "-i",
                "http://x/",
            ]);
            arguments.extend(page_hashes);
            let _ = std::fs::remove_file(path.join("theirs.dll"));
            succeed("osslsigncode", &arguments, path);
            let theirs = std::fs::read(path.join("theirs.dll")).unwrap();
            let trust = sample::trust(&keys);
            if hash != "sha256" && !page_hashes.is_empty() {
                // Page hashes with other digests are known to no verifier.
                continue;
            }
            let report = verify(&theirs, &trust, &mut Checks::default()).unwrap();
            assert_eq!(report.signers[0].page_hashes, !page_hashes.is_empty());
        }
    }
}

/// A package in small: text, something that does not compress, and more than one block.
fn files() -> Vec<CabinetFile> {
    let mut state = 1u32;
    let noise = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    });
    vec![
        file("manifest.json", b"{}".repeat(100)),
        file("empty.bin", Vec::new()),
        file("noise.bin", noise.take(70_000).collect()),
        file("patch.dll", sample::patch_image(Machine::X64)),
    ]
}

fn file(name: &str, bytes: Vec<u8>) -> CabinetFile {
    CabinetFile {
        name: name.into(),
        bytes,
    }
}

#[test]
fn cabinet_tools_open_our_cabinets_signed_or_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let keys = sample::keys();
    let unsigned = write_cabinet(&files()).unwrap();
    let signed = sign(&unsigned, &SignOptions::default(), &sample::signer(&keys)).unwrap();
    let tools: [(&str, &[&str]); 2] = [
        ("cabextract", &["-d", "out", "our.cab"]),
        ("7z", &["x", "-oout", "our.cab"]),
    ];
    for (tool, arguments) in tools {
        if !have(tool) {
            continue;
        }
        for bytes in [&unsigned, &signed] {
            std::fs::write(path.join("our.cab"), bytes).unwrap();
            let _ = std::fs::remove_dir_all(path.join("out"));
            succeed(tool, arguments, path);
            for file in files() {
                let unpacked = std::fs::read(path.join("out").join(&file.name)).unwrap();
                assert!(
                    unpacked == file.bytes,
                    "{tool} unpacks another {}",
                    file.name
                );
            }
        }
    }
}

#[test]
fn osslsigncode_and_we_verify_each_others_cabinets() {
    if !have("osslsigncode") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let keys = sample::keys();
    std::fs::write(path.join("ca.pem"), &keys.authority.certificate).unwrap();
    std::fs::write(path.join("key.pem"), keys.code_signing.key.as_bytes()).unwrap();
    std::fs::write(path.join("cert.pem"), &keys.code_signing.certificate).unwrap();
    let unsigned = write_cabinet(&files()).unwrap();
    for digest in [DigestAlgorithm::Sha256, DigestAlgorithm::Sha384] {
        let options = SignOptions {
            digest,
            ..SignOptions::default()
        };
        let signed = sign(&unsigned, &options, &sample::signer(&keys)).unwrap();
        std::fs::write(path.join("ours.cab"), &signed).unwrap();
        let arguments = ["verify", "-CAfile", "ca.pem", "-in", "ours.cab"];
        let text = succeed("osslsigncode", &arguments, path);
        assert!(text.contains("Signature verification: ok"), "{text}");
        assert!(!text.contains("MISMATCH"), "{text}");
    }
    std::fs::write(path.join("unsigned.cab"), &unsigned).unwrap();
    let arguments = [
        "sign", "-h", "sha256", "-certs", "cert.pem", "-key", "key.pem",
    ];
    let files = ["-in", "unsigned.cab", "-out", "theirs.cab"];
    succeed("osslsigncode", &[&arguments[..], &files[..]].concat(), path);
    let theirs = std::fs::read(path.join("theirs.cab")).unwrap();
    verify(&theirs, &sample::trust(&keys), &mut Checks::default()).unwrap();
    assert_eq!(
        read_cabinet(&theirs, Limits::default()).unwrap(),
        self::files()
    );
}

/// OpenSSL knows no Authenticode, but it can check the signature over the attributes and the chain
/// when it is handed the content.
#[test]
fn openssl_verifies_the_signature_itself() {
    if !have_with("openssl", "version") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let keys = sample::keys();
    std::fs::write(path.join("ca.pem"), &keys.authority.certificate).unwrap();
    std::fs::write(
        path.join("rsa-ca.pem"),
        include_str!("../data/rsa-authority.pem"),
    )
    .unwrap();
    let signers = [
        ("ca.pem", sample::signer(&keys)),
        ("rsa-ca.pem", sample::rsa_signer().0),
    ];
    for (authority, signer) in &signers {
        let image = sample::patch_image(Machine::X64);
        let signed = sign(&image, &SignOptions::default(), signer).unwrap();
        let at = image.len().next_multiple_of(8) + 8;
        let info = cms::content_info::ContentInfo::from_der(&trimmed(&signed[at..])).unwrap();
        let data: cms::signed_data::SignedData = info.content.decode_as().unwrap();
        let content = data.encap_content_info.econtent.unwrap();
        std::fs::write(path.join("signature.der"), info.to_der().unwrap()).unwrap();
        let arguments = [
            "smime",
            "-verify",
            "-binary",
            "-inform",
            "DER",
            "-in",
            "signature.der",
        ];
        let rest = [
            "-content",
            "content.bin",
            "-purpose",
            "any",
            "-out",
            "out",
            "-CAfile",
            authority,
        ];
        let all = [&arguments[..], &rest[..]].concat();
        std::fs::write(path.join("content.bin"), content.value()).unwrap();
        succeed("openssl", &all, path);
        let mut other = content.value().to_vec();
        other[20] ^= 1;
        std::fs::write(path.join("content.bin"), other).unwrap();
        assert!(!run("openssl", &all, path).status.success());
    }
}

/// The element at the start of `bytes`, without the padding behind it.
fn trimmed(bytes: &[u8]) -> Vec<u8> {
    assert_eq!(bytes[1], 0x82, "a signature has a length of two bytes");
    let length = usize::from(u16::from_be_bytes([bytes[2], bytes[3]]));
    bytes[..4 + length].to_vec()
}
