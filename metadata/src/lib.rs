//! The words every other crate speaks: addresses that know which image they belong to, ids, the
//! identity of a base image, and the Windows hotpatch table as typed values.
//!
//! Nothing here opens a file. Encoding and decoding work on byte slices, and every decoder takes
//! its input as hostile.
#![forbid(unsafe_code)]

mod address;
mod id;
mod identity;
pub mod table;

pub use address::{Base, FileOffset, Fixed, Patch, Rva, SectionOffset, Side};
pub use id::{CompilandId, DataId, FunctionId};
pub use identity::{BaseIdentity, Machine, Sequence};
