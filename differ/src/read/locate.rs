//! Finding the PDB of a PE, in the places where debuggers look.

use std::path::{Path, PathBuf};

use crate::pe::CodeView;

/// Where else to look for PDBs.
#[derive(Clone, Debug, Default)]
pub struct SymbolPaths {
    /// Folders named by the user: searched for the file itself, then as a symbol store.
    pub folders: Vec<PathBuf>,
    /// Local stores of `_NT_SYMBOL_PATH`.
    pub stores: Vec<PathBuf>,
}

impl SymbolPaths {
    /// The folders given, and the local parts of a symbol path as `_NT_SYMBOL_PATH` holds it:
    /// `;`-separated entries of the form `FOLDER`, `srv*FOLDER*...` or `cache*FOLDER`. Entries
    /// that name a server are passed over; nothing is downloaded.
    pub fn new(folders: Vec<PathBuf>, symbol_path: Option<&str>) -> Self {
        let mut stores = Vec::new();
        for entry in symbol_path.unwrap_or_default().split(';') {
            let mut parts = entry.split('*');
            let first = parts.next().unwrap_or_default();
            let is_keyword =
                ["srv", "symsrv", "cache"].contains(&first.to_ascii_lowercase().as_str());
            let rest: Vec<&str> = if is_keyword {
                parts.collect()
            } else {
                vec![first]
            };
            let local = |part: &&str| {
                !part.is_empty()
                    && !part.contains("://")
                    && !part.to_ascii_lowercase().ends_with(".dll")
            };
            stores.extend(rest.into_iter().filter(local).map(PathBuf::from));
        }
        Self { folders, stores }
    }
}

/// Every place the PDB of `pe` may be, in the order of looking.
pub(super) fn candidates(pe: &Path, codeview: &CodeView, paths: &SymbolPaths) -> Vec<PathBuf> {
    // The linker may have run on Windows, so both separators count.
    let name = codeview
        .pdb_path
        .rsplit(['/', '\\'])
        .next()
        .unwrap_or_default();
    let key = format!("{}{:X}", codeview.guid.replace('-', ""), codeview.age);
    let mut found = Vec::new();
    let beside = pe.parent().unwrap_or(Path::new(""));
    if is_file_name(name) {
        found.push(beside.join(name));
    }
    found.push(pe.with_extension("pdb"));
    if Path::new(&codeview.pdb_path).is_absolute() {
        found.push(PathBuf::from(&codeview.pdb_path));
    }
    if is_file_name(name) {
        for folder in paths.folders.iter().chain(&paths.stores) {
            found.push(folder.join(name).join(&key).join(name));
            found.push(folder.join(name));
        }
    }
    found.dedup();
    found
}

/// Whether `name` stays inside a folder it is joined to.
fn is_file_name(name: &str) -> bool {
    !name.is_empty() && name != "." && name != ".."
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbol_path_entries() {
        let path =
            "srv*/store*https://example.com/symbols;/plain;cache*/cache;symsrv*symsrv.dll*/x*/y;";
        let paths = SymbolPaths::new(Vec::new(), Some(path));
        let expected: Vec<PathBuf> = ["/store", "/plain", "/cache", "/x", "/y"]
            .map(Into::into)
            .into();
        assert_eq!(paths.stores, expected);
    }

    #[test]
    fn looks_beside_the_file_then_in_stores() {
        let codeview = CodeView {
            guid: "0A1B2C3D-0000-0000-0000-0123456789AB".into(),
            age: 11,
            pdb_path: r"D:\build\out\lib.pdb".into(),
        };
        let paths = SymbolPaths {
            folders: vec!["/sym".into()],
            stores: vec![],
        };
        let found = candidates(Path::new("dir/renamed.dll"), &codeview, &paths);
        let expected: Vec<PathBuf> = [
            "dir/lib.pdb",
            "dir/renamed.pdb",
            "/sym/lib.pdb/0A1B2C3D0000000000000123456789ABB/lib.pdb",
            "/sym/lib.pdb",
        ]
        .map(Into::into)
        .into();
        assert_eq!(found, expected);
    }
}
