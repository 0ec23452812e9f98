//! What an instruction does with the stack pointer and with addresses made from it.
//!
//! Only the forms that compilers use for their frames are told apart; every other look at the
//! stack pointer is [`Form::Other`], with whether it reads and writes it. As in `effects`, neither
//! is ever left out. Groups and bits follow the Arm Architecture Reference Manual, chapter C4.1.

use crate::decode::arm64::effects::{self, ALL};

/// The stack pointer, where a register's number may stand for it.
pub(in crate::decode::arm64) const SP: u32 = 31;

/// What an instruction does, with [`SP`] as the number of the stack pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::decode::arm64) enum Form {
    /// `add` or `sub` of an immediate, or a `mov`: `to` is `from` and this many bytes.
    Address { to: u32, from: u32, offset: i32 },
    /// `sub sp, sp, xN, lsl #shift`.
    Lower { by: u32, shift: u32 },
    /// `movz` and `movk`: the bits of `field` become those of `value`, and the rest is kept or
    /// cleared.
    Constant {
        to: u32,
        value: u64,
        field: u64,
        keep: bool,
    },
    /// A load or store at a known distance from a register.
    Access(Access),
    /// Anything else.
    Other { reads_sp: bool, writes_sp: bool },
}

/// A load or store at a known distance from a register, which may be [`SP`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::decode::arm64) struct Access {
    pub(in crate::decode::arm64) base: u32,
    /// Bytes from what the base holds before, to the first byte that is touched.
    pub(in crate::decode::arm64) offset: i32,
    /// How many bytes are touched.
    pub(in crate::decode::arm64) bytes: i32,
    /// What the base is raised by.
    pub(in crate::decode::arm64) back: i32,
    /// General registers of which all 64 bits are moved, in the order of addresses, 31 being zero;
    /// `None` where something else is moved.
    pub(in crate::decode::arm64) whole: Option<(u32, Option<u32>)>,
    pub(in crate::decode::arm64) is_store: bool,
}

/// See [`Form`].
pub(in crate::decode::arm64) fn of(word: u32) -> Form {
    let (rd, rn) = (word & 31, (word >> 5) & 31);
    match (word >> 25) & 0xf {
        0b1000 | 0b1001 => immediate(word),
        0b0100 | 0b0110 | 0b1100 | 0b1110 => match access(word) {
            Some(access) => Form::Access(access),
            None => other_access(word),
        },
        // mov xd, xm
        _ if word & 0xffe0_ffe0 == 0xaa00_03e0 => {
            let from = (word >> 16) & 31;
            if rd == 31 || from == 31 {
                return none();
            }
            Form::Address {
                to: rd,
                from,
                offset: 0,
            }
        }
        // add, sub of an extended register; those that set flags write no stack pointer.
        _ if word & 0x1fe0_0000 == 0x0b20_0000 => {
            if word & 0xffe0_e3ff == 0xcb20_63ff {
                let (by, shift) = ((word >> 16) & 31, (word >> 10) & 7);
                return Form::Lower { by, shift };
            }
            let sets_flags = word & (1 << 29) != 0;
            Form::Other {
                reads_sp: rn == 31,
                writes_sp: rd == 31 && !sets_flags,
            }
        }
        // Two sources; `subp`, `irg` and `gmi` may take the stack pointer.
        _ if word & 0x1fe0_0000 == 0x1ac0_0000 && word & (1 << 30) == 0 => {
            let opcode = (word >> 10) & 0x3f;
            let takes = matches!(opcode, 0 | 1 | 4 | 5);
            Form::Other {
                reads_sp: takes && (rn == 31 || (word >> 16) & 31 == 31),
                writes_sp: takes && rd == 31 && word & (1 << 29) == 0,
            }
        }
        0b0101 | 0b1101 | 0b0111 | 0b1111 | 0b1010 | 0b1011 if effects::of(word).writes != ALL => {
            none()
        }
        _ if word >> 16 == 0 => none(),
        _ => Form::Other {
            reads_sp: true,
            writes_sp: true,
        },
    }
}

const fn none() -> Form {
    Form::Other {
        reads_sp: false,
        writes_sp: false,
    }
}

fn immediate(word: u32) -> Form {
    let (rd, rn) = (word & 31, (word >> 5) & 31);
    let whole = word >> 31 == 1;
    let sets_flags = word & (1 << 29) != 0;
    match (word >> 23) & 7 {
        0b010 => {
            if whole && !sets_flags {
                let shift = if word & (1 << 22) != 0 { 12 } else { 0 };
                let value = (((word >> 10) & 0xfff) << shift) as i32;
                let down = word & (1 << 30) != 0;
                return Form::Address {
                    to: rd,
                    from: rn,
                    offset: if down { -value } else { value },
                };
            }
            Form::Other {
                reads_sp: rn == 31,
                writes_sp: rd == 31 && !sets_flags,
            }
        }
        // With tags, minimum and maximum: any of them may be about the stack pointer.
        0b011 => Form::Other {
            reads_sp: rn == 31,
            writes_sp: rd == 31,
        },
        // Logical; `ands` writes no stack pointer.
        0b100 => Form::Other {
            reads_sp: false,
            writes_sp: rd == 31 && (word >> 29) & 3 != 3,
        },
        0b101 if rd != 31 && (word >> 29) & 3 >= 2 => {
            let place = 16 * ((word >> 21) & 3);
            let keep = (word >> 29) & 3 == 3;
            // Of 32 bits the rest becomes zero, which keeping does not say.
            if !whole && (place >= 32 || keep) {
                return none();
            }
            Form::Constant {
                to: rd,
                value: u64::from((word >> 5) & 0xffff) << place,
                field: 0xffff << place,
                keep,
            }
        }
        _ => none(),
    }
}

/// The loads and stores at an immediate distance.
fn access(word: u32) -> Option<Access> {
    let (rt, base) = (word & 31, (word >> 5) & 31);
    let vector = word & (1 << 26) != 0;
    // Sign extension: the field is moved to the top of the word and back.
    let signed = |low: u32, bits: u32| ((word << (32 - low - bits)) as i32) >> (32 - bits);
    if word & 0x3a00_0000 == 0x2800_0000 {
        let second = (word >> 10) & 31;
        let opc = word >> 30;
        let scale = match (vector, opc) {
            (_, 3) => return None,
            (true, opc) => 2 + opc,
            (false, 0) => 2,
            // A load of signed words; the store keeps tags.
            (false, 1) if word & (1 << 22) == 0 => return None,
            (false, 1) => 2,
            (false, _) => 3,
        };
        let distance = signed(15, 7) << scale;
        let (offset, back) = match (word >> 23) & 3 {
            0b01 => (0, distance),
            0b11 => (distance, distance),
            _ => (distance, 0),
        };
        return Some(Access {
            base,
            offset,
            bytes: 2 << scale,
            back,
            whole: (!vector && scale == 3).then_some((rt, Some(second))),
            is_store: word & (1 << 22) == 0,
        });
    }
    let opc = (word >> 22) & 3;
    let size = word >> 30;
    let (scale, is_store) = match (vector, opc) {
        (true, 2 | 3) if size == 0 => (4, opc == 2),
        (true, 2 | 3) => return None,
        (false, 2) if size == 3 => return None, // prefetch
        (false, 3) if size >= 2 => return None,
        (_, opc) => (size, opc == 0),
    };
    let whole = (!vector && size == 3).then_some((rt, None));
    let (offset, back) = match (word >> 24) & 3 {
        0b01 if word & 0x3b00_0000 == 0x3900_0000 => ((((word >> 10) & 0xfff) << scale) as i32, 0),
        0b00 if word & 0x3b20_0000 == 0x3800_0000 => match (word >> 10) & 3 {
            0b01 => (0, signed(12, 9)),
            0b11 => (signed(12, 9), signed(12, 9)),
            _ => (signed(12, 9), 0),
        },
        _ => return None,
    };
    Some(Access {
        base,
        offset,
        bytes: 1 << scale,
        back,
        whole,
        is_store,
    })
}

/// The other loads and stores, of which only the base may be the stack pointer.
fn other_access(word: u32) -> Form {
    let literal = word & 0x3b00_0000 == 0x1800_0000;
    let on_stack = (word >> 5) & 31 == 31 && !literal;
    let writes_back = match (word >> 24) & 0x3f {
        0x08 => false,
        0x0c | 0x0d if word >> 31 == 0 => word & (1 << 23) != 0,
        0x38 | 0x3c => word & 0x0020_0400 == 0x0020_0400,
        0x39 | 0x3d => false,
        _ => true,
    };
    // A tag may be taken from the stack pointer.
    let tag = (word >> 24) & 0x3f == 0x19 && word & 31 == 31;
    Form::Other {
        reads_sp: on_stack || tag,
        writes_sp: on_stack && writes_back,
    }
}
