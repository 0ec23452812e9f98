//! Addresses that carry their image in the type.
//!
//! Three images take part in everything this project does, and an address of one is meaningless
//! in another. `Rva<Base>` and `Rva<Fixed>` are different types, so mixing them up does not
//! compile:
//!
//! ```compile_fail
//! use hpbuild_metadata::{Base, Fixed, Rva};
//! assert_eq!(Rva::<Base>::new(0x1000), Rva::<Fixed>::new(0x1000));
//! ```

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;

/// One of the three images. Implemented by [`Base`], [`Fixed`] and [`Patch`] alone.
pub trait Side: Copy + Eq + Ord + Hash + fmt::Debug + Send + Sync + 'static {
    /// The word used for this image in messages and reports.
    const NAME: &'static str;
}

macro_rules! sides {
    ($($(#[$doc:meta])* $side:ident = $name:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $side {}
        impl Side for $side {
            const NAME: &'static str = $name;
        }
    )*};
}

sides! {
    /// The image that is running everywhere.
    Base = "base";
    /// The base image built again with the fix in it.
    Fixed = "fixed";
    /// The small image that carries only the changed functions.
    Patch = "patch";
}

/// An address in bytes relative to the base of the loaded image of side `S`.
pub struct Rva<S> {
    value: u32,
    side: PhantomData<fn() -> S>,
}

impl<S> Rva<S> {
    /// The address `value` bytes behind the image base.
    pub const fn new(value: u32) -> Self {
        Self {
            value,
            side: PhantomData,
        }
    }

    /// The number of bytes behind the image base.
    pub const fn get(self) -> u32 {
        self.value
    }

    /// The address `bytes` further on, or `None` where that leaves the 32-bit range.
    pub fn checked_add(self, bytes: u32) -> Option<Self> {
        self.value.checked_add(bytes).map(Self::new)
    }

    /// The address moved by a signed displacement, or `None` where that leaves the 32-bit range.
    pub fn checked_offset(self, displacement: i64) -> Option<Self> {
        let value = i64::from(self.value).checked_add(displacement)?;
        u32::try_from(value).ok().map(Self::new)
    }

    /// Bytes from `earlier` to this address, or `None` where `earlier` lies behind it.
    pub fn checked_sub(self, earlier: Self) -> Option<u32> {
        self.value.checked_sub(earlier.value)
    }

    /// The address of the 4 KiB page this address lies in.
    pub const fn page(self) -> Self {
        Self::new(self.value & !0xfff)
    }
}

// Written out because a derive would ask the same of `S`.
impl<S> Clone for Rva<S> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<S> Copy for Rva<S> {}
impl<S> PartialEq for Rva<S> {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}
impl<S> Eq for Rva<S> {}
impl<S> PartialOrd for Rva<S> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl<S> Ord for Rva<S> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.value.cmp(&other.value)
    }
}
impl<S> Hash for Rva<S> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.value.hash(state);
    }
}

/// Written as hexadecimal with `0x`.
impl<S> fmt::Display for Rva<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.value)
    }
}

impl<S: Side> fmt::Debug for Rva<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{:#x}", S::NAME, self.value)
    }
}

/// Serialised as the plain number of bytes.
impl<S> serde::Serialize for Rva<S> {
    fn serialize<Z: serde::Serializer>(&self, serializer: Z) -> Result<Z::Ok, Z::Error> {
        serializer.serialize_u32(self.value)
    }
}

impl<'de, S> serde::Deserialize<'de> for Rva<S> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        u32::deserialize(deserializer).map(Self::new)
    }
}

/// A place in a file on disk, in bytes from its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileOffset(pub u64);

impl fmt::Display for FileOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// A place as PDB records store it: a 1-based section number and an offset in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SectionOffset {
    /// 1-based number of the section; 0 means "no section".
    pub section: u16,
    /// Bytes from the start of the section.
    pub offset: u32,
}
