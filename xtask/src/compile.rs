//! One image from its sources, in a folder where nothing of this machine can get into it.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::header;
use crate::msf;
use crate::recipe::Build;
use crate::run;
use crate::toolchain::Toolchain;

/// Sources that every image gets: its entry point and its load config.
const PLATFORM: [&str; 2] = ["platform/entry.c", "platform/load_config.c"];

/// What all images may import.
const IMPORTS: &str = "platform/msvcrt.def";

/// What the oracle needs of objects: see there.
pub(crate) const FOR_THE_ORACLE: [&str; 3] = ["-fdata-sections", "-Xclang", "-msave-temp-labels"];

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
    let mut imports = Vec::new();
    for definition in further_imports(build) {
        let library = format!("{}.lib", stem(file_name(definition)));
        imports.push(import_library(
            tools,
            build,
            (pairs, folder),
            definition,
            &library,
        )?);
    }
    imports.push(import_library(
        tools,
        build,
        (pairs, folder),
        IMPORTS,
        "imports.lib",
    )?);
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

/// The objects of one build as the oracle reads them, by name: every datum in its own section,
/// every label kept.
///
/// # Errors
/// A source is missing, or the compiler fails.
pub(crate) fn objects(
    tools: &Toolchain,
    build: &Build,
    pairs: &Path,
) -> Result<Vec<(String, Vec<u8>)>> {
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    let names = compile(tools, build, pairs, folder.path(), &FOR_THE_ORACLE)?;
    names
        .into_iter()
        .map(|name| {
            let bytes = fs::read(folder.path().join(&name))?;
            Ok((name, bytes))
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
