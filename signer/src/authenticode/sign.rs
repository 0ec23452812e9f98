//! Making a signature in two steps: what is to be signed, and what becomes of the signature value.

use cms::cert::{CertificateChoices, IssuerAndSerialNumber};
use cms::content_info::{CmsVersion, ContentInfo};
use cms::signed_data::{
    CertificateSet, EncapsulatedContentInfo, SignedData, SignerIdentifier, SignerInfo, SignerInfos,
};
use const_oid::ObjectIdentifier;
use der::asn1::{GeneralizedTime, OctetString, SetOfVec, UtcTime};
use der::{Any, Decode, Encode, Tag};
use spki::AlgorithmIdentifierOwned;
use x509_cert::attr::Attribute;
use x509_cert::time::Time;

use super::{
    CONTENT_TYPE, INDIRECT_DATA, INDIVIDUAL_CODE_SIGNING, MESSAGE_DIGEST, NESTED_SIGNATURE,
    OPUS_INFO, SIGNED_DATA, SIGNING_TIME, STATEMENT_TYPE, TIME_STAMP_TOKEN,
};
use crate::asn1::{self, SEQUENCE, context, context_primitive};
use crate::certificate::Certificate;
use crate::digest::DigestAlgorithm;
use crate::error::Error;
use crate::time_stamp::TimeStampServer;

/// What to do with a signature that is already there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Existing {
    /// Refuse to sign.
    #[default]
    Refuse,
    /// Put the new one in its place.
    Replace,
    /// Keep it and put the new one inside it, as a second signature.
    Nest,
}

/// How to sign.
#[derive(Clone, Debug, Default)]
pub struct SignOptions {
    /// The digest of the file and of the signed attributes.
    pub digest: DigestAlgorithm,
    /// Whether an image's page hashes are signed too. They take 36 bytes a page.
    pub page_hashes: bool,
    /// The time the signer claims, in seconds since 1970; left out where `None`.
    pub signing_time: Option<u64>,
    /// What the signed file is, as Windows shows it.
    pub description: Option<String>,
    /// Where more can be learned of it.
    pub url: Option<String>,
    /// Where to get a time stamp; none where `None`.
    pub time_stamp: Option<TimeStampServer>,
    /// What to do with a signature that is already there.
    pub existing: Existing,
}

/// What is to be signed, complete but for the signature value. Whoever holds the key signs
/// [`Prepared::digest`] and needs nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepared {
    pub(crate) algorithm: DigestAlgorithm,
    /// DER of the SpcIndirectDataContent.
    pub(crate) content: Vec<u8>,
    /// DER of the signed attributes, as the SET that is signed.
    pub(crate) attributes: Vec<u8>,
    /// The signer's certificate first.
    pub(crate) certificates: Vec<Certificate>,
    pub(crate) nest: bool,
}

impl Prepared {
    /// The algorithm of [`Prepared::digest`].
    pub fn algorithm(&self) -> DigestAlgorithm {
        self.algorithm
    }

    /// The digest that the key must sign.
    pub fn digest(&self) -> Vec<u8> {
        self.algorithm.digest(&self.attributes)
    }

    /// The message whose digest that is.
    pub(crate) fn message(&self) -> &[u8] {
        &self.attributes
    }
}

/// A signature value with what else belongs into the structure.
pub(crate) struct Signature<'a> {
    pub(crate) value: &'a [u8],
    /// DER of the time-stamp token over `value`.
    pub(crate) time_stamp: Option<&'a [u8]>,
}

fn encoding(error: der::Error) -> Error {
    Error::request("signature", format!("cannot be encoded: {error}"))
}

/// Puts together what is to be signed.
pub(crate) fn prepare(
    content: Vec<u8>,
    options: &SignOptions,
    certificates: &[Certificate],
) -> Result<Prepared, Error> {
    let value = asn1::only(&content, SEQUENCE, "SpcIndirectDataContent")?.value;
    let digest = options.digest.digest(value);
    let digest = OctetString::new(digest).map_err(encoding)?;
    let statement = asn1::element(SEQUENCE, &[&asn1::oid(INDIVIDUAL_CODE_SIGNING)]);
    let mut attributes = vec![
        attribute(CONTENT_TYPE, &INDIRECT_DATA)?,
        attribute(MESSAGE_DIGEST, &digest)?,
        attribute(OPUS_INFO, &any(&opus_info(options))?)?,
        attribute(STATEMENT_TYPE, &any(&statement)?)?,
    ];
    if let Some(seconds) = options.signing_time {
        attributes.push(attribute(SIGNING_TIME, &x509_time(seconds)?)?);
    }
    let attributes = SetOfVec::try_from(attributes).map_err(encoding)?;
    Ok(Prepared {
        algorithm: options.digest,
        content,
        attributes: attributes.to_der().map_err(encoding)?,
        certificates: certificates.to_vec(),
        nest: options.existing == Existing::Nest,
    })
}

/// Program name and address, both optional: `SpcSpOpusInfo`.
fn opus_info(options: &SignOptions) -> Vec<u8> {
    let mut parts = Vec::new();
    if let Some(text) = &options.description {
        let text: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
        let string = asn1::element(context_primitive(0), &[&text]);
        parts.extend(asn1::element(context(0), &[&string]));
    }
    if let Some(url) = &options.url {
        let link = asn1::element(context_primitive(0), &[url.as_bytes()]);
        parts.extend(asn1::element(context(1), &[&link]));
    }
    asn1::element(SEQUENCE, &[&parts])
}

/// The time as certificates write it: two-digit years up to 2049.
pub(crate) fn x509_time(seconds: u64) -> Result<Time, Error> {
    let duration = std::time::Duration::from_secs(seconds);
    let time = match UtcTime::from_unix_duration(duration) {
        Ok(time) => Time::UtcTime(time),
        Err(_) => {
            Time::GeneralTime(GeneralizedTime::from_unix_duration(duration).map_err(encoding)?)
        }
    };
    Ok(time)
}

fn any(der: &[u8]) -> Result<Any, Error> {
    Any::from_der(der).map_err(encoding)
}

fn attribute(oid: ObjectIdentifier, value: &impl Encode) -> Result<Attribute, Error> {
    let value = any(&value.to_der().map_err(encoding)?)?;
    Ok(Attribute {
        oid,
        values: SetOfVec::try_from(vec![value]).map_err(encoding)?,
    })
}

/// The DER of the whole signature: a ContentInfo with SignedData version 1.
pub(crate) fn assemble(prepared: &Prepared, signature: &Signature<'_>) -> Result<Vec<u8>, Error> {
    let own = prepared
        .certificates
        .first()
        .ok_or_else(|| Error::request("signature", "no certificate"))?;
    let tbs = &own.fields().tbs_certificate;
    let null = || Any::new(Tag::Null, Vec::new()).map_err(encoding);
    let digest_algorithm = AlgorithmIdentifierOwned {
        oid: prepared.algorithm.oid(),
        parameters: Some(null()?),
    };
    let key = own.key_algorithm()?;
    let parameters = match key {
        crate::keys::KeyAlgorithm::Rsa => Some(null()?),
        _ => None,
    };
    let unsigned = signature
        .time_stamp
        .map(|token| -> Result<_, Error> {
            let attribute = attribute(TIME_STAMP_TOKEN, &any(token)?)?;
            SetOfVec::try_from(vec![attribute]).map_err(encoding)
        })
        .transpose()?;
    let info = SignerInfo {
        version: CmsVersion::V1,
        sid: SignerIdentifier::IssuerAndSerialNumber(IssuerAndSerialNumber {
            issuer: tbs.issuer.clone(),
            serial_number: tbs.serial_number.clone(),
        }),
        digest_alg: digest_algorithm.clone(),
        signed_attrs: Some(SetOfVec::from_der(&prepared.attributes).map_err(encoding)?),
        signature_algorithm: AlgorithmIdentifierOwned {
            oid: key.signature_oid(prepared.algorithm),
            parameters,
        },
        signature: OctetString::new(signature.value).map_err(encoding)?,
        unsigned_attrs: unsigned,
    };
    let certificates: Vec<_> = prepared
        .certificates
        .iter()
        .map(|c| CertificateChoices::Certificate(c.fields().clone()))
        .collect();
    let signed = SignedData {
        version: CmsVersion::V1,
        digest_algorithms: SetOfVec::try_from(vec![digest_algorithm]).map_err(encoding)?,
        encap_content_info: EncapsulatedContentInfo {
            econtent_type: INDIRECT_DATA,
            econtent: Some(any(&prepared.content)?),
        },
        certificates: Some(CertificateSet(
            SetOfVec::try_from(certificates).map_err(encoding)?,
        )),
        crls: None,
        signer_infos: SignerInfos(SetOfVec::try_from(vec![info]).map_err(encoding)?),
    };
    content_info(&signed)
}

fn content_info(signed: &SignedData) -> Result<Vec<u8>, Error> {
    let info = ContentInfo {
        content_type: SIGNED_DATA,
        content: any(&signed.to_der().map_err(encoding)?)?,
    };
    info.to_der().map_err(encoding)
}

/// Puts the signature `inner` into `outer` as an unsigned attribute. The outer signature does not
/// cover it, and stays valid.
pub(crate) fn nest(outer: &[u8], inner: &[u8]) -> Result<Vec<u8>, Error> {
    let info = ContentInfo::from_der(outer).map_err(encoding)?;
    let mut signed: SignedData = info.content.decode_as().map_err(encoding)?;
    let infos = signed.signer_infos.0.as_slice();
    let [signer] = infos else {
        let found = infos.len().to_string();
        return Err(Error::format("SignedData: signerInfos", "one", found));
    };
    let mut signer = signer.clone();
    let mut attributes: Vec<Attribute> = Vec::new();
    let mut values = vec![any(inner)?];
    for attribute in signer.unsigned_attrs.iter().flat_map(|set| set.iter()) {
        if attribute.oid == NESTED_SIGNATURE {
            values.extend(attribute.values.iter().cloned());
        } else {
            attributes.push(attribute.clone());
        }
    }
    attributes.push(Attribute {
        oid: NESTED_SIGNATURE,
        values: SetOfVec::try_from(values).map_err(encoding)?,
    });
    signer.unsigned_attrs = Some(SetOfVec::try_from(attributes).map_err(encoding)?);
    signed.signer_infos = SignerInfos(SetOfVec::try_from(vec![signer]).map_err(encoding)?);
    content_info(&signed)
}
