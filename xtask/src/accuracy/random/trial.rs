//! One random pair: compiled and linked on both sides, and the differ held against the oracle.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use hpbuild_tests::oracle;

use super::dice::Dice;
use super::program::Program;
use super::render;
use crate::accuracy::totals::Totals;
use crate::accuracy::{Arguments, Sides, program as read};
use crate::compile::{Objects, Sections};
use crate::recipe::{Build, Machine};
use crate::run;
use crate::toolchain::Toolchain;
use crate::ways::{Linked, Way};

/// Sources that every image gets, and what they are compiled with: as `fixtures/recipes.toml`.
const PLATFORM: [&str; 3] = [
    "platform/entry.c",
    "platform/load_config.c",
    "platform/msvcrt.def",
];
const COMPILE: [&str; 12] = [
    "-std=c11",
    "-std=c++17",
    "-g",
    "-gcodeview",
    "-gno-codeview-command-line",
    "-fdebug-compilation-dir=.",
    "-fms-hotpatch",
    "-ffunction-sections",
    "-nostdlibinc",
    "-w",
    "-fexceptions",
    "-fcxx-exceptions",
];
const LINK: [&str; 7] = [
    "/dll",
    "/nodefaultlib",
    "/debug",
    "/release",
    "/hotpatchcompatible",
    "/entry:DllMainCRTStartup",
    "/pdbaltpath:%_PDB%",
];

/// How a pair is built.
#[derive(Clone, Debug)]
pub(super) struct Setting {
    pub(super) machine: Machine,
    pub(super) compile: Vec<String>,
    sections: Sections,
    ways: [Way; 2],
}

/// What came of a pair.
pub(super) enum Outcome {
    /// The compiler or the linker does not take it, and says why.
    Refused(String),
    Judged(Box<Totals>),
}

impl Setting {
    /// Any machine, level and flags; the sides may be linked in two ways that mean the same.
    pub(super) fn new(dice: &mut Dice) -> Setting {
        let machine = if dice.chance(50) {
            Machine::X64
        } else {
            Machine::Arm64
        };
        let level = dice.pick(&["-O0", "-O1", "-O2", "-Os", "-O2"]);
        let mut compile = vec![level.unwrap_or(&"-O2").to_string()];
        let mut both: Vec<String> = LINK.map(str::to_owned).to_vec();
        let sections = match dice.chance(20) {
            true => Sections::Shared,
            false => Sections::Own,
        };
        for (percent, flags) in [
            (15, &["-fstack-protector-strong"][..]),
            (10, &["-fno-inline-functions"]),
            (10, &["-moutline"]),
            (10, &["-fmerge-all-constants"]),
            (10, &["-fno-jump-tables"]),
            (10, &["-fno-omit-frame-pointer"]),
        ] {
            let fits = flags[0] != "-moutline" || machine == Machine::Arm64;
            if dice.chance(percent) && fits {
                compile.extend(flags.iter().map(|it| (*it).to_owned()));
            }
        }
        if dice.chance(20) {
            compile.extend(["-Xclang", "-cfguard", "-DHP_GUARD"].map(str::to_owned));
            both.push("/guard:cf".to_owned());
        }
        both.push(
            dice.pick(&["/opt:ref,noicf", "/opt:ref,icf", "/opt:noref,noicf"])
                .unwrap_or(&"")
                .to_string(),
        );
        let one = way("base", &both, dice);
        let mut other = Way {
            name: "fixed",
            ..one.clone()
        };
        if dice.chance(35) {
            other = way("fixed", &both, dice);
        }
        Setting {
            machine,
            compile,
            sections,
            ways: [one, other],
        }
    }

    /// The same in a line.
    pub(super) fn says(&self) -> String {
        let [base, fixed] = self.ways.each_ref().map(|it| {
            let reversed = if it.reversed { " (reversed)" } else { "" };
            format!("{}{reversed}", it.flags[LINK.len()..].join(" "))
        });
        let mut compile = self.compile.join(" ");
        if self.sections == Sections::Shared {
            compile.push_str(", shared sections");
        }
        format!(
            "{} {compile}; base {base}; fixed {fixed}",
            self.machine.folder()
        )
    }

    fn build(&self, program: &Program, side: &str) -> Build {
        let names = render::files(program).into_iter().map(|(name, _)| name);
        let (headers, mut sources): (Vec<_>, Vec<_>) =
            names.partition(|name| name == render::HEADER_NAME);
        sources.extend(["runtime.cpp", "runtime.def"].map(str::to_owned));
        let flags = COMPILE.iter().map(|it| (*it).to_owned());
        Build {
            folder: side.to_owned(),
            group: "random".to_owned(),
            variant: side.to_owned(),
            against: None,
            stem: "random".to_owned(),
            machine: self.machine,
            triple: self.machine.msvc_triple(),
            sources,
            headers,
            compile: flags.collect(),
            link: Vec::new(),
            pdb: true,
            oracle: true,
            linked: true,
            com_descriptor: false,
        }
    }

    /// Builds both sides and holds the differ against the oracle; where `keep` says so, all files
    /// stay there.
    ///
    /// # Errors
    /// Files cannot be written.
    pub(super) fn try_out(
        &self,
        tools: &Toolchain,
        arguments: &Arguments,
        (base, fixed): (&Program, &Program),
        keep: Option<&Path>,
    ) -> Result<Outcome> {
        let mut totals = Box::new(Totals::quiet());
        let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
        let mut builds = Vec::new();
        for (program, side) in [(base, "base"), (fixed, "fixed")] {
            let folder = folder.path().join(side);
            write(program, &folder)?;
            if let Some(keep) = keep {
                write(program, &keep.join(side))?;
            }
            builds.push((self.build(program, side), folder));
        }
        let flags: Vec<&str> = self.compile.iter().map(String::as_str).collect();
        let mut sides = Vec::new();
        for ((build, folder), way) in builds.iter().zip(&self.ways) {
            let objects = match Objects::compile(tools, build, folder, (Sections::Own, &flags)) {
                Ok(objects) => objects,
                Err(error) => return Ok(Outcome::Refused(format!("{error:#}"))),
            };
            let linked = match self.sections {
                Sections::Own => objects.link(way),
                Sections::Shared => link_shared(&objects, way, folder),
            };
            let linked = match linked {
                Ok(linked) => linked,
                Err(error) => return Ok(Outcome::Refused(format!("{error:#}"))),
            };
            sides.push((objects, linked));
        }
        if let Some(keep) = keep {
            for ((_, linked), side) in sides.iter().zip(["base", "fixed"]) {
                copy(linked, &keep.join(side))?;
            }
        }
        let [(one, base_image), (other, fixed_image)] = &sides[..] else {
            return Ok(Outcome::Judged(totals));
        };
        let programs = [one, other].map(|it| read(it.read()?));
        let [base, fixed] = match programs {
            [Ok(base), Ok(fixed)] => [base, fixed],
            [Err(error), _] | [_, Err(error)] => {
                totals.failed("oracle", &format!("{error:#}"));
                return Ok(Outcome::Judged(totals));
            }
        };
        let comparison = oracle::compare(&base, &fixed);
        let sides = Sides {
            comparison: &comparison,
            base: &base,
            fixed: &fixed,
        };
        // What the linker drops is of no interest here.
        let arguments = &Arguments {
            explain: false,
            ..arguments.clone()
        };
        let judged = sides.judge_linked(arguments, "", [base_image, fixed_image], &mut totals);
        if let Err(error) = judged {
            totals.failed("hpbuild", &format!("{error:#}"));
        }
        for it in &comparison.changed {
            totals.note(format!("oracle: {}: {}", it.function.name, it.first));
        }
        Ok(Outcome::Judged(totals))
    }
}

/// Links the same sources from objects that hold all data of a kind in one section, to files in
/// `folder`.
fn link_shared(objects: &Objects<'_>, way: &Way, folder: &Path) -> Result<Linked> {
    let shared = objects.with(Sections::Shared)?;
    let linked = shared.link(way)?;
    // The objects' own folder goes with them.
    let place = folder.join(way.name);
    fs::create_dir_all(&place)?;
    copy(&linked, &place)?;
    let kept = |path: &Path| place.join(path.file_name().unwrap_or_default());
    Ok(Linked {
        image: kept(&linked.image),
        map: kept(&linked.map),
    })
}

fn way(name: &'static str, both: &[String], dice: &mut Dice) -> Way {
    let mut flags = both.to_vec();
    let any = [
        ["/brepro", "/timestamp:1700000000"],
        ["/functionpadmin:16", "/functionpadmin:6"],
        ["/base:0x180000000", "/base:0x270000000"],
    ];
    for pair in any {
        flags.extend(dice.pick(&pair).map(|it| (*it).to_owned()));
    }
    Way {
        name,
        flags,
        reversed: dice.chance(30),
    }
}

/// Writes the sources of one side.
fn write(program: &Program, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder.join("platform"))?;
    let pairs = run::root().join("fixtures/pairs");
    for name in PLATFORM {
        fs::copy(pairs.join(name), folder.join(name))
            .with_context(|| format!("cannot copy {name}"))?;
    }
    fs::write(folder.join("runtime.cpp"), include_str!("runtime.cpp"))?;
    fs::write(folder.join("runtime.def"), include_str!("runtime.def"))?;
    for (name, text) in render::files(program) {
        fs::write(folder.join(name), text)?;
    }
    Ok(())
}

/// Keeps what was linked.
fn copy(linked: &Linked, folder: &Path) -> Result<()> {
    let pdb = linked.image.with_extension("pdb");
    for from in [&linked.image, &linked.map, &pdb] {
        let to: Option<PathBuf> = from.file_name().map(|name| folder.join(name));
        if let Some(to) = to {
            fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
        }
    }
    Ok(())
}
