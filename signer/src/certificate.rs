//! X.509 certificates: the decoded fields, and the bytes they came from.

use std::fmt;

use const_oid::ObjectIdentifier;
use const_oid::db::rfc5280::{ID_CE_BASIC_CONSTRAINTS, ID_CE_EXT_KEY_USAGE, ID_CE_KEY_USAGE};
use der::asn1::BitString;
use der::{Decode, Encode};
use x509_cert::ext::pkix::{BasicConstraints, ExtendedKeyUsage, KeyUsage};

use crate::digest::{hex, sha256};
use crate::error::Error;
use crate::keys::KeyAlgorithm;

/// A certificate.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificate {
    der: Vec<u8>,
    fields: x509_cert::Certificate,
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Certificate({})", self.subject())
    }
}

impl Certificate {
    /// Reads one certificate.
    ///
    /// # Errors
    /// When the bytes are no certificate in DER. One whose decoded form encodes to other bytes is
    /// refused: what was looked at would not be what was signed.
    pub fn from_der(der: &[u8]) -> Result<Self, Error> {
        let fields = x509_cert::Certificate::from_der(der)
            .map_err(|error| Error::format("certificate", "X.509 in DER", error.to_string()))?;
        if fields.to_der().ok().as_deref() != Some(der) {
            return Err(Error::format(
                "certificate",
                "X.509 in DER",
                "another encoding",
            ));
        }
        let certificate = Self {
            der: der.to_vec(),
            fields,
        };
        certificate.check_extensions()?;
        Ok(certificate)
    }

    /// Each extension may stand once, and the ones that decide must be readable; one that is not
    /// would otherwise count as absent.
    fn check_extensions(&self) -> Result<(), Error> {
        let extensions = self.fields.tbs_certificate.extensions.iter().flatten();
        let mut seen = Vec::new();
        for extension in extensions {
            let value = extension.extn_value.as_bytes();
            let readable = match extension.extn_id {
                ID_CE_BASIC_CONSTRAINTS => BasicConstraints::from_der(value).is_ok(),
                ID_CE_KEY_USAGE => KeyUsage::from_der(value).is_ok(),
                ID_CE_EXT_KEY_USAGE => ExtendedKeyUsage::from_der(value).is_ok(),
                _ => true,
            };
            if !readable || seen.contains(&extension.extn_id) {
                let place = format!("certificate {}: extension", self.subject());
                let found = format!("{} twice or malformed", extension.extn_id);
                return Err(Error::format(
                    place,
                    "well-formed extensions, each once",
                    found,
                ));
            }
            seen.push(extension.extn_id);
        }
        Ok(())
    }

    /// Reads every certificate in PEM text; at least one.
    ///
    /// # Errors
    /// When the text holds none, or one cannot be read.
    pub fn from_pem(text: &str) -> Result<Vec<Self>, Error> {
        crate::keys::certificates(text)
    }

    /// The encoded certificate.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// SHA-256 of the encoded certificate, the value that signers are pinned by.
    pub fn fingerprint(&self) -> [u8; 32] {
        sha256(&self.der)
    }

    /// The subject's name in RFC 4514 form.
    pub fn subject(&self) -> String {
        self.fields.tbs_certificate.subject.to_string()
    }

    /// The issuer's name in RFC 4514 form.
    pub fn issuer(&self) -> String {
        self.fields.tbs_certificate.issuer.to_string()
    }

    /// The serial number, in hexadecimal.
    pub fn serial(&self) -> String {
        hex(self.fields.tbs_certificate.serial_number.as_bytes())
    }

    /// First and last second of validity, in seconds since 1970.
    pub fn validity(&self) -> (u64, u64) {
        let validity = &self.fields.tbs_certificate.validity;
        let seconds = |time: &x509_cert::time::Time| time.to_unix_duration().as_secs();
        (seconds(&validity.not_before), seconds(&validity.not_after))
    }

    pub(crate) fn fields(&self) -> &x509_cert::Certificate {
        &self.fields
    }

    /// Whether this certificate has the issuer (encoded name) and serial number (contents of the
    /// INTEGER) that a signature names.
    pub(crate) fn is_named(&self, issuer: &[u8], serial: &[u8]) -> bool {
        let tbs = &self.fields.tbs_certificate;
        tbs.issuer.to_der().is_ok_and(|name| name == issuer)
            && without_zeros(tbs.serial_number.as_bytes()) == without_zeros(serial)
    }

    /// The bits of the public key.
    pub(crate) fn public_key(&self) -> &[u8] {
        let bits: &BitString = &self
            .fields
            .tbs_certificate
            .subject_public_key_info
            .subject_public_key;
        bits.raw_bytes()
    }

    /// Whether the encoded SubjectPublicKeyInfo is `info`.
    pub(crate) fn has_public_key(&self, info: &[u8]) -> bool {
        let own = self.fields.tbs_certificate.subject_public_key_info.to_der();
        own.is_ok_and(|own| own == info)
    }

    pub(crate) fn key_algorithm(&self) -> Result<KeyAlgorithm, Error> {
        let algorithm = &self
            .fields
            .tbs_certificate
            .subject_public_key_info
            .algorithm;
        let curve = algorithm
            .parameters
            .as_ref()
            .and_then(|p| p.decode_as::<ObjectIdentifier>().ok());
        KeyAlgorithm::from_oids(algorithm.oid, curve).ok_or_else(|| {
            let place = format!("certificate {}", self.subject());
            let found = algorithm.oid.to_string();
            Error::untrusted(place, "key", "RSA, ECDSA P-256 or P-384", found)
        })
    }

    /// Whether the certificate may issue others.
    pub(crate) fn is_authority(&self) -> bool {
        self.extension::<BasicConstraints>(ID_CE_BASIC_CONSTRAINTS)
            .is_some_and(|(_, constraints)| constraints.ca)
    }

    /// Whether the key may make signatures that are not on certificates.
    pub(crate) fn may_sign(&self) -> bool {
        self.extension::<KeyUsage>(ID_CE_KEY_USAGE)
            .is_none_or(|(_, usage)| usage.digital_signature() || usage.non_repudiation())
    }

    /// Whether the extended key usage is there and names `purpose`; with `alone`, it must be
    /// critical and name nothing else.
    pub(crate) fn has_purpose(&self, purpose: ObjectIdentifier, alone: bool) -> bool {
        self.extension::<ExtendedKeyUsage>(ID_CE_EXT_KEY_USAGE)
            .is_some_and(|(critical, usage)| {
                usage.0.contains(&purpose) && (!alone || (critical && usage.0.len() == 1))
            })
    }

    fn extension<'a, T: Decode<'a>>(&'a self, oid: ObjectIdentifier) -> Option<(bool, T)> {
        let extensions = self.fields.tbs_certificate.extensions.as_ref()?;
        let extension = extensions.iter().find(|e| e.extn_id == oid)?;
        let value = T::from_der(extension.extn_value.as_bytes()).ok()?;
        Some((extension.critical, value))
    }
}

fn without_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|b| **b == 0).count();
    &number[zeros..]
}
