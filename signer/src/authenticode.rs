//! The signature itself: CMS `SignedData` over an `SpcIndirectDataContent`.
//!
//! Authenticode is older than CMS and differs from it in three ways that general libraries get
//! wrong, so the structure is put together here: its version is 1, although CMS would make it 3;
//! the content is a bare SEQUENCE and not wrapped into an OCTET STRING; and the message digest
//! covers that SEQUENCE's contents without its tag and length. Source: "Windows Authenticode
//! Portable Executable Signature Format", version 1.0.
//!
//! Writing uses the types of the crates `cms` and `x509-cert`; reading (in [`verify`]) walks the
//! encoded bytes and shares nothing with it.

mod content;
mod request;
mod sign;
mod verify;

pub(crate) use content::{Subject, accepted_digest, encode as encode_content};
pub use sign::{Existing, Prepared, SignOptions};
pub(crate) use sign::{Signature, assemble, nest, prepare, x509_time};
pub use verify::SignerFacts;
pub(crate) use verify::verify as verify_signature;

use const_oid::ObjectIdentifier;

pub(crate) const SIGNED_DATA: ObjectIdentifier =
    ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.2");
pub(crate) const CONTENT_TYPE: ObjectIdentifier =
    ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.3");
pub(crate) const MESSAGE_DIGEST: ObjectIdentifier =
    ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.4");
pub(crate) const SIGNING_TIME: ObjectIdentifier =
    ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.5");
pub(crate) const INDIRECT_DATA: ObjectIdentifier =
    ObjectIdentifier::new_unwrap("1.3.6.1.4.1.311.2.1.4");
pub(crate) const STATEMENT_TYPE: ObjectIdentifier =
    ObjectIdentifier::new_unwrap("1.3.6.1.4.1.311.2.1.11");
pub(crate) const OPUS_INFO: ObjectIdentifier =
    ObjectIdentifier::new_unwrap("1.3.6.1.4.1.311.2.1.12");
pub(crate) const INDIVIDUAL_CODE_SIGNING: ObjectIdentifier =
    ObjectIdentifier::new_unwrap("1.3.6.1.4.1.311.2.1.21");
pub(crate) const NESTED_SIGNATURE: ObjectIdentifier =
    ObjectIdentifier::new_unwrap("1.3.6.1.4.1.311.2.4.1");
pub(crate) const TIME_STAMP_TOKEN: ObjectIdentifier =
    ObjectIdentifier::new_unwrap("1.3.6.1.4.1.311.3.3.1");
