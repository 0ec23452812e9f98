//! The command line from outside: what people and programs see of it.

mod bad_input;
mod batch;
mod compressed;
mod determinism;
mod dwarf;
mod inputs_kept;
mod outcomes;
mod program;
mod release;
mod reports;
mod schemas;
mod symbol_places;
mod wording;
