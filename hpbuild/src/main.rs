//! The command line of hpbuild: arguments, rendering and exit codes. All work is done by the
//! library crates.
#![forbid(unsafe_code)]

mod cli;
mod commands;
mod failure;
mod input;
mod output;
mod render;

use std::num::NonZeroUsize;
use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Color, Command};
use failure::{Failure, Outcome};

/// As many threads for each processor as `--jobs` may ask for.
const MAX_THREADS_EACH: usize = 4;

fn main() -> ExitCode {
    silence_contained_panics();
    let cli = Cli::parse();
    match run(cli) {
        Ok(outcome) => ExitCode::from(outcome.code()),
        Err(failure) => {
            failure.print();
            ExitCode::from(Failure::CODE)
        }
    }
}

/// A panic that becomes an error is reported as that error and nothing else.
fn silence_contained_panics() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !hpbuild_differ::panic_is_contained() {
            print(panic);
        }
    }));
}

fn run(cli: Cli) -> Result<Outcome, Failure> {
    match cli.color {
        Color::Auto => {}
        Color::Always => anstream::ColorChoice::Always.write_global(),
        Color::Never => anstream::ColorChoice::Never.write_global(),
    }
    if let Some(jobs) = cli.jobs {
        // Threads without a processor look for work and find each other.
        let processors = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let threads = jobs.get().min(processors.saturating_mul(MAX_THREADS_EACH));
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build_global();
        pool.map_err(|error| Failure::new(format!("--jobs {jobs}: {error}")))?;
    }
    match cli.command {
        Command::Diff(arguments) => commands::diff::run(&arguments),
        Command::Build(arguments) => commands::build::run(&arguments),
        Command::Inspect(arguments) => commands::inspect::run(&arguments),
        Command::Test(arguments) => commands::test::run(&arguments),
        Command::Batch(arguments) => commands::batch::run(&arguments),
        Command::Explain(arguments) => commands::explain::run(&arguments),
        Command::Sign(arguments) => commands::sign::run(&arguments),
        Command::Verify(arguments) => commands::verify::run(&arguments),
        Command::Package(arguments) => commands::package::run(&arguments),
        Command::Release(arguments) => commands::release::run(&arguments),
        Command::Keygen(arguments) => commands::keygen::run(&arguments),
        Command::Demo(arguments) => commands::demo::run(&arguments),
        Command::RunImages { job } => Ok(Outcome::Child(hpbuild_harness::child_main(&job))),
    }
}
