//! Images that are understood and cannot be hotpatched whatever is in them.

use std::fmt;

use hpbuild_metadata::Side;

use super::Pe;

/// What a PE file turned out to be.
#[derive(Debug)]
pub enum Opened<S: Side> {
    /// An image of a kind that can be hotpatched.
    Pe(Box<Pe<S>>),
    /// An image of a kind that cannot.
    Unsupported(Unsupported),
}

/// Why an image is of no use here, with the field that says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsupported {
    /// What the image is.
    pub kind: UnsupportedKind,
    /// The header field that says so.
    pub field: &'static str,
    /// What stands in it.
    pub value: u64,
}

/// Kinds of image that cannot be hotpatched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnsupportedKind {
    /// 32-bit x86.
    X86,
    /// 32-bit x86 with Arm64 code in it.
    ChpeX86,
    /// Arm64EC: says it is x64 and holds Arm64 code.
    Arm64Ec,
    /// Arm64X: Arm64 and Arm64EC in one.
    Arm64X,
    /// Managed code (.NET), alone or mixed with native code.
    Managed,
    /// Any other COFF machine.
    OtherMachine(u16),
}

impl fmt::Display for UnsupportedKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            UnsupportedKind::X86 => "x86",
            UnsupportedKind::ChpeX86 => "hybrid x86 (CHPE)",
            UnsupportedKind::Arm64Ec => "Arm64EC",
            UnsupportedKind::Arm64X => "Arm64X",
            UnsupportedKind::Managed => "managed (.NET)",
            UnsupportedKind::OtherMachine(number) => match machine_name(*number) {
                Some(name) => name,
                None => return write!(f, "machine {number:#x}"),
            },
        };
        f.write_str(name)
    }
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} image ({} is {:#x})",
            self.kind, self.field, self.value
        )
    }
}

/// Names of COFF machines, from the PE specification, section "Machine Types".
fn machine_name(number: u16) -> Option<&'static str> {
    Some(match number {
        0x0 => "machine-independent",
        0x166 => "MIPS R4000",
        0x184 => "Alpha AXP",
        0x1a2 => "SH3",
        0x1a6 => "SH4",
        0x1c0 => "ARM32",
        0x1c2 => "ARM32 (Thumb)",
        0x1c4 => "ARM32 (Thumb-2)",
        0x1f0 => "PowerPC",
        0x200 => "Itanium",
        0x284 => "Alpha 64",
        0xebc => "EFI byte code",
        0x5032 => "RISC-V 32",
        0x5064 => "RISC-V 64",
        0x6232 => "LoongArch 32",
        0x6264 => "LoongArch 64",
        _ => return None,
    })
}
