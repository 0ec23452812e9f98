//! The public-key algorithms that are accepted, and checking a signature made with one.

use std::fmt;

use const_oid::ObjectIdentifier;
use p256::ecdsa::signature::hazmat::PrehashVerifier as _;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA384_ASN1, ECDSA_P384_SHA256_ASN1, ECDSA_P384_SHA384_ASN1,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512,
    UnparsedPublicKey, VerificationAlgorithm,
};

use crate::asn1::{self, INTEGER, SEQUENCE};
use crate::certificate::Certificate;
use crate::digest::DigestAlgorithm;
use crate::error::Error;

const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");

/// The kind of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyAlgorithm {
    /// RSA with PKCS #1 v1.5 padding, 2048 bits or more.
    Rsa,
    /// ECDSA on NIST P-256.
    P256,
    /// ECDSA on NIST P-384.
    P384,
}

impl fmt::Display for KeyAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            KeyAlgorithm::Rsa => "RSA",
            KeyAlgorithm::P256 => "ECDSA P-256",
            KeyAlgorithm::P384 => "ECDSA P-384",
        })
    }
}

impl KeyAlgorithm {
    /// The algorithm of a SubjectPublicKeyInfo with this identifier and named curve.
    pub(crate) fn from_oids(
        oid: ObjectIdentifier,
        curve: Option<ObjectIdentifier>,
    ) -> Option<Self> {
        match (oid, curve) {
            (RSA_ENCRYPTION, None) => Some(KeyAlgorithm::Rsa),
            (EC_PUBLIC_KEY, Some(P256)) => Some(KeyAlgorithm::P256),
            (EC_PUBLIC_KEY, Some(P384)) => Some(KeyAlgorithm::P384),
            _ => None,
        }
    }

    /// The identifier that Authenticode writes for a signature by such a key.
    pub(crate) const fn signature_oid(self, digest: DigestAlgorithm) -> ObjectIdentifier {
        match (self, digest) {
            (KeyAlgorithm::Rsa, _) => RSA_ENCRYPTION,
            (_, digest) => ecdsa_with(digest),
        }
    }

    /// The digest that belongs to a key's strength, where nobody chooses one.
    pub(crate) const fn natural_digest(self) -> DigestAlgorithm {
        match self {
            KeyAlgorithm::P384 => DigestAlgorithm::Sha384,
            KeyAlgorithm::Rsa | KeyAlgorithm::P256 => DigestAlgorithm::Sha256,
        }
    }

    /// Whether `oid` names a signature by such a key over such a digest.
    pub(crate) fn accepts(self, oid: &[u8], digest: DigestAlgorithm) -> bool {
        match self {
            KeyAlgorithm::Rsa => {
                oid == RSA_ENCRYPTION.as_bytes() || oid == rsa_with(digest).as_bytes()
            }
            KeyAlgorithm::P256 | KeyAlgorithm::P384 => oid == ecdsa_with(digest).as_bytes(),
        }
    }
}

const fn ecdsa_with(digest: DigestAlgorithm) -> ObjectIdentifier {
    match digest {
        DigestAlgorithm::Sha256 => ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2"),
        DigestAlgorithm::Sha384 => ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.3"),
        DigestAlgorithm::Sha512 => ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.4"),
    }
}

const fn rsa_with(digest: DigestAlgorithm) -> ObjectIdentifier {
    match digest {
        DigestAlgorithm::Sha256 => ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.11"),
        DigestAlgorithm::Sha384 => ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.12"),
        DigestAlgorithm::Sha512 => ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.13"),
    }
}

/// Checks that `signature` over `message` was made with the key of `certificate`.
pub(crate) fn verify(
    certificate: &Certificate,
    digest: DigestAlgorithm,
    message: &[u8],
    signature: &[u8],
) -> Result<(), Error> {
    let key = certificate.key_algorithm()?;
    let public = certificate.public_key();
    let by_ring = |algorithm: &'static dyn VerificationAlgorithm| {
        let key = UnparsedPublicKey::new(algorithm, public);
        key.verify(message, signature).is_ok()
    };
    let made = match (key, digest) {
        (KeyAlgorithm::Rsa, DigestAlgorithm::Sha256) => by_ring(&RSA_PKCS1_2048_8192_SHA256),
        (KeyAlgorithm::Rsa, DigestAlgorithm::Sha384) => by_ring(&RSA_PKCS1_2048_8192_SHA384),
        (KeyAlgorithm::Rsa, DigestAlgorithm::Sha512) => by_ring(&RSA_PKCS1_2048_8192_SHA512),
        (KeyAlgorithm::P256, DigestAlgorithm::Sha256) => by_ring(&ECDSA_P256_SHA256_ASN1),
        (KeyAlgorithm::P256, DigestAlgorithm::Sha384) => by_ring(&ECDSA_P256_SHA384_ASN1),
        (KeyAlgorithm::P384, DigestAlgorithm::Sha256) => by_ring(&ECDSA_P384_SHA256_ASN1),
        (KeyAlgorithm::P384, DigestAlgorithm::Sha384) => by_ring(&ECDSA_P384_SHA384_ASN1),
        // ring has no ECDSA over SHA-512.
        (KeyAlgorithm::P256, DigestAlgorithm::Sha512) => {
            let key = p256::ecdsa::VerifyingKey::from_sec1_bytes(public);
            let signature = p256::ecdsa::Signature::from_der(signature);
            key.and_then(|key| key.verify_prehash(&digest.digest(message), &signature?))
                .is_ok()
        }
        (KeyAlgorithm::P384, DigestAlgorithm::Sha512) => {
            let key = p384::ecdsa::VerifyingKey::from_sec1_bytes(public);
            let signature = p384::ecdsa::Signature::from_der(signature);
            key.and_then(|key| key.verify_prehash(&digest.digest(message), &signature?))
                .is_ok()
        }
    };
    if made {
        return Ok(());
    }
    let expected = format!("one made by {}", certificate.subject());
    Err(Error::untrusted(
        "signature",
        "signature value",
        expected,
        "another one",
    ))
}

/// A signature in the form certificates use. Key services give ECDSA signatures either as that
/// (a SEQUENCE of two integers) or as the two numbers one behind the other.
pub(crate) fn normalise(key: KeyAlgorithm, signature: Vec<u8>) -> Vec<u8> {
    let half = match key {
        KeyAlgorithm::Rsa => return signature,
        KeyAlgorithm::P256 => 32,
        KeyAlgorithm::P384 => 48,
    };
    if signature.len() != 2 * half || asn1::only(&signature, SEQUENCE, "signature").is_ok() {
        return signature;
    }
    let integer = |number: &[u8]| {
        let zeros = number.iter().take_while(|b| **b == 0).count();
        let digits = &number[zeros.min(number.len() - 1)..];
        let sign: &[u8] = if digits[0] >= 0x80 { &[0] } else { &[] };
        asn1::element(INTEGER, &[sign, digits])
    };
    let (r, s) = signature.split_at(half);
    asn1::element(SEQUENCE, &[&integer(r), &integer(s)])
}
