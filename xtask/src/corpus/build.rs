//! Sources to objects, and objects to an image with its PDB.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::recipe::{Corpus, Project, Version};
use super::{rust, sources};
use crate::compile::Sections;
use crate::recipe::Machine;
use crate::run;
use crate::toolchain::Toolchain;
use crate::ways::{Linked, Way};

/// Where Debian keeps the C headers for Windows programs.
const HEADERS: &str = "/usr/share/mingw-w64/include";

/// Our own sources that every image gets, relative to `fixtures/`.
const PLATFORM: [&str; 3] = [
    "pairs/platform/entry.c",
    "pairs/platform/load_config.c",
    "corpus/chkstk.S",
];

/// What the images may import: definitions in `fixtures/corpus/`, by name.
const IMPORTS: [&str; 2] = ["msvcrt", "kernel32"];

/// The file that names the objects in the order in which they are linked: of several copies of an
/// inline function the first is kept.
pub(crate) const ORDER: &str = "order.txt";

/// The linker's map: what of which object went where.
pub(crate) const MAP: &str = "map.txt";

/// The file that names the tools and the commands that gave what is there.
const COMMANDS: &str = "commands.txt";

/// The exact versions of the tools that gave what is in the folder of a side.
///
/// # Errors
/// The side is not built.
pub(super) fn made_by(side: &Path) -> Result<Vec<String>> {
    let path = side.join(COMMANDS);
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    // The first command is one of the compiler, which is called by its release.
    let versions = text.lines().take_while(|it| !it.starts_with("clang-"));
    Ok(versions.map(str::to_owned).collect())
}

/// One image to be built.
pub(crate) struct Side<'a> {
    /// The whole recipe.
    pub(crate) corpus: &'a Corpus,
    /// The project it belongs to.
    pub(crate) project: &'a Project,
    /// Which version of it this is.
    pub(crate) version: &'a Version,
    /// The folder with its sources.
    pub(crate) sources: &'a Path,
    /// Level of optimisation.
    pub(crate) optimisation: &'a str,
    /// What it is built for.
    pub(crate) machine: Machine,
    /// How its objects hold their data.
    pub(crate) sections: Sections,
    /// Where the results go: `NAME.dll`, `NAME.pdb`, and `obj/` with the objects.
    pub(crate) out: PathBuf,
}

impl Side<'_> {
    /// Compiles and links, unless the same commands with the same tools gave what is there.
    ///
    /// # Errors
    /// A tool fails: its output is part of the error.
    pub(crate) fn build(&self, tools: &Toolchain, fixtures: &Path) -> Result<()> {
        let (compiles, mut objects) = self.compiles(tools, fixtures)?;
        let imports = IMPORTS.map(|library| self.imports(tools, fixtures, library));
        let mut commands: Vec<String> = compiles.iter().map(run::shown).collect();
        let mut compilers = tools.version()?;
        if let Some(recipe) = &self.project.rust {
            commands.push(run::shown(&self.cargo(recipe)));
            commands.extend(recipe.flags.iter().cloned());
            compilers.push_str(&rust::version()?);
            objects.push(rust::library());
        }
        commands.extend(imports.iter().map(run::shown));
        let mut link = self.link(tools, &self.corpus.link, "", &objects);
        // The oracle's names stand in the objects, and where they went only the linker knows.
        link.arg(format!("/map:{MAP}"));
        let compiled = format!("{compilers}{}\n", commands.join("\n"));
        let stamp = format!("{compiled}{}\n", run::shown(&link));
        let noted = self.out.join(COMMANDS);
        let last = fs::read_to_string(&noted).unwrap_or_default();
        if last == stamp {
            return Ok(());
        }
        if last.starts_with(&compiled) {
            run::step(&self.title("link"));
            fs::remove_file(&noted)?;
        } else {
            run::step(&self.title("build"));
            self.compile(tools, fixtures, compiles, imports, &objects)?;
        }
        run::captured(&mut link)?;
        let order: Vec<_> = objects.iter().filter_map(|it| it.file_name()).collect();
        let order: Vec<_> = order.iter().map(|it| it.to_string_lossy()).collect();
        fs::write(self.out.join(ORDER), order.join("\n"))?;
        fs::write(noted, stamp)?;
        Ok(())
    }

    /// Makes the objects and the import libraries, in place of all that is there.
    fn compile(
        &self,
        tools: &Toolchain,
        fixtures: &Path,
        compiles: Vec<Command>,
        imports: [Command; IMPORTS.len()],
        objects: &[PathBuf],
    ) -> Result<()> {
        if self.out.exists() {
            fs::remove_dir_all(&self.out)?;
        }
        fs::create_dir_all(self.out.join("obj"))?;
        run::in_parallel(compiles, |mut command| run::captured(&mut command))?;
        for mut command in imports {
            run::captured(&mut command)?;
        }
        if let Some(recipe) = &self.project.rust {
            self.make_library(recipe, self.version, fixtures)?;
        }
        if self.project.runtime {
            self.runtime(tools, objects)?;
        }
        Ok(())
    }

    fn title(&self, what: &str) -> String {
        let side = self.out.file_name().unwrap_or_default().to_string_lossy();
        let Project { name, .. } = self.project;
        format!(
            "{what} {name} -{} {} {side}",
            self.optimisation,
            self.machine.folder()
        )
    }

    fn compiles(&self, tools: &Toolchain, fixtures: &Path) -> Result<(Vec<Command>, Vec<PathBuf>)> {
        let own = PLATFORM.iter().map(|path| (*path).to_owned());
        let own = own
            .chain(self.project.extra.iter().cloned())
            .map(|path| fixtures.join(path));
        let theirs = sources::list(&self.project.sources, self.sources)?;
        let mut commands = Vec::new();
        let mut objects = Vec::new();
        for source in own.chain(theirs.into_iter().map(PathBuf::from)) {
            // Folders become part of the name: two of a project's sources may share theirs.
            let name = if source.is_absolute() {
                source
                    .file_stem()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned()
            } else {
                source
                    .with_extension("")
                    .to_string_lossy()
                    .replace(['/', '\\'], "_")
            };
            let object = PathBuf::from("obj").join(format!("{name}.obj"));
            let cxx = source.extension().is_some_and(|it| it == "cpp");
            // A language standard is for one language, and our own sources are all C.
            let flags = self.project.compile.iter();
            let flags = flags.filter(|flag| cxx || !flag.starts_with("-std=c++"));
            let mut clang = tools.clang();
            if cxx {
                clang.arg("-nostdinc++");
                clang.args(["-isystem", &tools.cxx_headers()]);
            }
            clang
                .current_dir(self.sources)
                .arg(format!("--target={}", self.machine.gnu_triple()))
                .arg(format!("-{}", self.optimisation))
                .args(&self.corpus.compile)
                .args(self.sections.flags())
                .args(flags)
                .args(
                    self.project
                        .include
                        .iter()
                        .map(|folder| format!("-I{folder}")),
                )
                .args(["-isystem", HEADERS, "-c"])
                .arg(&source)
                .arg("-o")
                .arg(self.out.join(&object));
            commands.push(clang);
            objects.push(object);
        }
        Ok((commands, objects))
    }

    fn imports(&self, tools: &Toolchain, fixtures: &Path, library: &str) -> Command {
        let mut dlltool = tools.dlltool();
        dlltool
            .current_dir(&self.out)
            .args([
                "-m",
                self.machine.dlltool(),
                "-l",
                &format!("{library}.lib"),
                "-d",
            ])
            .arg(fixtures.join(format!("corpus/{library}.def")));
        dlltool
    }

    /// Makes the import library for what no object defines.
    fn runtime(&self, tools: &Toolchain, objects: &[PathBuf]) -> Result<()> {
        let listed = |filter: &str| -> Result<BTreeSet<String>> {
            let mut nm = tools.nm();
            nm.current_dir(&self.out)
                .args([filter, "--extern-only", "--format=just-symbols"])
                .args(objects);
            let text = run::captured(&mut nm)?;
            Ok(text.lines().map(str::to_owned).collect())
        };
        let defined = listed("--defined-only")?;
        // The linker asks for the relocator where it joins code and data of a library.
        let mut exports = "LIBRARY runtime.dll\nEXPORTS\n_pei386_runtime_relocator\n".to_owned();
        for name in listed("--undefined-only")?.difference(&defined) {
            let made_by_linker = name.starts_with("__guard_") || name == "__ImageBase";
            let is_name = !name.is_empty() && !name.ends_with(':');
            // Where a function is marked as imported, its plain name does not occur.
            let name = match name.strip_prefix("__imp_") {
                Some(_) if self.project.rust.is_none() => continue,
                Some(plain) => plain,
                None => name,
            };
            if is_name && !made_by_linker {
                // Type information is data, which the linker reaches in another way.
                let data = name.starts_with("_ZTI") || name.starts_with("_ZTV");
                let kind = if data { " DATA" } else { "" };
                exports.push_str(&format!("{name}{kind}\n"));
            }
        }
        fs::write(self.out.join("runtime.def"), exports)?;
        let mut dlltool = tools.dlltool();
        dlltool
            .current_dir(&self.out)
            .args(["-m", self.machine.dlltool(), "-l", "runtime.lib"])
            .args(["-d", "runtime.def"]);
        run::captured(&mut dlltool)?;
        Ok(())
    }

    /// Links the objects that are there in some way, into `linked/WAY/`.
    ///
    /// # Errors
    /// The side is not built, or the linker fails.
    pub(crate) fn link_again(&self, tools: &Toolchain, way: &Way) -> Result<Linked> {
        let place = format!("linked/{}/", way.name);
        let folder = self.out.join(&place);
        let linked = Linked {
            image: folder.join(format!("{}.dll", self.project.name)),
            map: folder.join(MAP),
        };
        // A side that is compiled anew loses its folder.
        if !linked.image.exists() || !linked.map.exists() {
            let order = self.out.join(ORDER);
            let order = fs::read_to_string(&order)
                .with_context(|| format!("cannot read {}", order.display()))?;
            let mut objects: Vec<PathBuf> =
                order.lines().map(|it| Path::new("obj").join(it)).collect();
            if way.reversed {
                objects.reverse();
            }
            fs::create_dir_all(&folder)?;
            let mut link = self.link(tools, &way.flags, &place, &objects);
            run::captured(link.arg(format!("/map:{place}{MAP}")))?;
        }
        Ok(linked)
    }

    fn link(
        &self,
        tools: &Toolchain,
        flags: &[String],
        folder: &str,
        objects: &[PathBuf],
    ) -> Command {
        let name = &self.project.name;
        let rust = self.project.rust.as_ref();
        let exports = rust.map_or(&[][..], |it| &it.exports);
        let mut lld = tools.lld_link();
        lld.current_dir(&self.out)
            .args(
                flags
                    .iter()
                    .filter(|it| rust.is_none() || *it != "/lldmingw"),
            )
            .args(exports.iter().map(|name| format!("/export:{name}")))
            .arg(format!("/pdbsourcepath:C:\\{name}"))
            .arg(format!("/out:{folder}{name}.dll"))
            .arg(format!("/pdb:{folder}{name}.pdb"))
            .args(objects)
            .args(IMPORTS.map(|library| format!("{library}.lib")))
            .args(self.project.runtime.then_some("runtime.lib"));
        lld
    }
}
