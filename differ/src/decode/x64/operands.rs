//! Operands that point somewhere, and the fields of the instruction that hold them.

use hpbuild_metadata::{Rva, Side};
use iced_x86::{ConstantOffsets, FlowControl, Instruction as Iced, Mnemonic, OpKind};

use super::super::{Field, Reference, ReferenceKind};
use super::image_base;

/// Bytes of code below which a displacement is never taken for an RVA: headers come first.
const LOWEST_RVA: u64 = 0x1000;

fn is_branch(iced: &Iced) -> bool {
    matches!(
        iced.op0_kind(),
        OpKind::NearBranch64 | OpKind::NearBranch32 | OpKind::NearBranch16
    ) && iced.op_count() > 0
}

/// Whether an operand counts from the end of the instruction.
pub(super) fn is_relative(iced: &Iced) -> bool {
    is_branch(iced) || iced.is_ip_rel_memory_operand()
}

/// Branches, calls and `[rip+x]`.
pub(super) fn relative<S: Side>(
    iced: &Iced,
    constants: impl Fn() -> ConstantOffsets,
) -> Option<Reference<S>> {
    if is_branch(iced) {
        let kind = match iced.flow_control() {
            FlowControl::Call => ReferenceKind::Call,
            FlowControl::UnconditionalBranch => ReferenceKind::Jump,
            _ => ReferenceKind::ConditionalJump,
        };
        let at = constants();
        let field = Field::Relative {
            at: u8::try_from(at.immediate_offset()).ok()?,
            size: u8::try_from(at.immediate_size()).ok()?,
        };
        return Some(Reference {
            target: rva(iced.near_branch_target())?,
            kind,
            field,
        });
    }
    if iced.is_ip_rel_memory_operand() {
        let at = constants();
        let field = Field::Relative {
            at: u8::try_from(at.displacement_offset()).ok()?,
            size: u8::try_from(at.displacement_size()).ok()?,
        };
        let target = rva(iced.ip_rel_memory_address())?;
        return Some(Reference {
            target,
            kind: memory_kind(iced),
            field,
        });
    }
    None
}

/// An eight-byte address that the loader adjusts.
pub(super) fn absolute<S: Side>(
    iced: &Iced,
    at: ConstantOffsets,
    image_base: u64,
) -> Option<Reference<S>> {
    let (address, at, kind) = if at.immediate_size() == 8 {
        (
            iced.immediate64(),
            at.immediate_offset(),
            ReferenceKind::Address,
        )
    } else if at.displacement_size() == 8 {
        (
            iced.memory_displacement64(),
            at.displacement_offset(),
            memory_kind(iced),
        )
    } else {
        return None;
    };
    let target = rva(address.checked_sub(image_base)?)?;
    Some(Reference {
        target,
        kind,
        field: Field::Absolute {
            at: u8::try_from(at).ok()?,
        },
    })
}

/// `[base+index*scale+rva]` where `base` or `index` holds the image base.
pub(super) fn image_relative<S: Side>(
    iced: &Iced,
    constants: impl Fn() -> ConstantOffsets,
    on_base: impl Fn() -> bool,
) -> Option<Reference<S>> {
    let displacement = iced.memory_displacement64();
    if iced.memory_displ_size() < 4 || displacement < LOWEST_RVA || !on_base() {
        return None;
    }
    let at = constants();
    let field = Field::ImageRelative {
        at: u8::try_from(at.displacement_offset()).ok()?,
    };
    // With an index it is a whole table that is reached, not so many bytes.
    let kind = match image_base::is_indexed(iced) {
        true => ReferenceKind::Address,
        false => memory_kind(iced),
    };
    Some(Reference {
        target: rva(displacement)?,
        kind,
        field,
    })
}

fn memory_kind(iced: &Iced) -> ReferenceKind {
    if iced.mnemonic() == Mnemonic::Lea {
        return ReferenceKind::Address;
    }
    ReferenceKind::Memory(u16::try_from(iced.memory_size().size()).unwrap_or(0))
}

/// An address as the decoder computes it, wrapped to 64 bits, as an RVA.
fn rva<S: Side>(address: u64) -> Option<Rva<S>> {
    u32::try_from(address).ok().map(Rva::new)
}
