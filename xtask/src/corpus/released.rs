//! Released binaries, fetched by the package clients and unpacked.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::compared::{self, Pair};
use crate::run;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Released {
    #[serde(default)]
    npm: Vec<Package>,
    #[serde(default)]
    wheel: Vec<Package>,
    #[serde(default)]
    debian: Vec<Package>,
    #[serde(default)]
    pair: Vec<Pair>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Package {
    package: String,
    /// Exact versions; none means the one that the system would install.
    #[serde(default)]
    versions: Vec<String>,
    /// The platform tag of a wheel.
    platform: Option<String>,
}

/// Fetches every package of the list into `out/PACKAGE/VERSION/` and notes what was fetched. A
/// package that cannot be had does not keep the others away. Then compares the pairs among them.
///
/// # Errors
/// At least one package could not be fetched, or the differ says of a pair what is not so.
pub(crate) fn fetch(list: &Path, out: &Path) -> Result<()> {
    let text =
        fs::read_to_string(list).with_context(|| format!("cannot read {}", list.display()))?;
    let list: Released = toml::from_str(&text).context("the list of released binaries is wrong")?;
    let mut failed = Vec::new();
    type Client = fn(&Package, &str, &Path) -> Result<()>;
    let clients: [(&[Package], Client); 3] = [
        (&list.npm, npm),
        (&list.wheel, wheel),
        (&list.debian, debian),
    ];
    for (packages, client) in clients {
        for package in packages {
            for version in versions(package) {
                let folder = out.join(&package.package).join(version);
                if folder.exists() {
                    continue;
                }
                run::step(&format!("fetch {} {version}", package.package));
                if let Err(error) = unpack(package, version, &folder, client) {
                    failed.push(format!("{} {version}: {error:#}", package.package));
                }
            }
        }
    }
    note(out)?;
    if failed.is_empty() {
        return compared::compare(&list.pair, out);
    }
    bail!("some packages could not be fetched\n{}", failed.join("\n"))
}

fn versions(package: &Package) -> Vec<&str> {
    if package.versions.is_empty() {
        return vec!["current"];
    }
    package.versions.iter().map(String::as_str).collect()
}

/// Runs the client in a folder beside the target, which only gets its name when complete.
fn unpack(
    package: &Package,
    version: &str,
    folder: &Path,
    client: fn(&Package, &str, &Path) -> Result<()>,
) -> Result<()> {
    let mut partial = folder.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    if partial.exists() {
        fs::remove_dir_all(&partial)?;
    }
    fs::create_dir_all(&partial)?;
    client(package, version, &partial)?;
    prune(&partial)?;
    fs::rename(&partial, folder)?;
    Ok(())
}

fn npm(package: &Package, version: &str, folder: &Path) -> Result<()> {
    let what = format!("{}@{version}", package.package);
    run::captured(
        Command::new("npm")
            .current_dir(folder)
            .args(["pack", "--silent", &what]),
    )?;
    let archive = only_file(folder)?;
    run::captured(
        Command::new("tar")
            .current_dir(folder)
            .arg("-xzf")
            .arg(&archive),
    )?;
    fs::remove_file(archive)?;
    Ok(())
}

fn wheel(package: &Package, version: &str, folder: &Path) -> Result<()> {
    let platform = package
        .platform
        .as_deref()
        .context("a wheel needs a platform")?;
    run::captured(
        Command::new("python3")
            .current_dir(folder)
            .args(["-m", "pip", "download", "--quiet", "--no-deps"])
            .args(["--disable-pip-version-check", "--only-binary", ":all:"])
            .args(["--platform", platform, "--python-version", "3.12"])
            .arg(format!("{}=={version}", package.package)),
    )?;
    let archive = only_file(folder)?;
    run::captured(
        Command::new("python3")
            .current_dir(folder)
            .args(["-m", "zipfile", "-e"])
            .arg(&archive)
            .arg("."),
    )?;
    fs::remove_file(archive)?;
    Ok(())
}

fn debian(package: &Package, _version: &str, folder: &Path) -> Result<()> {
    run::captured(Command::new("apt-get").current_dir(folder).args([
        "download",
        "--quiet",
        &package.package,
    ]))?;
    let archive = only_file(folder)?;
    run::captured(
        Command::new("dpkg-deb")
            .current_dir(folder)
            .arg("-x")
            .arg(&archive)
            .arg("."),
    )?;
    fs::remove_file(archive)?;
    Ok(())
}

/// The one file that a client left in the folder.
fn only_file(folder: &Path) -> Result<PathBuf> {
    let files: Vec<PathBuf> = fs::read_dir(folder)?
        .map(|entry| Ok(entry?.path()))
        .collect::<std::io::Result<_>>()?;
    match files.as_slice() {
        [file] => Ok(file.clone()),
        other => bail!(
            "expected one file in {}, found {}",
            folder.display(),
            other.len()
        ),
    }
}

/// Removes everything but images and their PDBs: the packages hold far more than that.
fn prune(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            prune(&path)?;
            // Fails where something is left, as it should.
            let _ = fs::remove_dir(&path);
        } else if !entry.file_type()?.is_file() || !is_binary(&path) {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

/// Writes the SHA-256 of every image and PDB below the folder.
fn note(out: &Path) -> Result<()> {
    let mut folders = vec![out.to_path_buf()];
    let mut lines = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let path = entry.path();
            // Packages may link to anywhere.
            let kind = entry.file_type()?;
            if kind.is_dir() {
                folders.push(path);
            } else if kind.is_file() && is_binary(&path) {
                let digest = Sha256::digest(fs::read(&path)?);
                let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
                let name = path.strip_prefix(out).unwrap_or(&path);
                lines.push(format!("{digest}  {}\n", name.display()));
            }
        }
    }
    lines.sort_by(|one, other| one[64..].cmp(&other[64..]));
    fs::write(out.join("manifest.txt"), lines.concat())?;
    println!("{} images and PDBs in {}", lines.len(), out.display());
    Ok(())
}

fn is_binary(path: &Path) -> bool {
    let extension = path.extension().unwrap_or_default().to_ascii_lowercase();
    ["dll", "exe", "node", "pdb", "sys"]
        .iter()
        .any(|it| extension == *it)
}
