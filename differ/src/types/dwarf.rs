//! Types from DWARF: how many bytes they have, and a hash of their layout that means the same in
//! another image.
//!
//! The same rules as for CodeView: members by name, offset and type; behind a pointer only the
//! name of a structure counts. Every unit repeats the types it uses, so of one name there are
//! many definitions, which mostly are equal. Where they are not, as namesakes in C may be, each
//! counts.

mod layout;
mod records;
mod scalar;
mod words;

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};

use rustc_hash::{FxHashMap, FxHashSet, FxHasher};

use super::VirtualFunction;
use super::sources::{Sources, file_name};

pub(crate) use records::{Definition, DwarfType, Member, Virtual};

/// Nesting that is followed before giving up.
const MAX_DEPTH: u32 = 64;

/// What tells definitions of one name apart: layout, enumerators and virtual functions.
type Looks = (u64, Vec<(String, Vec<u8>)>, Vec<VirtualFunction>);

/// What lays out C++, as far as records of types leave it open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CxxAbi {
    /// That of GCC, and of everybody for Windows' GNU environments.
    Itanium,
    /// That of MSVC.
    Microsoft,
}

/// The types of one image. Index 0 is none.
#[derive(Debug)]
pub(crate) struct DwarfTypes {
    abi: CxxAbi,
    records: Vec<DwarfType<u32>>,
    /// Full definitions by name, in name order; of several the first ones that differ.
    definitions: BTreeMap<Box<str>, Vec<u32>>,
}

impl DwarfTypes {
    /// Orders the types of all units, each with its offset in `.debug_info`; returns the index
    /// for each offset, too.
    pub(crate) fn new(
        found: Vec<(usize, DwarfType<usize>)>,
        abi: CxxAbi,
    ) -> (Self, FxHashMap<usize, u32>) {
        let indices: FxHashMap<usize, u32> = (1_u32..)
            .zip(&found)
            .map(|(index, (offset, _))| (*offset, index))
            .collect();
        let resolve = |offset: Option<usize>| indices.get(&offset?).copied();
        let mut records: Vec<_> = found
            .into_iter()
            .map(|(_, record)| record.resolved(&resolve))
            .collect();
        name_by_typedefs(&mut records);
        let mut types = Self {
            abi,
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
            found.retain(|index| known.insert(self.looks(*index)));
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
            DwarfType::Pointer { .. } => self.pointer_size(index),
            DwarfType::Alias { target, .. } => self.size_at((*target)?, depth + 1),
            DwarfType::Array {
                element,
                counts,
                size,
            } => size.or_else(|| {
                let element = self.size_at((*element)?, depth + 1)?;
                // Some languages count by a type of numbers, which is not followed.
                let counts = Some(counts).filter(|counts| !counts.is_empty())?;
                counts
                    .iter()
                    .try_fold(element, |all, count| all.checked_mul((*count)?))
            }),
            // Units need not agree on a name, and nothing says whose definition is meant.
            DwarfType::Definition(definition) if definition.declaration => {
                let mut sizes = self.definitions_of(definition).map(|it| it.size);
                let size = sizes.next()?;
                size.filter(|_| sizes.all(|other| other == size))
            }
            DwarfType::Definition(definition) => definition.size,
            DwarfType::Other { size, .. } => *size,
            DwarfType::Function { .. } => None,
        }
    }

    /// Bytes of a pointer or reference. Where nothing says, what leads to a member depends on the C++
    /// ABI: in that of Itanium (2.3) it is a distance, and two words where it leads to a function. In
    /// Microsoft's the class decides.
    fn pointer_size(&self, index: u32) -> Option<u64> {
        // Only 64-bit images are read.
        const WORD: u64 = 8;
        let DwarfType::Pointer { tag, target, size } = self.record(index)? else {
            return None;
        };
        if size.is_some() || *tag != gimli::DW_TAG_ptr_to_member_type.0 {
            return size.or(Some(WORD));
        }
        let target = self.unaliased(*target).and_then(|it| self.record(it));
        match (self.abi, target?) {
            (CxxAbi::Itanium, DwarfType::Function { .. }) => Some(2 * WORD),
            (CxxAbi::Itanium, _) => Some(WORD),
            (CxxAbi::Microsoft, _) => None,
        }
    }

    /// A type without qualifiers and other names, which no layout has.
    fn unaliased(&self, mut index: Option<u32>) -> Option<u32> {
        for _ in 0..MAX_DEPTH {
            let record = index.and_then(|index| self.record(index));
            let Some(DwarfType::Alias { target, .. }) = record else {
                break;
            };
            index = *target;
        }
        index
    }

    /// The full definitions that a declaration may stand for, of which equal ones count once.
    fn definitions_of(&self, declared: &Definition<u32>) -> impl Iterator<Item = &Definition<u32>> {
        let name = declared.name.as_deref().unwrap_or_default();
        let found = self.definitions.get(name).into_iter().flatten();
        found.filter_map(|index| match self.record(*index)? {
            DwarfType::Definition(definition) => Some(definition),
            _ => None,
        })
    }

    /// Full definitions as (name without what hashes the source, index), in name order; several of
    /// a name where units disagree on it.
    pub(crate) fn definitions(&self) -> Vec<(String, u32)> {
        let mut all: Vec<_> = self
            .definitions
            .iter()
            .flat_map(|(name, found)| {
                let name = crate::names::of_type(name).into_owned();
                found.iter().map(move |index| (name.clone(), *index))
            })
            .collect();
        all.sort_unstable();
        all
    }

    /// The sources of the units that define types: of definitions that are equal the first one stands
    /// for all.
    pub(crate) fn sources(&self) -> Sources {
        let mut found = Sources::new();
        let mut kept: FxHashMap<(&str, Looks), u32> = FxHashMap::default();
        for (name, indexes) in self.definitions.iter().filter(|(_, it)| it.len() > 1) {
            kept.extend(indexes.iter().map(|it| ((&**name, self.looks(*it)), *it)));
        }
        for (index, record) in (1..).zip(&self.records) {
            let DwarfType::Definition(definition) = record else {
                continue;
            };
            let name = definition.name.as_deref().unwrap_or_default();
            let first = match self.definitions.get(name).map(Vec::as_slice) {
                Some([only]) => Some(*only),
                Some(_) => kept.get(&(name, self.looks(index))).copied(),
                None => None,
            };
            if let Some(first) = first.filter(|_| !definition.declaration) {
                let source = file_name(&definition.source);
                found.entry(first).or_default().insert(source);
            }
        }
        found
    }

    /// What tells definitions of one name apart.
    fn looks(&self, index: u32) -> Looks {
        let layout = self.layout_hash(index);
        (
            layout,
            self.enumerators(index),
            self.virtual_functions(index),
        )
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

    /// Names and values of the enumerators of all enumerations without a name.
    pub(crate) fn nameless_enumerators(&self) -> Vec<(String, i128)> {
        let nameless = self.records.iter().filter_map(|record| match record {
            DwarfType::Definition(it) if it.name.is_none() => Some(&it.enumerators),
            _ => None,
        });
        // Values are as wide as the longest, and that has a sign more often than not.
        let pair = |(name, value): &(Box<str>, u64)| (name.to_string(), value.cast_signed().into());
        let mut found: Vec<_> = nameless.flatten().map(pair).collect();
        found.sort_unstable();
        found
    }

    /// Whether values of this type are arrays, or structures of an array and nothing else.
    pub(crate) fn is_array(&self, index: u32) -> bool {
        self.array(index).is_some()
    }

    /// Bytes of an entry of such an array; those of a value of any other type.
    pub(crate) fn entry_size(&self, index: u32) -> Option<u32> {
        let Some((element, counts)) = self.array(index) else {
            return self.size(index);
        };
        let mut size = self.size_at(element?, 0)?;
        for count in counts.iter().skip(1) {
            size = size.checked_mul((*count)?)?;
        }
        size.try_into().ok()
    }

    /// The element and the counts of such an array.
    fn array(&self, mut index: u32) -> Option<(Option<u32>, &[Option<u64>])> {
        for _ in 0..MAX_DEPTH {
            index = match self.record(index)? {
                DwarfType::Array {
                    element, counts, ..
                } => return Some((*element, counts)),
                DwarfType::Alias { target, .. } => (*target)?,
                DwarfType::Definition(definition) => match &definition.members[..] {
                    [member] => member.ty?,
                    _ => return None,
                },
                _ => return None,
            };
        }
        None
    }

    /// Whether values of this type may be larger than it: the last member of a structure, or any of a
    /// union, is an array without a count, or with one of 0.
    pub(crate) fn is_open_ended(&self, index: u32) -> bool {
        let mut open = vec![index];
        let mut seen = FxHashSet::default();
        while let Some(index) = open.pop() {
            if !seen.insert(index) {
                continue;
            }
            match self.record(index) {
                Some(DwarfType::Array { counts, .. })
                    if counts.first().is_none_or(|count| count.unwrap_or(0) == 0) =>
                {
                    return true;
                }
                Some(DwarfType::Alias { target, .. }) => open.extend(target),
                Some(DwarfType::Definition(declared)) if declared.declaration => {
                    let definitions = self.definitions_of(declared);
                    open.extend(definitions.flat_map(Definition::at_end));
                }
                Some(DwarfType::Definition(definition)) => open.extend(definition.at_end()),
                _ => {}
            }
        }
        false
    }

    /// The name of the structure that a value or pointer of this type leads to.
    pub(crate) fn udt_of(&self, index: u32) -> Option<Vec<u8>> {
        let (_, definition) = self.udt_in(index)?;
        Some(definition.name.as_deref()?.as_bytes().to_vec())
    }

    /// That structure, union or enumeration where it has no name.
    pub(crate) fn nameless_in(&self, index: u32) -> Option<u32> {
        let (found, definition) = self.udt_in(index)?;
        (definition.name.is_none() && !definition.declaration).then_some(found)
    }

    /// Whether this is a structure, union or enumeration without a name.
    pub(crate) fn is_nameless(&self, index: u32) -> bool {
        matches!(self.record(index), Some(DwarfType::Definition(it)) if it.name.is_none())
    }

    /// Structures and unions without a name that are no part of another type, by the names of their
    /// sources: what holds them has their layout.
    pub(crate) fn nameless(&self) -> Vec<(String, u32)> {
        let members = self.records.iter().filter_map(|record| match record {
            DwarfType::Definition(definition) => Some(&definition.members),
            _ => None,
        });
        let parts = members.flatten().filter_map(|it| self.nameless_in(it.ty?));
        let parts: FxHashSet<u32> = parts.collect();
        let free = (1..).zip(&self.records).filter_map(|(index, record)| {
            let DwarfType::Definition(definition) = record else {
                return None;
            };
            let is_free = definition.name.is_none()
                && !definition.declaration
                && definition.enumerators.is_empty()
                && !parts.contains(&index);
            is_free.then(|| (file_name(&definition.source), index))
        });
        free.collect()
    }

    fn udt_in(&self, mut index: u32) -> Option<(u32, &Definition<u32>)> {
        for _ in 0..MAX_DEPTH {
            index = match self.record(index)? {
                DwarfType::Pointer { target, .. } | DwarfType::Alias { target, .. } => (*target)?,
                DwarfType::Array { element, .. } => (*element)?,
                DwarfType::Definition(definition) => return Some((index, definition)),
                _ => return None,
            };
        }
        None
    }
}

/// Gives definitions without a tag name (`typedef struct { .. } T;`) the first other name that leads
/// to them, as C++ and clang do by themselves: it is what a program knows them by.
fn name_by_typedefs(records: &mut [DwarfType<u32>]) {
    for alias in 0..records.len() {
        let DwarfType::Alias {
            name: Some(name),
            target,
        } = &records[alias]
        else {
            continue;
        };
        let (name, mut target) = (name.clone(), *target);
        // Qualifiers stand between them.
        for _ in 0..MAX_DEPTH {
            let index = target.and_then(|index| index.checked_sub(1));
            match index.and_then(|index| records.get_mut(index as usize)) {
                Some(DwarfType::Alias {
                    name: None,
                    target: next,
                }) => target = *next,
                Some(DwarfType::Definition(definition)) => {
                    definition.name.get_or_insert(name);
                    break;
                }
                _ => break,
            }
        }
    }
}

#[cfg(test)]
mod tests;
