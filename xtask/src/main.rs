//! Project chores: `cargo xtask --help`.
//!
//! Everything that is done to the repository by a machine starts here, on a developer's machine
//! and in CI alike. The product itself never depends on this crate.
#![forbid(unsafe_code)]

mod accuracy;
mod bench;
mod browser;
mod ci;
mod compile;
mod corpus;
mod deny;
mod fixtures;
mod fuzz;
mod header;
mod msf;
mod recipe;
mod run;
mod tidy;
mod toolchain;
mod ways;
mod wine;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    about = "Project chores"
)]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Rebuild the prebuilt fixture images from their sources
    Fixtures(fixtures::Arguments),
    /// Fetch and build pairs of real code into corpus/
    Corpus(corpus::Arguments),
    /// Hold `hpbuild diff` against the truth over fixtures and corpus
    Accuracy(accuracy::Arguments),
    /// Everything that must hold before a change goes in
    Ci,
    /// The rules of the house alone
    Tidy,
    /// Install the tools that tests use as oracles
    Tools,
    /// Licences and sources of the dependencies alone
    Deny,
    /// All tests; further arguments go to `cargo test`
    Test(Rest),
    /// Write the expected texts of the tests anew; review the difference
    Bless(Rest),
    /// Speed and memory of `hpbuild diff`, beside the floors it is held against
    Bench(bench::Arguments),
    /// Look at the HTML report in a real browser
    Browser(browser::Arguments),
    /// Apply the patches of the fixtures below Wine, and throw exceptions through them
    Wine,
    /// Run the fuzz targets for a while
    Fuzz(fuzz::Arguments),
}

/// Arguments for cargo.
#[derive(clap::Args)]
struct Rest {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

fn main() -> ExitCode {
    let done = match Arguments::parse().chore {
        Chore::Fixtures(arguments) => fixtures::run(&arguments),
        Chore::Corpus(arguments) => corpus::run(&arguments),
        Chore::Accuracy(arguments) => accuracy::run(&arguments),
        Chore::Ci => ci::run(),
        Chore::Tidy => tidy::run(),
        Chore::Tools => toolchain::tools(),
        Chore::Deny => deny::run(),
        Chore::Test(rest) => ci::test(&rest.arguments),
        Chore::Bless(rest) => ci::bless(&rest.arguments),
        Chore::Bench(arguments) => bench::run(&arguments),
        Chore::Browser(arguments) => browser::run(&arguments),
        Chore::Wine => wine::run(),
        Chore::Fuzz(arguments) => fuzz::run(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
