//! Finding the PDB of a PE, in the places where debuggers look.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use hpbuild_metadata::Side;

use super::pdb::{self, OpenPdb};
use crate::error::Error;
use crate::pe::{CodeView, Pe};

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

/// A place where a PDB may be: a folder, and what to find in it. Windows does not tell upper from
/// lower case, and neither do the names that its linkers write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    folder: PathBuf,
    names: Vec<String>,
}

/// Bytes of a `file.ptr` that are read: a word and a path.
const MAX_POINTER: u64 = 0x1000;

impl Place {
    fn new(folder: &Path, names: &[&str]) -> Self {
        Self {
            folder: folder.to_owned(),
            names: names.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    /// The place as it is spelled.
    pub(super) fn path(&self) -> PathBuf {
        self.names
            .iter()
            .fold(self.folder.clone(), |path, name| path.join(name))
    }

    /// The files that are there, in whatever case, the one that is spelled so first; where a store
    /// has a pointer instead (`file.ptr`), the file that it names. Systems that tell upper from
    /// lower case may have several folders of one name. A compressed PDB counts where a plain one
    /// would, behind it.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        let Some((last, folders)) = self.names.split_last() else {
            return Vec::new();
        };
        let mut open = vec![self.folder.clone()];
        for name in folders {
            open = open.iter().flat_map(|it| entries(it, name)).collect();
        }
        let is_in_store = folders.len() > 1;
        let compressed = compressed_name(last);
        let files = |folder: &PathBuf| {
            let mut found = entries(folder, last);
            let compressed = compressed.iter().flat_map(|name| entries(folder, name));
            found.extend(compressed);
            found.retain(|path| path.is_file());
            if found.is_empty() && is_in_store {
                found.extend(pointed_at(folder));
            }
            found
        };
        open.iter().flat_map(files).collect()
    }
}

/// What tools call the compressed form of a PDB of this name.
fn compressed_name(name: &str) -> Option<String> {
    let (stem, extension) = name.rsplit_once('.')?;
    let is_plain = extension.eq_ignore_ascii_case("pdb") && !stem.is_empty();
    is_plain.then(|| format!("{stem}.pdz"))
}

/// The entries of a folder with this name: the one that is spelled so, then those that differ by
/// case.
fn entries(folder: &Path, name: &str) -> Vec<PathBuf> {
    let exact = folder.join(name);
    let listed = std::fs::read_dir(folder).into_iter().flatten();
    let alike = |entry: &std::fs::DirEntry| {
        let found = entry.file_name();
        let is_alike = |found: &str| found != name && found.eq_ignore_ascii_case(name);
        found.to_str().is_some_and(is_alike)
    };
    let others = listed.filter_map(Result::ok).filter(alike);
    let mut found: Vec<PathBuf> = others.map(|entry| entry.path()).collect();
    found.sort();
    // A system that does not tell case apart finds it under another spelling as well.
    if exact.exists() {
        found.insert(0, exact);
    }
    found
}

/// What the pointer in a folder of a store leads to (`PATH:` and a file, as `symstore /p` writes
/// it), where this system has it.
fn pointed_at(folder: &Path) -> Option<PathBuf> {
    let mut found = entries(folder, "file.ptr").into_iter();
    let file = found.find(|path| path.is_file())?;
    let mut text = String::new();
    let opened = std::fs::File::open(file).ok()?;
    opened.take(MAX_POINTER).read_to_string(&mut text).ok()?;
    let path = Path::new(text.trim().strip_prefix("PATH:")?);
    (path.is_absolute() && path.is_file()).then(|| path.to_owned())
}

/// Every place the PDB of `pe` may be, in the order of looking.
pub(super) fn candidates(pe: &Path, codeview: &CodeView, paths: &SymbolPaths) -> Vec<Place> {
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
        found.push(Place::new(beside, &[name]));
    }
    let renamed = pe.with_extension("pdb");
    if let Some(name) = renamed.file_name().and_then(|name| name.to_str()) {
        found.push(Place::new(beside, &[name]));
    }
    let linked = Path::new(&codeview.pdb_path);
    if let (true, Some(folder)) = (linked.is_absolute(), linked.parent()) {
        found.push(Place::new(folder, &[name]));
    }
    if is_file_name(name) {
        for folder in paths.folders.iter().chain(&paths.stores) {
            found.push(Place::new(folder, &[name, &key, name]));
            // Stores of two tiers have `index2.txt` and one more level, by the first two letters.
            let first: String = name.chars().take(2).collect();
            if !entries(folder, "index2.txt").is_empty() {
                found.push(Place::new(folder, &[&first, name, &key, name]));
            }
            found.push(Place::new(folder, &[name]));
        }
    }
    found.dedup();
    found
}

/// Whether `name` stays inside a folder it is joined to.
fn is_file_name(name: &str) -> bool {
    !name.is_empty() && name != "." && name != ".."
}

/// The first PDB in the places to look whose identity is the one the PE names.
pub(super) fn find_pdb<S: Side>(
    pe: &Pe<S>,
    named: Option<&Path>,
    paths: &SymbolPaths,
) -> Result<(PathBuf, OpenPdb), Error> {
    let Some(codeview) = &pe.codeview else {
        return Err(Error::NoDebugDirectory {
            path: pe.path.clone(),
        });
    };
    let found = match named {
        Some(path) => vec![(path.to_owned(), vec![path.to_owned()])],
        None => candidates(&pe.path, codeview, paths)
            .iter()
            .map(|place| (place.path(), place.files()))
            .collect(),
    };
    let looked: Vec<PathBuf> = found.iter().map(|(place, _)| place.clone()).collect();
    let mut unusable = None;
    for path in found.into_iter().flat_map(|(_, files)| files) {
        // A stale or broken file beside the PE must not hide the right one in a store.
        let pdb = match pdb::open(&path) {
            Ok(pdb) => pdb,
            Err(error) => {
                unusable.get_or_insert(error);
                continue;
            }
        };
        if pdb.guid == codeview.guid && pdb.age == codeview.age {
            return Ok((path, pdb));
        }
        unusable.get_or_insert(Error::PdbMismatch {
            pe: pe.path.clone(),
            pdb: path,
            expected: Box::new((codeview.guid.clone(), codeview.age)),
            found: Box::new((pdb.guid, pdb.age)),
            looked: looked.clone(),
        });
    }
    Err(unusable.unwrap_or(Error::NoPdb {
        path: pe.path.clone(),
        expected: (codeview.guid.clone(), codeview.age),
        looked,
    }))
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
        let found: Vec<PathBuf> = found.iter().map(Place::path).collect();
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

    #[test]
    fn other_case_two_tiers_and_pointers() {
        let folder = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, text).unwrap();
            path
        };
        let plain = put("plain/LIB.PDB", "");
        let in_store = put("store/Lib.pdb/ab1/lib.PDB", "");
        let in_tiers = put("tiers/LI/lib.pdb/AB1/lib.pdb", "");
        let target = put("elsewhere/other.pdb", "");
        put(
            "pointers/lib.pdb/AB1/file.ptr",
            &format!("PATH:{}\r\n", target.display()),
        );
        put("lost/lib.pdb/AB1/file.ptr", r"PATH:\\server\share\lib.pdb");
        put("words/lib.pdb/AB1/file.ptr", "MSG: moved to the archive");
        // A folder of the same name that has nothing does not hide the one that has.
        let beside = put("both/lib.pdb/ab1/lib.pdb", "");
        put("both/lib.pdb/AB1/readme.txt", "");
        put("both/LIB.pdb/AB1/readme.txt", "");
        let find = |root: &str, names: &[&str]| {
            let found = Place::new(&folder.path().join(root), names).files();
            assert!(found.len() < 2, "{found:?}");
            found.into_iter().next()
        };
        let key = ["lib.pdb", "AB1", "lib.pdb"];
        assert_eq!(find("plain", &["lib.pdb"]), Some(plain));
        assert_eq!(find("store", &key), Some(in_store));
        assert_eq!(
            find("tiers", &["li", key[0], key[1], key[2]]),
            Some(in_tiers)
        );
        assert_eq!(find("pointers", &key), Some(target));
        assert_eq!(find("both", &key), Some(beside));
        for root in ["lost", "words", "none"] {
            assert_eq!(find(root, &key), None, "{root}");
        }
        // A compressed one has a name of its own.
        let compressed = put("compressed/LIB.pdz", "");
        assert_eq!(find("compressed", &["lib.pdb"]), Some(compressed));
        assert!(find("compressed", &["lib.PDB"]).is_some());
        assert_eq!(find("compressed", &["lib"]), None);
        let compressed = put("packed/lib.pdb/AB1/lib.pdz", "");
        assert_eq!(find("packed", &key), Some(compressed));
        // A folder of the PDB's name is none.
        assert_eq!(find("store", &["lib.pdb"]), None);
    }
}
