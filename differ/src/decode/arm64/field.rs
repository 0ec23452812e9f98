//! The bits of an A64 instruction that hold an address or a part of one: found, read and set.
//!
//! Layouts follow the Arm Architecture Reference Manual, chapter C4 (encoding index). The page
//! and page-offset fields are those that the COFF relocations `PAGEBASE_REL21`, `PAGEOFFSET_12A`
//! and `PAGEOFFSET_12L` fill in.

use hpbuild_metadata::{Rva, Side};

use crate::decode::{Field, ReferenceKind};

/// Where an instruction holds an address, and how it is encoded there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressField {
    /// `b`, `bl`: distance in words, 26 bits.
    Branch26,
    /// `b.cond`, `bc.cond`, `cbz`, `cbnz`: distance in words, 19 bits.
    Branch19,
    /// `tbz`, `tbnz`: distance in words, 14 bits.
    Branch14,
    /// `ldr` and `prfm` of a literal: distance in words, 19 bits.
    Literal19,
    /// `adr`: distance in bytes, 21 bits.
    Address21,
    /// `adrp`: distance in pages, 21 bits.
    Page21,
    /// `add` without shift: offset in bytes within a page, 12 bits.
    Add12,
    /// Load, store or prefetch with an unsigned offset: offset within a page in units of
    /// `1 << scale` bytes, 12 bits.
    Offset12 {
        /// Logarithm of the unit, 0 to 4.
        scale: u8,
    },
}

/// Why an address does not fit a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    /// The distance is more than the field can hold.
    #[error("{distance:#x} bytes are out of reach of {field:?}")]
    OutOfRange {
        /// The field.
        field: AddressField,
        /// Target minus place, in bytes.
        distance: i64,
    },
    /// The address is no multiple of the field's unit.
    #[error("{value:#x} is no multiple of {unit} bytes, the unit of {field:?}")]
    Misaligned {
        /// The field.
        field: AddressField,
        /// Distance or offset in bytes.
        value: i64,
        /// The unit.
        unit: u32,
    },
}

/// The bits 5 to 23, where most signed distances stand.
const IMM19: u32 = 0x00ff_ffe0;
/// `immhi` and `immlo` of `adr` and `adrp`.
const IMM21: u32 = 0x60ff_ffe0;
/// The unsigned immediate of `add` and of loads and stores.
const IMM12: u32 = 0x003f_fc00;

impl AddressField {
    /// The field of `word`. A page offset ([`AddressField::Add12`], [`AddressField::Offset12`]) is
    /// one only where the base register holds a page, which the word alone does not show.
    pub fn of(word: u32) -> Option<Self> {
        Some(match word >> 24 {
            _ if word & 0x7c00_0000 == 0x1400_0000 => AddressField::Branch26,
            0x54 => AddressField::Branch19,
            0x34 | 0x35 | 0xb4 | 0xb5 => AddressField::Branch19,
            0x36 | 0x37 | 0xb6 | 0xb7 => AddressField::Branch14,
            0x18 | 0x58 | 0x98 | 0xd8 | 0x1c | 0x5c | 0x9c => AddressField::Literal19,
            _ if word & 0x9f00_0000 == 0x1000_0000 => AddressField::Address21,
            _ if word & 0x9f00_0000 == 0x9000_0000 => AddressField::Page21,
            0x91 if word & 0x0040_0000 == 0 => AddressField::Add12,
            _ if word & 0x3b00_0000 == 0x3900_0000 => return unsigned_offset(word),
            _ => return None,
        })
    }

    /// The bits it takes up.
    pub const fn mask(self) -> u32 {
        match self {
            AddressField::Branch26 => 0x03ff_ffff,
            AddressField::Branch19 | AddressField::Literal19 => IMM19,
            AddressField::Branch14 => 0x0007_ffe0,
            AddressField::Address21 | AddressField::Page21 => IMM21,
            AddressField::Add12 | AddressField::Offset12 { .. } => IMM12,
        }
    }

    /// Whether it holds only the offset within a page that another instruction made.
    pub const fn is_page_offset(self) -> bool {
        matches!(self, AddressField::Add12 | AddressField::Offset12 { .. })
    }

    /// Where the field of `word`, an instruction at `pc`, points: for [`AddressField::Page21`] the
    /// start of a page. `None` where that is outside the 32 bits of RVAs.
    ///
    /// For a page offset `pc` is the page.
    pub fn target<S: Side>(self, word: u32, pc: Rva<S>) -> Option<Rva<S>> {
        match self {
            AddressField::Page21 => pc.page().checked_offset(self.value(word)),
            _ => pc.checked_offset(self.value(word)),
        }
    }

    /// The value of the field in bytes: a signed distance, or an offset within a page.
    pub fn value(self, word: u32) -> i64 {
        // Sign extension: the field is moved to the top of the word and back.
        let signed =
            |low: u32, bits: u32| i64::from(((word << (32 - low - bits)) as i32) >> (32 - bits));
        let imm21 = || (signed(5, 19) << 2) | i64::from((word >> 29) & 3);
        let imm12 = i64::from((word & IMM12) >> 10);
        match self {
            AddressField::Branch26 => signed(0, 26) << 2,
            AddressField::Branch19 | AddressField::Literal19 => signed(5, 19) << 2,
            AddressField::Branch14 => signed(5, 14) << 2,
            AddressField::Address21 => imm21(),
            AddressField::Page21 => imm21() << 12,
            AddressField::Add12 => imm12,
            AddressField::Offset12 { scale } => imm12 << scale,
        }
    }

    /// `word`, an instruction at `pc` with this field, made to point at `target`. A page offset
    /// takes the low 12 bits of `target` and does not look at `pc`.
    ///
    /// # Errors
    /// Where the field cannot hold it.
    pub fn set<S: Side>(self, word: u32, pc: Rva<S>, target: Rva<S>) -> Result<u32, FieldError> {
        let (from, to) = (i64::from(pc.get()), i64::from(target.get()));
        let (value, unit, bits) = match self {
            AddressField::Branch26 => (to - from, 2, 26),
            AddressField::Branch19 | AddressField::Literal19 => (to - from, 2, 19),
            AddressField::Branch14 => (to - from, 2, 14),
            AddressField::Address21 => (to - from, 0, 21),
            AddressField::Page21 => ((to & !0xfff) - (from & !0xfff), 12, 21),
            // One bit more than the field has: it is unsigned and cannot overflow.
            AddressField::Add12 => (to & 0xfff, 0, 13),
            AddressField::Offset12 { scale } => (to & 0xfff, scale, 13),
        };
        if value & ((1 << unit) - 1) != 0 {
            return Err(FieldError::Misaligned {
                field: self,
                value,
                unit: 1 << unit,
            });
        }
        let scaled = value >> unit;
        if scaled < -(1 << (bits - 1)) || scaled >= 1 << (bits - 1) {
            return Err(FieldError::OutOfRange {
                field: self,
                distance: to - from,
            });
        }
        let scaled = scaled as u32;
        let field = match self {
            AddressField::Branch26 => scaled,
            AddressField::Branch19 | AddressField::Literal19 | AddressField::Branch14 => {
                scaled << 5
            }
            AddressField::Address21 | AddressField::Page21 => {
                ((scaled & 3) << 29) | (((scaled >> 2) << 5) & IMM19)
            }
            AddressField::Add12 | AddressField::Offset12 { .. } => scaled << 10,
        };
        Ok((word & !self.mask()) | (field & self.mask()))
    }

    /// As the general part of decoding sees it.
    pub(super) fn field(self) -> Field {
        Field::Word { mask: self.mask() }
    }
}

/// The field of a load or store whose bits 29 to 24 are `11x01`; `None` where unallocated.
fn unsigned_offset(word: u32) -> Option<AddressField> {
    let size = word >> 30;
    let opc = (word >> 22) & 3;
    let scale = if word & (1 << 26) == 0 {
        // No signed word into a word, and nothing signed or beyond `prfm` of eight bytes.
        if opc == 3 && size >= 2 {
            return None;
        }
        size
    } else if opc < 2 {
        size
    } else if size == 0 {
        4 // 128 bits
    } else {
        return None;
    };
    Some(AddressField::Offset12 { scale: scale as u8 })
}

/// What `word`, whose field is `field`, does with the address in it.
pub(super) fn kind(word: u32, field: AddressField) -> ReferenceKind {
    match field {
        AddressField::Branch26 if word >> 31 == 1 => ReferenceKind::Call,
        AddressField::Branch26 => ReferenceKind::Jump,
        AddressField::Branch19 | AddressField::Branch14 => ReferenceKind::ConditionalJump,
        AddressField::Address21 | AddressField::Add12 => ReferenceKind::Address,
        AddressField::Page21 => ReferenceKind::Page,
        AddressField::Literal19 => match (word >> 30, word & (1 << 26) != 0) {
            (0, _) | (2, false) => ReferenceKind::Memory(4),
            (1, _) => ReferenceKind::Memory(8),
            (2, true) => ReferenceKind::Memory(16),
            _ => ReferenceKind::Memory(0), // prefetch
        },
        // A prefetch touches as much as the cache likes.
        AddressField::Offset12 { .. } if word & 0xffc0_0000 == 0xf980_0000 => {
            ReferenceKind::Memory(0)
        }
        AddressField::Offset12 { scale } => ReferenceKind::Memory(1 << scale),
    }
}
