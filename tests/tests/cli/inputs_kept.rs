//! No output goes over an input, however the file is named; and no check that was made in part
//! looks like a pass.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use hpbuild_fixtures::demo;

use crate::program::{Run, Workspace, hpbuild};

/// The pair, and other names for its files.
struct Files {
    workspace: Workspace,
    /// Every file of the pair, with its bytes.
    inputs: Vec<(PathBuf, Vec<u8>)>,
}

impl Files {
    fn new() -> Self {
        let workspace = Workspace::new();
        let read = |path: PathBuf| {
            let bytes = std::fs::read(&path).expect("a file of the pair");
            (path, bytes)
        };
        let inputs = [
            "base/hp_demo.dll",
            "base/hp_demo.pdb",
            "fixed/hp_demo.dll",
            "fixed/hp_demo.pdb",
        ];
        Self {
            inputs: inputs.map(|name| read(workspace.path(name))).into(),
            workspace,
        }
    }

    fn run(&self, command: &str, rest: &[(&str, &Path)]) -> Run {
        let mut arguments: Vec<OsString> = vec![command.into()];
        arguments.extend([self.workspace.base().into(), self.workspace.fixed().into()]);
        for (option, value) in rest {
            arguments.extend([(*option).into(), (*value).into()]);
        }
        hpbuild(arguments)
    }

    /// The run is an error that names the place, and every input is as it was.
    #[track_caller]
    fn refuses(&self, run: &Run) {
        run.is_error(&["output", "expected another file than any input", "hint: "]);
        for (path, bytes) in &self.inputs {
            assert!(std::fs::read(path).unwrap() == *bytes, "{}", path.display());
        }
    }
}

#[test]
fn no_output_over_an_input() {
    let files = Files::new();
    for (path, _) in &files.inputs {
        files.refuses(&files.run("build", &[("-o", path)]));
        files.refuses(&files.run("diff", &[("-o", path)]));
    }
    let before = files.workspace.listing();
    // The same file under another path and behind another name.
    let detour = files.workspace.path("base/../base/hp_demo.dll");
    files.refuses(&files.run("build", &[("-o", &detour)]));
    let twin = files.workspace.path("twin.dll");
    std::fs::hard_link(files.workspace.base(), &twin).unwrap();
    files.refuses(&files.run("build", &[("-o", &twin)]));
    std::fs::remove_file(&twin).unwrap();
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(files.workspace.fixed(), &twin).unwrap();
        files.refuses(&files.run("build", &[("-o", &twin)]));
        std::fs::remove_file(&twin).unwrap();
    }
    let policy = files.workspace.write("policy.toml", "");
    files.refuses(&files.run("diff", &[("--policy", &policy), ("-o", &policy)]));
    // What is written beside the patch counts, too: its description and its PDB.
    let description = files.workspace.write("patch.dll.json", "");
    let patch = files.workspace.path("patch.dll");
    files.refuses(&files.run("build", &[("--policy", &description), ("-o", &patch)]));
    for path in [policy, description] {
        std::fs::remove_file(path).unwrap();
    }
    assert_eq!(
        files.workspace.listing(),
        before,
        "a failed run left a file"
    );
}

#[test]
fn older_patch_is_kept() {
    let files = Files::new();
    let patch = files.workspace.path("patch.dll");
    files.run("build", &[("-o", &patch)]).ends_with(0);
    let before = std::fs::read(&patch).unwrap();
    files.refuses(&files.run("build", &[("--previous", &patch), ("-o", &patch)]));
    assert!(std::fs::read(&patch).unwrap() == before);
    // An output that is no input is written over as ever.
    files.run("build", &[("-o", &patch)]).ends_with(0);
}

/// A buffer from a file that never ends, or that nobody writes to.
#[cfg(unix)]
#[test]
fn scenario_with_a_device() {
    let files = Files::new();
    let patch = files.workspace.path("patch.dll");
    files.run("build", &[("-o", &patch)]).ends_with(0);
    let pipe = files.workspace.path("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    for file in [Path::new("/dev/zero"), &pipe, Path::new("/")] {
        let text = format!(
            "[[session]]\nbuffers.b.file = {:?}\n[[session.call]]\nfunction = \"hp_may\"\n",
            file.display().to_string()
        );
        let scenario = files.workspace.write("scenario.toml", text);
        let arguments: [&OsStr; 5] = [
            "test".as_ref(),
            files.inputs[0].0.as_ref(),
            patch.as_ref(),
            "--scenario".as_ref(),
            scenario.as_ref(),
        ];
        let run = hpbuild(arguments);
        run.is_error(&[
            "scenario",
            "buffer b",
            "expected a file, found a folder, pipe or device",
        ]);
    }
}

/// Arm64 code is not executed, so calls that were asked for were not made, and CI is told so.
#[test]
fn incomplete_test_is_no_pass() {
    let files = Workspace::of(&demo::ARM64);
    let (build, patch) = files.build();
    build.ends_with(0);
    let (base, fixed) = (files.base(), files.fixed());
    let plain = [OsStr::new("test"), base.as_ref(), patch.as_ref()];
    let calls = ["--against".as_ref(), fixed.as_ref()];
    for (run, code) in [
        (hpbuild(plain), 0),
        (hpbuild([&plain[..], &calls].concat()), 1),
    ] {
        run.ends_with(code);
        assert!(run.stdout.starts_with("incomplete"), "{run:#?}");
    }
}
