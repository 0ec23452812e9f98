//! A hash of what a type looks like in memory, which equal types of two PDBs share.

use std::cell::RefCell;
use std::hash::{Hash, Hasher};

use ms_pdb::types::fields::Field;
use ms_pdb::types::{TypeData, TypeIndex};
use rustc_hash::{FxHashMap, FxHasher};

use super::{CodeViewTypes, MAX_DEPTH, definition_name, lasting_name};

/// Layouts of the types walked so far, by index and by whether a pointer led there.
pub(super) type Seen = RefCell<FxHashMap<(u32, bool), u64>>;

/// What a hash of a pointer starts with.
const POINTER: u8 = 2;

/// The type that a pointer without a record of its own points at, and the size of the pointer. One
/// to a `const` type has a record, and is no other pointer for it.
fn pointed_at(index: u32) -> Option<(u32, u32)> {
    let size = match (index >> 8) & 0xf {
        4 => 4,
        6 => 8,
        _ => return None,
    };
    Some((index & 0xff, size))
}

impl CodeViewTypes {
    /// A hash of the type's layout that equal types of two PDBs share.
    pub(crate) fn layout_hash(&self, index: u32) -> u64 {
        let mut hasher = FxHasher::default();
        let seen = Seen::default();
        self.hash_into(TypeIndex(index), false, 0, &seen, &mut hasher);
        hasher.finish()
    }

    /// As [`CodeViewTypes::layout_hash`], but that of a structure with a name nothing counts but that
    /// name: what it is made of is compared once, with its definition.
    pub(crate) fn named_hash(&self, index: u32) -> u64 {
        let mut hasher = FxHasher::default();
        let seen = Seen::default();
        self.hash_into(TypeIndex(index), true, 0, &seen, &mut hasher);
        hasher.finish()
    }

    /// Adds the layout of a type to `hash`. Each type is walked once: one that several members
    /// have, again and again on each level, would otherwise take time without bound.
    pub(super) fn hash_into(
        &self,
        index: TypeIndex,
        behind_pointer: bool,
        depth: u32,
        seen: &Seen,
        hash: &mut FxHasher,
    ) {
        let index = self.unqualified(index);
        if depth > MAX_DEPTH {
            (true, index.0).hash(hash);
            return;
        }
        if self.stream.is_primitive(index) {
            match pointed_at(index.0) {
                Some((target, size)) => {
                    let mut own = FxHasher::default();
                    (false, target).hash(&mut own);
                    (POINTER, size, 0_u32).hash(&mut own);
                    own.finish().hash(hash);
                }
                None => (false, index.0).hash(hash),
            }
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

    /// A type without `const` and `volatile`, which no layout has.
    fn unqualified(&self, mut index: TypeIndex) -> TypeIndex {
        for _ in 0..MAX_DEPTH {
            if self.stream.is_primitive(index) {
                break;
            }
            let Some(TypeData::Modifier(modifier)) = self.data(index) else {
                break;
            };
            index = modifier.underlying_type.get();
        }
        index
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
                (POINTER, attr.size(), attr.mode()).hash(hash);
            }
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

    /// What a name is declared for. Sources need not agree on that, and nothing says whose definition
    /// is meant: all of them count, whatever their order.
    fn hash_namesakes(
        &self,
        (index, name): (TypeIndex, &[u8]),
        behind_pointer: bool,
        depth: u32,
        seen: &Seen,
        hash: &mut FxHasher,
    ) {
        let mut layouts = Vec::new();
        for definition in self.definitions_of(name).filter(|it| *it != index) {
            let mut own = FxHasher::default();
            self.hash_into(definition, behind_pointer, depth + 1, seen, &mut own);
            layouts.push(own.finish());
        }
        layouts.sort_unstable();
        layouts.dedup();
        (8_u8, layouts).hash(hash);
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
        let is_nameless = crate::names::is_nameless_type(&String::from_utf8_lossy(name));
        if !is_nameless {
            lasting_name(data).hash(hash);
            if behind_pointer {
                return;
            }
        }
        if !is_definition {
            self.hash_namesakes((index, name), behind_pointer, depth, seen, hash);
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
        let mut fields = self.fields(fields);
        // rustc lists what a closure captures in the order in which its code names it.
        fields.sort_by_key(|field| match field {
            Field::Member(member) => {
                u64::try_from(member.offset).map_or(u64::MAX, |at| at.saturating_add(1))
            }
            _ => 0,
        });
        for field in fields {
            match field {
                Field::Member(member) => {
                    (&**member.name, member.offset.as_bytes()).hash(hash);
                    self.hash_into(member.ty, behind_pointer, depth + 1, seen, hash);
                }
                Field::BaseClass(base) => {
                    base.offset.as_bytes().hash(hash);
                    self.hash_into(base.ty, behind_pointer, depth + 1, seen, hash);
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
}
