//! RFC 3161 time stamps: proof that a signature existed at a time, so that it outlives its
//! certificate.

mod request;
mod token;

pub use request::TimeStampServer;
pub(crate) use request::fetch;
pub use token::TimeStamp;
pub(crate) use token::verify_token;
