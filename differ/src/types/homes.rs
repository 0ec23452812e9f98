//! Where types without a name of their own are declared: in which function, by line.

use std::collections::{BTreeMap, BTreeSet};

use ms_pdb::types::TypeData;
use rustc_hash::FxHashMap;

use super::sources::{file_name, text_in};
use super::{CodeViewTypes, names_of};

/// For file names, without folders, and lines the scopes of what is declared there without a name.
pub(crate) type Homes = FxHashMap<(String, u32), BTreeSet<String>>;

/// By the names of types that functions declare, without scopes: these functions.
pub(crate) type Locals = BTreeMap<String, BTreeSet<String>>;

impl CodeViewTypes {
    /// The functions that declare types, by the names that arguments of templates have for these.
    pub(crate) fn locals(&self) -> Locals {
        let mut found = Locals::new();
        for index in &self.definitions {
            let data = self.data(*index);
            let Some((plain, Some(unique), _)) = data.as_ref().and_then(names_of) else {
                continue;
            };
            // What is declared in a function has the function's own encoding in its name.
            if !unique.starts_with(".?A") || !unique.contains("??") {
                continue;
            }
            let Some((scope, own)) = plain.rsplit_once("::") else {
                continue;
            };
            let is_name = |it: char| it.is_alphanumeric() || it == '_';
            if own.chars().all(is_name) {
                let functions = found.entry(own.to_owned()).or_default();
                functions.insert(crate::names::of_type(scope).into_owned());
            }
        }
        found
    }

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
