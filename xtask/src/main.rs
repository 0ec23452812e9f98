//! Project chores: `cargo xtask --help`.
//!
//! Everything that is done to the repository by a machine starts here, on a developer's machine
//! and in CI alike. The product itself never depends on this crate.
#![forbid(unsafe_code)]

mod compile;
mod corpus;
mod fixtures;
mod header;
mod msf;
mod recipe;
mod run;
mod toolchain;

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
}

fn main() -> ExitCode {
    let done = match Arguments::parse().chore {
        Chore::Fixtures(arguments) => fixtures::run(&arguments),
        Chore::Corpus(arguments) => corpus::run(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
