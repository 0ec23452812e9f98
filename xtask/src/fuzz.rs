//! `cargo xtask fuzz`: the fuzz targets, for a while each.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::run;

/// What can be asked of this chore.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The target; all of them where none is named
    target: Option<String>,
    /// How long each target runs
    #[arg(long, value_name = "N", default_value_t = 60)]
    seconds: u32,
}

/// Runs the targets one after the other.
///
/// # Errors
/// A target is not known, does not compile, or finds something: cargo-fuzz says where it put the
/// input.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let folder = run::root().join("fuzz");
    let targets = targets(&folder)?;
    let chosen = match &arguments.target {
        None => targets,
        Some(target) if targets.contains(target) => vec![target.clone()],
        Some(target) => bail!(
            "no fuzz target `{target}`\nhint: there are {}",
            targets.join(", ")
        ),
    };
    if run::captured(Command::new("cargo").args(["fuzz", "--version"])).is_err() {
        run::step("cargo install --locked cargo-fuzz");
        run::checked(Command::new("cargo").args(["install", "--locked", "cargo-fuzz"]))?;
    }
    for target in chosen {
        run::step(&format!("fuzz {target} for {} s", arguments.seconds));
        // What it finds is kept in corpus/; seeds/ holds what it could hardly find by itself.
        let kept = folder.join("corpus").join(&target);
        fs::create_dir_all(&kept)?;
        let seeds = folder.join("seeds").join(&target);
        let form = Form::of(&target);
        form.sow(&kept)?;
        // Hostile sizes must not become allocations. Images that are applied may claim 256 MiB, and
        // are there several times.
        run::checked(
            Command::new("cargo")
                .current_dir(&folder)
                // One thread, so that the same input always takes the same way.
                .env("RAYON_NUM_THREADS", "1")
                .args(["+nightly", "fuzz", "run", &target])
                .arg(&kept)
                .args(seeds.exists().then_some(&seeds))
                .arg("--")
                .arg(format!("-max_total_time={}", arguments.seconds))
                .args(["-rss_limit_mb=2048", "-malloc_limit_mb=512", "-timeout=10"])
                .args(form.limits()),
        )?;
    }
    Ok(())
}

/// What the input of a target is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// A whole image.
    Image,
    /// The number of a prebuilt pair, and changes to it.
    Changes,
    /// Something else.
    Own,
}

impl Form {
    fn of(target: &str) -> Self {
        match target {
            "pe" | "load_image" => Form::Image,
            "apply" | "dwarf" | "patch" | "pdb" | "signed" => Form::Changes,
            _ => Form::Own,
        }
    }

    /// Changes count whole: short inputs change nothing, and long ones as much as they may.
    fn limits(self) -> &'static [&'static str] {
        match self {
            Form::Changes => &["-max_len=130", "-len_control=0"],
            Form::Image | Form::Own => &[],
        }
    }

    /// Puts what is worth starting from into `folder`: prebuilt images, or the numbers of pairs.
    fn sow(self, folder: &Path) -> Result<()> {
        match self {
            Form::Image => {
                let prebuilt = run::root().join("fixtures/prebuilt");
                for (index, image) in images(&prebuilt)?.iter().enumerate() {
                    fs::copy(image, folder.join(format!("prebuilt-{index}")))?;
                }
            }
            Form::Changes => {
                for number in 0..=u8::MAX {
                    fs::write(folder.join(format!("pair-{number}")), [number, 0])?;
                }
            }
            Form::Own => {}
        }
        Ok(())
    }
}

/// One small image of each group and machine, of those that are prebuilt.
fn images(prebuilt: &Path) -> Result<Vec<PathBuf>> {
    const SMALL: u64 = 0x4000;
    let inside = |folder: &Path| -> Result<Vec<PathBuf>> {
        if !folder.is_dir() {
            return Ok(Vec::new());
        }
        let entries = fs::read_dir(folder)?.map(|entry| Ok(entry?.path()));
        let mut paths = entries.collect::<Result<Vec<_>>>()?;
        paths.sort();
        Ok(paths)
    };
    let mut images = Vec::new();
    for group in inside(prebuilt)? {
        for machine in inside(&group)? {
            let mut files = Vec::new();
            for variant in inside(&machine)? {
                files.extend(inside(&variant)?);
            }
            let is_image = |path: &PathBuf| {
                path.extension().is_some_and(|it| it == "dll")
                    && fs::metadata(path).is_ok_and(|file| file.len() <= SMALL)
            };
            images.extend(files.into_iter().find(is_image));
        }
    }
    Ok(images)
}

/// The targets by name. Every file must be declared: cargo would pass over it in silence.
fn targets(folder: &Path) -> Result<Vec<String>> {
    let manifest = folder.join("Cargo.toml");
    let text = fs::read_to_string(&manifest)
        .with_context(|| format!("cannot read {}", manifest.display()))?;
    let mut targets = Vec::new();
    for entry in fs::read_dir(folder.join("fuzz_targets"))? {
        let file = entry?.file_name().to_string_lossy().into_owned();
        let Some(name) = file.strip_suffix(".rs") else {
            continue;
        };
        if !text.contains(&format!("path = \"fuzz_targets/{file}\"")) {
            bail!("fuzz/fuzz_targets/{file} is not declared in fuzz/Cargo.toml");
        }
        targets.push(name.to_owned());
    }
    targets.sort();
    Ok(targets)
}
