//! Arm64 unwind data: packed into the exception directory, or an `.xdata` record.
//!
//! Layout: Microsoft's "ARM64 exception handling".

use super::{UnwindError, part, u32_at};

/// Unwind data packed into the second word of an entry of the exception directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packed {
    /// Whether the entry is a fragment without a prologue (flag 2) and not a whole function (1).
    pub fragment: bool,
    /// Bytes of the function, a multiple of 4.
    pub length: u32,
    /// `RegF`: how many floating-point registers from `d8` on are saved, less one; 0 for none.
    pub reg_f: u8,
    /// `RegI`: how many registers from `x19` on are saved.
    pub reg_i: u8,
    /// `H`: whether the parameter registers are stored at the start.
    pub homes: bool,
    /// `CR`: 0 unchained, 1 with `lr` saved, 2 chained with a signed return address, 3 chained.
    pub chain: u8,
    /// Bytes of the frame, a multiple of 16.
    pub frame: u32,
}

impl Packed {
    /// Reads the word; `None` where its flag says that it is no packed data.
    pub const fn read(word: u32) -> Option<Self> {
        let flag = word & 3;
        if flag != 1 && flag != 2 {
            return None;
        }
        Some(Self {
            fragment: flag == 2,
            length: ((word >> 2) & 0x7ff) * 4,
            reg_f: ((word >> 13) & 7) as u8,
            reg_i: ((word >> 16) & 15) as u8,
            homes: (word >> 20) & 1 != 0,
            chain: ((word >> 21) & 3) as u8,
            frame: (word >> 23) * 16,
        })
    }
}

/// Where the codes of an epilogue apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Epilogue {
    /// Bytes from the start of the function; `None` for the single epilogue at its end, whose
    /// place is not stored.
    pub start: Option<u32>,
    /// Index of the first byte of its codes.
    pub index: u16,
}

/// An `.xdata` record without the handler's data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Bytes of the function, a multiple of 4.
    pub length: u32,
    /// `Vers`; only 0 is defined.
    pub version: u8,
    /// The epilogues.
    pub epilogues: Vec<Epilogue>,
    /// The unwind codes as stored: whole words.
    pub codes: Vec<u8>,
    /// RVA of the exception handler, whose data follows the record.
    pub handler: Option<u32>,
    /// Bytes of the record; the handler's data starts behind them.
    pub size: usize,
}

impl Record {
    /// Reads the record at the start of `bytes`.
    ///
    /// # Errors
    /// Where it is longer than `bytes`, of an unknown version, or where an epilogue's codes are not
    /// among those it has.
    pub fn read(bytes: &[u8]) -> Result<Self, UnwindError> {
        let head = u32_at(bytes, 0, "header")?;
        let version = ((head >> 18) & 3) as u8;
        if version != 0 {
            return Err(UnwindError::new(0, "Vers", "0", version.to_string()));
        }
        let single = head & (1 << 21) != 0;
        let (mut count, mut words) = ((head >> 22) & 31, head >> 27);
        let mut at = 4;
        if count == 0 && words == 0 {
            let extension = u32_at(bytes, at, "extended header")?;
            (count, words) = (extension & 0xffff, (extension >> 16) & 0xff);
            at += 4;
        }
        let mut epilogues = Vec::new();
        if single {
            epilogues.push(Epilogue {
                start: None,
                index: count as u16,
            });
        } else {
            let scopes = part(bytes, at, 4 * count as usize, "epilogue scopes")?;
            for scope in (0..scopes.len()).step_by(4) {
                let scope = u32_at(scopes, scope, "epilogue scope")?;
                epilogues.push(Epilogue {
                    start: Some((scope & 0x3_ffff) * 4),
                    index: (scope >> 22) as u16,
                });
            }
            at += scopes.len();
        }
        let codes = part(bytes, at, 4 * words as usize, "unwind codes")?.to_vec();
        at += codes.len();
        for epilogue in &epilogues {
            if usize::from(epilogue.index) >= codes.len() {
                let expected = format!("an index below {}", codes.len());
                let found = epilogue.index.to_string();
                return Err(UnwindError::new(4, "epilogue start index", expected, found));
            }
        }
        let handler = if head & (1 << 20) != 0 {
            let handler = u32_at(bytes, at, "exception handler")?;
            at += 4;
            Some(handler)
        } else {
            None
        };
        Ok(Self {
            length: (head & 0x3_ffff) * 4,
            version,
            epilogues,
            codes,
            handler,
            size: at,
        })
    }

    /// Where in the record RVAs stand, in bytes from its start. Those in a handler's data are not
    /// among them: see [`ScopeTable`](super::ScopeTable) for one kind of it.
    pub fn rva_fields(&self) -> Vec<usize> {
        self.handler.map(|_| self.size - 4).into_iter().collect()
    }

    /// The codes from index `start` on, up to and with the [`Operation::End`].
    ///
    /// Epilogues whose codes have no end occur in released images, and only the end of the codes
    /// stops an unwinder there.
    ///
    /// # Errors
    /// The index of a code that is reserved or reaches over the end, or the end where no code
    /// ended them.
    pub fn operations(&self, start: usize) -> Result<Vec<Operation>, UnwindError> {
        let mut operations = Vec::new();
        let mut at = start;
        loop {
            let code = self.codes.get(at..).unwrap_or_default();
            let Some((operation, length)) = Operation::read(code) else {
                let found = match code.first() {
                    Some(byte) => format!("{byte:#04x}"),
                    None => "no more codes".into(),
                };
                return Err(UnwindError::new(
                    at,
                    "unwind code",
                    "a code or an end",
                    found,
                ));
            };
            operations.push(operation);
            if operation == Operation::End {
                return Ok(operations);
            }
            at += length;
        }
    }
}

/// An unwind code. Offsets and sizes are in bytes; `indexed` forms move `sp` down by the offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// `alloc_s`, `alloc_m`, `alloc_l`.
    Allocate(u32),
    /// `save_r19r20_x`.
    SaveR19R20Indexed(u32),
    /// `save_fplr` and `save_fplr_x`.
    SaveFpLr {
        /// Offset.
        at: u32,
        /// Whether `sp` moves.
        indexed: bool,
    },
    /// `save_regp`, `save_regp_x`: `x(register)` and the next.
    SavePair {
        /// First register.
        register: u8,
        /// Offset.
        at: u32,
        /// Whether `sp` moves.
        indexed: bool,
    },
    /// `save_reg`, `save_reg_x`.
    Save {
        /// The register.
        register: u8,
        /// Offset.
        at: u32,
        /// Whether `sp` moves.
        indexed: bool,
    },
    /// `save_lrpair`: `x(register)` and `lr`.
    SaveLrPair {
        /// The register.
        register: u8,
        /// Offset.
        at: u32,
    },
    /// `save_fregp`, `save_fregp_x`: `d(register)` and the next.
    SaveVectorPair {
        /// First register.
        register: u8,
        /// Offset.
        at: u32,
        /// Whether `sp` moves.
        indexed: bool,
    },
    /// `save_freg`, `save_freg_x`.
    SaveVector {
        /// The register.
        register: u8,
        /// Offset.
        at: u32,
        /// Whether `sp` moves.
        indexed: bool,
    },
    /// `alloc_z`: so many times the length of a scalable vector.
    AllocateScalable(u8),
    /// `set_fp`.
    SetFp,
    /// `add_fp`.
    AddFp(u32),
    /// `nop`.
    Nop,
    /// `end`.
    End,
    /// `end_c`: what this fragment did itself ends here, and what follows was done by the function
    /// that it was split from.
    EndChained,
    /// `save_next`.
    SaveNext,
    /// `save_any_reg` and its relatives; the two bytes as stored.
    SaveAny([u8; 2]),
    /// A frame that the system pushed (trap, machine, context), or `clear_unwound_to_call`; the
    /// code as stored.
    System(u8),
    /// `pac_sign_lr`.
    SignLr,
}

impl Operation {
    /// The operation at the start of `codes` and the bytes it takes up.
    fn read(codes: &[u8]) -> Option<(Self, usize)> {
        let first = *codes.first()?;
        let byte = |index: usize| codes.get(index).copied();
        Some(match first {
            0xc0..=0xde => (Self::of_word([first, byte(1)?]), 2),
            0xdf => (Operation::AllocateScalable(byte(1)?), 2),
            0xe0 => {
                let size = u32::from_be_bytes([0, byte(1)?, byte(2)?, byte(3)?]);
                (Operation::Allocate(size * 16), 4)
            }
            0xe2 => (Operation::AddFp(u32::from(byte(1)?) * 8), 2),
            0xe7 => (Operation::SaveAny([byte(1)?, byte(2)?]), 3),
            _ => (Self::of_byte(first)?, 1),
        })
    }

    /// The codes of one byte.
    fn of_byte(code: u8) -> Option<Self> {
        let low = u32::from(code);
        let at = (low & 0x3f) * 8;
        Some(match code {
            0x00..=0x1f => Operation::Allocate(low * 16),
            0x20..=0x3f => Operation::SaveR19R20Indexed((low & 0x1f) * 8),
            0x40..=0x7f => Operation::SaveFpLr { at, indexed: false },
            0x80..=0xbf => Operation::SaveFpLr {
                at: at + 8,
                indexed: true,
            },
            0xe1 => Operation::SetFp,
            0xe3 => Operation::Nop,
            0xe4 => Operation::End,
            0xe5 => Operation::EndChained,
            0xe6 => Operation::SaveNext,
            0xe8..=0xec => Operation::System(code),
            0xfc => Operation::SignLr,
            _ => return None,
        })
    }

    /// The codes of two bytes from 0xc0 to 0xde: a register above, and an offset below, of 6 bits
    /// mostly and of 5 where `sp` moves with one register.
    fn of_word(code: [u8; 2]) -> Self {
        let first = code[0];
        let word = u32::from(u16::from_be_bytes(code));
        let field = |shift: u32, mask: u32| ((word >> shift) & mask) as u8;
        let at = (word & 0x3f) * 8;
        let narrow = (word & 0x1f) * 8 + 8;
        match first {
            ..=0xc7 => Operation::Allocate((word & 0x7ff) * 16),
            0xc8..=0xcf => Operation::SavePair {
                register: 19 + field(6, 15),
                at: if first >= 0xcc { at + 8 } else { at },
                indexed: first >= 0xcc,
            },
            0xd0..=0xd3 => Operation::Save {
                register: 19 + field(6, 15),
                at,
                indexed: false,
            },
            0xd4 | 0xd5 => Operation::Save {
                register: 19 + field(5, 15),
                at: narrow,
                indexed: true,
            },
            0xd6 | 0xd7 => Operation::SaveLrPair {
                register: 19 + 2 * field(6, 7),
                at,
            },
            0xd8..=0xdb => Operation::SaveVectorPair {
                register: 8 + field(6, 7),
                at: if first >= 0xda { at + 8 } else { at },
                indexed: first >= 0xda,
            },
            0xdc | 0xdd => Operation::SaveVector {
                register: 8 + field(6, 7),
                at,
                indexed: false,
            },
            0xde.. => Operation::SaveVector {
                register: 8 + field(5, 7),
                at: narrow,
                indexed: true,
            },
        }
    }
}
