//! `cargo xtask fixtures`: the prebuilt images from their sources, byte for byte.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::compile;
use crate::recipe::Recipes;
use crate::run;
use crate::toolchain::Toolchain;

/// Where the versions of the tools that made the prebuilt files are noted.
const TOOLCHAIN_NOTE: &str = "toolchain.txt";

/// What can be asked of this chore.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Change nothing; fail where a rebuilt file differs from the one in the repository
    #[arg(long)]
    check: bool,
    /// Only images whose folder below prebuilt/ contains this text
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
}

impl Arguments {
    /// Compare everything.
    pub(crate) fn check() -> Arguments {
        Arguments {
            check: true,
            only: None,
        }
    }
}

/// Builds every image and writes it, or compares it.
///
/// # Errors
/// A build fails, a file cannot be written, or (with `check`) a file differs.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let fixtures = run::root().join("fixtures");
    let prebuilt = fixtures.join("prebuilt");
    let builds = Recipes::read(&fixtures.join("recipes.toml"))?.builds()?;
    let tools = Toolchain::find()?;
    let mut found = Findings::default();
    let version = tools.version()?;
    let note = prebuilt.join(TOOLCHAIN_NOTE);
    if arguments.check {
        let recorded = fs::read_to_string(&note).unwrap_or_default();
        if recorded != version {
            bail!(
                "the prebuilt fixtures come from other tools, so their bytes cannot be checked\n\
                 expected:\n{recorded}found:\n{version}\
                 hint: `cargo xtask fixtures` rebuilds them with the tools at hand"
            );
        }
    } else {
        put(&note, version.as_bytes())?;
    }
    found.expected.insert(note);
    let mut wanted = Vec::new();
    for build in &builds {
        let folder = prebuilt.join(&build.folder);
        let dll = folder.join(format!("{}.dll", build.stem));
        let pdb = folder.join(format!("{}.pdb", build.stem));
        found.expected.insert(dll.clone());
        if build.pdb {
            found.expected.insert(pdb.clone());
        }
        let only = arguments.only.as_ref();
        if only.is_none_or(|only| build.folder.contains(only)) {
            wanted.push((build, dll, pdb));
        }
    }
    let pairs = fixtures.join("pairs");
    let images = run::in_parallel(wanted, |(build, dll, pdb)| {
        let image = compile::build(&tools, build, &pairs)
            .with_context(|| format!("cannot build {}", build.folder))?;
        Ok((image, dll, pdb))
    })?;
    for (image, dll, pdb) in &images {
        for (path, bytes) in [(dll, Some(&image.dll)), (pdb, image.pdb.as_ref())] {
            match bytes {
                Some(bytes) if arguments.check => found.compare(path, bytes),
                Some(bytes) => put(path, bytes)?,
                None => {}
            }
        }
    }
    eprintln!("{} images", images.len());
    found.strays(&prebuilt, arguments.check)?;
    found.verdict()
}

/// What `--check` found out.
#[derive(Default)]
struct Findings {
    expected: BTreeSet<PathBuf>,
    wrong: Vec<String>,
}

impl Findings {
    fn compare(&mut self, path: &Path, rebuilt: &[u8]) {
        match fs::read(path) {
            Err(error) => self.wrong.push(format!("{}: {error}", path.display())),
            Ok(kept) if kept != rebuilt => {
                let same = kept.iter().zip(rebuilt).take_while(|(a, b)| a == b).count();
                self.wrong.push(format!(
                    "{}: differs from the rebuilt file at {same:#x} ({} bytes kept, {} rebuilt)",
                    path.display(),
                    kept.len(),
                    rebuilt.len(),
                ));
            }
            Ok(_) => {}
        }
    }

    /// Files that no recipe makes: removed, or reported when only checking.
    fn strays(&mut self, prebuilt: &Path, check: bool) -> Result<()> {
        let mut folders = vec![prebuilt.to_path_buf()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder)? {
                let path = entry?.path();
                if path.is_dir() {
                    folders.push(path);
                } else if !self.expected.contains(&path) && check {
                    self.wrong
                        .push(format!("{}: no recipe makes this file", path.display()));
                } else if !self.expected.contains(&path) {
                    fs::remove_file(&path)?;
                }
            }
        }
        Ok(())
    }

    fn verdict(self) -> Result<()> {
        if self.wrong.is_empty() {
            return Ok(());
        }
        bail!(
            "the prebuilt fixtures are not what their sources give\n{}",
            self.wrong.join("\n")
        )
    }
}

fn put(path: &Path, bytes: &[u8]) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}
