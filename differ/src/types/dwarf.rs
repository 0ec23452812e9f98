//! Types from DWARF: how many bytes they have, and a hash of their layout that means the same in
//! another image.
//!
//! The same rules as for CodeView: members by name, offset and type; behind a pointer only the
//! name of a structure counts. Every unit repeats the types it uses, so of one name there are
//! many definitions, which mostly are equal. Where they are not, as namesakes in C may be, each
//! counts.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};

use rustc_hash::{FxHashMap, FxHashSet, FxHasher};

use super::VirtualFunction;

/// Nesting that is followed before giving up.
const MAX_DEPTH: u32 = 64;

/// A type; `R` is how it names others: by offset in `.debug_info` at first, by index in the end.
#[derive(Clone, Debug)]
pub(crate) enum DwarfType<R> {
    /// A number, character or truth value.
    Base {
        name: Box<str>,
        encoding: u8,
        size: u64,
    },
    /// A pointer, or a reference.
    Pointer {
        tag: u16,
        target: Option<R>,
        size: Option<u64>,
    },
    /// A qualifier, which changes no layout, or another name (then it has one).
    Alias {
        name: Option<Box<str>>,
        target: Option<R>,
    },
    /// An array; a dimension without a count is open.
    Array {
        element: Option<R>,
        counts: Vec<Option<u64>>,
        size: Option<u64>,
    },
    /// A structure, class, union, or enumeration.
    Definition(Definition<R>),
    /// A function.
    Function {
        result: Option<R>,
        parameters: Vec<Option<R>>,
        variadic: bool,
    },
    /// Another kind; equal ones of equal tag and size count as the same.
    Other { tag: u16, size: Option<u64> },
}

/// A structure, class, union, or enumeration.
#[derive(Clone, Debug)]
pub(crate) struct Definition<R> {
    pub(crate) tag: u16,
    /// Its name with scopes; an unnamed one has none.
    pub(crate) name: Option<Box<str>>,
    pub(crate) size: Option<u64>,
    /// Whether this only says that it exists.
    pub(crate) declaration: bool,
    pub(crate) members: Vec<Member<R>>,
    /// Values of an enumeration.
    pub(crate) enumerators: Vec<(Box<str>, u64)>,
    pub(crate) virtuals: Vec<Virtual<R>>,
}

/// A virtual function that a class declares.
#[derive(Clone, Debug)]
pub(crate) struct Virtual<R> {
    pub(crate) name: Box<str>,
    /// Bytes from the start of the table.
    pub(crate) slot: Option<u32>,
    /// Its type.
    pub(crate) function: Option<R>,
}

/// A member, or a base class, which has no name.
#[derive(Clone, Debug)]
pub(crate) struct Member<R> {
    pub(crate) name: Option<Box<str>>,
    /// Bits from the start.
    pub(crate) offset: u64,
    /// Bits of a bit field.
    pub(crate) bits: Option<u64>,
    pub(crate) ty: Option<R>,
}

/// The types of one image. Index 0 is none.
#[derive(Debug, Default)]
pub(crate) struct DwarfTypes {
    records: Vec<DwarfType<u32>>,
    /// Full definitions by name, in name order; of several the first ones that differ.
    definitions: BTreeMap<Box<str>, Vec<u32>>,
}

/// Layouts walked so far, by index and by whether a pointer led there.
type Seen = RefCell<FxHashMap<(u32, bool), u64>>;

impl DwarfTypes {
    /// Orders the types of all units, each with its offset in `.debug_info`; returns the index
    /// for each offset, too.
    pub(crate) fn new(found: Vec<(usize, DwarfType<usize>)>) -> (Self, FxHashMap<usize, u32>) {
        let indices: FxHashMap<usize, u32> = (1_u32..)
            .zip(&found)
            .map(|(index, (offset, _))| (*offset, index))
            .collect();
        let resolve = |offset: Option<usize>| indices.get(&offset?).copied();
        let records = found
            .into_iter()
            .map(|(_, record)| record.resolved(&resolve))
            .collect();
        let mut types = Self {
            records,
            definitions: BTreeMap::new(),
        };
        types.find_definitions();
        (types, indices)
    }

    /// Every definition whose like of the same name did not come before it. Declarations resolve to
    /// the first one, so all names must lead somewhere before any layout is compared.
    fn find_definitions(&mut self) {
        for (index, record) in (1..).zip(&self.records) {
            if let DwarfType::Definition(definition) = record
                && let (Some(name), false) = (&definition.name, definition.declaration)
            {
                self.definitions
                    .entry(name.clone())
                    .or_default()
                    .push(index);
            }
        }
        let mut distinct = std::mem::take(&mut self.definitions);
        for (name, found) in &distinct {
            let first = found.iter().take(1).copied().collect();
            self.definitions.insert(name.clone(), first);
        }
        for found in distinct.values_mut().filter(|found| found.len() > 1) {
            let mut known = FxHashSet::default();
            found.retain(|index| {
                let extra = (self.enumerators(*index), self.virtual_functions(*index));
                known.insert((self.layout_hash(*index), extra.0, extra.1))
            });
        }
        self.definitions = distinct;
    }

    fn record(&self, index: u32) -> Option<&DwarfType<u32>> {
        self.records.get(index.checked_sub(1)? as usize)
    }

    /// Bytes of a value of this type; `None` where the records do not tell.
    pub(crate) fn size(&self, index: u32) -> Option<u32> {
        let size = self.size_at(index, 0)?;
        u32::try_from(size).ok().filter(|size| *size > 0)
    }

    fn size_at(&self, index: u32, depth: u32) -> Option<u64> {
        if depth > MAX_DEPTH {
            return None;
        }
        match self.record(index)? {
            DwarfType::Base { size, .. } => Some(*size),
            // Only 64-bit images are read.
            DwarfType::Pointer { size, .. } => Some(size.unwrap_or(8)),
            DwarfType::Alias { target, .. } => self.size_at((*target)?, depth + 1),
            DwarfType::Array {
                element,
                counts,
                size,
            } => size.or_else(|| {
                let element = self.size_at((*element)?, depth + 1)?;
                counts
                    .iter()
                    .try_fold(element, |all, count| all.checked_mul((*count)?))
            }),
            DwarfType::Definition(definition) if definition.declaration => {
                let found = self.definition(definition.name.as_deref()?)?;
                (found != index).then(|| self.size_at(found, depth + 1))?
            }
            DwarfType::Definition(definition) => definition.size,
            DwarfType::Other { size, .. } => *size,
            DwarfType::Function { .. } => None,
        }
    }

    /// A hash of the type's layout that equal types of two images share.
    pub(crate) fn layout_hash(&self, index: u32) -> u64 {
        let walk = Walk {
            types: self,
            seen: Seen::default(),
        };
        walk.layout(Some(index), false, 0)
    }

    /// Full definitions as (name without what hashes the source, index), in name order; several of
    /// a name where units disagree on it.
    pub(crate) fn definitions(&self) -> Vec<(String, u32)> {
        let stable = |name: &str| crate::names::without_generated_parts(name);
        let mut all: Vec<_> = self
            .definitions
            .iter()
            .flat_map(|(name, found)| {
                let name = stable(name).unwrap_or_else(|| name.to_string());
                found.iter().map(move |index| (name.clone(), *index))
            })
            .collect();
        all.sort_unstable();
        all
    }

    /// The index of the first full definition with this name.
    fn definition(&self, name: &str) -> Option<u32> {
        self.definitions.get(name)?.first().copied()
    }

    /// The virtual functions that a class itself declares, sorted.
    pub(crate) fn virtual_functions(&self, index: u32) -> Vec<VirtualFunction> {
        let Some(DwarfType::Definition(definition)) = self.record(index) else {
            return Vec::new();
        };
        let function = |declared: &Virtual<u32>| VirtualFunction {
            offset: declared.slot,
            name: declared.name.to_string(),
            signature: self.signature(declared.function),
        };
        let mut found: Vec<_> = definition.virtuals.iter().map(function).collect();
        found.sort();
        found
    }

    /// As [`DwarfTypes::layout_hash`], without the class, which is the first parameter.
    fn signature(&self, function: Option<u32>) -> u64 {
        let record = function.and_then(|index| self.record(index));
        let Some(DwarfType::Function {
            result,
            parameters,
            variadic,
        }) = record
        else {
            return 0;
        };
        let mut hash = FxHasher::default();
        variadic.hash(&mut hash);
        for part in std::iter::once(result).chain(parameters.iter().skip(1)) {
            part.map_or(0, |part| self.layout_hash(part))
                .hash(&mut hash);
        }
        hash.finish()
    }

    /// The names and values of an enumeration, in order of declaration.
    pub(crate) fn enumerators(&self, index: u32) -> Vec<(String, Vec<u8>)> {
        let Some(DwarfType::Definition(definition)) = self.record(index) else {
            return Vec::new();
        };
        let pair = |(name, value): &(Box<str>, u64)| (name.to_string(), value.to_le_bytes().into());
        definition.enumerators.iter().map(pair).collect()
    }

    /// Whether values of this type are arrays, or structures of an array and nothing else.
    pub(crate) fn is_array(&self, mut index: u32) -> bool {
        for _ in 0..MAX_DEPTH {
            let next = match self.record(index) {
                Some(DwarfType::Array { .. }) => return true,
                Some(DwarfType::Alias { target, .. }) => *target,
                Some(DwarfType::Definition(definition)) => match &definition.members[..] {
                    [member] => member.ty,
                    _ => None,
                },
                _ => None,
            };
            let Some(next) = next else { return false };
            index = next;
        }
        false
    }

    /// Whether values of this type may be larger than it: the last member of a structure is an
    /// array without a count, or with one of 0.
    pub(crate) fn is_open_ended(&self, mut index: u32) -> bool {
        for _ in 0..MAX_DEPTH {
            let next = match self.record(index) {
                Some(DwarfType::Array { counts, .. }) => {
                    return counts.first().is_none_or(|count| count.unwrap_or(0) == 0);
                }
                Some(DwarfType::Alias { target, .. }) => *target,
                Some(DwarfType::Definition(definition)) => {
                    definition.members.last().and_then(|member| member.ty)
                }
                _ => None,
            };
            let Some(next) = next else { return false };
            index = next;
        }
        false
    }

    /// The name of the structure that a value or pointer of this type leads to.
    pub(crate) fn udt_of(&self, mut index: u32) -> Option<Vec<u8>> {
        for _ in 0..MAX_DEPTH {
            index = match self.record(index)? {
                DwarfType::Pointer { target, .. } | DwarfType::Alias { target, .. } => (*target)?,
                DwarfType::Array { element, .. } => (*element)?,
                DwarfType::Definition(definition) => {
                    return definition
                        .name
                        .as_deref()
                        .map(|name| name.as_bytes().to_vec());
                }
                _ => return None,
            };
        }
        None
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
            // An unnamed structure has no name that would end a walk behind a pointer, but mostly
            // another name that leads to it.
            DwarfType::Alias { name, target } => match name {
                Some(name) if behind_pointer && self.is_unnamed(*target) => {
                    (3_u8, name).hash(hash);
                }
                _ => next(target, behind_pointer).hash(hash),
            },
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

    fn is_unnamed(&self, index: Option<u32>) -> bool {
        let record = index.and_then(|index| self.types.record(index));
        matches!(record, Some(DwarfType::Definition(definition)) if definition.name.is_none())
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
            // Compilers hash the source into the names of closures.
            match crate::names::without_generated_parts(name) {
                Some(stable) => stable.hash(hash),
                None => (**name).hash(hash),
            }
        }
        if behind_pointer {
            return;
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
            self.layout(member.ty, false, depth + 1).hash(hash);
        }
    }
}

impl<R> Definition<R> {
    /// A class is laid out as a structure is.
    fn tag_of_layout(&self) -> u16 {
        if self.tag == gimli::DW_TAG_class_type.0 {
            gimli::DW_TAG_structure_type.0
        } else {
            self.tag
        }
    }
}

impl DwarfType<usize> {
    fn resolved(self, resolve: &impl Fn(Option<usize>) -> Option<u32>) -> DwarfType<u32> {
        match self {
            Self::Base {
                name,
                encoding,
                size,
            } => DwarfType::Base {
                name,
                encoding,
                size,
            },
            Self::Pointer { tag, target, size } => DwarfType::Pointer {
                tag,
                target: resolve(target),
                size,
            },
            Self::Alias { name, target } => DwarfType::Alias {
                name,
                target: resolve(target),
            },
            Self::Array {
                element,
                counts,
                size,
            } => DwarfType::Array {
                element: resolve(element),
                counts,
                size,
            },
            Self::Definition(definition) => DwarfType::Definition(Definition {
                tag: definition.tag,
                name: definition.name,
                size: definition.size,
                declaration: definition.declaration,
                enumerators: definition.enumerators,
                virtuals: definition
                    .virtuals
                    .into_iter()
                    .map(|declared| Virtual {
                        name: declared.name,
                        slot: declared.slot,
                        function: resolve(declared.function),
                    })
                    .collect(),
                members: definition
                    .members
                    .into_iter()
                    .map(|member| Member {
                        name: member.name,
                        offset: member.offset,
                        bits: member.bits,
                        ty: resolve(member.ty),
                    })
                    .collect(),
            }),
            Self::Function {
                result,
                parameters,
                variadic,
            } => DwarfType::Function {
                result: resolve(result),
                parameters: parameters.into_iter().map(resolve).collect(),
                variadic,
            },
            Self::Other { tag, size } => DwarfType::Other { tag, size },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INT: usize = 1;

    fn int(size: u64) -> (usize, DwarfType<usize>) {
        let name = "int".into();
        let encoding = 5;
        (
            INT,
            DwarfType::Base {
                name,
                encoding,
                size,
            },
        )
    }

    fn structure(at: usize, name: &str, members: &[(u64, usize)]) -> (usize, DwarfType<usize>) {
        let member = |&(offset, ty): &(u64, usize)| Member {
            name: Some("m".into()),
            offset,
            bits: None,
            ty: Some(ty),
        };
        let definition = Definition {
            tag: gimli::DW_TAG_structure_type.0,
            name: Some(name.into()),
            size: Some(16),
            declaration: members.is_empty(),
            members: members.iter().map(member).collect(),
            enumerators: Vec::new(),
            virtuals: Vec::new(),
        };
        (at, DwarfType::Definition(definition))
    }

    fn types(found: Vec<(usize, DwarfType<usize>)>) -> DwarfTypes {
        DwarfTypes::new(found).0
    }

    /// Without remembering what was walked this would take 2^50 steps.
    #[test]
    fn a_tower_of_structures_is_walked_in_time() {
        let tower = |leaf| {
            let mut all = vec![int(leaf)];
            all.extend(
                (2..52).map(|at| structure(at, &format!("S{at}"), &[(0, at - 1), (64, at - 1)])),
            );
            types(all)
        };
        let (one, same, other) = (tower(4), tower(4), tower(8));
        assert_eq!(one.layout_hash(51), same.layout_hash(51));
        assert_ne!(one.layout_hash(51), other.layout_hash(51));
        assert_eq!(one.size(51), Some(16));
    }

    #[test]
    fn structures_that_hold_themselves_end() {
        let types = types(vec![structure(2, "S", &[(0, 2)])]);
        assert_eq!(types.size(1), Some(16));
        assert_eq!(types.layout_hash(1), types.layout_hash(1));
        let alias = DwarfType::Alias {
            name: None,
            target: Some(7),
        };
        let types = DwarfTypes::new(vec![(7, alias)]).0;
        assert_eq!((types.size(1), types.udt_of(1)), (None, None));
    }

    #[test]
    fn namesakes_count_once_for_each_layout() {
        let all = types(vec![
            int(4),
            structure(2, "S", &[(0, INT)]),
            structure(3, "S", &[(0, INT)]),
            structure(4, "S", &[(32, INT)]),
        ]);
        let expected = [("S".to_owned(), 2), ("S".to_owned(), 4)];
        assert_eq!(all.definitions(), expected);
    }

    #[test]
    fn declarations_lead_to_definitions() {
        let all = types(vec![
            int(4),
            structure(2, "S", &[]),
            structure(3, "S", &[(0, INT)]),
        ]);
        assert_eq!(all.size(2), Some(16));
        assert_ne!(
            all.layout_hash(2),
            types(vec![int(4), structure(2, "S", &[])]).layout_hash(2)
        );
    }
}
