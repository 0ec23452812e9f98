//! A hash of what a type looks like in memory, which equal types of two images share.

use std::cell::RefCell;
use std::hash::{Hash, Hasher};

use rustc_hash::{FxHashMap, FxHasher};

use super::{Definition, DwarfType, DwarfTypes, MAX_DEPTH};

/// Layouts walked so far, by index and by whether a pointer led there.
type Seen = RefCell<FxHashMap<(u32, bool), u64>>;

impl DwarfTypes {
    /// A hash of the type's layout that equal types of two images share.
    pub(crate) fn layout_hash(&self, index: u32) -> u64 {
        let walk = Walk {
            types: self,
            seen: Seen::default(),
        };
        walk.layout(Some(index), false, 0)
    }

    /// As [`DwarfTypes::layout_hash`], but that of a structure with a name nothing counts but that
    /// name: what it is made of is compared once, with its definition.
    pub(crate) fn named_hash(&self, index: u32) -> u64 {
        let walk = Walk {
            types: self,
            seen: Seen::default(),
        };
        walk.layout(Some(index), true, 0)
    }
}

/// One walk over a layout. Each type is walked once: one that several members have, again and
/// again on each level, would otherwise take time without bound.
struct Walk<'a> {
    types: &'a DwarfTypes,
    seen: Seen,
}

impl Walk<'_> {
    fn layout(&self, index: Option<u32>, behind_pointer: bool, depth: u32) -> u64 {
        let mut hash = FxHasher::default();
        let index = self.types.unaliased(index);
        let record = index.and_then(|index| Some((index, self.types.record(index)?)));
        let Some((index, record)) = record.filter(|_| depth <= MAX_DEPTH) else {
            (depth > MAX_DEPTH, index.is_some()).hash(&mut hash);
            return hash.finish();
        };
        let key = (index, behind_pointer);
        if let Some(known) = self.seen.borrow().get(&key) {
            return *known;
        }
        self.record(index, record, behind_pointer, depth, &mut hash);
        let layout = hash.finish();
        self.seen.borrow_mut().insert(key, layout);
        layout
    }

    fn record(
        &self,
        index: u32,
        record: &DwarfType<u32>,
        behind_pointer: bool,
        depth: u32,
        hash: &mut FxHasher,
    ) {
        let next = |index: &Option<u32>, behind| self.layout(*index, behind, depth + 1);
        match record {
            DwarfType::Base {
                name,
                encoding,
                size,
            } => (1_u8, name, encoding, size).hash(hash),
            DwarfType::Pointer { tag, target, .. } => (2_u8, tag, next(target, true)).hash(hash),
            // Only a chain that leads nowhere is left.
            DwarfType::Alias { .. } => 3_u8.hash(hash),
            DwarfType::Array {
                element,
                counts,
                size,
            } => (4_u8, next(element, behind_pointer), counts, size).hash(hash),
            DwarfType::Definition(definition) => {
                self.definition(index, definition, behind_pointer, depth, hash);
            }
            DwarfType::Function {
                result,
                parameters,
                variadic,
            } => {
                (6_u8, next(result, behind_pointer), variadic).hash(hash);
                for parameter in parameters {
                    next(parameter, behind_pointer).hash(hash);
                }
            }
            DwarfType::Other { tag, size } => (7_u8, tag, size).hash(hash),
        }
    }

    fn definition(
        &self,
        index: u32,
        definition: &Definition<u32>,
        behind_pointer: bool,
        depth: u32,
        hash: &mut FxHasher,
    ) {
        if let Some(name) = &definition.name {
            crate::names::of_type(name).hash(hash);
            if behind_pointer {
                return;
            }
        }
        if definition.declaration {
            let name = definition.name.as_deref().unwrap_or_default();
            match self.types.definition(name) {
                Some(found) if found != index => {
                    self.layout(Some(found), false, depth + 1).hash(hash);
                }
                _ => 8_u8.hash(hash),
            }
            return;
        }
        (definition.tag_of_layout(), definition.size).hash(hash);
        for member in &definition.members {
            (&member.name, member.offset, member.bits).hash(hash);
            self.layout(member.ty, behind_pointer, depth + 1).hash(hash);
        }
    }
}
