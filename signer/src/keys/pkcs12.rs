//! PKCS #12 files (`.pfx`, `.p12`).

use p12_keystore::KeyStore;

use super::{LocalKey, Passphrase};
use crate::certificate::Certificate;
use crate::error::Error;

/// A PKCS #12 file holds a key and a few certificates; this is far above any.
const MAX_SIZE: usize = 1 << 20;

/// The one key of the file, and the certificates with it.
pub(super) fn read(
    bytes: &[u8],
    passphrase: &Passphrase,
) -> Result<(LocalKey, Vec<Certificate>), Error> {
    let place = "PKCS #12 file";
    if bytes.len() > MAX_SIZE {
        let found = format!("{} bytes", bytes.len());
        return Err(Error::format(
            place,
            format!("at most {MAX_SIZE} bytes"),
            found,
        ));
    }
    let store = KeyStore::from_pkcs12(bytes, passphrase.text())
        .map_err(|error| Error::key(place, format!("{error} (is the passphrase right?)")))?;
    let mut keys = store.entries().filter_map(|(_, entry)| match entry {
        p12_keystore::KeyStoreEntry::PrivateKeyChain(chain) => Some(chain),
        _ => None,
    });
    let (Some(chain), None) = (keys.next(), keys.next()) else {
        return Err(Error::key(
            place,
            "it does not hold exactly one key with its certificate",
        ));
    };
    let key = LocalKey::from_pkcs8(chain.key())?;
    let mut certificates = chain
        .chain()
        .iter()
        .map(|certificate| Certificate::from_der(certificate.as_der()))
        .collect::<Result<Vec<_>, _>>()?;
    for (_, entry) in store.entries() {
        if let p12_keystore::KeyStoreEntry::Certificate(certificate) = entry {
            certificates.push(Certificate::from_der(certificate.as_der())?);
        }
    }
    certificates.dedup();
    Ok((key, certificates))
}
