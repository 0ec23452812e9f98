//! How the package was made: an in-toto statement with SLSA provenance, in a signed DSSE envelope.
//! Sources: in-toto Statement v1, SLSA provenance v1, DSSE v1.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hpbuild_metadata::manifest::{Manifest, Sha256, canonical_json};
use serde_json::{Value, json};

use crate::certificate::Certificate;
use crate::digest::hex;
use crate::error::Error;
use crate::keys::{Signer, verify};

const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
const PREDICATE_TYPE: &str = "https://slsa.dev/provenance/v1";
const BUILD_TYPE: &str = "urn:hpbuild:package:1";
const PLACE: &str = "provenance";

/// Something that went into a package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Material {
    /// What it is, such as a file name.
    pub name: String,
    /// Its digest.
    pub sha256: Sha256,
}

/// What is said of the making of a package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provenance {
    /// URI of who or what ran the build.
    pub builder: String,
    /// URI or number of the run, where there is one.
    pub invocation: Option<String>,
    /// When it was made, in seconds since 1970: `SOURCE_DATE_EPOCH` where it is set.
    pub time: u64,
    /// What went in besides the bases, which are taken from the manifest: the fixed images, PDBs.
    pub materials: Vec<Material>,
}

/// The file the statement is about.
pub(super) struct Subject {
    pub(super) name: String,
    pub(super) sha256: [u8; 32],
}

/// The signed envelope as one line of JSON with its line feed.
pub(super) fn statement(
    subject: &Subject,
    manifest: &Manifest,
    provenance: &Provenance,
    signer: &Signer,
) -> Result<Vec<u8>, Error> {
    let payload = canonical_json(&body(subject, manifest, provenance));
    let certificate = signer.certificate();
    let algorithm = certificate.key_algorithm()?.natural_digest();
    let signature = signer.sign(algorithm, &pre_authentication(&payload))?;
    let mut line = canonical_json(&json!({
        "payload": STANDARD.encode(&payload),
        "payloadType": PAYLOAD_TYPE,
        "signatures": [{
            "keyid": hex(&certificate.fingerprint()),
            "sig": STANDARD.encode(&signature),
        }],
    }));
    line.push(b'\n');
    Ok(line)
}

fn body(subject: &Subject, manifest: &Manifest, provenance: &Provenance) -> Value {
    let bases = manifest.patches.iter().map(|patch| Material {
        name: patch.base.name.clone(),
        sha256: patch.base.sha256,
    });
    let mut materials: Vec<Material> = bases.chain(provenance.materials.clone()).collect();
    materials.sort_by(|a, b| (&a.name, a.sha256).cmp(&(&b.name, b.sha256)));
    materials.dedup();
    let materials: Vec<Value> = materials
        .iter()
        .map(|m| json!({ "name": m.name, "digest": { "sha256": m.sha256.to_string() } }))
        .collect();
    let mut metadata = json!({ "finishedOn": crate::time::format(provenance.time) });
    if let Some(invocation) = &provenance.invocation {
        metadata["invocationId"] = Value::from(invocation.as_str());
    }
    json!({
        "_type": STATEMENT_TYPE,
        "subject": [{ "name": subject.name, "digest": { "sha256": hex(&subject.sha256) } }],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {
                    "id": manifest.id,
                    "baseline": manifest.baseline.to_string(),
                    "release": manifest.release.to_string(),
                    "sequence": manifest.sequence,
                },
                "internalParameters": { "version": env!("CARGO_PKG_VERSION") },
                "resolvedDependencies": materials,
            },
            "runDetails": {
                "builder": { "id": provenance.builder },
                "metadata": metadata,
            },
        },
    })
}

/// What DSSE signs: type and payload with their lengths, so that one cannot pass for the other.
fn pre_authentication(payload: &[u8]) -> Vec<u8> {
    let mut bytes = format!(
        "DSSEv1 {} {PAYLOAD_TYPE} {} ",
        PAYLOAD_TYPE.len(),
        payload.len()
    )
    .into_bytes();
    bytes.extend_from_slice(payload);
    bytes
}

/// Checks that `line` is a statement about a file with this digest, signed by `certificate`.
/// Its name is not compared: files are renamed.
pub(super) fn check(
    line: &[u8],
    sha256: &[u8; 32],
    id: &str,
    certificate: &Certificate,
) -> Result<(), Error> {
    let json = |bytes: &[u8], place: &str| -> Result<Value, Error> {
        let value: Value = serde_json::from_slice(bytes)
            .map_err(|error| Error::format(place, "JSON", error.to_string()))?;
        if canonical_json(&value) != bytes {
            return Err(Error::format(place, "canonical JSON", "another spelling"));
        }
        Ok(value)
    };
    let envelope = line
        .strip_suffix(b"\n")
        .ok_or_else(|| Error::format(PLACE, "one line", "no end of line"))?;
    let envelope = json(envelope, PLACE)?;
    let decode = |value: &Value, field: &str| {
        let text = value.as_str().and_then(|text| STANDARD.decode(text).ok());
        text.ok_or_else(|| Error::format(format!("{PLACE}: {field}"), "base64", value.to_string()))
    };
    let payload = decode(&envelope["payload"], "payload")?;
    let signature = decode(&envelope["signatures"][0]["sig"], "sig")?;
    let key = hex(&certificate.fingerprint());
    // Nothing else may stand in the envelope: it would not be signed.
    let expected = json!({
        "payload": envelope["payload"],
        "payloadType": PAYLOAD_TYPE,
        "signatures": [{ "keyid": key, "sig": envelope["signatures"][0]["sig"] }],
    });
    if envelope != expected {
        let expected = format!("one {PAYLOAD_TYPE} payload and one signature by {key}");
        return Err(Error::untrusted(PLACE, "envelope", expected, "another"));
    }
    let algorithm = certificate.key_algorithm()?.natural_digest();
    verify(
        certificate,
        algorithm,
        &pre_authentication(&payload),
        &signature,
    )
    .map_err(|error| error.within(PLACE))?;
    let statement = json(&payload, "provenance statement")?;
    let subject = &statement["subject"];
    let found = subject[0]["digest"]["sha256"].as_str().unwrap_or_default();
    let one = subject
        .as_array()
        .is_some_and(|subjects| subjects.len() == 1);
    if statement["_type"] != STATEMENT_TYPE
        || statement["predicateType"] != PREDICATE_TYPE
        || !one
        || found != hex(sha256)
    {
        let expected = format!("one subject with sha256 {}", hex(sha256));
        return Err(Error::untrusted(PLACE, "statement", expected, found));
    }
    let named = &statement["predicate"]["buildDefinition"]["externalParameters"]["id"];
    if named != id {
        return Err(Error::untrusted(PLACE, "id", id, named.to_string()));
    }
    Ok(())
}
