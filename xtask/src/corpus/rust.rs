//! Rust crates of the corpus: cargo makes a static library of one, which is linked like the
//! objects of any other project.
//!
//! A static library holds the objects of the crate, of all that it depends on and of the standard
//! library, and so everything that the linker sees is there for the oracle to read.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::build::Side;
use super::recipe::{Rust, Version};
use super::sources;
use crate::recipe::Machine;
use crate::run;

/// The static library of a side, relative to its folder.
pub(crate) fn library() -> PathBuf {
    Path::new("obj").join("crate.lib")
}

/// Why nothing in Rust can be built for the machine, where that is so. Installs the standard
/// library by rustup where there is none and that works.
pub(crate) fn lacks(machine: Machine) -> Option<String> {
    let triple = machine.msvc_triple();
    if installed(triple) {
        return None;
    }
    run::step(&format!("rustup target add {triple}"));
    let added = run::captured(Command::new("rustup").args(["target", "add", triple]));
    match added {
        _ if installed(triple) => None,
        Ok(_) => Some(format!("rustup left no standard library for {triple}")),
        Err(error) => Some(format!(
            "there is no standard library for {triple}: {error:#}"
        )),
    }
}

fn installed(triple: &str) -> bool {
    let mut rustc = Command::new("rustc");
    rustc.args(["--print", "target-libdir", "--target", triple]);
    let folder = run::captured(&mut rustc).unwrap_or_default();
    let listed = fs::read_dir(folder.trim());
    listed.is_ok_and(|mut files| {
        files.any(|file| {
            file.is_ok_and(|file| file.file_name().to_string_lossy().starts_with("libstd-"))
        })
    })
}

/// The version of the compiler.
///
/// # Errors
/// It cannot be run.
pub(crate) fn version() -> Result<String> {
    run::captured(Command::new("rustc").arg("--version"))
}

impl Side<'_> {
    /// What cargo is told, in the folder of the package that [`Side::make_library`] makes.
    pub(crate) fn cargo(&self, rust: &Rust) -> Command {
        let vendor = self.sources.parent().unwrap_or(self.sources);
        let vendor = vendor.to_string_lossy();
        let level = match self.optimisation {
            "Os" => "\"s\"",
            "O0" => "0",
            "O1" => "1",
            "O3" => "3",
            _ => "2",
        };
        let mut flags = vec![
            // The version of the crate is in its path, and every panic names its path.
            format!("--remap-path-prefix={vendor}=vendor"),
        ];
        flags.extend(rust.flags.iter().cloned());
        let mut cargo = Command::new("cargo");
        cargo
            .current_dir(self.package())
            .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
            .env("CARGO_TARGET_DIR", "target")
            .args(["build", "--release", "--offline", "--quiet"])
            .args(["--target", self.machine.msvc_triple()])
            .args(["--config", "source.crates-io.replace-with='vendored'"])
            .args(["--config", &format!("source.vendored.directory='{vendor}'")])
            .args(["--config", &format!("profile.release.opt-level={level}")])
            .args(["--config", "profile.release.debug=true"])
            .args(["--config", "profile.release.codegen-units=1"]);
        cargo
    }

    fn package(&self) -> PathBuf {
        self.out.join("package")
    }

    /// Compiles the crate and all that it needs to [`library`].
    ///
    /// # Errors
    /// Cargo fails: its output is part of the error.
    pub(crate) fn make_library(
        &self,
        rust: &Rust,
        version: &Version,
        fixtures: &Path,
    ) -> Result<()> {
        let package = self.package();
        fs::create_dir_all(package.join("src"))?;
        let mut manifest = sources::manifest(&version.package, &version.version, &rust.pins);
        manifest.push_str("\n[lib]\nname = \"corpus\"\ncrate-type = [\"staticlib\"]\n");
        fs::write(package.join("Cargo.toml"), manifest)?;
        let source = fixtures.join(&rust.source);
        fs::copy(&source, package.join("src/lib.rs"))
            .with_context(|| format!("cannot copy {}", source.display()))?;
        run::captured(&mut self.cargo(rust))?;
        let made = format!("target/{}/release/corpus.lib", self.machine.msvc_triple());
        let library = self.out.join(library());
        fs::rename(package.join(&made), &library)
            .with_context(|| format!("cargo left no {made}"))?;
        fs::remove_dir_all(package)?;
        Ok(())
    }
}
