//! Running the programs in turns and keeping the best of each.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::pairs::Pair;
use crate::run;

/// Disassembling everything takes long and its time is far from the goal: fewer runs do.
const OBJDUMP_RUNS: usize = 2;

/// The programs that are compared.
pub(super) struct Programs {
    pub(super) hpbuild: PathBuf,
    pub(super) floor: PathBuf,
    /// Where one is installed.
    pub(super) objdump: Option<String>,
}

/// What was found of one pair; times in seconds.
#[derive(Default)]
pub(super) struct Measured {
    /// Functions that are in both images.
    pub(super) functions: u64,
    /// Bytes of code of both images.
    pub(super) code: u64,
    pub(super) diff_many: f64,
    pub(super) diff_one: f64,
    /// The stages of the best run.
    pub(super) stages: Vec<(String, f64)>,
    /// Only for x64.
    pub(super) floor: Option<f64>,
    pub(super) objdump: Option<f64>,
    /// Bytes; the most of all runs.
    pub(super) peak: Option<u64>,
}

/// The first `llvm-objdump` that starts.
pub(super) fn objdump() -> Option<String> {
    let names = ["llvm-objdump-22", "llvm-objdump-19", "llvm-objdump"];
    let starts = |name: &&str| Command::new(name).arg("--version").output().is_ok();
    let found = names.into_iter().find(starts);
    if found.is_none() {
        eprintln!("llvm-objdump is not installed: not compared with");
    }
    found.map(str::to_owned)
}

/// Measures one pair.
///
/// # Errors
/// A program fails.
pub(super) fn measure(
    programs: &Programs,
    pair: &Pair,
    jobs: usize,
    runs: usize,
) -> Result<Measured> {
    let report = report(programs, pair)?;
    let functions = &report["functions"];
    let count = |list: &str| functions[list].as_array().map_or(0, Vec::len) as u64;
    let mut measured = Measured {
        functions: functions["same"].as_u64().unwrap_or(0) + count("changed"),
        diff_many: f64::INFINITY,
        diff_one: f64::INFINITY,
        ..Measured::default()
    };
    for turn in 0..runs.max(1) {
        let many = diff(programs, pair, jobs)?;
        measured.peak = measured.peak.max(many.peak);
        if many.seconds < measured.diff_many {
            measured.diff_many = many.seconds;
            measured.stages = many.stages;
        }
        let one = diff(programs, pair, 1)?;
        measured.diff_one = measured.diff_one.min(one.seconds);
        if pair.is_x64 {
            let (seconds, code) = floor(programs, pair, jobs)?;
            measured.floor = Some(measured.floor.map_or(seconds, |best| best.min(seconds)));
            measured.code = code;
        }
        if let Some(name) = programs.objdump.as_deref().filter(|_| turn < OBJDUMP_RUNS) {
            let seconds = disassemble(name, pair)?;
            measured.objdump = Some(measured.objdump.map_or(seconds, |best| best.min(seconds)));
        }
    }
    Ok(measured)
}

fn report(programs: &Programs, pair: &Pair) -> Result<Value> {
    let mut command = Command::new(&programs.hpbuild);
    command.arg("diff").args([&pair.base, &pair.fixed]);
    let output = command.args(["--format", "json"]).output()?;
    serde_json::from_slice(&output.stdout).with_context(|| {
        let errors = String::from_utf8_lossy(&output.stderr);
        format!("`{}` gave no report\n{errors}", run::shown(&command))
    })
}

struct Diff {
    seconds: f64,
    stages: Vec<(String, f64)>,
    peak: Option<u64>,
}

fn diff(programs: &Programs, pair: &Pair, jobs: usize) -> Result<Diff> {
    let mut command = Command::new(&programs.hpbuild);
    command.arg("diff").args([&pair.base, &pair.fixed]);
    command.arg("--time").arg("--jobs").arg(jobs.to_string());
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    let start = Instant::now();
    let output = command.output()?;
    let seconds = start.elapsed().as_secs_f64();
    let text = String::from_utf8_lossy(&output.stderr);
    if !matches!(output.status.code(), Some(0 | 1 | 3)) {
        bail!("`{}` failed\n{text}", run::shown(&command));
    }
    let mut stages = Vec::new();
    let mut peak = None;
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            [time, "ms", stage @ ..] => stages.push((stage.join(" "), time.parse::<f64>()? / 1e3)),
            [size, "MB", "peak", "memory"] => peak = Some((size.parse::<f64>()? * 1e6) as u64),
            _ => {}
        }
    }
    Ok(Diff {
        seconds,
        stages,
        peak,
    })
}

/// Seconds to decode, and the bytes of code that were decoded.
fn floor(programs: &Programs, pair: &Pair, jobs: usize) -> Result<(f64, u64)> {
    let mut command = Command::new(&programs.floor);
    command
        .arg(jobs.to_string())
        .args([&pair.base, &pair.fixed]);
    let start = Instant::now();
    let answer = run::captured(&mut command)?;
    let seconds = start.elapsed().as_secs_f64();
    let bytes = answer.split_whitespace().next().unwrap_or_default();
    Ok((
        seconds,
        bytes.parse().context("decode_text wrote no count")?,
    ))
}

/// Seconds for both sides, one after the other, as a script would do it.
fn disassemble(name: &str, pair: &Pair) -> Result<f64> {
    let start = Instant::now();
    for side in [&pair.base, &pair.fixed] {
        let mut command = Command::new(name);
        run::checked(command.arg("-d").arg(side).stdout(Stdio::null()))?;
    }
    Ok(start.elapsed().as_secs_f64())
}
