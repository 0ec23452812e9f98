//! Members that take no room in a value and still mean something to code that was compiled before:
//! virtual functions, by their place in the table, and enumerators, by their value.

use std::hash::Hasher;

use ms_pdb::types::fields::Field;
use ms_pdb::types::{MethodList, TypeData, TypeIndex};
use rustc_hash::FxHasher;

use super::CodeViewTypes;
use super::layout::Seen;
use crate::names::is_nameless_type;

/// A virtual function that a class declares.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct VirtualFunction {
    /// Bytes from the start of the table, where the class is the first to declare it; `None` where
    /// it takes the place of an inherited one.
    pub offset: Option<u32>,
    /// Its name, without scopes.
    pub name: String,
    /// Parameters, result and calling convention, as a hash.
    pub(super) signature: u64,
}

/// Method properties (`CV_methodprop_e`), bits 2 to 4 of a member's attributes.
const PROPERTY_SHIFT: u16 = 2;
const PROPERTY_MASK: u16 = 7;
const VIRTUAL: u16 = 1;
const INTRODUCING: u16 = 4;
const PURE: u16 = 5;
const PURE_INTRODUCING: u16 = 6;

/// A virtual function by its attributes; `None` for one that is not virtual.
fn slot(attributes: u16, offset: u32) -> Option<Option<u32>> {
    match attributes >> PROPERTY_SHIFT & PROPERTY_MASK {
        VIRTUAL | PURE => Some(None),
        INTRODUCING | PURE_INTRODUCING => Some(Some(offset)),
        _ => None,
    }
}

/// Reads what of a record is only parsed as it is walked.
pub(super) fn read_whole(data: &TypeData<'_>) {
    match data {
        TypeData::FieldList(list) => {
            for field in list.iter() {
                match field {
                    Field::Member(member) => drop(u32::try_from(member.offset)),
                    Field::BaseClass(base) => drop(u32::try_from(base.offset)),
                    Field::Enumerate(enumerator) => drop(u32::try_from(enumerator.value)),
                    _ => {}
                }
            }
        }
        TypeData::MethodList(list) => {
            let mut list = MethodList { rest: list.bytes };
            while let Ok(Some(_)) = list.next() {}
        }
        TypeData::Struct(structure) => drop(u32::try_from(structure.length)),
        TypeData::Union(union) => drop(u32::try_from(union.length)),
        TypeData::Array(array) => drop(u32::try_from(array.len)),
        _ => {}
    }
}

impl CodeViewTypes {
    /// The field list of the definition at `index`.
    pub(super) fn members(&self, index: u32) -> Vec<Field<'_>> {
        let list = match self.data(TypeIndex(index)) {
            Some(TypeData::Struct(structure)) => structure.fixed.field_list.get(),
            Some(TypeData::Union(union)) => union.fixed.fields.get(),
            Some(TypeData::Enum(enumeration)) => enumeration.fixed.fields.get(),
            _ => return Vec::new(),
        };
        self.fields(list)
    }

    /// The virtual functions that a class itself declares, sorted; inherited ones are left out.
    pub(crate) fn virtual_functions(&self, index: u32) -> Vec<VirtualFunction> {
        let mut found = Vec::new();
        self.each_virtual(index, |offset, name, ty| {
            found.push(VirtualFunction {
                offset,
                name: String::from_utf8_lossy(name).into_owned(),
                signature: self.signature(ty),
            });
        });
        found.sort();
        found
    }

    /// Calls `each` with place in the table, name and type of every virtual function that a class itself
    /// declares.
    pub(super) fn each_virtual(
        &self,
        index: u32,
        mut each: impl FnMut(Option<u32>, &[u8], TypeIndex),
    ) {
        for member in self.members(index) {
            match member {
                Field::OneMethod(method) => {
                    if let Some(slot) = slot(method.attr, method.vbaseoff) {
                        each(slot, method.name, method.ty);
                    }
                }
                Field::Method(overloads) => {
                    let Some(TypeData::MethodList(list)) = self.data(overloads.methods) else {
                        continue;
                    };
                    let mut list = MethodList { rest: list.bytes };
                    while let Ok(Some(method)) = list.next() {
                        if let Some(slot) = slot(method.attr, method.vtab_offset.unwrap_or(0)) {
                            each(slot, overloads.name, method.ty);
                        }
                    }
                }
                _ => {}
            }
        }
    }

    /// As [`CodeViewTypes::layout_hash`], without the class: a method's type names it, and that is known.
    fn signature(&self, index: TypeIndex) -> u64 {
        let mut hasher = FxHasher::default();
        let Some(TypeData::MemberFunc(function)) = self.data(index) else {
            return 0;
        };
        let seen = Seen::default();
        for part in [function.return_value.get(), function.arg_list.get()] {
            self.hash_into(part, false, 0, &seen, &mut hasher);
        }
        hasher.finish()
    }

    /// The names and values of an enumeration, in order of declaration; empty for anything else. A
    /// value is as the record stores it: a number below 0x8000, or the kind of number and its bytes.
    pub(crate) fn enumerators(&self, index: u32) -> Vec<(String, Vec<u8>)> {
        let members = self.members(index).into_iter();
        members
            .filter_map(|member| match member {
                Field::Enumerate(enumerator) => Some((
                    String::from_utf8_lossy(enumerator.name).into_owned(),
                    enumerator.value.as_bytes().to_vec(),
                )),
                _ => None,
            })
            .collect()
    }

    /// Names and values of the enumerators of all enumerations without a name.
    pub(crate) fn nameless_enumerators(&self) -> Vec<(String, i128)> {
        let definitions = self
            .definitions
            .iter()
            .chain(self.further.values().flatten());
        let nameless = definitions.filter(|index| {
            let name = self.name_of(**index).map(|it| it.0).unwrap_or_default();
            is_nameless_type(&String::from_utf8_lossy(name))
        });
        let members = nameless.flat_map(|index| self.members(index.0));
        let mut found: Vec<_> = members
            .filter_map(|member| match member {
                Field::Enumerate(enumerator) => Some((
                    String::from_utf8_lossy(enumerator.name).into_owned(),
                    i128::try_from(enumerator.value).ok()?,
                )),
                _ => None,
            })
            .collect();
        found.sort_unstable();
        found
    }
}
