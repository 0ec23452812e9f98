//! Authenticode signatures on patch images and cabinets, the package that carries patches, and
//! the verification of both.
//!
//! Everything is a function from bytes to bytes or to a report. Only keys that live elsewhere
//! (tokens, commands) and time-stamp servers are reached from here; files are the caller's.
//!
//! Signing and verifying share no code above the DER reader: signatures are put together from the
//! types of the crate `cms` and made with RustCrypto's ECDSA or `ring`'s RSA, and they are read by
//! walking the encoded bytes, with signature values checked by `ring` and chains by
//! `rustls-webpki`.
#![forbid(unsafe_code)]

mod asn1;
mod authenticode;
mod cabinet;
mod certificate;
mod digest;
mod error;
mod keygen;
mod keys;
pub mod package;
mod pe;
mod signed_data;
mod signing;
mod time;
mod time_stamp;
mod trust;

pub use authenticode::{Existing, Prepared, SignOptions, SignerFacts};
pub use cabinet::{CabinetFile, Limits, read_cabinet, write_cabinet};
pub use certificate::Certificate;
pub use digest::DigestAlgorithm;
pub use error::Error;
pub use keygen::{TestKey, TestKeys, TestKeysOptions, keygen_test};
#[cfg(feature = "pkcs11")]
pub use keys::Pkcs11Signer;
pub use keys::{CommandSigner, KeyAlgorithm, Passphrase, Signer};
pub use signing::{FileKind, SignatureReport, attach, prepare, sign, verify};
pub use time_stamp::{TimeStamp, TimeStampServer};
pub use trust::{Check, Checks, Trust};
