//! Whom to believe, and the path from a signer to it.

use const_oid::ObjectIdentifier;
use const_oid::db::rfc5280::{ID_KP_CODE_SIGNING, ID_KP_TIME_STAMPING};
use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use crate::certificate::Certificate;
use crate::digest::hex;
use crate::error::Error;

/// What a verification rests on.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    /// Certificates whose signers are believed.
    pub anchors: Vec<Certificate>,
    /// The same for time stamps; [`Trust::anchors`] where empty.
    pub time_stamp_anchors: Vec<Certificate>,
    /// The present, in seconds since 1970. A signature without time stamp must be valid now.
    pub now: u64,
    /// Where not empty: SHA-256 of the only certificates that may have signed.
    pub pinned: Vec<[u8; 32]>,
    /// Whether a signature without time stamp is refused.
    pub require_time_stamp: bool,
}

/// One thing that was looked at and found right.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Check {
    /// The file or structure.
    pub place: String,
    /// What holds.
    pub holds: String,
}

/// What was checked, in order; kept by the caller, so that it is there when a check fails.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Checks(pub Vec<Check>);

impl Checks {
    pub(crate) fn add(&mut self, place: &str, holds: impl Into<String>) {
        self.0.push(Check {
            place: place.to_owned(),
            holds: holds.into(),
        });
    }
}

/// What a certificate must be allowed to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    CodeSigning,
    TimeStamping,
}

impl Purpose {
    fn oid(self) -> ObjectIdentifier {
        match self {
            Purpose::CodeSigning => ID_KP_CODE_SIGNING,
            Purpose::TimeStamping => ID_KP_TIME_STAMPING,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Purpose::CodeSigning => "code signing",
            Purpose::TimeStamping => "time stamping",
        }
    }

    /// The purpose for the path builder. It asks the same of every certificate on the way, so the
    /// ones that name no purpose must pass here; the signer's own is asked apart from it.
    fn usage(self) -> KeyUsage {
        match self {
            Purpose::CodeSigning => {
                KeyUsage::required_if_present(&[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x03])
            }
            Purpose::TimeStamping => {
                KeyUsage::required_if_present(&[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x08])
            }
        }
    }
}

/// A signer, the certificates that came with it, and the moment it is judged at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chain<'a> {
    pub(crate) certificates: &'a [Certificate],
    pub(crate) signer: usize,
    pub(crate) time: u64,
    pub(crate) purpose: Purpose,
    pub(crate) place: &'a str,
}

/// Checks that the signer's certificate leads to one of `anchors` at the time given and may be
/// used for the purpose, and that no certificate lies beside the way. Returns the trusted
/// certificate at its end.
pub(crate) fn check_chain<'t>(
    chain: Chain<'_>,
    anchors: &'t [Certificate],
) -> Result<&'t Certificate, Error> {
    let own = &chain.certificates[chain.signer];
    // RFC 3161 wants a time stamper's certificate to be for that alone.
    let alone = chain.purpose == Purpose::TimeStamping;
    if !own.has_purpose(chain.purpose.oid(), alone) || !own.may_sign() {
        return Err(chain.fail("purpose", chain.purpose.name(), "another or none"));
    }
    // The anchor's own dates are not looked at by the path builder.
    let valid = |anchor: &&Certificate| {
        let (first, last) = anchor.validity();
        (first..=last).contains(&chain.time)
    };
    let valid: Vec<&'t Certificate> = anchors.iter().filter(valid).collect();
    let ders: Vec<_> = valid
        .iter()
        .map(|c| CertificateDer::from(c.der()))
        .collect();
    let mut usable = Vec::new();
    for (anchor, der) in valid.iter().zip(&ders) {
        usable.push(anchor_from_trusted_cert(der).map_err(|error| {
            let place = format!("trusted certificate {}", anchor.subject());
            Error::format(place, "a usable one", error.to_string())
        })?);
    }
    let others: Vec<_> = chain
        .certificates
        .iter()
        .filter(|c| *c != own)
        .map(|c| CertificateDer::from(c.der()))
        .collect();
    let own_der = CertificateDer::from(own.der());
    let at = crate::time::format(chain.time);
    let expected = format!("a valid chain to a trusted certificate at {at}");
    let broken = |error: webpki::Error| chain.fail("chain", &expected, &error.to_string());
    let entity = EndEntityCert::try_from(&own_der).map_err(broken)?;
    let time = UnixTime::since_unix_epoch(std::time::Duration::from_secs(chain.time));
    let usage = chain.purpose.usage();
    let algorithms = webpki::ALL_VERIFICATION_ALGS;
    let path = entity
        .verify_for_usage(algorithms, &usable, &others, time, usage, None, None)
        .map_err(broken)?;
    let used: Vec<_> = path
        .intermediate_certificates()
        .map(webpki::Cert::der)
        .collect();
    chain.check_strays(&used, anchors)?;
    usable
        .iter()
        .position(|anchor| std::ptr::eq(anchor, path.anchor()))
        .map(|index| valid[index])
        .ok_or_else(|| chain.fail("chain", &expected, "an end that is not among the trusted"))
}

impl Chain<'_> {
    fn fail(&self, what: &'static str, expected: &str, found: &str) -> Error {
        let subject = self.certificates[self.signer].subject();
        let place = format!("{}: certificate {subject}", self.place);
        Error::untrusted(place, what, expected, found)
    }

    /// A certificate beside the way has no business in a signature, and nothing would notice if
    /// it were changed. Cross-certificates of something on the way are harmless and usual.
    fn check_strays(
        &self,
        used: &[CertificateDer<'_>],
        anchors: &[Certificate],
    ) -> Result<(), Error> {
        let own = &self.certificates[self.signer];
        let on_path = |c: &&Certificate| {
            *c == own || used.iter().any(|der| der.as_ref() == c.der()) || anchors.contains(*c)
        };
        for stray in self.certificates.iter().filter(|c| !on_path(c)) {
            let tbs = &stray.fields().tbs_certificate;
            let mut believed = self.certificates.iter().filter(on_path).chain(anchors);
            let cross = believed.any(|other| {
                let other = &other.fields().tbs_certificate;
                other.subject == tbs.subject
                    && other.subject_public_key_info == tbs.subject_public_key_info
            });
            if !cross {
                let found = format!("{} beside them", stray.subject());
                return Err(self.fail("certificates", "only those of the chain", &found));
            }
        }
        Ok(())
    }
}

/// Checks the signer's certificate against the pins, if there are any.
pub(crate) fn check_pin(
    trust: &Trust,
    certificate: &Certificate,
    place: &str,
) -> Result<(), Error> {
    if trust.pinned.is_empty() || trust.pinned.contains(&certificate.fingerprint()) {
        return Ok(());
    }
    let expected: Vec<String> = trust.pinned.iter().map(|pin| hex(pin)).collect();
    let found = format!(
        "{} ({})",
        hex(&certificate.fingerprint()),
        certificate.subject()
    );
    Err(Error::untrusted(
        place,
        "pinned signer",
        expected.join(" or "),
        found,
    ))
}
