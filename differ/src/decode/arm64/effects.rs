//! Which general registers an A64 instruction reads and writes, and where it goes on.
//!
//! Only as much is told apart as following a page address through a function needs. Two rules
//! make it safe to be coarse. *Writes* never leave out a register that is written: where a group
//! of encodings is not understood, all are taken as written. *Reads* never leave out a register
//! that is read. A library that knows all instructions (capstone with details) does the same at a
//! hundredth of the speed; it serves as the oracle of the tests.
//!
//! Groups and bits follow the Arm Architecture Reference Manual, chapter C4.1.

/// The general registers `x0` to `x30`, one bit each. The stack pointer and the zero register,
/// both written as 31, hold no page and are left out.
pub(super) type Registers = u32;

/// Every register.
pub(super) const ALL: Registers = 0x7fff_ffff;
/// The link register.
const X30: Registers = 1 << 30;
/// `x0` to `x18`: what a callee need not keep.
pub(super) const VOLATILE: Registers = 0x0007_ffff;

/// What an instruction does to registers and to the flow of control.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Effects {
    pub(super) reads: Registers,
    pub(super) writes: Registers,
    pub(super) flow: Flow,
}

/// Where control goes after an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    /// To the next instruction.
    Next,
    /// To the next instruction, after something that keeps only what a callee must keep.
    Call,
    /// To a target in the instruction, and perhaps to the next.
    Branch {
        /// Whether it may also go on.
        conditional: bool,
    },
    /// To an address in a register.
    Indirect,
    /// Nowhere: a return, or an instruction that does not come back.
    Stop,
}

/// The numbers of the registers in a set, or of the bits in any other.
pub(super) fn bits(mut set: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let bit = set.trailing_zeros();
        set &= set.wrapping_sub(1);
        (bit < 64).then_some(bit as usize)
    })
}

/// `field` bits from `low` on as a register, as a set.
pub(super) const fn register(word: u32, low: u32) -> Registers {
    (1 << ((word >> low) & 31)) & ALL
}

/// As [`register`], with the one behind it, for the instructions that take pairs.
const fn pair(word: u32, low: u32) -> Registers {
    let number = (word >> low) & 31;
    ((1 << number) | (1 << ((number + 1) & 31))) & ALL
}

const fn next(reads: Registers, writes: Registers) -> Effects {
    Effects {
        reads,
        writes,
        flow: Flow::Next,
    }
}

/// What `word` does; an encoding that is not understood reads and writes everything.
pub(super) fn of(word: u32) -> Effects {
    match (word >> 25) & 0xf {
        0b1000 | 0b1001 => immediate(word),
        0b1010 | 0b1011 => branch_or_system(word),
        0b0100 | 0b0110 | 0b1100 | 0b1110 => load_or_store(word),
        0b0101 | 0b1101 => register_processing(word),
        0b0111 | 0b1111 => next(vector_reads(word), vector_writes(word)),
        // Permanently undefined: it traps.
        _ if word >> 16 == 0 => Effects {
            reads: 0,
            writes: 0,
            flow: Flow::Stop,
        },
        // SME, SVE and what is not allocated.
        _ => next(ALL, ALL),
    }
}

/// Data processing with an immediate.
fn immediate(word: u32) -> Effects {
    let (rd, rn) = (register(word, 0), register(word, 5));
    match (word >> 23) & 7 {
        0b000 | 0b001 => next(0, rd), // adr, adrp
        // Arithmetic, with tags, minimum and maximum, logical.
        0b010..=0b100 => next(rn, rd),
        // Of the wide moves `movk` keeps the rest of the register.
        0b101 => next(if word & (3 << 29) == 3 << 29 { rd } else { 0 }, rd),
        // Of the bit field moves `bfm` keeps the rest.
        0b110 => next(
            if word & (3 << 29) == 1 << 29 {
                rn | rd
            } else {
                rn
            },
            rd,
        ),
        // Authentication of the return address with an immediate.
        _ if word >> 29 == 0b111 => next(rd | X30, rd | X30),
        _ => next(rn | register(word, 16), rd), // extract
    }
}

/// Branches, exceptions, hints and system registers.
fn branch_or_system(word: u32) -> Effects {
    let rt = register(word, 0);
    let branch = |reads, conditional| Effects {
        reads,
        writes: 0,
        flow: Flow::Branch { conditional },
    };
    match word >> 24 {
        0x14..=0x17 => branch(0, false),
        0x94..=0x97 => Effects {
            reads: 0,
            writes: X30,
            flow: Flow::Call,
        },
        0x54 => branch(0, true),
        0x34..=0x37 | 0xb4..=0xb7 => branch(rt, true),
        0xd4 => exception(word),
        0xd5 => system(word),
        0xd6 | 0xd7 => branch_to_register(word),
        // A return with authentication, newer compare-and-branch forms, and unallocated ones:
        // what comes behind must not rely on anything.
        0x55 => Effects {
            reads: ALL,
            writes: ALL,
            flow: Flow::Stop,
        },
        _ => next(ALL, ALL),
    }
}

/// Whether a breakpoint is one that compilers end code with: LLVM's trap (1) and those of its
/// sanitizers (`0x55xx`), and how Windows code ends a process (`__fastfail`, `0xf003`) and says that
/// it was to divide by zero (`0xf004`). Behind others code goes on.
fn is_trap(word: u32) -> bool {
    let number = (word >> 5) & 0xffff;
    word & 0xffe0_001f == 0xd420_0000 && matches!(number, 1 | 0x5500..=0x55ff | 0xf003 | 0xf004)
}

/// Whether code stops here for a debugger and goes on as if nothing had been: `__debugbreak`
/// (`0xf000`), a failed assertion (`0xf001`), and what has no number.
fn is_break(word: u32) -> bool {
    let number = (word >> 5) & 0xffff;
    word & 0xffe0_001f == 0xd420_0000 && matches!(number, 0 | 0xf000 | 0xf001)
}

fn exception(word: u32) -> Effects {
    if is_trap(word) {
        return Effects {
            reads: 0,
            writes: 0,
            flow: Flow::Stop,
        };
    }
    if is_break(word) {
        return next(0, 0);
    }
    // System calls and debugger services answer in registers.
    Effects {
        reads: 0,
        writes: X30,
        flow: Flow::Call,
    }
}

/// Hints, barriers, and moves from and to system registers.
fn system(word: u32) -> Effects {
    let rt = register(word, 0);
    if word & 0xffff_f01f == 0xd503_201f {
        // Hints. Those of pointer authentication change the register they are made for.
        let changed = match (word >> 5) & 0x7f {
            7 | 24..=31 => X30,
            8 | 10 | 12 | 14 => 3 << 16,
            40 => 1 << 16,
            _ => 0,
        };
        return next(changed, changed);
    }
    let reads = |pairs: bool| if pairs { pair(word, 0) } else { rt };
    let pairs = word & (1 << 22) != 0;
    // Bit 21 tells a move out of the system from one into it.
    match word & (1 << 21) != 0 {
        true => next(0, reads(pairs)),
        false => next(reads(pairs), 0),
    }
}

fn branch_to_register(word: u32) -> Effects {
    // The authenticated forms take a second register.
    let second = if word & (1 << 24) != 0 {
        register(word, 0)
    } else {
        0
    };
    let reads = register(word, 5) | second;
    let flow = match (word >> 21) & 0xf {
        0b0001 | 0b1001 => {
            return Effects {
                reads,
                writes: X30,
                flow: Flow::Call,
            };
        }
        0b0000 | 0b1000 => Flow::Indirect,
        _ => Flow::Stop, // returns
    };
    Effects {
        reads,
        writes: 0,
        flow,
    }
}

/// Loads, stores, prefetches and atomics.
fn load_or_store(word: u32) -> Effects {
    let (rt, rn) = (register(word, 0), register(word, 5));
    let (rt2, rs) = (register(word, 10), register(word, 16));
    let vector = word & (1 << 26) != 0;
    match (word >> 24) & 0x3f {
        // Vector structures; bit 23 adds to the base, by `rm` or by their size.
        0x0c | 0x0d if word >> 31 == 0 => {
            let post = word & (1 << 23) != 0;
            next(rn | if post { rs } else { 0 }, if post { rn } else { 0 })
        }
        0x08 => exclusive(word),
        0x18 | 0x1c => next(0, if vector { 0 } else { rt }), // literals
        0x28 | 0x29 | 0x2c | 0x2d => {
            let load = word & (1 << 22) != 0;
            let back = if word & (1 << 23) != 0 { rn } else { 0 };
            let data = if vector { 0 } else { rt | rt2 };
            match load {
                true => next(rn, data | back),
                false => next(rn | data, back),
            }
        }
        0x38 | 0x3c => single(word),
        0x39 | 0x3d => next(rn | stored(word), loaded(word)),
        // Unscaled ordered, memory copy and set, tags, and 128-bit atomics.
        0x19 | 0x1d => next(rt | rn | rs, rt | rn | rs),
        _ => next(ALL, ALL),
    }
}

/// Exclusive and ordered accesses, and compare and swap, told apart by bits 23, 21 and 22.
fn exclusive(word: u32) -> Effects {
    let (rt, rn) = (register(word, 0), register(word, 5));
    let (rt2, rs) = (register(word, 10), register(word, 16));
    let load = word & (1 << 22) != 0;
    match (word & (1 << 23) != 0, word & (1 << 21) != 0) {
        (false, true) if word >> 31 == 0 => {
            // Compare and swap of pairs.
            next(rn | pair(word, 0) | pair(word, 16), pair(word, 16))
        }
        (false, pairs) => {
            let data = if pairs { rt | rt2 } else { rt };
            match load {
                true => next(rn, data),
                false => next(rn | data, rs), // the status
            }
        }
        (true, false) if load => next(rn, rt),
        (true, false) => next(rn | rt, 0),
        (true, true) => next(rn | rt | rs, rs),
    }
}

/// The register that a load of a single register writes. `opc` 0 is a store, and 2 one of a
/// 128-bit vector.
fn loaded(word: u32) -> Registers {
    let store = word & (3 << 22) == 0;
    let prefetch = word & 0xc4c0_0000 == 0xc080_0000;
    if store || prefetch || word & (1 << 26) != 0 {
        0
    } else {
        register(word, 0)
    }
}

/// The register that a store of a single register reads.
fn stored(word: u32) -> Registers {
    if word & (3 << 22) == 0 && word & (1 << 26) == 0 {
        register(word, 0)
    } else {
        0
    }
}

/// A single register at anything but an unsigned offset.
fn single(word: u32) -> Effects {
    let (rt, rn, rs) = (register(word, 0), register(word, 5), register(word, 16));
    match ((word >> 21) & 1, (word >> 10) & 3) {
        (0, 0b00 | 0b10) => next(rn | stored(word), loaded(word)), // unscaled, unprivileged
        (0, _) => next(rn | stored(word), loaded(word) | rn),      // post- and pre-indexed
        (_, 0b10) => next(rn | rs | stored(word), loaded(word)),   // by a register
        // Atomics answer in `rt`; one of them loads eight registers.
        (_, 0b00) => match (word >> 12) & 0xf {
            0b0000..=0b1000 | 0b1100 => next(rn | rs, rt),
            _ => next(ALL, ALL),
        },
        _ => next(rn, rt | rn), // authenticated
    }
}

/// Data processing between registers.
fn register_processing(word: u32) -> Effects {
    let (rd, rn) = (register(word, 0), register(word, 5));
    let (ra, rm) = (register(word, 10), register(word, 16));
    if word & (1 << 28) == 0 {
        return next(rn | rm, rd); // logical, add and subtract
    }
    match (word >> 21) & 0xf {
        // With carry; but in the same place flags are set from a register.
        0b0000 if word & (3 << 10) != 0 => next(rn, 0),
        0b0000 => next(rn | rm, rd),
        // Conditional compare, with a register or an immediate.
        0b0010 if word & (1 << 11) != 0 => next(rn, 0),
        0b0010 => next(rn | rm, 0),
        // Conditional select; two sources.
        0b0100 => next(rn | rm, rd),
        0b0110 if word & (1 << 30) == 0 => next(rn | rm, rd),
        // One source; authentication changes its register and may use fixed ones.
        0b0110 if word & (1 << 16) != 0 => next(rd | rn | 3 << 16 | X30, rd | 3 << 16 | X30),
        0b0110 => next(rn, rd),
        0b1000..=0b1111 => next(rn | rm | ra, rd),
        _ => next(ALL, ALL),
    }
}

/// Whether `word` moves between a general and a vector register: `Some(true)` towards the general
/// one.
fn crossing(word: u32) -> Option<bool> {
    // Conversion to and from integers, by bits 18 to 16; to and from fixed point likewise.
    if word & 0x5f20_fc00 == 0x1e20_0000 || word & 0x5f20_0000 == 0x1e00_0000 {
        return Some(!matches!((word >> 16) & 7, 0b010 | 0b011 | 0b111));
    }
    // Copies of elements: `smov` and `umov` out, `dup` and `ins` in.
    if word & 0x9fe0_8400 == 0x0e00_0400 {
        return match (word >> 11) & 0xf {
            0b0101 | 0b0111 => Some(true),
            0b0001 | 0b0011 => Some(false),
            _ => None,
        };
    }
    None
}

fn vector_writes(word: u32) -> Registers {
    match crossing(word) {
        Some(true) => register(word, 0),
        _ => 0,
    }
}

fn vector_reads(word: u32) -> Registers {
    match crossing(word) {
        Some(false) => register(word, 5),
        _ => 0,
    }
}
