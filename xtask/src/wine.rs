//! `cargo xtask wine`: patches below a loader and an unwinder that are not ours.
//!
//! Wine's loader maps base and patch, a program of its own (`xtask/wine/apply.c`) applies the patch
//! as the reference of the format describes it, and calls go through. So every patch of the x64
//! fixtures is seen to load and to fit its base, and exceptions are thrown through patched
//! functions and caught in them: the patched base must do what the fixed image does.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use hpbuild_fixtures::{Machine, Pair, pairs};

use crate::corpus::proof::Profile;
use crate::run;
use crate::toolchain::{self, Toolchain};

/// Where Debian puts the loader of 64-bit programs, which is not on the search path, and what
/// serves all programs of one system folder.
const WINE: &str = "/usr/lib/wine/wine64";
const SERVER: &str = "/usr/lib/wine/wineserver64";
/// So often Wine may try to start a program that it ends before that begins.
const STARTS: u32 = 3;
/// Definitions of what the program imports.
const IMPORTS: [&str; 2] = ["kernel32", "msvcrt"];
/// The pairs whose functions are called, the functions, and how many arguments from 0 on.
const CALLED: (&str, [&str; 4], u32) = (
    "exceptions/",
    ["guarded", "nested", "receives", "packed"],
    6,
);

/// These import from a library that nobody has, so that no loader takes them.
const NOT_LOADED: &str = "runtime-lists/";

/// Applies every patch there is; calls functions where exceptions are what it is about.
///
/// # Errors
/// Wine or clang is missing and cannot be installed; a patch cannot be built, does not load, does
/// not fit its base, or makes the base do something else than the fixed image.
pub(crate) fn run() -> Result<()> {
    toolchain::wine(Path::new(WINE))?;
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    let program = compile(&Toolchain::find()?, folder.path())?;
    let wine = Wine::start(folder.path().join("prefix"), program)?;
    Profile::Dev.compile()?;
    let patched = |pair: &Pair| {
        let expected = &pair.expected;
        let changed = expected.changed.len() > expected.line_number.len();
        let loads = pair.machine == Machine::X64 && !pair.name.starts_with(NOT_LOADED);
        loads && expected.hotpatchable == Some(true) && changed
    };
    let all: Vec<_> = pairs()?.into_iter().filter(patched).collect();
    ensure!(!all.is_empty(), "no pair that can be hotpatched");
    let patches = all.len();
    let check = |(index, pair): (usize, Pair)| {
        let patch = folder.path().join(format!("{index}_hotpatch.dll"));
        wine.check(&pair, &patch).context(pair.name)
    };
    let called = run::in_parallel(all.into_iter().enumerate().collect(), check)?;
    let called: usize = called.into_iter().sum();
    ensure!(called > 0, "no pair whose functions are called");
    println!("{patches} patches applied below Wine, {called} with calls");
    Ok(())
}

/// Makes the program that applies and calls.
fn compile(tools: &Toolchain, folder: &Path) -> Result<PathBuf> {
    let sources = run::root().join("xtask/wine");
    for name in IMPORTS {
        let mut dlltool = tools.dlltool();
        dlltool
            .current_dir(folder)
            .args(["-m", "i386:x86-64", "-d"]);
        dlltool.arg(sources.join(format!("{name}.def")));
        run::captured(dlltool.args(["-l", &format!("{name}.lib")]))?;
    }
    let mut clang = tools.clang();
    clang
        .current_dir(folder)
        .args(["--target=x86_64-w64-windows-gnu", "-O1", "-fno-builtin"]);
    clang.args([
        "-nostdlibinc",
        "-isystem",
        "/usr/share/mingw-w64/include",
        "-Wall",
        "-Werror",
    ]);
    clang.arg("-c").arg(sources.join("apply.c"));
    run::captured(clang.args(["-o", "apply.obj"]))?;
    let mut link = tools.lld_link();
    link.current_dir(folder)
        .args(["/subsystem:console", "/entry:start", "/nodefaultlib"]);
    link.args(["/out:apply.exe", "apply.obj"]);
    run::captured(link.args(IMPORTS.map(|name| format!("{name}.lib"))))?;
    Ok(folder.join("apply.exe"))
}

/// A Wine with a system folder of its own, and a server that outlives its programs: without one
/// every program would start all services anew, for seconds.
struct Wine {
    prefix: PathBuf,
    program: PathBuf,
}

impl Wine {
    fn start(prefix: PathBuf, program: PathBuf) -> Result<Self> {
        std::fs::create_dir(&prefix).context("cannot make a system folder for Wine")?;
        // It goes to the background when programs can reach it, and ends itself so many seconds after
        // the last of them where nobody ends it.
        let mut server = Command::new(SERVER);
        run::checked(server.arg("--persistent=60").env("WINEPREFIX", &prefix))?;
        Ok(Self { prefix, program })
    }

    /// Applies the patch of a pair, and calls its functions where they are known: whether they are.
    fn check(&self, pair: &Pair, patch: &Path) -> Result<usize> {
        let mut build = Profile::Dev.hpbuild();
        build.arg("build").args([&pair.base.dll, &pair.fixed.dll]);
        run::captured(build.arg("-o").arg(patch))?;
        let (group, functions, arguments) = CALLED;
        let calls: Vec<String> = if pair.name.starts_with(group) {
            let of = |name: &str| {
                let name = name.to_owned();
                (0..arguments).map(move |argument| format!("{name}:{argument}"))
            };
            functions.into_iter().flat_map(of).collect()
        } else {
            Vec::new()
        };
        let patched = self.answers(&[&pair.base.dll, patch], &calls)?;
        let applied = patched.strip_prefix("applied\n").context("not applied")?;
        if calls.is_empty() {
            return Ok(0);
        }
        let fixed = self.answers(&[&pair.fixed.dll], &calls)?;
        ensure!(
            fixed.lines().count() == calls.len(),
            "fewer answers than calls: {fixed}"
        );
        ensure!(
            applied == fixed,
            "the patched base answers\n{applied}and the fixed image\n{fixed}"
        );
        let base = self.answers(&[&pair.base.dll], &calls)?;
        ensure!(
            base != fixed,
            "base and fixed image answer alike, so nothing was seen:\n{base}"
        );
        Ok(1)
    }

    /// What the program prints.
    fn answers(&self, images: &[&Path], calls: &[String]) -> Result<String> {
        for _ in 0..STARTS {
            let mut wine = Command::new(WINE);
            wine.env("WINEPREFIX", &self.prefix)
                // Errors of Wine itself tell why a program did not run.
                .env("WINEDEBUG", "fixme-all")
                // Nothing that a desktop or a script would ask for.
                .env(
                    "WINEDLLOVERRIDES",
                    "winemenubuilder.exe,mscoree,mshtml,explorer.exe=",
                )
                .arg(&self.program)
                .args(images)
                .arg("--")
                .args(calls);
            let output = wine.output().context("cannot start Wine")?;
            let said = String::from_utf8_lossy(&output.stdout).replace('\r', "");
            if output.status.success() && !said.contains("apply: ") {
                return Ok(said);
            }
            let errors = String::from_utf8_lossy(&output.stderr);
            let failed = format!("Wine ended with {}\n{said}{errors}", output.status);
            // The program ends with 2, or with the code of an exception, and has said something
            // before. Now and then, Wine ends with 1 before the program begins.
            if output.status.code() != Some(1) || !said.is_empty() {
                bail!(failed);
            }
            eprintln!("{failed}again: the program did not begin");
        }
        bail!("Wine ended with 1 before the program began, {STARTS} times in a row");
    }
}

impl Drop for Wine {
    fn drop(&mut self) {
        // Its programs end with it. Where that fails, it ends itself.
        let mut server = Command::new(SERVER);
        let _ = server
            .arg("--kill")
            .env("WINEPREFIX", &self.prefix)
            .status();
    }
}
