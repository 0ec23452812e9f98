//! Which structures, unions and enumerations a type leads to.

use std::collections::BTreeSet;

use ms_pdb::types::fields::Field;
use ms_pdb::types::{TypeData, TypeIndex};
use rustc_hash::FxHashSet;

use super::{CodeViewTypes, class_of_member, definition_name, lasting_name};

impl CodeViewTypes {
    /// Adds the structures, unions and enumerations that a type names directly: through pointers,
    /// arrays, and parameters and results of functions.
    pub(crate) fn named_in(&self, index: u32, found: &mut BTreeSet<u32>) {
        let mut open = vec![TypeIndex(index)];
        let mut seen = FxHashSet::default();
        while let Some(index) = open.pop() {
            if !self.stream.is_primitive(index) && seen.insert(index.0) {
                self.add_named(index, &mut open, found);
            }
        }
    }

    /// Adds one type where it has a name, or else what it is made of to `open`.
    fn add_named(&self, index: TypeIndex, open: &mut Vec<TypeIndex>, found: &mut BTreeSet<u32>) {
        let mut next = |index: TypeIndex| open.push(index);
        match self.data(index) {
            Some(TypeData::Pointer(pointer)) => {
                next(pointer.fixed.ty.get());
                class_of_member(&pointer).into_iter().for_each(next);
            }
            Some(TypeData::Modifier(modifier)) => next(modifier.underlying_type.get()),
            Some(TypeData::Array(array)) => next(array.fixed.element_type.get()),
            Some(TypeData::Bitfield(bits)) => next(bits.underlying_type.get()),
            Some(TypeData::Proc(procedure)) => {
                next(procedure.return_value.get());
                next(procedure.arg_list.get());
            }
            Some(TypeData::MemberFunc(function)) => {
                next(function.return_value.get());
                next(function.class.get());
                next(function.arg_list.get());
            }
            Some(TypeData::ArgList(list)) => list.args.iter().for_each(|it| next(it.get())),
            Some(data) if definition_name(&data).is_some() => {
                found.insert(index.0);
            }
            _ => {}
        }
    }

    /// The names, as [`CodeViewTypes::definitions`] gives them, of these types and of all that their members,
    /// base classes and virtual functions lead to, pointers included.
    pub(crate) fn reach(&self, start: impl IntoIterator<Item = u32>) -> FxHashSet<String> {
        let mut open: Vec<u32> = start.into_iter().collect();
        let mut seen: FxHashSet<u32> = open.iter().copied().collect();
        let mut names = FxHashSet::default();
        let mut walked = FxHashSet::default();
        while let Some(index) = open.pop() {
            let Some(data) = self.data(TypeIndex(index)) else {
                continue;
            };
            let Some((name, _)) = definition_name(&data) else {
                continue;
            };
            // All definitions of a name are walked when the first is met.
            if !walked.insert(name.to_vec()) {
                continue;
            }
            names.extend(lasting_name(&data));
            let mut members = BTreeSet::new();
            for definition in self.definitions_of(name) {
                for member in self.members(definition.0) {
                    let led_to = match member {
                        Field::Member(member) => member.ty,
                        Field::StaticMember(member) => member.ty,
                        Field::BaseClass(base) => base.ty,
                        Field::DirectVirtualBaseClass(base) => base.fixed.btype.get(),
                        Field::IndirectVirtualBaseClass(base) => base.fixed.btype.get(),
                        _ => continue,
                    };
                    self.named_in(led_to.0, &mut members);
                }
                // Who has an object may call these, and no record tells of what they return.
                self.each_virtual(definition.0, |_, _, ty| self.named_in(ty.0, &mut members));
            }
            open.extend(members.into_iter().filter(|index| seen.insert(*index)));
        }
        names
    }
}
