//! Keys on a hardware token (or a software one), through PKCS #11.

use std::fmt;

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, KeyType, ObjectClass};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::Slot;
use cryptoki::types::AuthPin;

use super::{KeyAlgorithm, Passphrase};
use crate::asn1::{self, NULL, OCTET_STRING, SEQUENCE};
use crate::digest::{DigestAlgorithm, unhex};
use crate::error::Error;

/// A private key on a token.
pub struct Pkcs11Signer {
    uri: Uri,
    module: Pkcs11,
    pin: Passphrase,
}

impl fmt::Debug for Pkcs11Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pkcs11Signer({:?})", self.uri)
    }
}

/// The parts of a `pkcs11:` URI (RFC 7512) that choose a key. Never holds the PIN: a URI with one
/// in it is refused, because it would end up in a shell's history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Uri {
    token: Option<String>,
    serial: Option<String>,
    object: Option<String>,
    id: Option<Vec<u8>>,
    module_path: Option<String>,
}

const PLACE: &str = "PKCS #11 URI";

impl Uri {
    fn parse(text: &str) -> Result<Self, Error> {
        let rest = text
            .strip_prefix("pkcs11:")
            .ok_or_else(|| Error::format(PLACE, "\"pkcs11:...\"", format!("{text:?}")))?;
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let mut uri = Uri::default();
        let attributes = path.split(';').chain(query.split('&'));
        for attribute in attributes.filter(|a| !a.is_empty()) {
            let pair = attribute.split_once('=');
            let (name, value) =
                pair.ok_or_else(|| Error::format(PLACE, "name=value", format!("{attribute:?}")))?;
            let value = percent_decode(value)?;
            let text = || {
                let text = String::from_utf8(value.clone());
                text.map_err(|_| Error::format(PLACE, "UTF-8", format!("another {name}")))
            };
            match name {
                "token" => uri.token = Some(text()?),
                "serial" => uri.serial = Some(text()?),
                "object" => uri.object = Some(text()?),
                "id" => uri.id = Some(value),
                "module-path" => uri.module_path = Some(text()?),
                "type" if value == b"private" => {}
                "pin-value" => {
                    let reason = "a PIN in the URI would be seen by others; \
                                  give it by prompt, file or environment";
                    return Err(Error::request(PLACE, reason));
                }
                other => {
                    let expected = "token, serial, object, id, type=private or module-path";
                    return Err(Error::format(PLACE, expected, format!("{other:?}")));
                }
            }
        }
        Ok(uri)
    }
}

fn percent_decode(text: &str) -> Result<Vec<u8>, Error> {
    let mut out = Vec::new();
    let mut parts = text.split('%');
    out.extend_from_slice(parts.next().unwrap_or_default().as_bytes());
    for part in parts {
        let byte = part.get(..2).and_then(unhex);
        let byte =
            byte.ok_or_else(|| Error::format(PLACE, "two hexadecimal digits behind %", part))?;
        out.extend_from_slice(&byte);
        out.extend_from_slice(&part.as_bytes()[2..]);
    }
    Ok(out)
}

impl Pkcs11Signer {
    /// Loads the module and remembers which key to use. The module is the `module-path` of the
    /// URI, or `module`.
    ///
    /// # Errors
    /// When the URI is malformed or holds a PIN, or when the module cannot be loaded.
    pub fn open(uri: &str, module: Option<&str>, pin: Passphrase) -> Result<Self, Error> {
        let uri = Uri::parse(uri)?;
        let path = uri.module_path.as_deref().or(module).ok_or_else(|| {
            Error::request(
                PLACE,
                "no module: name one with module-path or --pkcs11-module",
            )
        })?;
        let failed = |error: cryptoki::error::Error| Error::key(path, error.to_string());
        let module = Pkcs11::new(path).map_err(failed)?;
        module
            .initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK))
            .map_err(failed)?;
        Ok(Self { uri, module, pin })
    }

    /// Certificates on the token that carry the key's label or id, in DER; for users who have no
    /// PEM file of them.
    ///
    /// # Errors
    /// When the token cannot be reached.
    pub fn certificates(&self) -> Result<Vec<Vec<u8>>, Error> {
        let session = self.session()?;
        let template = self.template(ObjectClass::CERTIFICATE);
        let objects = session.find_objects(&template).map_err(token)?;
        let mut found = Vec::new();
        for object in objects {
            let attributes = session
                .get_attributes(object, &[cryptoki::object::AttributeType::Value])
                .map_err(token)?;
            found.extend(attributes.into_iter().filter_map(|a| match a {
                Attribute::Value(bytes) => Some(bytes),
                _ => None,
            }));
        }
        Ok(found)
    }

    pub(super) fn sign(
        &self,
        key: KeyAlgorithm,
        algorithm: DigestAlgorithm,
        digest: &[u8],
    ) -> Result<Vec<u8>, Error> {
        let session = self.session()?;
        let mut template = self.template(ObjectClass::PRIVATE_KEY);
        template.push(Attribute::KeyType(match key {
            KeyAlgorithm::Rsa => KeyType::RSA,
            KeyAlgorithm::P256 | KeyAlgorithm::P384 => KeyType::EC,
        }));
        let objects = session.find_objects(&template).map_err(token)?;
        let [object] = objects.as_slice() else {
            let reason = format!("{} {key} keys fit the URI, not one", objects.len());
            return Err(Error::key("PKCS #11 token", reason));
        };
        let signature = match key {
            KeyAlgorithm::Rsa => {
                let info = digest_info(algorithm, digest);
                session.sign(&Mechanism::RsaPkcs, *object, &info)
            }
            KeyAlgorithm::P256 | KeyAlgorithm::P384 => {
                session.sign(&Mechanism::Ecdsa, *object, digest)
            }
        };
        signature.map_err(token)
    }

    fn session(&self) -> Result<Session, Error> {
        let slot = self.slot()?;
        let session = self.module.open_ro_session(slot).map_err(token)?;
        let pin = AuthPin::new(self.pin.text().to_owned().into_boxed_str());
        session.login(UserType::User, Some(&pin)).map_err(token)?;
        Ok(session)
    }

    fn slot(&self) -> Result<Slot, Error> {
        let slots = self
            .module
            .get_slots_with_initialized_token()
            .map_err(token)?;
        let mut fitting = Vec::new();
        for slot in slots {
            let info = self.module.get_token_info(slot).map_err(token)?;
            let fits = |wanted: &Option<String>, is: &str| {
                wanted
                    .as_deref()
                    .is_none_or(|wanted| wanted == is.trim_end())
            };
            if fits(&self.uri.token, info.label()) && fits(&self.uri.serial, info.serial_number()) {
                fitting.push(slot);
            }
        }
        match fitting.as_slice() {
            [slot] => Ok(*slot),
            _ => {
                let reason = format!("{} tokens fit the URI, not one", fitting.len());
                Err(Error::key("PKCS #11 module", reason))
            }
        }
    }

    fn template(&self, class: ObjectClass) -> Vec<Attribute> {
        let mut template = vec![Attribute::Class(class)];
        if let Some(label) = &self.uri.object {
            template.push(Attribute::Label(label.as_bytes().to_vec()));
        }
        if let Some(id) = &self.uri.id {
            template.push(Attribute::Id(id.clone()));
        }
        template
    }
}

fn token(error: cryptoki::error::Error) -> Error {
    Error::key("PKCS #11 token", error.to_string())
}

/// What PKCS #1 v1.5 signs: the digest with the name of its algorithm.
fn digest_info(algorithm: DigestAlgorithm, digest: &[u8]) -> Vec<u8> {
    let null = asn1::element(NULL, &[]);
    let algorithm = asn1::element(SEQUENCE, &[&asn1::oid(algorithm.oid()), &null]);
    asn1::element(
        SEQUENCE,
        &[&algorithm, &asn1::element(OCTET_STRING, &[digest])],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uri_is_read_and_a_pin_in_it_is_refused() {
        let uri = Uri::parse("pkcs11:token=My%20token;object=key;id=%01%ab?module-path=/lib/x.so");
        let expected = Uri {
            token: Some("My token".into()),
            object: Some("key".into()),
            id: Some(vec![0x01, 0xab]),
            module_path: Some("/lib/x.so".into()),
            serial: None,
        };
        assert_eq!(uri, Ok(expected));
        assert!(Uri::parse("pkcs11:token=a?pin-value=1234").is_err());
        assert!(Uri::parse("pkcs11:token=%zz").is_err());
        assert!(Uri::parse("pkcs11:nonsense").is_err());
    }
}
