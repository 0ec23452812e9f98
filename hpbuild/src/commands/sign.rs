//! `hpbuild sign`: Authenticode on an image or a cabinet, in one step or in two.

use std::path::{Path, PathBuf};

use clap::Args;
use hpbuild_signer::{Certificate, Existing, Prepared, SignOptions};
use serde::Serialize;

use super::signer::{SignatureArguments, SignerArguments, at, read};
use crate::cli::Format;
use crate::failure::{Failure, Outcome};
use crate::{output, render};

#[derive(Clone, Debug, Args)]
pub(crate) struct SignArguments {
    /// The image or cabinet to sign
    pub(crate) file: PathBuf,

    /// Where to write the signed file (with --digest-only: the signing request)
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: PathBuf,

    /// Only write what is to be signed, for a key that is elsewhere, and print its digest
    #[arg(long, conflicts_with_all = ["attach", "key-source"])]
    pub(crate) digest_only: bool,

    /// Finish what --digest-only began: the request it wrote
    #[arg(
        long,
        value_name = "FILE",
        requires = "signature",
        conflicts_with = "key-source"
    )]
    pub(crate) attach: Option<PathBuf>,

    /// The signature that was made of the digest: raw bytes
    #[arg(long, value_name = "FILE", requires = "attach")]
    pub(crate) signature: Option<PathBuf>,

    /// Put the new signature in the place of the one that is there
    #[arg(long, conflicts_with = "nest")]
    pub(crate) replace: bool,

    /// Put the new signature inside the one that is there
    #[arg(long)]
    pub(crate) nest: bool,

    #[command(flatten)]
    pub(crate) signer: SignerArguments,

    #[command(flatten)]
    pub(crate) how: SignatureArguments,

    /// The form of the report
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(crate) format: Format,
}

/// What was done.
#[derive(Serialize)]
struct Report {
    schema: u32,
    file: String,
    output: String,
    digest_algorithm: &'static str,
    /// What the key's owner has to sign; with `--digest-only` alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
}

pub(crate) fn run(arguments: &SignArguments) -> Result<Outcome, Failure> {
    let existing = match (arguments.replace, arguments.nest) {
        (true, _) => Existing::Replace,
        (_, true) => Existing::Nest,
        _ => Existing::Refuse,
    };
    let options = arguments.how.options(existing)?;
    let bytes = read(&arguments.file)?;
    let fail = |error: hpbuild_signer::Error| at(&arguments.file, &error);
    let mut report = Report {
        schema: 1,
        file: arguments.file.display().to_string(),
        output: arguments.output.display().to_string(),
        digest_algorithm: options.digest.name(),
        digest: None,
    };
    let result = if arguments.digest_only {
        let text = arguments.signer.needed_certificates()?;
        let certificates = Certificate::from_pem(&text)?;
        let prepared = hpbuild_signer::prepare(&bytes, &options, &certificates).map_err(fail)?;
        report.digest = Some(hex(&prepared.digest()));
        prepared.to_json()
    } else if let (Some(request), Some(signature)) = (&arguments.attach, &arguments.signature) {
        let prepared = Prepared::from_json(&read(request)?).map_err(|error| at(request, &error))?;
        report.digest_algorithm = prepared.algorithm().name();
        attach(&bytes, &prepared, signature, &options).map_err(|failure| failure.or(fail))?
    } else {
        let signer = arguments.signer.open()?;
        hpbuild_signer::sign(&bytes, &options, &signer).map_err(fail)?
    };
    output::write_file(&arguments.output, &result)?;
    let text = match arguments.format {
        Format::Json => render::json(&report),
        // The digest is the result of the first step; the second has a file and needs no words.
        Format::Text => report
            .digest
            .map_or_else(String::new, |digest| digest + "\n"),
    };
    output::print(&text)?;
    Ok(Outcome::Done)
}

/// Why the second step failed: reading the signature, or attaching it.
enum AttachFailure {
    Read(Failure),
    Attach(hpbuild_signer::Error),
}

impl AttachFailure {
    fn or(self, fail: impl FnOnce(hpbuild_signer::Error) -> Failure) -> Failure {
        match self {
            AttachFailure::Read(failure) => failure,
            AttachFailure::Attach(error) => fail(error),
        }
    }
}

fn attach(
    bytes: &[u8],
    prepared: &Prepared,
    signature: &Path,
    options: &SignOptions,
) -> Result<Vec<u8>, AttachFailure> {
    let value = read(signature).map_err(AttachFailure::Read)?;
    hpbuild_signer::attach(bytes, prepared, &value, options).map_err(AttachFailure::Attach)
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
