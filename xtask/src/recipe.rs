//! `fixtures/recipes.toml`: how every prebuilt image is made.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

/// The whole file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Recipes {
    /// Flags of every compile.
    compile: Vec<String>,
    /// Flags of every link.
    link: Vec<String>,
    group: Vec<Group>,
}

/// One library in several variants.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    name: String,
    stem: String,
    #[serde(default = "both")]
    machines: Vec<Machine>,
    #[serde(default)]
    abi: Abi,
    #[serde(default)]
    headers: Vec<String>,
    #[serde(default)]
    sources: Vec<String>,
    #[serde(default)]
    compile: Vec<String>,
    #[serde(default)]
    link: Vec<String>,
    /// Flags of all that this group does without.
    #[serde(default)]
    without: Vec<String>,
    /// Nothing in the group is a pair.
    #[serde(default)]
    lone: bool,
    /// The linker writes no PDB.
    #[serde(default)]
    no_pdb: bool,
    /// Whether the oracle, which reads objects function by function, can speak of it.
    #[serde(default = "yes")]
    oracle: bool,
    /// Whether it can together with what the linker says.
    #[serde(default)]
    linked: bool,
    variant: BTreeMap<String, Variant>,
}

/// What one variant has of its own.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Variant {
    /// In place of the group's sources.
    #[serde(default)]
    sources: Vec<String>,
    #[serde(default)]
    compile: Vec<String>,
    #[serde(default)]
    link: Vec<String>,
    /// Flags of the group or of all that this variant does without.
    #[serde(default)]
    without: Vec<String>,
    /// The linker writes no PDB.
    #[serde(default)]
    no_pdb: bool,
    /// The header says afterwards that the image is managed code.
    #[serde(default)]
    com_descriptor: bool,
    /// The variant this one is a fix of.
    against: Option<String>,
}

/// Whose conventions the compiler follows for names, tables and thread-local variables.
#[derive(Deserialize, Clone, Copy, Default)]
#[serde(rename_all = "lowercase")]
enum Abi {
    #[default]
    Gnu,
    Msvc,
}

/// The machines that fixtures are built for.
#[derive(Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Machine {
    /// x86-64.
    X64,
    /// 64-bit Arm.
    Arm64,
    /// 32-bit x86, for images that must be refused.
    X86,
}

impl Machine {
    /// The folder its images lie in.
    pub(crate) const fn folder(self) -> &'static str {
        match self {
            Machine::X64 => "x64",
            Machine::Arm64 => "arm64",
            Machine::X86 => "x86",
        }
    }

    /// What clang calls it where nothing else is asked for.
    pub(crate) const fn gnu_triple(self) -> &'static str {
        self.triple(Abi::Gnu)
    }

    /// What clang and rustc call it where the conventions of MSVC are followed.
    pub(crate) const fn msvc_triple(self) -> &'static str {
        self.triple(Abi::Msvc)
    }

    /// What clang calls it.
    const fn triple(self, abi: Abi) -> &'static str {
        match (self, abi) {
            (Machine::X64, Abi::Gnu) => "x86_64-w64-windows-gnu",
            (Machine::X64, Abi::Msvc) => "x86_64-pc-windows-msvc",
            (Machine::Arm64, Abi::Gnu) => "aarch64-w64-windows-gnu",
            (Machine::Arm64, Abi::Msvc) => "aarch64-pc-windows-msvc",
            (Machine::X86, Abi::Gnu) => "i686-w64-windows-gnu",
            (Machine::X86, Abi::Msvc) => "i686-pc-windows-msvc",
        }
    }

    /// What `llvm-dlltool` calls it.
    pub(crate) const fn dlltool(self) -> &'static str {
        match self {
            Machine::X64 => "i386:x86-64",
            Machine::Arm64 => "arm64",
            Machine::X86 => "i386",
        }
    }
}

fn yes() -> bool {
    true
}

fn both() -> Vec<Machine> {
    vec![Machine::X64, Machine::Arm64]
}

/// One image to be built, with everything the recipe says about it put together.
pub(crate) struct Build {
    /// Folder below `prebuilt/`, with `/`.
    pub(crate) folder: String,
    /// Name of the group.
    pub(crate) group: String,
    /// Name of the variant.
    pub(crate) variant: String,
    /// The variant this one is a fix of, where they form a pair.
    pub(crate) against: Option<String>,
    /// File name without extension.
    pub(crate) stem: String,
    /// What it is built for.
    pub(crate) machine: Machine,
    /// The same for the compiler.
    pub(crate) triple: &'static str,
    /// Sources, relative to `pairs/`.
    pub(crate) sources: Vec<String>,
    /// Headers that lie beside them, relative to `pairs/`.
    pub(crate) headers: Vec<String>,
    /// Flags for the compiler.
    pub(crate) compile: Vec<String>,
    /// Flags for the linker.
    pub(crate) link: Vec<String>,
    /// Whether a PDB is made.
    pub(crate) pdb: bool,
    /// Whether the oracle can speak of it.
    pub(crate) oracle: bool,
    /// Whether it can, where it knows what the linker made of the objects.
    pub(crate) linked: bool,
    /// Whether the header is made to say that the image is managed code.
    pub(crate) com_descriptor: bool,
}

impl Recipes {
    /// Reads and checks the file.
    ///
    /// # Errors
    /// The file cannot be read or does not follow the layout above.
    pub(crate) fn read(path: &Path) -> Result<Recipes> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        toml::from_str(&text).with_context(|| format!("{} is not a recipe", path.display()))
    }

    /// Every image, in the order of the file.
    ///
    /// # Errors
    /// A variant does without a flag that is not there.
    pub(crate) fn builds(&self) -> Result<Vec<Build>> {
        let mut builds = Vec::new();
        for group in &self.group {
            for (name, variant) in &group.variant {
                let what = format!("{}/{name}", group.name);
                let without = merged([&group.without, &variant.without]);
                let kept = |own: [&Vec<String>; 3]| -> Vec<String> {
                    let mut flags = merged(own);
                    flags.retain(|flag| !without.contains(flag));
                    flags
                };
                let compile = [&self.compile, &group.compile, &variant.compile];
                let link = [&self.link, &group.link, &variant.link];
                for flag in &without {
                    if !compile.iter().chain(&link).any(|list| list.contains(flag)) {
                        bail!("{what} does without `{flag}`, which it never had");
                    }
                }
                let sources = if variant.sources.is_empty() {
                    &group.sources
                } else {
                    &variant.sources
                };
                let against = variant.against.as_deref().unwrap_or("base");
                for &machine in &group.machines {
                    builds.push(Build {
                        folder: format!("{}/{}/{name}", group.name, machine.folder()),
                        group: group.name.clone(),
                        variant: name.clone(),
                        against: (!group.lone && against != name).then(|| against.to_owned()),
                        stem: group.stem.clone(),
                        machine,
                        triple: machine.triple(group.abi),
                        sources: sources.clone(),
                        headers: group.headers.clone(),
                        compile: kept(compile),
                        link: kept(link),
                        pdb: !group.no_pdb && !variant.no_pdb,
                        oracle: group.oracle,
                        linked: group.oracle || group.linked,
                        com_descriptor: variant.com_descriptor,
                    });
                }
            }
        }
        Ok(builds)
    }
}

fn merged<const N: usize>(lists: [&Vec<String>; N]) -> Vec<String> {
    lists.into_iter().flatten().cloned().collect()
}
