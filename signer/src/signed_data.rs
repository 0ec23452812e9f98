//! Reading a CMS `SignedData` with exactly one signer, and checking its signature value.
//!
//! Authenticode signatures and time-stamp tokens are both of this form. Everything in it is either
//! covered by the signature or compared with what is; a field that is neither (lists of revoked
//! certificates, unknown versions) is refused, so that no byte of it can be changed unnoticed.

use const_oid::ObjectIdentifier;

use crate::asn1::{self, Element, INTEGER, OCTET_STRING, OID, SEQUENCE, SET, context};
use crate::authenticode::{
    CONTENT_TYPE, MESSAGE_DIGEST, SIGNED_DATA, SIGNING_TIME, accepted_digest,
};
use crate::certificate::Certificate;
use crate::digest::{DigestAlgorithm, hex};
use crate::error::Error;
use crate::keys;

/// More certificates than any chain has.
const MAX_CERTIFICATES: usize = 32;
/// More attributes than any signer has.
const MAX_ATTRIBUTES: usize = 32;

/// One attribute: its type's object identifier and its values.
#[derive(Clone, Debug)]
pub(crate) struct Attribute<'a> {
    pub(crate) oid: &'a [u8],
    pub(crate) values: Vec<Element<'a>>,
}

/// A parsed signature.
#[derive(Debug)]
pub(crate) struct SignedData<'a> {
    place: &'static str,
    content_type: &'a [u8],
    /// The element inside `eContent`.
    pub(crate) content: Element<'a>,
    pub(crate) certificates: Vec<Certificate>,
    /// Index of the signer's own certificate.
    pub(crate) signer: usize,
    pub(crate) algorithm: DigestAlgorithm,
    /// The signed attributes as they were signed: with the tag of a SET.
    message: Vec<u8>,
    pub(crate) attributes: Vec<Attribute<'a>>,
    pub(crate) unsigned: Vec<Attribute<'a>>,
    pub(crate) signature: &'a [u8],
}

impl<'a> SignedData<'a> {
    /// Reads the DER of a ContentInfo. `version` is the one SignedData must have.
    pub(crate) fn parse(der: &'a [u8], version: u8, place: &'static str) -> Result<Self, Error> {
        let mut info = asn1::only(der, SEQUENCE, place)?.children("ContentInfo");
        expect_oid(
            info.expect(OID, "content type")?.value,
            SIGNED_DATA,
            "ContentInfo",
        )?;
        let mut explicit = info.expect(context(0), "content")?.children("ContentInfo");
        info.finish()?;
        let mut data = explicit.sequence("SignedData")?;
        explicit.finish()?;

        data.version(version)?;
        let mut algorithms = data
            .expect(SET, "digestAlgorithms")?
            .children("digestAlgorithms");
        let algorithm = digest_algorithm(&mut algorithms)?;
        algorithms.finish()?;
        let mut encapsulated = data.sequence("EncapsulatedContentInfo")?;
        let content_type = encapsulated.expect(OID, "content type")?.value;
        let mut inner = encapsulated
            .expect(context(0), "content")?
            .children("eContent");
        encapsulated.finish()?;
        let content = inner.any("content")?;
        inner.finish()?;
        let bag = data.expect(context(0), "certificates")?;
        let certificates = certificates(bag)?;
        let mut infos = data.expect(SET, "signerInfos")?.children("signerInfos");
        data.finish()?;

        let mut signer = infos.sequence("SignerInfo")?;
        infos.finish()?;
        signer.version(1)?;
        let own = signer_certificate(&mut signer, &certificates)?;
        if digest_algorithm(&mut signer)? != algorithm {
            let what = "digest algorithms of SignedData and SignerInfo";
            return Err(Error::untrusted(place, what, "the same", "different ones"));
        }
        let attributes = signer.expect(context(0), "signed attributes")?;
        let mut message = attributes.whole.to_vec();
        message[0] = SET;
        let (oid, parameters) = asn1::algorithm(&mut signer, "signature algorithm")?;
        let key = certificates[own].key_algorithm()?;
        if parameters.is_some() || !key.accepts(oid, algorithm) {
            let expected = format!("one of {key} with {algorithm}");
            let found = asn1::oid_text(oid);
            return Err(Error::untrusted(
                place,
                "signature algorithm",
                expected,
                found,
            ));
        }
        let signature = signer.expect(OCTET_STRING, "signature")?.value;
        let unsigned = signer.optional(context(1), "unsigned attributes")?;
        signer.finish()?;
        Ok(Self {
            place,
            content_type,
            content,
            certificates,
            signer: own,
            algorithm,
            message,
            attributes: read_attributes(attributes)?,
            unsigned: unsigned.map_or(Ok(Vec::new()), read_attributes)?,
            signature,
        })
    }

    /// The signer's certificate.
    pub(crate) fn certificate(&self) -> &Certificate {
        &self.certificates[self.signer]
    }

    /// Checks that the content is of type `content_type`, that the signed attributes name it and
    /// its digest, and that the signature value was made over them with the signer's key.
    pub(crate) fn check(&self, content_type: ObjectIdentifier) -> Result<(), Error> {
        let place = format!("{}: content type", self.place);
        expect_oid(self.content_type, content_type, &place)?;
        let named = self
            .signed(CONTENT_TYPE, OID)?
            .ok_or_else(|| self.missing("content type"))?;
        expect_oid(named.value, content_type, &format!("{place} attribute"))?;
        let digest = self
            .signed(MESSAGE_DIGEST, OCTET_STRING)?
            .ok_or_else(|| self.missing("message digest"))?;
        let actual = self.algorithm.digest(self.content.value);
        if digest.value != actual {
            let found = hex(&actual);
            let what = "digest of the signed content";
            return Err(Error::untrusted(self.place, what, hex(digest.value), found));
        }
        keys::verify(
            self.certificate(),
            self.algorithm,
            &self.message,
            self.signature,
        )
        .map_err(|error| match error {
            Error::Untrusted {
                what,
                expected,
                found,
                ..
            } => Error::untrusted(self.place, what, expected, found),
            other => other,
        })
    }

    /// The one value of the signed attribute `oid`, which must carry `tag`.
    pub(crate) fn signed(
        &self,
        oid: ObjectIdentifier,
        tag: u8,
    ) -> Result<Option<Element<'a>>, Error> {
        let Some(attribute) = self.attributes.iter().find(|a| a.oid == oid.as_bytes()) else {
            return Ok(None);
        };
        match attribute.values.as_slice() {
            [value] if value.tag == tag => Ok(Some(*value)),
            _ => {
                let place = format!("{}: attribute {oid}", self.place);
                Err(Error::format(
                    place,
                    format!("one value with tag {tag:#04x}"),
                    "another",
                ))
            }
        }
    }

    /// The time the signer claims, in seconds since 1970.
    pub(crate) fn signing_time(&self) -> Result<Option<u64>, Error> {
        let attribute = self
            .attributes
            .iter()
            .find(|a| a.oid == SIGNING_TIME.as_bytes());
        let value = attribute.and_then(|a| a.values.first());
        value.map(|v| crate::time::parse(*v)).transpose()
    }

    fn missing(&self, what: &str) -> Error {
        Error::format(
            self.place,
            format!("a signed attribute with the {what}"),
            "none",
        )
    }
}

fn expect_oid(found: &[u8], expected: ObjectIdentifier, place: &str) -> Result<(), Error> {
    if found == expected.as_bytes() {
        return Ok(());
    }
    Err(Error::format(
        place,
        expected.to_string(),
        asn1::oid_text(found),
    ))
}

fn digest_algorithm(elements: &mut asn1::Elements<'_>) -> Result<DigestAlgorithm, Error> {
    let place = elements.place();
    let (oid, parameters) = asn1::algorithm(elements, "digest algorithm")?;
    accepted_digest(oid, parameters.is_some(), place)
}

fn certificates(bag: Element<'_>) -> Result<Vec<Certificate>, Error> {
    let mut elements = bag.children("certificates");
    let mut certificates: Vec<Certificate> = Vec::new();
    while !elements.is_empty() {
        let element = elements.expect(SEQUENCE, "certificate")?;
        let certificate = Certificate::from_der(element.whole)?;
        if certificates.contains(&certificate) || certificates.len() == MAX_CERTIFICATES {
            let expected = format!("at most {MAX_CERTIFICATES} certificates, each once");
            return Err(Error::format(
                "certificates",
                expected,
                certificate.subject(),
            ));
        }
        certificates.push(certificate);
    }
    Ok(certificates)
}

fn signer_certificate(
    signer: &mut asn1::Elements<'_>,
    certificates: &[Certificate],
) -> Result<usize, Error> {
    let mut id = signer.sequence("issuerAndSerialNumber")?;
    let issuer = id.expect(SEQUENCE, "issuer")?.whole;
    let serial = id.expect(INTEGER, "serial number")?.value;
    id.finish()?;
    let mut named = (0..certificates.len()).filter(|i| certificates[*i].is_named(issuer, serial));
    match (named.next(), named.next()) {
        (Some(index), None) => Ok(index),
        _ => {
            let expected = format!("one certificate with serial number {}", hex(serial));
            let found = "none or several";
            Err(Error::format(
                "SignerInfo: issuerAndSerialNumber",
                expected,
                found,
            ))
        }
    }
}

fn read_attributes(set: Element<'_>) -> Result<Vec<Attribute<'_>>, Error> {
    let mut elements = set.children("attributes");
    let mut attributes: Vec<Attribute<'_>> = Vec::new();
    while !elements.is_empty() {
        let mut attribute = elements.sequence("attribute")?;
        let oid = attribute.expect(OID, "type")?.value;
        let mut inner = attribute.expect(SET, "values")?.children("attribute");
        attribute.finish()?;
        let mut values = Vec::new();
        while !inner.is_empty() {
            values.push(inner.any("value")?);
        }
        let repeated = attributes.iter().any(|a| a.oid == oid);
        if repeated || values.is_empty() || attributes.len().max(values.len()) > MAX_ATTRIBUTES {
            let expected = "each attribute once, with a value";
            return Err(Error::format("attributes", expected, asn1::oid_text(oid)));
        }
        attributes.push(Attribute { oid, values });
    }
    Ok(attributes)
}
