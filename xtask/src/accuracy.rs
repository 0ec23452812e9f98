//! `cargo xtask accuracy`: `hpbuild diff` held against the truth, over everything there is.
//!
//! Two truths. For the fixture pairs, what a person wrote down from the sources; for the corpus,
//! what the oracle finds in the object files that went into the images. The oracle itself is held
//! against the fixtures first: where it disagrees with a person, its word on the corpus is worth
//! nothing.

mod findings;
mod names;
mod places;
mod random;
mod report;
mod seeded;
mod totals;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use hpbuild_tests::oracle::{self, LinkerMap, ObjectFile, Program};
use serde::Deserialize;

use crate::compile::{Objects, Sections};
use crate::corpus::proof::Profile;
use crate::recipe::{Build, Machine, Recipes};
use crate::toolchain::Toolchain;
use crate::ways::Linked;
use crate::{corpus, run};
use findings::Pinned;
use places::Places;
use report::{Found, Names};
use totals::Totals;

/// How many random pairs continuous integration compares.
const RANDOM: u64 = 30;

/// What can be asked of this chore.
#[derive(clap::Args, Clone)]
pub(crate) struct Arguments {
    /// Only pairs whose name contains this text
    #[arg(value_name = "TEXT")]
    only: Option<String>,
    /// Only our own pairs: not the corpus, where it is built
    #[arg(long)]
    own: bool,
    /// Hold the oracle against the fixtures, and do not run hpbuild
    #[arg(long)]
    oracle_only: bool,
    /// Say of each changed function what differs first
    #[arg(long)]
    explain: bool,
    /// Ask the development build of hpbuild: slower, and compiled sooner
    #[arg(long)]
    dev: bool,
    /// Only so many random pairs, one of each seed; what disagrees is kept in target/random
    #[arg(long, value_name = "COUNT")]
    random: Option<u64>,
    /// The first seed of random pairs
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    seed: u64,
    /// Do not reduce random pairs that disagree
    #[arg(long)]
    whole: bool,
    /// Accept what is found to be hotpatchable or not on the corpus: fixtures/corpus/findings.toml
    #[arg(long)]
    bless: bool,
}

impl Arguments {
    /// What continuous integration asks for: one level, because all of them take ten minutes.
    pub(crate) fn ci() -> Self {
        Arguments {
            only: Some("O2".to_owned()),
            own: true,
            oracle_only: false,
            explain: false,
            dev: true,
            random: None,
            seed: 1,
            whole: false,
            bless: false,
        }
    }

    /// What it asks for of the oracle alone: what it says of the fixtures as they are built, which is
    /// written down.
    pub(crate) fn oracle() -> Self {
        Arguments {
            only: None,
            oracle_only: true,
            ..Arguments::ci()
        }
    }

    /// What it asks for of random pairs: about a minute of them.
    pub(crate) fn random() -> Self {
        Arguments {
            only: None,
            random: Some(RANDOM),
            ..Arguments::ci()
        }
    }

    const fn profile(&self) -> Profile {
        if self.dev {
            Profile::Dev
        } else {
            Profile::Release
        }
    }
}

/// Compares everything and prints the totals.
///
/// # Errors
/// Something cannot be read or run, or a truth and a finding differ.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    if !arguments.oracle_only {
        arguments.profile().compile()?;
    }
    let mut totals = Totals::default();
    if let Some(count) = arguments.random {
        random::compare(arguments, count, &mut totals)?;
        return finish(&totals);
    }
    fixtures(arguments, &mut totals)?;
    seeded::compare(arguments, &mut totals)?;
    if !arguments.own {
        built(arguments, &mut totals)?;
    }
    finish(&totals)
}

fn finish(totals: &Totals) -> Result<()> {
    totals.print();
    if totals.is_empty() {
        bail!("there is no such pair: nothing was compared");
    }
    if totals.wrong() {
        bail!("not all findings are true");
    }
    Ok(())
}

/// `expected.toml`, as far as it is about functions and data.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Expected {
    changed: Vec<String>,
    added: Vec<String>,
    removed: Vec<String>,
    data: Vec<String>,
    on: BTreeMap<String, On>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct On {
    changed: Option<Vec<String>>,
    added: Option<Vec<String>>,
    removed: Option<Vec<String>>,
}

impl Expected {
    fn names(&self, machine: Machine) -> Names {
        let on = self.on.get(machine.folder());
        let pick = |own: Option<&Option<Vec<String>>>, all: &Vec<String>| -> BTreeSet<String> {
            let list = own.and_then(Option::as_ref).unwrap_or(all);
            list.iter().cloned().collect()
        };
        Names {
            changed: pick(on.map(|it| &it.changed), &self.changed),
            added: pick(on.map(|it| &it.added), &self.added),
            removed: pick(on.map(|it| &it.removed), &self.removed),
        }
    }
}

/// Holds oracle and differ against what is written down for the fixtures.
fn fixtures(arguments: &Arguments, totals: &mut Totals) -> Result<()> {
    let folder = run::root().join("fixtures");
    let builds = Recipes::read(&folder.join("recipes.toml"))?.builds()?;
    let tools = Toolchain::find()?;
    let pairs = folder.join("pairs");
    let compiled = |build: &Build| {
        let own = (Sections::Own, &[][..]);
        program(Objects::compile(&tools, build, &pairs, own)?.read()?)
    };
    // What several fixes are compared with is compiled once.
    let mut bases = BTreeMap::<&str, Program>::new();
    for build in &builds {
        let title = format!(
            "{}/{} {}",
            build.group,
            build.variant,
            build.machine.folder()
        );
        let wanted = arguments
            .only
            .as_ref()
            .is_none_or(|only| title.contains(only.as_str()));
        let is_told = wanted && build.oracle;
        let Some(base) = base_of(build, &builds).filter(|_| is_told) else {
            continue;
        };
        let path = pairs.join(&build.group).join("expected.toml");
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut all: BTreeMap<String, Expected> =
            toml::from_str(&text).with_context(|| path.display().to_string())?;
        let expected = all
            .remove(&build.variant)
            .with_context(|| format!("{} says nothing of {}", path.display(), build.variant))?;
        let truth = expected.names(build.machine);

        if !bases.contains_key(base.folder.as_str()) {
            bases.insert(&base.folder, compiled(base)?);
        }
        let one = bases.get(base.folder.as_str());
        let one = one.context("the base was compiled before")?;
        let comparison = oracle::compare(one, &compiled(build)?);
        explain(arguments, &title, &comparison);
        totals.oracle(&title, &truth, &names::readable(&comparison));
        let data = names::data(&comparison);
        // The load config is a fact about the image, not about the library.
        totals.data(&title, &expected.data.iter().cloned().collect(), &data);
        if !arguments.oracle_only {
            let [one, other] = [base, build].map(|it| {
                let folder = folder.join("prebuilt").join(&it.folder);
                folder.join(format!("{}.dll", it.stem))
            });
            totals.fixture(
                &title,
                &truth,
                &report::diff(arguments.profile(), &one, &other)?,
            );
        }
    }
    Ok(())
}

/// The build that this one is a fix of.
fn base_of<'b>(build: &Build, builds: &'b [Build]) -> Option<&'b Build> {
    let against = build.against.as_ref()?;
    builds
        .iter()
        .find(|it| it.group == build.group && it.variant == *against && it.machine == build.machine)
}

/// Holds the differ against the oracle over the corpus, as far as it is built.
fn built(arguments: &Arguments, totals: &mut Totals) -> Result<()> {
    let tools = Toolchain::find()?;
    let again = corpus::Again::read()?;
    let mut pinned = Pinned::read(arguments.bless)?;
    for pair in corpus::pairs()? {
        let title = pair.title();
        if arguments
            .only
            .as_ref()
            .is_some_and(|only| !title.contains(only.as_str()))
        {
            continue;
        }
        if !pair.is_built() {
            totals.not_built(&title);
            continue;
        }
        let [base, fixed] = ["base", "fixed"].map(|side| linked(&pair.folder.join(side)));
        let ((base, base_map), (fixed, fixed_map)) = (base?, fixed?);
        let comparison = oracle::compare(&base, &fixed);
        explain(arguments, &title, &comparison);
        let sides = Sides {
            comparison: &comparison,
            base: &base,
            fixed: &fixed,
        };
        let images = ["base", "fixed"].map(|side| pair.image(side));
        let places = Places::new(base_map, fixed_map);
        totals.corpus(&title, &places.truth(&base, &fixed, &comparison, false));
        if arguments.oracle_only {
            continue;
        }
        let found = sides.judge(arguments, &title, &places, [&images[0], &images[1]], totals)?;
        if pinned.speaks_of(&pair) {
            totals.judged(&title, pinned.compare(&pair, &found.findings)?);
        }
        if let Some(way) = again.folded(&pair) {
            let [one, other] = ["base", "fixed"].map(|side| again.link(&pair, side, &way, &tools));
            let title = format!("{title}, {}", way.name);
            sides.judge_linked(arguments, &title, [&one?, &other?], totals)?;
        }
        if again.is_shared(&pair) {
            let [one, other] = ["base", "fixed"].map(|side| again.share(&pair, side, &tools));
            let title = format!("{title}, shared sections");
            sides.judge_linked(arguments, &title, [&one?, &other?], totals)?;
        }
        if again.is_relinked(&pair) {
            let mut images = vec![
                ("itself", pair.image("base")),
                ("rebuilt", again.rebuild(&pair, &tools)?),
            ];
            for way in again.ways(&pair) {
                let linked = again.link(&pair, "base", &way, &tools)?;
                images.push((way.name, linked.image));
            }
            for (way, image) in images {
                let found = report::diff(arguments.profile(), &pair.image("base"), &image)?;
                totals.relinked(&format!("{title}, beside {way}"), &found);
            }
        }
    }
    pinned.finish()
}

/// What the oracle has read of a pair.
struct Sides<'a> {
    comparison: &'a oracle::Comparison,
    base: &'a Program,
    fixed: &'a Program,
}

impl Sides<'_> {
    /// Holds the differ against the oracle on two images linked from what it read.
    fn judge(
        &self,
        arguments: &Arguments,
        title: &str,
        places: &Places,
        images: [&Path; 2],
        totals: &mut Totals,
    ) -> Result<Found> {
        if arguments.explain {
            println!("{title}:");
        }
        let truth = places.truth(self.base, self.fixed, self.comparison, arguments.explain);
        let found = report::diff(arguments.profile(), images[0], images[1])?;
        // A jump to an import is made from the import library, and is in no object.
        let names = places.found(&found, &truth, &self.comparison.elsewhere);
        totals.against_oracle(title, &truth, &names, &found);
        Ok(found)
    }

    /// The same, with the maps read.
    fn judge_linked(
        &self,
        arguments: &Arguments,
        title: &str,
        linked: [&Linked; 2],
        totals: &mut Totals,
    ) -> Result<()> {
        let [base, fixed] = linked.map(|it| -> Result<LinkerMap> {
            let text = fs::read_to_string(&it.map)
                .with_context(|| format!("cannot read {}", it.map.display()))?;
            Ok(LinkerMap::read(&text))
        });
        let places = Places::new(base?, fixed?);
        let images = linked.map(|it| it.image.as_path());
        self.judge(arguments, title, &places, images, totals)?;
        Ok(())
    }
}

/// One side of a corpus pair: its objects in the order in which they were linked, and the map.
fn linked(side: &Path) -> Result<(Program, LinkerMap)> {
    let text = |name: &str| {
        let path = side.join(name);
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    let map = LinkerMap::read(&text(corpus::MAP)?);
    let mut objects = Vec::new();
    for name in text(corpus::ORDER)?.lines() {
        let path = side.join("obj").join(name);
        let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        if path.extension().is_some_and(|it| it == "lib") {
            let members = oracle::members(name, &bytes, &map.objects())?;
            objects.extend(members);
        } else {
            objects.push((name.to_owned(), bytes));
        }
    }
    Ok((program(objects)?, map))
}

fn program(objects: Vec<(String, Vec<u8>)>) -> Result<Program> {
    let read: Result<Vec<ObjectFile>, _> = objects
        .iter()
        .map(|(name, bytes)| ObjectFile::read(name, bytes))
        .collect();
    Ok(Program::new(read?)?)
}

fn explain(arguments: &Arguments, title: &str, comparison: &oracle::Comparison) {
    if !arguments.explain {
        return;
    }
    for it in &comparison.changed {
        println!("{title}: {}: {}", it.function.name, it.first);
    }
}
