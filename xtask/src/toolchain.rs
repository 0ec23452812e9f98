//! The C toolchain: clang, lld and the LLVM tools of one release, installed when missing.
//!
//! Debian puts several releases side by side under numbered names. The prebuilt fixtures are made
//! by the first of [`RELEASES`]; the older ones serve where only those can be had.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::run;

/// Releases that can build everything here, best first.
const RELEASES: [&str; 2] = ["22", "19"];

/// One release of the tools.
pub(crate) struct Toolchain {
    release: &'static str,
}

impl Toolchain {
    /// Finds the tools, installing them with `apt-get` where that is possible.
    ///
    /// # Errors
    /// Nothing suitable is installed and it cannot be installed from here; says what to do.
    pub(crate) fn find() -> Result<Toolchain> {
        if let Some(found) = Toolchain::installed() {
            return Ok(found);
        }
        if !may_install() {
            bail!(
                "clang and lld are not installed\n\
                 hint: as root, `apt-get install {}`",
                packages(RELEASES[0]).join(" ")
            );
        }
        let mut last = None;
        for release in RELEASES {
            match install(release) {
                Ok(()) => return Toolchain::installed().context("installed tools do not start"),
                Err(error) => last = Some(error),
            }
        }
        Err(last.context("no release to install")?)
    }

    fn installed() -> Option<Toolchain> {
        RELEASES
            .into_iter()
            .map(|release| Toolchain { release })
            .find(|tools| {
                // lld and dlltool refuse a bare --version; that they start is enough.
                [tools.clang(), tools.lld_link(), tools.dlltool()]
                    .into_iter()
                    .all(|mut tool| tool.arg("--version").output().is_ok())
            })
    }

    /// The C and C++ compiler.
    pub(crate) fn clang(&self) -> Command {
        Command::new(format!("clang-{}", self.release))
    }

    /// The linker for PE images. It writes the name it was started by into the PDB, so it gets
    /// the same one on every machine.
    pub(crate) fn lld_link(&self) -> Command {
        let mut command = Command::new(format!("lld-link-{}", self.release));
        #[cfg(unix)]
        std::os::unix::process::CommandExt::arg0(&mut command, "lld-link");
        command
    }

    /// The compiler of resource scripts.
    pub(crate) fn rc(&self) -> Command {
        Command::new(format!("llvm-rc-{}", self.release))
    }

    /// The maker of import libraries.
    pub(crate) fn dlltool(&self) -> Command {
        Command::new(format!("llvm-dlltool-{}", self.release))
    }

    /// The lister of symbols.
    pub(crate) fn nm(&self) -> Command {
        Command::new(format!("llvm-nm-{}", self.release))
    }

    /// The folder with the headers of the C++ library.
    pub(crate) fn cxx_headers(&self) -> String {
        format!("/usr/lib/llvm-{}/include/c++/v1", self.release)
    }

    /// The exact version, as the compiler and the linker state it.
    ///
    /// # Errors
    /// One of them cannot be run.
    pub(crate) fn version(&self) -> Result<String> {
        let mut text = String::new();
        for mut tool in [self.clang(), self.lld_link()] {
            let answer = run::captured(tool.arg("--version"))?;
            text.push_str(answer.lines().next().unwrap_or_default());
            text.push('\n');
        }
        Ok(text)
    }
}

/// The packages that hold one release, and the C headers for programs that need a runtime.
fn packages(release: &str) -> Vec<String> {
    vec![
        format!("clang-{release}"),
        format!("lld-{release}"),
        format!("llvm-{release}"),
        format!("libc++-{release}-dev"),
        "mingw-w64-common".to_owned(),
    ]
}

/// Whether packages can be installed here: a system with `apt-get`, and we are root.
fn may_install() -> bool {
    let root = run::captured(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0");
    root && Path::new("/usr/bin/apt-get").exists()
}

/// The tools that tests hold our signatures and cabinets against, with their packages.
const ORACLES: [(&str, &str); 5] = [
    ("osslsigncode", "osslsigncode"),
    ("openssl", "openssl"),
    ("cabextract", "cabextract"),
    ("7z", "p7zip-full"),
    ("softhsm2-util", "softhsm2"),
];

/// Installs every tool that tests use as an oracle, where that is possible.
///
/// # Errors
/// A tool is missing and cannot be installed from here; says what to do.
pub(crate) fn tools() -> Result<()> {
    Toolchain::find()?;
    let missing: Vec<String> = ORACLES
        .into_iter()
        .filter(|(tool, _)| Command::new(tool).arg("--version").output().is_err())
        .map(|(_, package)| package.to_owned())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    if !may_install() {
        bail!(
            "tools that tests use are not installed\nhint: as root, `apt-get install {}`",
            missing.join(" ")
        );
    }
    install_packages(&missing)
}

/// Installs Wine, where that is possible and `loader` is not there.
///
/// # Errors
/// It is missing and cannot be installed from here; says what to do.
pub(crate) fn wine(loader: &Path) -> Result<()> {
    if loader.is_file() {
        return Ok(());
    }
    if !may_install() {
        bail!("Wine is not installed\nhint: as root, `apt-get install wine64`");
    }
    install_packages(&["wine64".to_owned()])
}

fn install(release: &str) -> Result<()> {
    install_packages(&packages(release))
}

fn install_packages(packages: &[String]) -> Result<()> {
    run::step(&format!("apt-get install {}", packages.join(" ")));
    run::captured(Command::new("apt-get").args(["update", "--quiet"]))?;
    run::captured(
        Command::new("apt-get")
            .env("DEBIAN_FRONTEND", "noninteractive")
            .args(["install", "--yes", "--quiet", "--no-install-recommends"])
            .args(packages),
    )?;
    Ok(())
}
