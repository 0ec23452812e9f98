//! Parts made from instruction bytes.

use hpbuild_differ::decode::{Field, ReferenceKind};
use hpbuild_differ::pe::ImportSymbol;
use hpbuild_metadata::{BaseIdentity, Machine, Rva, Sequence};
use hpbuild_packager::piece::{
    BaseFacts, How, ImportUse, Parts, Piece, PieceId, Redirect, Reference, Room, Target,
};

/// Code under construction.
#[derive(Default)]
pub(crate) struct Assembled {
    bytes: Vec<u8>,
    references: Vec<Reference>,
    page_links: Vec<(u32, u32)>,
}

impl Assembled {
    /// Bytes without a reference.
    pub(crate) fn plain(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// An x64 instruction with a four-byte distance between `before` and `behind`.
    pub(crate) fn relative(
        &mut self,
        before: &[u8],
        behind: &[u8],
        kind: ReferenceKind,
        target: Target,
    ) {
        let field = Field::Relative {
            at: before.len() as u8,
            size: 4,
        };
        self.instruction(&[before, &[0; 4], behind].concat(), kind, field, target);
    }

    /// An x64 branch with a one-byte distance.
    pub(crate) fn short(&mut self, opcode: u8, kind: ReferenceKind, target: Target) {
        self.instruction(
            &[opcode, 0],
            kind,
            Field::Relative { at: 1, size: 1 },
            target,
        );
    }

    /// `mov r64, imm64`.
    pub(crate) fn absolute(&mut self, before: &[u8], target: Target) {
        let field = Field::Absolute {
            at: before.len() as u8,
        };
        self.instruction(
            &[before, &[0; 8]].concat(),
            ReferenceKind::Address,
            field,
            target,
        );
    }

    /// An Arm64 instruction without a reference.
    pub(crate) fn word(&mut self, word: u32) {
        self.bytes.extend(word.to_le_bytes());
    }

    /// An Arm64 instruction with an address in the bits of `mask`.
    pub(crate) fn aimed(&mut self, word: u32, mask: u32, kind: ReferenceKind, target: Target) {
        self.instruction(&word.to_le_bytes(), kind, Field::Word { mask }, target);
    }

    /// `adrp`.
    pub(crate) fn page(&mut self, word: u32) {
        self.aimed(word, 0x60ff_ffe0, ReferenceKind::Page, Target::OfUsers);
    }

    /// Index of the last reference.
    pub(crate) fn last(&self) -> u32 {
        self.references.len() as u32 - 1
    }

    /// An instruction that adds an offset to a page.
    pub(crate) fn user(&mut self, word: u32, kind: ReferenceKind, target: Target, page: u32) {
        self.aimed(word, 0x003f_fc00, kind, target);
        self.page_links.push((self.last(), page));
    }

    fn instruction(&mut self, bytes: &[u8], kind: ReferenceKind, field: Field, target: Target) {
        self.references.push(Reference {
            offset: self.bytes.len() as u32,
            how: How::Instruction {
                length: bytes.len() as u8,
                kind,
                field,
            },
            target,
        });
        self.bytes.extend_from_slice(bytes);
    }

    pub(crate) fn piece(self, name: &str) -> Piece {
        Piece {
            name: name.into(),
            origin: None,
            room: Room::Code,
            align: 16,
            bytes: self.bytes,
            zeros: 0,
            references: self.references,
            page_links: self.page_links,
        }
    }
}

pub(crate) fn base_facts() -> BaseFacts {
    BaseFacts {
        stem: "base".into(),
        identity: BaseIdentity {
            time_date_stamp: 0x662a_7c63,
            checksum: 0x1f2a4,
        },
        image_size: 0x9000,
        guard_cf: true,
        guard_eh: false,
        ex_characteristics: 1,
    }
}

/// Parts whose first piece replaces a function of the base that starts the same.
pub(crate) fn parts(machine: Machine, pieces: Vec<Piece>) -> Parts {
    let mut original = [0; 4];
    for (to, from) in original.iter_mut().zip(&pieces[0].bytes) {
        *to = *from;
    }
    let code = (0..).map(PieceId).zip(&pieces);
    let code = code.filter(|(_, piece)| piece.room == Room::Code);
    Parts {
        code: code.map(|(id, _)| id).collect(),
        machine,
        sequence: Sequence::FIRST,
        base: base_facts(),
        pieces,
        runtime: Vec::new(),
        continuations: Vec::new(),
        redirects: vec![Redirect {
            name: "forms".into(),
            base: Rva::new(0x1400),
            original,
            piece: PieceId(0),
        }],
        imports: Vec::new(),
        brought: Vec::new(),
    }
}

pub(crate) fn import(slot: u32, dll: &str, name: &str) -> ImportUse {
    ImportUse {
        slot: Rva::new(slot),
        dll: dll.into(),
        symbol: ImportSymbol::Name(name.into()),
        delayed: false,
    }
}
