//! Keys and certificates in PEM text.

use der::pem;
use pkcs8::EncryptedPrivateKeyInfo;
use zeroize::Zeroizing;

use super::{LocalKey, Passphrase};
use crate::certificate::Certificate;
use crate::error::Error;

/// More blocks than any chain has.
const MAX_BLOCKS: usize = 64;

/// One block: its label and its bytes.
struct Block {
    label: String,
    der: Zeroizing<Vec<u8>>,
}

/// The blocks of `text`, in order; text around them is skipped, as OpenSSL does.
fn blocks(text: &str) -> Result<Vec<Block>, Error> {
    let mut blocks = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find("-----BEGIN ") {
        let body = &rest[start..];
        let malformed = |found: String| Error::format("PEM text", "a whole block", found);
        let end = body
            .find("-----END ")
            .ok_or_else(|| malformed("no END line".into()))?;
        let after = body[end + 9..]
            .find("-----")
            .map(|length| end + 9 + length + 5)
            .ok_or_else(|| malformed("no END line".into()))?;
        let block = body[..after].replace('\r', "");
        let (label, der) =
            pem::decode_vec(block.as_bytes()).map_err(|error| malformed(error.to_string()))?;
        blocks.push(Block {
            label: label.to_owned(),
            der: Zeroizing::new(der),
        });
        if blocks.len() > MAX_BLOCKS {
            return Err(malformed(format!("more than {MAX_BLOCKS} blocks")));
        }
        rest = &body[after..];
    }
    Ok(blocks)
}

/// The certificates in `text`, in order; at least one.
pub(crate) fn certificates(text: &str) -> Result<Vec<Certificate>, Error> {
    let certificates = blocks(text)?
        .iter()
        .filter(|block| block.label == "CERTIFICATE")
        .map(|block| Certificate::from_der(&block.der))
        .collect::<Result<Vec<_>, _>>()?;
    if certificates.is_empty() {
        return Err(Error::format("PEM text", "a CERTIFICATE block", "none"));
    }
    Ok(certificates)
}

/// The one private key in `text`.
pub(super) fn private_key(text: &str, passphrase: Option<&Passphrase>) -> Result<LocalKey, Error> {
    let mut keys = blocks(text)?;
    keys.retain(|block| block.label.ends_with("PRIVATE KEY"));
    let [block] = keys.as_slice() else {
        let found = keys.len().to_string();
        return Err(Error::format("PEM text", "one PRIVATE KEY block", found));
    };
    match block.label.as_str() {
        "PRIVATE KEY" => LocalKey::from_pkcs8(&block.der),
        "EC PRIVATE KEY" => LocalKey::from_sec1(&block.der),
        "RSA PRIVATE KEY" => LocalKey::from_pkcs1(&block.der),
        "ENCRYPTED PRIVATE KEY" => decrypt(&block.der, passphrase),
        other => {
            let reason = format!("a block of kind {other:?} is not read; convert it to PKCS #8");
            Err(Error::key("private key", reason))
        }
    }
}

fn decrypt(der: &[u8], passphrase: Option<&Passphrase>) -> Result<LocalKey, Error> {
    let place = "private key";
    let passphrase = passphrase.ok_or_else(|| Error::key(place, "encrypted, and no passphrase"))?;
    let info = EncryptedPrivateKeyInfo::try_from(der)
        .map_err(|error| Error::key(place, format!("not encrypted PKCS #8: {error}")))?;
    let document = info.decrypt(passphrase.text()).map_err(|_| {
        Error::key(
            place,
            "cannot be decrypted: a wrong passphrase, or an unusual cipher",
        )
    })?;
    LocalKey::from_pkcs8(document.as_bytes())
}
