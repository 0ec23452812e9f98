//! Random edits of random programs, held against the oracle: what nobody thought of.
//!
//! The seeded pairs hold edits that a person thought of. Here a program is written by a grammar
//! (`grammar.txt`) and edited without a thought of what comes of it, built for any machine, at any
//! level and with any flags, and the oracle says what changed. An edit that the compiler takes away
//! is no loss: then both sides must be found the same. A pair in which the differ disagrees with
//! the oracle is reduced to what the disagreement needs, and kept.

mod dice;
mod edit;
mod generate;
mod grammar;
mod program;
mod reduce;
mod render;
mod trial;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::Arguments;
use super::totals::Totals;
use crate::run;
use crate::toolchain::Toolchain;
use dice::Dice;
use grammar::Grammar;
use program::Program;
use trial::{Outcome, Setting};

/// Where pairs are kept, below the root of the repository.
const KEPT: &str = "target/random";

/// How often an edit that does not compile is replaced by another one.
const ATTEMPTS: usize = 8;

/// How long one pair is reduced.
const REDUCING: Duration = Duration::from_secs(240);

/// A pair, and how it came about.
struct Pair {
    setting: Setting,
    base: Program,
    fixed: Program,
    edits: Vec<String>,
}

/// Makes and compares so many pairs, one of each seed from the first one on.
///
/// # Errors
/// A tool is missing, or files cannot be written.
pub(super) fn compare(arguments: &Arguments, count: u64, totals: &mut Totals) -> Result<()> {
    let tools = Toolchain::find()?;
    let grammar = Grammar::read()?;
    let mut refused = 0;
    for seed in arguments.seed..arguments.seed.saturating_add(count) {
        let Some((pair, found)) = pair(arguments, &tools, &grammar, seed, &mut refused)? else {
            println!("random {seed}: nothing that compiles");
            continue;
        };
        totals.add(&found);
        if found.findings().len() == 0 {
            continue;
        }
        let folder = run::root().join(KEPT).join(seed.to_string());
        println!(
            "random {seed}: {}: {}",
            pair.setting.says(),
            pair.edits.join("; ")
        );
        keep(&tools, arguments, &pair, &folder.join("whole"), &found)?;
        for line in found.findings() {
            println!("random {seed}{line}");
        }
        if !arguments.whole {
            reduced(&tools, arguments, pair, &found, &folder)?;
        }
    }
    println!("{refused} programs and edits that did not compile");
    Ok(())
}

/// The pair of a seed, and what was found.
fn pair(
    arguments: &Arguments,
    tools: &Toolchain,
    grammar: &Grammar,
    seed: u64,
    refused: &mut usize,
) -> Result<Option<(Pair, Box<Totals>)>> {
    let mut dice = Dice::new(seed);
    let setting = Setting::new(&mut dice);
    for _ in 0..ATTEMPTS {
        let base = generate::program(grammar, &mut dice);
        for attempt in 0..ATTEMPTS {
            let mut fixed = base.clone();
            let mut edits: Vec<String> = edit::rename_once(&mut fixed, &mut dice)
                .into_iter()
                .collect();
            let least = usize::from(!dice.chance(5));
            let count = if edits.is_empty() {
                dice.between(least, 3)
            } else {
                1
            };
            while edits.len() < count {
                let mut edited = fixed.clone();
                if let Some(says) = edit::edit(grammar, &mut edited, &mut dice) {
                    edits.push(says);
                    fixed = edited;
                }
            }
            match setting.try_out(tools, arguments, (&base, &fixed), None)? {
                Outcome::Judged(found) => {
                    let pair = Pair {
                        setting,
                        base,
                        fixed,
                        edits,
                    };
                    return Ok(Some((pair, found)));
                }
                Outcome::Refused(why) => {
                    *refused += 1;
                    if arguments.explain {
                        let why: Vec<&str> = why.lines().skip(1).take(12).collect();
                        println!("random {seed}: {}\n{}", edits.join("; "), why.join("\n"));
                    }
                    // The base itself may be what does not compile.
                    if attempt == 0 && is_refused(arguments, tools, &setting, &base)? {
                        break;
                    }
                }
            }
        }
    }
    Ok(None)
}

fn is_refused(
    arguments: &Arguments,
    tools: &Toolchain,
    setting: &Setting,
    base: &Program,
) -> Result<bool> {
    let outcome = setting.try_out(tools, arguments, (base, base), None)?;
    Ok(matches!(outcome, Outcome::Refused(_)))
}

/// Takes out what the worst disagreement of the pair does not need.
fn reduced(
    tools: &Toolchain,
    arguments: &Arguments,
    mut pair: Pair,
    found: &Totals,
    folder: &Path,
) -> Result<()> {
    let Some(worst) = found.worst() else {
        return Ok(());
    };
    let start = Instant::now();
    let setting = pair.setting.clone();
    let holds = |one: &Program, other: &Program| -> Result<Option<bool>> {
        if start.elapsed() > REDUCING {
            return Ok(None);
        }
        let outcome = setting.try_out(tools, arguments, (one, other), None)?;
        Ok(Some(match outcome {
            Outcome::Refused(_) => false,
            Outcome::Judged(found) => found.worst() == Some(worst),
        }))
    };
    reduce::reduce(&mut pair.base, &mut pair.fixed, holds)?;
    let outcome = pair
        .setting
        .try_out(tools, arguments, (&pair.base, &pair.fixed), None)?;
    if let Outcome::Judged(found) = outcome {
        keep(tools, arguments, &pair, &folder.join("reduced"), &found)?;
        println!("    reduced in {}", folder.display());
    }
    Ok(())
}

fn keep(
    tools: &Toolchain,
    arguments: &Arguments,
    pair: &Pair,
    folder: &Path,
    found: &Totals,
) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::create_dir_all(folder)?;
    pair.setting
        .try_out(tools, arguments, (&pair.base, &pair.fixed), Some(folder))?;
    let mut text = format!("{}\n{}\n\n", pair.setting.says(), pair.edits.join("\n"));
    for line in found.findings().chain(found.notes()) {
        text.push_str(line);
        text.push('\n');
    }
    fs::write(folder.join("findings.txt"), text)?;
    Ok(())
}
