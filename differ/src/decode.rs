//! Machine code to instructions whose pointing operands are known: the raw material of comparing
//! and of extracting.
//!
//! [`decode`] walks the bytes of one function and notes, for each instruction, its extent and the
//! operand that points somewhere ([`Reference`]). It finds out *where* an operand points; what
//! stands there is the business of `image` and `compare`. The two machines live in the twins
//! [`x64`] and [`arm64`]; this file and everything behind it is the same for both.

use hpbuild_metadata::{Machine, Rva, Side};

pub mod arm64;
pub mod x64;

/// The decoded bytes of one stretch of code.
#[derive(Clone, Debug)]
pub struct Body<S: Side> {
    /// The instructions, in order, without gaps: each starts where the one before it ended.
    pub instructions: Vec<Instruction<S>>,
    /// Which page-forming instruction each page-offset operand was resolved with (Arm64 `adrp`;
    /// always empty on x64), sorted by `user`, then by `page`. An `adrp` reached by several users,
    /// and a user reached by several `adrp` of one page, both occur.
    pub page_links: Vec<PageLink>,
    /// Tables of RVAs that the code jumps through and that no symbol may tell of (x64; each table
    /// once).
    pub jump_tables: Vec<JumpTable<S>>,
    /// Whether some instruction widens a signed word, as code does that reads distances from a table
    /// (x64).
    pub(crate) widens_words: bool,
    /// Whether the same bytes with other contents of their fields are the same instructions, so that
    /// [`points_at`] tells all that decoding them would (x64, where nothing but the distances to
    /// what operands point at is in the code).
    pub(crate) is_movable: bool,
}

/// A table of RVAs of blocks that code jumps through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JumpTable<S: Side> {
    /// The table.
    pub table: Rva<S>,
    /// The instruction that jumps through it.
    pub branch: Rva<S>,
    /// How many entries it has, where it stands in the code itself. There each entry is an
    /// instruction that is not valid, of four bytes.
    pub count: Option<u32>,
}

/// A jump through a table that a record tells of, with the table's contents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableJump<S: Side> {
    /// The instruction that jumps.
    pub branch: Rva<S>,
    /// What the entries are added to.
    pub base: Rva<S>,
    /// Bytes of an entry: 1, 2 or 4.
    pub size: u8,
    /// All entries, as they are stored.
    pub entries: Box<[u8]>,
}

impl<S: Side> Default for Body<S> {
    fn default() -> Self {
        Self {
            instructions: Vec::new(),
            page_links: Vec::new(),
            jump_tables: Vec::new(),
            widens_words: false,
            is_movable: false,
        }
    }
}

/// An instruction's place and, where it has one, its pointing operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction<S: Side> {
    /// Bytes from the start of the stretch.
    pub offset: u32,
    /// Bytes of the instruction, 1 to 15.
    pub length: u8,
    /// False where the bytes are not an instruction; such a stretch is one byte (x64) or one word
    /// (Arm64) long and compares by its bytes.
    pub valid: bool,
    /// The operand that points somewhere.
    pub reference: Option<Reference<S>>,
}

/// An operand that points somewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reference<S: Side> {
    /// Where it points. For [`ReferenceKind::Page`] the start of the page.
    pub target: Rva<S>,
    /// What the instruction does with the address.
    pub kind: ReferenceKind,
    /// Which bits of the instruction hold the address.
    pub field: Field,
}

/// What an instruction does with the address in its operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReferenceKind {
    /// Calls it.
    Call,
    /// Jumps to it; a tail call where it lies outside the function.
    Jump,
    /// Jumps to it or goes on.
    ConditionalJump,
    /// Takes the address.
    Address,
    /// Reads or writes this many bytes there (0 where the size is not known).
    Memory(u16),
    /// Takes the address of the 4 KiB page; the rest is in the instructions linked to it.
    Page,
}

/// Where in an instruction an address is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// x64: `size` bytes at `at` hold the distance from the end of the instruction.
    Relative {
        /// Bytes from the start of the instruction.
        at: u8,
        /// 1 or 4.
        size: u8,
    },
    /// x64: four bytes at `at` hold an RVA, added to a register that holds the image base.
    ImageRelative {
        /// Bytes from the start of the instruction.
        at: u8,
    },
    /// x64: eight bytes at `at` hold a virtual address, which a base relocation covers.
    Absolute {
        /// Bytes from the start of the instruction.
        at: u8,
    },
    /// Arm64: the set bits of the instruction word hold the address or a part of it.
    Word {
        /// The bits, as a mask of the little-endian word.
        mask: u32,
    },
}

impl Field {
    /// Clears the bits of the field in `instruction`, the bytes of one whole instruction.
    pub fn clear(self, instruction: &mut [u8]) {
        match self {
            Field::Relative { at, size } => clear_bytes(instruction, at, size),
            Field::ImageRelative { at } => clear_bytes(instruction, at, 4),
            Field::Absolute { at } => clear_bytes(instruction, at, 8),
            Field::Word { mask } => {
                for (byte, mask) in instruction.iter_mut().zip(mask.to_le_bytes()) {
                    *byte &= !mask;
                }
            }
        }
    }
}

fn clear_bytes(instruction: &mut [u8], at: u8, size: u8) {
    instruction
        .iter_mut()
        .skip(at.into())
        .take(size.into())
        .for_each(|byte| *byte = 0);
}

/// The tables that the code reads as distances from their own start: it loads a signed word from
/// the table and adds the table's address to it. Jump tables are among them.
pub(crate) fn relative_tables<S: Side>(
    machine: Machine,
    code: Code<'_, S>,
    body: &Body<S>,
) -> Vec<Rva<S>> {
    match machine {
        Machine::X64 => x64::relative_tables(code, body),
        Machine::Arm64 => arm64::relative_tables(code, body),
    }
}

/// Gives the entries of jump tables that stand in the code their references. Comparing wants
/// them; who copies code knows its tables.
pub(crate) fn refer_from_tables<S: Side>(code: Code<'_, S>, body: &mut Body<S>) {
    let tables = std::mem::take(&mut body.jump_tables);
    for table in &tables {
        let Some(start) = table.table.checked_sub(code.rva) else {
            continue;
        };
        let entries = body.instructions.partition_point(|i| i.offset < start);
        let count = table.count.unwrap_or(0) as usize;
        for entry in body.instructions.iter_mut().skip(entries).take(count) {
            let word = code
                .bytes
                .get(entry.offset as usize..)
                .and_then(|bytes| bytes.first_chunk());
            if let (Some(word), false, 4) = (word, entry.valid, entry.length) {
                entry.reference = Some(Reference {
                    target: Rva::new(u32::from_le_bytes(*word)),
                    kind: ReferenceKind::Address,
                    field: Field::ImageRelative { at: 0 },
                });
            }
        }
    }
    body.jump_tables = tables;
}

/// An instruction that reaches something through an address that an earlier one made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Derived<S: Side> {
    /// Index of the instruction.
    pub instruction: u32,
    /// The address it starts from.
    pub from: Rva<S>,
    /// What it reaches.
    pub target: Rva<S>,
    /// What it does there.
    pub kind: ReferenceKind,
}

/// What instructions without a reference reach through addresses that earlier ones made: variables
/// beside the one that is named. On x64, where an address of its own is as cheap, none are known.
pub fn derived<S: Side>(machine: Machine, code: Code<'_, S>, body: &Body<S>) -> Vec<Derived<S>> {
    match machine {
        Machine::X64 => Vec::new(),
        Machine::Arm64 => arm64::derived::find(code, body),
    }
}

/// Gives instructions that reach something by way of another address their references. No bit of
/// them says so, so that their field is empty.
pub(crate) fn refer_to_neighbours<S: Side>(
    machine: Machine,
    code: Code<'_, S>,
    body: &mut Body<S>,
) {
    for derived in derived(machine, code, body) {
        if let Some(instruction) = body.instructions.get_mut(derived.instruction as usize) {
            instruction.reference = Some(Reference {
                target: derived.target,
                kind: derived.kind,
                field: Field::Word { mask: 0 },
            });
        }
    }
}

/// Where the operand of the instruction of `length` bytes at `offset` points, by its field alone;
/// `None` where more than the field tells, or where that is nowhere in an image.
pub(crate) fn points_at<S: Side>(
    machine: Machine,
    code: Code<'_, S>,
    (offset, length): (u32, u8),
    field: Field,
) -> Option<Rva<S>> {
    match machine {
        Machine::X64 => x64::points_at(code, (offset, length), field),
        Machine::Arm64 => None,
    }
}

/// Whether the page at instruction `index` is completed by other instructions.
pub(crate) fn is_completed<S: Side>(body: &Body<S>, index: usize) -> bool {
    body.page_links
        .iter()
        .any(|link| link.page as usize == index)
}

/// Whether what stands behind a whole instruction may run next: it is no jump, no return and no trap.
/// `None` for what does nothing, so that the instruction before it tells. Behind a call it may, too,
/// and there nobody knows; compilers end functions with calls that do not come back.
pub(crate) fn runs_on(machine: Machine, instruction: &[u8]) -> Option<bool> {
    match machine {
        Machine::X64 => x64::runs_on(instruction),
        Machine::Arm64 => arm64::runs_on(instruction),
    }
}

/// Whether decoding asks where jumps through tables lead: [`Code::jumps`].
pub(crate) fn wants_jumps(machine: Machine) -> bool {
    machine == Machine::Arm64
}

/// Where control goes behind an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    /// To the next instruction.
    Next,
    /// Away, and to the next instruction if what is called comes back.
    Call,
    /// To where its operand points.
    Jump,
    /// There or to the next instruction.
    ConditionalJump,
    /// To one of many places: through a register or a table.
    Indirect,
    /// Out of the function through a pointer in memory, as to an import.
    Away,
    /// To who called the function.
    Return,
    /// Nowhere: it ends the process, or is no instruction.
    Trap,
}

/// Where control goes behind a whole instruction.
pub(crate) fn flow(machine: Machine, instruction: &[u8]) -> Flow {
    match machine {
        Machine::X64 => x64::flow(instruction),
        Machine::Arm64 => arm64::flow(instruction),
    }
}

/// Whether the register into which the instruction at `offset` puts an address is next used in a
/// comparison, as that with the end of an array is. `bytes` are those of the function.
pub fn is_compared(machine: Machine, bytes: &[u8], offset: u32) -> bool {
    match machine {
        Machine::X64 => x64::is_compared(bytes, offset),
        Machine::Arm64 => arm64::is_compared(bytes, offset),
    }
}

/// Whether the register into which the instruction at `offset` puts an address that it makes of
/// another one is next kept in the frame or used with an index, as that of the end of an array may
/// be (Arm64; x64 makes no addresses of others). `bytes` are those of the function.
pub fn is_kept_or_indexed(machine: Machine, bytes: &[u8], offset: u32) -> bool {
    match machine {
        Machine::X64 => false,
        Machine::Arm64 => arm64::is_kept_or_indexed(bytes, offset),
    }
}

/// Builds what writing instructions as text needs once, where other threads would wait for it and a
/// thread has nothing else to do.
pub(crate) fn prepare_text(machine: Machine) {
    if machine == Machine::X64 && rayon::current_num_threads() > 1 {
        x64::prepare_text();
    }
}

/// Who reaches what lies before an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Back {
    /// The code that takes it, as that does which walks an array from its end.
    Itself,
    /// Perhaps a function that it is handed to.
    Callee,
}

/// Whether the address that the instruction at `offset` puts into a register is soon used to reach what
/// lies before it. `bytes` are those of the function.
pub fn reaches_back(machine: Machine, bytes: &[u8], offset: u32) -> Option<Back> {
    match machine {
        Machine::X64 => x64::reaches_back(bytes, offset),
        Machine::Arm64 => arm64::reaches_back(bytes, offset),
    }
}

/// What code does with an address beside reading what lies there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Escape {
    /// Puts it where it is not followed, as into its frame.
    Lost,
    /// Hands it to another function.
    Handed,
    /// Returns it.
    Returned,
    /// Compares it with another address, and does not read through it.
    Compared,
    /// Puts it into memory that outlives the function.
    Stored,
}

/// What is seen of an address on its way.
#[derive(Default)]
struct Seen {
    is_read: bool,
    is_compared: bool,
    is_lost: bool,
    is_handed: bool,
    is_returned: bool,
}

impl Seen {
    /// Where a pointer moves through data its last place is compared with its end, as in any loop.
    fn escape(&self) -> Option<Escape> {
        if self.is_compared && !self.is_read {
            return Some(Escape::Compared);
        }
        if self.is_returned {
            return Some(Escape::Returned);
        }
        if self.is_handed {
            return Some(Escape::Handed);
        }
        self.is_lost.then_some(Escape::Lost)
    }
}

/// What becomes of the address that the instruction at `offset` puts into a register, soon behind it.
/// `bytes` are those of the function.
pub fn escape(machine: Machine, bytes: &[u8], offset: u32) -> Option<Escape> {
    match machine {
        Machine::X64 => x64::escape(bytes, offset),
        Machine::Arm64 => arm64::escape(bytes, offset),
    }
}

/// Whether code does nothing but compare the address that the instruction at `offset` puts into a
/// register. `bytes` are those of the function. Nobody asks it of Arm64, where the answer is no.
pub fn is_only_compared(machine: Machine, bytes: &[u8], offset: u32) -> bool {
    match machine {
        Machine::X64 => x64::is_only_compared(bytes, offset),
        Machine::Arm64 => false,
    }
}

/// The bytes to which the memory operand of the instruction at `offset` must be aligned, 1 where it need
/// not be. `bytes` are those of the function. Arm64's scaled offsets are not asked for here.
pub fn alignment_at(machine: Machine, bytes: &[u8], offset: u32) -> u32 {
    match machine {
        Machine::X64 => x64::alignment_at(bytes, offset),
        Machine::Arm64 => 1,
    }
}

/// The bytes to which some operand of a function must be aligned that a register leads to which does not
/// hold its frame.
pub fn alignment_by_register(machine: Machine, bytes: &[u8]) -> u32 {
    match machine {
        Machine::X64 => x64::alignment_by_register(bytes),
        Machine::Arm64 => 1,
    }
}

/// By how much the instruction at `offset` multiplies the index that it adds to an address; `None`
/// where it adds none, and on Arm64, where such an address is in a register. `bytes` are those of the
/// function.
pub(crate) fn index_scale(machine: Machine, bytes: &[u8], offset: u32) -> Option<u32> {
    match machine {
        Machine::X64 => x64::index_scale(bytes, offset),
        Machine::Arm64 => None,
    }
}

/// The only constant in which two instructions differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Constants {
    /// Its value in the base.
    pub(crate) base: u64,
    /// Its value in the fixed image.
    pub(crate) fixed: u64,
    /// Whether all that is done with it is to put it somewhere, as is done with the number of a
    /// source line. It is not added to anything, compared with anything, or a part of an address.
    pub(crate) is_moved: bool,
}

/// If two whole instructions differ in nothing but a constant, what that is.
pub(crate) fn constants_differing(
    machine: Machine,
    base: &[u8],
    fixed: &[u8],
) -> Option<Constants> {
    match machine {
        Machine::X64 => x64::constants_differing(base, fixed),
        Machine::Arm64 => arm64::constants_differing(base, fixed),
    }
}

/// The numbers that an instruction reads or writes: the elements of a vector, if it is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Access {
    /// Bytes of one, 1 to 16.
    pub(crate) size: u8,
    /// Whether it is extended by its sign.
    pub(crate) signed: bool,
    /// Whether it is or may be a floating-point number.
    pub(crate) float: bool,
}

/// What the instruction at `offset` reads or writes, or, where it only takes an address, what an
/// instruction soon behind it does there. A guess, for people. `bytes` are those of the function.
pub(crate) fn access(machine: Machine, bytes: &[u8], offset: u32) -> Option<Access> {
    match machine {
        Machine::X64 => x64::access(bytes, offset),
        Machine::Arm64 => arm64::access(bytes, offset),
    }
}

/// How far the code that ends with this jump shifts an entry of its jump table, where the code tells
/// and the table's record may not: compilers for Arm64 count in instructions and do not record it.
/// `before` are the bytes before the jump.
pub(crate) fn entry_shift(machine: Machine, before: &[u8], jump: &[u8]) -> Option<u8> {
    match machine {
        Machine::X64 => None,
        Machine::Arm64 => arm64::entry_shift(before, u32::from_le_bytes(*jump.first_chunk()?)),
    }
}

/// Connects an instruction that adds an offset within a page with the one that made the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PageLink {
    /// Index of the instruction with the page offset.
    pub user: u32,
    /// Index of the instruction with [`ReferenceKind::Page`].
    pub page: u32,
}

/// A stretch of code to be decoded.
#[derive(Clone, Copy, Debug)]
pub struct Code<'a, S: Side> {
    /// Its bytes.
    pub bytes: &'a [u8],
    /// Where they lie in the image.
    pub rva: Rva<S>,
    /// The preferred image base, to turn the virtual addresses of absolute operands into RVAs.
    pub image_base: u64,
    /// Places inside the stretch that a base relocation covers, sorted.
    pub relocated: &'a [Rva<S>],
    /// Jumps inside the stretch through tables that records tell of, sorted by their place; those
    /// that are missing may lead anywhere.
    pub jumps: &'a [TableJump<S>],
}

/// Decodes `code` into `body`, whose earlier contents are dropped and whose memory is reused.
///
/// Never fails: bytes that are no instruction become an [`Instruction`] with `valid` false.
pub fn decode<S: Side>(machine: Machine, code: Code<'_, S>, body: &mut Body<S>) {
    body.instructions.clear();
    body.page_links.clear();
    body.jump_tables.clear();
    body.widens_words = false;
    body.is_movable = false;
    match machine {
        Machine::X64 => x64::decode(code, body),
        Machine::Arm64 => arm64::decode(code, body),
    }
}
