//! One image from its sources, in a folder where nothing of this machine can get into it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::header;
use crate::msf;
use crate::recipe::Build;
use crate::run;
use crate::toolchain::Toolchain;
use crate::ways::{Linked, Way};

/// Sources that every image gets: its entry point and its load config.
const PLATFORM: [&str; 2] = ["platform/entry.c", "platform/load_config.c"];

/// What all images may import.
const IMPORTS: &str = "platform/msvcrt.def";

/// How an object holds its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sections {
    /// Every datum in a section of its own, and every label kept, as the oracle needs it: see there.
    Own,
    /// All data of a kind in one section, as compilers do it that nobody asks for more.
    Shared,
}

impl Sections {
    /// The compiler's flags.
    pub(crate) const fn flags(self) -> &'static [&'static str] {
        match self {
            Sections::Own => &["-fdata-sections", "-Xclang", "-msave-temp-labels"],
            Sections::Shared => &["-fno-data-sections"],
        }
    }
}

/// The two files of a finished image.
pub(crate) struct Image {
    /// The PE image.
    pub(crate) dll: Vec<u8>,
    /// Its debug information, where the recipe asks for it.
    pub(crate) pdb: Option<Vec<u8>>,
}

/// Compiles and links one image. `pairs` is the folder that the recipe's paths start from.
///
/// # Errors
/// A source is missing, or a tool fails: its output is part of the error.
pub(crate) fn build(tools: &Toolchain, build: &Build, pairs: &Path) -> Result<Image> {
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    let folder = folder.path();
    let objects = compile(tools, build, pairs, folder, &[])?;
    let imports = imports(tools, build, pairs, folder)?;
    let (dll, pdb) = (format!("{}.dll", build.stem), format!("{}.pdb", build.stem));
    run::captured(
        tools
            .lld_link()
            .current_dir(folder)
            .args(&build.link)
            .arg(format!("/pdbsourcepath:C:\\{}", build.stem))
            .arg(format!("/out:{dll}"))
            // Even where none is written, the image would name it.
            .args(build.pdb.then(|| format!("/pdb:{pdb}")))
            .args(&objects)
            .args(resources(tools, build, pairs, folder)?)
            .args(&imports),
    )?;
    let read = |name: &str| {
        fs::read(folder.join(name)).with_context(|| format!("the linker left no {name}"))
    };
    let mut dll = read(&dll)?;
    if build.com_descriptor {
        header::add_com_descriptor(&mut dll).context("the linker wrote a header too short")?;
    }
    Ok(Image {
        dll,
        pdb: build.pdb.then(|| msf::repack(&read(&pdb)?)).transpose()?,
    })
}

/// The objects of one build, in a folder that goes when they do.
pub(crate) struct Objects<'a> {
    tools: &'a Toolchain,
    build: &'a Build,
    pairs: PathBuf,
    sections: Sections,
    flags: Vec<String>,
    folder: tempfile::TempDir,
    names: Vec<String>,
    others: Vec<String>,
}

impl<'a> Objects<'a> {
    /// Compiles them, with `flags` behind those of the recipe.
    ///
    /// # Errors
    /// A source is missing, or a tool fails.
    pub(crate) fn compile(
        tools: &'a Toolchain,
        build: &'a Build,
        pairs: &Path,
        (sections, flags): (Sections, &[&str]),
    ) -> Result<Self> {
        let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
        let all = [sections.flags(), flags].concat();
        let names = compile(tools, build, pairs, folder.path(), &all)?;
        let mut others = resources(tools, build, pairs, folder.path())?;
        others.extend(imports(tools, build, pairs, folder.path())?);
        Ok(Objects {
            tools,
            build,
            pairs: pairs.to_owned(),
            sections,
            flags: flags.iter().map(|it| (*it).to_owned()).collect(),
            folder,
            names,
            others,
        })
    }

    /// Compiles the same once more, in another folder.
    ///
    /// # Errors
    /// As for [`Objects::compile`].
    pub(crate) fn again(&self) -> Result<Self> {
        self.with(self.sections)
    }

    /// Compiles the same with other sections for its data, in another folder.
    ///
    /// # Errors
    /// As for [`Objects::compile`].
    pub(crate) fn with(&self, sections: Sections) -> Result<Self> {
        let flags: Vec<&str> = self.flags.iter().map(String::as_str).collect();
        Objects::compile(self.tools, self.build, &self.pairs, (sections, &flags))
    }

    /// Their bytes, by name.
    ///
    /// # Errors
    /// A file is gone.
    pub(crate) fn read(&self) -> Result<Vec<(String, Vec<u8>)>> {
        let read = |name: &String| {
            let bytes = fs::read(self.folder.path().join(name))?;
            Ok((name.clone(), bytes))
        };
        self.names.iter().map(read).collect()
    }

    /// Links them.
    ///
    /// # Errors
    /// The linker fails.
    pub(crate) fn link(&self, way: &Way) -> Result<Linked> {
        let folder = self.folder.path();
        let out = folder.join(way.name);
        fs::create_dir_all(&out)?;
        let stem = &self.build.stem;
        let mut objects: Vec<&String> = self.names.iter().collect();
        if way.reversed {
            objects.reverse();
        }
        let place = |extension: &str| format!("{}/{stem}.{extension}", way.name);
        run::captured(
            self.tools
                .lld_link()
                .current_dir(folder)
                .args(&way.flags)
                .arg(format!("/pdbsourcepath:C:\\{stem}"))
                .arg(format!("/out:{}", place("dll")))
                .arg(format!("/map:{}", place("map")))
                .args(self.build.pdb.then(|| format!("/pdb:{}", place("pdb"))))
                .args(objects)
                .args(&self.others),
        )?;
        Ok(Linked {
            image: out.join(format!("{stem}.dll")),
            map: out.join(format!("{stem}.map")),
        })
    }
}

/// Makes the libraries to link imports from, and gives their names.
fn imports(tools: &Toolchain, build: &Build, pairs: &Path, folder: &Path) -> Result<Vec<String>> {
    let further = further_imports(build).map(|definition| {
        let library = format!("{}.lib", stem(file_name(definition)));
        (definition.as_str(), library)
    });
    let all = further.chain([(IMPORTS, "imports.lib".to_owned())]);
    all.map(|(definition, library)| {
        import_library(tools, build, (pairs, folder), definition, &library)
    })
    .collect()
}

/// What a single image may import, too: definitions among its sources.
fn further_imports(build: &Build) -> impl Iterator<Item = &String> {
    build.sources.iter().filter(|source| is_definition(source))
}

fn is_definition(source: &str) -> bool {
    source.ends_with(".def")
}

/// Makes a library to link imports from, and gives its name back.
fn import_library(
    tools: &Toolchain,
    build: &Build,
    (pairs, folder): (&Path, &Path),
    definition: &str,
    library: &str,
) -> Result<String> {
    let definition = copy(definition, pairs, folder)?;
    let mut dlltool = tools.dlltool();
    let machine = build.machine.dlltool();
    dlltool.current_dir(folder).args(["-m", machine]);
    run::captured(dlltool.args(["-d", &definition, "-l", library]))?;
    Ok(library.to_owned())
}

/// Compiles the sources to objects in the folder and gives their names.
fn compile(
    tools: &Toolchain,
    build: &Build,
    pairs: &Path,
    folder: &Path,
    further: &[&str],
) -> Result<Vec<String>> {
    for header in &build.headers {
        copy(header, pairs, folder)?;
    }
    let own = PLATFORM.iter().copied();
    let mut objects = Vec::new();
    let code = build
        .sources
        .iter()
        .filter(|source| !is_resource(source) && !is_definition(source));
    for source in own.chain(code.map(String::as_str)) {
        let source = copy(source, pairs, folder)?;
        let object = format!("{}.obj", stem(&source));
        // A language standard is for one language, and the platform's sources are all C.
        let flags = build.compile.iter().filter(|flag| {
            !flag.starts_with("-std=") || flag.starts_with("-std=c++") == source.ends_with(".cpp")
        });
        run::captured(
            tools
                .clang()
                .current_dir(folder)
                .arg(format!("--target={}", build.triple))
                .args(flags)
                .args(further)
                .args(["-c", &source, "-o", &object]),
        )?;
        objects.push(object);
    }
    Ok(objects)
}

fn is_resource(source: &str) -> bool {
    source.ends_with(".rc")
}

/// Compiles the resource scripts among the sources and gives the names of the results.
fn resources(tools: &Toolchain, build: &Build, pairs: &Path, folder: &Path) -> Result<Vec<String>> {
    let scripts = build.sources.iter().filter(|source| is_resource(source));
    scripts
        .map(|script| {
            let script = copy(script, pairs, folder)?;
            let compiled = format!("{}.res", stem(&script));
            let mut rc = tools.rc();
            run::captured(rc.current_dir(folder).args(["/fo", &compiled, &script]))?;
            Ok(compiled)
        })
        .collect()
}

/// Copies a file into the folder and gives the name it has there.
fn copy(path: &str, pairs: &Path, folder: &Path) -> Result<String> {
    let name = file_name(path).to_owned();
    let from = pairs.join(path);
    fs::copy(&from, folder.join(&name))
        .with_context(|| format!("cannot copy {}", from.display()))?;
    Ok(name)
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn stem(name: &str) -> &str {
    name.split('.').next().unwrap_or(name)
}
