//! Verifying one Authenticode signature and the ones nested in it.

use super::content::{Content, parse as parse_content};
use super::{INDIRECT_DATA, NESTED_SIGNATURE, TIME_STAMP_TOKEN};
use crate::digest::hex;
use crate::error::Error;
use crate::signed_data::SignedData;
use crate::time_stamp::{TimeStamp, verify_token};
use crate::trust::{Chain, Checks, Purpose, Trust, check_chain, check_pin};

/// A nested signature inside a nested one is refused, and so are more than this side by side.
const MAX_NESTED: usize = 4;

/// Who signed, and when.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct SignerFacts {
    /// Subject of the signer's certificate.
    pub subject: String,
    /// Its issuer.
    pub issuer: String,
    /// Its serial number, in hexadecimal.
    pub serial: String,
    /// SHA-256 of the certificate, in hexadecimal.
    pub fingerprint: String,
    /// Digest algorithm of the signature.
    pub digest_algorithm: &'static str,
    /// The digest of the file that was signed, in hexadecimal.
    pub digest: String,
    /// The time the signer claims; not proof of anything.
    pub signing_time: Option<String>,
    /// The time a trusted third party saw the signature.
    pub time_stamp: Option<TimeStamp>,
    /// Whether page hashes are signed.
    pub page_hashes: bool,
    /// Whether this signature stands inside another one.
    pub nested: bool,
}

/// Verifies the signature `der` and those nested in it. `matches` holds what is signed against
/// the file. Without `trust` only the signature values and digests are checked, as a signer does
/// with its own work.
pub(crate) fn verify(
    der: &[u8],
    trust: Option<&Trust>,
    checks: &mut Checks,
    matches: &dyn Fn(&Content) -> Result<(), Error>,
) -> Result<Vec<SignerFacts>, Error> {
    let (facts, nested) = verify_one(der, "signature", trust, checks, matches)?;
    let mut all = vec![facts];
    for der in nested {
        let place = "nested signature";
        let (mut facts, deeper) = verify_one(der, place, trust, checks, matches)?;
        if !deeper.is_empty() {
            return Err(Error::format(place, "no signature inside it", "one"));
        }
        facts.nested = true;
        all.push(facts);
    }
    if let Some(trust) = trust.filter(|trust| !trust.pinned.is_empty()) {
        checks.add(
            "signature",
            format!("signer is one of {} pinned", trust.pinned.len()),
        );
    }
    Ok(all)
}

fn verify_one<'a>(
    der: &'a [u8],
    place: &'static str,
    trust: Option<&Trust>,
    checks: &mut Checks,
    matches: &dyn Fn(&Content) -> Result<(), Error>,
) -> Result<(SignerFacts, Vec<&'a [u8]>), Error> {
    let signed = SignedData::parse(der, 1, place)?;
    let content = parse_content(signed.content.whole)?;
    if content.algorithm != signed.algorithm {
        let expected = signed.algorithm.name();
        let found = content.algorithm.name();
        return Err(Error::untrusted(
            place,
            "digest algorithm of the file",
            expected,
            found,
        ));
    }
    // The digest first: it is what a damaged or changed file fails, and needs no public key.
    matches(&content)?;
    checks.add(
        place,
        format!("{} of the file is the signed one", content.algorithm),
    );
    signed.check(INDIRECT_DATA)?;
    let certificate = signed.certificate();
    checks.add(
        place,
        format!("signed with the key of {}", certificate.subject()),
    );

    let mut token = None;
    let mut nested = Vec::new();
    for attribute in &signed.unsigned {
        if attribute.oid == TIME_STAMP_TOKEN.as_bytes() && attribute.values.len() == 1 {
            token = Some(attribute.values[0].whole);
        } else if attribute.oid == NESTED_SIGNATURE.as_bytes()
            && attribute.values.len() <= MAX_NESTED
        {
            nested.extend(attribute.values.iter().map(|value| value.whole));
        } else {
            let found = crate::asn1::oid_text(attribute.oid);
            let expected = "one time stamp and a few nested signatures";
            return Err(Error::format(
                format!("{place}: unsigned attributes"),
                expected,
                found,
            ));
        }
    }
    let signing_time = signed.signing_time()?;
    let mut facts = SignerFacts {
        subject: certificate.subject(),
        issuer: certificate.issuer(),
        serial: certificate.serial(),
        fingerprint: hex(&certificate.fingerprint()),
        digest_algorithm: signed.algorithm.name(),
        digest: hex(&content.digest),
        signing_time: signing_time.map(crate::time::format),
        time_stamp: None,
        page_hashes: matches!(
            content.subject,
            super::Subject::Pe {
                page_hashes: Some(_)
            }
        ),
        nested: false,
    };
    if let Some(trust) = trust {
        facts.time_stamp = judge(&signed, place, token, trust, checks)?;
    } else if let Some(token) = token {
        verify_token(token, signed.signature, None)?;
    }
    Ok((facts, nested))
}

/// Time stamp, chain, validity and pin of one signature.
fn judge(
    signed: &SignedData<'_>,
    place: &'static str,
    token: Option<&[u8]>,
    trust: &Trust,
    checks: &mut Checks,
) -> Result<Option<TimeStamp>, Error> {
    let stamp = token
        .map(|token| verify_token(token, signed.signature, Some(trust)))
        .transpose()?;
    let (time, when) = match &stamp {
        Some(stamp) => {
            let text = format!("time-stamped {} by {}", stamp.time, stamp.authority);
            checks.add("time stamp", text);
            (stamp.seconds, "when it was time-stamped")
        }
        None if trust.require_time_stamp => {
            return Err(Error::untrusted(place, "time stamp", "one", "none"));
        }
        None => (trust.now, "now (there is no time stamp)"),
    };
    let chain = Chain {
        certificates: &signed.certificates,
        signer: signed.signer,
        time,
        purpose: Purpose::CodeSigning,
        place,
    };
    let anchor = check_chain(chain, &trust.anchors)?;
    let text = format!(
        "chain to {} valid {when}, for code signing",
        anchor.subject()
    );
    checks.add(place, text);
    check_pin(trust, signed.certificate(), place)?;
    Ok(stamp)
}
