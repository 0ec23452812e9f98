//! Constants of a known type that differ in nothing but numbers: in which, by the members of the type.

use hpbuild_metadata::{Base, DataId, Fixed, Rva, Side};

use super::readers::Readers;
use super::{Comparer, Meaning, Operand, Target, is_read_only, pointer_at};
use crate::decode::ReferenceKind;
use crate::image::{DataSymbol, Image};
use crate::types::{Form, Steps};

/// Bytes of the largest constant that is looked into, which is a record and no table.
const MOST: u32 = 256;
/// Types and members that are looked at for one constant.
const STEPS: u32 = 1 << 10;
/// Bytes of the numbers that count: larger ones may be addresses, smaller ones truth values.
const SIZES: [u32; 2] = [2, 4];

/// A number of the base, and that which the fixed image has in its place.
type Numbers = (u64, u64);

impl Comparer<'_> {
    /// The members that differ between the constants that two operands reach: integers of a structure that
    /// nothing but the operands' functions leads to. `None` where anything else differs, in the constants or
    /// in what the operands may reach otherwise, or where the types do not tell.
    pub(crate) fn members_differing(
        &self,
        base: &Operand<Base>,
        fixed: &Operand<Fixed>,
    ) -> Option<Vec<Numbers>> {
        let targets = (base.reference.target, fixed.reference.target);
        let (Target::Data { id: b, .. }, Target::Data { id: f, .. }) =
            (self.in_base(targets.0), self.in_fixed(targets.1))
        else {
            return None;
        };
        let b = self.paired_names(b, f)?;
        let f = self.pairing.fixed_data(b)?;
        let found = self.numbers_differing(b, f).filter(|it| !it.is_empty())?;
        // Who else reaches it has a line of its own.
        let (before, after) = (self.base.data_symbol(b), self.fixed.data_symbol(f));
        let is_own = is_only_of(self.base, &self.readers.0, before, base)
            && is_only_of(self.fixed, &self.readers.1, after, fixed);
        if !is_own {
            return None;
        }
        // That these differ may hide that something beside them does.
        let beside = self.compare_operands(base, fixed, Meaning::Same);
        (beside == Meaning::Same).then_some(found)
    }

    fn numbers_differing(&self, base: DataId<Base>, fixed: DataId<Fixed>) -> Option<Vec<Numbers>> {
        let (b, f) = (self.base.data_symbol(base), self.fixed.data_symbol(fixed));
        let types = (&self.base.types, &self.fixed.types);
        let are_constants = is_read_only(self.base, b.rva) && is_read_only(self.fixed, f.rva);
        let are_typed =
            b.sized_by_type && f.sized_by_type && b.type_index != 0 && f.type_index != 0;
        let is_alike = are_constants
            && are_typed
            && b.size == f.size
            && b.size <= MOST
            && self.base.relative_tables.binary_search(&b.rva).is_err()
            && self.fixed.relative_tables.binary_search(&f.rva).is_err();
        if !is_alike {
            return None;
        }
        let (before, after) = (
            self.base.pe.bytes(b.rva, b.size)?,
            self.fixed.pe.bytes(f.rva, f.size)?,
        );
        let pointers = self.pointers_alike((b.rva, f.rva), b.size)?;
        let mut steps = Steps::new(STEPS);
        let mut found = Vec::new();
        let mut at = 0;
        while at < b.size {
            if let Some((_, end)) = pointers.iter().find(|it| (it.0..it.1).contains(&at)) {
                at = *end;
                continue;
            }
            if before[at as usize] == after[at as usize] {
                at += 1;
                continue;
            }
            let scalar = types.0.scalar_at(b.type_index, at, &mut steps)?;
            let other = types.1.scalar_at(f.type_index, at, &mut steps)?;
            let end = scalar.start.checked_add(scalar.size)?;
            let is_number = scalar == other
                && matches!(scalar.form, Form::Signed | Form::Unsigned)
                && SIZES.contains(&scalar.size)
                && !scalar.enumerated
                && scalar.path.contains('.')
                && pointers
                    .iter()
                    .all(|it| it.1 <= scalar.start || end <= it.0);
            if !is_number {
                return None;
            }
            let range = scalar.start as usize..end as usize;
            found.push((
                number(before.get(range.clone())?),
                number(after.get(range)?),
            ));
            at = end;
        }
        let is_one_type = types.0.layout_hash(b.type_index) == types.1.layout_hash(f.type_index);
        is_one_type.then_some(found)
    }

    /// Where two constants hold pointers, from the start of each to its end; `None` unless all of them
    /// stand at the same places and mean the same.
    fn pointers_alike(
        &self,
        places: (Rva<Base>, Rva<Fixed>),
        size: u32,
    ) -> Option<Vec<(u32, u32)>> {
        let before = self.base.pointers_in(places.0, size);
        let after = self.fixed.pointers_in(places.1, size);
        if before.len() != after.len() {
            return None;
        }
        let both = before.into_iter().zip(after);
        let alike = both.map(|((b, absolute), (f, f_absolute))| {
            let start = b.checked_sub(places.0)?;
            if f.checked_sub(places.1)? != start || absolute != f_absolute {
                return None;
            }
            let leads = (
                pointer_at(self.base, b, absolute)?,
                pointer_at(self.fixed, f, absolute)?,
            );
            let meaning = self.compare(leads.0, leads.1, ReferenceKind::Address);
            let end = start + if absolute { 8 } else { 4 };
            (meaning == Meaning::Same).then_some((start, end))
        });
        alike.collect()
    }
}

/// Whether nothing but the function of an operand leads to data: no other code, and no pointer.
fn is_only_of<S: Side>(
    image: &Image<S>,
    readers: &Readers<S>,
    symbol: &DataSymbol<S>,
    operand: &Operand<S>,
) -> bool {
    let Some(end) = symbol.rva.checked_add(symbol.size) else {
        return false;
    };
    let places = symbol.rva..end;
    readers.is_only_of(image, places.clone(), operand.function)
        && !readers.is_pointed_at(image, places)
}

/// A number of up to eight bytes.
fn number(bytes: &[u8]) -> u64 {
    let digits = bytes.iter().rev();
    digits.fold(0, |all, byte| all << 8 | u64::from(*byte))
}
