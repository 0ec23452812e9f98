//! Which number, pointer or text of a value stands at an offset.

use super::super::scalar::{Form, Scalar, Steps, Way};
use super::{Definition, DwarfType, DwarfTypes};

/// What a base type is (DWARF 5, 7.8), by its encoding and size.
fn base_form(encoding: u8, size: u64) -> Form {
    match gimli::DwAte(encoding) {
        gimli::DW_ATE_signed => Form::Signed,
        gimli::DW_ATE_float if size == 4 || size == 8 => Form::Float,
        gimli::DW_ATE_signed_char => Form::Text(1),
        gimli::DW_ATE_UTF if size == 1 => Form::Text(1),
        gimli::DW_ATE_UTF if size == 2 => Form::Text(2),
        _ => Form::Unsigned,
    }
}

impl DwarfTypes {
    /// The scalar of a value of this type that holds the byte at `offset`; `None` for padding, and
    /// where the records do not tell.
    pub(crate) fn scalar_at(
        &self,
        mut index: u32,
        offset: u32,
        steps: &mut Steps,
    ) -> Option<Scalar> {
        let mut way = Way::new(offset);
        loop {
            steps.take()?;
            index = match self.record(index)? {
                DwarfType::Base { encoding, size, .. } => {
                    return way.end(u32::try_from(*size).ok()?, base_form(*encoding, *size));
                }
                DwarfType::Pointer { .. } => {
                    let size = u32::try_from(self.pointer_size(index)?).ok()?;
                    return way.end(size, Form::Unsigned);
                }
                DwarfType::Alias { target, .. } => (*target)?,
                DwarfType::Array {
                    element, counts, ..
                } => {
                    let element = (*element)?;
                    let size = u32::try_from(self.size_at(element, 0)?).ok()?;
                    // Of several dimensions the last one runs fastest.
                    let inner = counts.iter().skip(1).rev();
                    let mut strides = vec![size];
                    for count in inner {
                        steps.take()?;
                        let count = u32::try_from((*count)?).ok()?;
                        strides.push(strides.last()?.checked_mul(count)?);
                    }
                    let row = counts.last().copied().flatten();
                    if let (Some(width), Some(row)) = (self.character(element, steps), row) {
                        strides
                            .iter()
                            .skip(1)
                            .rev()
                            .try_for_each(|it| way.enter_element(*it))?;
                        let row = u32::try_from(row).ok()?.checked_mul(size)?;
                        return way.end(row, Form::Text(width));
                    }
                    strides
                        .iter()
                        .rev()
                        .try_for_each(|it| way.enter_element(*it))?;
                    element
                }
                DwarfType::Definition(it) if it.declaration => self
                    .definition(it.name.as_deref()?)
                    .filter(|it| *it != index)?,
                DwarfType::Definition(it) if it.tag == gimli::DW_TAG_enumeration_type.0 => {
                    way.enumerated = true;
                    return way.end(u32::try_from(it.size?).ok()?, Form::Unsigned);
                }
                DwarfType::Definition(it) => self.enter_member(it, &mut way, steps)?,
                DwarfType::Function { .. } | DwarfType::Other { .. } => return None,
            };
        }
    }

    /// Bytes of a character, where this is the type of one.
    fn character(&self, mut index: u32, steps: &mut Steps) -> Option<u8> {
        loop {
            steps.take()?;
            index = match self.record(index)? {
                DwarfType::Alias { target, .. } => (*target)?,
                DwarfType::Base { encoding, size, .. } => match base_form(*encoding, *size) {
                    Form::Text(width) => return Some(width),
                    _ => return None,
                },
                _ => return None,
            };
        }
    }

    /// Goes to the first member that holds the offset; returns its type.
    fn enter_member(
        &self,
        definition: &Definition<u32>,
        way: &mut Way,
        steps: &mut Steps,
    ) -> Option<u32> {
        for member in &definition.members {
            steps.take()?;
            // The bits of a bit field are not looked at one by one.
            let (Ok(at), Some(ty)) = (u32::try_from(member.offset / 8), member.ty) else {
                continue;
            };
            let at = match member.bits {
                Some(_) => {
                    let size = self.size_at(ty, 0).and_then(|it| u32::try_from(it).ok());
                    let Some(size) = size.filter(|it| *it > 0) else {
                        continue;
                    };
                    at - at % size
                }
                None => at,
            };
            let Some(size) = self.size_at(ty, 0) else {
                continue;
            };
            let inside = way.left.checked_sub(at);
            if inside.is_some_and(|inside| u64::from(inside) < size) {
                let name = member.name.as_deref().map(|name| format!(".{name}"));
                way.enter(at, &name.unwrap_or_default())?;
                return Some(ty);
            }
        }
        None
    }
}
