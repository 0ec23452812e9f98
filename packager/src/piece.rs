//! The patch as pieces: stretches of bytes whose pointing operands are named by meaning.
//!
//! `extract` makes the pieces, `link` gives them addresses, and `verify` holds the written image
//! against them. No piece knows where it will lie, and nothing here is an address of the patch.

use hpbuild_differ::decode::{Escape, Field, ReferenceKind};
use hpbuild_differ::pe::ImportSymbol;
use hpbuild_metadata::{Base, BaseIdentity, Fixed, Machine, Rva, Sequence};

/// Index of a piece in [`Parts::pieces`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PieceId(pub u32);

impl PieceId {
    /// The index.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A place in a piece; the offset may lie behind its end (one-past addresses) or before its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The piece.
    pub piece: PieceId,
    /// Bytes from its start.
    pub offset: i64,
}

impl Place {
    /// The start of a piece.
    pub const fn start(piece: PieceId) -> Self {
        Self { piece, offset: 0 }
    }

    /// `offset` bytes into a piece.
    pub const fn new(piece: PieceId, offset: i64) -> Self {
        Self { piece, offset }
    }
}

/// Where a piece goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Room {
    /// Machine code.
    Code,
    /// Read-only data.
    ReadOnly,
    /// Writable data.
    Writable,
    /// Unwind info.
    Unwind,
}

/// A stretch of bytes that stays in one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// For messages and symbols.
    pub name: Box<str>,
    /// What it is a copy of, where it is one of data. No byte of the fixed image is in two pieces then.
    pub origin: Option<Origin>,
    /// Where it goes.
    pub room: Room,
    /// Power of two, at most a page.
    pub align: u32,
    /// Its bytes as the compiler emitted them; fields that references fill hold anything.
    pub bytes: Vec<u8>,
    /// Zero bytes behind `bytes`.
    pub zeros: u32,
    /// Sorted by offset. References from a piece into itself that do not depend on where it lies
    /// are left out.
    pub references: Vec<Reference>,
    /// Arm64: which page-forming reference each page-offset reference uses, as indexes of
    /// `references` (user, page).
    pub page_links: Vec<(u32, u32)>,
}

/// Where the fixed image has the data that a piece is a copy of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The first byte.
    pub rva: Rva<Fixed>,
    /// Bytes of the piece in front of that one, which keep it aligned.
    pub lead: u32,
}

/// A field of a piece that holds an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reference {
    /// Bytes from the start of the piece: of the instruction, or of the field in data.
    pub offset: u32,
    /// How the address is stored.
    pub how: How,
    /// What it should reach.
    pub target: Target,
}

/// How an address is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// In an instruction.
    Instruction {
        /// Its bytes.
        length: u8,
        /// What it does with the address.
        kind: ReferenceKind,
        /// The bits that hold it.
        field: Field,
    },
    /// Eight bytes of virtual address.
    Pointer,
    /// Four bytes of address relative to the image base.
    ImageRelative,
    /// The distance from `from`, shifted right: an entry of a jump table or another table of
    /// distances. One to the base goes through a thunk, so only to code.
    Difference {
        /// Bytes of the field: 1, 2, 4 or 8.
        size: u8,
        /// Whether the field is sign-extended when read.
        signed: bool,
        /// Bits the distance is shifted right.
        shift: u8,
        /// What the distance is counted from.
        from: Place,
    },
}

/// What a reference should reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// A place in the patch.
    Piece(Place),
    /// A place in the running base.
    Base(Rva<Base>),
    /// A pointer of the patch that holds, at run time, the value of this pointer of the base: the
    /// pointers behind `/guard:cf` calls and other pointers that the loader sets once.
    BaseValue(Rva<Base>),
    /// The patch's own slot of this import, as an index of [`Parts::imports`].
    Import(u32),
    /// The start of the patch image.
    PatchImageBase,
    /// Whatever the users of this page-forming instruction reach (Arm64).
    OfUsers,
}

/// An entry of the exception directory to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuntimeEntry {
    /// The code piece it describes.
    pub code: PieceId,
    /// First byte, from the start of the piece.
    pub begin: u32,
    /// First byte behind.
    pub end: u32,
    /// Its unwind info.
    pub unwind: UnwindOf,
}

/// Where the unwind info of a [`RuntimeEntry`] stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnwindOf {
    /// In a piece.
    Info(PieceId),
    /// Arm64: packed into the entry.
    Packed(u32),
}

/// A base function and its replacement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// Its name.
    pub name: Box<str>,
    /// Entry in the base.
    pub base: Rva<Base>,
    /// The first four bytes at the base entry; zero behind the end of shorter functions.
    pub original: [u8; 4],
    /// Its replacement, entered at its start.
    pub piece: PieceId,
}

/// An import of the base that patch code uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportUse {
    /// The base's slot.
    pub slot: Rva<Base>,
    /// The DLL as the base spells it.
    pub dll: Box<str>,
    /// What is imported.
    pub symbol: ImportSymbol,
    /// Delayed imports get a slot but no import descriptor.
    pub delayed: bool,
}

/// What the patch must know of its base.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseFacts {
    /// File name without folder and extension: `appinfo` for `appinfo.dll`.
    pub stem: Box<str>,
    /// Time stamp and checksum.
    pub identity: BaseIdentity,
    /// Bytes of the image when mapped.
    pub image_size: u32,
    /// Whether it was built with `/guard:cf`.
    pub guard_cf: bool,
    /// Whether it lists where code may go on after an exception (`/guard:ehcont`).
    pub guard_eh: bool,
    /// Its extended DLL characteristics.
    pub ex_characteristics: u32,
}

/// What of a patch the process goes on with when a newer one has taken its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lasting {
    /// The address of code or data.
    Address,
    /// Objects of a type, by its layout.
    Layout,
    /// Objects that hold an enumerator; its name stands behind that of the type.
    Value,
}

/// Something that the base does not have and that the process may hold once a patch brought it: no newer
/// patch can redirect it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Brought {
    /// What is held.
    pub lasting: Lasting,
    /// Its name, at most [`Brought::LONGEST`] bytes.
    pub name: Box<str>,
    /// What it is and does: SHA-256 over its bytes and over everything that it leads to in the patch, or
    /// over a type's layout, or over the names of type and value and the value.
    pub digest: [u8; 32],
    /// What the code that takes its address does with it.
    pub way: Escape,
    /// Whether it is, or reaches, a variable that lives in the patch.
    pub has_state: bool,
}

impl Brought {
    /// Bytes of the longest name.
    pub const LONGEST: usize = 1 << 12;
}

/// Everything the patch image will hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parts {
    /// The instruction set.
    pub machine: Machine,
    /// Order of this patch among the patches over the same base.
    pub sequence: Sequence,
    /// The base.
    pub base: BaseFacts,
    /// By [`PieceId`].
    pub pieces: Vec<Piece>,
    /// The pieces of code in the order in which they must lie: that of the fixed image, because
    /// tables of exception data list code in ascending order.
    pub code: Vec<PieceId>,
    /// Sorted by code piece and `begin`.
    pub runtime: Vec<RuntimeEntry>,
    /// Where code may go on after an exception; none unless [`BaseFacts::guard_eh`].
    pub continuations: Vec<Place>,
    /// Sorted by base entry.
    pub redirects: Vec<Redirect>,
    /// In any order; the order chooses nothing.
    pub imports: Vec<ImportUse>,
    /// What this patch and the older ones that it takes the place of brought, sorted.
    pub brought: Vec<Brought>,
}

impl Parts {
    /// The piece with this id.
    pub fn piece(&self, id: PieceId) -> &Piece {
        &self.pieces[id.index()]
    }
}

impl Piece {
    /// In the place of a piece that was refused.
    pub(crate) fn placeholder(name: &str, room: Room) -> Self {
        Self {
            name: name.into(),
            origin: None,
            room,
            align: 1,
            bytes: Vec::new(),
            zeros: 0,
            references: Vec::new(),
            page_links: Vec::new(),
        }
    }

    /// Bytes of the piece, zeros included.
    pub fn size(&self) -> u32 {
        u32::try_from(self.bytes.len()).map_or(u32::MAX, |bytes| bytes.saturating_add(self.zeros))
    }
}
