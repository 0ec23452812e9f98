//! `SpcIndirectDataContent`: which file is signed, by its digest.

use const_oid::ObjectIdentifier;

use crate::asn1::{self, BIT_STRING, OCTET_STRING, OID, SEQUENCE, SET, context, context_primitive};
use crate::digest::DigestAlgorithm;
use crate::error::Error;

const PE_IMAGE_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.311.2.1.15");
const CAB_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.311.2.1.25");
const PAGE_HASHES_V2: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.311.2.3.2");
/// Class id of the serialized object that page hashes travel in.
const PAGE_HASHES_CLASS: [u8; 16] = [
    0xa6, 0xb5, 0x86, 0xd5, 0xb4, 0xa1, 0x24, 0x66, 0xae, 0x05, 0xa2, 0x17, 0xda, 0x8e, 0x60, 0xd6,
];
/// What stands where a file name once stood.
const OBSOLETE: &str = "<<<Obsolete>>>";

/// The kind of file that is signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    /// A PE image, with its page hashes if they are to be signed too.
    Pe { page_hashes: Option<Vec<u8>> },
    /// A cabinet.
    Cabinet,
}

/// What [`parse`] finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) subject: Subject,
    pub(crate) algorithm: DigestAlgorithm,
    pub(crate) digest: Vec<u8>,
}

/// The DER of the content.
pub(crate) fn encode(subject: &Subject, algorithm: DigestAlgorithm, digest: &[u8]) -> Vec<u8> {
    let (kind, value) = match subject {
        Subject::Pe { page_hashes } => {
            let link = match page_hashes {
                None => obsolete_link(),
                Some(hashes) => page_hash_link(hashes),
            };
            let flags = asn1::element(BIT_STRING, &[&[0]]);
            let file = asn1::element(context(0), &[&link]);
            (PE_IMAGE_DATA, asn1::element(SEQUENCE, &[&flags, &file]))
        }
        Subject::Cabinet => (CAB_DATA, obsolete_link()),
    };
    let data = asn1::element(SEQUENCE, &[&asn1::oid(kind), &value]);
    let null = asn1::element(asn1::NULL, &[]);
    let algorithm = asn1::element(SEQUENCE, &[&asn1::oid(algorithm.oid()), &null]);
    let digest = asn1::element(OCTET_STRING, &[digest]);
    let digest_info = asn1::element(SEQUENCE, &[&algorithm, &digest]);
    asn1::element(SEQUENCE, &[&data, &digest_info])
}

fn obsolete_link() -> Vec<u8> {
    let text: Vec<u8> = OBSOLETE.encode_utf16().flat_map(u16::to_be_bytes).collect();
    let string = asn1::element(context_primitive(0), &[&text]);
    asn1::element(context(2), &[&string])
}

fn page_hash_link(hashes: &[u8]) -> Vec<u8> {
    let hashes = asn1::element(SET, &[&asn1::element(OCTET_STRING, &[hashes])]);
    let attribute = asn1::element(SEQUENCE, &[&asn1::oid(PAGE_HASHES_V2), &hashes]);
    let serialized = asn1::element(SET, &[&attribute]);
    let class = asn1::element(OCTET_STRING, &[&PAGE_HASHES_CLASS]);
    let object = asn1::element(OCTET_STRING, &[&serialized]);
    asn1::element(context(1), &[&class, &object])
}

/// Reads the DER of the content, the SEQUENCE with its tag and length.
pub(crate) fn parse(bytes: &[u8]) -> Result<Content, Error> {
    let place = "SpcIndirectDataContent";
    let mut outer = asn1::only(bytes, SEQUENCE, place)?.children(place);
    let mut data = outer.sequence("SpcAttributeTypeAndOptionalValue")?;
    let kind = data.expect(OID, "type")?.value;
    let subject = if kind == PE_IMAGE_DATA.as_bytes() {
        let mut image = data.sequence("SpcPeImageData")?;
        image.optional(BIT_STRING, "flags")?;
        let page_hashes = match image.optional(context(0), "file")? {
            Some(file) => page_hashes_of(file)?,
            None => None,
        };
        image.finish()?;
        Subject::Pe { page_hashes }
    } else if kind == CAB_DATA.as_bytes() {
        data.any("SpcLink")?;
        Subject::Cabinet
    } else {
        let expected = format!("{PE_IMAGE_DATA} (PE image) or {CAB_DATA} (cabinet)");
        return Err(Error::format(
            format!("{place}: type"),
            expected,
            asn1::oid_text(kind),
        ));
    };
    data.finish()?;
    let mut info = outer.sequence("DigestInfo")?;
    let (oid, parameters) = asn1::algorithm(&mut info, "digest algorithm")?;
    let algorithm = accepted_digest(oid, parameters.is_some(), "DigestInfo")?;
    let digest = info.expect(OCTET_STRING, "digest")?.value.to_vec();
    info.finish()?;
    outer.finish()?;
    Ok(Content {
        subject,
        algorithm,
        digest,
    })
}

/// The digest algorithm with this object identifier, if it is one that is accepted.
pub(crate) fn accepted_digest(
    oid: &[u8],
    has_parameters: bool,
    place: &str,
) -> Result<DigestAlgorithm, Error> {
    DigestAlgorithm::from_oid(oid)
        .filter(|_| !has_parameters)
        .ok_or_else(|| {
            let found = asn1::oid_text(oid);
            Error::untrusted(place, "digest algorithm", "sha256, sha384 or sha512", found)
        })
}

fn page_hashes_of(file: asn1::Element<'_>) -> Result<Option<Vec<u8>>, Error> {
    let mut choice = file.children("SpcLink");
    let Some(object) = choice.optional(context(1), "moniker")? else {
        return Ok(None);
    };
    choice.finish()?;
    let mut object = object.children("SpcSerializedObject");
    let class = object.expect(OCTET_STRING, "class id")?.value;
    if class != PAGE_HASHES_CLASS {
        let expected = crate::digest::hex(&PAGE_HASHES_CLASS);
        let found = crate::digest::hex(class);
        return Err(Error::format(
            "SpcSerializedObject: class id",
            expected,
            found,
        ));
    }
    let serialized = object.expect(OCTET_STRING, "serialized data")?.value;
    object.finish()?;
    let set = asn1::only(serialized, SET, "page hashes")?;
    let mut set = set.children("page hashes");
    let mut attribute = set.sequence("page hashes")?;
    set.finish()?;
    let kind = attribute.expect(OID, "type")?.value;
    if kind != PAGE_HASHES_V2.as_bytes() {
        let expected = format!("{PAGE_HASHES_V2} (SHA-256)");
        let found = asn1::oid_text(kind);
        return Err(Error::untrusted("page hashes", "type", expected, found));
    }
    let mut values = attribute.expect(SET, "values")?.children("page hashes");
    attribute.finish()?;
    let hashes = values.expect(OCTET_STRING, "list")?.value.to_vec();
    values.finish()?;
    Ok(Some(hashes))
}
