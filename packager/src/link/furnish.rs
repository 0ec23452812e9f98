//! What a PE needs beside code and data, as pieces: exception directory, load config, guard
//! table, debug directory, and room for the hotpatch table.

use hpbuild_differ::decode::{Escape, ReferenceKind};
use hpbuild_metadata::Machine;

use super::imports::Fields;
use super::lower::{Lowered, new_piece};
use crate::attach;
use crate::piece::{
    How, Lasting, Parts, Piece, PieceId, Place, Reference, Room, RuntimeEntry, Target, UnwindOf,
};

/// All pieces of the image, and which of them the headers name.
pub(super) struct Furnished {
    pub(super) lowered: Lowered,
    pub(super) load_config: PieceId,
    pub(super) table: PieceId,
    pub(super) debug: PieceId,
    pub(super) codeview: PieceId,
    pub(super) repro: PieceId,
    /// What the entries of the debug directory lead to, in their order.
    pub(super) debug_data: Vec<PieceId>,
    pub(super) exceptions: Option<PieceId>,
    /// Whether control flow guard is on.
    pub(super) guard_cf: bool,
}

/// Bytes of the load config: up to `GuardMemcpyFunctionPointer`.
const LOAD_CONFIG_SIZE: u32 = 0x140;
/// Bytes of one entry of the debug directory.
const DEBUG_ENTRY_SIZE: usize = 28;
/// `Type` of the entry for what the patch brings: no system has that, and all pass over what they do
/// not know.
const BROUGHT: u32 = 0x4250_4842;
/// `IMAGE_GUARD_CF_INSTRUMENTED | IMAGE_GUARD_CF_FUNCTION_TABLE_PRESENT`.
const GUARD_CF: u32 = 0x500;
/// `IMAGE_GUARD_EH_CONTINUATION_TABLE_PRESENT`.
const GUARD_EH: u32 = 0x0040_0000;
/// `IMAGE_DLLCHARACTERISTICS_EX_HOTPATCH_COMPATIBLE`.
const EX_HOTPATCH_COMPATIBLE: u32 = 0x80;
/// Shadow stack and forward-edge promises of the base that patch code keeps: thunks and stubs
/// only jump.
const EX_KEPT: u32 = 0x4f;

pub(super) fn furnish(parts: &Parts, mut lowered: Lowered) -> Furnished {
    let table_size = attach::table_size(parts, &lowered.attaches);
    let mut add = |piece: Piece| {
        let id = PieceId(lowered.pieces.len() as u32);
        lowered.pieces.push(piece);
        id
    };
    let table = add(new_piece(
        "hotpatch table",
        Room::ReadOnly,
        8,
        vec![0; table_size],
        Vec::new(),
    ));
    let debug_data: Vec<PieceId> = debug_data(parts).into_iter().map(add).collect();
    let debug = debug_directory(&lowered.pieces, &debug_data);
    let debug = push(&mut lowered, debug);
    let exceptions =
        exception_directory(parts.machine, &lowered).map(|piece| push(&mut lowered, piece));
    let guards = guard_tables(parts, &mut lowered);
    let load_config = push(&mut lowered, load_config(table, &guards));
    Furnished {
        lowered,
        load_config,
        table,
        debug,
        codeview: debug_data[0],
        repro: debug_data[1],
        debug_data,
        exceptions,
        guard_cf: parts.base.guard_cf,
    }
}

fn push(lowered: &mut Lowered, piece: Piece) -> PieceId {
    let id = PieceId(lowered.pieces.len() as u32);
    lowered.pieces.push(piece);
    id
}

/// A table that the load config points to.
struct GuardTable {
    /// Where in the load config the pointer to it stands, eight bytes before the count.
    field: u32,
    /// What `GuardFlags` says of it.
    flags: u32,
    piece: PieceId,
    /// Its entries, four bytes each.
    count: usize,
}

/// The tables that the base has as well.
fn guard_tables(parts: &Parts, lowered: &mut Lowered) -> Vec<GuardTable> {
    let mut tables = Vec::new();
    let functions = parts.base.guard_cf.then(|| guard_functions(parts, lowered));
    let functions = functions.map(|piece| (0x80, GUARD_CF, piece));
    let places = parts.base.guard_eh.then(|| continuations(parts, lowered));
    let places = places.map(|piece| (0x108, GUARD_EH, piece));
    for (field, flags, piece) in functions.into_iter().chain(places) {
        tables.push(GuardTable {
            field,
            flags,
            count: piece.references.len(),
            piece: push(lowered, piece),
        });
    }
    tables
}

/// The load config, of which a patch needs its size, the guard tables and the hotpatch table.
fn load_config(table: PieceId, guards: &[GuardTable]) -> Piece {
    let mut bytes = vec![0; LOAD_CONFIG_SIZE as usize];
    bytes[..4].copy_from_slice(&LOAD_CONFIG_SIZE.to_le_bytes());
    let flags = guards.iter().fold(0, |flags, guard| flags | guard.flags);
    bytes[0x90..0x94].copy_from_slice(&flags.to_le_bytes());
    let mut references = Vec::new();
    for guard in guards.iter().filter(|guard| guard.count > 0) {
        let count = guard.field as usize + 8;
        bytes[count..count + 8].copy_from_slice(&(guard.count as u64).to_le_bytes());
        references.push(Reference {
            offset: guard.field,
            how: How::Pointer,
            target: Target::Piece(Place::start(guard.piece)),
        });
    }
    references.push(Reference {
        offset: 0xf0,
        how: How::ImageRelative,
        target: Target::Piece(Place::start(table)),
    });
    references.sort_by_key(|reference| reference.offset);
    new_piece("load config", Room::ReadOnly, 8, bytes, references)
}

/// Functions of the patch whose address is taken: valid targets of indirect calls. In address
/// order, as the loader searches it.
fn guard_functions(parts: &Parts, lowered: &Lowered) -> Piece {
    let mut taken = vec![false; parts.pieces.len()];
    for (index, piece) in lowered.pieces.iter().enumerate() {
        for reference in &piece.references {
            let takes_address = match reference.how {
                How::Pointer => true,
                How::Instruction { kind, .. } => kind == ReferenceKind::Address,
                How::ImageRelative | How::Difference { .. } => false,
            };
            let Target::Piece(Place { piece, offset: 0 }) = reference.target else {
                continue;
            };
            if takes_address && piece.index() != index && piece.index() < taken.len() {
                taken[piece.index()] |= parts.piece(piece).room == Room::Code;
            }
        }
    }
    let mut fields = Fields::default();
    for id in &lowered.code_order {
        if taken.get(id.index()).copied().unwrap_or(false) {
            fields.image_relative(Place::start(*id));
        }
    }
    new_piece(
        "guard function table",
        Room::ReadOnly,
        4,
        fields.bytes,
        fields.references,
    )
}

/// Where each piece of code lies among the others, by piece.
fn ranks(lowered: &Lowered) -> Vec<u32> {
    let mut rank = vec![u32::MAX; lowered.pieces.len()];
    for (position, id) in lowered.code_order.iter().enumerate() {
        rank[id.index()] = position as u32;
    }
    rank
}

/// Where code may go on after an exception, in address order.
fn continuations(parts: &Parts, lowered: &Lowered) -> Piece {
    let rank = ranks(lowered);
    let mut places = parts.continuations.clone();
    places.sort_by_key(|place| (rank[place.piece.index()], place.offset));
    let mut fields = Fields::default();
    for place in places {
        fields.image_relative(place);
    }
    new_piece(
        "exception continuation table",
        Room::ReadOnly,
        4,
        fields.bytes,
        fields.references,
    )
}

/// The exception directory, sorted by address.
fn exception_directory(machine: Machine, lowered: &Lowered) -> Option<Piece> {
    let rank = ranks(lowered);
    let mut entries: Vec<&RuntimeEntry> = lowered.runtime.iter().collect();
    entries.sort_by_key(|entry| (rank[entry.code.index()], entry.begin));
    let mut fields = Fields::default();
    for entry in entries {
        fields.image_relative(Place::new(entry.code, entry.begin.into()));
        if machine == Machine::X64 {
            fields.image_relative(Place::new(entry.code, entry.end.into()));
        }
        match entry.unwind {
            UnwindOf::Info(info) => fields.image_relative(Place::start(info)),
            UnwindOf::Packed(word) => fields.bytes.extend(word.to_le_bytes()),
        }
    }
    let piece = || {
        new_piece(
            "exception directory",
            Room::ReadOnly,
            4,
            fields.bytes.clone(),
            fields.references.clone(),
        )
    };
    (!fields.bytes.is_empty()).then(piece)
}

/// CodeView record, content hash, extended characteristics and, where there is anything, what the patch
/// brings; GUID and hash are filled when the rest of the file is known.
fn debug_data(parts: &Parts) -> Vec<Piece> {
    let mut codeview = b"RSDS".to_vec();
    codeview.extend([0; 16]);
    codeview.extend(1_u32.to_le_bytes());
    codeview.extend(crate::write::pdb_name(parts).as_bytes());
    codeview.push(0);
    let mut repro = 32_u32.to_le_bytes().to_vec();
    repro.extend([0; 32]);
    let ex = parts.base.ex_characteristics & EX_KEPT | EX_HOTPATCH_COMPATIBLE;
    let piece = |name, bytes| new_piece(name, Room::ReadOnly, 4, bytes, Vec::new());
    let mut all = vec![
        piece("codeview", codeview),
        piece("content hash", repro),
        piece("extended characteristics", ex.to_le_bytes().to_vec()),
    ];
    if !parts.brought.is_empty() {
        all.push(piece("what the patch brings", brought(parts)));
    }
    all
}

/// The list that the next patch over this base is held against; see `verify/brought.rs` for its form.
fn brought(parts: &Parts) -> Vec<u8> {
    let mut bytes = 1_u32.to_le_bytes().to_vec();
    bytes.extend((parts.brought.len() as u32).to_le_bytes());
    for brought in &parts.brought {
        let way = match brought.way {
            Escape::Lost | Escape::Handed | Escape::Returned => 0,
            Escape::Compared => 1,
            Escape::Stored => 2,
        };
        let lasting = match brought.lasting {
            Lasting::Address => 0,
            Lasting::Layout => 8,
            Lasting::Value => 16,
        };
        bytes.push(lasting | way | if brought.has_state { 4 } else { 0 });
        bytes.extend((brought.name.len() as u16).to_le_bytes());
        bytes.extend(brought.name.as_bytes());
        bytes.extend(brought.digest);
    }
    bytes
}

/// The debug directory; file offsets and time stamps are filled when the file is laid out.
fn debug_directory(pieces: &[Piece], data: &[PieceId]) -> Piece {
    let mut fields = Fields::default();
    // IMAGE_DEBUG_TYPE_CODEVIEW, _REPRO and _EX_DLLCHARACTERISTICS, and one of our own.
    for (kind, id) in [2_u32, 16, 20, BROUGHT].into_iter().zip(data) {
        fields.bytes.extend([0; 12]);
        fields.bytes.extend(kind.to_le_bytes());
        fields.bytes.extend(pieces[id.index()].size().to_le_bytes());
        fields.image_relative(Place::start(*id));
        fields.bytes.extend([0; 4]);
    }
    debug_assert_eq!(fields.bytes.len(), data.len() * DEBUG_ENTRY_SIZE);
    new_piece(
        "debug directory",
        Room::ReadOnly,
        4,
        fields.bytes,
        fields.references,
    )
}
