//! `cargo xtask corpus`: real code in pairs, fetched and built into the ignored folder `corpus/`.
//!
//! Results lie in `corpus/built/PROJECT/OPTIMISATION/MACHINE/{base,fixed}/`.

mod build;
mod compared;
pub(crate) mod proof;
pub(crate) mod recipe;
mod released;
mod rust;
mod sources;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::compile::Sections;
use crate::recipe::Machine;
use crate::run;
use crate::toolchain::Toolchain;
use crate::ways::{Linked, Way};
use build::Side;
pub(crate) use build::{MAP, ORDER};
use proof::Profile;
use recipe::{Corpus, Project};

/// What can be asked of this chore.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Projects to fetch and build; all of them where none is named
    #[arg(value_name = "PROJECT")]
    projects: Vec<String>,
    /// Only this level of optimisation, such as O2
    #[arg(long, value_name = "LEVEL")]
    optimisation: Option<String>,
    /// Fetch released binaries by the package clients and compare the pairs among them; build nothing
    #[arg(long)]
    released: bool,
    /// Build only; do not take the zlib pair through diff, build and test
    #[arg(long)]
    no_proof: bool,
}

/// One pair of builds.
pub(crate) struct Pair {
    /// The project.
    pub(crate) project: String,
    /// Level of optimisation.
    pub(crate) optimisation: String,
    /// What both are built for.
    pub(crate) machine: Machine,
    /// Folder that holds `base` and `fixed`.
    pub(crate) folder: PathBuf,
}

const MACHINES: [Machine; 2] = [Machine::X64, Machine::Arm64];

impl Pair {
    fn of(project: &Project, optimisation: &str, machine: Machine) -> Pair {
        Pair {
            project: project.name.clone(),
            optimisation: optimisation.to_owned(),
            machine,
            folder: folder()
                .join("built")
                .join(&project.name)
                .join(optimisation)
                .join(machine.folder()),
        }
    }

    /// The pair in a few words.
    pub(crate) fn title(&self) -> String {
        let machine = self.machine.folder();
        format!("{} {} {machine}", self.project, self.optimisation)
    }

    /// Whether both sides are there.
    pub(crate) fn is_built(&self) -> bool {
        let sides = ["base", "fixed"];
        sides.iter().all(|side| self.image(side).exists())
    }

    /// The exact versions of the tools that made both images.
    ///
    /// # Errors
    /// The note that a build leaves cannot be read.
    pub(crate) fn made_by(&self) -> Result<Vec<String>> {
        build::made_by(&self.folder.join("fixed"))
    }

    /// The image of one side, `base` or `fixed`.
    pub(crate) fn image(&self, side: &str) -> PathBuf {
        self.folder.join(side).join(format!("{}.dll", self.project))
    }
}

/// Fetches and builds what was asked for.
///
/// # Errors
/// A project is not known, a fetch or a build fails, or a check of the results does.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let fixtures = run::root().join("fixtures");
    if arguments.released {
        return released::fetch(
            &fixtures.join("corpus/released.toml"),
            &folder().join("released"),
        );
    }
    let corpus = Corpus::read(&fixtures.join("corpus/recipes.toml"))?;
    let wanted = |project: &&Project| {
        arguments.projects.is_empty() || arguments.projects.contains(&project.name)
    };
    for name in &arguments.projects {
        if !corpus.project.iter().any(|project| project.name == *name) {
            let known: Vec<&str> = corpus.project.iter().map(|it| it.name.as_str()).collect();
            bail!("no project `{name}`\nhint: there are {}", known.join(", "));
        }
    }
    let tools = Toolchain::find()?;
    let mut pairs = Vec::new();
    for project in corpus.project.iter().filter(wanted) {
        for optimisation in &corpus.optimisations {
            if arguments
                .optimisation
                .as_ref()
                .is_none_or(|only| only == optimisation)
            {
                pairs.extend(build_pairs(
                    &corpus,
                    project,
                    optimisation,
                    &tools,
                    &fixtures,
                )?);
            }
        }
    }
    let mut provable = pairs
        .iter()
        .filter(|it| it.project == proof::PROJECT)
        .peekable();
    if !arguments.no_proof && provable.peek().is_some() {
        Profile::Release.compile()?;
        for pair in provable {
            proof::prove(pair)?;
        }
    }
    for pair in &pairs {
        println!("{}", pair.folder.display());
    }
    Ok(())
}

/// Every pair that there could be, in the order of the recipe.
///
/// # Errors
/// The recipe cannot be read.
pub(crate) fn pairs() -> Result<Vec<Pair>> {
    let corpus = Corpus::read(&run::root().join("fixtures/corpus/recipes.toml"))?;
    let mut pairs = Vec::new();
    for project in &corpus.project {
        for optimisation in &corpus.optimisations {
            for machine in MACHINES {
                pairs.push(Pair::of(project, optimisation, machine));
            }
        }
    }
    Ok(pairs)
}

/// What the images of built pairs can be made from once more.
pub(crate) struct Again {
    corpus: Corpus,
}

impl Again {
    /// Reads the recipe.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) fn read() -> Result<Again> {
        let corpus = Corpus::read(&run::root().join("fixtures/corpus/recipes.toml"))?;
        Ok(Again { corpus })
    }

    /// How to fold a pair; nothing for one of Rust. The linker drops the debug records of a static
    /// function that it folds, and with them the only name that Rust's have: one that is gone is
    /// rightly called removed.
    pub(crate) fn folded(&self, pair: &Pair) -> Option<Way> {
        let project = self.project(pair).ok()?;
        let folded = Way::folded(&self.corpus.link);
        project.rust.is_none().then_some(folded)
    }

    /// The ways in which the base of a pair may be linked, all meaning the same.
    pub(crate) fn ways(&self, pair: &Pair) -> Vec<Way> {
        let mut ways = Way::all(&self.corpus.link);
        ways.retain(|way| way.name != "folded" || self.folded(pair).is_some());
        ways
    }

    /// Links one side, `base` or `fixed`, from the objects that are there.
    ///
    /// # Errors
    /// The pair is of no project, or the linker fails.
    pub(crate) fn link(
        &self,
        pair: &Pair,
        side: &str,
        way: &Way,
        tools: &Toolchain,
    ) -> Result<Linked> {
        let side = self.side(pair, Path::new(""), pair.folder.join(side))?;
        side.link_again(tools, way)
    }

    /// Whether a pair is compared as objects make it, too, that hold all data of a kind in one
    /// section. What such an object has of Rust comes from elsewhere.
    pub(crate) fn is_shared(&self, pair: &Pair) -> bool {
        self.project(pair).is_ok_and(|it| it.rust.is_none())
    }

    /// Compiles and links one side, `base` or `fixed`, so that its objects hold all data of a kind in
    /// one section, in a folder of its own.
    ///
    /// # Errors
    /// A tool fails.
    pub(crate) fn share(&self, pair: &Pair, side: &str, tools: &Toolchain) -> Result<Linked> {
        let project = self.project(pair)?;
        let version = match side {
            "base" => &project.base,
            _ => &project.fixed,
        };
        let sources = sources::prepare(version, &BTreeMap::new(), &folder())?;
        let out = pair.folder.join(format!("{side}-shared"));
        let side = Side {
            sections: Sections::Shared,
            version,
            ..self.side(pair, &sources, out)?
        };
        side.build(tools, &run::root().join("fixtures"))?;
        Ok(Linked {
            image: side.out.join(format!("{}.dll", pair.project)),
            map: side.out.join(MAP),
        })
    }

    /// Whether the recipe asks for more ways than those in which pairs are compared.
    pub(crate) fn is_relinked(&self, pair: &Pair) -> bool {
        let first = self.corpus.optimisations.first();
        self.project(pair).is_ok_and(|it| it.relink) && first == Some(&pair.optimisation)
    }

    /// Compiles and links the base of a pair once more, in a folder of its own.
    ///
    /// # Errors
    /// A tool fails.
    pub(crate) fn rebuild(&self, pair: &Pair, tools: &Toolchain) -> Result<PathBuf> {
        let project = self.project(pair)?;
        let none = BTreeMap::new();
        let pins = project.rust.as_ref().map_or(&none, |it| &it.pins);
        let sources = sources::prepare(&project.base, pins, &folder())?;
        let side = self.side(pair, &sources, pair.folder.join("rebuilt"))?;
        side.build(tools, &run::root().join("fixtures"))?;
        Ok(side.out.join(format!("{}.dll", pair.project)))
    }

    fn project(&self, pair: &Pair) -> Result<&Project> {
        let mut projects = self.corpus.project.iter();
        let project = projects.find(|it| it.name == pair.project);
        project.context("a pair of no project")
    }

    fn side<'a>(&'a self, pair: &'a Pair, sources: &'a Path, out: PathBuf) -> Result<Side<'a>> {
        let project = self.project(pair)?;
        Ok(Side {
            corpus: &self.corpus,
            project,
            version: &project.base,
            sources,
            optimisation: &pair.optimisation,
            machine: pair.machine,
            sections: Sections::Own,
            out,
        })
    }
}

/// Where everything that is fetched and built goes.
pub(crate) fn folder() -> PathBuf {
    run::root().join("corpus")
}

fn build_pairs(
    corpus: &Corpus,
    project: &Project,
    optimisation: &str,
    tools: &Toolchain,
    fixtures: &Path,
) -> Result<Vec<Pair>> {
    let mut pairs = Vec::new();
    for machine in MACHINES {
        let pair = Pair::of(project, optimisation, machine);
        let lacks = project.rust.as_ref().and_then(|_| rust::lacks(machine));
        if let Some(lacks) = lacks {
            println!("skipped: {}: {lacks}", pair.title());
            continue;
        }
        for (side, version) in [("base", &project.base), ("fixed", &project.fixed)] {
            let none = BTreeMap::new();
            let pins = project.rust.as_ref().map_or(&none, |it| &it.pins);
            let sources = sources::prepare(version, pins, &folder())?;
            let side = Side {
                corpus,
                project,
                version,
                sources: &sources,
                optimisation,
                machine,
                sections: Sections::Own,
                out: pair.folder.join(side),
            };
            side.build(tools, fixtures)
                .with_context(|| format!("cannot build {}", side.out.display()))?;
        }
        pairs.push(pair);
    }
    Ok(pairs)
}
