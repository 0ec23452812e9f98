//! The pairs at hand: the demo, the largest that was built here, the largest that was released,
//! and the synthetic one.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use super::synthetic;
use crate::run;

/// Two images with PDBs beside them.
pub(super) struct Pair {
    pub(super) name: &'static str,
    pub(super) base: PathBuf,
    pub(super) fixed: PathBuf,
    pub(super) is_x64: bool,
}

impl Pair {
    fn new(name: &'static str, base: PathBuf, fixed: PathBuf) -> Option<Pair> {
        let machine = machine(&base)?;
        let is_x64 = machine == 0x8664;
        let complete = machine == self::machine(&fixed)?
            && [&base, &fixed].map(|side| side.with_extension("pdb").is_file()) == [true; 2];
        complete.then_some(Pair {
            name,
            base,
            fixed,
            is_x64,
        })
    }

    /// Bytes of the images and their PDBs.
    pub(super) fn size(&self) -> u64 {
        let pdbs = [&self.base, &self.fixed].map(|side| side.with_extension("pdb"));
        [&self.base, &self.fixed]
            .into_iter()
            .chain(&pdbs)
            .filter_map(|path| fs::metadata(path).ok())
            .map(|metadata| metadata.len())
            .sum()
    }
}

/// The pairs of these names, all where none is named.
///
/// # Errors
/// A name is not one of a pair, or the synthetic pair cannot be built.
pub(super) fn find(names: &[String], functions: u32) -> Result<Vec<Pair>> {
    const NAMES: [&str; 4] = ["demo", "built", "released", "synthetic"];
    if let Some(other) = names.iter().find(|name| !NAMES.contains(&name.as_str())) {
        bail!("{other} is none of {}", NAMES.join(", "));
    }
    let mut pairs = Vec::new();
    for name in NAMES {
        if !names.is_empty() && !names.iter().any(|wanted| wanted == name) {
            continue;
        }
        let root = run::root();
        let found = match name {
            "demo" => {
                let side = |side| root.join("fixtures/prebuilt/demo/x64").join(side);
                let image = |name| side(name).join("hp_demo.dll");
                Pair::new(name, image("base"), image("fixed"))
            }
            "built" => largest(name, &root.join("corpus/built"), built_partner),
            "released" => largest(name, &root.join("corpus/released"), released_partner),
            _ => {
                let sides = synthetic::build(&root.join("corpus/synthetic"), functions)?;
                sides.and_then(|[base, fixed]| Pair::new(name, base, fixed))
            }
        };
        match found {
            Some(pair) => pairs.push(pair),
            None => eprintln!("{name}: no pair at hand; `cargo xtask corpus` makes them"),
        }
    }
    Ok(pairs)
}

/// The x64 pair in the folder that has the most code; the file size stands for that.
fn largest(
    name: &'static str,
    folder: &Path,
    partner: impl Fn(&Path, &Path) -> Option<PathBuf>,
) -> Option<Pair> {
    let mut files = Vec::new();
    collect(folder, &mut files);
    files.sort();
    let pairs = files.into_iter().filter_map(|base| {
        let fixed = partner(folder, &base)?;
        let size = fs::metadata(&base).ok()?.len();
        let pair = Pair::new(name, base, fixed)?;
        pair.is_x64.then_some((size, pair))
    });
    // Of pairs of one size the first.
    let (_, pair) = pairs.reduce(|best, next| if next.0 > best.0 { next } else { best })?;
    Some(pair)
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.with_extension("pdb").is_file() && path.extension() != Some("pdb".as_ref()) {
            files.push(path);
        }
    }
}

/// `…/base/x.dll` has its fix in `…/fixed/x.dll`.
fn built_partner(_: &Path, base: &Path) -> Option<PathBuf> {
    let side = base.parent()?;
    let fixed = side.with_file_name("fixed").join(base.file_name()?);
    (side.file_name()? == "base" && fixed.is_file()).then_some(fixed)
}

/// `PACKAGE/VERSION/…/x.dll` has its fix in the next version that has such a file.
fn released_partner(folder: &Path, base: &Path) -> Option<PathBuf> {
    let mut inside = base.strip_prefix(folder).ok()?.components();
    let package = folder.join(inside.next()?);
    let version = inside.next()?;
    let versions = fs::read_dir(&package).ok()?.flatten();
    let mut later: Vec<PathBuf> = versions
        .filter(|entry| entry.file_name().as_os_str() > version.as_os_str())
        .map(|entry| entry.path().join(inside.as_path()))
        .filter(|path| path.is_file())
        .collect();
    later.sort();
    later.into_iter().next()
}

/// The machine of a PE.
fn machine(path: &Path) -> Option<u16> {
    let bytes = fs::read(path).ok()?;
    let header: [u8; 4] = *bytes.get(0x3c..)?.first_chunk()?;
    let at = usize::try_from(u32::from_le_bytes(header)).ok()?;
    let machine: [u8; 2] = *bytes.get(at.checked_add(4)?..)?.first_chunk()?;
    Some(u16::from_le_bytes(machine))
}
