//! Bad input: one clear error with the file, the place, what was expected and what was found;
//! exit code 2; never a panic, a hang or a file.

use std::ffi::OsStr;
use std::path::Path;

use hpbuild_fixtures::{demo, lone};

use crate::program::{Workspace, hpbuild, noise};

const DLL: &[u8] = demo::X64.base.dll.bytes;
const PDB: &[u8] = demo::X64.base.pdb.bytes;

#[test]
fn truncated_pe() {
    let files = Workspace::new();
    let half = DLL.len() / 2;
    for length in [
        0,
        1,
        2,
        0x3f,
        0x40,
        0x80,
        0x100,
        0x200,
        0x400,
        half,
        DLL.len() - 0x200,
        DLL.len() - 1,
    ] {
        files.write("base/hp_demo.dll", &DLL[..length]);
        files.fails(&["base/hp_demo.dll: ", "expected", "found"]);
    }
}

#[test]
fn random_pe() {
    let files = Workspace::new();
    for seed in 1..=4 {
        let mut bytes = noise(0x4000, seed);
        files.write("base/hp_demo.dll", &bytes);
        files.fails(&["base/hp_demo.dll: ", "expected", "found"]);
        // With a header that leads somewhere.
        bytes[..0x40].copy_from_slice(&DLL[..0x40]);
        files.write("base/hp_demo.dll", &bytes);
        files.fails(&["base/hp_demo.dll: ", "expected", "found"]);
        // With all headers, and noise in the sections.
        bytes[..0x400].copy_from_slice(&DLL[..0x400]);
        files.write("base/hp_demo.dll", &bytes);
        files.fails(&["base/hp_demo.dll: "]);
    }
    files.write("base/hp_demo.dll", "no image at all\n");
    files.fails(&["base/hp_demo.dll: ", "expected", "found"]);
}

/// Of a packed image, whose code is not in the file, nothing can be said.
#[test]
fn code_that_is_not_in_the_file() {
    let files = Workspace::new();
    let header = u32::from_le_bytes(DLL[0x3c..0x40].try_into().unwrap()) as usize;
    // `SizeOfRawData` of the first section, behind the headers of 64-bit images.
    let at = header + 24 + 240 + 16;
    for size in [0_u32, 0x200] {
        let mut bytes = DLL.to_vec();
        bytes[at..at + 4].copy_from_slice(&size.to_le_bytes());
        files.write("base/hp_demo.dll", &bytes);
        files.fails(&[
            "base/hp_demo.dll: section .text: ",
            "bytes of code in the file, found",
            "as in a packed image",
        ]);
    }
}

#[test]
fn truncated_pdb() {
    let files = Workspace::new();
    let half = PDB.len() / 2;
    for length in [
        0,
        1,
        0x20,
        0x38,
        0x50,
        0x200,
        0x1000,
        half,
        PDB.len() - 0x1000,
    ] {
        files.write("base/hp_demo.pdb", &PDB[..length]);
        files.fails(&["base/hp_demo.pdb: ", "expected", "found"]);
    }
}

#[test]
fn random_pdb() {
    let files = Workspace::new();
    for seed in 1..=4 {
        let mut bytes = noise(0x8000, seed);
        files.write("base/hp_demo.pdb", &bytes);
        files.fails(&["base/hp_demo.pdb: ", "expected", "found"]);
        bytes[..0x20].copy_from_slice(&PDB[..0x20]);
        files.write("base/hp_demo.pdb", &bytes);
        files.fails(&["base/hp_demo.pdb: ", "expected", "found"]);
    }
}

/// Headers that promise gigabytes are not believed: nothing of the kind is allocated.
#[test]
fn sizes_beyond_the_file() {
    let files = Workspace::new();
    // Page size, pages, and bytes of the stream directory.
    for (at, value) in [(32, 0x10000), (32, 3), (40, u32::MAX), (44, u32::MAX - 3)] {
        let mut bytes = PDB.to_vec();
        bytes[at..at + 4].copy_from_slice(&u32::to_le_bytes(value));
        files.write("base/hp_demo.pdb", &bytes);
        files.fails(&["base/hp_demo.pdb: pdb ", "expected", "found"]);
    }
    // A compressed PDB whose parts would be anywhere and of any size.
    let mut bytes = b"Microsoft MSFZ Container\r\n\x1aALD\0\0".to_vec();
    bytes.extend([0xff; 0x60]);
    files.write("base/hp_demo.pdb", &bytes);
    files.fails(&["base/hp_demo.pdb: pdb ", "expected", "found"]);
    bytes[32..40].fill(0);
    for (at, value) in [
        (56, u32::MAX),
        (68, u32::MAX),
        (72, u32::MAX),
        (76, u32::MAX),
    ] {
        let mut bytes = bytes.clone();
        bytes[40..80].fill(0);
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        files.write("base/hp_demo.pdb", &bytes);
        files.fails(&["base/hp_demo.pdb: pdb "]);
    }
}

#[test]
fn pe_and_pdb_exchanged() {
    let files = Workspace::new();
    files.write("base/hp_demo.pdb", DLL);
    files.fails(&[
        "base/hp_demo.pdb: pdb header: expected a PDB",
        "found a file that starts with",
    ]);
    let files = Workspace::new();
    files.write("base/hp_demo.dll", PDB);
    files.fails(&["base/hp_demo.dll: ", "expected", "found"]);
}

#[test]
fn machines_that_differ() {
    let (x64, arm64) = (Workspace::new(), Workspace::of(&demo::ARM64));
    for (base, fixed) in [(&x64, &arm64), (&arm64, &x64)] {
        let patch = base.path("patch.dll");
        let (base, fixed) = (base.base(), fixed.fixed());
        let parts = ["machine", "expected", "as the base has", "found"];
        hpbuild([OsStr::new("diff"), base.as_ref(), fixed.as_ref()]).is_error(&parts);
        let build: [&OsStr; 5] = [
            "build".as_ref(),
            base.as_ref(),
            fixed.as_ref(),
            "-o".as_ref(),
            patch.as_ref(),
        ];
        hpbuild(build).is_error(&parts);
        assert!(!patch.exists());
    }
}

#[test]
fn pdb_of_another_build() {
    let files = Workspace::new();
    for other in [demo::X64.fixed.pdb.bytes, demo::ARM64.base.pdb.bytes] {
        files.write("base/hp_demo.pdb", other);
        files.fails(&[
            "base/hp_demo.pdb: pdb identity: expected",
            "found",
            "HP005",
            "\nhint: ",
        ]);
    }
}

#[test]
fn no_pdb() {
    let files = Workspace::new();
    std::fs::remove_file(files.base_pdb()).unwrap();
    files.fails(&["base/hp_demo.dll: ", "no PDB found", "HP004", "\nhint: "]);
}

#[test]
fn no_debug_directory() {
    let images = lone("refused").unwrap();
    let found = images.iter().filter(|(name, ..)| name == "no-debug");
    for (_, machine, build) in found.clone() {
        let run = hpbuild([OsStr::new("diff"), build.dll.as_ref(), build.dll.as_ref()]);
        run.is_error(&["debug directory", "expected", "found none", "HP004"]);
        assert!(!build.pdb.exists(), "{machine:?}");
    }
    assert_eq!(found.count(), 2);
}

#[test]
fn named_pdb_that_is_missing_or_wrong() {
    let files = Workspace::new();
    let diff = |pdb: &Path| {
        let (base, fixed) = (files.base(), files.fixed());
        hpbuild([
            OsStr::new("diff"),
            base.as_ref(),
            fixed.as_ref(),
            "--base-pdb".as_ref(),
            pdb.as_ref(),
        ])
    };
    diff(&files.path("nowhere.pdb")).is_error(&["nowhere.pdb: "]);
    diff(&files.path("fixed/hp_demo.pdb")).is_error(&["fixed/hp_demo.pdb: ", "HP005"]);
    diff(&files.path("base")).is_error(&["base: ", "expected a file", "found a folder"]);
    diff(&files.base()).is_error(&["base/hp_demo.dll: pdb header: expected"]);
}

#[test]
fn missing_file() {
    let files = Workspace::new();
    std::fs::remove_file(files.base()).unwrap();
    files.fails(&["base/hp_demo.dll: ", "No such file"]);
    let base = files.base();
    hpbuild([OsStr::new("inspect"), base.as_ref()]).is_error(&["No such file"]);
}

/// Where the system lets everybody read everything there is nothing to see.
#[cfg(unix)]
#[test]
fn unreadable_file() {
    use std::os::unix::fs::PermissionsExt;
    let files = Workspace::new();
    for path in [files.base(), files.base_pdb()] {
        let closed = std::fs::Permissions::from_mode(0o000);
        std::fs::set_permissions(&path, closed).unwrap();
        if std::fs::File::open(&path).is_ok() {
            files.diff().ends_with(0);
        } else {
            files.fails(&[path.to_str().unwrap(), "ermission denied"]);
        }
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    }
}

#[test]
fn folder_as_input() {
    let files = Workspace::new();
    let folder = files.path("base");
    let fixed = files.fixed();
    let parts = ["base: ", "expected a file", "found a folder"];
    hpbuild([OsStr::new("diff"), folder.as_ref(), fixed.as_ref()]).is_error(&parts);
    hpbuild([OsStr::new("inspect"), folder.as_ref()]).is_error(&parts);
    hpbuild([OsStr::new("test"), folder.as_ref(), fixed.as_ref()]).is_error(&parts);
    hpbuild([OsStr::new("test"), fixed.as_ref(), folder.as_ref()]).is_error(&parts);
}

/// A pipe that nobody writes to and a device without end: every command that reads a file says no
/// before it opens them.
#[cfg(unix)]
#[test]
fn pipes_and_devices_as_input() {
    let files = Workspace::new();
    let pipe = files.path("pipe");
    let made = std::process::Command::new("mkfifo")
        .arg(&pipe)
        .status()
        .unwrap();
    assert!(made.success());
    let (base, fixed, patch) = (files.base(), files.fixed(), files.path("patch.dll"));
    for input in [&pipe, Path::new("/dev/zero")] {
        let name: [&OsStr; 1] = [input.as_ref()];
        let (base, fixed): (&OsStr, &OsStr) = (base.as_ref(), fixed.as_ref());
        let commands: [&[&OsStr]; 10] = [
            &["diff".as_ref(), name[0], fixed],
            &["diff".as_ref(), base, name[0]],
            &["diff".as_ref(), base, fixed, "--base-pdb".as_ref(), name[0]],
            &["diff".as_ref(), base, fixed, "--policy".as_ref(), name[0]],
            &[
                "build".as_ref(),
                base,
                fixed,
                "-o".as_ref(),
                patch.as_ref(),
                "--previous".as_ref(),
                name[0],
            ],
            &["inspect".as_ref(), name[0]],
            &["test".as_ref(), name[0], fixed],
            &["test".as_ref(), base, name[0]],
            &["test".as_ref(), base, fixed, "--scenario".as_ref(), name[0]],
            &["verify".as_ref(), name[0], "--trust".as_ref(), base],
        ];
        for command in commands {
            let run = hpbuild(command);
            assert_eq!(run.code, Some(2), "{command:?}: {run:#?}");
            assert!(run.stderr.starts_with("hpbuild: "), "{command:?}: {run:#?}");
            assert!(!patch.exists());
        }
    }
}

/// Names need not be text.
#[cfg(target_os = "linux")]
#[test]
fn path_that_is_not_utf8() {
    use std::os::unix::ffi::OsStrExt;
    let files = Workspace::new();
    let odd = files.path("").join(OsStr::from_bytes(b"b\xffse.dll"));
    std::fs::copy(files.base(), &odd).unwrap();
    std::fs::copy(files.base_pdb(), files.path("hp_demo.pdb")).unwrap();
    let fixed = files.fixed();
    let run = hpbuild([OsStr::new("diff"), odd.as_ref(), fixed.as_ref()]);
    assert_eq!(run.code, Some(0), "{run:#?}");
    let json = hpbuild([
        OsStr::new("diff"),
        odd.as_ref(),
        fixed.as_ref(),
        "--format".as_ref(),
        "json".as_ref(),
    ]);
    assert_eq!(json.code, Some(0), "{json:#?}");
    let missing = files.path("").join(OsStr::from_bytes(b"\xfe\xff"));
    hpbuild([OsStr::new("diff"), missing.as_ref(), fixed.as_ref()]).is_error(&["No such file"]);
}

#[test]
fn output_that_cannot_be_written() {
    let files = Workspace::new();
    let (base, fixed) = (files.base(), files.fixed());
    let before = files.listing();
    let mut places = vec![
        (files.path("missing/out"), "expected an existing folder"),
        (files.path("base"), "expected a file, found a folder"),
        (files.path("base/hp_demo.dll/out"), "output folder"),
    ];
    if cfg!(target_os = "linux") {
        places.push(("/proc/hpbuild-out".into(), "/proc/hpbuild-out: "));
        places.push(("/dev/full".into(), "/dev/full: "));
    }
    for (place, part) in places {
        for command in ["diff", "build"] {
            let arguments: [&OsStr; 5] = [
                command.as_ref(),
                base.as_ref(),
                fixed.as_ref(),
                "-o".as_ref(),
                place.as_ref(),
            ];
            hpbuild(arguments).is_error(&[part]);
        }
    }
    assert_eq!(files.listing(), before);
}

/// A device is written to, not replaced by a file; a link stays a link.
#[cfg(unix)]
#[test]
fn output_to_a_device_or_a_link() {
    use std::os::unix::fs::FileTypeExt;
    let files = Workspace::new();
    let link = files.path("link");
    std::os::unix::fs::symlink("report", &link).unwrap();
    files.write("report", "");
    for place in [Path::new("/dev/null"), &link] {
        let (base, fixed) = (files.base(), files.fixed());
        let arguments: [&OsStr; 5] = [
            "diff".as_ref(),
            base.as_ref(),
            fixed.as_ref(),
            "-o".as_ref(),
            place.as_ref(),
        ];
        hpbuild(arguments).ends_with(0);
    }
    let null = std::fs::metadata("/dev/null").unwrap();
    assert!(null.file_type().is_char_device());
    assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
    let report = std::fs::read_to_string(files.path("report")).unwrap();
    assert!(report.contains("read_name"), "{report}");
}

#[test]
fn bad_policy() {
    let files = Workspace::new();
    let policies = [
        ("[[allow]\n", "TOML"),
        ("[[permit]]\ncode = 'HP021'\n", "permit"),
        ("[[allow]]\ncode = 'HP021'\nname = 'f'\n", "reason"),
        (
            "[[allow]]\ncode = 'HP021'\nname = 'f'\nreason = ' '\n",
            "reason",
        ),
        (
            "[[allow]]\ncode = 'HP021'\nname = ''\nreason = 'r'\n",
            "name",
        ),
        (
            "[[allow]]\ncode = '21'\nname = 'f'\nreason = 'r'\n",
            "found 21",
        ),
        (
            "[[allow]]\ncode = 'HP999'\nname = 'f'\nreason = 'r'\n",
            "found HP999",
        ),
        (
            "[[allow]]\ncode = 'HP066'\nname = 'f'\nreason = 'r'\n",
            "line 2: expected the code of a rule that may be waived, found HP066",
        ),
        (
            "[[allow]]\ncode = 'HP021'\nname = 'parse_*'\nreason = 'r'\n",
            "line 3: expected one whole name",
        ),
        ("\u{0}", "policy"),
    ];
    let check = |policy: &Path, part: &str| {
        let (base, fixed) = (files.base(), files.fixed());
        let policy: [&OsStr; 5] = [
            "diff".as_ref(),
            base.as_ref(),
            fixed.as_ref(),
            "--policy".as_ref(),
            policy.as_ref(),
        ];
        hpbuild(policy).is_error(&["policy", part]);
    };
    for (text, part) in policies {
        check(&files.write("policy.toml", text), part);
    }
    check(
        &files.write("policy.toml", b"\xff\xfe"),
        "expected UTF-8 text",
    );
    check(&files.path("no-policy.toml"), "No such file");
}

#[test]
fn previous_that_is_no_patch() {
    let files = Workspace::new();
    let (base, fixed, patch) = (files.base(), files.fixed(), files.path("patch.dll"));
    let noise = files.write("noise.dll", noise(0x1000, 9));
    for previous in [&base, &noise, &files.base_pdb()] {
        let arguments: [&OsStr; 7] = [
            "build".as_ref(),
            base.as_ref(),
            fixed.as_ref(),
            "-o".as_ref(),
            patch.as_ref(),
            "--previous".as_ref(),
            previous.as_ref(),
        ];
        hpbuild(arguments).is_error(&[previous.to_str().unwrap()]);
        assert!(!patch.exists());
    }
}

#[test]
fn test_of_what_is_no_patch() {
    let files = Workspace::new();
    let (base, fixed) = (files.base(), files.fixed());
    let noise = files.write("noise.dll", noise(0x1000, 9));
    for (base, patch) in [(&base, &fixed), (&base, &noise), (&noise, &fixed)] {
        let run = hpbuild([OsStr::new("test"), base.as_ref(), patch.as_ref()]);
        assert_ne!(run.code, Some(0), "{run:#?}");
        assert!(run.code.is_some(), "{run:#?}");
        assert!(!run.stderr.contains("panicked"), "{run:#?}");
    }
    let scenario = files.write("scenario.toml", "[[call]\n");
    let arguments: [&OsStr; 5] = [
        "test".as_ref(),
        base.as_ref(),
        fixed.as_ref(),
        "--scenario".as_ref(),
        scenario.as_ref(),
    ];
    hpbuild(arguments).is_error(&["scenario.toml: "]);
}
