//! The truth about what changed, from object files.
//!
//! Compiled with `-ffunction-sections -fdata-sections`, an object file has every function and
//! every datum in a section of its own, with a relocation at each place where the linker will
//! write an address, and the relocation names what it will be the address of. Two compiles of
//! one library can therefore be compared function by function without knowing any instruction:
//!
//! * the bytes of the section, with the relocated fields blanked out, must be the same;
//! * each relocation must be of the same kind, at the same place, to the same target.
//!
//! A target is the same when it is the function or the writable datum of the same name (and of the
//! same object, where several objects have one of that name). Read-only
//! data counts by what it contains, relocations in it included, to any depth, because a program
//! can tell a changed table from an unchanged one and nothing else; its name counts too, unless
//! the compiler made it up. A jump table is read-only data whose relocations lead back into the
//! function itself, and needs no rule of its own.
//!
//! The differ works on linked images, where none of this is left, and so the two share no code.
//! What the linker does, dropping and folding functions, is told apart in `linked`, by its maps.
//! Exception data (`.xdata`) is part of the function that it serves alone, by what
//! it holds: a `catch` of another type is a change. Constants made by `__LINE__` are constants.
//!
//! Names of Rust are compared without the hashes in them (`oracle/rust.rs`). Where several functions of
//! an object still have one name, what they mean tells which is which, and where it does not, they
//! are called ambiguous and not compared.
//!
//! Labels such as `.LCPI0_1` must be kept in the objects (`-Xclang -msave-temp-labels`): without
//! them one cannot tell where in a shared section one constant ends.

mod arm64;
mod code_view;
mod compare;
mod linked;
mod linker_map;
mod meaning;
mod names;
mod object_file;
mod program;
mod rust;
mod x64;

pub use compare::{Comparison, Difference, compare};
pub use linked::{InImages, Missing, in_images};
pub use linker_map::LinkerMap;
pub use object_file::{Error, ObjectFile, members};
pub use program::{FunctionName, Program};
