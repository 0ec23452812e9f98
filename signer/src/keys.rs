//! Where signatures come from. A [`Signer`] holds or reaches a private key and knows the
//! certificate that belongs to it; it never gives the key away.

mod algorithm;
mod command;
mod local;
mod pem;
#[cfg(feature = "pkcs11")]
mod pkcs11;
mod pkcs12;

use std::fmt;

use zeroize::Zeroizing;

use crate::authenticode::Prepared;
use crate::certificate::Certificate;
use crate::digest::DigestAlgorithm;
use crate::error::Error;

pub use algorithm::KeyAlgorithm;
pub(crate) use algorithm::verify;
pub use command::CommandSigner;
pub(crate) use local::LocalKey;
pub(crate) use pem::certificates;
#[cfg(feature = "pkcs11")]
pub use pkcs11::Pkcs11Signer;

/// A passphrase; wiped when it is dropped and never printed.
#[derive(Clone)]
pub struct Passphrase(Zeroizing<String>);

impl Passphrase {
    /// Takes over `text`.
    pub fn new(text: String) -> Self {
        Passphrase(Zeroizing::new(text))
    }

    pub(crate) fn text(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase(..)")
    }
}

/// A private key that can be asked for signatures, and its certificates.
#[derive(Debug)]
pub struct Signer {
    key: Key,
    /// The signer's own certificate first, then the ones above it.
    certificates: Vec<Certificate>,
}

#[derive(Debug)]
enum Key {
    Local(LocalKey),
    Command(CommandSigner),
    #[cfg(feature = "pkcs11")]
    Pkcs11(Box<Pkcs11Signer>),
}

impl Signer {
    /// A key from PEM text: PKCS #8 (plain or encrypted), SEC 1 or PKCS #1.
    ///
    /// `certificates` is PEM text too and may be the same text; the certificate of the key is
    /// found among them, whatever their order.
    ///
    /// # Errors
    /// When the text holds no key or several, when the passphrase is missing or wrong, or when no
    /// certificate belongs to the key.
    pub fn from_pem(
        key: &str,
        certificates: &str,
        passphrase: Option<&Passphrase>,
    ) -> Result<Self, Error> {
        let key = pem::private_key(key, passphrase)?;
        let certificates = pem::certificates(certificates)?;
        Self::new(Key::Local(key), certificates)
    }

    /// A key and its certificates from a PKCS #12 file.
    ///
    /// # Errors
    /// When the file cannot be read with this passphrase, or does not hold exactly one key with
    /// its certificate.
    pub fn from_pkcs12(bytes: &[u8], passphrase: &Passphrase) -> Result<Self, Error> {
        let (key, certificates) = pkcs12::read(bytes, passphrase)?;
        Self::new(Key::Local(key), certificates)
    }

    /// An external command that turns a digest into a signature; see [`CommandSigner`].
    ///
    /// # Errors
    /// When `certificates` (PEM) holds no certificate.
    pub fn from_command(command: CommandSigner, certificates: &str) -> Result<Self, Error> {
        Self::new(Key::Command(command), pem::certificates(certificates)?)
    }

    /// A key on a token, reached through PKCS #11. `certificates` is PEM text.
    ///
    /// # Errors
    /// When no certificate belongs to the token's key.
    #[cfg(feature = "pkcs11")]
    pub fn from_pkcs11(token: Pkcs11Signer, certificates: &str) -> Result<Self, Error> {
        Self::new(
            Key::Pkcs11(Box::new(token)),
            pem::certificates(certificates)?,
        )
    }

    fn new(key: Key, mut certificates: Vec<Certificate>) -> Result<Self, Error> {
        let public = match &key {
            Key::Local(local) => Some(local.public_key_info()?),
            // The others cannot be asked; the first signature is held against the certificate.
            Key::Command(_) => None,
            #[cfg(feature = "pkcs11")]
            Key::Pkcs11(_) => None,
        };
        let first = match public {
            None => certificates.iter().position(|c| !c.is_authority()),
            Some(public) => certificates.iter().position(|c| c.has_public_key(&public)),
        };
        let first = first.ok_or_else(|| {
            let reason = format!(
                "none of {} certificates belongs to the key",
                certificates.len()
            );
            Error::key("certificate", reason)
        })?;
        let own = certificates.remove(first);
        certificates.insert(0, own);
        Ok(Self { key, certificates })
    }

    /// The signer's certificate, then the other ones it was given, in DER.
    pub fn certificates(&self) -> impl Iterator<Item = &[u8]> {
        self.certificates.iter().map(Certificate::der)
    }

    pub(crate) fn chain(&self) -> &[Certificate] {
        &self.certificates
    }

    pub(crate) fn certificate(&self) -> &Certificate {
        &self.certificates[0]
    }

    /// Signs `message`, and holds the signature against the certificate before giving it out.
    pub(crate) fn sign(
        &self,
        algorithm: DigestAlgorithm,
        message: &[u8],
    ) -> Result<Vec<u8>, Error> {
        let key = self.certificate().key_algorithm()?;
        let signature = match &self.key {
            Key::Local(local) => local.sign(algorithm, message)?,
            Key::Command(command) => command.sign(key, algorithm, &algorithm.digest(message))?,
            #[cfg(feature = "pkcs11")]
            Key::Pkcs11(token) => token.sign(key, algorithm, &algorithm.digest(message))?,
        };
        checked_value(self.certificate(), algorithm, message, &signature)
            .map_err(|reason| Error::key(self.place(), reason))
    }

    fn place(&self) -> &str {
        match &self.key {
            Key::Local(_) => "private key",
            Key::Command(command) => command.program(),
            #[cfg(feature = "pkcs11")]
            Key::Pkcs11(_) => "PKCS #11 token",
        }
    }
}

/// The signature `value` in the form that certificates use, once it has been found to be one over
/// what was prepared, by the key of its certificate.
pub(crate) fn checked(prepared: &Prepared, value: &[u8]) -> Result<Vec<u8>, Error> {
    let own = prepared.certificates.first();
    let own = own.ok_or_else(|| Error::request("signature", "no certificate"))?;
    checked_value(own, prepared.algorithm(), prepared.message(), value)
        .map_err(|reason| Error::key("signature value", reason))
}

fn checked_value(
    certificate: &Certificate,
    algorithm: DigestAlgorithm,
    message: &[u8],
    value: &[u8],
) -> Result<Vec<u8>, String> {
    let key = certificate
        .key_algorithm()
        .map_err(|error| error.to_string())?;
    let value = algorithm::normalise(key, value.to_vec());
    verify(certificate, algorithm, message, &value).map_err(|_| {
        let subject = certificate.subject();
        format!("not a {key} signature over this {algorithm} digest by the key of {subject}")
    })?;
    Ok(value)
}
