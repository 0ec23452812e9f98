//! The main job on real code: CVE-2022-37434 in zlib, found, patched and tried out.
//!
//! The steps are those of a patch author, by the same command line: `hpbuild diff`, `build` and
//! `test`. What must come out is known from the edit: exactly `inflate` differs.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::Pair;
use crate::recipe::Machine;
use crate::run;

/// The project this is about.
pub(crate) const PROJECT: &str = "zlib";

/// The one function that the mended condition is in.
const CHANGED: &str = "inflate";

/// Takes the pair through the whole pipeline.
///
/// # Errors
/// A step fails, or reports anything but the one change.
pub(crate) fn prove(pair: &Pair) -> Result<()> {
    let [base, fixed] = ["base", "fixed"].map(|side| pair.image(side));
    let what = format!("{PROJECT} -{} {}", pair.optimisation, pair.machine.folder());
    run::step(&format!("{what}: hpbuild diff"));
    let report = run::captured(
        hpbuild()
            .arg("diff")
            .args([&base, &fixed])
            .args(["--format", "json"]),
    )?;
    let report: Value = serde_json::from_str(&report).context("the report is not JSON")?;
    check(&report).with_context(|| format!("{what}: the report is wrong"))?;

    run::step(&format!("{what}: hpbuild build"));
    let patch = pair.folder.join("zlib_hotpatch.dll");
    run::captured(
        hpbuild()
            .arg("build")
            .args([&base, &fixed])
            .arg("-o")
            .arg(&patch),
    )?;
    run::captured(hpbuild().arg("inspect").arg(&patch))?;

    let scenario = run::root().join("fixtures/corpus/zlib-cve-2022-37434.toml");
    run::step(&format!("{what}: hpbuild test"));
    let mut test = hpbuild();
    test.arg("test").args([&base, &patch]);
    if runs_here(pair.machine) {
        test.arg("--scenario")
            .arg(&scenario)
            .arg("--against")
            .arg(&fixed);
    }
    println!("{}", run::captured(&mut test)?);
    Ok(())
}

/// Whether this host can execute the image; the harness applies patches to any.
fn runs_here(machine: Machine) -> bool {
    cfg!(target_arch = "x86_64") && machine == Machine::X64
}

fn check(report: &Value) -> Result<()> {
    let names = |kind: &str| -> Result<Vec<&str>> {
        let list = report["functions"][kind].as_array();
        let list = list.with_context(|| format!("no list functions.{kind}"))?;
        list.iter()
            .map(|it| {
                it["name"]
                    .as_str()
                    .with_context(|| format!("functions.{kind}: no name"))
            })
            .collect()
    };
    for (kind, expected) in [
        ("changed", &[CHANGED][..]),
        ("added", &[]),
        ("removed", &[]),
        ("unmatched", &[]),
    ] {
        let found = names(kind)?;
        if found != expected {
            bail!("functions.{kind}: expected {expected:?}, found {found:?}");
        }
    }
    let unknown = report["unknown"].as_array().context("no list `unknown`")?;
    if !unknown.is_empty() {
        bail!("unknown references: {unknown:?}");
    }
    match report["verdict"].as_str() {
        Some("hotpatchable") => Ok(()),
        other => bail!(
            "expected the verdict hotpatchable, found {other:?}: {}",
            report["refusals"]
        ),
    }
}

/// How the command line of this workspace is compiled.
#[derive(Clone, Copy)]
pub(crate) enum Profile {
    /// As users get it.
    Release,
    /// As developers compile it all day.
    Dev,
}

impl Profile {
    /// The program, as it is now.
    pub(crate) fn hpbuild(self) -> Command {
        let folder = match self {
            Profile::Release => "target/release",
            Profile::Dev => "target/debug",
        };
        let name = format!("hpbuild{}", std::env::consts::EXE_SUFFIX);
        Command::new(run::root().join(folder).join(name))
    }

    /// Builds it.
    ///
    /// # Errors
    /// It does not compile.
    pub(crate) fn compile(self) -> Result<()> {
        let mut cargo = Command::new("cargo");
        cargo
            .current_dir(run::root())
            .env("CARGO_TARGET_DIR", Path::new("target"));
        match self {
            Profile::Release => cargo.args(["build", "--package", "hpbuild", "--release"]),
            // With the features that `cargo test --workspace` selects, so that dependencies are
            // not compiled once more.
            Profile::Dev => {
                cargo.args(["build", "--workspace", "--bin", "hpbuild"]);
                cargo.args(["--test", "signing"])
            }
        };
        run::step(&run::shown(&cargo));
        run::checked(&mut cargo)
    }
}

/// The program that a patch author runs.
fn hpbuild() -> Command {
    Profile::Release.hpbuild()
}
