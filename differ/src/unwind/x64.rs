//! x64 `UNWIND_INFO`.
//!
//! Layout: Microsoft's "x64 exception handling", section "Unwind data definitions". Version 2,
//! which adds epilogue codes, is not described there; what is known of it is how the compiler
//! writes it and how LLVM's `llvm-readobj` prints it.

use super::{UnwindError, part, u32_at};

/// `UNW_FLAG_EHANDLER`: the handler wants to see exceptions.
pub const EXCEPTION_HANDLER: u8 = 1;
/// `UNW_FLAG_UHANDLER`: the handler wants to be called on unwinding.
pub const TERMINATION_HANDLER: u8 = 2;
/// `UNW_FLAG_CHAININFO`: the record continues that of another runtime function.
pub const CHAINED: u8 = 4;

/// The general registers by number, as unwind codes and `FrameRegister` count them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs)] // the names say it
pub enum Register {
    Rax,
    Rcx,
    Rdx,
    Rbx,
    Rsp,
    Rbp,
    Rsi,
    Rdi,
    R8,
    R9,
    R10,
    R11,
    R12,
    R13,
    R14,
    R15,
}

impl Register {
    /// Every register, by number.
    pub const ALL: [Register; 16] = [
        Register::Rax,
        Register::Rcx,
        Register::Rdx,
        Register::Rbx,
        Register::Rsp,
        Register::Rbp,
        Register::Rsi,
        Register::Rdi,
        Register::R8,
        Register::R9,
        Register::R10,
        Register::R11,
        Register::R12,
        Register::R13,
        Register::R14,
        Register::R15,
    ];

    /// The register whose number is the low four bits of `number`.
    pub const fn from_number(number: u8) -> Self {
        Self::ALL[(number & 15) as usize]
    }
}

/// What the prologue did, to be undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Pushed a register.
    PushNonvolatile(Register),
    /// Made room on the stack: bytes, at least 8, a multiple of 8.
    Allocate(u32),
    /// Made the frame register: `rsp` plus the record's frame offset.
    SetFrameRegister {
        /// The operation's information bits. They mean nothing; MSVC repeats the frame offset.
        info: u8,
    },
    /// Saved a register at this many bytes above the stack pointer, a multiple of 8.
    SaveNonvolatile(Register, u32),
    /// Saved an `xmm` register at this many bytes above the stack pointer, a multiple of 16.
    SaveXmm(u8, u32),
    /// An interrupt or exception pushed a machine frame, with an error code or without.
    MachineFrame {
        /// Whether there is an error code.
        error_code: bool,
    },
    /// Version 2: describes an epilogue; the two numbers as stored, beside the code's offset.
    Epilogue {
        /// The operation's information bits.
        info: u8,
    },
    /// Version 2: reserved, takes two slots; the value is what the second one holds.
    Spare(u8, u16),
}

/// One unwind code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code {
    /// Bytes from the start of the function to the end of the instruction that did it. For
    /// [`Operation::Epilogue`] a size or an offset from the end of the function.
    pub offset: u8,
    /// What was done.
    pub operation: Operation,
    /// Slots of two bytes that it takes up: 1 to 3. Numbers have shorter and longer forms, and not
    /// every compiler takes the shortest.
    pub slots: u8,
}

/// Entry of the exception directory that a record continues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chain {
    /// RVA of the first byte of its code.
    pub begin: u32,
    /// RVA of the first byte behind.
    pub end: u32,
    /// RVA of its unwind record.
    pub unwind: u32,
}

/// One unwind record without the handler's data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnwindInfo {
    /// 1 or 2.
    pub version: u8,
    /// [`EXCEPTION_HANDLER`], [`TERMINATION_HANDLER`], [`CHAINED`].
    pub flags: u8,
    /// Bytes of the prologue.
    pub prologue: u8,
    /// The frame register with its distance from `rsp` in bytes (0 to 240, a multiple of 16) at
    /// the time it was set.
    pub frame: Option<(Register, u8)>,
    /// In the order stored: last done first.
    pub codes: Vec<Code>,
    /// The runtime function that this record continues.
    pub chain: Option<Chain>,
    /// RVA of the exception or termination handler, whose data follows the record.
    pub handler: Option<u32>,
}

impl UnwindInfo {
    /// Reads the record at the start of `bytes`.
    ///
    /// # Errors
    /// Where it is longer than `bytes`, of a version not known, or has a code that does not exist.
    pub fn read(bytes: &[u8]) -> Result<Self, UnwindError> {
        let head = part(bytes, 0, 4, "UNWIND_INFO")?;
        let (version, flags) = (head[0] & 7, head[0] >> 3);
        if !(1..=2).contains(&version) {
            let expected = "1 or 2";
            return Err(UnwindError::new(
                0,
                "Version",
                expected,
                version.to_string(),
            ));
        }
        let handlers = flags & (EXCEPTION_HANDLER | TERMINATION_HANDLER) != 0;
        if flags > 7 || flags & CHAINED != 0 && handlers {
            let expected = "handler flags (1, 2) or the chain flag (4)";
            return Err(UnwindError::new(
                0,
                "Flags",
                expected,
                format!("{flags:#x}"),
            ));
        }
        let slots = part(bytes, 4, 2 * usize::from(head[2]), "unwind codes")?;
        let codes = read_codes(&bytes[..4 + slots.len()], version)?;
        let frame = match (head[3] & 15, head[3] >> 4) {
            (0, 0) => None,
            (register, offset) => Some((Register::from_number(register), offset * 16)),
        };
        // The codes take up an even number of slots.
        let tail = 4 + slots.len().next_multiple_of(4);
        let word = |at, what| u32_at(bytes, tail + at, what);
        let chain = if flags & CHAINED != 0 {
            Some(Chain {
                begin: word(0, "chained BeginAddress")?,
                end: word(4, "chained EndAddress")?,
                unwind: word(8, "chained UnwindData")?,
            })
        } else {
            None
        };
        Ok(Self {
            version,
            flags,
            prologue: head[1],
            frame,
            codes,
            chain,
            handler: handlers.then(|| word(0, "ExceptionHandler")).transpose()?,
        })
    }

    /// Bytes of the record; the handler's data starts behind them.
    pub fn size(&self) -> usize {
        self.tail()
            + if self.chain.is_some() {
                12
            } else if self.handler.is_some() {
                4
            } else {
                0
            }
    }

    /// Where handler or chain stand.
    fn tail(&self) -> usize {
        let slots: usize = self.codes.iter().map(|code| usize::from(code.slots)).sum();
        4 + 2 * slots.next_multiple_of(2)
    }

    /// Where in the record RVAs stand, in bytes from its start. Those in a handler's data are not
    /// among them: see [`ScopeTable`](super::ScopeTable) for one kind of it.
    pub fn rva_fields(&self) -> Vec<usize> {
        let tail = self.tail();
        match (self.chain, self.handler) {
            (Some(_), _) => vec![tail, tail + 4, tail + 8],
            (None, Some(_)) => vec![tail],
            (None, None) => Vec::new(),
        }
    }

    /// The record as it is stored, without the handler's data.
    ///
    /// # Errors
    /// Where a number does not fit its field.
    pub fn write(&self) -> Result<Vec<u8>, UnwindError> {
        let mut slots = Vec::new();
        for code in &self.codes {
            code.write(&mut slots)?;
        }
        let count = u8::try_from(slots.len()).map_err(|_| {
            UnwindError::new(2, "CountOfCodes", "at most 255", slots.len().to_string())
        })?;
        let unfit =
            |what, found: String| Err(UnwindError::new(0, what, "a number that fits", found));
        if !(1..=2).contains(&self.version) || self.flags > 7 {
            return unfit(
                "Version and Flags",
                format!("{} and {}", self.version, self.flags),
            );
        }
        let handlers = self.flags & (EXCEPTION_HANDLER | TERMINATION_HANDLER) != 0;
        if self.chain.is_some() != (self.flags & CHAINED != 0)
            || self.handler.is_some() != handlers
            || handlers && self.chain.is_some()
        {
            return unfit(
                "Flags",
                format!("{:#x}, which differ from what is there", self.flags),
            );
        }
        let frame = match self.frame {
            None => 0,
            Some((register, offset)) if offset % 16 == 0 => register as u8 | offset,
            Some((_, offset)) => return unfit("FrameOffset", offset.to_string()),
        };
        let mut bytes = vec![self.version | self.flags << 3, self.prologue, count, frame];
        if slots.len() % 2 != 0 {
            slots.push(0);
        }
        bytes.extend(slots.iter().flat_map(|slot| slot.to_le_bytes()));
        let tail = match (self.chain, self.handler) {
            (Some(chain), _) => vec![chain.begin, chain.end, chain.unwind],
            (None, Some(handler)) => vec![handler],
            (None, None) => Vec::new(),
        };
        bytes.extend(tail.iter().flat_map(|word| word.to_le_bytes()));
        Ok(bytes)
    }
}

impl Code {
    /// A code in its shortest form.
    pub const fn new(offset: u8, operation: Operation) -> Self {
        let slots = match operation {
            Operation::Allocate(size) if size <= 128 => 1,
            Operation::Allocate(size) if size / 8 <= 0xffff => 2,
            Operation::Allocate(_) => 3,
            Operation::SaveNonvolatile(_, at) if at / 8 > 0xffff => 3,
            Operation::SaveXmm(_, at) if at / 16 > 0xffff => 3,
            Operation::SaveNonvolatile(..) | Operation::SaveXmm(..) | Operation::Spare(..) => 2,
            _ => 1,
        };
        Self {
            offset,
            operation,
            slots,
        }
    }

    fn write(&self, slots: &mut Vec<u16>) -> Result<(), UnwindError> {
        let near = |value: u32, unit: u32| match u16::try_from(value / unit) {
            Ok(units) if value.is_multiple_of(unit) => Some(vec![units]),
            _ => None,
        };
        let far = |value: u32| Some(vec![value as u16, (value >> 16) as u16]);
        let none = Some(Vec::new());
        // Operation number, information bits, further slots; none where the number does not fit.
        let (number, info, more) = match (self.operation, self.slots) {
            (Operation::PushNonvolatile(register), 1) => (0, register as u8, none),
            (Operation::Allocate(size), 1) => {
                let fits = size != 0 && size <= 128 && size % 8 == 0;
                (2, (size / 8).wrapping_sub(1) as u8, none.filter(|_| fits))
            }
            (Operation::Allocate(size), 2) => (1, 0, near(size, 8)),
            (Operation::Allocate(size), 3) => (1, 1, far(size)),
            (Operation::SetFrameRegister { info }, 1) => (3, info, none),
            (Operation::SaveNonvolatile(register, at), 2) => (4, register as u8, near(at, 8)),
            (Operation::SaveNonvolatile(register, at), 3) => (5, register as u8, far(at)),
            (Operation::SaveXmm(register, at), 2) => (8, register, near(at, 16)),
            (Operation::SaveXmm(register, at), 3) => (9, register, far(at)),
            (Operation::MachineFrame { error_code }, 1) => (10, error_code.into(), none),
            (Operation::Epilogue { info }, 1) => (6, info, none),
            (Operation::Spare(info, value), 2) => (7, info, Some(vec![value])),
            _ => (0, 0, None),
        };
        let Some(more) = more.filter(|_| info < 16) else {
            let expected = format!("a number that fits {} slots", self.slots);
            let found = format!("{:?}", self.operation);
            return Err(UnwindError::new(4 + 2 * slots.len(), CODE, expected, found));
        };
        slots.push(u16::from_le_bytes([self.offset, number | info << 4]));
        slots.extend(more);
        Ok(())
    }
}

/// What errors call a code.
const CODE: &str = "unwind code";

/// The codes of `record`, whose bytes end with them.
fn read_codes(record: &[u8], version: u8) -> Result<Vec<Code>, UnwindError> {
    let mut codes = Vec::new();
    let mut at = 4;
    while at < record.len() {
        let code = read_code(record, at, version)?;
        at += 2 * usize::from(code.slots);
        codes.push(code);
    }
    Ok(codes)
}

fn read_code(record: &[u8], at: usize, version: u8) -> Result<Code, UnwindError> {
    let (offset, byte) = (record[at], record[at + 1]);
    let (number, info) = (byte & 15, byte >> 4);
    // A code that leaves the array is not believed even where bytes follow.
    let near = |unit: u32| {
        let slot = part(record, at + 2, 2, CODE)?;
        Ok(u32::from(u16::from_le_bytes([slot[0], slot[1]])) * unit)
    };
    let far = || u32_at(record, at + 2, CODE);
    let register = Register::from_number(info);
    let (operation, slots) = match (number, info) {
        (0, _) => (Operation::PushNonvolatile(register), 1),
        (1, 0) => (Operation::Allocate(near(8)?), 2),
        (1, 1) => (Operation::Allocate(far()?), 3),
        (2, _) => (Operation::Allocate(u32::from(info) * 8 + 8), 1),
        (3, _) => (Operation::SetFrameRegister { info }, 1),
        (4, _) => (Operation::SaveNonvolatile(register, near(8)?), 2),
        (5, _) => (Operation::SaveNonvolatile(register, far()?), 3),
        (6, _) if version == 2 => (Operation::Epilogue { info }, 1),
        (7, _) if version == 2 => (Operation::Spare(info, near(1)? as u16), 2),
        (8, _) => (Operation::SaveXmm(info, near(16)?), 2),
        (9, _) => (Operation::SaveXmm(info, far()?), 3),
        (10, 0 | 1) => {
            let error_code = info == 1;
            (Operation::MachineFrame { error_code }, 1)
        }
        _ => {
            let expected = format!("a code of version {version}");
            let found = format!("operation {number} with {info}");
            return Err(UnwindError::new(at, CODE, expected, found));
        }
    };
    Ok(Code {
        offset,
        operation,
        slots,
    })
}
