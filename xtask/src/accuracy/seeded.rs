//! The seeded edits of our own sources at every level of optimisation, on both machines.
//!
//! The prebuilt pairs are what a person wrote the truth down for, at one level. Here every pair is
//! compiled at all levels, linked once plainly, once with identical code folded, and once from objects
//! that hold all data of a kind in one section, and held against the oracle. Every base is also held
//! against itself, against another build of the same source, and against other links of the same
//! objects.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use hpbuild_tests::oracle::{self, Program};

use super::report;
use super::totals::Totals;
use super::{Arguments, Sides, base_of, explain, program};
use crate::compile::{Objects, Sections};
use crate::recipe::{Build, Recipes};
use crate::run;
use crate::toolchain::Toolchain;
use crate::ways::Way;

/// Levels of optimisation, as the compiler names them behind `-`.
const LEVELS: [&str; 3] = ["O0", "Os", "O2"];

/// One build at one level.
struct Compiled<'a> {
    objects: Objects<'a>,
    program: Program,
}

/// Compares all pairs at all levels.
///
/// # Errors
/// A tool fails, or a report cannot be read.
pub(super) fn compare(arguments: &Arguments, totals: &mut Totals) -> Result<()> {
    if arguments.oracle_only {
        return Ok(());
    }
    let builds = Recipes::read(&run::root().join("fixtures/recipes.toml"))?.builds()?;
    let tools = Toolchain::find()?;
    for level in LEVELS {
        // What several pairs are compared with is compiled once.
        let mut bases = BTreeMap::<&str, Compiled<'_>>::new();
        for build in builds.iter().filter(|it| it.linked) {
            let title = format!("{} {level} {}", name(build), build.machine.folder());
            let only = arguments.only.as_ref();
            let is_wanted = only.is_none_or(|only| title.contains(only.as_str()));
            let Some(base) = base_of(build, &builds).filter(|_| is_wanted) else {
                continue;
            };
            if !bases.contains_key(base.folder.as_str()) {
                let compiled = Compiled::new(&tools, base, level)?;
                let title = format!("{} {level} {}", name(base), base.machine.folder());
                again(arguments, &title, base, &compiled, totals)?;
                bases.insert(&base.folder, compiled);
            }
            let one = bases.get(base.folder.as_str());
            let one = one.context("the base was compiled before")?;
            let other = Compiled::new(&tools, build, level)?;
            pair(arguments, &title, (base, one), (build, &other), totals)?;
        }
    }
    Ok(())
}

fn name(build: &Build) -> String {
    format!("{}/{}", build.group, build.variant)
}

impl<'a> Compiled<'a> {
    fn new(tools: &'a Toolchain, build: &'a Build, level: &str) -> Result<Self> {
        let pairs = run::root().join("fixtures/pairs");
        let objects = Objects::compile(
            tools,
            build,
            &pairs,
            (Sections::Own, &[&format!("-{level}")]),
        )?;
        let program = program(objects.read()?)?;
        Ok(Compiled { objects, program })
    }
}

/// One pair, linked in three ways.
fn pair(
    arguments: &Arguments,
    title: &str,
    (base, one): (&Build, &Compiled<'_>),
    (fixed, other): (&Build, &Compiled<'_>),
    totals: &mut Totals,
) -> Result<()> {
    let comparison = oracle::compare(&one.program, &other.program);
    explain(arguments, title, &comparison);
    let sides = Sides {
        comparison: &comparison,
        base: &one.program,
        fixed: &other.program,
    };
    for way in [Way::plain, Way::folded] {
        let (ours, theirs) = (way(&base.link), way(&fixed.link));
        let title = format!("{title}, {}", ours.name);
        let (one, other) = (one.objects.link(&ours)?, other.objects.link(&theirs)?);
        sides.judge_linked(arguments, &title, [&one, &other], totals)?;
    }
    let [one, other] = [(base, one), (fixed, other)].map(|(build, side)| {
        let objects = side.objects.with(Sections::Shared)?;
        let linked = objects.link(&Way::plain(&build.link))?;
        anyhow::Ok((objects, linked))
    });
    let ((_one, base), (_other, fixed)) = (one?, other?);
    let title = format!("{title}, shared sections");
    sides.judge_linked(arguments, &title, [&base, &fixed], totals)
}

/// A base beside everything that means the same.
fn again(
    arguments: &Arguments,
    title: &str,
    build: &Build,
    base: &Compiled<'_>,
    totals: &mut Totals,
) -> Result<()> {
    let plain = base.objects.link(&Way::plain(&build.link))?;
    let mut beside = |way: &str, image: &std::path::Path| -> Result<()> {
        let found = report::diff(arguments.profile(), &plain.image, image)?;
        totals.relinked(&format!("{title}, beside {way}"), &found);
        Ok(())
    };
    beside("itself", &plain.image)?;
    let rebuilt = base.objects.again()?;
    beside("rebuilt", &rebuilt.link(&Way::plain(&build.link))?.image)?;
    for way in Way::all(&build.link) {
        // The plain one is there, and nobody else reads it meanwhile.
        if way.name != "plain" {
            beside(way.name, &base.objects.link(&way)?.image)?;
        }
    }
    Ok(())
}
