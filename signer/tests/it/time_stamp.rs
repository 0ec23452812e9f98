//! Time stamps from a responder that runs here, on loopback: one of our own making, and OpenSSL's.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cms::cert::{CertificateChoices, IssuerAndSerialNumber};
use cms::content_info::{CmsVersion, ContentInfo};
use cms::signed_data::{
    CertificateSet, EncapsulatedContentInfo, SignedData, SignerIdentifier, SignerInfo, SignerInfos,
};
use der::asn1::{Any, GeneralizedTime, ObjectIdentifier, OctetString, SetOfVec};
use der::{Decode, DecodePem, Encode, Sequence};
use hpbuild_metadata::Machine;
use hpbuild_signer::{
    Certificate, Checks, Error, Existing, SignOptions, TestKey, TestKeys, TimeStampServer, Trust,
    sign, verify,
};
use p256::ecdsa::signature::Signer as _;
use pkcs8::DecodePrivateKey;
use spki::AlgorithmIdentifierOwned;
use x509_cert::attr::Attribute;

use crate::{sample, tools};

const TST_INFO: &str = "1.2.840.113549.1.9.16.1.4";

/// What the responder does.
#[derive(Clone)]
pub(crate) enum Responder {
    /// Signs, at this time, with this key.
    Own {
        time: u64,
        key: String,
        certificate: String,
    },
    /// Has OpenSSL sign.
    OpenSsl { folder: PathBuf },
    /// Answers with these bytes.
    Fixed(Vec<u8>),
}

impl Responder {
    pub(crate) fn own(keys: &TestKeys, time: u64) -> Self {
        let TestKey { key, certificate } = &keys.time_stamping;
        Responder::Own {
            time,
            key: key.to_string(),
            certificate: certificate.clone(),
        }
    }

    /// Starts a server for `count` requests and returns its address.
    pub(crate) fn start(self, count: usize) -> TimeStampServer {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/stamp", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for _ in 0..count {
                let (stream, _) = listener.accept().unwrap();
                self.serve(stream);
            }
        });
        TimeStampServer {
            timeout: Duration::from_secs(10),
            ..TimeStampServer::new(url)
        }
    }

    fn serve(&self, mut stream: TcpStream) {
        let mut bytes = Vec::new();
        let mut part = [0; 4096];
        let body = loop {
            let length = stream.read(&mut part).unwrap();
            bytes.extend_from_slice(&part[..length]);
            let text = String::from_utf8_lossy(&bytes).to_lowercase();
            let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") else {
                continue;
            };
            assert!(
                text.contains("content-type: application/timestamp-query"),
                "{text}"
            );
            let field = text.split("content-length: ").nth(1).unwrap();
            let expected: usize = field.lines().next().unwrap().trim().parse().unwrap();
            if bytes.len() - end - 4 >= expected {
                break bytes[end + 4..].to_vec();
            }
        };
        let answer = match self {
            Responder::Own {
                time,
                key,
                certificate,
            } => respond(&body, *time, key, certificate),
            Responder::OpenSsl { folder } => {
                std::fs::write(folder.join("query.tsq"), &body).unwrap();
                let arguments = [
                    "ts",
                    "-reply",
                    "-config",
                    "ts.cnf",
                    "-queryfile",
                    "query.tsq",
                ];
                let out = ["-out", "reply.tsr"];
                let all = [&arguments[..], &out[..]].concat();
                let status = Command::new("openssl")
                    .args(all)
                    .current_dir(folder)
                    .output()
                    .unwrap();
                assert!(status.status.success(), "{status:?}");
                std::fs::read(folder.join("reply.tsr")).unwrap()
            }
            Responder::Fixed(bytes) => bytes.clone(),
        };
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/timestamp-reply\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            answer.len()
        );
        let _ = stream.write_all(head.as_bytes());
        let _ = stream.write_all(&answer);
    }
}

#[derive(Sequence)]
struct Request {
    version: u8,
    imprint: Any,
    nonce: Any,
    certificates: bool,
}

#[derive(Sequence)]
struct Info {
    version: u8,
    policy: ObjectIdentifier,
    imprint: Any,
    serial: u64,
    time: GeneralizedTime,
    nonce: Any,
}

#[derive(Sequence)]
struct Status {
    status: u8,
}

#[derive(Sequence)]
struct Response {
    status: Status,
    token: ContentInfo,
}

fn oid(text: &str) -> ObjectIdentifier {
    ObjectIdentifier::new(text).unwrap()
}

fn attribute(kind: &str, value: impl Encode) -> Attribute {
    Attribute {
        oid: oid(kind),
        values: SetOfVec::try_from(vec![Any::from_der(&value.to_der().unwrap()).unwrap()]).unwrap(),
    }
}

/// A time-stamp response, put together from the crate `cms`.
fn respond(request: &[u8], time: u64, key: &str, certificate: &str) -> Vec<u8> {
    let request = Request::from_der(request).unwrap();
    assert!(request.version == 1 && request.certificates);
    let info = Info {
        version: 1,
        policy: oid("1.2.3.4"),
        imprint: request.imprint,
        serial: 77,
        time: GeneralizedTime::from_unix_duration(Duration::from_secs(time)).unwrap(),
        nonce: request.nonce,
    };
    let info = info.to_der().unwrap();
    let certificate = x509_cert::Certificate::from_pem(certificate).unwrap();
    let digest = |bytes: &[u8]| {
        let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
        OctetString::new(digest.as_ref()).unwrap()
    };
    // SigningCertificateV2 ::= SEQUENCE { SEQUENCE OF SEQUENCE { OCTET STRING } }
    let id = vec![vec![vec![digest(&certificate.to_der().unwrap())]]];
    let attributes = SetOfVec::try_from(vec![
        attribute("1.2.840.113549.1.9.3", oid(TST_INFO)),
        attribute("1.2.840.113549.1.9.4", digest(&info)),
        attribute("1.2.840.113549.1.9.16.2.47", id),
    ])
    .unwrap();
    let key = p256::ecdsa::SigningKey::from_pkcs8_pem(key).unwrap();
    let signature: p256::ecdsa::DerSignature = key.sign(&attributes.to_der().unwrap());
    let sha256 = AlgorithmIdentifierOwned {
        oid: oid("2.16.840.1.101.3.4.2.1"),
        parameters: None,
    };
    let tbs = &certificate.tbs_certificate;
    let signer = SignerInfo {
        version: CmsVersion::V1,
        sid: SignerIdentifier::IssuerAndSerialNumber(IssuerAndSerialNumber {
            issuer: tbs.issuer.clone(),
            serial_number: tbs.serial_number.clone(),
        }),
        digest_alg: sha256.clone(),
        signed_attrs: Some(attributes),
        signature_algorithm: AlgorithmIdentifierOwned {
            oid: oid("1.2.840.10045.4.3.2"),
            parameters: None,
        },
        signature: OctetString::new(signature.as_bytes()).unwrap(),
        unsigned_attrs: None,
    };
    let content = OctetString::new(info).unwrap().to_der().unwrap();
    let data = SignedData {
        version: CmsVersion::V3,
        digest_algorithms: SetOfVec::try_from(vec![sha256]).unwrap(),
        encap_content_info: EncapsulatedContentInfo {
            econtent_type: oid(TST_INFO),
            econtent: Some(Any::from_der(&content).unwrap()),
        },
        certificates: Some(CertificateSet(
            SetOfVec::try_from(vec![CertificateChoices::Certificate(certificate)]).unwrap(),
        )),
        crls: None,
        signer_infos: SignerInfos(SetOfVec::try_from(vec![signer]).unwrap()),
    };
    let response = Response {
        status: Status { status: 0 },
        token: ContentInfo {
            content_type: oid("1.2.840.113549.1.7.2"),
            content: Any::from_der(&data.to_der().unwrap()).unwrap(),
        },
    };
    response.to_der().unwrap()
}

fn stamped(server: TimeStampServer) -> SignOptions {
    SignOptions {
        time_stamp: Some(server),
        ..SignOptions::default()
    }
}

#[test]
fn a_time_stamp_keeps_a_signature_valid_after_its_certificate() {
    let keys = sample::keys();
    let trust = sample::trust(&keys);
    let image = sample::patch_image(Machine::X64);
    let server = Responder::own(&keys, sample::NOW).start(2);
    let options = stamped(server);
    let signed = sign(&image, &options, &sample::signer(&keys)).unwrap();
    let report = verify(&signed, &trust, &mut Checks::default()).unwrap();
    let stamp = report.signers[0].time_stamp.as_ref().unwrap();
    assert_eq!(stamp.time, "2026-01-01T00:00:00Z");
    assert!(
        stamp.authority.contains("time stamping"),
        "{}",
        stamp.authority
    );
    let later = Trust {
        now: sample::NOW + 60_000 * 86_400,
        require_time_stamp: true,
        ..trust.clone()
    };
    verify(&signed, &later, &mut Checks::default()).unwrap();
    // A second signature brings its own time stamp.
    let nested = SignOptions {
        existing: Existing::Nest,
        ..options
    };
    let twice = sign(&signed, &nested, &sample::signer(&keys)).unwrap();
    let report = verify(&twice, &later, &mut Checks::default()).unwrap();
    assert!(
        report
            .signers
            .iter()
            .all(|signer| signer.time_stamp.is_some())
    );
    let mut changed = twice.clone();
    for index in 0..changed.len() {
        changed[index] ^= 0x04;
        assert!(
            verify(&changed, &later, &mut Checks::default()).is_err(),
            "byte {index:#x}"
        );
        changed[index] ^= 0x04;
    }
}

#[test]
fn a_time_stamp_is_believed_only_from_whom_it_should_be() {
    let keys = sample::keys();
    let other = sample::keys();
    let image = sample::patch_image(Machine::X64);
    let sign_with =
        |responder: Responder| sign(&image, &stamped(responder.start(1)), &sample::signer(&keys));
    let fails = |signed: &[u8], trust: &Trust, part: &str| {
        let error = verify(signed, trust, &mut Checks::default())
            .unwrap_err()
            .to_string();
        assert!(error.contains(part), "{error}");
    };
    let trust = sample::trust(&keys);
    let foreign = sign_with(Responder::own(&other, sample::NOW)).unwrap();
    fails(&foreign, &trust, "time stamp: certificate");
    let both = Trust {
        time_stamp_anchors: Certificate::from_pem(&other.authority.certificate).unwrap(),
        ..trust.clone()
    };
    verify(&foreign, &both, &mut Checks::default()).unwrap();
    let future = sign_with(Responder::own(&keys, sample::NOW + 3600)).unwrap();
    fails(&future, &trust, "time stamp: time");
    let early = sign_with(Responder::own(&keys, sample::NOW - 3 * 86_400)).unwrap();
    fails(&early, &trust, "chain");
    // A code-signing key is no time stamper.
    let wrong = Responder::Own {
        time: sample::NOW,
        key: keys.code_signing.key.to_string(),
        certificate: keys.code_signing.certificate.clone(),
    };
    fails(&sign_with(wrong).unwrap(), &trust, "purpose");
}

#[test]
fn a_useless_server_is_an_error_that_names_it() {
    let keys = sample::keys();
    let image = sample::patch_image(Machine::X64);
    let rejection = [0x30, 0x05, 0x30, 0x03, 0x02, 0x01, 0x02];
    for answer in [
        Vec::new(),
        b"<html>".to_vec(),
        rejection.to_vec(),
        vec![0x30; 2 << 20],
    ] {
        let server = Responder::Fixed(answer).start(1);
        let url = server.url.clone();
        let error = sign(&image, &stamped(server), &sample::signer(&keys)).unwrap_err();
        assert!(error.to_string().contains(&url), "{error}");
        assert!(matches!(error, Error::TimeStampServer { .. }));
    }
    for url in ["https://127.0.0.1:1/", "http://127.0.0.1:1/", "nonsense"] {
        let server = TimeStampServer::new(url);
        assert!(sign(&image, &stamped(server), &sample::signer(&keys)).is_err());
    }
}

#[test]
fn osslsigncode_believes_our_time_stamps() {
    if !tools::have("osslsigncode") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let keys = sample::keys();
    let server = Responder::own(&keys, sample::NOW).start(1);
    let image = sample::patch_image(Machine::X64);
    let signed = sign(&image, &stamped(server), &sample::signer(&keys)).unwrap();
    std::fs::write(path.join("ca.pem"), &keys.authority.certificate).unwrap();
    std::fs::write(path.join("signed.dll"), signed).unwrap();
    let arguments = [
        "verify",
        "-CAfile",
        "ca.pem",
        "-TSA-CAfile",
        "ca.pem",
        "-in",
        "signed.dll",
    ];
    let text = tools::succeed("osslsigncode", &arguments, path);
    assert!(
        text.contains("Timestamp Server Signature verification: ok"),
        "{text}"
    );
    assert!(
        text.contains("Timestamp time: Jan  1 00:00:00 2026 GMT"),
        "{text}"
    );
}

/// `ts.cnf` for OpenSSL's responder, with paths relative to its folder.
const OPENSSL_RESPONDER: &str = "
[tsa]
default_tsa = here
[here]
serial = ./serial
signer_cert = ./tsa.pem
signer_key = ./tsa.key
signer_digest = sha256
default_policy = 1.2.3.4
digests = sha256, sha384
accuracy = secs:1
ordering = yes
tsa_name = yes
ess_cert_id_alg = ALGORITHM
ess_cert_id_chain = no
";

#[test]
fn time_stamps_of_openssl_are_verified() {
    if !tools::have_with("openssl", "version") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let keys = sample::keys();
    std::fs::write(path.join("tsa.pem"), &keys.time_stamping.certificate).unwrap();
    std::fs::write(path.join("tsa.key"), keys.time_stamping.key.as_bytes()).unwrap();
    for algorithm in ["sha1", "sha256", "sha384"] {
        let config = OPENSSL_RESPONDER.replace("ALGORITHM", algorithm);
        std::fs::write(path.join("ts.cnf"), config).unwrap();
        let responder = Responder::OpenSsl {
            folder: path.to_owned(),
        };
        let image = sample::patch_image(Machine::X64);
        let signed = sign(&image, &stamped(responder.start(1)), &sample::signer(&keys)).unwrap();
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs();
        let trust = Trust {
            now,
            ..sample::trust(&keys)
        };
        let report = verify(&signed, &trust, &mut Checks::default()).unwrap();
        let stamp = report.signers[0].time_stamp.as_ref().unwrap();
        assert!(stamp.seconds.abs_diff(now) < 300);
    }
}
