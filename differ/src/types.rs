//! Types of one PDB: how many bytes they have, and a hash of their layout that means the same in
//! another PDB.
//!
//! Type indexes are worthless across PDBs, so two types are compared by structural hash: members
//! by name, offset and type. Behind a pointer only the name of a structure counts, because a
//! pointer does not change when what it points at grows; that also ends every cycle.

pub(crate) mod dwarf;
mod homes;
mod layout;
mod marks;
mod members;
mod reach;
mod scalar;
mod source;
mod sources;
mod stream;
mod words;

use std::hash::{Hash, Hasher};

use hashbrown::HashTable;
use ms_pdb::types::fields::Field;
use ms_pdb::types::{Leaf, Pointer, TypeData, TypeIndex, TypeRecord};
use rustc_hash::{FxHashMap, FxHashSet, FxHasher};

pub(crate) use homes::{Homes, Locals};
pub(crate) use marks::Marks;
use marks::names_of;
pub(crate) use members::VirtualFunction;
pub(crate) use scalar::{Form, Scalar, Steps};
pub use source::Types;
pub(crate) use sources::{Sources, file_name};
pub(crate) use stream::Records;
pub(crate) use words::{Part, difference};

/// Nesting of arrays and structures by value that is followed before giving up.
const MAX_DEPTH: u32 = 64;

/// The type records of one PDB.
pub(crate) struct CodeViewTypes {
    stream: Records,
    items: Records,
    /// Full definitions of structures, unions and enumerations by unique name, which the record
    /// itself holds.
    definitions: HashTable<TypeIndex>,
    /// Further definitions of the same name, by its hash: compilands need not agree on what it stands
    /// for.
    further: FxHashMap<u64, Vec<TypeIndex>>,
}

impl std::fmt::Debug for CodeViewTypes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CodeViewTypes")
            .field("count", &self.stream.count())
            .finish_non_exhaustive()
    }
}

impl CodeViewTypes {
    /// Indexes type records and item records.
    ///
    /// Every record is read whole once, here, where a panic of the parser is caught. Later stages
    /// read records again, where none is, and what the parser makes of the same bytes is the same.
    pub(crate) fn new(types: Records, items: Records) -> Self {
        let mut definitions: HashTable<TypeIndex> = HashTable::new();
        let mut further: FxHashMap<u64, Vec<TypeIndex>> = FxHashMap::default();
        let name_at = |index: TypeIndex| types.record(index).and_then(|r| parsed_name(&r));
        let hash_at = |index: &TypeIndex| hash_of(name_at(*index).map_or(&[], |(name, _)| name));
        for index in types.indexes() {
            let Some(Ok(data)) = types.record(index).map(|record| record.parse()) else {
                continue;
            };
            members::read_whole(&data);
            let Some((name, true)) = definition_name(&data) else {
                continue;
            };
            let is_it = |known: &TypeIndex| name_at(*known).is_some_and(|(own, _)| own == name);
            if definitions.find(hash_of(name), is_it).is_none() {
                definitions.insert_unique(hash_of(name), index, hash_at);
            } else {
                further.entry(hash_of(name)).or_default().push(index);
            }
        }
        for record in items.indexes().filter_map(|index| items.record(index)) {
            let _ = record.parse();
        }
        Self {
            stream: types,
            items,
            definitions,
            further,
        }
    }

    /// The unique name of a structure, union or enumeration, and whether the record defines it.
    fn name_of(&self, index: TypeIndex) -> Option<(&[u8], bool)> {
        parsed_name(&self.stream.record(index)?)
    }

    /// The full definition with this unique name.
    fn definition_of(&self, name: &[u8]) -> Option<TypeIndex> {
        let is_it = |index: &TypeIndex| self.name_of(*index).is_some_and(|(own, _)| own == name);
        self.definitions.find(hash_of(name), is_it).copied()
    }

    fn data(&self, index: TypeIndex) -> Option<TypeData<'_>> {
        self.stream.record(index)?.parse().ok()
    }

    /// Bytes of a value of this type; `None` where the records do not tell.
    pub(crate) fn size(&self, index: u32) -> Option<u32> {
        self.size_at(TypeIndex(index), 0).filter(|size| *size > 0)
    }

    fn size_at(&self, index: TypeIndex, depth: u32) -> Option<u32> {
        if depth > MAX_DEPTH {
            return None;
        }
        if self.stream.is_primitive(index) {
            return primitive_size(index.0);
        }
        match self.data(index)? {
            TypeData::Array(array) => array.len.try_into().ok(),
            TypeData::Modifier(modifier) => self.size_at(modifier.underlying_type.get(), depth + 1),
            TypeData::Pointer(pointer) => Some(pointer.fixed.attr().size()),
            data => {
                let (name, is_definition) = definition_name(&data)?;
                if is_definition {
                    return self.defined_size(&data);
                }
                // Compilands need not agree on a name, and nothing says whose definition is meant.
                let definitions = self.definitions_of(name);
                let mut sizes = definitions.map(|it| self.defined_size(&self.data(it)?));
                let size = sizes.next()??;
                sizes.all(|other| other == Some(size)).then_some(size)
            }
        }
    }

    /// Bytes of what a record defines.
    fn defined_size(&self, data: &TypeData<'_>) -> Option<u32> {
        match data {
            TypeData::Struct(structure) => structure.length.try_into().ok(),
            TypeData::Union(union) => union.length.try_into().ok(),
            TypeData::Enum(enumeration) => {
                let number = enumeration.fixed.underlying_type.get();
                let is_known = self.stream.is_primitive(number);
                is_known.then(|| primitive_size(number.0)).flatten()
            }
            _ => None,
        }
    }

    /// Whether values of this type are arrays, or structures of an array and nothing else.
    pub(crate) fn is_array(&self, index: u32) -> bool {
        self.entry_type(index).is_some()
    }

    /// Bytes of an entry of such an array; those of a value of any other type.
    pub(crate) fn entry_size(&self, index: u32) -> Option<u32> {
        match self.entry_type(index) {
            Some(entry) => self.size_at(entry, 0),
            None => self.size(index),
        }
    }

    fn entry_type(&self, index: u32) -> Option<TypeIndex> {
        let mut index = TypeIndex(index);
        for _ in 0..MAX_DEPTH {
            if self.stream.is_primitive(index) {
                return None;
            }
            index = match self.data(index)? {
                TypeData::Array(array) => return Some(array.fixed.element_type.get()),
                TypeData::Modifier(modifier) => modifier.underlying_type.get(),
                data @ TypeData::Struct(_) => self.only_member(index, &data)?,
                _ => return None,
            };
        }
        None
    }

    /// Whether values of this type may be larger than it: the last member of a structure, or any of a
    /// union, is an array without a count, for which the type has no room and an initialiser has.
    pub(crate) fn is_open_ended(&self, index: u32) -> bool {
        let mut open = vec![TypeIndex(index)];
        let mut seen = FxHashSet::default();
        while let Some(index) = open.pop() {
            if self.stream.is_primitive(index) || !seen.insert(index.0) {
                continue;
            }
            match self.data(index) {
                Some(TypeData::Modifier(modifier)) => open.push(modifier.underlying_type.get()),
                Some(TypeData::Array(array))
                    if u32::try_from(array.len).is_ok_and(|bytes| bytes == 0) =>
                {
                    return true;
                }
                Some(data) => open.extend(self.at_end(&data)),
                None => {}
            }
        }
        false
    }

    /// The types of what the end of a structure or union belongs to: its last member, all of a union;
    /// where it is declared here only, its definitions.
    fn at_end(&self, data: &TypeData<'_>) -> Vec<TypeIndex> {
        let members = |list: TypeIndex| {
            let fields = self.fields(list).into_iter();
            fields.filter_map(|field| match field {
                Field::Member(member) => Some(member.ty),
                _ => None,
            })
        };
        match (definition_name(data), data) {
            (Some((name, false)), _) => self.definitions_of(name).collect(),
            (_, TypeData::Struct(it)) => {
                let last = members(it.fixed.field_list.get()).next_back();
                last.into_iter().collect()
            }
            (_, TypeData::Union(it)) => members(it.fixed.fields.get()).collect(),
            _ => Vec::new(),
        }
    }

    /// The type of the only member of a structure.
    fn only_member(&self, index: TypeIndex, data: &TypeData<'_>) -> Option<TypeIndex> {
        let (name, is_definition) = definition_name(data)?;
        if !is_definition {
            return self.definition_of(name).filter(|it| *it != index);
        }
        let TypeData::Struct(structure) = data else {
            return None;
        };
        let mut members = Vec::new();
        for field in self.fields(structure.fixed.field_list.get()) {
            match field {
                Field::Member(member) => members.push(member.ty),
                Field::BaseClass(base) => members.push(base.ty),
                Field::VFuncTable(_) => return None,
                _ => {}
            }
        }
        (members.len() == 1).then(|| members[0])
    }

    /// The function type behind the index of a procedure record: for `S_*PROC32_ID` records the
    /// index names an item, which names the type.
    pub(crate) fn function_type(&self, index: u32, is_item: bool) -> u32 {
        if !is_item {
            return index;
        }
        match self
            .items
            .record(TypeIndex(index))
            .and_then(|record| record.parse().ok())
        {
            Some(TypeData::FuncId(id)) => id.fixed.func_type.get().0,
            Some(TypeData::MFuncId(id)) => id.fixed.func_type.get().0,
            _ => 0,
        }
    }

    /// Whether a function takes arguments of any type behind its parameters (`T_NOTYPE` at the end of
    /// their list).
    pub(crate) fn is_variadic(&self, index: u32) -> bool {
        let list = match self.data(TypeIndex(index)) {
            Some(TypeData::Proc(it)) => it.arg_list.get(),
            Some(TypeData::MemberFunc(it)) => it.arg_list.get(),
            _ => return false,
        };
        match self.data(list) {
            Some(TypeData::ArgList(list)) => list.args.last().is_some_and(|it| it.get().0 == 0),
            _ => false,
        }
    }

    /// The name of a function that the item stream names, with its scope.
    pub(crate) fn item_name(&self, index: u32) -> Option<String> {
        let name = |scope: Option<String>, name: &[u8]| {
            let name = String::from_utf8_lossy(name);
            match scope {
                Some(scope) if !scope.is_empty() => format!("{scope}::{name}"),
                _ => name.into_owned(),
            }
        };
        match self.items.record(TypeIndex(index))?.parse().ok()? {
            TypeData::FuncId(id) => {
                let scope = self.items.record(TypeIndex(id.fixed.scope.get()));
                let scope = scope.and_then(|record| match record.parse() {
                    Ok(TypeData::StringId(text)) => Some(text.name.to_string()),
                    _ => None,
                });
                Some(name(scope, id.name))
            }
            TypeData::MFuncId(id) => {
                let class = match self.data(id.fixed.parent_type.get()) {
                    Some(TypeData::Struct(class)) => Some(class.name.to_string()),
                    Some(TypeData::Union(class)) => Some(class.name.to_string()),
                    _ => None,
                };
                Some(name(class, id.name))
            }
            _ => None,
        }
    }

    /// The fields of a field list, its continuations included.
    fn fields(&self, list: TypeIndex) -> Vec<Field<'_>> {
        let mut fields = Vec::new();
        let mut next = Some(list);
        // A continuation has a lower index than what it continues, or the chain could be endless.
        let mut last = TypeIndex(u32::MAX);
        while let Some(index) = next.take().filter(|index| *index < last) {
            last = index;
            let Some(TypeData::FieldList(list)) = self.data(index) else {
                break;
            };
            for field in list.iter() {
                match field {
                    Field::Index(index) => next = Some(index),
                    field => fields.push(field),
                }
            }
        }
        fields
    }

    /// Full definitions of structures and unions as (unique name without what hashes the source,
    /// type index), in the order of names. A name occurs as often as compilands disagree on it.
    pub(crate) fn definitions(&self) -> Vec<(String, u32)> {
        let mut all: Vec<_> = self
            .definitions
            .iter()
            .chain(self.further.values().flatten())
            .filter_map(|index| Some((lasting_name(&self.data(*index)?)?, index.0)))
            .collect();
        all.sort_unstable();
        all
    }

    /// Names of structures and unions that a value or pointer of this type leads to directly.
    pub(crate) fn udt_of(&self, index: u32) -> Option<Vec<u8>> {
        let (name, _) = self.name_of(self.udt_in(index)?)?;
        Some(name.to_vec())
    }

    /// Such a structure, union or enumeration where it has no name.
    pub(crate) fn nameless_in(&self, index: u32) -> Option<u32> {
        let found = self.udt_in(index)?;
        let (name, is_definition) = self.name_of(found)?;
        let is_nameless = crate::names::is_nameless_type(&String::from_utf8_lossy(name));
        (is_nameless && is_definition).then_some(found.0)
    }

    /// Whether a structure, union or enumeration has no name, or one that holds what has none.
    pub(crate) fn is_nameless(&self, index: u32) -> bool {
        let name = self.name_of(TypeIndex(index));
        name.is_some_and(|(name, _)| {
            let name = String::from_utf8_lossy(name);
            crate::names::is_nameless_type(&name) || crate::names::holds_nameless_type(&name)
        })
    }

    /// The number that a pointer of this type leads to, in words, and its bytes.
    pub(crate) fn number_behind(&self, index: u32) -> Option<(String, u32)> {
        /// The bits of a primitive type that say which number it is, or a pointer to it leads to.
        const NUMBER: u32 = 0xff;
        let mut index = TypeIndex(index);
        let mut is_behind = false;
        for _ in 0..MAX_DEPTH {
            if self.stream.is_primitive(index) {
                is_behind |= index.0 > NUMBER;
                let number = index.0 & NUMBER;
                let size = primitive_size(number).filter(|_| is_behind)?;
                return Some((self.words(TypeIndex(number), 0), size));
            }
            index = match self.data(index)? {
                TypeData::Pointer(pointer) => {
                    is_behind = true;
                    pointer.fixed.ty.get()
                }
                TypeData::Modifier(modifier) => modifier.underlying_type.get(),
                _ => return None,
            };
        }
        None
    }

    /// What a value or pointer of this type leads to, where that is a structure, union or enumeration.
    fn udt_in(&self, index: u32) -> Option<TypeIndex> {
        let mut index = TypeIndex(index);
        for _ in 0..MAX_DEPTH {
            if self.stream.is_primitive(index) {
                return None;
            }
            index = match self.data(index)? {
                TypeData::Pointer(pointer) => pointer.fixed.ty.get(),
                TypeData::Modifier(modifier) => modifier.underlying_type.get(),
                TypeData::Array(array) => array.fixed.element_type.get(),
                data => return definition_name(&data).map(|_| index),
            };
        }
        None
    }
}

/// The class of a pointer to a member, behind the fixed part of its record (`CV_PTR_MODE_PMEM`,
/// `CV_PTR_MODE_PMFUNC`; `cvinfo.h`).
fn class_of_member(pointer: &Pointer<'_>) -> Option<TypeIndex> {
    const TO_MEMBERS: [u32; 2] = [2, 3];
    let is_to_member = TO_MEMBERS.contains(&pointer.fixed.attr().mode());
    let class = pointer.variant.first_chunk().filter(|_| is_to_member)?;
    Some(TypeIndex(u32::from_le_bytes(*class)))
}

/// [`definition_name`] of a record, most of which are of other kinds and are not parsed.
fn parsed_name<'a>(record: &TypeRecord<'a>) -> Option<(&'a [u8], bool)> {
    let is_named = matches!(
        record.kind,
        Leaf::LF_CLASS | Leaf::LF_STRUCTURE | Leaf::LF_INTERFACE | Leaf::LF_UNION | Leaf::LF_ENUM
    );
    let data = is_named.then(|| record.parse().ok()).flatten()?;
    definition_name(&data)
}

fn hash_of(name: &[u8]) -> u64 {
    let mut hasher = FxHasher::default();
    name.hash(&mut hasher);
    hasher.finish()
}

/// What a structure, union or enumeration is called in another image, too: its unique name without what
/// compilers count or hash. rustc's is nothing but a hash, of which the version of the crate is a
/// part; its plain names have all scopes.
fn lasting_name(data: &TypeData<'_>) -> Option<String> {
    let (name, _) = definition_name(data)?;
    let plain = match data {
        _ if !is_hash(name) => name,
        TypeData::Struct(s) => s.name,
        TypeData::Union(u) => u.name,
        TypeData::Enum(e) => e.name,
        _ => name,
    };
    let name = String::from_utf8_lossy(plain);
    Some(crate::names::of_type(&name).into_owned())
}

/// Whether a unique name is a hash of 128 bits, which is written without zeros in front.
fn is_hash(name: &[u8]) -> bool {
    (16..=32).contains(&name.len()) && name.iter().all(u8::is_ascii_hexdigit)
}

/// The unique name of a structure, union or enumeration (its plain name where it has none), and
/// whether the record is the full definition.
fn definition_name<'a>(data: &TypeData<'a>) -> Option<(&'a [u8], bool)> {
    let (unique, name, properties) = match data {
        TypeData::Struct(s) => (s.unique_name, s.name, s.fixed.property.get()),
        TypeData::Union(u) => (u.unique_name, u.name, u.fixed.property.get()),
        TypeData::Enum(e) => (e.unique_name, e.name, e.fixed.property.get()),
        _ => return None,
    };
    Some((
        unique.map_or(&**name, |unique| &**unique),
        !properties.fwdref(),
    ))
}

/// Bytes of a primitive type, from the subtype and mode bits of its index.
fn primitive_size(index: u32) -> Option<u32> {
    match (index >> 8) & 0xf {
        0 => {}
        4 => return Some(4),
        6 => return Some(8),
        7 => return Some(16),
        _ => return None,
    }
    Some(match index & 0xff {
        0x10 | 0x20 | 0x68 | 0x69 | 0x70 | 0x7c | 0x30 => 1,
        0x11 | 0x21 | 0x72 | 0x73 | 0x71 | 0x7a | 0x31 | 0x46 => 2,
        0x12 | 0x22 | 0x74 | 0x75 | 0x7b | 0x32 | 0x40 | 0x08 => 4,
        0x13 | 0x23 | 0x76 | 0x77 | 0x33 | 0x41 | 0x50 => 8,
        0x14 | 0x24 | 0x78 | 0x79 | 0x43 | 0x51 => 16,
        0x42 => 10,
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
