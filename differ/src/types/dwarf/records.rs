//! What DWARF says of one type.

use std::sync::Arc;

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
    /// The source that the unit was compiled from.
    pub(crate) source: Arc<str>,
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

impl<R: Copy> Definition<R> {
    /// The types of what its end belongs to: its last member; of a union all.
    pub(super) fn at_end(&self) -> impl Iterator<Item = R> {
        let from = match self.tag_of_layout() == gimli::DW_TAG_union_type.0 {
            true => 0,
            false => self.members.len().saturating_sub(1),
        };
        self.members[from..].iter().filter_map(|member| member.ty)
    }
}

impl<R> Definition<R> {
    /// A class is laid out as a structure is.
    pub(super) fn tag_of_layout(&self) -> u16 {
        if self.tag == gimli::DW_TAG_class_type.0 {
            gimli::DW_TAG_structure_type.0
        } else {
            self.tag
        }
    }
}

impl DwarfType<usize> {
    pub(super) fn resolved(
        self,
        resolve: &impl Fn(Option<usize>) -> Option<u32>,
    ) -> DwarfType<u32> {
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
                source: definition.source,
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
