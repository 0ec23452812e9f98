//! Types, and what they are made of.

use std::sync::Arc;

use gimli::{AttributeValue, DwTag, Operation};

use super::super::budget::Result;
use super::{Entry, OpenKind, Walk};
use crate::types::dwarf::{Definition, DwarfType, Member, Virtual};

impl<'a> Walk<'_, 'a> {
    pub(super) fn ty(&self, entry: &Entry<'a>, tag: DwTag) -> Result<Option<DwarfType<usize>>> {
        let size = Self::number(entry, gimli::DW_AT_byte_size);
        let target = self.reference(entry, gimli::DW_AT_type);
        Ok(Some(match tag {
            gimli::DW_TAG_base_type => DwarfType::Base {
                name: self.string(entry, gimli::DW_AT_name)?.unwrap_or_default(),
                encoding: match entry.attr_value(gimli::DW_AT_encoding) {
                    Some(AttributeValue::Encoding(encoding)) => encoding.0,
                    _ => 0,
                },
                size: size.unwrap_or(0),
            },
            gimli::DW_TAG_pointer_type
            | gimli::DW_TAG_reference_type
            | gimli::DW_TAG_rvalue_reference_type
            | gimli::DW_TAG_ptr_to_member_type => DwarfType::Pointer {
                tag: tag.0,
                target,
                size,
            },
            gimli::DW_TAG_typedef => {
                let name = self.string(entry, gimli::DW_AT_name)?;
                DwarfType::Alias {
                    name: name.map(|name| self.qualified(name)).transpose()?,
                    target,
                }
            }
            gimli::DW_TAG_const_type
            | gimli::DW_TAG_volatile_type
            | gimli::DW_TAG_restrict_type
            | gimli::DW_TAG_atomic_type => DwarfType::Alias { name: None, target },
            // Elements that do not stand one behind the other.
            gimli::DW_TAG_array_type if has_stride(entry) => DwarfType::Other { tag: tag.0, size },
            gimli::DW_TAG_array_type => DwarfType::Array {
                element: target,
                counts: Vec::new(),
                size,
            },
            gimli::DW_TAG_structure_type
            | gimli::DW_TAG_class_type
            | gimli::DW_TAG_union_type
            | gimli::DW_TAG_enumeration_type => {
                let name = self.string(entry, gimli::DW_AT_name)?;
                DwarfType::Definition(Definition {
                    tag: tag.0,
                    name: name.map(|name| self.qualified(name)).transpose()?,
                    size,
                    source: Arc::clone(&self.source),
                    declaration: Self::flag(entry, gimli::DW_AT_declaration),
                    members: Vec::new(),
                    enumerators: Vec::new(),
                    virtuals: Vec::new(),
                })
            }
            gimli::DW_TAG_subroutine_type => DwarfType::Function {
                result: target,
                parameters: Vec::new(),
                variadic: false,
            },
            gimli::DW_TAG_unspecified_type | gimli::DW_TAG_string_type | gimli::DW_TAG_set_type => {
                DwarfType::Other { tag: tag.0, size }
            }
            _ => return Ok(None),
        }))
    }

    /// The type that the innermost open entry is about.
    pub(super) fn open_type(&mut self) -> Option<&mut DwarfType<usize>> {
        let index = match self.open.last()?.kind {
            OpenKind::Type(index) | OpenKind::Function(_, Some(index)) => index,
            _ => return None,
        };
        self.facts.types.get_mut(index).map(|(_, found)| found)
    }

    pub(super) fn member(&mut self, entry: &Entry<'a>) -> Result<()> {
        // A static member is a variable; its definition elsewhere takes its name from here.
        if Self::flag(entry, gimli::DW_AT_external) || Self::flag(entry, gimli::DW_AT_declaration) {
            let named = self.named(entry)?;
            self.facts.named.push((self.offset(entry), named));
            return Ok(());
        }
        let bytes = match entry.attr_value(gimli::DW_AT_data_member_location) {
            // Before version 3 an expression, and for virtual bases one that has to be run.
            Some(AttributeValue::Exprloc(expression)) => {
                match expression.operations(self.unit.encoding()).next()? {
                    Some(Operation::PlusConstant { value }) => value,
                    _ => u64::MAX,
                }
            }
            value => value.and_then(|value| value.udata_value()).unwrap_or(0),
        };
        let member = Member {
            name: self.string(entry, gimli::DW_AT_name)?,
            offset: bytes
                .wrapping_mul(8)
                .wrapping_add(Self::number(entry, gimli::DW_AT_data_bit_offset).unwrap_or(0))
                // Counted from the other end in version 3 and before; as good to compare.
                .wrapping_add(Self::number(entry, gimli::DW_AT_bit_offset).unwrap_or(0)),
            bits: Self::number(entry, gimli::DW_AT_bit_size),
            ty: self.reference(entry, gimli::DW_AT_type),
        };
        if let Some(DwarfType::Definition(definition)) = self.open_type() {
            definition.members.push(member);
        }
        Ok(())
    }

    pub(super) fn parameter(&mut self, entry: &Entry<'a>) {
        let ty = self.reference(entry, gimli::DW_AT_type);
        let is_more = entry.tag() == gimli::DW_TAG_unspecified_parameters;
        if let Some(DwarfType::Function {
            parameters,
            variadic,
            ..
        }) = self.open_type()
        {
            *variadic |= is_more;
            if !is_more {
                parameters.push(ty);
            }
        }
    }

    pub(super) fn enumerator(&mut self, entry: &Entry<'a>) -> Result<()> {
        let name = self.string(entry, gimli::DW_AT_name)?.unwrap_or_default();
        let value = entry.attr_value(gimli::DW_AT_const_value);
        let signed = value.as_ref().and_then(AttributeValue::sdata_value);
        let value = signed
            .map(i64::cast_unsigned)
            .or_else(|| value?.udata_value());
        if let Some(DwarfType::Definition(definition)) = self.open_type() {
            definition.enumerators.push((name, value.unwrap_or(0)));
        }
        Ok(())
    }

    /// Notes a virtual function in the class that declares it.
    pub(super) fn virtual_function(&mut self, entry: &Entry<'a>, offset: usize) -> Result<()> {
        let slot = match entry.attr_value(gimli::DW_AT_vtable_elem_location) {
            Some(AttributeValue::Exprloc(expression)) => {
                match expression.operations(self.unit.encoding()).next()? {
                    // A table has entries of the size of a pointer.
                    Some(Operation::UnsignedConstant { value }) => u32::try_from(value)
                        .ok()
                        .and_then(|slot| slot.checked_mul(8)),
                    _ => None,
                }
            }
            _ => None,
        };
        let name = self.string(entry, gimli::DW_AT_name)?.unwrap_or_default();
        if let Some(DwarfType::Definition(definition)) = self.open_type() {
            definition.virtuals.push(Virtual {
                name,
                slot,
                function: Some(offset),
            });
        }
        Ok(())
    }

    pub(super) fn dimension(&mut self, entry: &Entry<'a>) {
        let count = Self::number(entry, gimli::DW_AT_count);
        let upper = Self::number(entry, gimli::DW_AT_upper_bound);
        // Where it is not said, it is that of the language; that of most is 0, and of the others 1.
        let lower = entry.attr_value(gimli::DW_AT_lower_bound);
        let count = count.or_else(|| {
            let lower = lower.map_or(Some(0), |it| it.sdata_value())?;
            upper?
                .checked_add(1)?
                .checked_add_signed(lower.checked_neg()?)
        });
        if let Some(DwarfType::Array { counts, .. }) = self.open_type() {
            counts.push(count.filter(|_| !has_stride(entry)));
        }
    }
}

/// Whether an array or one of its dimensions says how far elements are apart.
fn has_stride(entry: &Entry<'_>) -> bool {
    let strides = [gimli::DW_AT_byte_stride, gimli::DW_AT_bit_stride];
    strides.into_iter().any(|stride| entry.has_attr(stride))
}
