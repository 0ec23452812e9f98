//! Sources to objects, and objects to an image with its PDB.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::recipe::{Corpus, Project};
use super::sources;
use crate::compile::FOR_THE_ORACLE;
use crate::recipe::Machine;
use crate::run;
use crate::toolchain::Toolchain;

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

/// One image to be built.
pub(crate) struct Side<'a> {
    /// The whole recipe.
    pub(crate) corpus: &'a Corpus,
    /// The project it belongs to.
    pub(crate) project: &'a Project,
    /// The folder with its sources.
    pub(crate) sources: &'a Path,
    /// Level of optimisation.
    pub(crate) optimisation: &'a str,
    /// What it is built for.
    pub(crate) machine: Machine,
    /// Where the results go: `NAME.dll`, `NAME.pdb`, and `obj/` with the objects.
    pub(crate) out: PathBuf,
}

impl Side<'_> {
    /// Compiles and links, unless the same commands with the same tools gave what is there.
    ///
    /// # Errors
    /// A tool fails: its output is part of the error.
    pub(crate) fn build(&self, tools: &Toolchain, fixtures: &Path) -> Result<()> {
        let (compiles, objects) = self.compiles(tools, fixtures)?;
        let imports = IMPORTS.map(|library| self.imports(tools, fixtures, library));
        let link = self.link(tools, &objects);
        let mut commands: Vec<String> = compiles.iter().map(run::shown).collect();
        commands.extend(imports.iter().map(run::shown));
        commands.push(run::shown(&link));
        let stamp = format!("{}{}\n", tools.version()?, commands.join("\n"));
        let noted = self.out.join("commands.txt");
        if fs::read_to_string(&noted).is_ok_and(|text| text == stamp) {
            return Ok(());
        }
        run::step(&self.title());
        if self.out.exists() {
            fs::remove_dir_all(&self.out)?;
        }
        fs::create_dir_all(self.out.join("obj"))?;
        run::in_parallel(compiles, |mut command| run::captured(&mut command))?;
        for mut command in imports.into_iter().chain([link]) {
            run::captured(&mut command)?;
        }
        fs::write(noted, stamp)?;
        Ok(())
    }

    fn title(&self) -> String {
        let side = self.out.file_name().unwrap_or_default().to_string_lossy();
        let Project { name, .. } = self.project;
        format!(
            "build {name} -{} {} {side}",
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
            let mut clang = tools.clang();
            clang
                .current_dir(self.sources)
                .arg(format!("--target={}", self.machine.gnu_triple()))
                .arg(format!("-{}", self.optimisation))
                .args(&self.corpus.compile)
                .args(FOR_THE_ORACLE)
                .args(&self.project.compile)
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

    fn link(&self, tools: &Toolchain, objects: &[PathBuf]) -> Command {
        let name = &self.project.name;
        let mut lld = tools.lld_link();
        lld.current_dir(&self.out)
            .args(&self.corpus.link)
            .arg(format!("/pdbsourcepath:C:\\{name}"))
            .arg(format!("/out:{name}.dll"))
            .arg(format!("/pdb:{name}.pdb"))
            .args(objects)
            .args(IMPORTS.map(|library| format!("{library}.lib")));
        lld
    }
}
