//! The import directory of the patch: a descriptor per DLL, so that an ordinary loader accepts
//! the image and fills the slots; the reverse attaches then overwrite them with what the base has.

use hpbuild_differ::pe::ImportSymbol;

use super::lower::new_piece;
use crate::piece::{How, Parts, Piece, PieceId, Place, Reference, Room, Target};

/// The pieces of the import directory.
pub(crate) struct ImportPieces {
    /// The descriptors.
    pub(crate) directory: PieceId,
    /// The address table.
    pub(crate) addresses: PieceId,
    /// Index of each import with its slot.
    pub(crate) slots: Vec<(u32, Place)>,
}

/// Adds the pieces for all imports that are not delayed; `None` where there is none.
pub(super) fn imports(parts: &Parts, pieces: &mut Vec<Piece>) -> Option<ImportPieces> {
    let mut order: Vec<u32> = (0..parts.imports.len() as u32)
        .filter(|index| !parts.imports[*index as usize].delayed)
        .collect();
    if order.is_empty() {
        return None;
    }
    order.sort_by_key(|index| {
        let import = &parts.imports[*index as usize];
        (&import.dll, &import.symbol, import.slot)
    });
    let first = pieces.len() as u32;
    let (directory, lookup, addresses, names) = (
        PieceId(first),
        PieceId(first + 1),
        PieceId(first + 2),
        PieceId(first + 3),
    );
    let mut descriptors = Fields::default();
    let mut thunks = Fields::default();
    let mut text = Vec::new();
    let mut slots = Vec::new();
    let mut start = 0;
    while start < order.len() {
        let dll = &parts.imports[order[start] as usize].dll;
        let end = start
            + order[start..].partition_point(|index| parts.imports[*index as usize].dll == *dll);
        let table = thunks.bytes.len();
        for index in &order[start..end] {
            slots.push((*index, Place::new(addresses, thunks.bytes.len() as i64)));
            match &parts.imports[*index as usize].symbol {
                ImportSymbol::Ordinal(ordinal) => {
                    thunks
                        .bytes
                        .extend((1 << 63 | u64::from(*ordinal)).to_le_bytes());
                }
                ImportSymbol::Name(name) => {
                    let at = hint_and_name(&mut text, name);
                    thunks.image_relative(Place::new(names, at));
                    thunks.bytes.extend([0; 4]);
                }
            }
        }
        thunks.bytes.extend([0; 8]);
        descriptors.image_relative(Place::new(lookup, table as i64));
        descriptors.bytes.extend([0; 8]);
        let name = text.len() as i64;
        text.extend_from_slice(dll.as_bytes());
        text.push(0);
        descriptors.image_relative(Place::new(names, name));
        descriptors.image_relative(Place::new(addresses, table as i64));
        start = end;
    }
    descriptors.bytes.extend([0; 20]);
    let table = |name, fields: &Fields| {
        new_piece(
            name,
            Room::ReadOnly,
            8,
            fields.bytes.clone(),
            fields.references.clone(),
        )
    };
    pieces.push(table("import directory", &descriptors));
    pieces.push(table("import lookup table", &thunks));
    pieces.push(table("import address table", &thunks));
    pieces.push(new_piece(
        "import names",
        Room::ReadOnly,
        2,
        text,
        Vec::new(),
    ));
    Some(ImportPieces {
        directory,
        addresses,
        slots,
    })
}

/// Appends a zero hint and the name, at an even place.
fn hint_and_name(text: &mut Vec<u8>, name: &str) -> i64 {
    if !text.len().is_multiple_of(2) {
        text.push(0);
    }
    let at = text.len() as i64;
    text.extend([0; 2]);
    text.extend_from_slice(name.as_bytes());
    text.push(0);
    at
}

/// Bytes under construction with the addresses in them.
#[derive(Default)]
pub(super) struct Fields {
    pub(super) bytes: Vec<u8>,
    pub(super) references: Vec<Reference>,
}

impl Fields {
    /// Appends a four-byte address relative to the image base.
    pub(super) fn image_relative(&mut self, place: Place) {
        self.references.push(Reference {
            offset: self.bytes.len() as u32,
            how: How::ImageRelative,
            target: Target::Piece(place),
        });
        self.bytes.extend([0; 4]);
    }
}
