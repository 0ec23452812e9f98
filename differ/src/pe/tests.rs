//! Images made here, byte by byte, so that each rule of the reader has a file that breaks it.

mod build;
mod directories;
mod hostile;
mod kinds;
mod oracle;

use std::path::Path;

use hpbuild_metadata::Base;

use super::{Opened, Pe};
use crate::Error;

fn open(bytes: Vec<u8>) -> Result<Opened<Base>, Error> {
    Pe::parse(Path::new("test.dll"), bytes)
}

/// The image in `bytes`, which is one that can be hotpatched.
fn pe(bytes: Vec<u8>) -> Pe<Base> {
    match open(bytes) {
        Ok(Opened::Pe(pe)) => *pe,
        other => panic!("{other:?}"),
    }
}

/// The message with which `bytes` are turned away.
fn error(bytes: Vec<u8>) -> String {
    open(bytes).expect_err("these bytes are broken").to_string()
}
