//! Throw-away keys for trying things out. Everything made here says that it is a test.

use const_oid::ObjectIdentifier;
use const_oid::db::rfc5280::{
    ID_CE_BASIC_CONSTRAINTS, ID_CE_EXT_KEY_USAGE, ID_CE_KEY_USAGE, ID_CE_SUBJECT_KEY_IDENTIFIER,
    ID_KP_CODE_SIGNING, ID_KP_TIME_STAMPING,
};
use der::asn1::{BitString, OctetString};
use der::flagset::FlagSet;
use der::pem::LineEnding;
use der::{Decode, Encode, EncodePem};
use p256::elliptic_curve::rand_core::{OsRng, RngCore as _};
use pkcs8::EncodePrivateKey;
use spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::{
    BasicConstraints, ExtendedKeyUsage, KeyUsage, KeyUsages, SubjectKeyIdentifier,
};
use x509_cert::name::RdnSequence;
use x509_cert::serial_number::SerialNumber;
use x509_cert::time::Validity;
use x509_cert::{Certificate as Fields, TbsCertificate, Version};
use zeroize::Zeroizing;

use crate::authenticode::x509_time;
use crate::digest::{DigestAlgorithm, sha256};
use crate::error::Error;
use crate::keys::{KeyAlgorithm, LocalKey, Passphrase};

/// What to make.
#[derive(Clone, Debug)]
pub struct TestKeysOptions {
    /// The name in the certificates; `TEST` is put before it.
    pub name: String,
    /// First second of validity, since 1970.
    pub from: u64,
    /// Days of validity.
    pub days: u32,
    /// Encrypts the private keys where given.
    pub passphrase: Option<Passphrase>,
}

/// A private key and its certificate, as PEM text.
pub struct TestKey {
    /// PKCS #8.
    pub key: Zeroizing<String>,
    /// The certificate alone.
    pub certificate: String,
}

/// A test authority and what it issued.
pub struct TestKeys {
    /// The authority; its key is needed only to issue more.
    pub authority: TestKey,
    /// For signing images and packages.
    pub code_signing: TestKey,
    /// For a time-stamp server.
    pub time_stamping: TestKey,
}

/// Makes a test authority, and a code-signing and a time-stamping certificate under it, all with
/// fresh ECDSA P-256 keys.
///
/// # Errors
/// When the name cannot stand in a certificate or the validity leaves the calendar.
pub fn keygen_test(options: &TestKeysOptions) -> Result<TestKeys, Error> {
    let authority = Issued::make(options, &AUTHORITY, None)?;
    let code = Issued::make(options, &CODE_SIGNING, Some(&authority))?;
    let time = Issued::make(options, &TIME_STAMPING, Some(&authority))?;
    Ok(TestKeys {
        authority: authority.into_pem(options)?,
        code_signing: code.into_pem(options)?,
        time_stamping: time.into_pem(options)?,
    })
}

/// What distinguishes the three certificates.
struct Profile {
    role: &'static str,
    usage: KeyUsages,
    purpose: Option<(ObjectIdentifier, bool)>,
}

const AUTHORITY: Profile = Profile {
    role: "certificate authority",
    usage: KeyUsages::KeyCertSign,
    purpose: None,
};
const CODE_SIGNING: Profile = Profile {
    role: "code signing",
    usage: KeyUsages::DigitalSignature,
    purpose: Some((ID_KP_CODE_SIGNING, false)),
};
const TIME_STAMPING: Profile = Profile {
    role: "time stamping",
    usage: KeyUsages::DigitalSignature,
    purpose: Some((ID_KP_TIME_STAMPING, true)),
};

struct Issued {
    secret: p256::SecretKey,
    certificate: Fields,
}

fn encoding(error: impl std::fmt::Display) -> Error {
    Error::request("test keys", format!("cannot be encoded: {error}"))
}

impl Issued {
    fn make(
        options: &TestKeysOptions,
        profile: &Profile,
        issuer: Option<&Issued>,
    ) -> Result<Self, Error> {
        let secret = p256::SecretKey::random(&mut OsRng);
        let local = LocalKey::from_p256(secret.clone());
        let public = local.public_key_info()?;
        let public = SubjectPublicKeyInfoOwned::from_der(&public).map_err(encoding)?;
        let subject = subject(&options.name, profile.role)?;
        let signer = issuer.map_or_else(
            || LocalKey::from_p256(secret.clone()),
            |issuer| LocalKey::from_p256(issuer.secret.clone()),
        );
        let issuer_name = issuer.map_or_else(
            || subject.clone(),
            |i| i.certificate.tbs_certificate.subject.clone(),
        );
        let until = options
            .from
            .saturating_add(u64::from(options.days) * 86_400);
        let algorithm = AlgorithmIdentifierOwned {
            oid: KeyAlgorithm::P256.signature_oid(DigestAlgorithm::Sha256),
            parameters: None,
        };
        let mut serial = [0u8; 16];
        OsRng.fill_bytes(&mut serial);
        serial[0] = serial[0] & 0x7f | 0x40;
        let tbs_certificate = TbsCertificate {
            version: Version::V3,
            serial_number: SerialNumber::new(&serial).map_err(encoding)?,
            signature: algorithm.clone(),
            issuer: issuer_name,
            validity: Validity {
                not_before: x509_time(options.from)?,
                not_after: x509_time(until)?,
            },
            subject,
            extensions: Some(extensions(profile, public.subject_public_key.raw_bytes())?),
            subject_public_key_info: public,
            issuer_unique_id: None,
            subject_unique_id: None,
        };
        let message = tbs_certificate.to_der().map_err(encoding)?;
        let signature = signer.sign(DigestAlgorithm::Sha256, &message)?;
        let certificate = Fields {
            tbs_certificate,
            signature_algorithm: algorithm,
            signature: BitString::from_bytes(&signature).map_err(encoding)?,
        };
        Ok(Self {
            secret,
            certificate,
        })
    }

    fn into_pem(self, options: &TestKeysOptions) -> Result<TestKey, Error> {
        let key = match &options.passphrase {
            None => self.secret.to_pkcs8_pem(LineEnding::LF).map_err(encoding)?,
            Some(passphrase) => self
                .secret
                .to_pkcs8_encrypted_pem(&mut OsRng, passphrase.text(), LineEnding::LF)
                .map_err(encoding)?,
        };
        Ok(TestKey {
            key,
            certificate: self.certificate.to_pem(LineEnding::LF).map_err(encoding)?,
        })
    }
}

fn subject(name: &str, role: &str) -> Result<RdnSequence, Error> {
    // A name is typed by a person; what has a meaning in the text form of names stays out.
    let plain = |c: char| c.is_alphanumeric() || " .-_()".contains(c);
    if name.is_empty() || name.len() > 40 || !name.chars().all(plain) {
        let reason = "a name has 1 to 40 bytes of letters, digits, spaces and . - _ ( )";
        return Err(Error::request("test keys: name", reason));
    }
    format!("CN=TEST {name} {role},O=TEST ONLY - do not trust")
        .parse()
        .map_err(encoding)
}

fn extensions(profile: &Profile, public: &[u8]) -> Result<Vec<Extension>, Error> {
    let extension = |extn_id, critical, value: Result<Vec<u8>, der::Error>| {
        let value = value.map_err(encoding)?;
        Ok::<_, Error>(Extension {
            extn_id,
            critical,
            extn_value: OctetString::new(value).map_err(encoding)?,
        })
    };
    let constraints = BasicConstraints {
        ca: profile.purpose.is_none(),
        path_len_constraint: None,
    };
    let usage = KeyUsage(FlagSet::from(profile.usage));
    let identifier = OctetString::new(&sha256(public)[..20]).map_err(encoding)?;
    let mut extensions = vec![
        extension(ID_CE_BASIC_CONSTRAINTS, true, constraints.to_der())?,
        extension(ID_CE_KEY_USAGE, true, usage.to_der())?,
        extension(
            ID_CE_SUBJECT_KEY_IDENTIFIER,
            false,
            SubjectKeyIdentifier(identifier).to_der(),
        )?,
    ];
    if let Some((purpose, critical)) = profile.purpose {
        let usage = ExtendedKeyUsage(vec![purpose]);
        extensions.push(extension(ID_CE_EXT_KEY_USAGE, critical, usage.to_der())?);
    }
    Ok(extensions)
}
