//! What can be typed.

use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use hpbuild_differ::{Input, SymbolPaths};

use crate::commands::batch::BatchArguments;
use crate::commands::keygen::KeygenArguments;
use crate::commands::package::PackageArguments;
use crate::commands::release::ReleaseAllArguments;
use crate::commands::sign::SignArguments;
use crate::commands::verify::VerifyArguments;

/// Builds Windows hotpatches from two builds of one binary.
///
/// Exit codes: 0 done, 1 refused, 2 error, 3 nothing changed, 4 checked in part.
#[derive(Debug, Parser)]
#[command(name = "hpbuild", version, max_term_width = 100)]
pub(crate) struct Cli {
    /// Use this many threads, but no more than four for each processor; the output does not depend on
    /// it
    #[arg(long, global = true, value_name = "N")]
    pub(crate) jobs: Option<NonZeroUsize>,

    /// Whether reports are coloured
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto, value_name = "WHEN")]
    pub(crate) color: Color,

    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal, unless NO_COLOR is set
    Auto,
    /// Even in pipes
    Always,
    Never,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Say what changed between two builds, and whether it can be hotpatched
    Diff(DiffArguments),
    /// Make the patch image
    Build(BuildArguments),
    /// Say what an image, a patch image or a package holds
    Inspect(InspectArguments),
    /// Apply a patch to its base in-process and watch what changes
    Test(TestArguments),
    /// Compare whole trees of builds, on one machine or on many
    Batch(Box<BatchArguments>),
    /// Say what a rule means and what to do about it
    Explain(ExplainArguments),
    /// Sign an image or a cabinet (Authenticode)
    Sign(Box<SignArguments>),
    /// Check that a package, a cabinet or an image is what a trusted signer made
    Verify(VerifyArguments),
    /// Put patch images into one signed package
    Package(Box<PackageArguments>),
    /// Do the whole main job: diff, judge, build, sign, package and verify
    Release(Box<ReleaseAllArguments>),
    /// Make throw-away keys and certificates for trying things out
    Keygen(KeygenArguments),
    /// Show the main job on a pair that comes with the program
    Demo(DemoArguments),
    /// Run images for `test`, in a process that may crash
    #[command(hide = true)]
    RunImages {
        /// What to run
        job: PathBuf,
    },
}

/// The PDBs of the two builds.
#[derive(Clone, Debug, Args)]
pub(crate) struct PdbArguments {
    /// The PDB of the base
    #[arg(long, value_name = "FILE")]
    pub(crate) base_pdb: Option<PathBuf>,

    /// The PDB of the fixed build
    #[arg(long, value_name = "FILE")]
    pub(crate) fixed_pdb: Option<PathBuf>,
}

/// Where PDBs are looked for.
#[derive(Clone, Debug, Args)]
pub(crate) struct SymbolArguments {
    /// Look for PDBs in this folder, too: as files or as a symbol store (may be repeated)
    #[arg(long, value_name = "DIR")]
    pub(crate) symbols: Vec<PathBuf>,
}

impl SymbolArguments {
    pub(crate) fn paths(&self) -> SymbolPaths {
        let symbol_path = std::env::var("_NT_SYMBOL_PATH").ok();
        SymbolPaths::new(self.symbols.clone(), symbol_path.as_deref())
    }
}

/// The two builds.
#[derive(Clone, Debug, Args)]
pub(crate) struct PairArguments {
    /// The build that is running everywhere (PE file)
    pub(crate) base: PathBuf,

    /// The same build with the fix (PE file)
    pub(crate) fixed: PathBuf,

    #[command(flatten)]
    pub(crate) pdbs: PdbArguments,

    #[command(flatten)]
    pub(crate) symbols: SymbolArguments,

    /// Allow the findings this policy names (TOML)
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: Option<PathBuf>,
}

impl PairArguments {
    pub(crate) fn base(&self) -> Input {
        Input {
            pe: self.base.clone(),
            pdb: self.pdbs.base_pdb.clone(),
        }
    }

    pub(crate) fn fixed(&self) -> Input {
        Input {
            pe: self.fixed.clone(),
            pdb: self.pdbs.fixed_pdb.clone(),
        }
    }
}

/// How the result is given.
#[derive(Clone, Debug, Args)]
pub(crate) struct OutputArguments {
    /// The form of the report
    #[arg(long, value_enum, default_value_t = ReportFormat::Text)]
    pub(crate) format: ReportFormat,

    /// Name source files below this folder of the build machine relative to it (sarif)
    #[arg(long, value_name = "DIR")]
    pub(crate) source_root: Option<String>,

    /// Write the report to this file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,

    /// Print how long each stage took
    #[arg(long)]
    pub(crate) time: bool,

    /// Print no report, only errors
    #[arg(short, long, conflicts_with = "verbose")]
    pub(crate) quiet: bool,

    /// Print everything: all functions and whole diffs
    #[arg(short, long)]
    pub(crate) verbose: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Text,
    /// For programs
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReportFormat {
    /// For people
    Text,
    /// For programs
    Json,
    /// SARIF 2.1.0, for CI systems
    Sarif,
    /// One page for a browser
    Html,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct DiffArguments {
    #[command(flatten)]
    pub(crate) pair: PairArguments,

    /// Count functions in which only numbers of source lines changed as changed
    #[arg(long)]
    pub(crate) with_line_numbers: bool,

    #[command(flatten)]
    pub(crate) output: OutputArguments,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ExplainArguments {
    /// The rule, such as HP010; all rules where none is given
    pub(crate) code: Option<String>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct BuildArguments {
    #[command(flatten)]
    pub(crate) pair: PairArguments,

    /// Where to write the patch image
    #[arg(short, long, value_name = "PATCH")]
    pub(crate) output: PathBuf,

    /// What the report calls the output, where its path means nothing to the user.
    #[arg(skip)]
    pub(crate) shown: Option<PathBuf>,

    /// The patch image that this one replaces; everything it redirects has to be in the new one
    #[arg(long, value_name = "OLDER")]
    pub(crate) previous: Option<PathBuf>,

    /// Place of the patch in the order of patches over this base [default: 1, or one more than
    /// that of --previous]
    #[arg(long, value_name = "N")]
    pub(crate) sequence: Option<NonZeroU32>,

    /// Put functions into the patch in which only numbers of source lines changed
    #[arg(long)]
    pub(crate) with_line_numbers: bool,

    /// The form of the report
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(crate) format: Format,

    /// Print how long each stage took
    #[arg(long)]
    pub(crate) time: bool,

    /// Print no report, only errors
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct InspectArguments {
    /// The file (a base, a fixed image, a patch image or a package)
    pub(crate) file: PathBuf,

    /// The form of the report
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(crate) format: Format,

    /// Print every record
    #[arg(short, long)]
    pub(crate) verbose: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct TestArguments {
    /// The build that is running everywhere (PE file)
    pub(crate) base: PathBuf,

    /// The patch image
    pub(crate) patch: PathBuf,

    /// Calls to make and what must come of them (TOML)
    #[arg(long, value_name = "FILE")]
    pub(crate) scenario: Option<PathBuf>,

    /// Hold the patched base against this image (PE file)
    #[arg(long, value_name = "FIXED")]
    pub(crate) against: Option<PathBuf>,

    /// An older patch that is applied first and replaced by this one
    #[arg(long, value_name = "OLDER")]
    pub(crate) over: Option<PathBuf>,

    // Scenarios can name functions that are not exported.
    #[command(flatten)]
    pub(crate) pdbs: PdbArguments,

    #[command(flatten)]
    pub(crate) symbols: SymbolArguments,

    /// The form of the report
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(crate) format: Format,

    /// Print what every call did
    #[arg(short, long)]
    pub(crate) verbose: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct DemoArguments {
    /// Leave the files in this folder
    #[arg(short, long, value_name = "DIR", default_value = "hpbuild-demo")]
    pub(crate) output: PathBuf,
}
