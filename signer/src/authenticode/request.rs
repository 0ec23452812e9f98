//! The file that travels to where the key is, and back, when signing in two steps.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hpbuild_metadata::manifest::canonical_json;
use serde::{Deserialize, Serialize};

use super::Prepared;
use crate::asn1::{self, SET};
use crate::certificate::Certificate;
use crate::digest::{DigestAlgorithm, hex};
use crate::error::Error;

const SCHEMA: u32 = 1;
const PLACE: &str = "signing request";
/// A page-hashed image of 4 GiB is at 40 MiB of page hashes; patches are far smaller.
const MAX_SIZE: usize = 64 << 20;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    schema: u32,
    /// What the key's owner signs; repeated here for them, and compared on the way back.
    digest: String,
    digest_algorithm: String,
    content: String,
    attributes: String,
    certificates: Vec<String>,
    nest: bool,
}

impl Prepared {
    /// The request as canonical JSON. It holds nothing secret.
    pub fn to_json(&self) -> Vec<u8> {
        let form = Form {
            schema: SCHEMA,
            digest: hex(&self.digest()),
            digest_algorithm: self.algorithm.name().into(),
            content: STANDARD.encode(&self.content),
            attributes: STANDARD.encode(&self.attributes),
            certificates: self
                .certificates
                .iter()
                .map(|c| STANDARD.encode(c.der()))
                .collect(),
            nest: self.nest,
        };
        let value = serde_json::to_value(form).expect("text and numbers are always JSON");
        canonical_json(&value)
    }

    /// Reads a request. What it says of the file is compared with the file when the signature is
    /// attached.
    ///
    /// # Errors
    /// When the bytes are not a request, or its digest is not the one of its attributes.
    pub fn from_json(bytes: &[u8]) -> Result<Self, Error> {
        let fail = |expected: &str, found: String| Error::format(PLACE, expected, found);
        if bytes.len() > MAX_SIZE {
            return Err(fail("at most 64 MiB", format!("{} bytes", bytes.len())));
        }
        let form: Form = serde_json::from_slice(bytes)
            .map_err(|error| fail("JSON of a signing request", error.to_string()))?;
        if form.schema != SCHEMA {
            return Err(fail("schema 1", form.schema.to_string()));
        }
        let algorithm = DigestAlgorithm::from_name(&form.digest_algorithm);
        let algorithm = algorithm
            .ok_or_else(|| fail("sha256, sha384 or sha512", form.digest_algorithm.clone()))?;
        let decode = |text: &str| {
            STANDARD
                .decode(text)
                .map_err(|error| fail("base64", error.to_string()))
        };
        let prepared = Prepared {
            algorithm,
            content: decode(&form.content)?,
            attributes: decode(&form.attributes)?,
            certificates: form
                .certificates
                .iter()
                .map(|text| Certificate::from_der(&decode(text)?))
                .collect::<Result<_, _>>()?,
            nest: form.nest,
        };
        asn1::only(&prepared.attributes, SET, PLACE)?;
        if hex(&prepared.digest()) != form.digest {
            return Err(fail("the digest of the attributes", form.digest));
        }
        Ok(prepared)
    }
}
