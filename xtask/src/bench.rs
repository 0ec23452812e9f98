//! `cargo xtask bench`: how fast `hpbuild diff` is and how much memory it takes, beside the
//! floors it is held against, in one run.
//!
//! Every number is the best of several runs, and the programs that are compared take turns: what
//! else the machine does then hits all of them. Nothing here fails for being slow; what misses
//! its goal is printed, and `docs/performance.md` says what bounds it.

mod measure;
mod pairs;
mod synthetic;

use std::process::Command;

use anyhow::Result;

use crate::run;
use measure::{Measured, Programs};
use pairs::Pair;

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Pairs to measure: demo, built, released, synthetic; all by default
    pairs: Vec<String>,
    /// Runs of each program; the best one counts
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Threads, where more than one is measured
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Functions of the synthetic pair
    #[arg(long, default_value_t = 200_000)]
    functions: u32,
}

/// A pair counts against the goals when the program's own start does not drown its numbers.
const SMALLEST_THAT_COUNTS: u64 = 1 << 20;

/// Builds what is measured, measures, prints a table.
///
/// # Errors
/// Something cannot be built, or a program fails.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let programs = build()?;
    let pairs = pairs::find(&arguments.pairs, arguments.functions)?;
    for pair in &pairs {
        run::step(&format!("{}: {}", pair.name, pair.base.display()));
        let measured = measure::measure(&programs, pair, arguments.jobs, arguments.runs)?;
        print(pair, &measured, arguments.jobs);
    }
    Ok(())
}

fn build() -> Result<Programs> {
    run::step("build with optimisation");
    let mut cargo = Command::new("cargo");
    cargo.current_dir(run::root()).args([
        "build",
        "--quiet",
        "--profile=dist",
        "--package=hpbuild",
        "--package=hpbuild-differ",
        "--bin=hpbuild",
        "--example=decode_text",
    ]);
    run::checked(&mut cargo)?;
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| run::root().join("target"), Into::into)
        .join("dist");
    Ok(Programs {
        hpbuild: target.join("hpbuild"),
        floor: target.join("examples").join("decode_text"),
        objdump: measure::objdump(),
    })
}

fn print(pair: &Pair, measured: &Measured, jobs: usize) {
    let inputs = pair.size();
    let mega = |bytes: u64| bytes as f64 / 1e6;
    println!();
    println!(
        "{}: {} functions in both, {:.1} MB of code, {:.1} MB of inputs",
        pair.name,
        measured.functions,
        mega(measured.code),
        mega(inputs),
    );
    let counts = measured.code >= SMALLEST_THAT_COUNTS;
    let row = |what: &str, value: String| println!("    {what:<44}{value:>12}");
    let goal = |what: &str, value: f64, unit: &str, at_most: bool, limit: f64| {
        let met = if at_most {
            value <= limit
        } else {
            value >= limit
        };
        let word = match (counts, met) {
            (false, _) => "too small to count",
            (true, true) => "met",
            (true, false) => "MISSED",
        };
        let relation = if at_most { "at most" } else { "at least" };
        let value = format!("{value:.1} {unit}");
        println!("    {what:<44}{value:>12}    goal: {relation} {limit:.1}, {word}");
    };
    let ms = |seconds: f64| format!("{:.1} ms", seconds * 1e3);
    row(
        &format!("hpbuild diff, {jobs} threads"),
        ms(measured.diff_many),
    );
    for (stage, seconds) in &measured.stages {
        row(&format!("    {stage}"), ms(*seconds));
    }
    row("hpbuild diff, 1 thread", ms(measured.diff_one));
    row(
        "throughput of the whole diff",
        format!("{:.1} MB/s", mega(measured.code) / measured.diff_many),
    );
    if let Some(floor) = measured.floor {
        row(&format!("iced-x86, {jobs} threads"), ms(floor));
    }
    if let Some(objdump) = measured.objdump {
        row("llvm-objdump -d, both sides", ms(objdump));
    }
    if let Some(floor) = measured.floor {
        let factor = measured.diff_many / floor;
        goal("diff / iced-x86", factor, "x", true, 3.0);
    }
    if let Some(objdump) = measured.objdump {
        let factor = objdump / measured.diff_many;
        goal("llvm-objdump / diff", factor, "x", false, 20.0);
    }
    let factor = measured.diff_one / measured.diff_many;
    goal(
        &format!("1 thread / {jobs} threads"),
        factor,
        "x",
        false,
        1.7,
    );
    match measured.peak {
        Some(peak) => {
            let limit = mega(inputs + 200 * measured.functions);
            goal("peak memory", mega(peak), "MB", true, limit);
        }
        None => row("peak memory", "not known".to_owned()),
    }
}
