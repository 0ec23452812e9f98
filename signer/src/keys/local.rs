//! A private key in memory.

use std::fmt;

use p256::ecdsa::signature::hazmat::PrehashSigner;
use pkcs8::{DecodePrivateKey, EncodePublicKey};
use ring::rand::SystemRandom;
use ring::signature::{KeyPair, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RsaKeyPair};

use crate::asn1::{self, BIT_STRING, NULL, SEQUENCE};
use crate::digest::DigestAlgorithm;
use crate::error::Error;

/// A private key read from a file. Both kinds of signature it makes are deterministic: PKCS #1
/// v1.5 by nature, ECDSA by RFC 6979.
pub(crate) struct LocalKey(Kind);

enum Kind {
    Rsa(RsaKeyPair),
    P256(p256::ecdsa::SigningKey),
    P384(p384::ecdsa::SigningKey),
}

impl fmt::Debug for LocalKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Kind::Rsa(_) => "LocalKey(RSA)",
            Kind::P256(_) => "LocalKey(P-256)",
            Kind::P384(_) => "LocalKey(P-384)",
        })
    }
}

const PLACE: &str = "private key";

impl LocalKey {
    /// A key in PKCS #8 (DER).
    pub(crate) fn from_pkcs8(der: &[u8]) -> Result<Self, Error> {
        if let Ok(key) = p256::ecdsa::SigningKey::from_pkcs8_der(der) {
            return Ok(LocalKey(Kind::P256(key)));
        }
        if let Ok(key) = p384::ecdsa::SigningKey::from_pkcs8_der(der) {
            return Ok(LocalKey(Kind::P384(key)));
        }
        RsaKeyPair::from_pkcs8(der)
            .map(|key| LocalKey(Kind::Rsa(key)))
            .map_err(|reason| {
                let expected = "RSA of 2048 to 4096 bits, ECDSA P-256 or P-384";
                Error::key(
                    PLACE,
                    format!("not a key of a usable kind ({expected}): {reason}"),
                )
            })
    }

    /// A key in SEC 1 form (`EC PRIVATE KEY`).
    pub(crate) fn from_sec1(der: &[u8]) -> Result<Self, Error> {
        if let Ok(key) = p256::SecretKey::from_sec1_der(der) {
            return Ok(LocalKey(Kind::P256(key.into())));
        }
        p384::SecretKey::from_sec1_der(der)
            .map(|key| LocalKey(Kind::P384(key.into())))
            .map_err(|_| Error::key(PLACE, "not a P-256 or P-384 key"))
    }

    /// A key in PKCS #1 form (`RSA PRIVATE KEY`).
    pub(crate) fn from_pkcs1(der: &[u8]) -> Result<Self, Error> {
        RsaKeyPair::from_der(der)
            .map(|key| LocalKey(Kind::Rsa(key)))
            .map_err(|reason| Error::key(PLACE, format!("not a usable RSA key: {reason}")))
    }

    pub(crate) fn from_p256(key: p256::SecretKey) -> Self {
        LocalKey(Kind::P256(key.into()))
    }

    /// The DER of the SubjectPublicKeyInfo.
    pub(crate) fn public_key_info(&self) -> Result<Vec<u8>, Error> {
        let document = match &self.0 {
            Kind::Rsa(key) => {
                let null = asn1::element(NULL, &[]);
                let oid = super::KeyAlgorithm::Rsa.signature_oid(DigestAlgorithm::Sha256);
                let algorithm = asn1::element(SEQUENCE, &[&asn1::oid(oid), &null]);
                let bits = asn1::element(BIT_STRING, &[&[0], key.public_key().as_ref()]);
                return Ok(asn1::element(SEQUENCE, &[&algorithm, &bits]));
            }
            Kind::P256(key) => key.verifying_key().to_public_key_der(),
            Kind::P384(key) => key.verifying_key().to_public_key_der(),
        };
        document
            .map(|document| document.as_bytes().to_vec())
            .map_err(|error| Error::key(PLACE, error.to_string()))
    }

    /// Signs `message`.
    pub(crate) fn sign(&self, digest: DigestAlgorithm, message: &[u8]) -> Result<Vec<u8>, Error> {
        let failed = |error: &dyn fmt::Display| Error::key(PLACE, format!("cannot sign: {error}"));
        match &self.0 {
            Kind::Rsa(key) => {
                let padding: &dyn ring::signature::RsaEncoding = match digest {
                    DigestAlgorithm::Sha256 => &RSA_PKCS1_SHA256,
                    DigestAlgorithm::Sha384 => &RSA_PKCS1_SHA384,
                    DigestAlgorithm::Sha512 => &RSA_PKCS1_SHA512,
                };
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(padding, &SystemRandom::new(), message, &mut signature)
                    .map_err(|error| failed(&error))?;
                Ok(signature)
            }
            Kind::P256(key) => {
                let signature: Result<p256::ecdsa::Signature, _> =
                    key.sign_prehash(&digest.digest(message));
                let signature = signature.map_err(|error| failed(&error))?;
                Ok(signature.to_der().as_bytes().to_vec())
            }
            Kind::P384(key) => {
                let signature: Result<p384::ecdsa::Signature, _> =
                    key.sign_prehash(&digest.digest(message));
                let signature = signature.map_err(|error| failed(&error))?;
                Ok(signature.to_der().as_bytes().to_vec())
            }
        }
    }
}
