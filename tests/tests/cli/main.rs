//! The command line from outside: what people and programs see of it.

mod bad_input;
mod batch;
mod determinism;
mod outcomes;
mod program;
mod release;
mod reports;
