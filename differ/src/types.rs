//! Types of one PDB: how many bytes they have, and a hash of their layout that means the same in
//! another PDB.
//!
//! Type indexes are worthless across PDBs, so two types are compared by structural hash: members
//! by name, offset and type. Behind a pointer only the name of a structure counts, because a
//! pointer does not change when what it points at grows; that also ends every cycle.

pub(crate) mod dwarf;
mod members;
mod reach;
mod source;

use std::cell::RefCell;
use std::hash::{Hash, Hasher};

use hashbrown::HashTable;
use ms_pdb::tpi::TypeStream;
use ms_pdb::types::fields::Field;
use ms_pdb::types::{Leaf, TypeData, TypeIndex, TypeRecord, TypesIter};
use rustc_hash::{FxHashMap, FxHasher};

pub(crate) use members::VirtualFunction;
pub use source::Types;

/// Nesting of arrays and structures by value that is followed before giving up.
const MAX_DEPTH: u32 = 64;

/// Layouts of the types walked so far, by index and by whether a pointer led there.
type Seen = RefCell<FxHashMap<(u32, bool), u64>>;

/// The type records of one PDB.
pub(crate) struct CodeViewTypes {
    stream: Records,
    items: Records,
    /// Full definitions of structures, unions and enumerations by unique name, which the record
    /// itself holds.
    definitions: HashTable<TypeIndex>,
    /// Further definitions of the same name: compilands need not agree on what it stands for.
    further: Vec<TypeIndex>,
}

impl std::fmt::Debug for CodeViewTypes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CodeViewTypes")
            .field("count", &self.stream.starts.len())
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
        let mut further = Vec::new();
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
                further.push(index);
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
            TypeData::Struct(structure) if !structure.fixed.property.get().fwdref() => {
                structure.length.try_into().ok()
            }
            TypeData::Union(union) if !union.fixed.property.get().fwdref() => {
                union.length.try_into().ok()
            }
            TypeData::Enum(enumeration) => {
                self.size_at(enumeration.fixed.underlying_type.get(), depth + 1)
            }
            TypeData::Modifier(modifier) => self.size_at(modifier.underlying_type.get(), depth + 1),
            TypeData::Pointer(pointer) => Some(pointer.fixed.attr().size()),
            data => {
                let (name, _) = definition_name(&data)?;
                let definition = self.definition_of(name)?;
                (definition != index).then(|| self.size_at(definition, depth + 1))?
            }
        }
    }

    /// Whether values of this type are arrays, or structures of an array and nothing else.
    pub(crate) fn is_array(&self, index: u32) -> bool {
        let mut index = TypeIndex(index);
        for _ in 0..MAX_DEPTH {
            if self.stream.is_primitive(index) {
                return false;
            }
            index = match self.data(index) {
                Some(TypeData::Array(_)) => return true,
                Some(TypeData::Modifier(modifier)) => modifier.underlying_type.get(),
                Some(data @ TypeData::Struct(_)) => match self.only_member(index, &data) {
                    Some(member) => member,
                    None => return false,
                },
                _ => return false,
            };
        }
        false
    }

    /// Whether values of this type may be larger than it: the last member of a structure is an
    /// array without a count, for which the type has no room and an initialiser has.
    pub(crate) fn is_open_ended(&self, index: u32) -> bool {
        let mut index = TypeIndex(index);
        for _ in 0..MAX_DEPTH {
            if self.stream.is_primitive(index) {
                return false;
            }
            index = match self.data(index) {
                Some(TypeData::Modifier(modifier)) => modifier.underlying_type.get(),
                Some(TypeData::Array(array)) => {
                    return u32::try_from(array.len).is_ok_and(|bytes| bytes == 0);
                }
                Some(data) => match self.last_member(index, &data) {
                    Some(member) => member,
                    None => return false,
                },
                None => return false,
            };
        }
        false
    }

    /// The type of the last member of a structure or union, or where that is declared here only
    /// its definition.
    fn last_member(&self, index: TypeIndex, data: &TypeData<'_>) -> Option<TypeIndex> {
        let (name, is_definition) = definition_name(data)?;
        if !is_definition {
            return self.definition_of(name).filter(|it| *it != index);
        }
        let list = match data {
            TypeData::Struct(structure) => structure.fixed.field_list.get(),
            TypeData::Union(union) => union.fixed.fields.get(),
            _ => return None,
        };
        let fields = self.fields(list).into_iter();
        let mut members = fields.filter_map(|field| match field {
            Field::Member(member) => Some(member.ty),
            _ => None,
        });
        members.next_back()
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

    /// A hash of the type's layout that equal types of two PDBs share.
    pub(crate) fn layout_hash(&self, index: u32) -> u64 {
        let mut hasher = FxHasher::default();
        let seen = Seen::default();
        self.hash_into(TypeIndex(index), false, 0, &seen, &mut hasher);
        hasher.finish()
    }

    /// Adds the layout of a type to `hash`. Each type is walked once: one that several members
    /// have, again and again on each level, would otherwise take time without bound.
    fn hash_into(
        &self,
        index: TypeIndex,
        behind_pointer: bool,
        depth: u32,
        seen: &Seen,
        hash: &mut FxHasher,
    ) {
        if depth > MAX_DEPTH || self.stream.is_primitive(index) {
            (depth > MAX_DEPTH, index.0).hash(hash);
            return;
        }
        let key = (index.0, behind_pointer);
        let known = seen.borrow().get(&key).copied();
        let layout = known.unwrap_or_else(|| {
            let mut own = FxHasher::default();
            self.hash_record(index, behind_pointer, depth, seen, &mut own);
            let layout = own.finish();
            seen.borrow_mut().insert(key, layout);
            layout
        });
        layout.hash(hash);
    }

    fn hash_record(
        &self,
        index: TypeIndex,
        behind_pointer: bool,
        depth: u32,
        seen: &Seen,
        hash: &mut FxHasher,
    ) {
        let Some(data) = self.data(index) else {
            u32::MAX.hash(hash);
            return;
        };
        let mut next =
            |index: TypeIndex, behind| self.hash_into(index, behind, depth + 1, seen, hash);
        match data {
            TypeData::Pointer(pointer) => {
                next(pointer.fixed.ty.get(), true);
                let attr = pointer.fixed.attr();
                (2_u8, attr.size(), attr.mode()).hash(hash);
            }
            TypeData::Modifier(modifier) => next(modifier.underlying_type.get(), behind_pointer),
            TypeData::Array(array) => {
                next(array.fixed.element_type.get(), behind_pointer);
                (3_u8, array.len.as_bytes()).hash(hash);
            }
            TypeData::Bitfield(bits) => {
                next(bits.underlying_type.get(), false);
                (4_u8, bits.length, bits.position).hash(hash);
            }
            TypeData::Proc(procedure) => {
                next(procedure.return_value.get(), behind_pointer);
                next(procedure.arg_list.get(), behind_pointer);
                (5_u8, procedure.call, procedure.num_params.get()).hash(hash);
            }
            TypeData::MemberFunc(function) => {
                next(function.return_value.get(), behind_pointer);
                next(function.class.get(), true);
                next(function.this.get(), true);
                next(function.arg_list.get(), behind_pointer);
                (6_u8, function.call, function.this_adjust.get()).hash(hash);
            }
            TypeData::ArgList(list) => {
                list.args
                    .iter()
                    .for_each(|argument| next(argument.get(), behind_pointer));
                7_u8.hash(hash);
            }
            data => self.hash_definition((index, &data), behind_pointer, depth, seen, hash),
        }
    }

    /// Structures, unions and enumerations.
    fn hash_definition(
        &self,
        (index, data): (TypeIndex, &TypeData<'_>),
        behind_pointer: bool,
        depth: u32,
        seen: &Seen,
        hash: &mut FxHasher,
    ) {
        let Some((name, is_definition)) = definition_name(data) else {
            // A kind of record that has no layout (or none known here): its kind must do.
            std::mem::discriminant(data).hash(hash);
            return;
        };
        // Compilers hash the source into the names of lambdas and unnamed namespaces.
        let readable = String::from_utf8_lossy(name);
        match crate::names::without_generated_parts(&readable) {
            Some(stable) => stable.as_bytes().hash(hash),
            None => name.hash(hash),
        }
        if behind_pointer {
            return;
        }
        if !is_definition {
            match self.definition_of(name) {
                Some(definition) if definition != index => {
                    self.hash_into(definition, false, depth + 1, seen, hash);
                }
                _ => 8_u8.hash(hash),
            }
            return;
        }
        let fields = match data {
            TypeData::Struct(structure) => {
                structure.length.as_bytes().hash(hash);
                structure.fixed.field_list.get()
            }
            TypeData::Union(union) => {
                union.length.as_bytes().hash(hash);
                union.fixed.fields.get()
            }
            TypeData::Enum(enumeration) => {
                self.hash_into(
                    enumeration.fixed.underlying_type.get(),
                    false,
                    depth + 1,
                    seen,
                    hash,
                );
                return;
            }
            _ => return,
        };
        for field in self.fields(fields) {
            match field {
                Field::Member(member) => {
                    (&**member.name, member.offset.as_bytes()).hash(hash);
                    self.hash_into(member.ty, false, depth + 1, seen, hash);
                }
                Field::BaseClass(base) => {
                    base.offset.as_bytes().hash(hash);
                    self.hash_into(base.ty, false, depth + 1, seen, hash);
                }
                Field::DirectVirtualBaseClass(base) => {
                    (9_u8, base.vbpoff.as_bytes(), base.vboff.as_bytes()).hash(hash);
                }
                Field::IndirectVirtualBaseClass(base) => {
                    (10_u8, base.vbpoff.as_bytes(), base.vboff.as_bytes()).hash(hash);
                }
                Field::VFuncTable(_) => 11_u8.hash(hash),
                // Methods, static members, nested types and enumerators take no room.
                _ => {}
            }
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
            .chain(&self.further)
            .filter_map(|index| {
                let name = String::from_utf8_lossy(self.name_of(*index)?.0);
                let stable = crate::names::without_generated_parts(&name);
                Some((stable.unwrap_or_else(|| name.into_owned()), index.0))
            })
            .collect();
        all.sort_unstable();
        all
    }

    /// Names of structures and unions that a value or pointer of this type leads to directly.
    pub(crate) fn udt_of(&self, index: u32) -> Option<Vec<u8>> {
        let mut index = TypeIndex(index);
        for _ in 0..MAX_DEPTH {
            if self.stream.is_primitive(index) {
                return None;
            }
            index = match self.data(index)? {
                TypeData::Pointer(pointer) => pointer.fixed.ty.get(),
                TypeData::Modifier(modifier) => modifier.underlying_type.get(),
                TypeData::Array(array) => array.fixed.element_type.get(),
                data => return definition_name(&data).map(|(name, _)| name.to_vec()),
            };
        }
        None
    }
}

/// The records of one type or item stream, found by index.
///
/// `ms_pdb` finds them through a table behind a cell, which cannot be shared between threads.
pub(crate) struct Records {
    /// The whole stream.
    bytes: Vec<u8>,
    /// The index of the first record.
    begin: u32,
    /// Offset of each record in `bytes`.
    starts: Vec<u32>,
    /// Where the last record ends.
    end: usize,
}

impl Records {
    /// Finds the records of a stream. Fewer than the header promises are no error here: see
    /// [`Records::count`].
    pub(crate) fn new(stream: TypeStream<Vec<u8>>) -> Self {
        let range = stream.type_records_range();
        let begin = stream.type_index_begin().0;
        let bytes = stream.stream_data;
        let mut starts = Vec::new();
        let mut iter = TypesIter::new(bytes.get(range.clone()).unwrap_or_default());
        let total = iter.rest().len();
        loop {
            let at = total - iter.rest().len();
            if iter.next().is_none() {
                break;
            }
            // Both are sizes of a stream, which are words.
            starts.push((range.start + at) as u32);
        }
        starts.shrink_to_fit();
        Self {
            bytes,
            begin,
            starts,
            end: range.end,
        }
    }

    /// How many records there are.
    pub(crate) fn count(&self) -> usize {
        self.starts.len()
    }

    fn indexes(&self) -> impl Iterator<Item = TypeIndex> + use<> {
        let begin = self.begin;
        (0..self.starts.len()).filter_map(move |at| {
            let at = u32::try_from(at).ok()?;
            begin.checked_add(at).map(TypeIndex)
        })
    }

    fn is_primitive(&self, index: TypeIndex) -> bool {
        index.0 < self.begin
    }

    fn record(&self, index: TypeIndex) -> Option<TypeRecord<'_>> {
        let start = *self.starts.get(index.0.checked_sub(self.begin)? as usize)?;
        TypesIter::new(self.bytes.get(start as usize..self.end)?).next()
    }
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
mod tests {
    use super::*;

    /// A type stream with these records.
    fn stream(records: &[(u16, Vec<u8>)]) -> Records {
        let mut bytes = Vec::new();
        for (kind, data) in records {
            let mut data = data.clone();
            data.resize(data.len().next_multiple_of(4), 0xf1);
            let length = u16::try_from(data.len() + 2).unwrap();
            bytes.extend_from_slice(&length.to_le_bytes());
            bytes.extend_from_slice(&kind.to_le_bytes());
            bytes.extend(data);
        }
        let end = 0x1000 + u32::try_from(records.len()).unwrap();
        let size = u32::try_from(bytes.len()).unwrap();
        let mut header: Vec<u8> = [20_040_203, 56, 0x1000, end, size]
            .into_iter()
            .flat_map(u32::to_le_bytes)
            .collect();
        header.resize(56, 0);
        header.extend(bytes);
        Records::new(TypeStream::parse(ms_pdb::Stream::TPI, header).unwrap())
    }

    /// `struct N { T a; T b; }`: a field list at `index` and the structure behind it.
    fn pair_of(index: u32, member: u32, name: &str) -> [(u16, Vec<u8>); 2] {
        let mut fields = Vec::new();
        for (offset, name) in [(0_u16, b"a\0"), (8, b"b\0")] {
            fields.extend_from_slice(&0x150d_u16.to_le_bytes());
            fields.extend_from_slice(&3_u16.to_le_bytes());
            fields.extend_from_slice(&member.to_le_bytes());
            fields.extend_from_slice(&offset.to_le_bytes());
            fields.extend_from_slice(name);
        }
        let mut structure = vec![2, 0, 0, 0];
        structure.extend_from_slice(&index.to_le_bytes());
        structure.extend_from_slice(&[0; 8]);
        structure.extend_from_slice(&16_u16.to_le_bytes());
        structure.extend_from_slice(name.as_bytes());
        structure.push(0);
        [(0x1203, fields), (0x1505, structure)]
    }

    /// Structures of two structures each, `levels` deep, over `leaf`; the type index of the outermost.
    fn tower(levels: u32, leaf: u32) -> (CodeViewTypes, u32) {
        let mut records = Vec::new();
        let mut member = leaf;
        for level in 0..levels {
            let index = 0x1000 + 2 * level;
            records.extend(pair_of(index, member, &format!("S{level}")));
            member = index + 1;
        }
        (CodeViewTypes::new(stream(&records), stream(&[])), member)
    }

    /// Without remembering what was walked this would take 2^50 steps.
    #[test]
    fn a_tower_of_structures_is_walked_in_time() {
        let (one, top) = tower(50, 0x74);
        let (same, _) = tower(50, 0x74);
        let (other, _) = tower(50, 0x75);
        assert_eq!(one.layout_hash(top), same.layout_hash(top));
        assert_ne!(one.layout_hash(top), other.layout_hash(top));
        assert_eq!(one.size(top), Some(16));
    }
}
