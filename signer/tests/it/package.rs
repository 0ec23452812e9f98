//! Packages: built, verified, and changed byte by byte.

use hpbuild_metadata::manifest::{
    BaseFile, Guid, Manifest, Patch, PdbIdentity, RedirectedFunction, Sha256,
};
use hpbuild_metadata::{Machine, Rva};
use hpbuild_signer::package::{
    Calendar, CalendarRefusal, Material, Package, PackageImage, PackageReport, PackageRequest,
    Provenance, Release, package, verify_package,
};
use hpbuild_signer::{Checks, Error, Limits, SignOptions, Trust};

use crate::sample;

const RELEASE: &str = r#"
id = "HP-2026-0011"
title = "Heap overflow in header parsing"
severity = "critical"
cves = ["CVE-2022-37434"]
sequence = 1
baseline = "2026-10"
release = "2026-12"
fallback = "the cumulative update of the month"

[requirements]
baseline_build = "26100.1742"
vbs = true
chpe_disabled_on_arm64 = true
"#;

fn patch(machine: Machine) -> Patch {
    Patch {
        file: format!("sample.{machine}.dll"),
        size: 1,
        sha256: Sha256([0; 32]),
        machine,
        sequence: 1,
        base: BaseFile {
            name: "sample.dll".into(),
            machine,
            time_date_stamp: sample::BASE.time_date_stamp,
            checksum: sample::BASE.checksum,
            sha256: Sha256([machine as u8; 32]),
            pdb: Some(PdbIdentity {
                guid: Guid([7; 16]),
                age: 1,
            }),
        },
        functions: vec![RedirectedFunction {
            decorated: "?parse@@YAHXZ".into(),
            readable: "int parse(void)".into(),
            base_rva: Rva::new(0x1400),
            reasons: vec!["code".into()],
        }],
        waivers: Vec::new(),
    }
}

fn request() -> PackageRequest {
    let machines = [Machine::X64, Machine::Arm64];
    let release = Release::from_toml(RELEASE).unwrap();
    PackageRequest {
        manifest: release.manifest(machines.map(patch).to_vec()),
        images: machines
            .map(|machine| PackageImage {
                name: format!("sample.{machine}.dll"),
                bytes: sample::patch_image(machine),
            })
            .to_vec(),
        previous: Vec::new(),
        options: SignOptions {
            signing_time: Some(sample::NOW),
            ..SignOptions::default()
        },
        provenance: Provenance {
            builder: "urn:example:builder".into(),
            invocation: None,
            time: sample::NOW,
            materials: vec![Material {
                name: "sample-fixed.dll".into(),
                sha256: Sha256([9; 32]),
            }],
        },
    }
}

fn check(package: &Package, trust: &Trust) -> Result<PackageReport, Error> {
    verify(&package.cabinet, Some(&package.provenance), trust)
}

fn verify(cabinet: &[u8], statement: Option<&[u8]>, trust: &Trust) -> Result<PackageReport, Error> {
    verify_package(
        cabinet,
        statement,
        trust,
        Limits::default(),
        &mut Checks::default(),
    )
}

#[test]
fn a_package_is_reproducible_and_verifies() {
    let keys = sample::keys();
    for (signer, trust) in [
        (sample::signer(&keys), sample::trust(&keys)),
        sample::rsa_signer(),
    ] {
        let built = package(&request(), &signer).unwrap();
        assert_eq!(built, package(&request(), &signer).unwrap());
        let mut checks = Checks::default();
        let statement = Some(&built.provenance[..]);
        let report = verify_package(
            &built.cabinet,
            statement,
            &trust,
            Limits::default(),
            &mut checks,
        )
        .unwrap();
        assert_eq!(report.manifest, built.manifest);
        assert_eq!(report.images.len(), 2);
        let names: Vec<_> = report.files.iter().map(|file| file.name.as_str()).collect();
        let expected = [
            "manifest.json",
            "sbom.cdx.json",
            "sample.arm64.dll",
            "sample.x64.dll",
        ];
        assert_eq!(names, expected);
        assert!(checks.0.len() > 10, "{checks:?}");
        assert!(verify(&built.cabinet, None, &trust).is_ok());
    }
}

#[test]
fn every_changed_byte_of_a_package_is_noticed() {
    let keys = sample::keys();
    let trust = sample::trust(&keys);
    let built = package(&request(), &sample::signer(&keys)).unwrap();
    let statement = Some(&built.provenance[..]);
    check(&built, &trust).unwrap();
    let mut changed = built.cabinet.clone();
    for index in 0..changed.len() {
        for bits in [0x01, 0x20, 0xff] {
            changed[index] ^= bits;
            let result = verify(&changed, statement, &trust);
            assert!(result.is_err(), "cabinet byte {index:#x} ^ {bits:#x}");
            changed[index] ^= bits;
        }
    }
    let mut changed = built.provenance.clone();
    for index in 0..changed.len() {
        changed[index] ^= 0x01;
        let result = verify(&built.cabinet, Some(&changed), &trust);
        assert!(result.is_err(), "statement byte {index:#x}");
        changed[index] ^= 0x01;
    }
}

/// What a thief with the signing key, or a broken tool, could sign: contents that contradict each
/// other. The digest no longer protects, so each check has to.
#[test]
fn contradictions_are_found_even_when_signed() {
    use hpbuild_signer::{CabinetFile, read_cabinet, sign, write_cabinet};
    let keys = sample::keys();
    let trust = sample::trust(&keys);
    let signer = sample::signer(&keys);
    let built = package(&request(), &signer).unwrap();
    let files = read_cabinet(&built.cabinet, Limits::default()).unwrap();
    let repack = |files: &[CabinetFile]| {
        sign(
            &write_cabinet(files).unwrap(),
            &SignOptions::default(),
            &signer,
        )
        .unwrap()
    };
    let refused = |part: &str, change: &dyn Fn(&mut Vec<CabinetFile>)| {
        let mut files = files.clone();
        change(&mut files);
        let error = verify(&repack(&files), None, &trust)
            .unwrap_err()
            .to_string();
        assert!(error.contains(part), "{part}: {error}");
    };
    let edit = |files: &mut Vec<CabinetFile>, change: &dyn Fn(&mut Manifest)| {
        let mut manifest = built.manifest.clone();
        change(&mut manifest);
        files[0].bytes = manifest.to_json().unwrap();
    };
    assert!(verify(&repack(&files), None, &trust).is_ok());
    refused("first file", &|f| f.swap(0, 1));
    refused("canonical", &|f| f[0].bytes.push(b'\n'));
    refused("cabinet: files", &|f| {
        f.push(CabinetFile {
            name: "extra.dll".into(),
            bytes: vec![1],
        });
    });
    refused("cabinet: files", &|f| drop(f.pop()));
    refused("sbom.cdx.json", &|f| f[1].bytes = b"{}".to_vec());
    refused("sample.arm64.dll: sha256", &|f| f[2].bytes[0x300] ^= 1);
    refused("sample.x64.dll: size", &|f| {
        edit(f, &|m| m.patches[1].size += 1)
    });
    refused("sample.x64.dll: hotpatch table: sequence", &|f| {
        edit(f, &|m| m.patches[1].sequence = 2);
    });
    refused("sample.x64.dll: hotpatch table: base", &|f| {
        edit(f, &|m| m.patches[1].base.checksum ^= 1);
    });
    refused("hotpatch table: redirected functions", &|f| {
        edit(f, &|m| {
            m.patches[1].functions[0].base_rva = Rva::new(0x1500)
        });
    });
    // An image without signature, or with another's.
    let stranger = sample::keys();
    let plain = sample::patch_image(Machine::X64);
    let other = sign(&plain, &SignOptions::default(), &sample::signer(&stranger)).unwrap();
    for (bytes, part) in [(plain, "image: signature"), (other, "chain")] {
        let mut request = request();
        request.images[0].bytes = bytes.clone();
        let mut manifest = built.manifest.clone();
        manifest.patches[1].size = bytes.len() as u64;
        let digest = ring::digest::digest(&ring::digest::SHA256, &bytes);
        manifest.patches[1].sha256 = Sha256(digest.as_ref().try_into().unwrap());
        let mut files = files.clone();
        let old = built.manifest.patches[1].sha256.to_string();
        let bill = String::from_utf8(files[1].bytes.clone()).unwrap();
        files[1].bytes = bill
            .replace(&old, &manifest.patches[1].sha256.to_string())
            .into_bytes();
        files[0].bytes = manifest.to_json().unwrap();
        files[3].bytes = bytes;
        let error = verify(&repack(&files), None, &trust)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("sample.x64.dll") && error.contains(part),
            "{error}"
        );
    }
    // A statement of another package.
    let mut second = request();
    second.manifest.id = "HP-2026-0012".into();
    let second = package(&second, &signer).unwrap();
    assert!(verify(&built.cabinet, Some(&second.provenance), &trust).is_err());
}

#[test]
fn manifest_and_images_must_fit_when_packing() {
    let keys = sample::keys();
    let signer = sample::signer(&keys);
    let refused = |part: &str, change: &dyn Fn(&mut PackageRequest)| {
        let mut request = request();
        change(&mut request);
        let error = package(&request, &signer).unwrap_err().to_string();
        assert!(error.contains(part), "{part}: {error}");
    };
    refused("sample.x64.dll", &|r| drop(r.images.remove(0)));
    refused("extra.dll", &|r| {
        r.images.push(PackageImage {
            name: "extra.dll".into(),
            bytes: sample::patch_image(Machine::X64),
        });
    });
    refused("sample.x64.dll: machine", &|r| {
        r.images[0].bytes = sample::patch_image(Machine::Arm64);
    });
}

#[test]
fn a_newer_release_must_carry_everything_of_the_older() {
    let keys = sample::keys();
    let signer = sample::signer(&keys);
    let older = request().manifest;
    let mut release = Release::from_toml(RELEASE).unwrap();
    assert!(release.succeed(&older).is_err());
    release.sequence = 2;
    release.id = "HP-2026-0012".into();
    release.succeed(&older).unwrap();
    assert_eq!(release.supersedes, ["HP-2026-0011"]);
    let mut newer = request();
    newer.previous = vec![older.clone()];
    let error = package(&newer, &signer).unwrap_err().to_string();
    assert!(error.contains("not below"), "{error}");
    let mut wider = older;
    for patch in &mut wider.patches {
        patch.sequence = 0;
        let mut second = patch.functions[0].clone();
        second.base_rva = Rva::new(0x1800);
        patch.functions.push(second);
    }
    newer.previous = vec![wider];
    let error = package(&newer, &signer).unwrap_err().to_string();
    assert!(error.contains("would undo the fix"), "{error}");
    let other = Release {
        baseline: "2026-07".parse().unwrap(),
        ..release
    };
    assert!(other.clone().succeed(&newer.manifest).is_err());
}

#[test]
fn releases_are_held_against_the_calendar() {
    let calendar = Calendar::from_toml(
        r#"
        schema = 1
        [[baseline]]
        month = "2026-07"
        build = "26100.1500"
        hotpatches = ["2026-08", "2026-09"]
        [[baseline]]
        month = "2026-10"
        build = "26100.1742"
        hotpatches = ["2026-11", "2026-12"]
        "#,
    )
    .unwrap();
    let check = |baseline: &str, release: &str, build: &str| {
        let mut manifest = request().manifest;
        manifest.baseline = baseline.parse().unwrap();
        manifest.release = release.parse().unwrap();
        manifest.requirements.baseline_build = build.into();
        calendar.check(&manifest)
    };
    assert_eq!(check("2026-10", "2026-12", "26100.1742"), Ok(()));
    assert_eq!(check("2026-07", "2026-08", "26100.1500"), Ok(()));
    let refusal = check("2026-07", "2026-11", "26100.1500").unwrap_err();
    assert!(matches!(refusal, CalendarRefusal::OutdatedBaseline { .. }));
    assert_eq!(
        refusal.to_string(),
        "the baseline 2026-07 is outdated: 2026-10 is out"
    );
    let refusal = check("2026-10", "2026-10", "26100.1742").unwrap_err();
    assert!(matches!(refusal, CalendarRefusal::NotAHotpatchMonth { .. }));
    let refusal = check("2026-04", "2026-05", "26100.1742").unwrap_err();
    assert!(matches!(refusal, CalendarRefusal::UnknownBaseline { .. }));
    let refusal = check("2026-10", "2026-11", "26100.1").unwrap_err();
    assert!(matches!(refusal, CalendarRefusal::OtherBuild { .. }));
    for text in [
        "schema = 2\nbaseline = []",
        "schema = 1",
        "schema = 1\n[[baseline]]\nmonth = \"2026-10\"\nbuild = \"1\"\nhotpatches = [\"2026-09\"]",
        "schema = 1\n[[baseline]]\nmonth = \"2026-1\"\nbuild = \"1\"\nhotpatches = []",
    ] {
        assert!(Calendar::from_toml(text).is_err(), "{text}");
    }
}

/// The published schema, in the hands of a validator that knows nothing of our types.
#[test]
fn the_published_schema_describes_what_we_write_and_no_more() {
    let schema: serde_json::Value =
        serde_json::from_str(include_str!("../../../docs/schema/manifest-1.json")).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let mut manifest = request().manifest;
    manifest.supersedes = vec!["HP-2026-0010".into()];
    manifest.patches[0].waivers = vec![hpbuild_metadata::manifest::Waiver {
        rule: "HP021".into(),
        symbol: "f".into(),
        reason: "looked at".into(),
    }];
    let good: serde_json::Value = serde_json::from_slice(&manifest.to_json().unwrap()).unwrap();
    let errors: Vec<_> = validator
        .iter_errors(&good)
        .map(|error| error.to_string())
        .collect();
    assert!(errors.is_empty(), "{errors:?}");
    // Every field is needed, in the schema as in the reader, and no other is allowed; but a base
    // whose symbols are DWARF has no PDB.
    let mut pointers = Vec::new();
    fields(&good, String::new(), &mut pointers);
    assert!(pointers.len() > 30);
    for (object, key) in &pointers {
        let mut without = good.clone();
        without
            .pointer_mut(object)
            .unwrap()
            .as_object_mut()
            .unwrap()
            .remove(key);
        let bytes = hpbuild_metadata::manifest::canonical_json(&without);
        let optional = key == "pdb";
        assert_eq!(
            Manifest::from_json(&bytes).is_ok(),
            optional,
            "{object}/{key}"
        );
        assert_eq!(validator.is_valid(&without), optional, "{object}/{key}");
        let mut more = good.clone();
        more.pointer_mut(object).unwrap()["unknown"] = 1.into();
        let bytes = hpbuild_metadata::manifest::canonical_json(&more);
        assert!(Manifest::from_json(&bytes).is_err(), "{object}");
        assert!(!validator.is_valid(&more), "{object}");
    }
}

/// Every field of every object below `value`: the object's place, and the field's name.
fn fields(value: &serde_json::Value, place: String, out: &mut Vec<(String, String)>) {
    match value {
        serde_json::Value::Object(map) => {
            for (key, value) in map {
                out.push((place.clone(), key.clone()));
                fields(value, format!("{place}/{key}"), out);
            }
        }
        serde_json::Value::Array(values) => {
            for (index, value) in values.iter().enumerate() {
                fields(value, format!("{place}/{index}"), out);
            }
        }
        _ => {}
    }
}

#[test]
fn the_bill_of_materials_is_cyclonedx() {
    use cyclonedx_bom::prelude::{Bom, SpecVersion, Validate};
    let keys = sample::keys();
    let built = package(&request(), &sample::signer(&keys)).unwrap();
    let files = hpbuild_signer::read_cabinet(&built.cabinet, Limits::default()).unwrap();
    let bom = Bom::parse_from_json_v1_5(&files[1].bytes[..]).unwrap();
    let result = bom.validate_version(SpecVersion::V1_5);
    assert!(result.passed(), "{result:?}");
    assert_eq!(bom.components.unwrap().0.len(), 2);
}
