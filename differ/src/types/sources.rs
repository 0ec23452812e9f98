//! Which sources define a type. C has no rule that a name means the same in all of them.

use std::collections::{BTreeMap, BTreeSet};

use ms_pdb::types::{TypeData, TypeIndex};

use super::{CodeViewTypes, hash_of};

/// For type indexes the files that define the type, without folders: these differ where the build ran
/// elsewhere.
pub(crate) type Sources = BTreeMap<u32, BTreeSet<String>>;

impl CodeViewTypes {
    /// All full definitions with this unique name.
    pub(super) fn definitions_of(&self, name: &[u8]) -> impl Iterator<Item = TypeIndex> {
        let further = self.further.get(&hash_of(name)).into_iter().flatten();
        let is_it = |index: &&TypeIndex| self.name_of(**index).is_some_and(|(own, _)| own == name);
        let further: Vec<TypeIndex> = further.filter(is_it).copied().collect();
        self.definition_of(name).into_iter().chain(further)
    }

    /// The files that define types. `names` is the PDB's table of file names.
    pub(crate) fn sources(&self, names: &[u8]) -> Sources {
        let mut found = Sources::new();
        for record in self.items.indexes().filter_map(|it| self.items.record(it)) {
            let (ty, file) = match record.parse() {
                Ok(TypeData::UdtSrcLine(it)) => (it.ty.get(), self.text(it.src.get())),
                Ok(TypeData::UdtModSrcLine(it)) => (it.ty.get(), text_in(names, it.src.get())),
                _ => continue,
            };
            if let Some(file) = file {
                found.entry(ty.0).or_default().insert(file_name(&file));
            }
        }
        found
    }

    /// A text of the item stream.
    pub(super) fn text(&self, index: u32) -> Option<String> {
        match self.items.record(TypeIndex(index))?.parse().ok()? {
            TypeData::StringId(text) => Some(text.name.to_string()),
            _ => None,
        }
    }
}

pub(super) fn text_in(names: &[u8], at: u32) -> Option<String> {
    let rest = names.get(at as usize..)?;
    let end = rest.iter().position(|byte| *byte == 0)?;
    Some(String::from_utf8_lossy(&rest[..end]).into_owned())
}

/// The last part of a path.
pub(crate) fn file_name(path: &str) -> String {
    path.rsplit(['/', '\\']).next().unwrap_or(path).to_owned()
}
