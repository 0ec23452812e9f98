//! Running the program as a user does.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use hpbuild_fixtures::demo;

/// Longer than any run takes on a machine that does other things, too. A run that takes longer
/// hangs.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a run came to.
#[derive(Debug)]
pub(crate) struct Run {
    /// The exit code; `None` where a signal ended the run.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// The program, built once, for the profile and into the folder that this test was built in.
pub(crate) fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let test = std::env::current_exe().expect("a test has a path");
        let profile = test
            .parent()
            .and_then(Path::parent)
            .expect("tests lie in TARGET/PROFILE/deps");
        let target = profile.parent().expect("profiles lie in TARGET");
        let name = match profile.file_name().and_then(OsStr::to_str) {
            Some("debug") | None => "dev",
            Some(name) => name,
        };
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| env!("CARGO").into());
        let built = Command::new(cargo)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .args([
                // The selection decides the features of all dependencies. With the whole workspace
                // and a test in it they are those of `cargo test --workspace`, so that nothing is
                // built twice.
                "build",
                "--quiet",
                "--workspace",
                "--bin",
                "hpbuild",
                "--test",
                "signing",
                "--profile",
                name,
            ])
            .arg("--target-dir")
            .arg(target)
            .status()
            .expect("cargo runs");
        assert!(built.success(), "cargo build --bin hpbuild: {built}");
        let program = profile.join(format!("hpbuild{}", std::env::consts::EXE_SUFFIX));
        assert!(program.is_file(), "{} was not built", program.display());
        program
    })
}

/// Runs the program with these arguments.
pub(crate) fn hpbuild<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Run {
    let mut command = Command::new(program());
    command.args(arguments);
    run(command)
}

/// Runs a command to its end, which has to come.
pub(crate) fn run(mut command: Command) -> Run {
    let mut stdout = tempfile::tempfile().expect("a temporary file");
    let mut stderr = tempfile::tempfile().expect("a temporary file");
    let mut child = command
        .env_remove("_NT_SYMBOL_PATH")
        .stdin(Stdio::null())
        .stdout(stdout.try_clone().expect("a second handle"))
        .stderr(stderr.try_clone().expect("a second handle"))
        .spawn()
        .expect("the program starts");
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("the program can be waited for") {
            break status;
        }
        if start.elapsed() > PATIENCE {
            child.kill().expect("the program can be ended");
            panic!("{command:?} hangs");
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    Run {
        code: status.code(),
        stdout: text(&mut stdout),
        stderr: text(&mut stderr),
    }
}

fn text(file: &mut File) -> String {
    let mut bytes = Vec::new();
    file.rewind()
        .and_then(|()| file.read_to_end(&mut bytes))
        .expect("a temporary file can be read");
    String::from_utf8_lossy(&bytes).into_owned()
}

impl Run {
    /// The run ended with one clear error that says all of `parts`, and gave nothing else.
    #[track_caller]
    pub(crate) fn is_error(&self, parts: &[&str]) {
        assert_eq!(self.code, Some(2), "{self:#?}");
        assert_eq!(self.stdout, "", "{self:#?}");
        assert!(self.stderr.starts_with("hpbuild: "), "{self:#?}");
        assert!(!self.stderr.contains("panicked"), "{self:#?}");
        // One cause, and at most a hint.
        assert_eq!(self.stderr.matches("hpbuild: ").count(), 1, "{self:#?}");
        for part in parts {
            assert!(self.stderr.contains(part), "no `{part}` in {self:#?}");
        }
    }

    /// The run ended with this code and without a complaint.
    #[track_caller]
    pub(crate) fn ends_with(&self, code: i32) -> &Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        assert_eq!(self.stderr, "", "{self:#?}");
        self
    }
}

/// A folder with a copy of the demo pair for one machine.
pub(crate) struct Workspace {
    folder: tempfile::TempDir,
}

impl Workspace {
    pub(crate) fn new() -> Self {
        Self::of(&demo::X64)
    }

    pub(crate) fn of(pair: &demo::Demo) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for (side, image) in [("base", &pair.base), ("fixed", &pair.fixed)] {
            let side = folder.path().join(side);
            std::fs::create_dir(&side).expect("a folder can be made");
            for file in [image.dll, image.pdb] {
                std::fs::write(side.join(file.name), file.bytes).expect("a file can be written");
            }
        }
        Self { folder }
    }

    /// A path in the folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn base(&self) -> PathBuf {
        self.path("base/hp_demo.dll")
    }

    pub(crate) fn base_pdb(&self) -> PathBuf {
        self.path("base/hp_demo.pdb")
    }

    pub(crate) fn fixed(&self) -> PathBuf {
        self.path("fixed/hp_demo.dll")
    }

    /// Writes a file into the folder.
    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, bytes).expect("a file can be written");
        path
    }

    /// `hpbuild diff` of the pair.
    pub(crate) fn diff(&self) -> Run {
        hpbuild([
            OsStr::new("diff"),
            self.base().as_ref(),
            self.fixed().as_ref(),
        ])
    }

    /// `hpbuild build` of the pair into a patch that is returned with the run.
    pub(crate) fn build(&self) -> (Run, PathBuf) {
        let patch = self.path("patch.dll");
        let arguments = [
            OsStr::new("build"),
            self.base().as_ref(),
            self.fixed().as_ref(),
            "-o".as_ref(),
            patch.as_ref(),
        ]
        .map(OsStr::to_owned);
        (hpbuild(arguments), patch)
    }

    /// Both `diff` and `build` end with the same kind of error, and no file appears.
    #[track_caller]
    pub(crate) fn fails(&self, parts: &[&str]) {
        let before = self.listing();
        self.diff().is_error(parts);
        self.build().0.is_error(parts);
        assert_eq!(self.listing(), before, "a failed run left a file");
    }

    /// The names of all files at the top of the folder.
    pub(crate) fn listing(&self) -> Vec<PathBuf> {
        let mut names: Vec<_> = std::fs::read_dir(self.folder.path())
            .expect("the folder can be read")
            .map(|entry| entry.expect("an entry can be read").path())
            .collect();
        names.sort();
        names
    }
}

/// Bytes that follow no rule, the same each time.
pub(crate) fn noise(length: usize, mut seed: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        bytes.extend(seed.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}
