//! `hpbuild verify`: is this package, cabinet or image what a trusted signer made?

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;
use hpbuild_signer::package::{MANIFEST, PROVENANCE_SUFFIX, PackageReport, verify_package};
use hpbuild_signer::{
    Certificate, Check, Checks, Error, FileKind, Limits, SignatureReport, SignerFacts, Trust,
};
use serde::Serialize;

use super::signer::{at, now, read, read_text};
use crate::cli::Format;
use crate::failure::{Failure, Outcome};
use crate::{output, render};

#[derive(Clone, Debug, Args)]
pub(crate) struct VerifyArguments {
    /// The package, cabinet or image
    pub(crate) file: PathBuf,

    /// What the report calls the file, where its path means nothing to the user.
    #[arg(skip)]
    pub(crate) shown: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) trust: TrustArguments,

    /// The statement of how the package was made; by default the file beside it, if it is there
    #[arg(long, value_name = "FILE")]
    pub(crate) provenance: Option<PathBuf>,

    /// Unpack the package into this folder once it has been verified
    #[arg(long, value_name = "DIR")]
    pub(crate) unpack: Option<PathBuf>,

    /// The form of the report
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(crate) format: Format,

    /// Print nothing but errors
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// Whom to believe.
#[derive(Clone, Debug, Args)]
pub(crate) struct TrustArguments {
    /// Believe signers below the certificates in this file (PEM; may be repeated)
    #[arg(long, value_name = "FILE", required = true)]
    pub(crate) trust: Vec<PathBuf>,

    /// Believe time stamps below these instead (PEM; may be repeated)
    #[arg(long, value_name = "FILE")]
    pub(crate) trust_time_stamps: Vec<PathBuf>,

    /// Believe only the signer with this certificate (SHA-256 in hexadecimal; may be repeated)
    #[arg(long, value_name = "SHA256")]
    pub(crate) pin: Vec<String>,

    /// Refuse signatures without a time stamp
    #[arg(long)]
    pub(crate) require_time_stamp: bool,
}

impl TrustArguments {
    pub(crate) fn trust(&self) -> Result<Trust, Failure> {
        Ok(Trust {
            anchors: certificates(&self.trust)?,
            time_stamp_anchors: certificates(&self.trust_time_stamps)?,
            now: now(),
            pinned: self
                .pin
                .iter()
                .map(|pin| fingerprint(pin))
                .collect::<Result<_, _>>()?,
            require_time_stamp: self.require_time_stamp,
        })
    }
}

fn certificates(paths: &[PathBuf]) -> Result<Vec<Certificate>, Failure> {
    let mut all = Vec::new();
    for path in paths {
        let text = read_text(path)?;
        all.extend(Certificate::from_pem(&text).map_err(|error| at(path, &error))?);
    }
    Ok(all)
}

fn fingerprint(text: &str) -> Result<[u8; 32], Failure> {
    let plain = text.replace(':', "").to_lowercase();
    let digest: Result<hpbuild_metadata::manifest::Sha256, _> = plain.parse();
    digest
        .map(|digest| digest.0)
        .map_err(|error| Failure::new(format!("--pin {text}: {error}")))
}

/// What the verification says.
#[derive(Serialize)]
struct Report {
    schema: u32,
    file: String,
    verdict: &'static str,
    checks: Vec<Check>,
    /// The first thing that is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    package: Option<PackageReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signature: Option<SignatureReport>,
}

pub(crate) fn run(arguments: &VerifyArguments) -> Result<Outcome, Failure> {
    let trust = arguments.trust.trust()?;
    let shown = arguments.shown.as_ref().unwrap_or(&arguments.file);
    let bytes = read(&arguments.file)?;
    let kind = FileKind::of(&bytes).map_err(|error| at(&arguments.file, &error))?;
    let provenance = provenance(arguments)?;
    let mut checks = Checks::default();
    let mut report = Report {
        schema: 1,
        file: shown.display().to_string(),
        verdict: "verified",
        checks: Vec::new(),
        failure: None,
        package: None,
        signature: None,
    };
    // A cabinet without a manifest is somebody's signed cabinet; everything else is a package.
    let is_package = kind == FileKind::Cabinet
        && !hpbuild_signer::read_cabinet(&bytes, Limits::default())
            .is_ok_and(|files| files.iter().all(|file| file.name != MANIFEST));
    let result: Result<(), Error> = if is_package {
        let statement = provenance.as_deref();
        verify_package(&bytes, statement, &trust, Limits::default(), &mut checks)
            .map(|found| report.package = Some(found))
    } else if arguments.unpack.is_some() || arguments.provenance.is_some() {
        let message = format!("{}: expected a package, found none", shown.display());
        return Err(Failure::new(message));
    } else {
        hpbuild_signer::verify(&bytes, &trust, &mut checks)
            .map(|found| report.signature = Some(found))
    };
    report.checks = checks.0;
    if let Err(error) = &result {
        report.verdict = "refused";
        report.failure = Some(error.to_string());
    } else if let (Some(folder), Some(package)) = (&arguments.unpack, &report.package) {
        unpack(folder, package)?;
    }
    if !arguments.quiet {
        output::print(&match arguments.format {
            Format::Json => render::json(&report),
            Format::Text => text(&report),
        })?;
    }
    if let Err(error) = result {
        anstream::eprintln!("hpbuild: {}: {error}", shown.display());
        return Ok(Outcome::Refused);
    }
    Ok(Outcome::Done)
}

fn provenance(arguments: &VerifyArguments) -> Result<Option<Vec<u8>>, Failure> {
    if let Some(path) = &arguments.provenance {
        return read(path).map(Some);
    }
    let mut beside = arguments.file.clone().into_os_string();
    beside.push(PROVENANCE_SUFFIX);
    let beside = PathBuf::from(beside);
    if beside.exists() {
        read(&beside).map(Some)
    } else {
        Ok(None)
    }
}

/// Writes the verified files into `folder`. Their names have been found plain when the cabinet
/// was read, so none leads out of it; a link that stands in the way is replaced, not followed.
fn unpack(folder: &Path, package: &PackageReport) -> Result<(), Failure> {
    std::fs::create_dir_all(folder)
        .map_err(|error| Failure::new(format!("{}: {error}", folder.display())))?;
    for file in &package.files {
        output::write_file(&folder.join(&file.name), &file.bytes)?;
    }
    Ok(())
}

fn text(report: &Report) -> String {
    let mut text = String::new();
    for check in &report.checks {
        let _ = writeln!(text, "ok      {}: {}", check.place, check.holds);
    }
    if let Some(failure) = &report.failure {
        let _ = writeln!(text, "FAILED  {failure}");
    }
    if let Some(package) = &report.package {
        text.push('\n');
        text.push_str(&render::package::summary(&package.manifest));
        signers(&mut text, &package.signature.signers);
        if !package.provenance {
            text.push_str("no statement of how it was made\n");
        }
    }
    if let Some(signature) = &report.signature {
        text.push('\n');
        signers(&mut text, &signature.signers);
    }
    let _ = writeln!(text, "{}: {}", report.file, report.verdict);
    text
}

fn signers(text: &mut String, signers: &[SignerFacts]) {
    for signer in signers {
        let nested = if signer.nested { " (nested)" } else { "" };
        let _ = writeln!(
            text,
            "signed by {}{nested}\n  sha256 {}",
            signer.subject, signer.fingerprint
        );
        match (&signer.time_stamp, &signer.signing_time) {
            (Some(stamp), _) => {
                let _ = writeln!(text, "  time-stamped {} by {}", stamp.time, stamp.authority);
            }
            (None, Some(time)) => {
                let _ = writeln!(text, "  no time stamp; claims {time}");
            }
            (None, None) => {
                let _ = writeln!(text, "  no time stamp");
            }
        }
    }
}
