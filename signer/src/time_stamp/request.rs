//! Asking a server for a time stamp.

use std::io::Read as _;
use std::time::Duration;

use rand_core::{OsRng, RngCore as _};

use super::token::{TimeStamp, verify_token};
use crate::asn1::{self, BOOLEAN, INTEGER, NULL, OCTET_STRING, SEQUENCE};
use crate::digest::{DigestAlgorithm, hex};
use crate::error::Error;

/// Far above any token with its certificates.
const MAX_RESPONSE: u64 = 1 << 20;

/// A time-stamp server that the user names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimeStampServer {
    /// Its address; plain `http://`. The token carries its own proof, so nothing is gained by
    /// an encrypted connection.
    pub url: String,
    /// Digest of the request.
    pub digest: DigestAlgorithm,
    /// How long to wait for the whole answer.
    pub timeout: Duration,
}

impl TimeStampServer {
    /// The server at `url`, asked with SHA-256 and half a minute of patience.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            digest: DigestAlgorithm::Sha256,
            timeout: Duration::from_secs(30),
        }
    }
}

/// Gets a token over `signature` and checks that it is one: right imprint, right number, intact
/// signature. Whether its signer is trusted is the verifier's question.
pub(crate) fn fetch(server: &TimeStampServer, signature: &[u8]) -> Result<Vec<u8>, Error> {
    let fail = |reason: String| Error::TimeStampServer {
        url: server.url.clone(),
        reason,
    };
    let mut nonce = [0u8; 8];
    OsRng.fill_bytes(&mut nonce);
    // A positive number in its shortest form, whatever the random bits.
    nonce[0] = nonce[0] & 0x7f | 0x40;
    let request = encode_request(server.digest, signature, &nonce);
    let response = post(server, &request).map_err(fail)?;
    let token = read_response(&response).map_err(|error| fail(error.to_string()))?;
    let stamp: TimeStamp =
        verify_token(&token, signature, None).map_err(|error| fail(error.to_string()))?;
    if stamp.nonce.as_deref() != Some(hex(&nonce).as_str()) {
        return Err(fail("the answer is to another request".into()));
    }
    Ok(token)
}

fn encode_request(algorithm: DigestAlgorithm, signature: &[u8], nonce: &[u8]) -> Vec<u8> {
    let null = asn1::element(NULL, &[]);
    let digest = algorithm.digest(signature);
    let identifier = asn1::element(SEQUENCE, &[&asn1::oid(algorithm.oid()), &null]);
    let imprint = asn1::element(
        SEQUENCE,
        &[&identifier, &asn1::element(OCTET_STRING, &[&digest])],
    );
    let version = asn1::element(INTEGER, &[&[1]]);
    let nonce = asn1::element(INTEGER, &[nonce]);
    let with_certificates = asn1::element(BOOLEAN, &[&[0xff]]);
    asn1::element(SEQUENCE, &[&version, &imprint, &nonce, &with_certificates])
}

fn post(server: &TimeStampServer, body: &[u8]) -> Result<Vec<u8>, String> {
    if !server.url.starts_with("http://") {
        return Err("only plain http:// addresses are supported".into());
    }
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(server.timeout))
        .max_redirects(3)
        .build()
        .into();
    let mut response = agent
        .post(&server.url)
        .header("Content-Type", "application/timestamp-query")
        .header("Accept", "application/timestamp-reply")
        .send(body)
        .map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    response
        .body_mut()
        .as_reader()
        .take(MAX_RESPONSE + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| error.to_string())?;
    if bytes.len() as u64 > MAX_RESPONSE {
        return Err(format!("the answer is longer than {MAX_RESPONSE} bytes"));
    }
    Ok(bytes)
}

/// The token inside a TimeStampResp that says it was granted.
fn read_response(der: &[u8]) -> Result<Vec<u8>, Error> {
    let mut response = asn1::only(der, SEQUENCE, "TimeStampResp")?.children("TimeStampResp");
    let status = response.sequence("PKIStatusInfo")?;
    let mut fields = status;
    let code = fields.expect(INTEGER, "status")?.value;
    // 0 is "granted", 1 "granted with modifications".
    if !matches!(code, [0 | 1]) {
        let found = format!("status {}", hex(code));
        return Err(Error::format(
            "TimeStampResp",
            "a granted time stamp",
            found,
        ));
    }
    let token = response.expect(SEQUENCE, "time-stamp token")?;
    response.finish()?;
    Ok(token.whole.to_vec())
}
