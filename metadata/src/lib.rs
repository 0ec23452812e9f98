//! The words every other crate speaks: addresses that know which image they belong to, ids, the
//! identity of a base image, the Windows hotpatch table and the package manifest as typed values.
//!
//! Nothing here opens a file. Encoding and decoding work on byte slices, and every decoder takes
//! its input as hostile.
#![forbid(unsafe_code)]

mod address;
mod id;
mod identity;
pub mod manifest;
pub mod table;
pub mod x64;

pub use address::{Base, FileOffset, Fixed, Patch, Rva, SectionOffset, Side};
pub use id::{CompilandId, DataId, FunctionId};
pub use identity::{BaseIdentity, Machine, Sequence};
