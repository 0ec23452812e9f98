//! Which number, pointer or text of a value stands at an offset: what people call an entry of a
//! table.

use ms_pdb::types::fields::Field;
use ms_pdb::types::{TypeData, TypeIndex};

use super::{CodeViewTypes, definition_name};

/// A part of a value that has no parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Scalar {
    /// Bytes from the start of the value.
    pub(crate) start: u32,
    /// Bytes; not 0.
    pub(crate) size: u32,
    /// What it is.
    pub(crate) form: Form,
    /// Whether it is of an enumeration, as far as the records tell.
    pub(crate) enumerated: bool,
    /// How the source names it in the value: `[3].limit`.
    pub(crate) path: String,
}

/// What a scalar is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// A number that may be negative.
    Signed,
    /// Any other number, a truth value, or the address of something.
    Unsigned,
    /// A floating-point number.
    Float,
    /// An array of characters of this many bytes each, or one character.
    Text(u8),
}

/// How many types and members may still be looked at. Input decides how deep types nest and how
/// many members they have.
#[derive(Debug)]
pub(crate) struct Steps(pub(super) u32);

impl Steps {
    pub(crate) fn new(count: u32) -> Self {
        Self(count)
    }

    /// One step; `None` where there are none left.
    pub(super) fn take(&mut self) -> Option<()> {
        self.0 = self.0.checked_sub(1)?;
        Some(())
    }
}

/// A way from a value to a part of it.
#[derive(Default)]
pub(super) struct Way {
    /// Bytes from the start of the value.
    pub(super) start: u32,
    /// What is left from there to the offset that is asked for.
    pub(super) left: u32,
    /// Whether it leads to a value of an enumeration.
    pub(super) enumerated: bool,
    pub(super) path: String,
}

impl Way {
    pub(super) fn new(offset: u32) -> Self {
        Self {
            left: offset,
            ..Self::default()
        }
    }

    /// Goes to a member that starts this many bytes on.
    pub(super) fn enter(&mut self, bytes: u32, name: &str) -> Option<()> {
        self.left = self.left.checked_sub(bytes)?;
        self.start = self.start.checked_add(bytes)?;
        self.path.push_str(name);
        Some(())
    }

    /// Goes to the element of an array whose elements have this many bytes.
    pub(super) fn enter_element(&mut self, size: u32) -> Option<()> {
        let index = self.left.checked_div(size)?;
        self.enter(index.checked_mul(size)?, &format!("[{index}]"))
    }

    /// The end of the way, where a scalar of this many bytes stands.
    pub(super) fn end(self, size: u32, form: Form) -> Option<Scalar> {
        (self.left < size).then_some(Scalar {
            start: self.start,
            size,
            form,
            enumerated: self.enumerated,
            path: self.path,
        })
    }
}

/// What a primitive type of CodeView is (`cvinfo.h`, `TYPE_ENUM_e`).
fn primitive_form(index: u32) -> Form {
    if index >> 8 & 0xf != 0 {
        return Form::Unsigned;
    }
    match index & 0xff {
        0x10..=0x14 | 0x68 | 0x72 | 0x74 | 0x76 | 0x78 => Form::Signed,
        0x40 | 0x41 => Form::Float,
        0x70 | 0x7c => Form::Text(1),
        0x71 | 0x7a => Form::Text(2),
        _ => Form::Unsigned,
    }
}

impl CodeViewTypes {
    /// The scalar of a value of this type that holds the byte at `offset`; `None` for padding, and
    /// where the records do not tell.
    pub(crate) fn scalar_at(&self, index: u32, offset: u32, steps: &mut Steps) -> Option<Scalar> {
        let mut way = Way::new(offset);
        let mut index = TypeIndex(index);
        loop {
            steps.take()?;
            if self.stream.is_primitive(index) {
                return way.end(super::primitive_size(index.0)?, primitive_form(index.0));
            }
            let data = self.data(index)?;
            index = match &data {
                TypeData::Modifier(modifier) => modifier.underlying_type.get(),
                TypeData::Bitfield(bits) => bits.underlying_type.get(),
                TypeData::Pointer(pointer) => {
                    return way.end(pointer.fixed.attr().size(), Form::Unsigned);
                }
                TypeData::Array(array) => {
                    let (element, all) = (array.fixed.element_type.get(), array.len);
                    let size = self.size_at(element, 0)?;
                    if let Some(width) = self.character(element) {
                        return way.end(u32::try_from(all).ok()?, Form::Text(width));
                    }
                    way.enter_element(size)?;
                    element
                }
                _ => {
                    let (name, is_definition) = definition_name(&data)?;
                    match (is_definition, &data) {
                        (false, _) => self.definition_of(name).filter(|it| *it != index)?,
                        (_, TypeData::Enum(it)) => {
                            way.enumerated = true;
                            it.fixed.underlying_type.get()
                        }
                        (_, TypeData::Struct(it)) => {
                            self.enter_member(it.fixed.field_list.get(), &mut way, steps)?
                        }
                        (_, TypeData::Union(it)) => {
                            self.enter_member(it.fixed.fields.get(), &mut way, steps)?
                        }
                        _ => return None,
                    }
                }
            };
        }
    }

    /// Bytes of a character, where this is the type of one.
    fn character(&self, mut index: TypeIndex) -> Option<u8> {
        if let Some(TypeData::Modifier(modifier)) = self.data(index) {
            index = modifier.underlying_type.get();
        }
        match primitive_form(index.0) {
            Form::Text(width) if self.stream.is_primitive(index) => Some(width),
            _ => None,
        }
    }

    /// Goes to the first member that holds the offset; returns its type.
    fn enter_member(&self, list: TypeIndex, way: &mut Way, steps: &mut Steps) -> Option<TypeIndex> {
        let fields = self.fields(list);
        // All of them were read, whichever it is.
        steps.0 = steps.0.checked_sub(u32::try_from(fields.len()).ok()?)?;
        for field in fields {
            let (at, name, ty) = match field {
                Field::Member(it) => (it.offset, format!(".{}", it.name), it.ty),
                Field::BaseClass(it) => (it.offset, String::new(), it.ty),
                _ => continue,
            };
            let Ok(at) = u32::try_from(at) else { continue };
            let place = match self.data(ty) {
                Some(TypeData::Bitfield(bits)) => bits.underlying_type.get(),
                _ => ty,
            };
            let Some(size) = self.size_at(place, 0) else {
                continue;
            };
            if way.left.checked_sub(at).is_some_and(|inside| inside < size) {
                way.enter(at, &name)?;
                return Some(ty);
            }
        }
        None
    }
}
