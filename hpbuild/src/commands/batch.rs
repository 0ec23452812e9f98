//! `hpbuild batch`: whole trees of pairs.
//!
//! `plan` finds the pairs, `exec` compares one shard of them, on any machine, and `merge` makes one
//! report of all results. Without a subcommand all three happen in one go. What is wrong with one
//! file is reported and leaves the others alone.

mod exec;
mod merge;
mod merged;
mod plan;

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::cli::{ReportFormat, SymbolArguments};
use crate::failure::{Failure, Outcome};
use exec::Shard;
use plan::Plan;

#[derive(Clone, Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct BatchArguments {
    #[command(subcommand)]
    step: Option<Step>,

    #[command(flatten)]
    trees: Option<TreeArguments>,

    #[command(flatten)]
    compare: CompareArguments,

    /// Keep what each pair gave in this folder
    #[arg(long, value_name = "DIR")]
    results: Option<PathBuf>,

    #[command(flatten)]
    report: MergedArguments,
}

#[derive(Clone, Debug, Subcommand)]
enum Step {
    /// Find the pairs
    Plan {
        #[command(flatten)]
        trees: TreeArguments,

        /// Where to write the plan (JSON)
        #[arg(short, long, value_name = "PLAN")]
        output: PathBuf,
    },
    /// Compare the pairs of a plan, or a share of them
    Exec(ExecArguments),
    /// Make one report of the results
    Merge {
        /// The plan whose pairs were compared
        plan: PathBuf,

        /// The folders with the results
        #[arg(required = true)]
        results: Vec<PathBuf>,

        #[command(flatten)]
        report: MergedArguments,
    },
}

/// The two trees. A pair is a PE image of one relative path in both.
#[derive(Clone, Debug, Args)]
struct TreeArguments {
    /// The tree of the builds that are running everywhere
    base: PathBuf,

    /// The tree of the same builds with the fix
    fixed: PathBuf,
}

#[derive(Clone, Debug, Args)]
struct ExecArguments {
    /// The plan
    plan: PathBuf,

    /// Where to put what each pair gave (a folder)
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,

    /// Compare every N-th pair of the plan only, from the K-th on; K counts from 1
    #[arg(long, value_name = "K/N", default_value = "1/1")]
    shard: Shard,

    /// The tree of the bases on this machine, in place of the plan's
    #[arg(long, value_name = "DIR")]
    base: Option<PathBuf>,

    /// The tree of the fixed builds on this machine, in place of the plan's
    #[arg(long, value_name = "DIR")]
    fixed: Option<PathBuf>,

    #[command(flatten)]
    compare: CompareArguments,
}

/// How each pair is compared.
#[derive(Clone, Debug, Args)]
struct CompareArguments {
    #[command(flatten)]
    symbols: SymbolArguments,

    /// Allow the findings this policy names (TOML)
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,

    /// Count functions in which only numbers of source lines changed as changed
    #[arg(long)]
    with_line_numbers: bool,

    /// Name source files below this folder of the build machine relative to it (sarif)
    #[arg(long, value_name = "DIR")]
    source_root: Option<String>,

    /// Hold this many pairs in memory at a time; each uses all threads
    #[arg(long, value_name = "N", default_value = "2")]
    pairs: NonZeroUsize,
}

#[derive(Clone, Debug, Args)]
struct MergedArguments {
    /// The form of the report
    #[arg(long, value_enum, default_value_t = ReportFormat::Text)]
    format: ReportFormat,

    /// Write the report to this file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(crate) fn run(arguments: &BatchArguments) -> Result<Outcome, Failure> {
    match &arguments.step {
        Some(Step::Plan { trees, output }) => {
            let plan = plan::find(&trees.base, &trees.fixed)?;
            plan.write(output)?;
            crate::output::print(&plan.summary())?;
            Ok(Outcome::Done)
        }
        Some(Step::Exec(arguments)) => exec::run(arguments),
        Some(Step::Merge {
            plan,
            results,
            report,
        }) => merge::run(&Plan::read(plan)?, results, report),
        None => all(arguments),
    }
}

/// Everything in one go.
fn all(arguments: &BatchArguments) -> Result<Outcome, Failure> {
    let trees = arguments.trees.as_ref();
    let trees = trees.ok_or_else(|| Failure::new("batch: expected two folders"))?;
    let plan = plan::find(&trees.base, &trees.fixed)?;
    let temporary = tempfile::tempdir()
        .map_err(|error| Failure::new(format!("folder for temporary files: {error}")))?;
    let results = match &arguments.results {
        Some(results) => results.as_path(),
        None => temporary.path(),
    };
    let shard = Shard::ALL;
    exec::compare(&plan, results, shard, &arguments.compare)?;
    let results = results.to_owned();
    merge::run(&plan, &[results], &arguments.report)
}
