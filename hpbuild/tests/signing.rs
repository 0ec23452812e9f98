//! The commands around signing, run as a user runs them.

#[path = "../../signer/tests/it/sample.rs"]
mod sample;

use std::path::Path;
use std::process::{Command, Output};

use hpbuild_metadata::Machine;

/// Runs `hpbuild` in `folder`.
fn hpbuild(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_hpbuild"))
        .args(arguments)
        .current_dir(folder)
        .env("SOURCE_DATE_EPOCH", "1767225600")
        .env("TEST_PASSPHRASE", "correct horse")
        .output()
        .unwrap()
}

/// Runs it, wants this exit code, and returns both outputs.
fn run(folder: &Path, code: i32, arguments: &[&str]) -> (String, String) {
    let output = hpbuild(folder, arguments);
    let stdout = String::from_utf8(output.stdout).unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        output.status.code(),
        Some(code),
        "{arguments:?}\n{stdout}\n{stderr}"
    );
    (stdout, stderr)
}

const KEY: [&str; 4] = [
    "--key",
    "keys/test-code-signing.key.pem",
    "--certificate",
    "keys/test-code-signing.pem",
];
const TRUST: [&str; 2] = ["--trust", "keys/test-authority.pem"];

fn with<'a>(first: &[&'a str], rest: &[&'a str]) -> Vec<&'a str> {
    [first, rest].concat()
}

/// A folder with keys and a patch image with its description.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    // Valid for long, because verification asks the clock.
    run(
        path,
        0,
        &["keygen", "--test", "-o", "keys", "--days", "36500"],
    );
    for machine in [Machine::X64, Machine::Arm64] {
        let image = sample::patch_image(machine);
        let name = format!("sample.{machine}.dll");
        let description = DESCRIPTION
            .replace("MACHINE", machine.name())
            .replace("SIZE", &image.len().to_string())
            .replace("DIGEST", &sample::sha256_hex(&image));
        std::fs::write(path.join(&name), image).unwrap();
        std::fs::write(path.join(format!("{name}.json")), description).unwrap();
    }
    std::fs::write(path.join("release.toml"), RELEASE).unwrap();
    std::fs::write(path.join("calendar.toml"), CALENDAR).unwrap();
    folder
}

const DESCRIPTION: &str = r#"{"file":"sample.MACHINE.dll","size":SIZE,"sha256":"DIGEST","machine":"MACHINE","sequence":1,
"base":{"name":"sample.dll","machine":"MACHINE","time_date_stamp":1714060387,"checksum":127652,
"sha256":"0101010101010101010101010101010101010101010101010101010101010101",
"pdb":{"guid":"03020100-0504-0706-0809-0A0B0C0D0E0F","age":1}},
"functions":[{"decorated":"?f@@YAHXZ","readable":"int f(void)","base_rva":5120,"reasons":["code"]}],"waivers":[]}"#;

const RELEASE: &str = r#"
id = "HP-1"
title = "A fix"
severity = "important"
sequence = 1
baseline = "2026-10"
release = "2026-11"
fallback = "the cumulative update"
[requirements]
baseline_build = "26100.1742"
vbs = true
chpe_disabled_on_arm64 = true
"#;

const CALENDAR: &str = r#"
schema = 1
[[baseline]]
month = "2026-10"
build = "26100.1742"
hotpatches = ["2026-11"]
[[baseline]]
month = "2027-01"
build = "26100.2000"
hotpatches = ["2027-02"]
"#;

#[test]
fn an_image_is_signed_and_verified() {
    let folder = folder();
    let path = folder.path();
    let sign = with(&["sign", "sample.x64.dll", "-o", "signed.dll"], &KEY);
    run(path, 0, &sign);
    let first = std::fs::read(path.join("signed.dll")).unwrap();
    run(path, 0, &sign);
    assert_eq!(first, std::fs::read(path.join("signed.dll")).unwrap());
    let (text, _) = run(path, 0, &with(&["verify", "signed.dll"], &TRUST));
    assert!(
        text.contains("signed by") && text.ends_with("signed.dll: verified\n"),
        "{text}"
    );
    let again = with(&["sign", "signed.dll", "-o", "twice.dll"], &KEY);
    let (_, error) = run(path, 2, &again);
    assert!(error.contains("already signed"), "{error}");
    run(path, 0, &with(&again, &["--nest", "--digest", "sha384"]));
    let (json, _) = run(
        path,
        0,
        &with(&["verify", "twice.dll", "--format", "json"], &TRUST),
    );
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["verdict"], "verified");
    assert_eq!(json["signature"]["signers"][1]["nested"], true);

    let (text, error) = run(path, 1, &with(&["verify", "sample.x64.dll"], &TRUST));
    assert!(text.contains("FAILED"), "{text}");
    assert!(error.starts_with("hpbuild: sample.x64.dll: "), "{error}");
    let wrong = [
        "--pin",
        "0000000000000000000000000000000000000000000000000000000000000000",
    ];
    run(
        path,
        1,
        &with(&with(&["verify", "signed.dll"], &TRUST), &wrong),
    );
    run(path, 2, &with(&["verify", "release.toml"], &TRUST));
    run(path, 2, &with(&["verify", "missing.dll"], &TRUST));
    run(path, 2, &["verify", "signed.dll"]);
    run(path, 2, &["sign", "sample.x64.dll", "-o", "x.dll"]);
    assert!(!path.join("x.dll").exists());
}

#[test]
fn a_passphrase_comes_from_file_or_environment() {
    let folder = folder();
    let path = folder.path();
    let encrypted = [
        "keygen",
        "--test",
        "-o",
        "locked",
        "--passphrase-env",
        "TEST_PASSPHRASE",
    ];
    run(path, 0, &encrypted);
    std::fs::write(path.join("right.txt"), "correct horse\n").unwrap();
    std::fs::write(path.join("wrong.txt"), "battery staple\n").unwrap();
    let key = ["--key", "locked/test-code-signing.key.pem"];
    let certificate = ["--certificate", "locked/test-code-signing.pem"];
    let sign = [
        &["sign", "sample.x64.dll", "-o", "signed.dll"][..],
        &key,
        &certificate,
    ]
    .concat();
    run(path, 0, &with(&sign, &["--passphrase-file", "right.txt"]));
    run(
        path,
        0,
        &with(&sign, &["--passphrase-env", "TEST_PASSPHRASE"]),
    );
    run(path, 2, &with(&sign, &["--passphrase-file", "wrong.txt"]));
    run(path, 2, &with(&sign, &["--passphrase-env", "NOT_SET"]));
    run(path, 2, &encrypted);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let key = path.join("locked/test-code-signing.key.pem");
        assert_eq!(key.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
}

/// Types at a terminal, which `script` (util-linux) provides. The key is locked with `correct
/// horse`; what is typed must not be shown.
#[cfg(target_os = "linux")]
#[test]
fn a_passphrase_is_asked_for_at_a_terminal() {
    use std::io::Write as _;
    use std::process::Stdio;

    let folder = folder();
    let path = folder.path();
    let locked = ["keygen", "--test", "-o", "locked", "--days", "36500"];
    run(
        path,
        0,
        &with(&locked, &["--passphrase-env", "TEST_PASSPHRASE"]),
    );
    for (typed, code) in [("correct horse", 0), ("battery staple", 2)] {
        let line = format!(
            "{} sign sample.x64.dll -o typed-{code}.dll --key locked/test-code-signing.key.pem \
             --certificate locked/test-code-signing.pem",
            env!("CARGO_BIN_EXE_hpbuild")
        );
        let mut terminal = Command::new("script")
            .args(["--quiet", "--return", "--command", &line, "/dev/null"])
            .current_dir(path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // Kept open: a terminal that is hung up answers nothing.
        let mut keyboard = terminal.stdin.take().unwrap();
        writeln!(keyboard, "{typed}").unwrap();
        let output = terminal.wait_with_output().unwrap();
        let shown = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(code), "{shown}");
        assert!(shown.contains("passphrase of locked/"), "{shown}");
        assert_eq!(path.join(format!("typed-{code}.dll")).exists(), code == 0);
    }
}

#[test]
fn a_key_elsewhere_signs_in_two_steps() {
    let folder = folder();
    let path = folder.path();
    let prepare = [
        "sign",
        "sample.x64.dll",
        "--digest-only",
        "-o",
        "request.json",
    ];
    let (digest, _) = run(path, 0, &with(&prepare, &KEY[2..]));
    // The key's owner, who sees nothing but the digest.
    let digest: Vec<u8> = (0..32)
        .map(|i| u8::from_str_radix(&digest[2 * i..2 * i + 2], 16).unwrap())
        .collect();
    let key = std::fs::read_to_string(path.join(KEY[1])).unwrap();
    let key: p256::ecdsa::SigningKey = p256::pkcs8::DecodePrivateKey::from_pkcs8_pem(&key).unwrap();
    let value: p256::ecdsa::Signature =
        p256::ecdsa::signature::hazmat::PrehashSigner::sign_prehash(&key, &digest).unwrap();
    std::fs::write(path.join("value.bin"), value.to_der().as_bytes()).unwrap();
    let attach = ["--attach", "request.json", "--signature", "value.bin"];
    run(
        path,
        0,
        &with(&["sign", "sample.x64.dll", "-o", "two.dll"], &attach),
    );
    run(
        path,
        0,
        &with(&["sign", "sample.x64.dll", "-o", "one.dll"], &KEY),
    );
    let read = |name: &str| std::fs::read(path.join(name)).unwrap();
    assert_eq!(read("one.dll"), read("two.dll"));
    run(
        path,
        2,
        &with(&["sign", "sample.arm64.dll", "-o", "x.dll"], &attach),
    );
    assert!(!path.join("x.dll").exists());
}

#[test]
fn a_package_is_made_verified_and_unpacked() {
    let folder = folder();
    let path = folder.path();
    let package = [
        &[
            "package",
            "sample.x64.dll",
            "sample.arm64.dll",
            "-o",
            "HP-1.cab",
        ][..],
        &["--release", "release.toml", "--calendar", "calendar.toml"],
        &["--material", "release.toml"],
        &KEY,
    ]
    .concat();
    run(path, 0, &package);
    let first = std::fs::read(path.join("HP-1.cab")).unwrap();
    run(path, 0, &package);
    assert_eq!(first, std::fs::read(path.join("HP-1.cab")).unwrap());
    let (text, _) = run(
        path,
        0,
        &with(&["verify", "HP-1.cab", "--unpack", "out"], &TRUST),
    );
    assert!(text.contains("HP-1 (sequence 1): A fix"), "{text}");
    assert!(text.contains("ok      provenance: "), "{text}");
    let mut names: Vec<_> = std::fs::read_dir(path.join("out"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(
        names,
        [
            "manifest.json",
            "sample.arm64.dll",
            "sample.x64.dll",
            "sbom.cdx.json"
        ]
    );

    let mut damaged = first.clone();
    damaged[100] ^= 1;
    std::fs::write(path.join("damaged.cab"), damaged).unwrap();
    let (text, _) = run(
        path,
        1,
        &with(&["verify", "damaged.cab", "--unpack", "none"], &TRUST),
    );
    assert!(text.contains("FAILED  cabinet: cabinet: digest"), "{text}");
    assert!(!path.join("none").exists());

    let later = RELEASE.replace("2026-11", "2027-02");
    std::fs::write(path.join("release.toml"), later).unwrap();
    let late = package
        .iter()
        .map(|a| if *a == "HP-1.cab" { "late.cab" } else { a });
    let (_, error) = run(path, 1, &late.collect::<Vec<_>>());
    assert!(
        error.contains("the baseline 2026-10 is outdated: 2027-01 is out"),
        "{error}"
    );
    assert!(!path.join("late.cab").exists());

    let newer = RELEASE
        .replace("HP-1", "HP-2")
        .replace("sequence = 1", "sequence = 2");
    std::fs::write(path.join("release.toml"), newer).unwrap();
    let next: Vec<_> = package
        .iter()
        .map(|a| if *a == "HP-1.cab" { "HP-2.cab" } else { a })
        .collect();
    let (_, error) = run(path, 2, &with(&next, &["--previous", "HP-1.cab"]));
    assert!(error.contains("sequence 1 is not below 1"), "{error}");

    std::fs::write(
        path.join("sample.x64.dll"),
        sample::patch_image(Machine::Arm64),
    )
    .unwrap();
    let (_, error) = run(path, 2, &package);
    assert!(error.contains("build the patch again"), "{error}");
}
