//! Where types without a name of their own are declared: in which function, by line.

use std::collections::BTreeSet;

use ms_pdb::types::TypeData;
use rustc_hash::FxHashMap;

use super::sources::{file_name, text_in};
use super::{CodeViewTypes, names_of};

/// For file names, without folders, and lines the scopes of what is declared there without a name.
pub(crate) type Homes = FxHashMap<(String, u32), BTreeSet<String>>;

impl CodeViewTypes {
    /// The functions whose lambdas and nameless structures stand in a line. `names` is the PDB's table of
    /// file names.
    pub(crate) fn homes(&self, names: &[u8]) -> Homes {
        let mut found = Homes::default();
        for record in self.items.indexes().filter_map(|it| self.items.record(it)) {
            let (ty, file, line) = match record.parse() {
                Ok(TypeData::UdtSrcLine(it)) => {
                    (it.ty.get(), self.text(it.src.get()), it.line.get())
                }
                Ok(TypeData::UdtModSrcLine(it)) => {
                    (it.ty.get(), text_in(names, it.src.get()), it.line.get())
                }
                _ => continue,
            };
            let Some((name, ..)) = self.data(ty).as_ref().and_then(names_of) else {
                continue;
            };
            // What templates made of types has brackets, too.
            let Some((scope, own)) = name.rsplit_once("::") else {
                continue;
            };
            if let Some(file) = file.filter(|_| own.starts_with('<')) {
                let here = found.entry((file_name(&file), line)).or_default();
                here.insert(crate::names::of_type(scope).into_owned());
            }
        }
        found
    }
}
