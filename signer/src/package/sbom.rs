//! The bill of materials: CycloneDX 1.5, made of the manifest alone.

use hpbuild_metadata::manifest::{Manifest, Patch, canonical_json};
use serde_json::{Value, json};

use crate::digest::{hex, sha256};
use crate::error::Error;

/// The bill of materials of a package with this manifest.
pub(super) fn write(manifest: &Manifest) -> Vec<u8> {
    let components: Vec<Value> = manifest.patches.iter().map(component).collect();
    let vulnerabilities: Vec<Value> = manifest
        .cves
        .iter()
        .map(|cve| {
            let affects: Vec<Value> = manifest
                .patches
                .iter()
                .map(|p| json!({ "ref": p.file }))
                .collect();
            json!({
                "id": cve,
                "analysis": { "state": "resolved" },
                "affects": affects,
            })
        })
        .collect();
    let mut sbom = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": manifest.id,
                "name": manifest.id,
                "version": manifest.sequence.to_string(),
                "description": manifest.title,
            },
            "tools": [{ "name": "hpbuild", "version": env!("CARGO_PKG_VERSION") }],
        },
        "components": components,
        "vulnerabilities": vulnerabilities,
    });
    // A serial number that depends on nothing but the contents.
    sbom["serialNumber"] = Value::from(serial_number(&canonical_json(&sbom)));
    canonical_json(&sbom)
}

fn component(patch: &Patch) -> Value {
    let mut properties = vec![json!({ "name": "hpbuild:machine", "value": patch.machine.name() })];
    if let Some(pdb) = &patch.base.pdb {
        properties.push(json!({ "name": "hpbuild:base:pdb", "value": pdb.guid.to_string() }));
    }
    json!({
        "type": "library",
        "bom-ref": patch.file,
        "name": patch.file,
        "version": patch.sequence.to_string(),
        "hashes": [{ "alg": "SHA-256", "content": patch.sha256.to_string() }],
        "pedigree": {
            "ancestors": [{
                "type": "library",
                "name": patch.base.name,
                "hashes": [{ "alg": "SHA-256", "content": patch.base.sha256.to_string() }],
            }],
        },
        "properties": properties,
    })
}

/// A UUID of version 8 (RFC 9562: made by the application's own rule) from the contents.
fn serial_number(contents: &[u8]) -> String {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&sha256(contents)[..16]);
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let text = hex(&bytes);
    let groups = [
        &text[..8],
        &text[8..12],
        &text[12..16],
        &text[16..20],
        &text[20..],
    ];
    format!("urn:uuid:{}", groups.join("-"))
}

/// Checks that `bytes` is a bill of materials of exactly the manifest's images. Another version
/// of this program may have written it, so only what it says is compared, not its bytes.
pub(super) fn check(bytes: &[u8], manifest: &Manifest) -> Result<(), Error> {
    let place = super::SBOM;
    let value: Value = serde_json::from_slice(bytes)
        .map_err(|error| Error::format(place, "JSON", error.to_string()))?;
    if value["bomFormat"] != "CycloneDX" {
        let found = value["bomFormat"].to_string();
        return Err(Error::format(
            format!("{place}: bomFormat"),
            "\"CycloneDX\"",
            found,
        ));
    }
    let mut listed: Vec<(&str, &str)> = Vec::new();
    for component in value["components"].as_array().into_iter().flatten() {
        let name = component["name"].as_str().unwrap_or_default();
        let hash = component["hashes"][0]["content"]
            .as_str()
            .unwrap_or_default();
        listed.push((name, hash));
    }
    let own: Vec<(String, String)> = manifest
        .patches
        .iter()
        .map(|patch| (patch.file.clone(), patch.sha256.to_string()))
        .collect();
    let same = own.len() == listed.len()
        && own
            .iter()
            .zip(&listed)
            .all(|(own, listed)| (own.0.as_str(), own.1.as_str()) == *listed);
    if same {
        return Ok(());
    }
    let (expected, found) = (own.len(), listed.len());
    let what = "components";
    Err(Error::untrusted(
        place,
        what,
        format!("the manifest's {expected} images"),
        format!("{found} components"),
    ))
}
