use super::*;

fn manifest() -> Manifest {
    Manifest {
        schema: SCHEMA,
        id: "HP-2026-0011".into(),
        title: "Heap overflow in header parsing".into(),
        severity: Severity::Critical,
        cves: vec!["CVE-2022-37434".into()],
        sequence: 2,
        supersedes: vec!["HP-2026-0010".into()],
        baseline: "2026-10".parse().unwrap(),
        release: "2026-12".parse().unwrap(),
        requirements: Requirements {
            baseline_build: "26100.1742".into(),
            vbs: true,
            chpe_disabled_on_arm64: true,
        },
        fallback: "the cumulative update of the month, with a restart".into(),
        patches: vec![Patch {
            file: "zlib1.x64.dll".into(),
            size: 0x1200,
            sha256: Sha256([0xab; 32]),
            machine: Machine::X64,
            sequence: 2,
            base: BaseFile {
                name: "zlib1.dll".into(),
                machine: Machine::X64,
                time_date_stamp: 0x662a_7c63,
                checksum: 0x1f2a4,
                sha256: Sha256([1; 32]),
                pdb: Some(PdbIdentity {
                    guid: Guid([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]),
                    age: 1,
                }),
            },
            functions: vec![RedirectedFunction {
                decorated: "?inflate@@YAHXZ".into(),
                readable: "int inflate(void)".into(),
                base_rva: Rva::new(0x1400),
                reasons: vec!["code".into()],
            }],
            waivers: Vec::new(),
        }],
    }
}

#[test]
fn the_text_is_canonical_and_reads_back() {
    let json = manifest().to_json().unwrap();
    let text = String::from_utf8(json.clone()).unwrap();
    let expected = r#"{"baseline":"2026-10","cves":["CVE-2022-37434"],"fallback":"the cumulative update of the month, with a restart","id":"HP-2026-0011","patches":[{"base":{"checksum":127652,"machine":"x64","name":"zlib1.dll","pdb":{"age":1,"guid":"03020100-0504-0706-0809-0A0B0C0D0E0F"},"sha256":"0101010101010101010101010101010101010101010101010101010101010101","time_date_stamp":1714060387},"file":"zlib1.x64.dll","functions":[{"base_rva":5120,"decorated":"?inflate@@YAHXZ","readable":"int inflate(void)","reasons":["code"]}],"machine":"x64","sequence":2,"sha256":"abababababababababababababababababababababababababababababababab","size":4608,"waivers":[]}],"release":"2026-12","requirements":{"baseline_build":"26100.1742","chpe_disabled_on_arm64":true,"vbs":true},"schema":1,"sequence":2,"severity":"critical","supersedes":["HP-2026-0010"],"title":"Heap overflow in header parsing"}"#;
    assert_eq!(text, expected);
    assert_eq!(Manifest::from_json(&json), Ok(manifest()));
}

#[test]
fn any_other_spelling_is_refused() {
    let text = String::from_utf8(manifest().to_json().unwrap()).unwrap();
    let changed = [
        text.replacen(':', ": ", 1),
        text.clone() + "\n",
        text.replace("\"vbs\":true", "\"vbs\":true,\"vbs\":true"),
        text.replace("HP-2026-0011", "HP-2026-\\u0030011"),
        text.replace("\"schema\":1", "\"schema\":2"),
        text.replace("\"schema\":1", "\"schema\":1,\"secret\":1"),
        text.replace("abababab", "ABABABAB"),
        text.replace("0A0B0C0D0E0F", "0a0b0c0d0e0f"),
        text.replace("2026-12", "2026-13"),
        text.replace("2026-12", "2026-9"),
        text.replace("\"age\":1", "\"age\":1.0"),
        text.replace("\"age\":1", "\"age\":-1"),
    ];
    for (index, text_changed) in changed.iter().enumerate() {
        assert_ne!(*text_changed, text);
        assert!(
            Manifest::from_json(text_changed.as_bytes()).is_err(),
            "change {index}"
        );
    }
    for length in 0..text.len() {
        assert!(Manifest::from_json(&text.as_bytes()[..length]).is_err());
    }
}

#[test]
fn unsound_manifests_are_refused_with_their_place() {
    let refused = |place: &str, change: fn(&mut Manifest)| {
        let mut changed = manifest();
        change(&mut changed);
        let error = changed.to_json().unwrap_err();
        assert_eq!(error.place, place, "{error}");
    };
    refused("id", |m| m.id = "../HP".into());
    refused("title", |m| m.title = "two\nlines".into());
    refused("cves[0]", |m| m.cves = vec!["CVE-22-1".into()]);
    refused("cves", |m| {
        m.cves = vec!["CVE-2022-0002".into(), "CVE-2022-0001".into()]
    });
    refused("sequence", |m| m.sequence = 0);
    refused("supersedes[0]", |m| m.supersedes = vec![m.id.clone()]);
    refused("release", |m| m.release = "2026-09".parse().unwrap());
    refused("fallback", |m| m.fallback = " ".into());
    refused("patches", |m| m.patches.clear());
    refused("patches: file", |m| {
        let mut second = m.patches[0].clone();
        second.file = "ZLIB1.x64.dll".into();
        m.patches.push(second);
    });
    refused("patches[0].file", |m| m.patches[0].file = "a/b".into());
    refused("patches[0].base.machine", |m| {
        m.patches[0].base.machine = Machine::Arm64
    });
    refused("patches[0].functions", |m| m.patches[0].functions.clear());
    refused("patches[0].functions", |m| {
        let twice = m.patches[0].functions[0].clone();
        m.patches[0].functions.push(twice);
    });
    refused("patches[0].functions[0].reasons", |m| {
        m.patches[0].functions[0].reasons.clear()
    });
}
