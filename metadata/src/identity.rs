//! What names a base image, and the order of patches over it.

use std::fmt;
use std::num::NonZeroU32;

/// The instruction sets that can be hotpatched here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Machine {
    /// COFF machine 0x8664.
    X64,
    /// COFF machine 0xAA64.
    Arm64,
}

impl Machine {
    /// The COFF machine number that stands for this instruction set in a PE header.
    pub const fn coff(self) -> u16 {
        match self {
            Machine::X64 => 0x8664,
            Machine::Arm64 => 0xaa64,
        }
    }

    /// The inverse of [`Machine::coff`]; `None` for every other machine.
    pub const fn from_coff(machine: u16) -> Option<Self> {
        match machine {
            0x8664 => Some(Machine::X64),
            0xaa64 => Some(Machine::Arm64),
            _ => None,
        }
    }

    /// The name used in reports and manifests: `x64` or `arm64`.
    pub const fn name(self) -> &'static str {
        match self {
            Machine::X64 => "x64",
            Machine::Arm64 => "arm64",
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl serde::Serialize for Machine {
    fn serialize<Z: serde::Serializer>(&self, serializer: Z) -> Result<Z::Ok, Z::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> serde::Deserialize<'de> for Machine {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        [Machine::X64, Machine::Arm64]
            .into_iter()
            .find(|machine| machine.name() == name)
            .ok_or_else(|| serde::de::Error::unknown_variant(&name, &["x64", "arm64"]))
    }
}

/// What the kernel compares with the running base before it patches it: the two words that stand
/// in its headers (format reference, section 1.3).
///
/// Linkers write a checksum only with `/RELEASE` or for drivers, so a zero checksum names many
/// builds at once; `judge` warns of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BaseIdentity {
    /// TimeDateStamp of the COFF header.
    pub time_date_stamp: u32,
    /// CheckSum of the optional header.
    pub checksum: u32,
}

impl fmt::Display for BaseIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "time stamp {:#010x}, checksum {:#010x}",
            self.time_date_stamp, self.checksum
        )
    }
}

/// The place of a patch in the order of patches over one base; a higher one replaces a lower one.
/// The kernel wants it to be non-zero (format reference, section 1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sequence(pub NonZeroU32);

impl Sequence {
    /// The sequence number of a first patch.
    pub const FIRST: Sequence = Sequence(NonZeroU32::MIN);

    /// The sequence number `value`, or `None` for zero.
    pub const fn new(value: u32) -> Option<Self> {
        match NonZeroU32::new(value) {
            Some(value) => Some(Sequence(value)),
            None => None,
        }
    }

    /// The number as the table stores it.
    pub const fn get(self) -> u32 {
        self.0.get()
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
