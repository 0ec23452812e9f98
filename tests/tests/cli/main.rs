//! The command line from outside: what people and programs see of it.

mod bad_input;
mod compressed;
mod determinism;
mod dwarf;
mod inputs_kept;
mod outcomes;
mod program;
mod release;
mod symbol_places;
