//! `cargo xtask ci`: everything that must hold before a change goes in, in the order in which
//! failures are cheapest to find.

use std::process::Command;
use std::time::Instant;

use anyhow::Result;

use crate::{accuracy, deny, fixtures, run, tidy, toolchain, wine};

/// Runs every check; the first failure ends the run.
///
/// # Errors
/// A check fails.
pub(crate) fn run() -> Result<()> {
    type Check = fn() -> Result<()>;
    let steps: [(&str, Check); 12] = [
        ("tools that tests use as oracles", toolchain::tools),
        ("cargo fmt --check", format),
        (
            "tidy: rules of the house that no other tool knows",
            tidy::run,
        ),
        ("dependencies: licences and sources", deny::run),
        ("prebuilt fixtures are what their sources give", || {
            fixtures::run(&fixtures::Arguments::check())
        }),
        ("cargo clippy, warnings denied", clippy),
        ("cargo doc, warnings denied", document),
        ("cargo test --workspace", || test(&[])),
        (
            "the oracle, against what is written of the fixtures",
            || accuracy::run(&accuracy::Arguments::oracle()),
        ),
        ("seeded edits at -O2, against the oracle", || {
            accuracy::run(&accuracy::Arguments::ci())
        }),
        ("random edits, against the oracle", || {
            accuracy::run(&accuracy::Arguments::random())
        }),
        ("patches below Wine's loader", wine::run),
    ];
    for (name, check) in steps {
        run::step(name);
        let start = Instant::now();
        check()?;
        eprintln!("    {name}: {:.0} s", start.elapsed().as_secs_f64());
    }
    Ok(())
}

/// Runs the tests of the whole workspace.
///
/// # Errors
/// A test fails or does not compile.
pub(crate) fn test(arguments: &[String]) -> Result<()> {
    run::checked(cargo().args(["test", "--workspace"]).args(arguments))
}

/// Runs the tests so that they write what they find in place of comparing it.
///
/// # Errors
/// A test fails for another reason than its expected text.
pub(crate) fn bless(arguments: &[String]) -> Result<()> {
    run::checked(
        cargo()
            .env("HPBUILD_BLESS", "1")
            .args(["test", "--workspace"])
            .args(arguments),
    )?;
    eprintln!("review what changed: git diff");
    Ok(())
}

fn format() -> Result<()> {
    run::checked(cargo().args(["fmt", "--all", "--check"]))
}

fn clippy() -> Result<()> {
    run::checked(cargo().args([
        "clippy",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ]))
}

fn document() -> Result<()> {
    run::checked(cargo().env("RUSTDOCFLAGS", "-D warnings").args([
        "doc",
        "--workspace",
        "--no-deps",
        "--document-private-items",
    ]))
}

fn cargo() -> Command {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(run::root());
    cargo
}
