//! Signing and verifying PE images.

use crate::authenticode::{
    self, Existing, Prepared, SignOptions, Signature, SignerFacts, Subject, assemble,
    encode_content, nest, verify_signature,
};
use crate::certificate::Certificate;
use crate::digest::{DigestAlgorithm, hex};
use crate::error::Error;
use crate::keys::Signer;
use crate::pe::{self, Layout};
use crate::trust::{Checks, Trust};
use crate::{keys, time_stamp};

/// What the verification of an image found.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct PeSignatureReport {
    /// The signatures: the outer one, then those nested in it.
    pub signers: Vec<SignerFacts>,
}

/// Signs the image `bytes`.
///
/// The result has the certificate table at its end, 8-byte aligned, and a right checksum. It is
/// verified, but for trust, before it is returned.
///
/// # Errors
/// When `bytes` is no PE32+ image for x64 or Arm64, when it is signed and the options refuse that,
/// or when the key or the time-stamp server fails.
pub fn sign_pe(bytes: &[u8], options: &SignOptions, signer: &Signer) -> Result<Vec<u8>, Error> {
    let prepared = prepare_pe(bytes, options, signer.chain())?;
    let value = signer.sign(options.digest, prepared.message())?;
    finish(bytes, &prepared, &value, options)
}

/// The first half of signing for a key that is elsewhere: what it has to sign.
///
/// # Errors
/// As [`sign_pe`].
pub fn prepare_pe(
    bytes: &[u8],
    options: &SignOptions,
    certificates: &[Certificate],
) -> Result<Prepared, Error> {
    let existing = existing(bytes)?;
    match (options.existing, existing) {
        (Existing::Refuse, Some(_)) => {
            return Err(Error::request(
                "image",
                "it is already signed; replace or nest?",
            ));
        }
        (Existing::Nest, None) => {
            return Err(Error::request(
                "image",
                "it is not signed, so nothing can be nested",
            ));
        }
        _ => {}
    }
    let image = pe::normalise(bytes)?;
    let content = content(&image, options.digest, options.page_hashes)?;
    authenticode::prepare(content, options, certificates)
}

/// The second half: the signed image, made from the same `bytes`, what was prepared, and the
/// signature value. An ECDSA value may be DER or the two numbers one behind the other.
///
/// # Errors
/// When the signature does not fit the certificate, or was not made for this image.
pub fn attach_pe(
    bytes: &[u8],
    prepared: &Prepared,
    value: &[u8],
    options: &SignOptions,
) -> Result<Vec<u8>, Error> {
    let value = keys::checked(prepared, value)?;
    finish(bytes, prepared, &value, options)
}

fn finish(
    bytes: &[u8],
    prepared: &Prepared,
    value: &[u8],
    options: &SignOptions,
) -> Result<Vec<u8>, Error> {
    let token = options
        .time_stamp
        .as_ref()
        .map(|server| time_stamp::fetch(server, value))
        .transpose()?;
    let signature = Signature {
        value,
        time_stamp: token.as_deref(),
    };
    let mut der = assemble(prepared, &signature)?;
    if prepared.nest {
        let outer = existing(bytes)?;
        let outer = outer.ok_or_else(|| Error::request("image", "it is not signed"))?;
        der = nest(&outer, &der)?;
    }
    let signed = pe::attach(&pe::normalise(bytes)?, &der)?;
    verify(&signed, None, &mut Checks::default())?;
    Ok(signed)
}

/// Verifies every signature of the image `bytes`; what was found right is added to `checks`.
///
/// # Errors
/// The first thing that is wrong: format, checksum, digest, page hashes, signature value, time
/// stamp, chain, purpose, validity, pin.
pub fn verify_pe(
    bytes: &[u8],
    trust: &Trust,
    checks: &mut Checks,
) -> Result<PeSignatureReport, Error> {
    verify(bytes, Some(trust), checks)
}

fn verify(
    bytes: &[u8],
    trust: Option<&Trust>,
    checks: &mut Checks,
) -> Result<PeSignatureReport, Error> {
    let layout = Layout::read(bytes)?;
    let der = pe::signature(bytes, &layout)?;
    let stored = layout.checksum(bytes)?;
    let actual = pe::checksum(bytes, layout.checksum_at);
    if stored != actual {
        let (expected, found) = (format!("{actual:#x}"), format!("{stored:#x}"));
        return Err(Error::untrusted(
            "optional header",
            "CheckSum",
            expected,
            found,
        ));
    }
    checks.add("image", "headers, sections and checksum are consistent");
    let signers = verify_signature(der, trust, checks, &|signed| {
        let found = pe::digest(bytes, &layout, signed.algorithm);
        if found != signed.digest {
            let expected = hex(&signed.digest);
            return Err(Error::untrusted("image", "digest", expected, hex(&found)));
        }
        match &signed.subject {
            Subject::Cabinet => Err(Error::untrusted(
                "signature",
                "kind of file",
                "a PE image",
                "a cabinet",
            )),
            Subject::Pe { page_hashes: None } => Ok(()),
            Subject::Pe {
                page_hashes: Some(list),
            } => {
                let actual = pe::page_hashes(bytes, &layout, DigestAlgorithm::Sha256)?;
                if *list == actual {
                    return Ok(());
                }
                Err(Error::untrusted(
                    "image",
                    "page hashes",
                    "those of its pages",
                    "others",
                ))
            }
        }
    })?;
    Ok(PeSignatureReport { signers })
}

fn content(image: &[u8], algorithm: DigestAlgorithm, page_hashes: bool) -> Result<Vec<u8>, Error> {
    let layout = Layout::read(image)?;
    let page_hashes = page_hashes
        .then(|| pe::page_hashes(image, &layout, DigestAlgorithm::Sha256))
        .transpose()?;
    let digest = pe::digest(image, &layout, algorithm);
    Ok(encode_content(
        &Subject::Pe { page_hashes },
        algorithm,
        &digest,
    ))
}

/// The DER of the signature the image has, if it has one.
fn existing(bytes: &[u8]) -> Result<Option<Vec<u8>>, Error> {
    let layout = Layout::read(bytes)?;
    if layout.certificates.is_empty() {
        return Ok(None);
    }
    pe::signature(bytes, &layout).map(|der| Some(der.to_vec()))
}
