//! Verifying a time-stamp token.

use const_oid::ObjectIdentifier;
use ring::digest::SHA1_FOR_LEGACY_USE_ONLY;

use crate::asn1::{
    self, BOOLEAN, Element, GENERALIZED_TIME, INTEGER, OCTET_STRING, OID, SEQUENCE, context,
};
use crate::authenticode::accepted_digest;
use crate::certificate::Certificate;
use crate::digest::hex;
use crate::error::Error;
use crate::signed_data::SignedData;
use crate::trust::{Chain, Purpose, Trust, check_chain};

const TST_INFO: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.16.1.4");
const SIGNING_CERTIFICATE: ObjectIdentifier =
    ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.16.2.12");
const SIGNING_CERTIFICATE_V2: ObjectIdentifier =
    ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.16.2.47");
/// How far ahead of ours a server's clock may be.
const CLOCK_TOLERANCE: u64 = 300;

/// A verified time stamp.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct TimeStamp {
    /// The time, as `YYYY-MM-DDThh:mm:ssZ`.
    pub time: String,
    /// The same in seconds since 1970.
    pub seconds: u64,
    /// Subject of the certificate that signed it.
    pub authority: String,
    /// The server's serial number for it, in hexadecimal.
    pub serial: String,
    /// The number the request carried, in hexadecimal.
    pub nonce: Option<String>,
}

/// Verifies that `token` is a time stamp over `signed`, the signature value. Without `trust` the
/// chain is not looked at.
pub(crate) fn verify_token(
    token: &[u8],
    signed: &[u8],
    trust: Option<&Trust>,
) -> Result<TimeStamp, Error> {
    let place = "time stamp";
    let data = SignedData::parse(token, 3, place)?;
    if data.content.tag != OCTET_STRING {
        let found = format!("tag {:#04x}", data.content.tag);
        return Err(Error::format(place, "an OCTET STRING", found));
    }
    let info = parse_info(data.content.value, signed)?;
    data.check(TST_INFO)?;
    check_certificate_id(&data)?;
    if !data.unsigned.is_empty() {
        let found = asn1::oid_text(data.unsigned[0].oid);
        return Err(Error::format(place, "no unsigned attributes", found));
    }
    let Some(trust) = trust else {
        return Ok(info.named(data.certificate()));
    };
    if info.seconds > trust.now.saturating_add(CLOCK_TOLERANCE) {
        let expected = format!("not after {}", crate::time::format(trust.now));
        return Err(Error::untrusted(place, "time", expected, info.time));
    }
    let anchors = if trust.time_stamp_anchors.is_empty() {
        &trust.anchors
    } else {
        &trust.time_stamp_anchors
    };
    let chain = Chain {
        certificates: &data.certificates,
        signer: data.signer,
        time: info.seconds,
        purpose: Purpose::TimeStamping,
        place,
    };
    check_chain(chain, anchors)?;
    Ok(info.named(data.certificate()))
}

impl TimeStamp {
    fn named(mut self, certificate: &Certificate) -> Self {
        self.authority = certificate.subject();
        self
    }
}

/// Reads a TSTInfo and holds its imprint against the signature value.
fn parse_info(der: &[u8], signed: &[u8]) -> Result<TimeStamp, Error> {
    let mut info = asn1::only(der, SEQUENCE, "TSTInfo")?.children("TSTInfo");
    info.version(1)?;
    info.expect(OID, "policy")?;
    let mut imprint = info.sequence("messageImprint")?;
    let (oid, parameters) = asn1::algorithm(&mut imprint, "hash algorithm")?;
    let algorithm = accepted_digest(oid, parameters.is_some(), "time stamp")?;
    let digest = imprint.expect(OCTET_STRING, "hashed message")?.value;
    imprint.finish()?;
    let actual = algorithm.digest(signed);
    if digest != actual {
        let what = "digest of the time-stamped signature";
        return Err(Error::untrusted(
            "time stamp",
            what,
            hex(digest),
            hex(&actual),
        ));
    }
    let serial = hex(info.expect(INTEGER, "serial number")?.value);
    let seconds = crate::time::parse(info.expect(GENERALIZED_TIME, "time")?)?;
    info.optional(SEQUENCE, "accuracy")?;
    info.optional(BOOLEAN, "ordering")?;
    let nonce = info.optional(INTEGER, "nonce")?.map(|n| hex(n.value));
    info.optional(context(0), "authority")?;
    info.optional(context(1), "extensions")?;
    info.finish()?;
    Ok(TimeStamp {
        time: crate::time::format(seconds),
        seconds,
        authority: String::new(),
        serial,
        nonce,
    })
}

/// The signed attribute that ties the token to one certificate (RFC 2634 with SHA-1, RFC 5035
/// with a digest of choice). Without it a certificate of the same key could be put in its place.
fn check_certificate_id(data: &SignedData<'_>) -> Result<(), Error> {
    let place = "time stamp: signing certificate";
    let own = data.certificate().der();
    let v2 = data.signed(SIGNING_CERTIFICATE_V2, SEQUENCE)?;
    let v1 = data.signed(SIGNING_CERTIFICATE, SEQUENCE)?;
    let first = |element: Element<'_>| -> Result<(Vec<u8>, Vec<u8>), Error> {
        let mut list = element
            .children("signing certificate")
            .sequence("certificate ids")?;
        let mut id = list.sequence("certificate id")?;
        let actual = match id.peek() {
            Some(SEQUENCE) => {
                let (oid, parameters) = asn1::algorithm(&mut id, "hash algorithm")?;
                accepted_digest(oid, parameters.is_some(), place)?.digest(own)
            }
            _ if v2.is_some() => crate::digest::sha256(own).to_vec(),
            // The digest is itself signed; SHA-1 here only repeats what issuer and serial say.
            _ => ring::digest::digest(&SHA1_FOR_LEGACY_USE_ONLY, own)
                .as_ref()
                .to_vec(),
        };
        Ok((
            id.expect(OCTET_STRING, "certificate hash")?.value.to_vec(),
            actual,
        ))
    };
    let element = v2.or(v1).ok_or_else(|| {
        Error::format(
            place,
            "a signed attribute that names the certificate",
            "none",
        )
    })?;
    let (named, actual) = first(element)?;
    if named != actual {
        let what = "digest of the certificate";
        return Err(Error::untrusted(place, what, hex(&named), hex(&actual)));
    }
    Ok(())
}
