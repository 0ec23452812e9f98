//! The types of an image, wherever they come from.

use std::collections::BTreeSet;

use ms_pdb::types::TypeIndex;
use rustc_hash::FxHashSet;

use super::dwarf::DwarfTypes;
use super::sources::Sources;
use super::{CodeViewTypes, Homes, Locals, Marks, Part, Scalar, Steps, VirtualFunction};
use crate::image::Mention;
use crate::names::Functions;

/// The types of one image. Indexes mean nothing in another image, and 0 is none.
#[derive(Debug)]
pub struct Types(Source);

#[derive(Debug)]
enum Source {
    CodeView(CodeViewTypes),
    Dwarf(DwarfTypes),
}

impl From<CodeViewTypes> for Types {
    fn from(types: CodeViewTypes) -> Self {
        Self(Source::CodeView(types))
    }
}

impl From<DwarfTypes> for Types {
    fn from(types: DwarfTypes) -> Self {
        Self(Source::Dwarf(types))
    }
}

impl Types {
    /// Bytes of a value of this type; `None` where the records do not tell.
    pub fn size(&self, index: u32) -> Option<u32> {
        match &self.0 {
            Source::CodeView(types) => types.size(index),
            Source::Dwarf(types) => types.size(index),
        }
    }

    /// The number, pointer or text of a value of this type that holds the byte at `offset`; `None`
    /// for padding, where the records do not tell, and where `steps` are used up.
    pub(crate) fn scalar_at(&self, index: u32, offset: u32, steps: &mut Steps) -> Option<Scalar> {
        match &self.0 {
            Source::CodeView(types) => types.scalar_at(index, offset, steps),
            Source::Dwarf(types) => types.scalar_at(index, offset, steps),
        }
    }

    /// Whether values of this type are arrays, or structures of an array and nothing else.
    pub fn is_array(&self, index: u32) -> bool {
        match &self.0 {
            Source::CodeView(types) => types.is_array(index),
            Source::Dwarf(types) => types.is_array(index),
        }
    }

    /// Bytes of an entry of this type, which is one of arrays, or of structures of an array and nothing
    /// else; those of a value of any other type. `None` where the records do not tell.
    pub(crate) fn entry_size(&self, index: u32) -> Option<u32> {
        match &self.0 {
            Source::CodeView(types) => types.entry_size(index),
            Source::Dwarf(types) => types.entry_size(index),
        }
    }

    /// Whether values of this type may be larger than it, as structures that end with an array
    /// without a count are.
    pub fn is_open_ended(&self, index: u32) -> bool {
        match &self.0 {
            Source::CodeView(types) => types.is_open_ended(index),
            Source::Dwarf(types) => types.is_open_ended(index),
        }
    }

    /// The function type behind the index of a procedure: for `S_*PROC32_ID` records of CodeView
    /// the index names an item, which names the type.
    pub fn function_type(&self, index: u32, is_item: bool) -> u32 {
        match &self.0 {
            Source::CodeView(types) => types.function_type(index, is_item),
            Source::Dwarf(_) => index,
        }
    }

    /// Whether a function takes arguments of any type behind its parameters, as far as CodeView tells.
    pub(crate) fn is_variadic(&self, index: u32) -> bool {
        match &self.0 {
            Source::CodeView(types) => types.is_variadic(index),
            Source::Dwarf(_) => false,
        }
    }

    /// The name of a function that CodeView's item stream names, with its scope.
    pub(crate) fn item_name(&self, index: u32) -> Option<String> {
        match &self.0 {
            Source::CodeView(types) => types.item_name(index),
            Source::Dwarf(_) => None,
        }
    }

    /// A hash of the type's layout that equal types of two images share.
    pub fn layout_hash(&self, index: u32) -> u64 {
        match &self.0 {
            Source::CodeView(types) => types.layout_hash(index),
            Source::Dwarf(types) => types.layout_hash(index),
        }
    }

    /// The same of a type of which nothing counts but the names of the structures that it holds or
    /// leads to; of what has no name, what it is made of.
    pub(crate) fn named_hash(&self, index: u32) -> u64 {
        match &self.0 {
            Source::CodeView(types) => types.named_hash(index),
            Source::Dwarf(types) => types.named_hash(index),
        }
    }

    /// A type as a person writes it, or nearly so.
    pub(crate) fn words(&self, index: u32) -> String {
        match &self.0 {
            Source::CodeView(types) => types.words(TypeIndex(index), 0),
            Source::Dwarf(types) => types.words(Some(index), 0),
        }
    }

    /// The structure, union or enumeration without a name that a type is, or leads to by nothing but
    /// pointers, arrays and qualifiers.
    pub(crate) fn nameless_in(&self, index: u32) -> Option<u32> {
        match &self.0 {
            Source::CodeView(types) => types.nameless_in(index),
            Source::Dwarf(types) => types.nameless_in(index),
        }
    }

    /// Whether a structure, union or enumeration has no name, or one that holds what has none.
    pub(crate) fn is_nameless(&self, index: u32) -> bool {
        match &self.0 {
            Source::CodeView(types) => types.is_nameless(index),
            Source::Dwarf(types) => types.is_nameless(index),
        }
    }

    /// Structures and unions without a name that no other type has a part in, by the names of their
    /// sources; none where procedures mention them.
    pub(crate) fn nameless(&self) -> Vec<(String, u32)> {
        match &self.0 {
            Source::CodeView(_) => Vec::new(),
            Source::Dwarf(types) => types.nameless(),
        }
    }

    /// The members and base classes of a structure or union, or the result and parameters of a
    /// function; empty for anything else.
    pub(crate) fn parts(&self, index: u32) -> Vec<Part> {
        match &self.0 {
            Source::CodeView(types) => types.parts(index),
            Source::Dwarf(types) => types.parts(index),
        }
    }

    /// Full definitions of structures and unions as (unique name without what hashes the source,
    /// type index), in the order of names. A name occurs as often as compilands disagree on it.
    pub fn definitions(&self) -> Vec<(String, u32)> {
        match &self.0 {
            Source::CodeView(types) => types.definitions(),
            Source::Dwarf(types) => types.definitions(),
        }
    }

    /// The sources that define types, as far as the symbols tell. `names` is the table of file names of
    /// a PDB.
    pub(crate) fn sources(&self, names: &[u8]) -> Sources {
        match &self.0 {
            Source::CodeView(types) => types.sources(names),
            Source::Dwarf(types) => types.sources(),
        }
    }

    /// The functions whose lambdas and nameless structures stand in a line, as far as CodeView tells.
    /// `names` is the table of file names of a PDB.
    pub(crate) fn homes(&self, names: &[u8]) -> Homes {
        match &self.0 {
            Source::CodeView(types) => types.homes(names),
            Source::Dwarf(_) => Homes::default(),
        }
    }

    /// The functions that declare types, by the names of these, as far as names of the Microsoft ABI tell.
    pub(crate) fn locals(&self) -> Locals {
        match &self.0 {
            Source::CodeView(types) => types.locals(),
            Source::Dwarf(_) => Locals::default(),
        }
    }

    /// The virtual functions that a class itself declares, sorted; inherited ones are left out.
    pub(crate) fn virtual_functions(&self, index: u32) -> Vec<VirtualFunction> {
        match &self.0 {
            Source::CodeView(types) => types.virtual_functions(index),
            Source::Dwarf(types) => types.virtual_functions(index),
        }
    }

    /// The names and values of an enumeration, in order of declaration; empty for anything else.
    /// Values of images with symbols of one kind compare as bytes.
    pub fn enumerators(&self, index: u32) -> Vec<(String, Vec<u8>)> {
        match &self.0 {
            Source::CodeView(types) => types.enumerators(index),
            Source::Dwarf(types) => types.enumerators(index),
        }
    }

    /// Names and values of the enumerators of all enumerations without a name, sorted.
    pub(crate) fn nameless_enumerators(&self) -> Vec<(String, i128)> {
        match &self.0 {
            Source::CodeView(types) => types.nameless_enumerators(),
            Source::Dwarf(types) => types.nameless_enumerators(),
        }
    }

    /// Adds the structures, unions and enumerations that a type names directly.
    pub fn named_in(&self, index: u32, found: &mut BTreeSet<u32>) {
        match &self.0 {
            Source::CodeView(types) => types.named_in(index, found),
            Source::Dwarf(_) => {}
        }
    }

    /// Adds the structures, unions and enumerations that a record of a procedure leads to directly.
    pub(crate) fn add_mentioned(&self, mention: Mention, found: &mut BTreeSet<u32>) {
        self.named_in(self.function_type(mention.index, mention.is_item), found);
    }

    /// The names of these types and of all that they lead to; `None` where that is not known, as it
    /// is not from DWARF.
    pub(crate) fn reach(&self, start: BTreeSet<u32>) -> Option<FxHashSet<String>> {
        match &self.0 {
            Source::CodeView(types) => Some(types.reach(start)),
            Source::Dwarf(_) => None,
        }
    }

    /// Names of structures and unions that a value or pointer of this type leads to directly.
    pub fn udt_of(&self, index: u32) -> Option<Vec<u8>> {
        match &self.0 {
            Source::CodeView(types) => types.udt_of(index),
            Source::Dwarf(types) => types.udt_of(index),
        }
    }

    /// The number that a pointer of this type leads to, in words, and its bytes; `None` for DWARF, of
    /// which no variables of functions are read.
    pub(crate) fn number_behind(&self, index: u32) -> Option<(String, u32)> {
        match &self.0 {
            Source::CodeView(types) => types.number_behind(index),
            Source::Dwarf(_) => None,
        }
    }

    /// Which types have to do with these functions; `None` where names do not tell, as they do not in
    /// DWARF.
    pub(crate) fn marks(&self, functions: &Functions<'_>) -> Option<Marks> {
        match &self.0 {
            Source::CodeView(types) => Some(types.marks(functions)),
            Source::Dwarf(_) => None,
        }
    }

    /// The plain and the unique name of a structure or union, where its scopes are part of them.
    pub(crate) fn names_of(&self, index: u32) -> Option<(String, Option<String>)> {
        match &self.0 {
            Source::CodeView(types) => types.names_of(index),
            Source::Dwarf(_) => None,
        }
    }

    /// Whether values of this type are pointers or references, as far as the records tell.
    pub(crate) fn is_pointer(&self, index: u32) -> bool {
        match &self.0 {
            Source::CodeView(types) => types.is_pointer(index),
            Source::Dwarf(_) => false,
        }
    }
}
