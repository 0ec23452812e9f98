//! `fixtures/corpus/recipes.toml`: which projects there are and how they are compiled.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;

/// The whole file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Corpus {
    /// Flags of every compile.
    pub(crate) compile: Vec<String>,
    /// Flags of every link.
    pub(crate) link: Vec<String>,
    /// Levels of optimisation, as the compiler names them after `-`.
    pub(crate) optimisations: Vec<String>,
    /// The projects.
    pub(crate) project: Vec<Project>,
}

/// One library in two versions.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Project {
    /// Its name here.
    pub(crate) name: String,
    /// Sources relative to the folder of the side; a last component `*.c` or `*.cpp` stands
    /// for all.
    #[serde(default)]
    pub(crate) sources: Vec<String>,
    /// Set where the library is a Rust crate, which cargo compiles.
    pub(crate) rust: Option<Rust>,
    /// Our own additions, relative to `fixtures/`.
    #[serde(default)]
    pub(crate) extra: Vec<String>,
    /// Folders for headers, relative to the folder of the side.
    #[serde(default)]
    pub(crate) include: Vec<String>,
    /// Flags of its own.
    #[serde(default)]
    pub(crate) compile: Vec<String>,
    /// What no object defines comes from a library named `runtime.dll`, as that of C++ may: it is
    /// the same for both sides, and none is built.
    #[serde(default)]
    pub(crate) runtime: bool,
    /// The base is also linked in other ways, in which nothing may differ.
    #[serde(default)]
    pub(crate) relink: bool,
    /// The vulnerable side.
    pub(crate) base: Version,
    /// The fixed side.
    pub(crate) fixed: Version,
}

/// How a Rust crate becomes an image. Its functions are generic or nobody's entry point, so a
/// source of our own calls it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rust {
    /// That source, relative to `fixtures/`.
    pub(crate) source: String,
    /// Functions that the image exports.
    pub(crate) exports: Vec<String>,
    /// Flags for the compiler.
    #[serde(default)]
    pub(crate) flags: Vec<String>,
    /// Exact versions of what the crate depends on, so that both sides have the same.
    #[serde(default)]
    pub(crate) pins: BTreeMap<String, String>,
}

/// Where the sources of one side come from.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Version {
    /// The published crate that carries them.
    #[serde(rename = "crate")]
    pub(crate) package: String,
    /// Its exact version.
    pub(crate) version: String,
    /// The folder in it.
    #[serde(default)]
    pub(crate) folder: String,
    /// A change made to them.
    pub(crate) edit: Option<Edit>,
}

/// One place of one file, replaced.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Edit {
    /// The file, relative to the folder of the side.
    pub(crate) file: String,
    /// What is there, exactly once; line ends around it do not count.
    pub(crate) from: String,
    /// What comes in its place.
    pub(crate) to: String,
}

impl Corpus {
    /// Reads the recipe.
    ///
    /// # Errors
    /// It cannot be read, or does not follow the layout above.
    pub(crate) fn read(path: &Path) -> Result<Corpus> {
        let text =
            fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        toml::from_str(&text).with_context(|| format!("{} is not a recipe", path.display()))
    }
}
