//! Which key signs, and how: the arguments that `sign`, `package` and `release` share.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Args, ValueEnum};
use hpbuild_signer::{
    CommandSigner, DigestAlgorithm, Error, Existing, Passphrase, SignOptions, Signer,
    TimeStampServer,
};

use crate::failure::Failure;

/// How long a key service may take.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(120);

/// Where the private key is. It never passes through a file of ours.
#[derive(Clone, Debug, Args)]
#[group(id = "signer")]
pub(crate) struct SignerArguments {
    /// Sign with the key in this PEM file (PKCS #8, SEC 1 or PKCS #1)
    #[arg(long, value_name = "FILE", group = "key-source")]
    pub(crate) key: Option<PathBuf>,

    /// Sign with the key in this PKCS #12 file
    #[arg(long, value_name = "FILE", group = "key-source")]
    pub(crate) pkcs12: Option<PathBuf>,

    /// Sign with a key on a token: pkcs11:token=...;object=...
    #[cfg(feature = "pkcs11")]
    #[arg(long, value_name = "URI", group = "key-source")]
    pub(crate) pkcs11: Option<String>,

    /// The PKCS #11 module of the token, where the URI names none
    #[cfg(feature = "pkcs11")]
    #[arg(long, value_name = "FILE", requires = "pkcs11")]
    pub(crate) pkcs11_module: Option<String>,

    /// Sign with this program: it is given a digest on standard input and writes the signature
    #[arg(long, value_name = "PROGRAM", group = "key-source")]
    pub(crate) sign_command: Option<String>,

    /// An argument for the program (may be repeated)
    #[arg(
        long,
        value_name = "TEXT",
        requires = "sign_command",
        allow_hyphen_values = true
    )]
    pub(crate) sign_argument: Vec<String>,

    /// The signer's certificate and the ones above it (PEM); by default those in the key's file
    #[arg(long, value_name = "FILE")]
    pub(crate) certificate: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) passphrase: PassphraseArguments,
}

/// Where the passphrase or PIN is. Never an argument: others can read those.
#[derive(Clone, Debug, Args)]
pub(crate) struct PassphraseArguments {
    /// Read the passphrase or PIN from the first line of this file
    #[arg(long, value_name = "FILE")]
    pub(crate) passphrase_file: Option<PathBuf>,

    /// Read the passphrase or PIN from this environment variable
    #[arg(long, value_name = "NAME", conflicts_with = "passphrase_file")]
    pub(crate) passphrase_env: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Digest {
    Sha256,
    Sha384,
    Sha512,
}

/// How to sign.
#[derive(Clone, Debug, Args)]
pub(crate) struct SignatureArguments {
    /// The digest algorithm
    #[arg(long, value_enum, default_value_t = Digest::Sha256)]
    pub(crate) digest: Digest,

    /// Sign the page hashes of images, too
    #[arg(long)]
    pub(crate) page_hashes: bool,

    /// Claim no signing time; by default the present, or SOURCE_DATE_EPOCH
    #[arg(long)]
    pub(crate) no_signing_time: bool,

    /// What the file is, as Windows shows it
    #[arg(long, value_name = "TEXT")]
    pub(crate) description: Option<String>,

    /// Where more can be learned of it
    #[arg(long, value_name = "URL")]
    pub(crate) url: Option<String>,

    /// Get time stamps from this server (http://)
    #[arg(long, value_name = "URL")]
    pub(crate) time_stamp: Option<String>,
}

impl SignatureArguments {
    pub(crate) fn options(&self, existing: Existing) -> Result<SignOptions, Failure> {
        let digest = match self.digest {
            Digest::Sha256 => DigestAlgorithm::Sha256,
            Digest::Sha384 => DigestAlgorithm::Sha384,
            Digest::Sha512 => DigestAlgorithm::Sha512,
        };
        let signing_time = if self.no_signing_time {
            None
        } else {
            Some(present()?)
        };
        Ok(SignOptions {
            digest,
            page_hashes: self.page_hashes,
            signing_time,
            description: self.description.clone(),
            url: self.url.clone(),
            time_stamp: self.time_stamp.as_ref().map(TimeStampServer::new),
            existing,
        })
    }
}

impl SignerArguments {
    /// Opens the key.
    pub(crate) fn open(&self) -> Result<Signer, Failure> {
        if let Some(path) = &self.key {
            let text = read_text(path)?;
            let certificates = self.certificates()?.unwrap_or_else(|| text.clone());
            let encrypted = text.contains("BEGIN ENCRYPTED PRIVATE KEY");
            let passphrase = match encrypted {
                true => Some(self.passphrase.read("passphrase", path.display())?),
                false => None,
            };
            let signer = Signer::from_pem(&text, &certificates, passphrase.as_ref());
            return signer.map_err(|error| at(path, &error));
        }
        if let Some(path) = &self.pkcs12 {
            let bytes = read(path)?;
            let passphrase = self.passphrase.read("passphrase", path.display())?;
            return Signer::from_pkcs12(&bytes, &passphrase).map_err(|error| at(path, &error));
        }
        if let Some(program) = &self.sign_command {
            let arguments = self.sign_argument.clone();
            let command = CommandSigner::new(program, arguments, COMMAND_TIMEOUT);
            return Ok(Signer::from_command(command, &self.needed_certificates()?)?);
        }
        #[cfg(feature = "pkcs11")]
        if let Some(uri) = &self.pkcs11 {
            let pin = self.passphrase.read("PIN", uri)?;
            let module = self.pkcs11_module.as_deref();
            let token = hpbuild_signer::Pkcs11Signer::open(uri, module, pin)?;
            return Ok(Signer::from_pkcs11(token, &self.needed_certificates()?)?);
        }
        Err(Failure::new("no key to sign with")
            .hint("name one with --key, --pkcs12, --pkcs11 or --sign-command"))
    }

    /// The text of the certificate file, if one was named.
    pub(crate) fn certificates(&self) -> Result<Option<String>, Failure> {
        self.certificate.as_deref().map(read_text).transpose()
    }

    pub(crate) fn needed_certificates(&self) -> Result<String, Failure> {
        self.certificates()?.ok_or_else(|| {
            Failure::new("no certificate of the key").hint("name its PEM file with --certificate")
        })
    }
}

impl PassphraseArguments {
    /// The passphrase from file or environment, or from a person at a terminal.
    pub(crate) fn read(
        &self,
        what: &str,
        of: impl std::fmt::Display,
    ) -> Result<Passphrase, Failure> {
        if let Some(given) = self.given()? {
            return Ok(given);
        }
        if !std::io::stdin().is_terminal() {
            let message = format!("{of}: needs a {what}, and there is nobody to ask");
            return Err(
                Failure::new(message).hint("give it with --passphrase-file or --passphrase-env")
            );
        }
        let text = rpassword::prompt_password(format!("{what} of {of}: "));
        let text = text.map_err(|error| Failure::new(format!("{what} of {of}: {error}")))?;
        Ok(Passphrase::new(text))
    }

    /// The passphrase from file or environment, if either was named.
    pub(crate) fn given(&self) -> Result<Option<Passphrase>, Failure> {
        if let Some(path) = &self.passphrase_file {
            let text = read_text(path)?;
            let line = text.lines().next().unwrap_or_default();
            return Ok(Some(Passphrase::new(line.to_owned())));
        }
        let Some(name) = &self.passphrase_env else {
            return Ok(None);
        };
        match std::env::var(name) {
            Ok(text) => Ok(Some(Passphrase::new(text))),
            Err(error) => Err(Failure::new(format!(
                "environment variable {name}: {error}"
            ))),
        }
    }
}

/// The time that goes into outputs: `SOURCE_DATE_EPOCH` where it is set.
pub(crate) fn present() -> Result<u64, Failure> {
    match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(text) => text.trim().parse().map_err(|_| {
            let message = format!("SOURCE_DATE_EPOCH: expected seconds since 1970, found {text:?}");
            Failure::new(message)
        }),
        Err(_) => Ok(now()),
    }
}

/// The time by the clock.
pub(crate) fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_secs())
}

pub(crate) use crate::input::{read, read_text};

/// An error about this file.
pub(crate) fn at(path: &Path, error: &Error) -> Failure {
    Failure::new(format!("{}: {error}", path.display()))
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::new(error)
    }
}
