//! Finding the pairs of two trees.
//!
//! A pair is a PE image that stands at one relative path in both trees. Links to folders are not
//! followed, so no tree is endless; links to files are.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::{input, output, render};

/// Version of the plan's form.
pub(super) const SCHEMA: &str = "hpbuild-batch-plan-1";

/// Folders inside folders that are looked into.
const MAX_DEPTH: usize = 64;
/// Files and folders of one tree.
const MAX_ENTRIES: usize = 1 << 20;

/// What is to be compared.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Plan {
    schema: String,
    /// The trees as the user named them.
    pub(super) base: PathBuf,
    pub(super) fixed: PathBuf,
    /// Relative paths of the pairs, with `/` between folders, sorted.
    pub(super) pairs: Vec<String>,
    /// Images without a partner.
    pub(super) only_base: Vec<String>,
    pub(super) only_fixed: Vec<String>,
    /// What could not be looked at, or is an image on one side alone.
    pub(super) problems: Vec<Problem>,
}

/// A file that is not compared, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Problem {
    pub(super) path: String,
    pub(super) reason: String,
}

/// What stands at a path.
enum Found {
    Image,
    Other,
    Unreadable(String),
}

impl Plan {
    /// Reads a plan, which may come from another machine.
    ///
    /// # Errors
    /// It cannot be read, is of another version, or names a path outside its trees.
    pub(super) fn read(path: &Path) -> Result<Self, Failure> {
        let fail =
            |error: &dyn std::fmt::Display| Failure::new(format!("{}: {error}", path.display()));
        let plan: Plan =
            serde_json::from_str(&input::read_text(path)?).map_err(|error| fail(&error))?;
        if plan.schema != SCHEMA {
            let found = render::plain(&plan.schema);
            return Err(fail(&format!("schema: expected {SCHEMA}, found {found}")));
        }
        if let Some(pair) = plan.pairs.iter().find(|pair| !is_inside(pair)) {
            let pair = render::plain(pair);
            return Err(fail(&format!(
                "pairs: expected a path below the trees, found {pair}"
            )));
        }
        Ok(plan)
    }

    pub(super) fn write(&self, path: &Path) -> Result<(), Failure> {
        output::write_file(path, render::json(self).as_bytes())
    }

    pub(super) fn summary(&self) -> String {
        format!(
            "{} pairs, {} only in the base, {} only in the fixed tree, {} problems\n",
            self.pairs.len(),
            self.only_base.len(),
            self.only_fixed.len(),
            self.problems.len()
        )
    }
}

/// Whether a relative path stays below its tree.
fn is_inside(path: &str) -> bool {
    !path.is_empty()
        && Path::new(path)
            .components()
            .all(|part| matches!(part, Component::Normal(_)))
}

/// Finds the pairs of two trees.
///
/// # Errors
/// A tree is no folder that can be listed, or has more than a million entries.
pub(super) fn find(base: &Path, fixed: &Path) -> Result<Plan, Failure> {
    let mut problems = Vec::new();
    let base_files = files(base, &mut problems)?;
    let fixed_files = files(fixed, &mut problems)?;
    let mut plan = Plan {
        schema: SCHEMA.to_owned(),
        base: base.to_owned(),
        fixed: fixed.to_owned(),
        pairs: Vec::new(),
        only_base: Vec::new(),
        only_fixed: Vec::new(),
        problems,
    };
    let mut paths: BTreeMap<&String, [Option<&PathBuf>; 2]> = BTreeMap::new();
    for (side, files) in [&base_files, &fixed_files].into_iter().enumerate() {
        for (relative, path) in files {
            paths.entry(relative).or_default()[side] = Some(path);
        }
    }
    for (relative, [base, fixed]) in paths {
        let [base, fixed] = [base, fixed].map(|path| path.map(|path| look(path)));
        let relative = relative.clone();
        let reason = match (base, fixed) {
            (Some(Found::Image), Some(Found::Image)) => {
                plan.pairs.push(relative);
                continue;
            }
            (Some(Found::Image), None) => {
                plan.only_base.push(relative);
                continue;
            }
            (None, Some(Found::Image)) => {
                plan.only_fixed.push(relative);
                continue;
            }
            (Some(Found::Unreadable(reason)), _) => format!("base: {reason}"),
            (_, Some(Found::Unreadable(reason))) => format!("fixed: {reason}"),
            (Some(Found::Image), Some(Found::Other)) => "not a PE image in the fixed tree".into(),
            (Some(Found::Other), Some(Found::Image)) => "not a PE image in the base tree".into(),
            _ => continue,
        };
        plan.problems.push(Problem {
            path: relative,
            reason,
        });
    }
    Ok(plan)
}

/// All files of a tree by relative path.
fn files(root: &Path, problems: &mut Vec<Problem>) -> Result<Vec<(String, PathBuf)>, Failure> {
    let fail = |error: &dyn std::fmt::Display| Failure::new(format!("{}: {error}", root.display()));
    if !std::fs::metadata(root)
        .map_err(|error| fail(&error))?
        .is_dir()
    {
        return Err(fail(&"expected a folder, found a file"));
    }
    let mut found = Vec::new();
    let mut entries_seen = 0;
    let mut folders = vec![(root.to_owned(), String::new(), 0)];
    while let Some((folder, prefix, depth)) = folders.pop() {
        let mut problem = |path: &str, reason: String| {
            problems.push(Problem {
                path: path.to_owned(),
                reason,
            });
        };
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if prefix.is_empty() => return Err(fail(&error)),
            Err(error) => {
                problem(&prefix, error.to_string());
                continue;
            }
        };
        for entry in entries {
            entries_seen += 1;
            if entries_seen > MAX_ENTRIES {
                return Err(fail(&format!("expected at most {MAX_ENTRIES} entries")));
            }
            let entry = entry.map_err(|error| fail(&error))?;
            let name = entry.file_name();
            let shown = format!("{prefix}{}", name.to_string_lossy());
            let Some(name) = name.to_str() else {
                problem(&shown, "expected a name in UTF-8".into());
                continue;
            };
            let relative = format!("{prefix}{name}");
            match entry.file_type() {
                Ok(kind) if kind.is_dir() && depth >= MAX_DEPTH => {
                    problem(&relative, format!("more than {MAX_DEPTH} folders deep"));
                }
                Ok(kind) if kind.is_dir() => {
                    folders.push((entry.path(), format!("{relative}/"), depth + 1));
                }
                // A link to a folder is passed over, one to a file is as good as the file.
                Ok(_) if entry.path().is_dir() => {}
                Ok(_) => found.push((relative, entry.path())),
                Err(error) => problem(&relative, error.to_string()),
            }
        }
    }
    found.sort();
    problems.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(found)
}

/// Looks whether a file is a PE image: its DOS header leads to the signature.
fn look(path: &Path) -> Found {
    let unreadable = |error: std::io::Error| Found::Unreadable(error.to_string());
    match std::fs::metadata(path) {
        // Opening a pipe can wait for ever.
        Ok(metadata) if !metadata.is_file() => return Found::Other,
        Ok(_) => {}
        Err(error) => return unreadable(error),
    }
    match is_image(path) {
        Ok(true) => Found::Image,
        Ok(false) => Found::Other,
        Err(error) => unreadable(error),
    }
}

fn is_image(path: &Path) -> std::io::Result<bool> {
    let mut file = File::open(path)?;
    let mut header = [0; 64];
    let mut signature = [0; 4];
    let filled = |result: std::io::Result<()>| match result {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    };
    if !filled(file.read_exact(&mut header))? || !header.starts_with(b"MZ") {
        return Ok(false);
    }
    // `e_lfanew`.
    let [.., a, b, c, d] = header;
    let at = u32::from_le_bytes([a, b, c, d]);
    file.seek(SeekFrom::Start(at.into()))?;
    Ok(filled(file.read_exact(&mut signature))? && signature == *b"PE\0\0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_inside() {
        assert!(is_inside("a/b.dll"));
        for path in ["", "../a.dll", "/a.dll", "a/../../b.dll", "./a.dll"] {
            assert!(!is_inside(path), "{path}");
        }
    }
}
