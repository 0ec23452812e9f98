//! Signing and verifying a file: an image or a cabinet, told apart by how it begins.

use crate::authenticode::{
    self, Existing, Prepared, SignOptions, Signature, SignerFacts, Subject, assemble,
    encode_content, nest, verify_signature,
};
use crate::certificate::Certificate;
use crate::digest::{DigestAlgorithm, hex};
use crate::error::Error;
use crate::keys::Signer;
use crate::pe::{self, Layout};
use crate::signed_data::SignedData;
use crate::trust::{Checks, Trust};
use crate::{cabinet, keys, time_stamp};

/// The kinds of file that can be signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FileKind {
    /// A PE32+ image.
    Image,
    /// A cabinet.
    Cabinet,
}

impl FileKind {
    /// The kind of a file with these bytes.
    ///
    /// # Errors
    /// When it begins neither as an image nor as a cabinet.
    pub fn of(bytes: &[u8]) -> Result<Self, Error> {
        if bytes.starts_with(b"MZ") {
            Ok(FileKind::Image)
        } else if bytes.starts_with(b"MSCF") {
            Ok(FileKind::Cabinet)
        } else {
            let found = hex(&bytes[..bytes.len().min(4)]);
            let expected = "an image (\"MZ\") or a cabinet (\"MSCF\")";
            Err(Error::format("start of the file", expected, found))
        }
    }
}

/// What the verification of a file found.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct SignatureReport {
    /// What the file is.
    pub kind: FileKind,
    /// The signatures: the outer one, then those nested in it.
    pub signers: Vec<SignerFacts>,
}

/// Signs an image or a cabinet.
///
/// A signed image has the certificate table at its end, 8-byte aligned, and a right checksum; a
/// signed cabinet names its signature in the reserve of its header. The result is verified, but
/// for trust, before it is returned.
///
/// # Errors
/// When `bytes` is neither, when it is signed and the options refuse that, or when the key or the
/// time-stamp server fails.
pub fn sign(bytes: &[u8], options: &SignOptions, signer: &Signer) -> Result<Vec<u8>, Error> {
    let prepared = prepare(bytes, options, signer.chain())?;
    let value = signer.sign(options.digest, prepared.message())?;
    finish(bytes, &prepared, &value, options)
}

/// The first half of signing for a key that is elsewhere: what it has to sign.
///
/// # Errors
/// As [`sign`].
pub fn prepare(
    bytes: &[u8],
    options: &SignOptions,
    certificates: &[Certificate],
) -> Result<Prepared, Error> {
    match (options.existing, existing(bytes)?) {
        (Existing::Refuse, Some(_)) => {
            let reason = "it is already signed; the signature can be replaced or nested";
            return Err(Error::request("file", reason));
        }
        (Existing::Nest, None) => {
            let reason = "it is not signed, so nothing can be nested";
            return Err(Error::request("file", reason));
        }
        _ => {}
    }
    authenticode::prepare(content(bytes, options)?, options, certificates)
}

/// The second half: the signed file, made from the same `bytes`, what was prepared, and the
/// signature value. An ECDSA value may be DER or the two numbers one behind the other. Of the
/// options only the time-stamp server matters here.
///
/// # Errors
/// When the signature does not fit the certificate, or was not made for this file.
pub fn attach(
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
    let server = options.time_stamp.as_ref();
    let token = server
        .map(|server| time_stamp::fetch(server, value))
        .transpose()?;
    let signature = Signature {
        value,
        time_stamp: token.as_deref(),
    };
    let mut der = assemble(prepared, &signature)?;
    if prepared.nest {
        let outer = existing(bytes)?;
        let outer = outer.ok_or_else(|| Error::request("file", "it is not signed"))?;
        der = nest(&outer, &der)?;
    }
    let signed = match FileKind::of(bytes)? {
        FileKind::Image => pe::attach(&pe::normalise(bytes)?, &der)?,
        FileKind::Cabinet => cabinet::attach(&cabinet::normalise(bytes)?, &der)?,
    };
    check(&signed, None, &mut Checks::default())?;
    Ok(signed)
}

/// Verifies every signature of an image or a cabinet; what was found right is added to `checks`.
///
/// # Errors
/// The first thing that is wrong: format, checksum, digest, page hashes, signature value, time
/// stamp, chain, purpose, validity, pin.
pub fn verify(bytes: &[u8], trust: &Trust, checks: &mut Checks) -> Result<SignatureReport, Error> {
    check(bytes, Some(trust), checks)
}

fn check(
    bytes: &[u8],
    trust: Option<&Trust>,
    checks: &mut Checks,
) -> Result<SignatureReport, Error> {
    let kind = FileKind::of(bytes)?;
    let signers = match kind {
        FileKind::Image => check_image(bytes, trust, checks)?,
        FileKind::Cabinet => check_cabinet(bytes, trust, checks)?,
    };
    Ok(SignatureReport { kind, signers })
}

fn check_image(
    bytes: &[u8],
    trust: Option<&Trust>,
    checks: &mut Checks,
) -> Result<Vec<SignerFacts>, Error> {
    let layout = Layout::read(bytes)?;
    let der = pe::signature(bytes, &layout)?;
    let der = der.ok_or_else(|| Error::untrusted("image", "signature", "one", "none"))?;
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
    verify_signature(der, trust, checks, &|signed| {
        check_digest(
            "image",
            &pe::digest(bytes, &layout, signed.algorithm),
            &signed.digest,
        )?;
        match &signed.subject {
            Subject::Cabinet => Err(Error::untrusted(
                "signature",
                "kind of file",
                "an image",
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
    })
}

fn check_cabinet(
    bytes: &[u8],
    trust: Option<&Trust>,
    checks: &mut Checks,
) -> Result<Vec<SignerFacts>, Error> {
    let header = cabinet::header(bytes)?;
    let der = cabinet::signature(bytes, &header)?;
    let der = der.ok_or_else(|| Error::untrusted("cabinet", "signature", "one", "none"))?;
    checks.add("cabinet", "header is consistent with the file");
    verify_signature(der, trust, checks, &|signed| {
        let actual = cabinet::digest(bytes, &header, signed.algorithm);
        check_digest("cabinet", &actual, &signed.digest)?;
        if signed.subject != Subject::Cabinet {
            let what = "kind of file";
            return Err(Error::untrusted("signature", what, "a cabinet", "an image"));
        }
        Ok(())
    })
}

fn check_digest(place: &str, actual: &[u8], signed: &[u8]) -> Result<(), Error> {
    if actual == signed {
        return Ok(());
    }
    Err(Error::untrusted(place, "digest", hex(signed), hex(actual)))
}

/// The DER of what the signature will say of the file.
fn content(bytes: &[u8], options: &SignOptions) -> Result<Vec<u8>, Error> {
    let algorithm = options.digest;
    match FileKind::of(bytes)? {
        FileKind::Image => {
            let image = pe::normalise(bytes)?;
            let layout = Layout::read(&image)?;
            let page_hashes = options
                .page_hashes
                .then(|| pe::page_hashes(&image, &layout, DigestAlgorithm::Sha256))
                .transpose()?;
            let digest = pe::digest(&image, &layout, algorithm);
            Ok(encode_content(
                &Subject::Pe { page_hashes },
                algorithm,
                &digest,
            ))
        }
        FileKind::Cabinet => {
            let file = cabinet::normalise(bytes)?;
            let digest = cabinet::digest(&file, &cabinet::header(&file)?, algorithm);
            Ok(encode_content(&Subject::Cabinet, algorithm, &digest))
        }
    }
}

/// The DER of the signature the file has, if it has one.
fn existing(bytes: &[u8]) -> Result<Option<Vec<u8>>, Error> {
    let der = match FileKind::of(bytes)? {
        FileKind::Image => pe::signature(bytes, &Layout::read(bytes)?)?,
        FileKind::Cabinet => cabinet::signature(bytes, &cabinet::header(bytes)?)?,
    };
    Ok(der.map(<[u8]>::to_vec))
}

/// Whether an image or a cabinet has a signature, good or not.
pub(crate) fn is_signed(bytes: &[u8]) -> Result<bool, Error> {
    existing(bytes).map(|der| der.is_some())
}

/// The certificate of the outer signer of a file whose signature has been verified.
pub(crate) fn signer_certificate(bytes: &[u8]) -> Result<Certificate, Error> {
    let der = existing(bytes)?;
    let der = der.ok_or_else(|| Error::untrusted("file", "signature", "one", "none"))?;
    let signed = SignedData::parse(&der, 1, "signature")?;
    Ok(signed.certificate().clone())
}
