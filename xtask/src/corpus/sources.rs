//! Sources of the corpus: published crates, fetched by cargo into the ignored folder.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::recipe::{Edit, Version};
use crate::run;

/// The folder with the sources of one side, fetched and edited. `corpus` is the ignored folder.
///
/// # Errors
/// Cargo cannot fetch the crate, or the edit does not fit the file.
pub(crate) fn prepare(
    version: &Version,
    pins: &BTreeMap<String, String>,
    corpus: &Path,
) -> Result<PathBuf> {
    let fetched = fetch(&version.package, &version.version, pins, corpus)?;
    let fetched = fetched.join(&version.folder);
    let Some(edit) = &version.edit else {
        return Ok(fetched);
    };
    let name = format!("{}-{}-mended", version.package, version.version);
    let mended = corpus.join("mended").join(name);
    if mended.exists() {
        fs::remove_dir_all(&mended)?;
    }
    copy_folder(&fetched, &mended)?;
    apply(edit, &mended)?;
    Ok(mended)
}

/// The manifest of a package that wants this version of a crate, and others beside it.
pub(crate) fn manifest(package: &str, version: &str, pins: &BTreeMap<String, String>) -> String {
    let mut text = format!(
        "[package]\nname = \"fetch\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n\
         [workspace]\n\n[dependencies]\n{package} = \"={version}\"\n"
    );
    for (package, version) in pins {
        text.push_str(&format!("{package} = \"={version}\"\n"));
    }
    text
}

/// Unpacks exactly this version of a crate, by `cargo vendor` for a manifest that wants it and
/// what is pinned.
fn fetch(
    package: &str,
    version: &str,
    pins: &BTreeMap<String, String>,
    corpus: &Path,
) -> Result<PathBuf> {
    let folder = corpus.join("crates").join(format!("{package}-{version}"));
    let unpacked = folder.join("vendor").join(package);
    if unpacked.exists() {
        return Ok(unpacked);
    }
    run::step(&format!("fetch {package} {version}"));
    fs::create_dir_all(folder.join("src"))?;
    fs::write(folder.join("src/lib.rs"), "")?;
    fs::write(folder.join("Cargo.toml"), manifest(package, version, pins))?;
    run::captured(
        Command::new("cargo")
            .current_dir(&folder)
            .args(["vendor", "--quiet", "vendor"]),
    )?;
    if !unpacked.exists() {
        bail!("cargo did not unpack {package} to {}", unpacked.display());
    }
    Ok(unpacked)
}

fn apply(edit: &Edit, folder: &Path) -> Result<()> {
    let path = folder.join(&edit.file);
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    // Published sources come with either kind of line end.
    let text = text.replace("\r\n", "\n");
    let from = edit.from.trim_matches('\n');
    let places = text.matches(from).count();
    if places != 1 {
        bail!(
            "{}: the text to be mended is there {places} times, not once",
            path.display()
        );
    }
    fs::write(&path, text.replace(from, edit.to.trim_matches('\n')))?;
    Ok(())
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// The sources that the patterns name, sorted, relative to the folder.
///
/// # Errors
/// A folder cannot be listed, or a pattern names nothing.
pub(crate) fn list(patterns: &[String], folder: &Path) -> Result<Vec<String>> {
    let mut sources = Vec::new();
    for pattern in patterns {
        let Some((parent, extension)) = pattern.rsplit_once("/*") else {
            sources.push(pattern.clone());
            continue;
        };
        let before = sources.len();
        let listed = fs::read_dir(folder.join(parent))
            .with_context(|| format!("{}: no folder {parent}", folder.display()))?;
        for entry in listed {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if name.ends_with(extension) {
                sources.push(format!("{parent}/{name}"));
            }
        }
        if sources.len() == before {
            bail!("{}: no source matches {pattern}", folder.display());
        }
        sources[before..].sort();
    }
    Ok(sources)
}
